/* Rows of maps in any precision, as floats. */
#ifndef FOVEAL_VALUES_H
#define FOVEAL_VALUES_H

#include "program/program.h"
#include "reduced/samples.h"

/* Whether a map has one row for every image. */
static inline int is_vector(const MapSpec *m) { return m->kind == BINS && m->grid == 1 && m->columns == 1; }

/* Image that a tile of the running pass belongs to. */
static inline int64_t image_of(const Run *r, int64_t tile) {
    return r->pass.plain ? tile : r->grid.image[r->grid.first + tile];
}

/* The same of a map, which may be one of whole images. */
static inline int64_t image_in(const Run *r, const MapSpec *m, int64_t tile) { return m->kind == TILED ? image_of(r, tile) : tile; }

static inline void load_row(const MapSpec *m, const void *map, int64_t row, float *to) {
    read_values(to, map, m->precision, row * m->channels, m->channels);
    for (int32_t c = 0; m->precision == U8 && c < m->channels; c++) to[c] = m->scale * (to[c] - (float)m->zero);
}

/* Write `count` samples from `at` on; the values are lost. */
static inline void store_values(Run *r, const MapSpec *m, float *values, void *map, int64_t at, int32_t count) {
    if (m->precision == U8) notice_unreal(values, count, &r->overflow);
    for (int32_t k = 0; m->precision == U8 && k < count; k++) values[k] = values[k] / m->scale + (float)m->zero;
    write_values(map, m->precision, at, values, count);
}

static inline void store_row(Run *r, const MapSpec *m, void *map, int64_t row, float *values) {
    store_values(r, m, values, map, row * m->channels, m->channels);
}

#endif
