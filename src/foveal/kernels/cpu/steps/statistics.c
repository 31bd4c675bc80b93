/* Statistics of whole images: every sample counts with the area that it stands for and still owns. The rule is that
   of foveal/geometry/area.py. */
#include <math.h>
#include "program/program.h"
#include "steps/values.h"

/* Where the samples of an image lie: lines of plain maps, then lines of tiles. */
typedef struct {
    const Run *run;
    const MapSpec *map;
    const void *pool;
    int32_t side;
    int64_t image;
    const double *centre; /* [channels]: sum squares of differences from it; or NULL for sums */
    double *sums;         /* [channels], then the area */
    float *values;        /* [channels] */
} Sums;

static void add_sample(const Sums *a, int64_t row, double weight) {
    const int32_t channels = a->map->channels;
    load_row(a->map, a->pool, row, a->values);
    for (int32_t c = 0; c < channels && !a->centre; c++) a->sums[c] += weight * (double)a->values[c];
    for (int32_t c = 0; c < channels && a->centre; c++) {
        const double off = (double)a->values[c] - a->centre[c];
        a->sums[c] += weight * off * off;
    }
    a->sums[channels] += weight;
}

/* Share of a sample (y, x) of a tile at a cell whose place still belongs to an owner. */
static double share_of(const Sums *a, int64_t owner, int32_t level, int64_t row, int64_t column, int32_t y, int32_t x) {
    const Grid *g = &a->run->grid;
    const int64_t span = (int64_t)1 << level, top = y * span / a->side, left = x * span / a->side;
    const int64_t bottom = ((y + 1) * span + a->side - 1) / a->side, right = ((x + 1) * span + a->side - 1) / a->side;
    int64_t owned = 0;
    for (int64_t i = row + top; i < row + bottom; i++)
        for (int64_t j = column + left; j < column + right; j++)
            owned += i >= g->rows || j >= g->columns || g->owner[(a->image * g->rows + i) * g->columns + j] == owner;
    return (double)owned / (double)((bottom - top) * (right - left));
}

/* A line of a plain map; in the pass of plain maps all of it counts. */
static void add_plain_line(const Sums *a, int32_t level, int32_t y) {
    const Run *r = a->run;
    const int32_t rows = rows_at(r, a->map->stride, level), columns = columns_at(r, a->map->stride, level);
    const int64_t line = (a->image * rows + y) * columns;
    const double area = (double)((int64_t)1 << 2 * level);
    for (int32_t x = 0; x < columns; x++) {
        const int64_t row = (int64_t)(y / a->side) << level, column = (int64_t)(x / a->side) << level;
        const double share = r->pass.plain ? 1 : share_of(a, PLAIN, level, row, column, y % a->side, x % a->side);
        if (share > 0) add_sample(a, line + x, area * share);
    }
}

static void add_tile_line(const Sums *a, int64_t tile, int32_t y) {
    const Run *r = a->run;
    const Grid *g = &r->grid;
    const int32_t level = (int32_t)g->level[tile], side = a->side;
    const int64_t top = g->row[tile] * side >> level, left = g->column[tile] * side >> level;
    const int32_t rows = rows_at(r, a->map->stride, level), columns = columns_at(r, a->map->stride, level);
    const int64_t line = plain_rows(g, side) + (tile * side + y) * side;
    const double area = (double)((int64_t)1 << 2 * level);
    for (int32_t x = 0; x < side && top + y < rows && left + x < columns; x++) {
        const double share = share_of(a, tile, level, g->row[tile], g->column[tile], y, x);
        if (share > 0) add_sample(a, line + x, area * share);
    }
}

/* One part of the lines of an image. */
static void add_part(const Sums *a, int32_t part) {
    const Run *r = a->run;
    const Grid *g = &r->grid;
    const int32_t level = r->pass.plain ? r->pass.level : g->plain_level;
    const int64_t plain = r->pass.plain || g->images ? rows_at(r, a->map->stride, level) : 0;
    const int64_t tiles = r->pass.plain ? 0 : g->tiles, lines = plain + tiles * a->side;
    for (int64_t k = lines * part / PARTS; k < lines * (part + 1) / PARTS; k++) {
        const int64_t tile = (k - plain) / a->side;
        if (k < plain) add_plain_line(a, level, (int32_t)k);
        else if (g->image[tile] == a->image) add_tile_line(a, tile, (int32_t)((k - plain) % a->side));
    }
}

/* Means [images][channels] over the images of a map, or of squares of differences from `centre` [images][channels].
   Parts are the same however many threads there are, and so is the result. */
static void means_of(Run *r, int32_t map, const double *centre, double *out, Team team) {
    const MapSpec *m = &r->program->maps[map];
    const int64_t images = r->request->images, channels = m->channels;
    double *parts = r->sums;
    const void *pool = r->pass.plain ? current(r, map) : pool_of(r, map);
    for (int64_t task; (task = take(&team)) < images * PARTS;) {
        double *sums = parts + task * (channels + 1);
        memset(sums, 0, (size_t)(channels + 1) * sizeof *sums);
        const int64_t image = task / PARTS;
        const Sums a = {r, m, pool, side_of(r, m->stride), image, centre ? centre + image * channels : NULL, sums, r->scratch[team.thread]};
        add_part(&a, (int32_t)(task % PARTS));
    }
    meet(r, team);
    for (int64_t task; (task = take(&team)) < images;) {
        double area = 0, *to = out + task * channels;
        memset(to, 0, (size_t)channels * sizeof *to);
        for (int64_t k = task * PARTS; k < (task + 1) * PARTS; k++) {
            const double *sums = parts + k * (channels + 1);
            for (int64_t c = 0; c < channels; c++) to[c] += sums[c];
            area += sums[channels];
        }
        for (int64_t c = 0; c < channels; c++) to[c] /= area < 1 ? 1 : area;
    }
    meet(r, team);
}

/* Doubles that statistics of a map of so many channels need. */
int64_t statistics_scratch(int64_t images, int64_t channels) { return images * (PARTS * (channels + 1) + 2 * channels); }

static double *results_of(const Run *r, int64_t channels) { return r->sums + r->request->images * PARTS * (channels + 1); }

void mean_step(Run *r, const StepSpec *s, Team team) {
    const int64_t channels = r->program->maps[s->in].channels, count = r->request->images * channels;
    double *means = results_of(r, channels);
    means_of(r, s->in, NULL, means, team);
    float *out = current(r, s->out);
    for (int64_t k; (k = take(&team)) < count;) out[k] = (float)means[k];
}

/* Give every channel the mean of its group. */
static void share_groups(double *values, int64_t images, int64_t channels, int64_t groups, Team team) {
    const int64_t width = channels / groups;
    for (int64_t task; (task = take(&team)) < images * groups;) {
        double *group = values + task * width, sum = 0;
        for (int64_t c = 0; c < width; c++) sum += group[c];
        for (int64_t c = 0; c < width; c++) group[c] = sum / (double)width;
    }
}

void group_norm_step(Run *r, const StepSpec *s, Team team) {
    const Program *p = r->program;
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out];
    const int64_t channels = in->channels, images = r->request->images;
    double *centre = results_of(r, channels), *variance = centre + images * channels;
    means_of(r, s->in, NULL, centre, team);
    share_groups(centre, images, channels, s->factor, team);
    meet(r, team);
    means_of(r, s->in, centre, variance, team);
    share_groups(variance, images, channels, s->factor, team);
    meet(r, team);
    const Shape shape = shape_of(r, s->in);
    const int64_t area = (int64_t)shape.height * shape.width, rows = shape.tiles * area, size = lines_per_task(rows, &team);
    const float *scale = number(p, s->before_scale), *shift = number(p, s->before_shift);
    const void *from = current(r, s->in);
    void *to = current(r, s->out);
    float *values = r->scratch[team.thread], *unit = values + channels;
    int64_t known = -1;
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) {
            const int64_t image = image_of(r, row / area), at = image * channels;
            for (int64_t c = 0; known != image && c < channels; c++) unit[c] = (float)(1 / sqrt(variance[at + c] + s->before_low));
            known = image;
            load_row(in, from, row, values);
            for (int64_t c = 0; c < channels; c++) {
                values[c] = (float)(values[c] - centre[at + c]) * unit[c];
                if (scale) values[c] = scale[c] * values[c] + shift[c];
            }
            store_row(r, out, to, row, values);
        }
}
