/* Which sample every place of every bordered tile is worth; the rule stands in foveal/geometry/layout.py. */
#ifndef FOVEAL_INDEX_H
#define FOVEAL_INDEX_H

#include "platform/rows.h"
#include "platform/team.h"

/* Where tiles lie. A coarse pass over everything may be held as plain maps [images][height][width] instead of
   tiles: cells of owner PLAIN are there, and its rows come before those of the tiles. */
typedef struct {
    const int64_t *image, *level, *row, *column; /* per tile */
    const int64_t *owner;                        /* [images][rows][columns] */
    int64_t tiles, computed;
    int32_t height, width, tile, rows, columns; /* image and tile [px], grid of cells */
    int32_t plain_level;                        /* of the plain maps */
    int64_t images;                             /* images that have plain maps; 0 for none */
    int64_t first;                              /* first tile that is computed now */
} Grid;

enum { PLAIN = -2 };                /* as an owner */
enum { UNKNOWN = -1, FINER = -2 }; /* as a row */

/* Averages of finer samples. */
typedef struct {
    int32_t *start;  /* [means + 1] */
    int32_t *source; /* [parts] */
    float *share;    /* [parts] */
    int64_t means, parts, most_means, most_parts;
} Means;

static inline int32_t extent(int32_t size, int32_t unit) { return (size - 1) / unit + 1; }

/* Rows of the plain maps at a scale. */
static inline int64_t plain_rows(const Grid *g, int32_t side) {
    const int32_t unit = (g->tile / side) << g->plain_level;
    return g->images ? g->images * extent(g->height, unit) * extent(g->width, unit) : 0;
}

/* Row of the sample at a coordinate of a level, in a cell; UNKNOWN, or FINER if finer tiles hold it. */
static inline int64_t find_in(const Grid *g, int32_t side, int64_t image, int32_t level, int32_t y, int32_t x, int64_t cell) {
    const int64_t tile = g->owner[cell];
    if (tile == UNKNOWN) return UNKNOWN;
    if (tile == PLAIN) {
        const int32_t unit = (g->tile / side) << g->plain_level, finer = g->plain_level - level;
        if (finer < 0) return FINER;
        return (image * extent(g->height, unit) + (y >> finer)) * extent(g->width, unit) + (x >> finer);
    }
    const int32_t held = (int32_t)g->level[tile];
    if (held < level) return FINER;
    const int32_t row = (y >> (held - level)) - (int32_t)(g->row[tile] * side >> held);
    const int32_t column = (x >> (held - level)) - (int32_t)(g->column[tile] * side >> held);
    return plain_rows(g, side) + (tile * side + row) * side + column;
}

static inline int64_t find(const Grid *g, int32_t side, int64_t image, int32_t level, int32_t y, int32_t x) {
    const int64_t row = image * g->rows + (int32_t)(((int64_t)y << level) / side);
    return find_in(g, side, image, level, y, x, row * g->columns + ((int64_t)x << level) / side);
}

static inline int32_t within(int32_t v, int32_t last) { return v < 0 ? 0 : v > last ? last : v; }

/* Fill the index of one computed tile [side + 2 border][side + 2 border]; return how many of its places are
   held by finer tiles, which are FINER then. */
int64_t index_tile(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out);

/* Replace FINER in the index of one tile by the numbers of averages, which are added to `m`. What has no room
   is only counted. */
void index_means(const Grid *g, int32_t side, int32_t border, int edge, int64_t tile, int32_t *out, Means *m);

/* Averages of a map's rows: out[m] = sum of share * clamp(scale * row + shift), the rest of the share being
   `unknown` [channels]. */
typedef struct {
    const Source *in;
    const int32_t *start, *source;
    const float *share;
    int64_t means;
    const float *unknown, *scale, *shift;
    float low, high;
    float *out; /* [means][channels] */
} Averages;

void average_step(const Averages *a, Team team);

#endif
