/* Dense modules: tiles into whole maps, a grid of means over them, and whole maps into tiles again. */
#include "program/program.h"
#include "steps/values.h"
#include "maps/tiles.h"

typedef struct {
    const Run *run;
    const void *pool;
    const MapSpec *map;
    int32_t side, channels;
    int64_t image;
    float blend;
    const uint8_t *changed; /* cells whose samples may differ from those that are there; NULL for all */
    float *beside;          /* five rows */
} Compose;

/* A sample as floats, where it lies or copied. */
static const float *value_of(const Compose *c, int64_t row, float *beside) {
    const MapSpec *m = c->map;
    if (m->precision == F32) return (const float *)c->pool + row * c->channels;
    read_values(beside, c->pool, m->precision, row * c->channels, c->channels);
    for (int32_t k = 0; m->precision == U8 && k < c->channels; k++) beside[k] = m->scale * (beside[k] - (float)m->zero);
    return beside;
}

/* Add the mean of the samples that finer tiles hold under a coordinate; what is unknown counts as 0. */
static void add_finer(const Compose *c, int32_t level, int32_t y, int32_t x, float share, float *to) {
    const Grid *g = &c->run->grid;
    const int32_t unit = (g->tile / c->side) << (level - 1);
    const int32_t rows = (int64_t)(2 * y + 1) * unit < g->height ? 2 : 1, columns = (int64_t)(2 * x + 1) * unit < g->width ? 2 : 1;
    share /= (float)(rows * columns);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < columns; j++) {
            const int64_t row = find(g, c->side, c->image, level - 1, 2 * y + i, 2 * x + j);
            if (row == FINER) add_finer(c, level - 1, 2 * y + i, 2 * x + j, share, to);
            if (row < 0) continue;
            const float *from = value_of(c, row, c->beside + 4 * c->channels);
            for (int32_t k = 0; k < c->channels; k++) to[k] += share * from[k];
        }
}

/* The sample at a coordinate of a level, where it lies or copied. */
static const float *sample(const Compose *c, int32_t level, int32_t y, int32_t x, float *beside) {
    const int64_t row = find(&c->run->grid, c->side, c->image, level, y, x);
    if (row >= 0) return value_of(c, row, beside);
    memset(beside, 0, (size_t)c->channels * sizeof(float));
    if (row == FINER) add_finer(c, level, y, x, 1.0f, beside);
    return beside;
}

/* Samples between two columns, `after` from the left one on in steps: the columns hold the blend of two lines. */
static void put(const Compose *c, const float *left, const float *right, float after, float step, int32_t count, float *restrict to) {
    const float keep = c->blend, more = 1 - c->blend;
    const int32_t channels = c->channels;
    for (int32_t x = 0; x < count; x++, after += step, to += channels) {
        if (keep != 0)
            for (int32_t k = 0; k < channels; k++) to[k] = keep * to[k] + more * (left[k] + after * (right[k] - left[k]));
        else
            for (int32_t k = 0; k < channels; k++) to[k] = left[k] + after * (right[k] - left[k]);
    }
}

/* The blend of two samples of a column of a level. */
static void blend_column(const Compose *c, int32_t level, int32_t y0, int32_t y1, float below, int32_t x, float *to) {
    const float *upper = sample(c, level, y0, x, c->beside), *lower = sample(c, level, y1, x, c->beside + c->channels);
    for (int32_t k = 0; k < c->channels; k++) to[k] = upper[k] + below * (lower[k] - upper[k]);
}

/* A run of samples [x, end) of line y of a map at `base`, owned by coarser content of a level. */
static void enlarge_run(const Compose *c, int32_t base, int32_t level, int32_t y, int32_t x, int32_t end, float *to) {
    const int32_t factor = 1 << (level - base), channels = c->channels, stride = c->map->stride;
    const int32_t last_y = rows_at(c->run, stride, level) - 1, last_x = columns_at(c->run, stride, level) - 1;
    const float step = 1 / (float)factor, v = ((float)y + 0.5f) * step - 0.5f;
    const int32_t upper = (int32_t)floorf(v), y0 = within(upper, last_y), y1 = within(upper + 1, last_y);
    float *left = c->beside + 2 * channels, *right = left + channels;
    int32_t at = (int32_t)floorf(((float)x + 0.5f) * step - 0.5f);
    blend_column(c, level, y0, y1, v - (float)upper, within(at, last_x), left);
    for (; x < end; at++) {
        blend_column(c, level, y0, y1, v - (float)upper, within(at + 1, last_x), right);
        const int32_t next = (at + 1) * factor + factor / 2, stop = next < end ? next : end;
        put(c, left, right, ((float)x + 0.5f) * step - 0.5f - (float)at, step, stop - x, to);
        to += (int64_t)(stop - x) * channels, x = stop;
        float *const swap = left;
        left = right, right = swap;
    }
}

/* One line of a map at `base`, run by run of one owner; runs that did not change stay. */
static void compose_line(const Compose *c, int32_t base, int32_t y, int32_t width, float *to) {
    const Grid *g = &c->run->grid;
    const int32_t channels = c->channels, side = c->side;
    const int64_t line = (c->image * g->rows + ((int64_t)y << base) / side) * g->columns;
    for (int32_t x = 0; x < width;) {
        int64_t cell = ((int64_t)x << base) / side;
        const int64_t owner = g->owner[line + cell];
        const int stays = c->changed && !c->changed[line + cell];
        while (cell + 1 < g->columns && g->owner[line + cell + 1] == owner && stays == (c->changed && !c->changed[line + cell + 1])) cell++;
        int64_t end = ((cell + 1) * side + (1 << base) - 1) >> base;
        end = end > width ? width : end;
        if (stays) {
            x = (int32_t)end;
            continue;
        }
        float *at = to + (int64_t)x * channels;
        const int32_t level = owner == PLAIN ? g->plain_level : owner < 0 ? base : (int32_t)g->level[owner];
        if (owner == UNKNOWN) memset(at, 0, (size_t)(end - x) * (size_t)channels * sizeof(float));
        else if (level > base) enlarge_run(c, base, level, y, x, (int32_t)end, at);
        else {
            const int64_t row = find(g, side, c->image, level, y, x);
            for (int64_t k = 0; k < end - x; k++, at += channels) {
                const float *from = value_of(c, row + k, c->beside);
                if (c->blend == 0) memcpy(at, from, (size_t)channels * sizeof(float));
                else for (int32_t i = 0; i < channels; i++) at[i] = c->blend * at[i] + (1 - c->blend) * from[i];
            }
        }
        x = (int32_t)end;
    }
}

/* Multiply-accumulates of a composition [MAC]: 4 a sample that comes from a coarser level than the map's. */
int64_t compose_macs(const Run *r, int32_t map, const int32_t *base) {
    const Grid *g = &r->grid;
    int64_t macs = 0;
    for (int32_t n = 0; n < r->request->images; n++) {
        int64_t pixels = 0;
        for (int32_t i = 0; i < g->rows; i++)
            for (int32_t j = 0; j < g->columns; j++) {
                const int32_t below = g->height - i * g->tile, right = g->width - j * g->tile;
                if (r->held[((int64_t)n * g->rows + i) * g->columns + j] <= base[n]) continue;
                pixels += (int64_t)(below < g->tile ? below : g->tile) * (right < g->tile ? right : g->tile);
            }
        const int64_t stride = (int64_t)r->program->maps[map].stride << base[n];
        macs += 4 * pixels * r->program->maps[map].channels / (stride * stride);
    }
    return macs;
}

static int is_new(const Grid *g, int64_t owner) { return owner >= g->first && owner < g->first + g->computed; }

/* Mark the cells that the tiles computed last change in a composed map: they themselves, and coarser ones whose
   bilinear samples reach as far as them. */
void mark_changed(const Run *r, int32_t map, uint8_t *changed) {
    const Grid *g = &r->grid;
    for (int64_t k = 0; k < (int64_t)r->request->images * g->rows * g->columns; k++) {
        const int32_t y = (int32_t)(k / g->columns % g->rows), x = (int32_t)(k % g->columns);
        /* a place between two samples lies within one and a half of them */
        const int32_t spacing = r->program->maps[map].stride << (r->held[k] < 0 ? 0 : r->held[k]);
        const int32_t reach = r->held[k] ? (3 * spacing / 2 - 1) / g->tile + 1 : 0; /* full resolution is copied */
        int found = 0;
        for (int32_t i = within(y - reach, g->rows - 1); i <= within(y + reach, g->rows - 1) && !found; i++)
            for (int32_t j = within(x - reach, g->columns - 1); j <= within(x + reach, g->columns - 1) && !found; j++)
                found = is_new(g, g->owner[k + (int64_t)(i - y) * g->columns + j - x]);
        changed[k] = (uint8_t)found;
    }
}

/* Whole maps of all images, each at its own base, from tiles of all levels: what is coarser is enlarged
   bilinearly. With a blend, that share of what is there stays; so do cells that are not marked as changed. */
void compose_step(const Run *r, int32_t map, float *out, const int32_t *base, float blend, const uint8_t *changed, Team team) {
    const MapSpec *m = &r->program->maps[map];
    float beside[5 * m->channels];
    Compose c = {r, pool_of(r, map), m, side_of(r, m->stride), m->channels, 0, blend, changed, beside};
    int64_t lines = 0, rows = 0, image = 0, before = 0;
    for (int64_t n = 0; n < r->request->images; n++) lines += rows_at(r, m->stride, base[n]);
    for (int64_t line; (line = take(&team)) < lines;) {
        while (line >= before + rows_at(r, m->stride, base[image])) {
            before += rows_at(r, m->stride, base[image]);
            rows += (int64_t)rows_at(r, m->stride, base[image]) * columns_at(r, m->stride, base[image]);
            image++;
        }
        const int32_t y = (int32_t)(line - before), width = columns_at(r, m->stride, base[image]);
        c.image = image;
        compose_line(&c, base[image], y, width, out + (rows + (int64_t)y * width) * m->channels);
    }
}

/* Means over the parts of a grid, or of a whole map of other sides: part i of n covers the samples
   [floor(i size / n), ceil((i + 1) size / n)). */
void grid_pool_step(const Run *r, const StepSpec *s, Team team) {
    const MapSpec *bins = &r->program->maps[s->out], *whole = &r->program->maps[s->in];
    const int32_t channels = whole->channels;
    int64_t image = 0, before = 0, lines = 0;
    for (int64_t n = 0; n < r->request->images; n++) lines += sides_of(r, bins, n).rows;
    for (int64_t line; (line = take(&team)) < lines;) {
        while (line >= before + sides_of(r, bins, image).rows) before += sides_of(r, bins, image++).rows;
        const Sides from = sides_of(r, whole, image), to = sides_of(r, bins, image);
        const int64_t i = line - before;
        const int64_t top = i * from.rows / to.rows, bottom = ((i + 1) * from.rows + to.rows - 1) / to.rows;
        const float *map = current(r, s->in) + rows_before(r, whole, image) * channels;
        float *out = current(r, s->out) + (rows_before(r, bins, image) + i * to.columns) * channels;
        for (int64_t j = 0; j < to.columns; j++, out += channels) {
            const int64_t left = j * from.columns / to.columns, right = ((j + 1) * from.columns + to.columns - 1) / to.columns;
            memset(out, 0, (size_t)channels * sizeof(float));
            for (int64_t y = top; y < bottom; y++)
                for (int64_t x = left; x < right; x++)
                    for (int32_t c = 0; c < channels; c++) out[c] += map[(y * from.columns + x) * channels + c];
            for (int32_t c = 0; c < channels; c++) out[c] /= (float)((bottom - top) * (right - left));
        }
    }
}

/* Where a sample of a map lies in a grid, along an axis. */
static float place(const StepSpec *s, int32_t at, int32_t bins, int32_t samples) {
    if (s->function & ALIGN_CORNERS) return samples > 1 ? (float)at * ((float)(bins - 1) / (float)(samples - 1)) : 0;
    const float found = ((float)at + 0.5f) * ((float)bins / (float)samples) - 0.5f;
    return found < 0 ? 0 : found;
}

/* A grid enlarged bilinearly to its whole map, as channels from `at` on. */
void grid_spread_step(const Run *r, const StepSpec *s, Team team) {
    const MapSpec *bins = &r->program->maps[s->in], *whole = &r->program->maps[s->out];
    const int32_t channels = bins->channels, pitch = whole->channels, grid = bins->grid;
    int64_t image = 0, before = 0, lines = 0;
    for (int64_t n = 0; n < r->request->images; n++) lines += sides_of(r, whole, n).rows;
    for (int64_t line; (line = take(&team)) < lines;) {
        while (line >= before + sides_of(r, whole, image).rows) before += sides_of(r, whole, image++).rows;
        const int32_t height = sides_of(r, whole, image).rows, width = sides_of(r, whole, image).columns;
        const int32_t across = sides_of(r, bins, image).columns, y = (int32_t)(line - before);
        const float *map = current(r, s->in) + rows_before(r, bins, image) * channels;
        float *to = current(r, s->out) + (rows_before(r, whole, image) + (int64_t)y * width) * pitch + s->at;
        const float v = place(s, y, grid, height);
        const int32_t top = (int32_t)v < grid ? (int32_t)v : grid - 1, bottom = top + (top < grid - 1);
        const float below = v - (float)top;
        for (int32_t x = 0; x < width; x++, to += pitch) {
            const float u = place(s, x, across, width);
            const int32_t left = (int32_t)u < across ? (int32_t)u : across - 1, right = left + (left < across - 1);
            const float after = u - (float)left;
            const float *a = map + (int64_t)(top * across + left) * channels, *b = map + (int64_t)(top * across + right) * channels;
            const float *c = map + (int64_t)(bottom * across + left) * channels, *d = map + (int64_t)(bottom * across + right) * channels;
            const float w0 = (1 - below) * (1 - after), w1 = (1 - below) * after, w2 = below * (1 - after), w3 = below * after;
            for (int32_t k = 0; k < channels; k++) to[k] = w0 * a[k] + w1 * b[k] + w2 * c[k] + w3 * d[k];
        }
    }
}

/* The vector of an image at all its samples, as channels from `at` on. */
void repeat_vector_step(Run *r, const StepSpec *s, Team team) {
    const MapSpec *in = &r->program->maps[s->in], *out = &r->program->maps[s->out];
    const Shape shape = shape_of(r, s->out);
    const int64_t area = (int64_t)shape.height * shape.width, rows = shape.tiles * area, size = lines_per_task(rows, &team);
    const float *vectors = current(r, s->in);
    void *to = current(r, s->out);
    float *values = r->scratch[team.thread];
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) {
            const int64_t image = r->pass.plain ? row / area : r->grid.image[r->grid.first + row / area];
            memcpy(values, vectors + image * in->channels, (size_t)in->channels * sizeof(float));
            store_values(r, out, values, to, row * out->channels + s->at, in->channels);
        }
}

/* Copy a map of plain maps into another of another precision. */
void convert_plain_step(Run *r, int32_t from, int32_t to, Team team) {
    const MapSpec *a = &r->program->maps[from], *b = &r->program->maps[to];
    const Shape shape = shape_of(r, from);
    const int64_t rows = shape.tiles * shape.height * shape.width, size = lines_per_task(rows, &team);
    const int32_t channels = a->channels;
    const void *in = current(r, from);
    void *out = current(r, to);
    float values[channels];
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) {
            read_values(values, in, a->precision, row * channels, channels);
            for (int32_t k = 0; a->precision == U8 && k < channels; k++) values[k] = a->scale * (values[k] - (float)a->zero);
            store_values(r, b, values, out, row * channels, channels);
        }
}

/* Whole maps into the tiles that are computed now. */
void cut_whole_step(Run *r, const StepSpec *s, Team team) {
    const MapSpec *m = &r->program->maps[s->out], *whole = &r->program->maps[s->in];
    const int32_t side = side_of(r, m->stride);
    const float *in = current(r, s->in);
    void *out = current(r, s->out);
    float *scratch = r->scratch[team.thread];
    const Grid *g = &r->grid;
    const int64_t lines = g->computed * side, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t t = g->first + line / side, image = g->image[t];
            const int32_t base = r->base[image], level = (int32_t)g->level[t];
            const Dense d = {in + rows_before(r, whole, image) * m->channels, rows_at(r, m->stride, base), columns_at(r, m->stride, base), m->channels};
            float *to = m->precision == F32 ? (float *)out + line * side * m->channels : scratch;
            cut_line(&d, level - base, (int32_t)(g->row[t] * side >> level) + (int32_t)(line % side),
                     (int32_t)(g->column[t] * side >> level), side, to);
            if (m->precision != F32) store_values(r, m, scratch, out, line * side * m->channels, side * m->channels);
        }
}
