/* A convolution with everything around it. */
#ifndef FOVEAL_CONVOLVE_H
#define FOVEAL_CONVOLVE_H

#include "convolve/gemm.h"
#include "platform/team.h"

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

/* How work is shared: chunks of pixels (or squares) of a size, times groups of outputs. */
typedef struct {
    int64_t size, chunks, groups;
} Share;

/* Where weights fit the cache, pixels are split; where they do not, every chunk reads them all from memory, so
   chunks are as large as they may be and outputs are split. */
static inline Share share_work(int64_t pixels, int64_t most, int64_t blocks, int64_t depth, int32_t threads) {
    const int64_t wanted = 4 * threads, large = blocks * OUTPUTS * depth * (int64_t)sizeof(float) > 1 << 20;
    int64_t size = large ? pixels : (pixels + wanted - 1) / wanted;
    size = (size + PIXELS - 1) / PIXELS * PIXELS;
    size = size > most ? most : size;
    const int64_t chunks = (pixels + size - 1) / size;
    int64_t groups = chunks >= wanted ? 1 : (wanted + chunks - 1) / chunks;
    groups = groups > blocks / 2 ? blocks / 2 : groups;
    return (Share){size, chunks, groups < 1 ? 1 : groups};
}

void convolve_step(const Convolution *v, Team team);
/* `scratch` belongs to the thread and has room for winograd_scratch floats, a multiple of 16. */
void winograd_step(const Convolution *v, int32_t side, float *scratch, Team team);
int64_t winograd_scratch(int64_t channels, int32_t side);

#endif
