/* A convolution with everything around it. */
#ifndef FOVEAL_CONVOLVE_H
#define FOVEAL_CONVOLVE_H

#include "gemm.h"

typedef struct {
    Source in;
    const float *before_scale, *before_shift; /* of the input [channels], but for means, which have it; or NULL */
    float before_low, before_high;
    const float *weight; /* [ceil(outputs / OUTPUTS)][rows * columns * channels][OUTPUTS], zeros at the end */
    float *out;          /* [tiles][out_height][out_width][outputs] */
    Tail tail;
    int32_t rows, columns, stride, dilation; /* of the window */
    int32_t out_height, out_width, outputs;
} Convolution;

#endif
