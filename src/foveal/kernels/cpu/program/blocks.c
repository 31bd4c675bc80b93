/* A depthwise convolution and the products sample by sample before and behind it, in one pass over blocks of its result: the
   wide maps between them are never in memory as a whole, only as much as stays in the cache. What windows see beyond a
   block is computed anew for it.
   Source: Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, section 5.1. */
#include <stdlib.h>
#include "convolve/convolve.h"
#include "maps/windows.h"
#include "program/program.h"

enum { DOWN = 14, ACROSS = 28, OUTPUT_SAMPLES = DOWN * ACROSS, INPUT_SAMPLES = 1024, FINER_SAMPLES = 64, LEAST_SIDE = 8 };

/* What a block computes with; its memory belongs to a thread. */
typedef struct {
    const Run *run;
    const StepSpec *expand, *deep, *last;
    const float *expand_weight, *last_weight;
    Source in;                            /* what windows of `deep` see, as it is before `expand` */
    const Table *table;
    Shape out;
    int32_t *index;                       /* row of every sample that the block sees */
    float *wide, *sums, *finer;           /* samples of the wide maps */
} Block;

/* Whether a map is of tiles in single precision. */
static int is_tiled(const Program *p, int32_t map) { return p->maps[map].kind == TILED && p->maps[map].precision == F32; }

/* Whether a step may be at an end of a block. */
static int is_end(const Program *p, const StepSpec *s) { return is_product(s) && s->before_scale < 0 && is_tiled(p, s->in) && is_tiled(p, s->out); }

static int32_t across(const StepSpec *deep) { return deep->stride == 1 ? ACROSS : DOWN; }

static int32_t seen(const StepSpec *deep, int32_t outputs, int32_t window) { return (outputs - 1) * deep->stride + window; }

/* Whether nothing but step `by` reads what the step before it makes. */
static int only_for(const Program *p, int32_t map, int32_t by) {
    int readers = map == p->head.output;
    for (int32_t k = 0; k < p->head.steps; k++) readers += p->steps[k].in == map || p->steps[k].other == map;
    return readers == 1 && p->steps[by].in == map;
}

/* Find the blocks of a program: `blocks` is 1 for their first step, -1 for the two after it. */
int find_blocks(Program *p) {
    p->blocks = calloc((size_t)p->head.steps + 1, sizeof *p->blocks);
    p->inner = calloc((size_t)p->head.maps + 1, sizeof *p->inner);
    p->feeds = calloc((size_t)p->head.maps + 1, 1);
    if (!p->blocks || !p->inner || !p->feeds) return -1;
    for (int32_t k = 0; k + 2 < p->head.steps; k++) {
        const StepSpec *expand = &p->steps[k], *deep = expand + 1, *last = deep + 1;
        if (deep->kind != DEPTHWISE || deep->dilation != 1 || !is_tiled(p, deep->in) || !is_tiled(p, deep->out)) continue;
        if (seen(deep, DOWN, deep->rows) * seen(deep, across(deep), deep->columns) > INPUT_SAMPLES) continue;
        if (!is_end(p, expand) || expand->other >= 0 || expand->out != deep->in || !only_for(p, deep->in, k + 1)) continue;
        if (!is_end(p, last) || !only_for(p, deep->out, k + 2)) continue;
        p->blocks[k] = 1, p->blocks[k + 1] = p->blocks[k + 2] = -1;
        p->inner[deep->in] = p->inner[deep->out] = p->maps[deep->in].stride, p->feeds[expand->in] = 1;
        const int64_t floats = 2 * INPUT_SAMPLES + (int64_t)(INPUT_SAMPLES + OUTPUT_SAMPLES + FINER_SAMPLES) * p->maps[deep->in].channels;
        p->scratch = floats > p->scratch ? floats : p->scratch;
    }
    return 0;
}

/* Whether a map only stands between the steps of blocks that run in one pass. Small tiles see too much beyond them. */
int is_inner(const Program *p, int32_t map, int32_t tile) { return p->inner[map] && tile / p->inner[map] >= LEAST_SIDE; }

/* Which part of a block a step is in this run: 1 for the first, -1 for the others, 0 for none. */
int32_t block_of(const Run *r, int32_t step) {
    const Program *p = r->program;
    const int32_t part = p->blocks[step];
    if (!part || !r->one_pass) return 0;
    const StepSpec *s = &p->steps[step];
    return is_inner(p, part > 0 ? s->out : s->in, r->grid.tile) ? part : 0;
}

/* Products of listed rows of the block's input, as wide samples [count]. */
static void multiply(const Block *b, const int32_t *rows, int32_t count, float *to) {
    const Program *p = b->run->program;
    int64_t next = 0;
    Convolution v = {
        .in = b->in, .weight = b->expand_weight, .out = to, .tail = {number(p, b->expand->bias), NULL, NULL, b->expand->low, b->expand->high},
        .rows = 1, .columns = 1, .stride = 1, .dilation = 1, .out_height = 1, .out_width = count, .outputs = p->maps[b->expand->out].channels,
    };
    v.in.index = rows, v.in.tiles = v.in.height = 1, v.in.width = count, v.in.top = v.in.left = 0;
    convolve_step(&v, (Team){0, 1, &next});
}

/* Add products of finer samples, by their shares, to the samples that are their means. */
static void add_shares(const Block *b, const int32_t *rows, const int32_t *places, const float *shares, int32_t count, int32_t channels) {
    multiply(b, rows, count, b->finer);
    for (int32_t k = 0; k < count; k++) {
        float *to = b->wide + (int64_t)places[k] * channels;
        const float *from = b->finer + (int64_t)k * channels;
        for (int32_t c = 0; c < channels; c++) to[c] += shares[k] * from[c];
    }
}

/* All that windows see, expanded: nothing outside the image, and the mean of finer samples' own products. */
static void expand(const Block *b, int32_t count) {
    const int32_t channels = b->run->program->maps[b->deep->in].channels;
    int32_t rows[FINER_SAMPLES], places[FINER_SAMPLES], listed = 0, apart = 0;
    float shares[FINER_SAMPLES];
    const int32_t means = (int32_t)b->in.own_rows; /* rows from here on number means */
    for (int32_t k = 0; k < count; k++) apart += b->index[k] < 0 || b->index[k] >= means;
    if (!apart) {
        multiply(b, b->index, count, b->wide);
        return;
    }
    int32_t *own = b->index + INPUT_SAMPLES;
    for (int32_t k = 0; k < count; k++) own[k] = b->index[k] < means ? b->index[k] : -1;
    multiply(b, own, count, b->wide);
    for (int32_t k = 0; k < count; k++) {
        if (own[k] >= 0) continue;
        memset(b->wide + (int64_t)k * channels, 0, (size_t)channels * sizeof(float));
        if (b->index[k] < 0) continue;
        const int32_t *start = (const int32_t *)b->table->start.at + (b->index[k] - means);
        for (int32_t m = start[0]; m < start[1]; m++) {
            rows[listed] = ((const int32_t *)b->table->source.at)[m], shares[listed] = ((const float *)b->table->share.at)[m];
            places[listed++] = k;
            if (listed < FINER_SAMPLES) continue;
            add_shares(b, rows, places, shares, listed, channels);
            listed = 0;
        }
    }
    if (listed) add_shares(b, rows, places, shares, listed, channels);
}

/* The samples [y, y + height) x [x, x + width) of `tiles` tiles from one on. */
static void run_block(const Block *b, int64_t tile, int32_t tiles, int32_t y, int32_t x, int32_t height, int32_t width) {
    const Program *p = b->run->program;
    const StepSpec *deep = b->deep, *last = b->last;
    const int32_t channels = p->maps[deep->in].channels, outputs = p->maps[last->out].channels;
    const int32_t tall = seen(deep, height, deep->rows), wide = seen(deep, width, deep->columns), count = tiles * tall * wide;
    int32_t *to = b->index;
    for (int32_t t = 0; t < tiles; t++)
        for (int32_t i = 0; i < tall; i++)
            for (int32_t j = 0; j < wide; j++)
                *to++ = (int32_t)row_at(&b->in, tile + t, y * deep->stride + b->in.top + i, x * deep->stride + b->in.left + j);
    int64_t next = 0;
    Window w = {
        .in = {.own = b->wide, .own_rows = count, .tiles = tiles, .height = tall, .width = wide, .channels = channels},
        .weight = number(p, deep->weight), .bias = number(p, deep->bias), .low = deep->low, .high = deep->high, .out = b->sums,
        .rows = deep->rows, .columns = deep->columns, .stride = deep->stride, .dilation = 1, .out_height = height, .out_width = width,
    };
    expand(b, count);
    depthwise_step(&w, (Team){0, 1, &next});
    const int whole = height == b->out.height && width == b->out.width; /* its samples lie one behind the other */
    const int32_t lines = whole ? 1 : height, samples = whole ? tiles * height * width : width;
    for (int32_t line = 0; line < lines; line++) {
        const int64_t at = (((tile * b->out.height) + y + line) * b->out.width + x) * outputs;
        const float *residual = last->other < 0 ? NULL : current(b->run, last->other) + at;
        const Convolution v = {
            .in = {.own = b->sums + (int64_t)line * width * channels, .own_rows = samples, .tiles = 1, .height = 1, .width = samples, .channels = channels},
            .weight = b->last_weight, .out = current(b->run, last->out) + at,
            .tail = {number(p, last->bias), residual, number(p, last->residual_scale), last->low, last->high},
            .rows = 1, .columns = 1, .stride = 1, .dilation = 1, .out_height = 1, .out_width = samples, .outputs = outputs,
        };
        next = 0;
        convolve_step(&v, (Team){0, 1, &next});
    }
}

void block_step(Run *r, int32_t step, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const int32_t channels = p->maps[s->out].channels;
    Block b = {.run = r, .expand = s, .deep = s + 1, .last = s + 2};
    b.expand_weight = weights_of(p, step, DIRECT), b.last_weight = weights_of(p, step + 2, DIRECT);
    if (!b.expand_weight || !b.last_weight) {
        r->stop = -1;
        return;
    }
    b.in = source_of(r, step + 1, s->in, p->outside), b.table = table_of(r, step + 1), b.out = shape_of(r, b.last->out);
    b.index = (int32_t *)r->scratch[team.thread];
    b.wide = r->scratch[team.thread] + 2 * INPUT_SAMPLES;
    b.sums = b.wide + (int64_t)INPUT_SAMPLES * channels, b.finer = b.sums + (int64_t)OUTPUT_SAMPLES * channels;
    const int32_t height = b.out.height < DOWN ? b.out.height : DOWN, most = across(b.deep), width = b.out.width < most ? b.out.width : most;
    const int32_t down = (b.out.height - 1) / height + 1, beside = (b.out.width - 1) / width + 1;
    int32_t tiles = 1; /* small ones share a block */
    const int32_t inputs = seen(b.deep, height, b.deep->rows) * seen(b.deep, width, b.deep->columns);
    while (down == 1 && beside == 1 && (tiles + 1) * height * width <= OUTPUT_SAMPLES && (tiles + 1) * inputs <= INPUT_SAMPLES) tiles++;
    const int64_t groups = (b.out.tiles + tiles - 1) / tiles;
    for (int64_t task; (task = take(&team)) < groups * down * beside;) {
        const int64_t tile = task / (down * beside) * tiles;
        const int32_t y = (int32_t)(task / beside % down) * height, x = (int32_t)(task % beside) * width;
        const int32_t left = (int32_t)(b.out.tiles - tile < tiles ? b.out.tiles - tile : tiles);
        run_block(&b, tile, left, y, x, b.out.height - y < height ? b.out.height - y : height, b.out.width - x < width ? b.out.width - x : width);
    }
}
