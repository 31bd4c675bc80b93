/* One block of products in registers: pixels of a panel by outputs.

   Whoever includes this defines LANES (outputs in a vector), Vector, Weight and Value with the functions
   begin, weight_at, value_at, dot and finish, and EACH, which names the pixels and how each is reached:
   EACH(F) is F(pixel, base, multiple), base counting 3 pixels. PIXELS is their number, at most 12.

   Accumulators are named variables: kept in an array, compilers spill them to memory. */
#define NEW(r, b, m) Vector p##r = s0, q##r = s1;
#define ADD(r, b, m)                                                        \
    {                                                                       \
        const Value value = value_at(a##b + (m) * pitch);                   \
        p##r = dot(p##r, value, w0), q##r = dot(q##r, value, w1);           \
    }
#define PUT(r, b, m)                                                                  \
    finish(sums + (r) * BLOCK_OUTPUTS + half, p##r, correction0),                     \
        finish(sums + (r) * BLOCK_OUTPUTS + half + LANES, q##r, correction1);

#define ROW0(F) F(0, 0, 0) F(1, 0, 1) F(2, 0, 2)
#define ROW3(F) F(3, 1, 0) F(4, 1, 1) F(5, 1, 2)
#define ROW6(F) F(6, 2, 0) F(7, 2, 1) F(8, 2, 2) F(9, 3, 0) F(10, 3, 1) F(11, 3, 2)

#ifndef CORRECT
typedef int Correction;
#define correct(c, w) (c)
#endif

/* sums[PIXELS][32] = start + sum over lines and words of a[pixel][line][word] w[line][word][32]; pixels lie
   `pitch` bytes apart, lines `line_step`. */
static inline __attribute__((always_inline)) void block_at(
    const uint8_t *a, int64_t pitch, int64_t lines, int64_t line_step, int64_t words, const uint8_t *w,
    const int32_t *start, Sum *sums)
{
    for (int half = 0; half < BLOCK_OUTPUTS; half += 2 * LANES) {
        const Vector s0 = begin(start, half), s1 = begin(start, half + LANES);
        const uint8_t *from = w + half * WORD;
        Correction correction0 = {0}, correction1 = {0};
        EACH(NEW)
        for (int64_t line = 0; line < lines; line++) {
            const uint8_t *a0 = a + line * line_step, *a1 = a0 + 3 * pitch, *a2 = a1 + 3 * pitch, *a3 = a2 + 3 * pitch;
            (void)a1, (void)a2, (void)a3;
            for (int64_t k = 0; k < words; k++) {
                const Weight w0 = weight_at(from), w1 = weight_at(from + LANES * WORD);
                correction0 = correct(correction0, w0), correction1 = correct(correction1, w1);
                EACH(ADD)
                a0 += WORD, a1 += WORD, a2 += WORD, a3 += WORD;
                from += BLOCK_OUTPUTS * WORD;
            }
        }
        EACH(PUT)
    }
}
