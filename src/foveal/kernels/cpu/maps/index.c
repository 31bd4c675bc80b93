/* Index of bordered tiles: which sample every place of every tile is worth. See foveal/geometry/layout.py for
   the rule; this is the same, tile by tile. */
#include "maps/index.h"
#include "platform/region.h"
#include "platform/export.h"

/* Whether a tile owns all cells under it. */
static int whole(const Grid *g, int64_t tile) {
    const int32_t span = 1 << g->level[tile];
    for (int64_t y = g->row[tile]; y < g->row[tile] + span && y < g->rows; y++)
        for (int64_t x = g->column[tile]; x < g->column[tile] + span && x < g->columns; x++)
            if (g->owner[(g->image[tile] * g->rows + y) * g->columns + x] != tile) return 0;
    return 1;
}

/* The part of the image that a tile and its border see. */
typedef struct {
    int32_t level, top, left, last_y, last_x, border, edge;
} View;

static View view_of(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile) {
    const int32_t level = (int32_t)g->level[tile], unit = (g->tile / side) << level;
    return (View){
        .level = level, .border = border, .edge = edge,
        .top = (int32_t)(g->row[tile] * side >> level) - border,
        .left = (int32_t)(g->column[tile] * side >> level) - border,
        .last_y = (g->height - 1) / unit, .last_x = (g->width - 1) / unit,
    };
}

/* Coordinates that the places of a bordered tile have along an axis, and the cells that hold them; those
   outside the image have the cell -1. Asked once per line, so that no place needs a division. */
static void places(int32_t first, int32_t last, int32_t full, const View *v, int32_t side, int32_t *at, int32_t *cell) {
    for (int32_t i = 0; i < full; i++) {
        int32_t y = first + i;
        if (v->edge) y = within(y, last);
        at[i] = y;
        cell[i] = y < 0 || y > last ? -1 : (int32_t)(((int64_t)y << v->level) / side);
    }
}

int64_t index_tile(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out) {
    const View v = view_of(g, side, border, edge, tile);
    const int32_t full = side + 2 * border;
    int32_t ys[full], xs[full], down[full], across[full];
    places(v.top, v.last_y, full, &v, side, ys, down);
    places(v.left, v.last_x, full, &v, side, xs, across);
    const int own = whole(g, tile);
    const int64_t image = g->image[tile];
    int64_t finer = 0;
    for (int32_t i = 0; i < full; i++, out += full) {
        int32_t known = 0; /* samples of the tile itself, all in the image */
        if (own && i >= border && i < border + side && v.top + i <= v.last_y)
            known = v.last_x - v.left - border + 1 < side ? v.last_x - v.left - border + 1 : side;
        const int32_t first = (int32_t)(plain_rows(g, side) + (tile * side + i - border) * side);
        for (int32_t j = 0; j < known; j++) out[border + j] = first + j;
        const int64_t line = (image * g->rows + down[i]) * g->columns;
        for (int32_t j = 0; j < full; j++) {
            if (j == border) j += known;
            if (j >= full) break;
            out[j] = UNKNOWN;
            if (down[i] >= 0 && across[j] >= 0)
                out[j] = (int32_t)find_in(g, side, image, v.level, ys[i], xs[j], line + across[j]);
            finer += out[j] == FINER;
        }
    }
    return finer;
}

/* Add the four samples one level finer as parts of the current mean, and so on down. */
static void add_parts(const Grid *g, int32_t side, int64_t image, int32_t level, int32_t y, int32_t x, float share, Means *m) {
    const int32_t unit = (g->tile / side) << (level - 1);
    const int32_t rows = (int64_t)(2 * y + 1) * unit < g->height ? 2 : 1, columns = (int64_t)(2 * x + 1) * unit < g->width ? 2 : 1;
    share /= (float)(rows * columns);
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t j = 0; j < columns; j++) {
            const int64_t row = find(g, side, image, level - 1, 2 * y + i, 2 * x + j);
            if (row == FINER) add_parts(g, side, image, level - 1, 2 * y + i, 2 * x + j, share, m);
            if (row < 0) continue;
            if (m->parts < m->most_parts) m->source[m->parts] = (int32_t)row, m->share[m->parts] = share;
            m->parts++;
        }
    }
}

void index_means(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out, Means *m) {
    const View v = view_of(g, side, border, edge, tile);
    const int32_t full = side + 2 * border;
    for (int32_t i = 0; i < full; i++) {
        for (int32_t j = 0; j < full; j++, out++) {
            if (*out != FINER) continue;
            int32_t y = v.top + i, x = v.left + j;
            if (edge) y = within(y, v.last_y), x = within(x, v.last_x);
            *out = (int32_t)(plain_rows(g, side) + g->tiles * side * side + m->means);
            add_parts(g, side, g->image[tile], v.level, y, x, 1.0f, m);
            m->means++;
            if (m->means < m->most_means) m->start[m->means] = (int32_t)m->parts;
        }
    }
}

void average_step(const Averages *a, Team team) {
    const int32_t channels = a->in->channels;
    const int64_t size = lines_per_task(a->means, &team);
    for (int64_t first; (first = take(&team) * size) < a->means;)
        for (int64_t m = first; m < first + size && m < a->means; m++) {
            float *to = a->out + m * channels, rest = 1;
            for (int32_t p = a->start[m]; p < a->start[m + 1]; p++) rest -= a->share[p];
            for (int32_t c = 0; c < channels; c++) to[c] = rest * a->unknown[c];
            for (int32_t p = a->start[m]; p < a->start[m + 1]; p++) {
                const float *from = row_of(a->in, a->source[p]), share = a->share[p];
                if (!a->scale) {
                    for (int32_t c = 0; c < channels; c++) to[c] += share * from[c];
                    continue;
                }
                for (int32_t c = 0; c < channels; c++) {
                    float x = a->scale[c] * from[c] + a->shift[c];
                    x = x < a->low ? a->low : x;
                    to[c] += share * (x > a->high ? a->high : x);
                }
            }
        }
}

/* Fill index [computed][side + 2 border][side + 2 border]. Where finer tiles are averaged, rows from
   `tiles * side * side` on number the means. `m` returns how many there are: if more than it has room for,
   call again with more room. */
EXPORT void foveal_index(const Grid *g, int32_t side, int32_t border, int32_t edge, int32_t *out, Means *m) {
    const int64_t area = (int64_t)(side + 2 * border) * (side + 2 * border);
    int64_t any = 0;
#pragma omp parallel for reduction(+ : any) schedule(static)
    for (int64_t tile = 0; tile < g->computed; tile++) any += index_tile(g, side, border, edge, tile, out + tile * area);
    m->means = m->parts = 0;
    m->start[0] = 0;
    if (!any) return;
    for (int64_t tile = 0; tile < g->computed; tile++)
        if (g->level[tile]) index_means(g, side, border, edge, tile, out + tile * area, m);
}

/* Average rows, see Averages. */
EXPORT void foveal_means(
    const Source *s, const int32_t *start, const int32_t *source, const float *share, int64_t means,
    const float *unknown, const float *scale, const float *shift, float low, float high, float *out)
{
    const Averages a = {s, start, source, share, means, unknown, scale, shift, low, high, out};
    IN_REGION(average_step(&a, team));
}
