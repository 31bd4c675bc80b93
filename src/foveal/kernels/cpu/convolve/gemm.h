/* The inner blocks of matrix products: rows of pixels by two vectors of outputs, all in registers.

   Accumulators are named variables: kept in an array, compilers spill them to memory, which costs more than
   half of the speed. */
#ifndef FOVEAL_GEMM_H
#define FOVEAL_GEMM_H

#include "platform/rows.h"

/* What happens to a sum before it is stored. */
typedef struct {
    const float *bias;     /* [outputs], or NULL */
    const float *residual; /* rows as the output's, or NULL */
    const float *scale;    /* of the residual [outputs], or NULL for 1 */
    float low, high;
} Tail;

enum { DEPTH = 256, PITCH = DEPTH + 16 }; /* pitch of a panel: no power of 2, so that rows share no cache set */

#define EACH6(F) F(0) F(1) F(2) F(3) F(4) F(5)
#define EACH8(F) EACH6(F) F(6) F(7)
#define EACH12(F) EACH8(F) F(8) F(9) F(10) F(11)
#define EACH14(F) EACH12(F) F(12) F(13)

/* Rows of a panel. */
#define BLOCK block
#define STEP PITCH
#if PIXELS == 14
#define EACH EACH14
#elif PIXELS == 12
#define EACH EACH12
#else
#define EACH EACH6
#endif
#include "convolve/block.h"

/* Windows of an RGB image that overlap in memory, one pixel or two apart. */
#define NARROW 8
#define BLOCK narrow3
#define STEP 3
#define EACH EACH8
#include "convolve/block.h"
#define BLOCK narrow6
#define STEP 6
#define EACH EACH8
#include "convolve/block.h"

#endif
