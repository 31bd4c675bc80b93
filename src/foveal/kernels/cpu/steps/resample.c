/* Maps at another stride, by any rule of where a sample lies; the rules are those of foveal/ops/resample. */
#include "program/program.h"
#include "steps/values.h"

/* Where the samples of a new map lie in an old one, along an axis. */
typedef struct {
    int32_t old, new, factor, how;
} Axis;

static double place(const Axis *a, int64_t at) {
    const double last = a->old - 1;
    const int64_t kept = at < a->new ? at : a->new - 1;
    const double count = a->how & BY_FACTOR ? (double)a->old * a->factor : (double)a->new;
    double found;
    if (a->how & NEAREST) found = floorf((float)kept * (float)(a->old / count)); /* as PyTorch, in single precision */
    else if (a->how & ALIGN_CORNERS) found = count > 1 ? (double)kept * (last / (count - 1)) : 0;
    else found = ((double)kept + 0.5) * (a->old / count) - 0.5;
    return found < 0 ? 0 : found > last ? last : found;
}

/* A line of new samples: which rows of the old map it lies between, and how far after the upper one. */
typedef struct {
    Run *run;
    const Samples *in;
    const MapSpec *from, *to;
    int64_t tile, begin;   /* first column of the tile, in samples of the old map */
    int32_t upper, lower;
    float below;
    float *corner;         /* [4][channels] */
} Line;

static const float *corner_of(const Line *l, int32_t y, int32_t x, float *beside) {
    const Samples *s = l->in;
    const void *row = row_address(s, sample_row(s, l->tile, y, x), row_bytes(s));
    if (l->from->precision == F32) return row;
    load_row(l->from, row, 0, beside);
    return beside;
}

/* Sample (y, x) is that many before or after the tile's; it stays within the border. */
static int32_t bordered(int64_t at, int32_t border, int32_t size) {
    at += border;
    return at < 0 ? 0 : at >= size ? size - 1 : (int32_t)at;
}

static void put_sample(const Line *l, const Axis *across, int64_t x, int32_t border, void *out, int64_t row, float *beside) {
    float *restrict values = l->to->precision == F32 ? (float *)out + row * l->to->channels : beside;
    const int32_t channels = l->from->channels, width = l->in->width;
    const double u = place(across, x);
    const int64_t whole = (int64_t)u;
    const float after = (float)(u - (double)whole);
    const int32_t left = bordered(whole - l->begin, border, width), right = bordered(whole + 1 - l->begin, border, width);
    const float *a = corner_of(l, l->upper, left, l->corner);
    if (across->how & NEAREST) memcpy(values, a, (size_t)channels * sizeof(float));
    else {
        const float *b = corner_of(l, l->upper, right, l->corner + channels);
        const float *c = corner_of(l, l->lower, left, l->corner + 2 * channels), *d = corner_of(l, l->lower, right, l->corner + 3 * channels);
        const float w0 = (1 - l->below) * (1 - after), w1 = (1 - l->below) * after, w2 = l->below * (1 - after), w3 = l->below * after;
        for (int32_t k = 0; k < channels; k++) values[k] = w0 * a[k] + w1 * b[k] + w2 * c[k] + w3 * d[k];
    }
    if (values == beside) store_row(l->run, l->to, out, row, values);
}

void resample_step(Run *r, int32_t step, const Samples *in, int32_t border, Team team) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const MapSpec *from = &p->maps[s->in], *to = &p->maps[s->out];
    const Shape shape = shape_of(r, s->out), before = shape_of(r, s->in);
    const int whole = to->kind == WHOLE, plain = whole || r->pass.plain;
    const int32_t side = side_of(r, from->stride), wide = side_of(r, to->stride);
    const int64_t lines = shape.tiles * shape.height, size = lines_per_task(lines, &team);
    void *out = current(r, s->out);
    float *scratch = r->scratch[team.thread];
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t tile = line / shape.height, t = r->grid.first + tile;
            const int32_t level = plain ? r->pass.level : (int32_t)r->grid.level[t];
            const Axis down = {whole ? before.height : rows_at(r, from->stride, level), whole ? shape.height : rows_at(r, to->stride, level), s->factor, s->function};
            const Axis across = {whole ? before.width : columns_at(r, from->stride, level), whole ? shape.width : columns_at(r, to->stride, level), s->factor, s->function};
            const int64_t top = plain ? 0 : r->grid.row[t] * side >> level, begin = plain ? 0 : r->grid.column[t] * side >> level;
            const int64_t y = (plain ? 0 : r->grid.row[t] * wide >> level) + line % shape.height;
            const int64_t x = plain ? 0 : r->grid.column[t] * wide >> level;
            const double v = place(&down, y);
            const Line l = {r, in, from, to, tile, begin, bordered((int64_t)v - top, border, in->height),
                            bordered((int64_t)v + 1 - top, border, in->height), (float)(v - (double)(int64_t)v), scratch + from->channels};
            for (int32_t k = 0; k < shape.width; k++) put_sample(&l, &across, x + k, border, out, line * shape.width + k, scratch);
        }
}
