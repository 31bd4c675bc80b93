/* The inner block of a matrix product: PIXELS rows by two vectors of outputs, all in registers.

   Accumulators are named variables: kept in an array, compilers spill them to memory, which costs more than
   half of the speed. */
#ifndef FOVEAL_GEMM_H
#define FOVEAL_GEMM_H

#include "rows.h"

/* What happens to a sum before it is stored. */
typedef struct {
    const float *bias;     /* [outputs], or NULL */
    const float *residual; /* rows as the output's, or NULL */
    const float *scale;    /* of the residual [outputs], or NULL for 1 */
    float low, high;
} Tail;

#if PIXELS == 14
#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13)
#elif PIXELS == 12
#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#else
#define EACH(F) F(0) F(1) F(2) F(3) F(4) F(5)
#endif

enum { DEPTH = 256, PITCH = DEPTH + 16 }; /* pitch of a panel: no power of 2, so that rows share no cache set */

#define NEW(r) vec p##r = s0, q##r = s1;
#define OLD(r) p##r = load(c + (r) * pitch), q##r = load(c + (r) * pitch + LANES);
#define ADD(r) p##r += w0 * a[(r) * PITCH], q##r += w1 * a[(r) * PITCH];
#define RES(r) \
    p##r += m0 * load(t->residual + at + (r) * pitch), q##r += m1 * load(t->residual + at + (r) * pitch + LANES);
#define CUT(r) p##r = clamp(p##r, t->low, t->high), q##r = clamp(q##r, t->low, t->high);
#define PUT(r) store(c + (r) * pitch, p##r), store(c + (r) * pitch + LANES, q##r);

/* c[PIXELS][OUTPUTS] (+)= a[PIXELS][depth] w[depth][OUTPUTS]; `first` starts from the bias, `last` adds the
   residual, found at offset `at` as the output, and clamps. */
static void block(
    const float *restrict a, const float *restrict w, int64_t depth, float *restrict c, int64_t pitch,
    const Tail *t, int64_t o, int64_t at, int first, int last)
{
    vec s0 = {}, s1 = {};
    if (first && t->bias) s0 = load(t->bias + o), s1 = load(t->bias + o + LANES);
    EACH(NEW)
    if (!first) { EACH(OLD) }
    for (int64_t k = 0; k < depth; k++, a++, w += OUTPUTS) {
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

#endif
