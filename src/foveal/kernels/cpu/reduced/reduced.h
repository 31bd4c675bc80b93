/* Maps in reduced precision, 8-bit or bfloat16, and the kernels that work on them.

   Every kernel is called by all threads of one parallel region with the same arguments; it allocates nothing
   and has no barrier. Channels of 8-bit maps are a multiple of 4 and those of bfloat16 maps of 2; whoever has
   fewer pads rows, weights and tables with zeros. A kernel reads and writes the padded rows only.

   Quantised values stand for scale * (q - zero). All kernels work in units of the output: the caller folds
   scales and zero points of inputs, weights and outputs into the tables, so that an 8-bit output is
   round(value), to nearest even, and clamps at 0 and 255 are clamps like any other.

   NaN and infinity stay what they are in bfloat16 and in single precision; 8 bits have no place for them. Where
   `unreal` is not NULL it is set to 1 if one of them goes into 8 bits. Products of 8-bit maps with finite tables
   cannot be one: a sum of integers is finite, and so is what is added to it in one rounding, or it is infinite by
   overflow and saturates as every large number does. */
#ifndef FOVEAL_REDUCED_H
#define FOVEAL_REDUCED_H

#include <stdint.h>
#include "platform/team.h"

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
    int32_t *unreal; /* as below */
} ReducedConvolution;

/* Instructions that may be used; BEST takes what the processor has, or what FOVEAL_INSTRUCTIONS names. */
enum { BEST, PLAIN_C, AVX2, AVX_VNNI, AVX512, NEON_DOT, PATHS };

/* Path that is taken for a type of input: `wanted` if the processor has it, else -1. */
int32_t reduced_path(int32_t type, int32_t wanted);

/* Bytes of scratch that a thread needs. */
int64_t reduced_scratch(const ReducedConvolution *v);

void reduced_convolve_step(const ReducedConvolution *v, Team team);

/* Every channel by its own window; no scratch. weight [rows * columns][channels], int8 or bfloat16; outputs are
   the channels. */
void reduced_depthwise_step(const ReducedConvolution *v, Team team);

/* Largest sample of every window. Out: as the input's type [tiles][out_height][out_width][channels]. */
typedef struct {
    Samples in;
    void *out;
    int32_t rows, columns, stride, dilation, out_height, out_width;
} ReducedPool;

void reduced_max_pool_step(const ReducedPool *v, Team team);

/* Bilinear enlargement by a whole factor, half-pixel centres, and a sum with another map:
   out = clamp(scale * x + shift + more_scale * more). The input has a border of 1 on every side (of an index)
   or repeats its edge (a plain map). */
typedef struct {
    Samples in;
    const void *more; /* rows as the output's, or NULL */
    void *out;        /* [tiles][out_height][out_width][channels] */
    float scale, shift, more_scale, low, high;
    int32_t more_type, out_type, factor, out_height, out_width;
    int32_t *unreal;
} ReducedEnlargement;

void reduced_enlarge_step(const ReducedEnlargement *v, Team team);

/* Rows from rows: out = clamp(scale * x + shift + more_scale * more). Converts between types, applies a
   normalisation and its activation, adds two maps, joins them. Channels that the input lacks become shift. */
typedef struct {
    const void *in;            /* [rows][in_channels] */
    const float *scale, *shift; /* [channels], or NULL for 1 and 0 */
    const void *more;          /* [rows][channels], or NULL */
    const float *more_scale;   /* [channels], or NULL for 1 */
    void *out;                 /* [rows][pitch], written from channel `at` on */
    int64_t rows;
    float low, high;
    int32_t in_channels, channels, in_type, more_type, out_type, pitch, at;
    int32_t *unreal;
} ReducedChange;

void reduced_change_step(const ReducedChange *v, Team team);

/* Averages of a map's rows, in the map's type: out[m] = sum of share * x, the rest of the share being
   `unknown`. */
typedef struct {
    Samples in;
    const int32_t *start, *source; /* [means + 1], [parts] */
    const float *share;            /* [parts] */
    const void *unknown;           /* [channels] */
    void *out;                     /* [means][channels] */
    int64_t means;
} ReducedMeans;

void reduced_means_step(const ReducedMeans *v, Team team);

/* Plain maps of half the size: means of 2x2 samples, of those that exist, in the map's type. Out:
   [tiles][(height + 1) / 2][(width + 1) / 2][channels]. */
typedef struct {
    Samples in;
    void *out;
} ReducedHalving;

void reduced_halve_step(const ReducedHalving *v, Team team);

#endif

