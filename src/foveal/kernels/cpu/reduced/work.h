/* How the work of a convolution in reduced precision is shared. */
#ifndef FOVEAL_REDUCED_WORK_H
#define FOVEAL_REDUCED_WORK_H

#include "reduced/samples.h"

enum { WORD = 4, BLOCK_OUTPUTS = 32 }; /* bytes that are multiplied together, outputs in a block */

enum { STEP = 12, MOST_PIXELS = 96, PANEL_BYTES = 512 << 10 };

/* Chunks of `size` pixels, times groups of blocks of outputs. */
typedef struct {
    int64_t pixels, size, chunks, blocks, groups, pitch;
} Work;

static inline int64_t window_words(const ReducedConvolution *v) {
    return (int64_t)v->rows * v->columns * row_bytes(&v->in) / WORD;
}

/* Bytes from pixel to pixel in a panel: an odd number of cache lines, so that pixels share no cache set. */
static inline int64_t panel_pitch(const ReducedConvolution *v) {
    return ((window_words(v) * WORD + 63) / 64 | 1) * 64;
}

/* Pixels of a panel that stays in the second-level cache. */
static inline int64_t panel_pixels(const ReducedConvolution *v) {
    const int64_t pixels = PANEL_BYTES / panel_pitch(v) / STEP * STEP;
    return pixels < STEP ? STEP : pixels > MOST_PIXELS ? MOST_PIXELS : pixels;
}

/* Pixels are split; where there are too few of them for all threads, outputs are split too. */
static inline Work work_of(const ReducedConvolution *v, int32_t threads) {
    Work w = {.pixels = v->in.tiles * v->out_height * v->out_width, .pitch = panel_pitch(v)};
    const int64_t wanted = 4 * (int64_t)threads, most = panel_pixels(v);
    w.size = ((w.pixels + wanted - 1) / wanted + STEP - 1) / STEP * STEP;
    w.size = w.size > most ? most : w.size < STEP ? STEP : w.size;
    w.chunks = (w.pixels + w.size - 1) / w.size;
    w.blocks = (v->outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
    w.groups = w.chunks >= wanted || !w.chunks ? 1 : (wanted + w.chunks - 1) / w.chunks;
    w.groups = w.groups > w.blocks ? w.blocks : w.groups;
    return w;
}

enum { NARROW_BYTES = 16 };

/* Whether windows overlap in lines of a few channels. */
static inline int is_narrow(const ReducedConvolution *v) {
    return row_bytes(&v->in) <= NARROW_BYTES && v->dilation == 1 && v->columns > 1;
}

/* Bytes of a line of samples under MOST_PIXELS windows. */
static inline int64_t narrow_line_bytes(const ReducedConvolution *v) {
    return (((MOST_PIXELS - 1) * (int64_t)v->stride + v->columns) * row_bytes(&v->in) + 63) / 64 * 64;
}

void convolve_u8_plain(const ReducedConvolution *v, Team team);
void convolve_u8_avx2(const ReducedConvolution *v, Team team);
void convolve_u8_vnni(const ReducedConvolution *v, Team team);
void convolve_u8_avx512(const ReducedConvolution *v, Team team);
void convolve_u8_neon(const ReducedConvolution *v, Team team);
void convolve_bf16_plain(const ReducedConvolution *v, Team team);
void convolve_bf16_avx2(const ReducedConvolution *v, Team team);
void convolve_bf16_avx512(const ReducedConvolution *v, Team team);

#endif
