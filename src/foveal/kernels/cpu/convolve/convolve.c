/* Convolution that reads its windows through an index: borders, levels and the image's edge are only other
   rows, so tiles need no border pass and no padding.

   Windows of a chunk of pixels are packed into a panel that stays in the cache; blocks of pixels and outputs
   are then multiplied in registers, and bias, residual and clamp are applied before the only store.
   Sources: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008 (panels);
   Dukhan, "The indirect convolution algorithm", arXiv:1907.02129 (windows through pointers). */
#include "platform/export.h"
#include "convolve/convolve.h"
#include "platform/region.h"

enum { CHUNK = 12 * PIXELS };

/* Copy a piece of a row's channels, the input's own scale, shift and clamp applied where there are some. */
static inline void copy(const Convolution *v, int scaled, float *to, const float *from, int64_t first, int64_t count) {
    const int64_t whole = count & -(int64_t)LANES;
    if (scaled) {
        const float *scale = v->before_scale + first, *shift = v->before_shift + first;
        from += first;
        for (int64_t i = 0; i < whole; i += LANES)
            store(to + i, clamp(load(from + i) * load(scale + i) + load(shift + i), v->before_low, v->before_high));
        for (int64_t i = whole; i < count; i++) {
            float x = from[i] * scale[i] + shift[i];
            x = x < v->before_low ? v->before_low : x;
            to[i] = x > v->before_high ? v->before_high : x;
        }
        return;
    }
    from += first;
    for (int64_t i = 0; i < whole; i += LANES) store(to + i, load(from + i));
    if (whole == count) return;
    if (whole) store(to + count - LANES, load(from + count - LANES));
    else for (int64_t i = 0; i < count; i++) to[i] = from[i];
}

/* Number of columns whose samples lie one after the other in memory, from a sample on. */
static inline int32_t run_of(const Source *s, int64_t tile, int32_t y, int32_t x, int64_t row, int32_t most) {
    if (!s->index) return most < s->width - x ? most : s->width - x;
    int32_t run = 1;
    while (run < most && row_at(s, tile, y, x + run) == row + run) run++;
    while (run > 1 && !same_source(s, row, row + run - 1)) run--;
    return run;
}

/* Write the floats [start, stop) of one window, in the order row, column, channel. */
static void pack_window(const Convolution *v, float *to, int64_t tile, int32_t y, int32_t x, int64_t start, int64_t stop) {
    const Source *s = &v->in;
    const int64_t channels = s->channels;
    const int merge = v->dilation == 1 && !v->before_scale;
    int64_t at = 0;
    for (int32_t i = 0; i < v->rows; i++, y += v->dilation) {
        if (at + v->columns * channels <= start) {
            at += v->columns * channels;
            continue;
        }
        for (int32_t j = 0; j < v->columns && at < stop;) {
            const int32_t here = x + j * v->dilation;
            const int64_t row = row_at(s, tile, y, here);
            const int32_t run = merge && row >= 0 ? run_of(s, tile, y, here, row, v->columns - j) : 1;
            const int64_t end = at + run * channels, from = at < start ? start : at, to_end = end < stop ? end : stop;
            const int scaled = v->before_scale && row >= 0 && (!s->index || row < s->own_rows + s->kept_rows);
            if (from < to_end) copy(v, scaled, to + (from - start), row_of(s, row), from - at, to_end - from);
            at = end, j += run;
        }
    }
}

/* Outputs [from, to) of a chunk of pixels, blocks of the panel by blocks of the weights. */
static void multiply(
    const Convolution *v, const float *panel, int64_t pixel, int64_t count, int64_t start, int64_t stop,
    int32_t from, int32_t to)
{
    const int64_t depth = (int64_t)v->rows * v->columns * v->in.channels, pitch = v->outputs;
    const int first = start == 0, last = stop == depth;
    float c[PIXELS * OUTPUTS], residual[PIXELS * OUTPUTS], bias[OUTPUTS], scale[OUTPUTS];
    for (int32_t o = from; o < to; o += OUTPUTS) {
        const float *w = v->weight + (int64_t)o * depth + start * OUTPUTS;
        const int32_t width = to - o < OUTPUTS ? to - o : OUTPUTS;
        for (int64_t p = 0; p < count; p += PIXELS) {
            const int64_t height = count - p < PIXELS ? count - p : PIXELS, at = (pixel + p) * pitch + o;
            const float *a = panel + p * PITCH;
            if (width == OUTPUTS && height == PIXELS) {
                block(a, 1, 0, stop - start, w, v->out + at, pitch, &v->tail, o, at, first, last);
                continue;
            }
            Tail tail = v->tail; /* the edge of the output goes through a full block beside it */
            if (tail.bias) tail.bias = memcpy(bias, tail.bias + o, width * sizeof(float));
            if (tail.scale) tail.scale = memcpy(scale, tail.scale + o, width * sizeof(float));
            for (int64_t r = 0; r < height; r++) {
                if (!first) memcpy(c + r * OUTPUTS, v->out + at + r * pitch, width * sizeof(float));
                if (last && tail.residual)
                    memcpy(residual + r * OUTPUTS, v->tail.residual + at + r * pitch, width * sizeof(float));
            }
            if (tail.residual) tail.residual = residual;
            block(a, 1, 0, stop - start, w, c, OUTPUTS, &tail, 0, 0, first, last);
            for (int64_t r = 0; r < height; r++)
                memcpy(v->out + at + r * pitch, c + r * OUTPUTS, width * sizeof(float));
        }
    }
}

static void chunk(const Convolution *v, float *panel, int64_t pixel, int64_t count, int32_t from, int32_t to) {
    const int64_t depth = (int64_t)v->rows * v->columns * v->in.channels;
    const int64_t parts = (depth + DEPTH - 1) / DEPTH, area = (int64_t)v->out_height * v->out_width;
    for (int64_t part = 0; part < parts; part++) {
        const int64_t start = depth * part / parts, stop = depth * (part + 1) / parts;
        int64_t tile = pixel / area;
        int32_t y = (int32_t)(pixel % area / v->out_width), x = (int32_t)(pixel % v->out_width);
        for (int64_t p = 0; p < count; p++) {
            pack_window(v, panel + p * PITCH, tile, y * v->stride + v->in.top, x * v->stride + v->in.left, start, stop);
            if (++x == v->out_width) x = 0, y++;
            if (y == v->out_height) y = 0, tile++;
        }
        multiply(v, panel, pixel, count, start, stop, from, to);
    }
}

/* A few channels, RGB: packing every window would take longer than its product. Lines of samples are packed
   instead, and windows overlap in them. */
enum { WIDE = 4 * NARROW, MOST_NARROW = 4096 };

static int is_narrow(const Convolution *v) {
    const int64_t line = ((WIDE - 1) * v->stride + v->columns) * (int64_t)v->in.channels;
    const int64_t step = v->stride * v->in.channels;
    return (step == 3 || step == 6) && v->dilation == 1 && !v->before_scale && !v->tail.residual &&
           v->outputs % OUTPUTS == 0 && v->rows * line <= MOST_NARROW;
}

/* The outputs [x, x + count) of one line of a tile, count <= WIDE. */
static void narrow_line(const Convolution *v, float *lines, int64_t tile, int32_t y, int32_t x, int32_t count) {
    const Source *s = &v->in;
    const int32_t channels = s->channels, samples = (WIDE - 1) * v->stride + v->columns;
    const int32_t known = (count - 1) * v->stride + v->columns, left = x * v->stride + s->left;
    for (int32_t i = 0; i < v->rows; i++) {
        float *to = lines + (int64_t)i * samples * channels;
        const int32_t at = y * v->stride + s->top + i;
        for (int32_t j = 0; j < known;) {
            const int64_t row = row_at(s, tile, at, left + j);
            const int32_t run = row < 0 ? 1 : run_of(s, tile, at, left + j, row, known - j);
            const float *from = row_of(s, row);
            for (int32_t f = 0; f < run * channels; f++) to[j * channels + f] = from[f];
            j += run;
        }
    }
    const int64_t depth = (int64_t)v->columns * channels, first = ((tile * v->out_height + y) * v->out_width + x) * v->outputs;
    float beside[NARROW * OUTPUTS];
    for (int32_t o = 0; o < v->outputs; o += OUTPUTS)
        for (int32_t p = 0; p < count; p += NARROW) {
            const float *a = lines + (int64_t)p * v->stride * channels, *w = v->weight + o * v->rows * depth;
            const int32_t height = count - p < NARROW ? count - p : NARROW;
            float *c = height == NARROW ? v->out + first + (int64_t)p * v->outputs + o : beside;
            const int64_t pitch = height == NARROW ? v->outputs : OUTPUTS;
            if (v->stride * channels == 3)
                narrow3(a, v->rows, (int64_t)samples * channels, depth, w, c, pitch, &v->tail, o, 0, 1, 1);
            else
                narrow6(a, v->rows, (int64_t)samples * channels, depth, w, c, pitch, &v->tail, o, 0, 1, 1);
            for (int32_t r = 0; c == beside && r < height; r++)
                memcpy(v->out + first + (int64_t)(p + r) * v->outputs + o, beside + r * OUTPUTS, OUTPUTS * sizeof(float));
        }
}

static void narrow_step(const Convolution *v, Team team) {
    const int64_t pieces = (v->out_width + WIDE - 1) / WIDE, total = v->in.tiles * v->out_height * pieces;
    const int64_t size = lines_per_task(total, &team);
    float lines[MOST_NARROW + NARROW * 8] __attribute__((aligned(64)));
    memset(lines, 0, sizeof lines); /* a last block that is not full reads beyond what is known */
    for (int64_t first; (first = take(&team) * size) < total;)
        for (int64_t task = first; task < first + size && task < total; task++) {
            const int64_t line = task / pieces;
            const int32_t x = (int32_t)(task % pieces) * WIDE, left = v->out_width - x;
            narrow_line(v, lines, line / v->out_height, (int32_t)(line % v->out_height), x, left < WIDE ? left : WIDE);
        }
}

void convolve_step(const Convolution *v, Team team) {
    if (is_narrow(v)) {
        narrow_step(v, team);
        return;
    }
    const int64_t pixels = v->in.tiles * v->out_height * v->out_width;
    const int64_t blocks = (v->outputs + OUTPUTS - 1) / OUTPUTS;
    const Share share = share_work(pixels, CHUNK, blocks, (int64_t)v->rows * v->columns * v->in.channels, team.threads);
    float panel[CHUNK * PITCH] __attribute__((aligned(64)));
    for (int64_t task; (task = take(&team)) < share.chunks * share.groups;) {
        const int64_t group = task % share.groups, pixel = task / share.groups * share.size;
        const int64_t from = blocks * group / share.groups * OUTPUTS, to = blocks * (group + 1) / share.groups * OUTPUTS;
        chunk(v, panel, pixel, pixels - pixel < share.size ? pixels - pixel : share.size, (int32_t)from,
              (int32_t)(to < v->outputs ? to : v->outputs));
    }
}

EXPORT void foveal_convolve(const Convolution *v) { IN_REGION(convolve_step(v, team)); }

EXPORT int32_t foveal_outputs(void) { return OUTPUTS; }
