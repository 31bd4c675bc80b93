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

/* Bytes from pixel to pixel in a panel of windows: an odd number of cache lines, so that pixels share no cache
   set. */
static inline int64_t panel_pitch(const ReducedConvolution *v) {
    return ((window_words(v) * WORD + 63) / 64 | 1) * 64;
}

/* Windows that fit into a panel. */
static inline int64_t panel_pixels(const ReducedConvolution *v) {
    const int64_t pixels = PANEL_BYTES / panel_pitch(v) / STEP * STEP;
    return pixels < STEP ? STEP : pixels > MOST_PIXELS ? MOST_PIXELS : pixels;
}

/* Outputs are split too where there are too few chunks for all threads. */
static inline void split_outputs(Work *w, const ReducedConvolution *v, int64_t wanted) {
    w->blocks = (v->outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
    w->groups = w->chunks >= wanted || !w->chunks ? 1 : (wanted + w->chunks - 1) / w->chunks;
    w->groups = w->groups > w->blocks ? w->blocks : w->groups;
}

static inline Work work_of(const ReducedConvolution *v, int32_t threads) {
    Work w = {.pixels = v->in.tiles * v->out_height * v->out_width, .pitch = panel_pitch(v)};
    const int64_t wanted = 4 * (int64_t)threads, most = panel_pixels(v);
    w.size = ((w.pixels + wanted - 1) / wanted + STEP - 1) / STEP * STEP;
    w.size = w.size > most ? most : w.size < STEP ? STEP : w.size;
    w.chunks = (w.pixels + w.size - 1) / w.size;
    split_outputs(&w, v, wanted);
    return w;
}

enum { LINES_BYTES = 256 << 10, LINES_PIXELS = 1024, LINE_COLUMNS = 256 };

/* A chunk of a panel of lines: whole tiles, or some rows and columns of one. */
typedef struct {
    int32_t tiles, rows, columns;
} Part;

/* Bytes from line to line of packed samples under `columns` windows: an odd number of cache lines, so that lines
   share no cache set. */
static inline int64_t line_bytes(const ReducedConvolution *v, int32_t columns) {
    const int64_t bytes = ((columns - 1) * (int64_t)v->stride + v->columns) * row_bytes(&v->in);
    return ((bytes + 63) / 64 | 1) * 64;
}

/* Lines under `rows` windows. */
static inline int64_t lines_under(const ReducedConvolution *v, int32_t rows) { return (rows - 1) * (int64_t)v->stride + v->rows; }

/* The largest chunk that fits and leaves enough of them for all threads; no tiles where not even one row fits.
   Columns are a multiple of `group`, beyond the map if need be. */
static inline Part part_of(const ReducedConvolution *v, int32_t threads, int32_t group) {
    const int64_t pixels = v->in.tiles * v->out_height * v->out_width, share = pixels / (4 * threads) + 1;
    const int64_t most = share < LINES_PIXELS ? share : LINES_PIXELS;
    Part p = {0, v->out_height, (v->out_width + group - 1) / group * group};
    p.columns = p.columns > LINE_COLUMNS ? LINE_COLUMNS : p.columns;
    while (p.columns > STEP && v->rows * line_bytes(v, p.columns) > LINES_BYTES) p.columns = (p.columns / 2 + group - 1) / group * group;
    if (v->rows * line_bytes(v, p.columns) > LINES_BYTES) return p;
    const int64_t area = (int64_t)p.rows * p.columns, bytes = lines_under(v, p.rows) * line_bytes(v, p.columns);
    p.tiles = 1;
    if (p.columns >= v->out_width && 2 * area <= most && 2 * bytes <= LINES_BYTES) {
        p.tiles = (int32_t)(most / area < LINES_BYTES / bytes ? most / area : LINES_BYTES / bytes);
        return p;
    }
    p.rows = p.rows > most / p.columns ? (int32_t)(most / p.columns) : p.rows;
    p.rows = p.rows < 1 ? 1 : p.rows;
    while (lines_under(v, p.rows) * line_bytes(v, p.columns) > LINES_BYTES) p.rows--;
    return p;
}

void convolve_u8_plain(const ReducedConvolution *v, Team team);
void convolve_u8_avx2(const ReducedConvolution *v, Team team);
void convolve_u8_vnni(const ReducedConvolution *v, Team team);
void convolve_u8_avx512(const ReducedConvolution *v, Team team);
void convolve_u8_neon(const ReducedConvolution *v, Team team);
void convolve_bf16_plain(const ReducedConvolution *v, Team team);
void convolve_bf16_avx2(const ReducedConvolution *v, Team team);
void convolve_bf16_avx512(const ReducedConvolution *v, Team team);

/* Samples in a window and samples in the lines under a line of windows that fast depthwise kernels take. */
enum { DEPTHWISE_TAPS = 25, DEPTHWISE_SAMPLES = 1 << 14, DEPTHWISE_CHANNELS = 4096 };

/* From a type to itself, without a residual. */
void depthwise_u8_avx512(const ReducedConvolution *v, Team team);
void depthwise_bf16_avx512(const ReducedConvolution *v, Team team);

#endif
