/* Windows on maps in reduced precision that need no matrix product: maximum, depthwise, enlargement. */
#include <math.h>
#include "platform/export.h"
#include "reduced/work.h"
#include "platform/region.h"

enum { PIECE = 64, MOST_TAPS = 121 }; /* channels that are worked on together, samples in a window */

/* Addresses of the samples that a window sees; within a plain map they follow from the first one. */
static inline void find_taps(
    const Samples *s, int32_t rows, int32_t columns, int32_t dilation, int64_t tile, int32_t y, int32_t x, const uint8_t **taps)
{
    const int64_t bytes = row_bytes(s);
    const int32_t last_y = y + (rows - 1) * dilation, last_x = x + (columns - 1) * dilation;
    if (!s->index && y >= 0 && x >= 0 && last_y < s->height && last_x < s->width) {
        const uint8_t *line = (const uint8_t *)s->own + ((tile * s->height + y) * s->width + x) * bytes;
        for (int32_t i = 0; i < rows; i++, line += dilation * s->width * bytes)
            for (int32_t j = 0; j < columns; j++) *taps++ = line + j * dilation * bytes;
        return;
    }
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < columns; j++)
            *taps++ = row_address(s, sample_row(s, tile, y + i * dilation, x + j * dilation), bytes);
}

/* A piece of bytes as a vector of the compiler: left to itself it compares one by one. */
typedef uint8_t piece_vec __attribute__((vector_size(PIECE), aligned(1), may_alias));

static void largest_u8(const uint8_t **taps, int32_t count, int32_t channels, uint8_t *to) {
    int32_t c = 0;
    for (; c + PIECE <= channels; c += PIECE) {
        piece_vec best = *(const piece_vec *)(taps[0] + c);
        for (int32_t t = 1; t < count; t++) {
            const piece_vec value = *(const piece_vec *)(taps[t] + c);
            const piece_vec larger = (piece_vec)(value > best);
            best = (larger & value) | (~larger & best);
        }
        *(piece_vec *)(to + c) = best;
    }
    for (; c < channels; c++) {
        uint8_t best = taps[0][c];
        for (int32_t t = 1; t < count; t++) best = taps[t][c] > best ? taps[t][c] : best;
        to[c] = best;
    }
}

static void largest(const uint8_t **taps, int32_t count, int32_t type, int32_t channels, void *out, int64_t at) {
    for (int32_t c = 0; c < channels; c += PIECE) {
        const int32_t many = channels - c < PIECE ? channels - c : PIECE;
        float best[PIECE], value[PIECE];
        read_values(best, taps[0], type, c, many);
        for (int32_t t = 1; t < count; t++) {
            read_values(value, taps[t], type, c, many);
            for (int32_t i = 0; i < many; i++) best[i] = value[i] > best[i] || isnan(value[i]) ? value[i] : best[i];
        }
        write_values(out, type, at + c, best, many);
    }
}

void reduced_max_pool_step(const ReducedPool *v, Team team) {
    const int64_t lines = v->in.tiles * v->out_height, size = lines_per_task(lines, &team);
    const int32_t channels = v->in.channels, count = v->rows * v->columns;
    const uint8_t *taps[MOST_TAPS];
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++)
            for (int32_t x = 0; x < v->out_width; x++) {
                const int64_t at = (line * v->out_width + x) * channels;
                find_taps(&v->in, v->rows, v->columns, v->dilation, line / v->out_height,
                          (int32_t)(line % v->out_height) * v->stride + v->in.top, x * v->stride + v->in.left, taps);
                if (v->in.type == U8) largest_u8(taps, count, channels, (uint8_t *)v->out + at);
                else largest(taps, count, v->in.type, channels, v->out, at);
            }
}

EXPORT void foveal_reduced_max_pool(const ReducedPool *v) { IN_REGION(reduced_max_pool_step(v, team)); }

/* Sixteen channels in vectors of the compiler: left to itself it widens bytes one by one. */
enum { WIDE = 16 };
typedef uint8_t bytes_vec __attribute__((vector_size(WIDE), aligned(1), may_alias));
typedef int8_t steps_vec __attribute__((vector_size(WIDE), aligned(1), may_alias));
typedef int16_t short_vec __attribute__((vector_size(2 * WIDE)));
typedef int32_t int_vec __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

static inline __attribute__((always_inline)) int_vec product(const uint8_t *from, const int8_t *w) {
    const short_vec x = __builtin_convertvector(*(const bytes_vec *)from, short_vec);
    const short_vec y = __builtin_convertvector(*(const steps_vec *)w, short_vec);
    return __builtin_convertvector(x * y, int_vec); /* 255 * -128 is a 16-bit number */
}

static inline __attribute__((always_inline)) void sum_u8(
    const ReducedConvolution *v, const uint8_t **taps, int32_t c, int32_t count, float *values)
{
    const int32_t many = v->rows * v->columns, whole = count / WIDE * WIDE;
    const int64_t channels = v->in.channels;
    const int8_t *w = (const int8_t *)v->weight + c;
    for (int32_t i = 0; i < whole; i += WIDE) {
        int_vec sum = *(const int_vec *)(v->start + c + i);
        for (int32_t t = 0; t < many; t++) sum += product(taps[t] + c + i, w + t * channels + i);
        for (int32_t k = 0; k < WIDE; k++) values[i + k] = (float)sum[k];
    }
    for (int32_t i = whole; i < BLOCK_OUTPUTS; i++) {
        int32_t sum = i < count ? v->start[c + i] : 0;
        for (int32_t t = 0; t < many && i < count; t++) sum += taps[t][c + i] * w[t * channels + i];
        values[i] = (float)sum;
    }
}

static inline __attribute__((always_inline)) void sum_bf16(const ReducedConvolution *v, const uint8_t **taps, int32_t c, int32_t count, float *values) {
    float x[BLOCK_OUTPUTS], weight[BLOCK_OUTPUTS];
    memset(values, 0, BLOCK_OUTPUTS * sizeof *values);
    for (int32_t t = 0; t < v->rows * v->columns; t++) {
        read_values(x, taps[t], BF16, c, count);
        read_values(weight, v->weight, BF16, (int64_t)t * v->in.channels + c, count);
        for (int32_t i = 0; i < count; i++) values[i] = __builtin_fmaf(x[i], weight[i], values[i]);
    }
}

typedef float Sum;
#include "reduced/processors/finish.h"

static inline __attribute__((always_inline)) void depthwise_piece(
    const ReducedConvolution *v, const uint8_t **taps, int32_t c, int64_t pixel, int32_t count)
{
    float values[BLOCK_OUTPUTS];
    if (v->in.type == U8) sum_u8(v, taps, c, count, values);
    else sum_bf16(v, taps, c, count, values);
    finish_block(v, values, pixel, 1, c);
}

static int is_fast(const ReducedConvolution *v) {
    const int64_t across = (v->out_width - 1) * (int64_t)v->stride + (v->columns - 1) * (int64_t)v->dilation + 1;
    return v->out_type == v->in.type && !v->residual && v->rows * v->columns <= DEPTHWISE_TAPS &&
           v->rows * across <= DEPTHWISE_SAMPLES && v->in.channels <= DEPTHWISE_CHANNELS && reduced_path(v->in.type, v->path) == AVX512;
}

void reduced_depthwise_step(const ReducedConvolution *v, Team team) {
#if defined(__x86_64__)
    if (is_fast(v)) {
        if (v->in.type == U8) depthwise_u8_avx512(v, team);
        else depthwise_bf16_avx512(v, team);
        return;
    }
#endif
    const int64_t lines = v->in.tiles * v->out_height, size = lines_per_task(lines, &team);
    const int32_t channels = v->in.channels;
    const uint8_t *taps[MOST_TAPS];
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++)
            for (int32_t x = 0; x < v->out_width; x++) {
                const int64_t pixel = line * v->out_width + x;
                find_taps(&v->in, v->rows, v->columns, v->dilation, line / v->out_height,
                          (int32_t)(line % v->out_height) * v->stride + v->in.top, x * v->stride + v->in.left, taps);
                int32_t c = 0;
                for (; c + BLOCK_OUTPUTS <= channels; c += BLOCK_OUTPUTS) depthwise_piece(v, taps, c, pixel, BLOCK_OUTPUTS);
                if (c < channels) depthwise_piece(v, taps, c, pixel, channels - c);
            }
}

EXPORT void foveal_reduced_depthwise(const ReducedConvolution *v) { IN_REGION(reduced_depthwise_step(v, team)); }

/* Where a place between samples lies on one axis: the two samples beside it and the share of the second. */
typedef struct {
    int32_t at[2];
    float share;
} Between;

static inline Between between(int32_t place, int32_t factor, int32_t border, int32_t full) {
    const float y = ((float)place + 0.5f) / (float)factor - 0.5f;
    const int32_t before = (int32_t)floorf(y);
    Between b = {{before + border, before + 1 + border}, y - (float)before};
    for (int k = 0; k < 2 && !border; k++) b.at[k] = b.at[k] < 0 ? 0 : b.at[k] >= full ? full - 1 : b.at[k];
    return b;
}

static inline __attribute__((always_inline)) void enlarge_piece(
    const ReducedEnlargement *v, const uint8_t **taps, const float *share, int32_t c, int64_t at, int32_t count)
{
    float sum[PIECE] = {0}, x[PIECE];
    for (int k = 0; k < 4; k++) {
        read_values(x, taps[k], v->in.type, c, count);
        for (int32_t i = 0; i < count; i++) sum[i] = __builtin_fmaf(share[k], x[i], sum[i]);
    }
    for (int32_t i = 0; i < count; i++) sum[i] = __builtin_fmaf(sum[i], v->scale, v->shift);
    if (v->more) {
        read_values(x, v->more, v->more_type, at + c, count);
        for (int32_t i = 0; i < count; i++) sum[i] = __builtin_fmaf(x[i], v->more_scale, sum[i]);
    }
    for (int32_t i = 0; i < count; i++) sum[i] = within_limits(sum[i], v->low, v->high);
    if (v->out_type == U8 && (v->in.type != U8 || (v->more && v->more_type != U8))) notice_unreal(sum, count, v->unreal);
    write_values(v->out, v->out_type, at + c, sum, count);
}

static void enlarge_line(const ReducedEnlargement *v, int64_t line) {
    const Samples *s = &v->in;
    const int32_t border = s->index ? 1 : 0, channels = s->channels;
    const int64_t tile = line / v->out_height, bytes = row_bytes(s);
    const Between down = between((int32_t)(line % v->out_height), v->factor, border, s->height);
    for (int32_t i = 0; i < v->out_width; i++) {
        const Between across = between(i, v->factor, border, s->width);
        const uint8_t *taps[4];
        float share[4];
        for (int k = 0; k < 4; k++) {
            taps[k] = row_address(s, sample_row(s, tile, down.at[k / 2], across.at[k % 2]), bytes);
            share[k] = (k / 2 ? down.share : 1 - down.share) * (k % 2 ? across.share : 1 - across.share);
        }
        const int64_t at = (line * v->out_width + i) * channels;
        int32_t c = 0;
        for (; c + PIECE <= channels; c += PIECE) enlarge_piece(v, taps, share, c, at, PIECE);
        if (c < channels) enlarge_piece(v, taps, share, c, at, channels - c);
    }
}

void reduced_enlarge_step(const ReducedEnlargement *v, Team team) {
    const int64_t lines = v->in.tiles * v->out_height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) enlarge_line(v, line);
}

EXPORT void foveal_reduced_enlarge(const ReducedEnlargement *v) { IN_REGION(reduced_enlarge_step(v, team)); }
