/* One block of products in registers: pixels of a panel by outputs.

   Whoever includes this defines LANES (outputs in a vector), Vector, Weight and Value with the functions
   begin, weight_at, value_at, dot and finish, PIXELS (their number: 3, 6 or 12) and GROUP: how many neighbours, one
   pitch apart, are reached from one address. Addresses take registers.

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

/* EACH(F) is F(pixel, group, place in the group) for every pixel. */
#if PIXELS == 3 && GROUP == 1
#define EACH(F) F(0, 0, 0) F(1, 1, 0) F(2, 2, 0)
#elif PIXELS == 6 && GROUP == 2
#define EACH(F) F(0, 0, 0) F(1, 0, 1) F(2, 1, 0) F(3, 1, 1) F(4, 2, 0) F(5, 2, 1)
#elif PIXELS == 12 && GROUP == 2
#define EACH(F)                                                          \
    F(0, 0, 0) F(1, 0, 1) F(2, 1, 0) F(3, 1, 1) F(4, 2, 0) F(5, 2, 1)    \
    F(6, 3, 0) F(7, 3, 1) F(8, 4, 0) F(9, 4, 1) F(10, 5, 0) F(11, 5, 1)
#endif
enum { GROUPS = PIXELS / GROUP };

#ifndef CORRECT
typedef int Correction;
#define correct(c, w) (c)
#endif

/* sums[PIXELS][32] = start + sum over lines and words of a[pixel][line][word] w[line][word][32]; a group of pixels
   begins at[group] bytes from a, its pixels lie `pitch` bytes apart, lines `line_step`. */
static inline __attribute__((always_inline)) void block_at(
    const uint8_t *a, const int32_t *at, int64_t pitch, int64_t lines, int64_t line_step, int64_t words, const uint8_t *w,
    const int32_t *start, Sum *sums)
{
    for (int half = 0; half < BLOCK_OUTPUTS; half += 2 * LANES) {
        const Vector s0 = begin(start, half), s1 = begin(start, half + LANES);
        const uint8_t *from = w + half * WORD;
        Correction correction0 = {0}, correction1 = {0};
        EACH(NEW)
        for (int64_t line = 0; line < lines; line++) {
            const uint8_t *b = a + line * line_step;
            const uint8_t *a0 = b + at[0], *a1 = b + at[1], *a2 = b + at[2];
            const uint8_t *a3 = b + at[3 % GROUPS], *a4 = b + at[4 % GROUPS], *a5 = b + at[5 % GROUPS];
            (void)a3, (void)a4, (void)a5;
            for (int64_t k = 0; k < words; k++) {
                const Weight w0 = weight_at(from), w1 = weight_at(from + LANES * WORD);
                correction0 = correct(correction0, w0), correction1 = correct(correction1, w1);
                EACH(ADD)
                a0 += WORD, a1 += WORD, a2 += WORD, a3 += WORD, a4 += WORD, a5 += WORD;
                from += BLOCK_OUTPUTS * WORD;
            }
        }
        EACH(PUT)
    }
}
