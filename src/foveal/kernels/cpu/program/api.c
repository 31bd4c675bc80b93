/* Making, running and freeing a program. */
#include <stdio.h>
#include <stdlib.h>
#include "maps/classify.h"
#include "convolve/convolve.h"
#include "platform/export.h"
#include "platform/lock.h"
#include "program/program.h"

static int32_t most(int32_t a, int32_t b) { return a > b ? a : b; }

enum { ENLARGED_EDGE = 1, RESAMPLED_EDGE }; /* tables of their own: ENLARGE reads a border of 1 */

/* Samples that a step reads beyond a tile; `edge` says whether the image's edge is repeated there. */
static int32_t reach_of(const StepSpec *s, int32_t *edge) {
    *edge = s->kind == ENLARGE ? ENLARGED_EDGE : s->kind == RESAMPLE ? RESAMPLED_EDGE : 0;
    if (*edge) return s->kind == ENLARGE ? 1 : 2;
    if (s->kind != CONVOLVE && s->kind != DEPTHWISE && s->kind != MAX_POOL) return 0;
    const int32_t below = s->dilation * (s->rows - 1) - s->top - (s->stride - 1);
    const int32_t right = s->dilation * (s->columns - 1) - s->left - (s->stride - 1);
    return most(most(s->top, s->left), most(most(below, right), 0));
}

/* Which index every step reads through, and which maps are read beyond the tiles of a pass. */
static int find_tables(Program *p) {
    for (int32_t k = 0; k < p->head.maps; k++) p->alias[k] = -1;
    p->reached[p->head.output] = 1;
    for (int32_t k = 0; k < p->head.steps; k++) {
        const StepSpec *s = &p->steps[k];
        const MapSpec *in = &p->maps[s->in];
        int32_t edge = 0, border = in->kind == TILED ? reach_of(s, &edge) : 0, t = 0;
        p->table[k] = -1;
        if (s->kind == RESAMPLE && !s->factor && in->kind == TILED) border += p->maps[s->out].stride / in->stride;
        const int same = in->precision == p->maps[s->out].precision;
        if (s->kind == COMPOSE) p->alias[s->out] = same ? s->in : -1, p->reached[s->in] = 1;
        if (s->kind == MEAN || s->kind == GROUP_NORM) p->reached[s->in] = 1, p->statistics = most(p->statistics, in->channels);
        if (s->kind == CUT && same) p->alias[s->in] = s->out;
        /* windows within a tile see what lies outside the image, too, where the tile hangs over its edge */
        const int looks = s->rows > 1 || s->columns > 1;
        if (!border && !(looks && in->kind == TILED)) continue;
        p->reached[s->in] = 1;
        while (t < p->table_count && (p->tables[t].stride != in->stride || p->tables[t].edge != edge)) t++;
        if (t == MOST_TABLES) return -1;
        if (t == p->table_count) p->tables[p->table_count++] = (TableSpec){in->stride, border, edge};
        p->tables[t].border = most(p->tables[t].border, border);
        p->table[k] = t;
    }
    return 0;
}

static void *copy(const void *from, size_t bytes) {
    void *to = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (to) memcpy(to, from, bytes);
    return to;
}

/* Free what runs have left for later ones; runs that go on keep theirs. */
EXPORT void foveal_program_release(Program *p) {
    lock_take(CONTEXTS);
    Context *c = p->idle;
    p->idle = NULL;
    lock_give(CONTEXTS);
    while (c) {
        Context *next = c->next;
        room_free(&c->arena), room_free(&c->lists), room_free(&c->pyramid), room_free(&c->logits), room_free(&c->enlarged), room_free(&c->taps);
        room_free(&c->scores), room_free(&c->means), room_free(&c->sums), room_free(&c->workers), room_free(&c->changes), room_free(&c->wanted), room_free(&c->few);
        for (int k = 0; k < MOST_TABLES; k++) {
            Table *t = &c->tables[k];
            room_free(&t->index), room_free(&t->start), room_free(&t->source), room_free(&t->share), room_free(&t->finer);
        }
        free(c);
        c = next;
    }
}

EXPORT void foveal_program_free(Program *p) {
    if (!p) return;
    foveal_program_release(p);
    for (int64_t k = 0; p->packed && k < (int64_t)p->head.steps * ALGORITHMS; k++) free(p->packed[k]);
    free(p->maps), free(p->steps), free(p->numbers), free(p->packed), free(p->table), free(p->reached), free(p->alias), free(p->cut_only), free(p->blocks), free(p->inner), free(p->feeds), free(p->outside);
    reduced_free(p);
    free(p);
}

/* Make a program from its tables; everything is copied. NULL if it is none, and `error` [size] says why, or
   without memory. */
EXPORT Program *foveal_program_make(
    const ProgramHead *head, const MapSpec *maps, const StepSpec *steps, const float *numbers, int64_t count, char *error, int64_t size)
{
    if (size > 0) *error = 0;
    if (program_check(head, maps, steps, numbers, count, error, (size_t)size)) return NULL;
    Program *p = locks_survive_forks() ? NULL : calloc(1, sizeof *p);
    if (!p) return NULL;
    p->head = *head;
    if (!p->head.colours) p->head.colours = RGB;
    if (!p->head.multiple) p->head.multiple = 1;
    p->maps = copy(maps, (size_t)head->maps * sizeof *maps);
    p->steps = copy(steps, (size_t)head->steps * sizeof *steps);
    p->numbers = copy(numbers, (size_t)count * sizeof *numbers);
    p->packed = calloc((size_t)head->steps * ALGORITHMS, sizeof *p->packed);
    p->table = calloc((size_t)head->steps, sizeof *p->table);
    p->reached = calloc((size_t)head->maps, 1);
    p->alias = calloc((size_t)head->maps, sizeof *p->alias);
    for (int32_t k = 0; k < head->maps; k++) p->widest = most(p->widest, maps[k].channels);
    p->outside = calloc(2 * (size_t)p->widest, sizeof(float));
    if (!p->maps || !p->steps || !p->numbers || !p->packed || !p->table || !p->reached || !p->alias || !p->outside || find_cut_only(p)) {
        foveal_program_free(p);
        return NULL;
    }
    if (find_tables(p)) {
        if (size > 0) snprintf(error, (size_t)size, "its steps look around samples at more than %d scales", MOST_TABLES);
        foveal_program_free(p);
        return NULL;
    }
    p->scratch = 5 * (int64_t)p->widest; /* rows as floats */
    for (int32_t k = 0; k < p->widest; k++) p->outside[p->widest + k] = -3.402823466e38f;
    for (int32_t k = 0; k < head->steps; k++)
        for (int32_t a = WINOGRAD2; a < ALGORITHMS; a++) {
            StepSpec *s = &p->steps[k];
            if (s->kind != CONVOLVE || maps[s->in].channels % LANES || maps[s->out].channels % LANES) s->rate[a] = 0;
            if (s->rate[a] <= 0) continue;
            const int64_t floats = winograd_scratch(maps[s->in].channels, a == WINOGRAD2 ? 2 : 4);
            p->scratch = floats > p->scratch ? floats : p->scratch;
        }
    if (find_blocks(p)) {
        foveal_program_free(p);
        return NULL;
    }
    const int status = reduced_prepare(p);
    if (status) {
        if (status == -2 && size > 0) snprintf(error, (size_t)size, "its weights and scales have products that are no finite numbers");
        foveal_program_free(p);
        return NULL;
    }
    return p;
}

static Context *borrow(Program *p) {
    lock_take(CONTEXTS);
    Context *c = p->idle;
    if (c) p->idle = c->next;
    lock_give(CONTEXTS);
    return c ? c : calloc(1, sizeof *c);
}

static void give_back(Program *p, Context *c) {
    lock_take(CONTEXTS);
    c->next = p->idle, p->idle = c;
    lock_give(CONTEXTS);
}

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* Give a run its memory; only maps and tables follow later. */
static int prepare(Run *r) {
    const Program *p = r->program;
    const Request *q = r->request;
    Grid *g = &r->grid;
    Context *c = r->context;
    *g = (Grid){.height = q->height, .width = q->width, .tile = q->tile,
                .rows = (q->height - 1) / q->tile + 1, .columns = (q->width - 1) / q->tile + 1};
    const size_t images = (size_t)q->images, cells = images * (size_t)g->rows * (size_t)g->columns, tiles = MOST_LEVELS * cells;
    const size_t sizes[] = {tiles * 8, tiles * 8, tiles * 8, tiles * 8, cells * 8, images * 4, images * 4,
                            (size_t)p->head.maps * sizeof(size_t), cells, cells, cells * 4, images * 8, cells};
    size_t total = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) total += aligned(sizes[k]);
    char *at = room(&c->lists, total);
    if (!at) return -1;
    void *places[sizeof sizes / sizeof *sizes];
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) places[k] = at, at += aligned(sizes[k]);
    g->image = r->image = places[0], g->level = r->level = places[1], g->row = r->row = places[2], g->column = r->column = places[3];
    g->owner = r->owner = places[4], r->base = places[5], r->finest = places[6], r->offset = places[7];
    r->held = places[8], r->decision = places[9], r->cells = places[10], r->spent = places[11];
    r->changed = places[12];
    r->one_pass = !r->stream && !q->range && !q->histogram && q->method != METHOD_PART;
    memset(r->finest, 0, images * 4), memset(r->spent, 0, images * 8);
    const int32_t stride = p->maps[p->head.output].stride;
    const int32_t columns = columns_at(r, stride, 0);
    const int composed = !r->stream && q->method != METHOD_PART && (q->method != METHOD_DENSE || q->mask);
    r->logits = !composed ? NULL : room(&c->logits, images * (size_t)rows_at(r, stride, 0) * (size_t)columns * (size_t)p->head.classes * 4);
    if ((composed && !r->logits) || !room(&c->scores, score_bytes(r))) return -1;
    r->sums = p->statistics ? room(&c->sums, (size_t)statistics_scratch((int64_t)images, p->statistics) * sizeof(double)) : NULL;
    if (p->statistics && !r->sums) return -1;
    size_t pyramid = 0;
    for (int32_t level = !scaled(r); level < MOST_LEVELS; level++) pyramid += aligned(images * (size_t)rows_at(r, 1, level) * (size_t)columns_at(r, 1, level) * (size_t)p->head.colours * 4);
    char *floor = room(&c->pyramid, pyramid);
    if (!floor) return -1;
    for (int32_t level = !scaled(r); level < MOST_LEVELS; level++) {
        r->pyramid[level] = (float *)floor;
        floor += aligned(images * (size_t)rows_at(r, 1, level) * (size_t)columns_at(r, 1, level) * (size_t)p->head.colours * 4);
    }
    if (prepare_scale(r)) return -1;
    const int32_t labelled = most(columns, r->enlarged_columns);
    const int64_t label = 2 * p->head.classes * padded_columns(labelled) + band_scratch(p->head.classes, labelled);
    const int64_t line = 2 * (int64_t)p->head.colours * most(most(q->width, q->full_width), q->tile);
    int64_t floats = p->scratch > label ? p->scratch : label;
    for (int32_t k = 0; k < p->head.maps; k++) { /* a line of a tile as floats */
        const int64_t tile = (int64_t)q->tile * p->maps[k].channels;
        floats = p->maps[k].precision != F32 && tile > floats ? tile : floats;
    }
    if (r->stream) {
        const int64_t relabel = relabel_scratch(r), lines = (int64_t)(reuse_bytes(r) / sizeof(float));
        floats = relabel > floats ? relabel : floats, floats = lines > floats ? lines : floats;
    }
    floats = ((line > floats ? line : floats) + 15) / 16 * 16;
    r->scratch_bytes = floats * 4;
    float *workers = room(&c->workers, (size_t)(floats * r->threads) * 4);
    for (int32_t k = 0; workers && k < r->threads; k++) r->scratch[k] = workers + k * floats;
    if (r->stream) stream_join(r);
    return workers ? 0 : -1;
}

int request_refuse(Request *q, const char *what) {
    snprintf(q->error, sizeof q->error, "%s", what);
    return -2;
}

/* Whether the bins of all grids over an image can be counted, and the samples of all whole maps: a very long image has
   many. */
static int bins_fit(const Program *p, const Request *q) {
    for (int32_t k = 0; k < p->head.maps; k++) {
        const MapSpec *m = &p->maps[k];
        if (m->kind == WHOLE) {
            const int64_t rows = whole_side(m, extent(q->height, m->stride)), columns = whole_side(m, extent(q->width, m->stride));
            if (rows > INT32_MAX || columns > INT32_MAX / rows / q->images) return 0;
        }
        for (int32_t level = 0; m->kind == BINS && level < MOST_LEVELS; level++) {
            const int64_t columns = bins_columns(m, extent(q->height, m->stride << level), extent(q->width, m->stride << level));
            if (columns > INT32_MAX / ((int64_t)q->images * m->grid)) return 0;
        }
    }
    return 1;
}

/* Whether a part is one of this program, and its maps are maps of tiles. */
static int part_fits(const Program *p, const Request *q) {
    if (q->first_step < 0 || q->last_step < q->first_step || q->last_step > p->head.steps || q->mask || q->full_height) return 0;
    for (int32_t m = 0; m < p->head.maps; m++)
        if (((q->given && q->given[m]) || (q->taken && q->taken[m])) && p->maps[m].kind != TILED) return 0;
    return 1;
}

static int refuse_sides(Request *q, int32_t multiple) {
    snprintf(q->error, sizeof q->error, "images are %dx%d px and the network needs sides that are multiples of %d; pad them", q->height, q->width, multiple);
    return -2;
}

int request_check(const Program *p, Request *q) {
    if (q->images < 1 || q->height < 1 || q->width < 1) return request_refuse(q, "images are empty");
    if (q->height % p->head.multiple || q->width % p->head.multiple) return refuse_sides(q, p->head.multiple);
    if (q->tile > MOST_TILE) return request_refuse(q, "the tile must be at most 4096 px");
    if (q->tile < 1 || q->tile % p->head.coarsest_stride) return request_refuse(q, "the tile must be a multiple of the network's coarsest stride");
    if (q->coarse_level < 0 || q->coarse_level >= MOST_LEVELS || q->max_level < 0 || q->max_level >= MOST_LEVELS)
        return request_refuse(q, "levels must be between 0 and 7");
    if (q->gains < 1 || q->gains > MOST_LEVELS || q->score < 0 || q->score > REGIONAL_ENTROPY) return request_refuse(q, "there is no such score");
    if ((int64_t)q->images * q->height * q->width > INT32_MAX) return request_refuse(q, "the images have too many pixels for one run; split them");
    if ((q->full_height || q->full_width) && (q->full_height < 1 || q->full_width < 1 || (int64_t)q->images * q->full_height * q->full_width > INT32_MAX))
        return request_refuse(q, "the images have too many pixels for one run; split them");
    if (q->full_width > INT32_MAX / p->head.colours) return request_refuse(q, "the images are too wide; split them");
    if (q->full_height && q->mask) return request_refuse(q, "images that are shrunk take no mask");
    if (q->method == METHOD_PART && !part_fits(p, q)) return request_refuse(q, "the steps and maps of a part are not those of the program");
    if (!bins_fit(p, q)) return request_refuse(q, "the images are too long for their width or height; split them");
    return 0;
}

/* Run, and say whether it was done: 0, -1 without memory, -2 with the reason in `error`; or what `work` stops with. */
int32_t program_run(const Program *p, Request *q, Stream *s, Reuse *u, void (*work)(Run *, Team)) {
    const int status = request_check(p, q);
    if (status) return status;
    Program *whose = (Program *)p; /* a context is borrowed and given back under a lock */
    Run r = {.program = p, .request = q, .stream = s, .reuse = u, .context = borrow(whose), .part = -1, .threads = q->threads < 1 ? 1 : q->threads > MOST_THREADS ? MOST_THREADS : q->threads};
    if (!r.context) return -1;
    r.first = q->method == METHOD_PART ? q->first_step : 0, r.last = q->method == METHOD_PART ? q->last_step : p->head.steps;
    q->macs = 0, q->passes = 0;
    for (int32_t n = 0; n < q->images; n++) q->work[n] = 0;
    if (prepare(&r)) r.stop = -1;
    else team_run(&r, work);
    if (!r.stop && r.unreal == IMAGES) r.stop = request_refuse(q, "images hold NaN or infinity; give finite numbers in 0..1");
    if (!r.stop && (r.unreal || r.overflow)) r.stop = request_refuse(q, "the network gives NaN or infinity; check its weights, and the range of the images");
    for (int32_t n = 0; n < q->images && !r.stop; n++) q->work[n] = r.spent[n];
    for (int64_t k = 0; k < cells_of(&r) && !r.stop && q->levels; k++)
        q->levels[k] = s ? r.decision[k] : q->mask && !q->mask[k] ? -1 : r.held[k];
    if (!r.stop && q->logits) {
        const int32_t stride = output_stride(&r);
        const size_t samples = scaled(&r) ? (size_t)r.enlarged_rows * (size_t)r.enlarged_columns : (size_t)rows_at(&r, stride, 0) * (size_t)columns_at(&r, stride, 0);
        memcpy(q->logits, scaled(&r) ? r.enlarged : r.logits, (size_t)q->images * samples * (size_t)p->head.classes * 4);
    }
    give_back(whose, r.context);
    return r.stop;
}

/* Run a method. 0, or -1 without memory, or -2 with the reason in `error`. */
EXPORT int32_t foveal_program_run(Program *p, Request *q) {
    if (q->method != METHOD_PART && (q->method < METHOD_DENSE || q->method > METHOD_COARSE_TO_FINE)) return request_refuse(q, "there is no such method for images");
    if (q->method == METHOD_PLAN && !q->plan) return request_refuse(q, "there is no plan");
    return program_run(p, q, NULL, NULL, run_method);
}

/* Say which maps are read beyond the tiles of a pass [maps]. */
EXPORT void foveal_program_reached(const Program *p, uint8_t *out) { memcpy(out, p->reached, (size_t)p->head.maps); }

EXPORT int64_t foveal_program_size(int32_t what) {
    const int64_t sizes[] = {sizeof(ProgramHead), sizeof(MapSpec), sizeof(StepSpec), sizeof(Request), sizeof(Reuse), sizeof(StreamParts)};
    return what < 0 || what > 5 ? 0 : sizes[what];
}
