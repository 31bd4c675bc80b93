/* Index of bordered tiles: which sample every place of every tile is worth. See foveal/ops/layout.py for the
   rule; this is the same, tile by tile. */
#include "rows.h"
#include "export.h"

typedef struct {
    const int64_t *image, *level, *row, *column; /* per tile */
    const int64_t *owner;                        /* [images][rows][columns] */
    int64_t tiles, computed;
    int32_t height, width, tile, rows, columns; /* image and tile [px], grid of cells */
} Grid;

typedef struct {
    int32_t *start;  /* [means + 1] */
    int32_t *source; /* [parts] */
    float *share;    /* [parts] */
    int64_t means, parts, most_means, most_parts;
} Means;

enum { UNKNOWN = -1, FINER = -2 };

/* Row of the sample at a coordinate of a level, in the image; FINER if finer tiles hold it. */
static inline int64_t find(const Grid *g, int32_t side, int64_t image, int32_t level, int32_t y, int32_t x) {
    const int64_t cell = (image * g->rows + (int32_t)(((int64_t)y << level) / side)) * g->columns + ((int64_t)x << level) / side;
    const int64_t tile = g->owner[cell];
    if (tile < 0) return UNKNOWN;
    const int32_t held = (int32_t)g->level[tile];
    if (held < level) return FINER;
    const int32_t row = (y >> (held - level)) - (int32_t)(g->row[tile] * side >> held);
    const int32_t column = (x >> (held - level)) - (int32_t)(g->column[tile] * side >> held);
    return (tile * side + row) * side + column;
}

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

static inline int32_t within(int32_t v, int32_t last) { return v < 0 ? 0 : v > last ? last : v; }

/* What one place of a bordered tile is worth. */
static int32_t place(const Grid *g, int32_t side, int64_t tile, const View *v, int32_t i, int32_t j) {
    int32_t y = v->top + i, x = v->left + j;
    if (v->edge) y = within(y, v->last_y), x = within(x, v->last_x);
    if (y < 0 || x < 0 || y > v->last_y || x > v->last_x) return UNKNOWN;
    return (int32_t)find(g, side, g->image[tile], v->level, y, x);
}

/* Fill the index of one tile; return how many of its places are held by finer tiles. */
static int64_t index_tile(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out) {
    const View v = view_of(g, side, border, edge, tile);
    const int32_t full = side + 2 * border;
    const int own = whole(g, tile);
    int64_t finer = 0;
    for (int32_t i = 0; i < full; i++, out += full) {
        int32_t known = 0; /* samples of the tile itself, all in the image */
        if (own && i >= border && i < border + side && v.top + i <= v.last_y)
            known = v.last_x - v.left - border + 1 < side ? v.last_x - v.left - border + 1 : side;
        const int32_t first = (int32_t)((tile * side + i - border) * side);
        for (int32_t j = 0; j < known; j++) out[border + j] = first + j;
        for (int32_t j = 0; j < full; j++) {
            if (j == border) j += known;
            if (j >= full) break;
            out[j] = place(g, side, tile, &v, i, j);
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

/* Replace FINER in the index of one tile by the numbers of means. */
static void index_means(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out, Means *m) {
    const View v = view_of(g, side, border, edge, tile);
    const int32_t full = side + 2 * border;
    for (int32_t i = 0; i < full; i++) {
        for (int32_t j = 0; j < full; j++, out++) {
            if (*out != FINER) continue;
            int32_t y = v.top + i, x = v.left + j;
            if (edge) y = within(y, v.last_y), x = within(x, v.last_x);
            *out = (int32_t)(g->tiles * side * side + m->means);
            add_parts(g, side, g->image[tile], v.level, y, x, 1.0f, m);
            m->means++;
            if (m->means < m->most_means) m->start[m->means] = (int32_t)m->parts;
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

/* Average rows: out[m] = sum of share * clamp(scale * row + shift), the rest of the share being `unknown`
   [channels]. */
EXPORT void foveal_means(
    const Source *s, const int32_t *start, const int32_t *source, const float *share, int64_t means,
    const float *unknown, const float *scale, const float *shift, float low, float high, float *out)
{
    const int32_t channels = s->channels;
#pragma omp parallel for schedule(static)
    for (int64_t m = 0; m < means; m++) {
        float *to = out + m * channels, rest = 1;
        for (int32_t p = start[m]; p < start[m + 1]; p++) rest -= share[p];
        for (int32_t c = 0; c < channels; c++) to[c] = rest * unknown[c];
        for (int32_t p = start[m]; p < start[m + 1]; p++) {
            const float *from = row_of(s, source[p]);
            if (!scale) {
                for (int32_t c = 0; c < channels; c++) to[c] += share[p] * from[c];
                continue;
            }
            for (int32_t c = 0; c < channels; c++) {
                float x = scale[c] * from[c] + shift[c];
                x = x < low ? low : x;
                to[c] += share[p] * (x > high ? high : x);
            }
        }
    }
}
