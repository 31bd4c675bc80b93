/* Maps in reduced precision, 8-bit or bfloat16, and the kernels that work on them.

   Every kernel is called by all threads of one parallel region with the same arguments; it allocates nothing
   and has no barrier. Channels of 8-bit maps are a multiple of 4 and those of bfloat16 maps of 2; whoever has
   fewer pads rows, weights and tables with zeros. A kernel reads and writes the padded rows only.

   Quantised values stand for scale * (q - zero). All kernels work in units of the output: the caller folds
   scales and zero points of inputs, weights and outputs into the tables, so that an 8-bit output is
   round(value), to nearest even, and clamps at 0 and 255 are clamps like any other. */
#ifndef FOVEAL_REDUCED_H
#define FOVEAL_REDUCED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "team.h"

enum { F32, BF16, U8 }; /* types of samples */

/* A map as rows of channels. With an index, [tiles][height][width] holds the row of every sample, border
   included, or -1 outside the image: rows below `own_rows` are in `own`, the others in `means`. Without one,
   `own` is [tiles][height][width][channels]. */
typedef struct {
    const void *own, *means;
    const void *outside; /* what lies outside the image [channels] */
    const int32_t *index;
    int64_t own_rows, tiles;
    int32_t height, width, channels, type;
    int32_t top, left; /* place of the first window's corner; below 0 on a plain map with padding */
} Samples;

/* A convolution of an 8-bit or bfloat16 map: out = clamp(scale * sum + bias + residual_scale * residual),
   where a sum of 8-bit products starts at `start`, which takes the input's zero point away. */
typedef struct {
    Samples in;
    const void *weight;   /* [blocks][rows * columns * channels / GROUP][32][GROUP], GROUP 4 (int8) or 2 (bfloat16) */
    const int32_t *start; /* 8-bit: [32 * blocks]; bfloat16: NULL */
    const float *scale, *bias, *residual_scale; /* [32 * blocks] each */
    const void *residual;                       /* rows as the output's, or NULL */
    void *out;                                  /* [tiles][out_height][out_width][outputs] */
    float low, high;
    int32_t residual_type, out_type;
    int32_t rows, columns, stride, dilation; /* of the window */
    int32_t out_height, out_width, outputs;
    int32_t path;  /* instructions, see below */
    void *scratch; /* scratch_bytes for every thread, aligned to 64 bytes */
    int64_t scratch_bytes;
} ReducedConvolution;

/* Instructions that may be used; BEST takes what the processor has, or what FOVEAL_INSTRUCTIONS names. */
enum { BEST, PLAIN_C, AVX2, AVX_VNNI, AVX512, NEON_DOT, PATHS };

/* Path that is taken for a type of input: `wanted` if the processor has it, else -1. */
int32_t reduced_path(int32_t type, int32_t wanted);

/* Bytes of scratch that a thread needs. */
int64_t reduced_scratch(const ReducedConvolution *v);

void reduced_convolve_step(const ReducedConvolution *v, Team team);

enum { WORD = 4, BLOCK_OUTPUTS = 32 }; /* bytes that are multiplied together, outputs in a block */

static inline int64_t type_bytes(int32_t type) { return type == F32 ? 4 : type == BF16 ? 2 : 1; }

static inline int64_t row_bytes(const Samples *s) { return s->channels * type_bytes(s->type); }

/* Row of a sample; -1 outside. */
static inline int64_t sample_row(const Samples *s, int64_t tile, int32_t y, int32_t x) {
    if (s->index) return s->index[(tile * s->height + y) * s->width + x];
    if ((uint32_t)y >= (uint32_t)s->height || (uint32_t)x >= (uint32_t)s->width) return -1;
    return (tile * s->height + y) * s->width + x;
}

/* Where a row lies in memory. */
static inline const uint8_t *row_address(const Samples *s, int64_t row, int64_t bytes) {
    if (row < 0) return s->outside;
    if (!s->index || row < s->own_rows) return (const uint8_t *)s->own + row * bytes;
    return (const uint8_t *)s->means + (row - s->own_rows) * bytes;
}

static inline float from_bf16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Round to nearest even; not a number stays one. */
static inline uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* Round to nearest even and saturate. */
static inline uint8_t to_u8(float value) {
    value = __builtin_rintf(value);
    value = value > 0 ? value : 0;
    return (uint8_t)(int32_t)(value < 255 ? value : 255);
}

#endif
