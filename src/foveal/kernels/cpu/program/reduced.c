/* Steps on maps in reduced precision: their tables, and their calls. */
#include <stdlib.h>
#include "program/program.h"
#include "reduced/samples.h"

enum { OUTPUT_BLOCK = 32 };

/* Whether a step runs on the kernels for reduced precision: any of its maps has it, but for those that only go
   between tiles and whole maps. */
int is_reduced(const Program *p, const StepSpec *s) {
    if (s->kind == COMPOSE || s->kind == CUT || s->kind == GRID_POOL || s->kind == GRID_SPREAD) return 0;
    if (s->kind == REPEAT || s->kind == SPREAD || s->kind >= APPLY) return 0; /* they take any precision */
    const int32_t other = s->other < 0 ? F32 : p->maps[s->other].precision;
    return p->maps[s->in].precision != F32 || p->maps[s->out].precision != F32 || other != F32;
}

static float *floats(int64_t count) {
    float *x = aligned_alloc(64, ((size_t)count * sizeof(float) + 63) / 64 * 64);
    if (x) memset(x, 0, (size_t)count * sizeof(float));
    return x;
}

/* A row of the input's type that stands for what lies outside the image. */
static void *outside_row(const Program *p, const StepSpec *s) {
    const MapSpec *in = &p->maps[s->in];
    uint8_t *row = aligned_alloc(64, ((size_t)in->channels * 4 + 63) / 64 * 64);
    if (!row) return NULL;
    for (int32_t c = 0; c < in->channels; c++) {
        float value = s->kind == MAX_POOL ? -3.3e38f : s->outside < 0 ? 0 : number(p, s->outside)[c];
        if (in->precision == U8) value = s->kind == MAX_POOL ? 0 : value / in->scale + (float)in->zero;
        write_values(row, in->precision, c, &value, 1);
    }
    return row;
}

/* Where a weight lies: blocks of outputs, then words of channels of one tap, then outputs, then channels. */
static int64_t weight_at(int64_t o, int64_t tap, int64_t c, int64_t taps, int64_t channels, int64_t group) {
    const int64_t words = taps * channels / group, word = (tap * channels + c) / group;
    return ((o / OUTPUT_BLOCK * words + word) * OUTPUT_BLOCK + o % OUTPUT_BLOCK) * group + (tap * channels + c) % group;
}

static float largest(const float *weight, int64_t count) {
    float most = 0;
    for (int64_t k = 0; k < count; k++) most = fabsf(weight[k]) > most ? fabsf(weight[k]) : most;
    return most;
}

/* Weights of a convolution, 8-bit with a scale per output or bfloat16, and the tables of its outputs. */
static int pack(const Program *p, const StepSpec *s, ReducedTables *t) {
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out], *more = s->other < 0 ? NULL : &p->maps[s->other];
    const int deep = s->kind == DEPTHWISE, bytes = in->precision == U8;
    const int64_t taps = (int64_t)s->rows * s->columns, outputs = out->channels, channels = deep ? 1 : in->channels;
    const int64_t padded = (outputs + OUTPUT_BLOCK - 1) / OUTPUT_BLOCK * OUTPUT_BLOCK, group = bytes ? 4 : 2;
    const size_t size = (size_t)(padded * taps * channels) * (bytes ? 1 : 2);
    t->weight = aligned_alloc(64, (size + 127) / 64 * 64);
    t->start = (int32_t *)floats(padded), t->scale = floats(padded), t->bias = floats(padded), t->residual_scale = floats(padded);
    if (!t->weight || !t->start || !t->scale || !t->bias || !t->residual_scale) return -1;
    memset(t->weight, 0, size);
    const float *weight = number(p, s->weight), *bias = number(p, s->bias), *factor = number(p, s->residual_scale);
    for (int64_t o = 0; o < outputs; o++) {
        float most = 0; /* depthwise weights lie [taps][channels], others [outputs][channels][taps] */
        for (int64_t tap = 0; deep && tap < taps; tap++) most = fabsf(weight[tap * outputs + o]) > most ? fabsf(weight[tap * outputs + o]) : most;
        if (!deep) most = largest(weight + o * channels * taps, channels * taps);
        const float unit = bytes && most / 127 > 0 ? most / 127 : 1;
        int32_t sum = 0;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t tap = 0; tap < taps; tap++) {
                const float w = deep ? weight[tap * outputs + o] : weight[(o * channels + c) * taps + tap];
                const int64_t at = deep ? tap * outputs + o : weight_at(o, tap, c, taps, channels, group);
                if (bytes) {
                    const int32_t q = (int32_t)lrintf(w / unit);
                    ((int8_t *)t->weight)[at] = (int8_t)q, sum += q;
                } else ((uint16_t *)t->weight)[at] = to_bf16(w);
            }
        t->start[o] = -in->zero * sum;
        t->scale[o] = (bytes ? in->scale : 1) * unit / out->scale;
        t->bias[o] = (bias ? bias[o] : 0) / out->scale + (float)out->zero;
        if (more) {
            t->residual_scale[o] = (factor ? factor[o] : 1) * more->scale / out->scale;
            t->bias[o] -= t->residual_scale[o] * (float)more->zero;
        }
    }
    return 0;
}

/* Tables of a step that changes rows or enlarges: scale, shift and more per channel. */
static int change_tables(const Program *p, const StepSpec *s, ReducedTables *t) {
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out], *more = s->other < 0 ? NULL : &p->maps[s->other];
    const float *scale = number(p, s->before_scale), *shift = number(p, s->before_shift);
    t->scale = floats(in->channels), t->bias = floats(in->channels), t->residual_scale = floats(in->channels);
    if (!t->scale || !t->bias || !t->residual_scale) return -1;
    for (int32_t c = 0; c < in->channels; c++) {
        t->scale[c] = (scale ? scale[c] : 1) * in->scale / out->scale;
        t->bias[c] = (shift ? shift[c] : 0) / out->scale + (float)out->zero - t->scale[c] * (float)in->zero;
        if (!more) continue;
        t->residual_scale[c] = more->scale / out->scale;
        t->bias[c] -= t->residual_scale[c] * (float)more->zero;
    }
    return 0;
}

/* Whether scales and weights, all finite, have products that are. */
static int is_finite(const ReducedTables *t, int64_t channels) {
    return !unreal(t->scale, channels) && !unreal(t->bias, channels) && !unreal(t->residual_scale, channels);
}

/* The call of a convolution but for its maps. */
static ReducedConvolution call_of(const Program *p, int32_t step) {
    const StepSpec *s = &p->steps[step];
    const ReducedTables *t = &p->reduced[step];
    return (ReducedConvolution){
        .in = {.channels = p->maps[s->in].channels, .type = p->maps[s->in].precision},
        .weight = t->weight, .start = p->maps[s->in].precision == U8 ? t->start : NULL,
        .scale = t->scale, .bias = t->bias, .residual_scale = t->residual_scale, .low = t->low, .high = t->high,
        .residual_type = s->other < 0 ? F32 : p->maps[s->other].precision, .out_type = p->maps[s->out].precision,
        .rows = s->rows, .columns = s->columns, .stride = s->stride, .dilation = s->dilation,
        .outputs = p->maps[s->out].channels, .path = BEST,
    };
}

/* Lay out all steps in reduced precision. -1 without memory, or for a map that the kernels cannot read; -2 if
   a step's tables overflow. */
int reduced_prepare(Program *p) {
    p->reduced = calloc((size_t)p->head.steps, sizeof *p->reduced);
    if (!p->reduced) return -1;
    for (int32_t k = 0; k < p->head.steps; k++) {
        const StepSpec *s = &p->steps[k];
        ReducedTables *t = &p->reduced[k];
        if (s->kind == RESAMPLE && !(t->outside = outside_row(p, s))) return -1;
        if (!is_reduced(p, s)) continue;
        const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out];
        const int multiplies = s->kind == CONVOLVE || s->kind == DEPTHWISE;
        if (multiplies && (in->precision == F32 || in->channels % (in->precision == U8 ? 4 : 2))) return -1;
        t->low = s->low / out->scale + (float)out->zero, t->high = s->high / out->scale + (float)out->zero;
        t->outside = outside_row(p, s);
        if (!t->outside || (multiplies ? pack(p, s, t) : change_tables(p, s, t))) return -1;
        if (!is_finite(t, multiplies ? out->channels : in->channels)) return -2;
        if (s->kind != CONVOLVE) continue;
        const ReducedConvolution v = call_of(p, k);
        const int64_t bytes = reduced_scratch(&v) + 64;
        p->scratch = bytes / 4 + 1 > p->scratch ? bytes / 4 + 1 : p->scratch;
    }
    return 0;
}

void reduced_free(Program *p) {
    for (int32_t k = 0; p->reduced && k < p->head.steps; k++) {
        ReducedTables *t = &p->reduced[k];
        free(t->weight), free(t->outside), free(t->start), free(t->scale), free(t->bias), free(t->residual_scale);
    }
    free(p->reduced);
}

static Samples samples_of(const Run *r, int32_t step) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const MapSpec *in = &p->maps[s->in];
    const Shape shape = shape_of(r, s->in);
    const Table *t = table_of(r, step);
    Samples x = {.own = current(r, s->in), .outside = p->reduced[step].outside, .tiles = shape.tiles, .height = shape.height,
                 .width = shape.width, .channels = in->channels, .type = in->precision, .top = -s->top, .left = -s->left};
    x.own_rows = shape.tiles * shape.height * shape.width;
    if (!t) return x;
    const TableSpec *spec = &p->tables[p->table[step]];
    const int32_t side = side_of(r, spec->stride);
    x.own = pool_of(r, s->in), x.means = r->means, x.index = t->index.at;
    x.own_rows = plain_rows(&r->grid, side) + r->grid.tiles * side * side;
    x.height = x.width = side + 2 * spec->border;
    x.top += spec->border, x.left += spec->border;
    return x;
}

static void average(Run *r, int32_t step, const Samples *in, Team team) {
    const Table *t = table_of(r, step);
    if (!t || !t->means) return;
    const ReducedMeans m = {*in, t->start.at, t->source.at, t->share.at, in->outside, r->means, t->means};
    reduced_means_step(&m, team);
    meet(r, team);
}

static void convolve(Run *r, int32_t step, const Samples *in, Team team) {
    const StepSpec *s = &r->program->steps[step];
    const int few = r->wanted && r->program->cut_only[step];
    const Shape shape = few ? (Shape){1, 1, (int32_t)r->wanted_count} : shape_of(r, s->out);
    ReducedConvolution v = call_of(r->program, step);
    v.in = *in, v.out = current(r, s->out), v.out_height = shape.height, v.out_width = shape.width;
    v.residual = s->other < 0 ? NULL : current(r, s->other);
    if (few) v.in.index = r->wanted, v.in.tiles = 1, v.in.height = 1, v.in.width = shape.width, v.out = r->context->few.at;
    v.scratch = r->scratch[0], v.scratch_bytes = r->scratch_bytes, v.unreal = &r->overflow;
    if (s->kind == CONVOLVE) reduced_convolve_step(&v, team);
    else reduced_depthwise_step(&v, team);
    if (!few) return;
    meet(r, team);
    put_wanted(r, s->out, v.out, team);
}

static void change(Run *r, int32_t step, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const ReducedTables *t = &p->reduced[step];
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out];
    const Shape shape = shape_of(r, s->out);
    const ReducedChange v = {
        .in = current(r, s->in), .scale = t->scale, .shift = t->bias, .more = s->other < 0 ? NULL : current(r, s->other),
        .more_scale = t->residual_scale, .out = current(r, s->out), .rows = shape.tiles * shape.height * shape.width,
        .low = t->low, .high = t->high, .in_channels = in->channels, .channels = in->channels, .pitch = out->channels, .at = s->at,
        .in_type = in->precision, .more_type = s->other < 0 ? F32 : p->maps[s->other].precision, .out_type = out->precision,
        .unreal = &r->overflow,
    };
    reduced_change_step(&v, team);
}

void reduced_step(Run *r, int32_t step, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const ReducedTables *t = &p->reduced[step];
    if (s->kind == ADD || s->kind == AFFINE || s->kind == CONCAT) {
        change(r, step, team);
        return;
    }
    const Shape shape = shape_of(r, s->out);
    const Samples in = samples_of(r, step);
    average(r, step, &in, team);
    if (s->kind == MAX_POOL) {
        const ReducedPool v = {in, current(r, s->out), s->rows, s->columns, s->stride, s->dilation, shape.height, shape.width};
        reduced_max_pool_step(&v, team);
    } else if (s->kind == ENLARGE) {
        const ReducedEnlargement v = {
            .in = in, .out = current(r, s->out), .scale = t->scale[0], .shift = t->bias[0], .low = t->low, .high = t->high,
            .out_type = p->maps[s->out].precision, .factor = s->factor, .out_height = shape.height, .out_width = shape.width,
            .unreal = &r->overflow,
        };
        reduced_enlarge_step(&v, team);
    } else convolve(r, step, &in, team);
}

/* RESAMPLE, in any precision. */
void any_resample_step(Run *r, int32_t step, Team team) {
    const int32_t table = r->program->table[step];
    const Samples in = samples_of(r, step);
    average(r, step, &in, team);
    resample_step(r, step, &in, r->pass.plain || table < 0 ? 0 : r->program->tables[table].border, team);
}
