/* Convolution around one block of products: windows of a chunk of pixels are packed into a panel that stays in
   the cache, then multiplied block by block. Included once per set of instructions, after block.h,
   with PATH (the function's name), Sum (int32_t or float), and PIXELS dividing 12.
   Sources: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008 (panels);
   Dukhan, "The indirect convolution algorithm", arXiv:1907.02129 (windows through pointers). */
#include "reduced/processors/finish.h"
#include "reduced/work.h"

/* Copy a multiple of 4 bytes. */
static inline void copy_row(uint8_t *to, const uint8_t *from, int64_t bytes) {
    for (; bytes >= 64; bytes -= 64, to += 64, from += 64) memcpy(to, from, 64);
    if (bytes & 32) memcpy(to, from, 32), to += 32, from += 32;
    if (bytes & 16) memcpy(to, from, 16), to += 16, from += 16;
    if (bytes & 8) memcpy(to, from, 8), to += 8, from += 8;
    if (bytes & 4) memcpy(to, from, 4);
}

/* Write one window, in the order row, column, channel. */
static inline void pack_window(const ReducedConvolution *v, uint8_t *to, int64_t tile, int32_t y, int32_t x, int64_t bytes) {
    for (int32_t i = 0; i < v->rows; i++)
        for (int32_t j = 0; j < v->columns; j++, to += bytes) {
            const int64_t row = sample_row(&v->in, tile, y + i * v->dilation, x + j * v->dilation);
            copy_row(to, row_address(&v->in, row, bytes), bytes);
        }
}

static void pack(const ReducedConvolution *v, uint8_t *panel, int64_t pitch, int64_t pixel, int64_t count) {
    const int64_t area = (int64_t)v->out_height * v->out_width, bytes = row_bytes(&v->in);
    int64_t tile = pixel / area;
    int32_t y = (int32_t)(pixel % area / v->out_width), x = (int32_t)(pixel % v->out_width);
    for (int64_t p = 0; p < count; p++, panel += pitch) {
        pack_window(v, panel, tile, y * v->stride + v->in.top, x * v->stride + v->in.left, bytes);
        if (++x == v->out_width) x = 0, y++;
        if (y == v->out_height) y = 0, tile++;
    }
}

static void block(const uint8_t *a, int64_t pitch, int64_t words, const uint8_t *w, const int32_t *start, Sum *sums) {
    block_at(a, pitch, 1, 0, words, w, start, sums);
}

static void multiply(
    const ReducedConvolution *v, const uint8_t *panel, int64_t pitch, int64_t pixel, int64_t count, int64_t from, int64_t to)
{
    const int64_t words = window_words(v);
    Sum sums[PIXELS * BLOCK_OUTPUTS] __attribute__((aligned(64)));
    for (int64_t b = from; b < to; b++) {
        const uint8_t *w = (const uint8_t *)v->weight + b * words * BLOCK_OUTPUTS * WORD;
        const int32_t o = (int32_t)(b * BLOCK_OUTPUTS), *start = v->start ? v->start + o : 0;
        for (int64_t p = 0; p < count; p += PIXELS) {
            block(panel + p * pitch, pitch, words, w, start, sums);
            finish_block(v, sums, pixel + p, count - p < PIXELS ? count - p : PIXELS, o);
        }
    }
}

/* One line of samples, from a place on; runs that lie one after the other in memory are copied at once. */
static void pack_line(const Samples *s, uint8_t *to, int64_t tile, int32_t y, int32_t x, int32_t count) {
    const int64_t bytes = row_bytes(s);
    for (int32_t j = 0; j < count;) {
        const int64_t row = sample_row(s, tile, y, x + j);
        int32_t run = 1;
        if (row >= 0)
            while (j + run < count && row + run != s->own_rows && sample_row(s, tile, y, x + j + run) == row + run) run++;
        memcpy(to + j * bytes, row_address(s, row, bytes), (size_t)(run * bytes));
        j += run;
    }
}

/* Maps of a few channels, RGB: packing every window would take longer than its product. Lines of samples are
   packed instead, and windows overlap in them. */
static void narrow_piece(const ReducedConvolution *v, uint8_t *lines, int64_t line, int32_t x, int32_t count) {
    const int64_t bytes = row_bytes(&v->in), step = narrow_line_bytes(v), pitch = v->stride * bytes;
    const int64_t tile = line / v->out_height, words = v->columns * bytes / WORD, block_bytes = v->rows * words * BLOCK_OUTPUTS * WORD;
    const int32_t y = (int32_t)(line % v->out_height) * v->stride + v->in.top;
    for (int32_t i = 0; i < v->rows; i++)
        pack_line(&v->in, lines + i * step, tile, y + i, x * v->stride + v->in.left, (count - 1) * v->stride + v->columns);
    Sum sums[PIXELS * BLOCK_OUTPUTS] __attribute__((aligned(64)));
    for (int32_t o = 0; o < v->outputs; o += BLOCK_OUTPUTS) {
        const uint8_t *w = (const uint8_t *)v->weight + o / BLOCK_OUTPUTS * block_bytes;
        for (int32_t p = 0; p < count; p += PIXELS) {
            block_at(lines + p * pitch, pitch, v->rows, step, words, w, v->start ? v->start + o : 0, sums);
            finish_block(v, sums, line * v->out_width + x + p, count - p < PIXELS ? count - p : PIXELS, o);
        }
    }
}

static void narrow(const ReducedConvolution *v, uint8_t *lines, Team team) {
    const int64_t pieces = (v->out_width + MOST_PIXELS - 1) / MOST_PIXELS, total = v->in.tiles * v->out_height * pieces;
    const int64_t size = lines_per_task(total, &team);
    for (int64_t first; (first = take(&team) * size) < total;)
        for (int64_t task = first; task < first + size && task < total; task++) {
            const int32_t x = (int32_t)(task % pieces) * MOST_PIXELS, left = v->out_width - x;
            narrow_piece(v, lines, task / pieces, x, left < MOST_PIXELS ? left : MOST_PIXELS);
        }
}

void PATH(const ReducedConvolution *v, Team team) {
    uint8_t *panel = (uint8_t *)v->scratch + team.thread * v->scratch_bytes;
    if (is_narrow(v)) {
        narrow(v, panel, team);
        return;
    }
    const Work work = work_of(v, team.threads);
    for (int64_t task; (task = take(&team)) < work.chunks * work.groups;) {
        const int64_t group = task % work.groups, pixel = task / work.groups * work.size;
        const int64_t count = work.pixels - pixel < work.size ? work.pixels - pixel : work.size;
        pack(v, panel, work.pitch, pixel, count);
        multiply(v, panel, work.pitch, pixel, count, work.blocks * group / work.groups, work.blocks * (group + 1) / work.groups);
    }
}
