/* The steps of a program over the running pass. */
#include <time.h>
#include "convolve/convolve.h"
#include "program/program.h"
#include "maps/windows.h"
#include "steps/values.h"

/* Rows that stand for what lies outside the image. */
static const float *zeros(const Run *r) { return r->program->outside; }
static const float *lowest(const Run *r) { return r->program->outside + r->program->widest; }

Shape shape_of(const Run *r, int32_t map) {
    const MapSpec *m = &r->program->maps[map];
    if (m->kind != TILED && !r->alike && r->part < 0) return (Shape){1, 1, (int32_t)rows_before(r, m, r->request->images)};
    if (m->kind != TILED) {
        const Sides s = sides_of(r, m, r->part < 0 ? 0 : r->part);
        return (Shape){r->part < 0 ? r->request->images : 1, s.rows, s.columns};
    }
    if (r->pass.plain)
        return (Shape){r->request->images, rows_at(r, m->stride, r->pass.level), columns_at(r, m->stride, r->pass.level)};
    return (Shape){r->grid.computed, side_of(r, m->stride), side_of(r, m->stride)};
}

const Table *table_of(const Run *r, int32_t step) {
    const int32_t table = r->program->table[step];
    return r->pass.plain || table < 0 ? NULL : &r->context->tables[table];
}

/* How a step reads its input, or another map of the same scale: through the index of the scale, or on plain maps. */
Source source_of(const Run *r, int32_t step, int32_t map, const float *outside) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const Shape shape = shape_of(r, map);
    const Table *t = table_of(r, step);
    Source in = {.outside = outside, .tiles = shape.tiles, .height = shape.height, .width = shape.width,
                 .channels = p->maps[map].channels, .top = -s->top, .left = -s->left};
    if (!t) {
        in.own = current(r, map);
        in.own_rows = shape.tiles * shape.height * shape.width;
        return in;
    }
    const TableSpec *spec = &p->tables[p->table[step]];
    const int32_t side = side_of(r, spec->stride);
    in.own = pool_of(r, map);
    in.own_rows = plain_rows(&r->grid, side) + r->grid.tiles * side * side;
    in.index = t->index.at;
    in.means = r->means;
    in.height = in.width = side + 2 * spec->border;
    in.top += spec->border, in.left += spec->border;
    return in;
}

/* Average the finer samples that a step sees, as they are after what comes before it. */
static void average(Run *r, int32_t step, const Source *in, const float *unknown, Team team) {
    const Table *t = table_of(r, step);
    if (!t || !t->means) return;
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const Averages a = {in, t->start.at, t->source.at, t->share.at, t->means, unknown,
                        number(p, s->before_scale), number(p, s->before_shift), s->before_low, s->before_high, r->means};
    average_step(&a, team);
    meet(r, team);
}

static void convolve(Run *r, int32_t step, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const float *outside = s->outside < 0 ? zeros(r) : number(p, s->outside);
    const int few = r->wanted && p->cut_only[step];
    const Shape shape = few ? (Shape){1, 1, (int32_t)r->wanted_count} : shape_of(r, s->out);
    Convolution v = {
        .in = source_of(r, step, s->in, outside),
        .before_scale = number(p, s->before_scale), .before_shift = number(p, s->before_shift),
        .before_low = s->before_low, .before_high = s->before_high,
        .out = current(r, s->out),
        .tail = {number(p, s->bias), s->other < 0 ? NULL : current(r, s->other), number(p, s->residual_scale), s->low, s->high},
        .rows = s->rows, .columns = s->columns, .stride = s->stride, .dilation = s->dilation,
        .out_height = shape.height, .out_width = shape.width, .outputs = p->maps[s->out].channels,
    };
    if (few) v.in.index = r->wanted, v.in.tiles = 1, v.in.height = 1, v.in.width = shape.width, v.out = r->context->few.at;
    average(r, step, &v.in, outside, team);
    const int32_t algorithm = algorithm_for(r, step, shape.tiles, shape.height, shape.width);
    v.weight = weights_of(p, step, algorithm);
    if (!v.weight) {
        r->stop = -1;
        return;
    }
    if (algorithm == DIRECT) convolve_step(&v, team);
    else winograd_step(&v, algorithm == WINOGRAD2 ? 2 : 4, r->scratch[team.thread], team);
    if (!few) return;
    meet(r, team);
    put_wanted(r, s->out, v.out, team);
}

static void window(Run *r, int32_t step, int deep, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const float *outside = deep ? zeros(r) : lowest(r);
    const Shape shape = shape_of(r, s->out);
    const Window v = {
        .in = source_of(r, step, s->in, outside), .weight = number(p, s->weight), .bias = number(p, s->bias),
        .low = s->low, .high = s->high, .out = current(r, s->out),
        .rows = s->rows, .columns = s->columns, .stride = s->stride, .dilation = s->dilation,
        .out_height = shape.height, .out_width = shape.width,
    };
    average(r, step, &v.in, zeros(r), team);
    if (deep) depthwise_step(&v, team);
    else max_pool_step(&v, team);
}

static void enlarge(Run *r, int32_t step, Team team) {
    const StepSpec *s = &r->program->steps[step];
    const Shape shape = shape_of(r, s->out);
    Enlargement e = {source_of(r, step, s->in, zeros(r)), s->factor, shape.height, shape.width, current(r, s->out)};
    average(r, step, &e.in, zeros(r), team);
    enlarge_step(&e, team);
}

/* Enlargement by copying, in any precision: every sample `factor` times in both directions, or, of SPREAD, its
   channels [factor][factor][channels] over as many samples. */
static void copy_samples(Run *r, int32_t step, Team team) {
    const StepSpec *s = &r->program->steps[step];
    const MapSpec *from_map = &r->program->maps[s->in], *to_map = &r->program->maps[s->out];
    const Shape in = shape_of(r, s->in), out = shape_of(r, s->out);
    const int32_t factor = s->factor;
    const size_t bytes = (size_t)(to_map->channels * type_bytes(to_map->precision));
    const size_t pitch = (size_t)(from_map->channels * type_bytes(from_map->precision)), apart = s->kind == SPREAD ? bytes : 0;
    const int64_t lines = out.tiles * out.height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int32_t y = (int32_t)(line % out.height);
            const int64_t row = line / out.height * in.height + y / factor;
            const char *from = (const char *)current(r, s->in) + (size_t)(row * in.width) * pitch + (size_t)(y % factor * factor) * apart;
            char *to = (char *)current(r, s->out) + (size_t)(line * out.width) * bytes;
            for (int32_t x = 0; x < out.width; x++, to += bytes)
                memcpy(to, from + (size_t)(x / factor) * pitch + (size_t)(x % factor) * apart, bytes);
        }
}

/* Some channels of every sample, in any precision. */
static void slice(Run *r, const StepSpec *s, Team team) {
    const MapSpec *in = &r->program->maps[s->in], *out = &r->program->maps[s->out];
    const Shape shape = shape_of(r, s->out);
    const int64_t rows = shape.tiles * shape.height * shape.width, size = lines_per_task(rows, &team), one = type_bytes(in->precision);
    const size_t bytes = (size_t)(out->channels * one), pitch = (size_t)(in->channels * one);
    const char *from = (const char *)current(r, s->in) + s->at * one;
    char *to = (char *)current(r, s->out);
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) memcpy(to + (size_t)row * bytes, from + (size_t)row * pitch, bytes);
}

/* Whether a map has exactly `factor` times the samples of another one, at every level of the running pass. */
static int is_exact(const Run *r, int32_t in, int32_t out, int32_t factor) {
    uint32_t levels = r->pass.plain ? 1u << r->pass.level : 0;
    for (int64_t t = r->grid.first; !r->pass.plain && t < r->grid.first + r->grid.computed; t++) levels |= 1u << r->grid.level[t];
    for (int32_t level = 0; level < MOST_LEVELS; level++)
        if ((levels >> level & 1) && (rows_at(r, out, level) != factor * rows_at(r, in, level) || columns_at(r, out, level) != factor * columns_at(r, in, level)))
            return 0;
    return 1;
}

/* Resampling by a whole factor is what enlarging is, wherever the sides are those of the factor. */
static void resample(Run *r, int32_t step, Team team) {
    const StepSpec *s = &r->program->steps[step];
    const MapSpec *in = &r->program->maps[s->in], *out = &r->program->maps[s->out];
    const int simple = in->kind == TILED && in->precision == out->precision && is_exact(r, in->stride, out->stride, s->factor);
    if (simple && s->function & NEAREST) copy_samples(r, step, team);
    else if (simple && in->precision == F32 && !(s->function & ALIGN_CORNERS)) enlarge(r, step, team);
    else any_resample_step(r, step, team);
}

typedef struct {
    const float *scale, *shift; /* [channels], or NULL for 1 and 0 */
    float low, high;
} Affine;

/* clamp(scale * x + shift + more) of one sample; `more` may be NULL. */
static void affine_row(const Affine *n, const float *x, const float *more, float *to, int32_t channels) {
    int32_t c = 0;
    for (; c + LANES <= channels; c += LANES) {
        vec v = load(x + c);
        if (n->scale) v = load(n->scale + c) * v + load(n->shift + c);
        if (more) v += load(more + c);
        store(to + c, clamp(v, n->low, n->high));
    }
    for (; c < channels; c++) {
        float v = n->scale ? n->scale[c] * x[c] + n->shift[c] : x[c];
        if (more) v += more[c];
        v = v < n->low ? n->low : v;
        to[c] = v > n->high ? n->high : v;
    }
}

/* clamp(scale * a + shift + b) sample by sample; channels from `at` on in the result of CONCAT. */
static void pointwise(Run *r, int32_t step, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const Shape shape = shape_of(r, s->out);
    const int64_t rows = shape.tiles * shape.height * shape.width, size = lines_per_task(rows, &team);
    const int32_t channels = p->maps[s->in].channels, pitch = p->maps[s->out].channels;
    const float *a = current(r, s->in), *b = s->other < 0 ? NULL : current(r, s->other);
    const Affine n = {number(p, s->before_scale), number(p, s->before_shift), s->low, s->high};
    float *out = current(r, s->out);
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) {
            const float *x = a + row * channels;
            float *to = out + row * pitch + s->at;
            if (s->kind == CONCAT) memcpy(to, x, (size_t)channels * sizeof(float));
            else affine_row(&n, x, b ? b + row * channels : NULL, to, channels);
        }
}

/* Multiply-accumulates of a step [MAC], as the network has them: 4 an enlarged sample, cropped or not. */
static int64_t macs_of(const Run *r, const StepSpec *s) {
    const Program *p = r->program;
    const Shape in = shape_of(r, s->in), out = shape_of(r, s->out);
    const int64_t samples = out.tiles * out.height * out.width * p->maps[s->out].channels, taps = (int64_t)s->rows * s->columns;
    switch (s->kind) {
        case CONVOLVE: return s->function == UNCOUNTED ? 0 : samples * taps * p->maps[s->in].channels / s->factor;
        case DEPTHWISE: return s->function == UNCOUNTED ? 0 : samples * taps;
        case ENLARGE: return 4 * in.tiles * in.height * in.width * s->factor * s->factor * p->maps[s->in].channels;
        case RESAMPLE: return s->function & NEAREST ? 0 : 4 * samples;
        case COMPOSE: return r->pass.plain ? 0 : compose_macs(r, s->in, r->base);
        case GRID_SPREAD: return 4 * out.tiles * out.height * out.width * p->maps[s->in].channels;
        default: return 0;
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Add the time since the last call to a step's account; of the first thread only. */
void account(Run *r, int32_t step) {
    if (!r->request->step_ms) return;
    const double time = now();
    if (step >= 0) r->request->step_ms[step] += time - r->clock;
    r->clock = time;
}

void account_part(Run *r, int32_t part) { account(r, r->program->head.steps + part); }

static void run_step(Run *r, int32_t step, Team team) {
    const StepSpec *s = &r->program->steps[step];
    if (block_of(r, step)) {
        block_step(r, step, team);
        return;
    }
    if (is_reduced(r->program, s)) {
        reduced_step(r, step, team);
        return;
    }
    switch (s->kind) {
        case CONVOLVE: convolve(r, step, team); break;
        case DEPTHWISE: window(r, step, 1, team); break;
        case MAX_POOL: window(r, step, 0, team); break;
        case ENLARGE: enlarge(r, step, team); break;
        case REPEAT:
        case SPREAD: copy_samples(r, step, team); break;
        case COMPOSE:
            if (!r->pass.plain) compose_step(r, s->in, current(r, s->out), r->base, 0, NULL, team);
            else if (r->program->alias[s->out] < 0) convert_plain_step(r, s->in, s->out, team);
            break;
        case CUT:
            if (!r->pass.plain) cut_whole_step(r, s, team);
            else if (r->program->alias[s->in] < 0) convert_plain_step(r, s->in, s->out, team);
            break;
        case GRID_POOL: grid_pool_step(r, s, team); break;
        case GRID_SPREAD:
            if (r->program->maps[s->out].kind == TILED) repeat_vector_step(r, s, team);
            else grid_spread_step(r, s, team);
            break;
        case APPLY: apply_step(r, s, team); break;
        case MULTIPLY:
        case OFFSET: combine_step(r, s, team); break;
        case LAYER_NORM: layer_norm_step(r, s, team); break;
        case GROUP_NORM: group_norm_step(r, s, team); break;
        case MEAN: mean_step(r, s, team); break;
        case RESAMPLE: resample(r, step, team); break;
        case SLICE: slice(r, s, team); break;
        default: pointwise(r, step, team);
    }
}

/* Whether a step sees where samples of whole maps lie. */
static int looks_at_images(const Program *p, const StepSpec *s) {
    if (p->maps[s->in].kind != WHOLE) return 0;
    if (s->kind == MULTIPLY || s->kind == OFFSET) return is_vector(&p->maps[s->other]);
    return s->kind == RESAMPLE || s->rows > 1 || s->columns > 1 || s->stride > 1;
}

/* A step at once, or image by image where whole maps of several sides lie one behind the other. */
static void run_on_images(Run *r, int32_t step, Team team) {
    if (r->alike || !looks_at_images(r->program, &r->program->steps[step])) {
        run_step(r, step, team);
        return;
    }
    for (int64_t n = 0; n < r->request->images && !r->stop; n++) {
        if (team.thread == 0) r->part = n;
        meet(r, team);
        run_step(r, step, team);
        meet(r, team);
    }
    if (team.thread == 0) r->part = -1;
}

static void find_alike(Run *r) {
    r->alike = 1;
    for (int32_t n = 0; n < r->request->images; n++) {
        if (r->pass.plain) r->base[n] = r->pass.level;
        r->alike &= r->base[n] == r->base[0];
    }
}

void run_steps(Run *r, Team team) {
    if (team.thread == 0) {
        find_alike(r);
        if (find_wanted(r)) r->stop = -1;
    }
    meet(r, team);
    for (int32_t step = r->first; step < r->last && !r->stop; step++) {
        const int done = block_of(r, step) < 0; /* with the first step of its block */
        if (team.thread == 0) r->request->macs += macs_of(r, &r->program->steps[step]);
        if (done) continue;
        run_on_images(r, step, team);
        meet(r, team);
        if (team.thread == 0) {
            if (r->request->range) observe(r, step);
            account(r, step);
        }
    }
}
