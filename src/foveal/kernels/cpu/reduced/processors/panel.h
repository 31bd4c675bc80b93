/* Convolution around one block of products: what a chunk of pixels sees is packed into a panel that stays in the
   cache, then multiplied block by block. A panel holds lines of samples, in which windows overlap, or, where
   windows have gaps or rows are odd and short, window after window. Included once per set of instructions, after
   block.h, with PATH (the function's name) and Sum (int32_t or float).
   Sources: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", TOMS 2008 (panels);
   Dukhan, "The indirect convolution algorithm", arXiv:1907.02129 (windows through pointers). */
#include "reduced/processors/finish.h"
#include "reduced/work.h"

/* What a chunk sees, and where its pixels are written: `count` places, in rows of `row` of which `real` exist. */
typedef struct {
    const uint8_t *samples;
    int64_t pitch, lines, line_step, words;
    int64_t first, row_step; /* output of the first place, outputs from row to row */
    int32_t count, row, real;
    int32_t at[LINES_PIXELS / GROUP + 2 * GROUPS]; /* bytes to every group of places */
} Panel;

/* Blocks reach beyond the last group. */
static void repeat_last_group(Panel *p) {
    const int32_t groups = (p->count + GROUP - 1) / GROUP;
    for (int32_t g = groups; g < groups + GROUPS; g++) p->at[g] = p->at[groups - 1];
}

static void finish_places(const ReducedConvolution *v, const Panel *p, const Sum *sums, int32_t place, int32_t o) {
    const int32_t end = p->count < place + PIXELS ? p->count : place + PIXELS;
    for (int32_t from = place; from < end;) {
        const int32_t row = from / p->row, x = from - row * p->row;
        const int32_t stop = (row + 1) * p->row < end ? (row + 1) * p->row : end, there = p->real - x < stop - from ? p->real - x : stop - from;
        if (there > 0) finish_block(v, sums + (from - place) * BLOCK_OUTPUTS, p->first + row * p->row_step + x, there, o);
        from = stop;
    }
}

static void multiply(const ReducedConvolution *v, const Panel *p, int64_t from, int64_t to) {
    Sum sums[PIXELS * BLOCK_OUTPUTS] __attribute__((aligned(64)));
    const int64_t block_bytes = p->lines * p->words * BLOCK_OUTPUTS * WORD;
    for (int64_t b = from; b < to; b++) {
        const uint8_t *w = (const uint8_t *)v->weight + b * block_bytes;
        const int32_t o = (int32_t)(b * BLOCK_OUTPUTS), *start = v->start ? v->start + o : 0;
        for (int32_t place = 0; place < p->count; place += PIXELS) {
            block_at(p->samples, p->at + place / GROUP, p->pitch, p->lines, p->line_step, p->words, w, start, sums);
            finish_places(v, p, sums, place, o);
        }
    }
}

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

static void pack_windows(const ReducedConvolution *v, uint8_t *panel, int64_t pitch, int64_t pixel, int64_t count) {
    const int64_t area = (int64_t)v->out_height * v->out_width, bytes = row_bytes(&v->in);
    int64_t tile = pixel / area;
    int32_t y = (int32_t)(pixel % area / v->out_width), x = (int32_t)(pixel % v->out_width);
    for (int64_t p = 0; p < count; p++, panel += pitch) {
        pack_window(v, panel, tile, y * v->stride + v->in.top, x * v->stride + v->in.left, bytes);
        if (++x == v->out_width) x = 0, y++;
        if (y == v->out_height) y = 0, tile++;
    }
}

/* Whether a window is one sample, and every sample has one: the map is its own panel. */
static int is_straight(const ReducedConvolution *v) {
    const Samples *s = &v->in;
    return !s->index && v->rows * v->columns * v->stride == 1 && !s->top && !s->left && s->height == v->out_height &&
           s->width == v->out_width && s->tiles * s->height * s->width % GROUP == 0;
}

static void by_windows(const ReducedConvolution *v, uint8_t *room, Team team) {
    const int straight = is_straight(v);
    const Work work = work_of(v, team.threads);
    const int64_t bytes = row_bytes(&v->in);
    Panel p = {.samples = room, .pitch = straight ? bytes : work.pitch, .lines = 1, .words = window_words(v)};
    for (int64_t task; (task = take(&team)) < work.chunks * work.groups;) {
        const int64_t group = task % work.groups;
        p.first = task / work.groups * work.size;
        p.count = p.row = p.real = (int32_t)(work.pixels - p.first < work.size ? work.pixels - p.first : work.size);
        for (int32_t g = 0; g * GROUP < p.count; g++) p.at[g] = (int32_t)(g * GROUP * p.pitch);
        repeat_last_group(&p);
        if (straight) p.samples = (const uint8_t *)v->in.own + p.first * bytes;
        else pack_windows(v, room, p.pitch, p.first, p.count);
        multiply(v, &p, work.blocks * group / work.groups, work.blocks * (group + 1) / work.groups);
    }
}

/* One line of samples from a place on. Runs that lie one after the other in memory are copied at once; looking
   for them takes longer than copying samples of a few channels. */
static void pack_line(const Samples *s, uint8_t *to, int64_t tile, int32_t y, int32_t x, int32_t count) {
    const int64_t bytes = row_bytes(s);
    if (s->index && bytes <= 2 * WORD) {
        const int32_t *row = s->index + (tile * s->height + y) * s->width + x;
        for (int32_t j = 0; j < count; j++, to += bytes) {
            const uint8_t *from = row_address(s, row[j], bytes);
            memcpy(to, from, WORD);
            if (bytes > WORD) memcpy(to + WORD, from + WORD, WORD);
        }
        return;
    }
    for (int32_t j = 0; j < count;) {
        const int64_t row = sample_row(s, tile, y, x + j);
        int32_t run = 1;
        if (row >= 0 && !s->index) {
            run = s->width - x - j < count - j ? s->width - x - j : count - j;
        } else if (row >= 0) {
            const int32_t *next = s->index + (tile * s->height + y) * s->width + x + j;
            while (j + run < count && next[run] == row + run && row + run != s->own_rows) run++;
        }
        memcpy(to + j * bytes, row_address(s, row, bytes), (size_t)(run * bytes));
        j += run;
    }
}

/* Pack the lines under some rows and columns of windows of a tile. Columns may reach beyond the map, where
   nothing is wanted. */
static void pack_lines(
    const ReducedConvolution *v, uint8_t *to, int64_t step, int64_t tile, int32_t y, int32_t rows, int32_t x, int32_t columns)
{
    const int32_t count = (columns - 1) * v->stride + v->columns, lines = (int32_t)lines_under(v, rows);
    for (int32_t i = 0; i < lines; i++)
        pack_line(&v->in, to + i * step, tile, y * v->stride + v->in.top + i, x * v->stride + v->in.left, count);
}

static int in_lines(const ReducedConvolution *v) {
    return v->dilation == 1 && v->rows * v->columns > 1 && (v->out_width % GROUP == 0 || v->out_width >= 4 * GROUP);
}

static void by_lines(const ReducedConvolution *v, uint8_t *room, const Part part, Team team) {
    const int64_t bytes = row_bytes(&v->in), step = line_bytes(v, part.columns), tile_bytes = lines_under(v, part.rows) * step;
    const int64_t down = (v->out_height + part.rows - 1) / part.rows, across = (v->out_width + part.columns - 1) / part.columns;
    Work work = {.chunks = (v->in.tiles + part.tiles - 1) / part.tiles * down * across};
    split_outputs(&work, v, 4 * team.threads);
    Panel p = {.samples = room, .pitch = v->stride * bytes, .lines = v->rows, .line_step = step, .words = v->columns * bytes / WORD};
    for (int64_t task; (task = take(&team)) < work.chunks * work.groups;) {
        const int64_t group = task % work.groups, chunk = task / work.groups, tile = chunk / (down * across) * part.tiles;
        const int32_t y = (int32_t)(chunk / across % down) * part.rows, x = (int32_t)(chunk % across) * part.columns;
        const int32_t tiles = v->in.tiles - tile < part.tiles ? (int32_t)(v->in.tiles - tile) : part.tiles;
        const int32_t rows = v->out_height - y < part.rows ? v->out_height - y : part.rows;
        p.real = v->out_width - x < part.columns ? v->out_width - x : part.columns;
        p.row = (p.real + GROUP - 1) / GROUP * GROUP;
        p.count = tiles * rows * p.row;
        p.first = (tile * v->out_height + y) * v->out_width + x, p.row_step = v->out_width;
        for (int32_t t = 0, g = 0; t < tiles; t++) {
            pack_lines(v, room + t * tile_bytes, step, tile + t, y, rows, x, p.real);
            for (int32_t i = 0; i < rows; i++)
                for (int32_t j = 0; j < p.row; j += GROUP) p.at[g++] = (int32_t)(t * tile_bytes + i * v->stride * step + j * p.pitch);
        }
        repeat_last_group(&p);
        multiply(v, &p, work.blocks * group / work.groups, work.blocks * (group + 1) / work.groups);
    }
}

void PATH(const ReducedConvolution *v, Team team) {
    uint8_t *room = (uint8_t *)v->scratch + team.thread * v->scratch_bytes;
    const Part part = in_lines(v) ? part_of(v, team.threads, GROUP) : (Part){0, 0, 0};
    if (part.tiles) by_lines(v, room, part, team);
    else by_windows(v, room, team);
}
