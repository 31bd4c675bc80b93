/* One block of a matrix product; include with BLOCK (its name), EACH (its rows) and STEP (floats between rows).

   c[rows][OUTPUTS] (+)= sum over lines of a[rows][depth] w[line][depth][OUTPUTS], where the lines of a are
   `line_step` floats apart. `first` starts from the bias; `last` adds the residual, found at offset `at` as the
   output, and clamps. */
#define NEW(r) vec p##r = s0, q##r = s1;
#define OLD(r) p##r = load(c + (r) * pitch), q##r = load(c + (r) * pitch + LANES);
#define ADD(r) p##r += w0 * a[k + (r) * STEP], q##r += w1 * a[k + (r) * STEP];
#define RES(r) \
    p##r += m0 * load(t->residual + at + (r) * pitch), q##r += m1 * load(t->residual + at + (r) * pitch + LANES);
#define CUT(r) p##r = clamp(p##r, t->low, t->high), q##r = clamp(q##r, t->low, t->high);
#define PUT(r) store(c + (r) * pitch, p##r), store(c + (r) * pitch + LANES, q##r);

static inline void BLOCK(
    const float *restrict a, int64_t lines, int64_t line_step, int64_t depth, const float *restrict w,
    float *restrict c, int64_t pitch, const Tail *t, int64_t o, int64_t at, int first, int last)
{
    vec s0 = {}, s1 = {};
    if (first && t->bias) s0 = load(t->bias + o), s1 = load(t->bias + o + LANES);
    EACH(NEW)
    if (!first) { EACH(OLD) }
    for (int64_t line = 0; line < lines; line++, a += line_step)
        for (int64_t k = 0; k < depth; k++, w += OUTPUTS) {
            vec w0 = load(w), w1 = load(w + LANES);
            EACH(ADD)
        }
    if (last) {
        if (t->residual) {
            vec m0 = (vec){} + 1.0f, m1 = m0;
            if (t->scale) m0 = load(t->scale + o), m1 = load(t->scale + o + LANES);
            EACH(RES)
        }
        EACH(CUT)
    }
    EACH(PUT)
}

#undef NEW
#undef OLD
#undef ADD
#undef RES
#undef CUT
#undef PUT
#undef BLOCK
#undef STEP
#undef EACH
