/* Where the samples of a map come from: rows of channels, found through an index or on a plain map. */
#ifndef FOVEAL_ROWS_H
#define FOVEAL_ROWS_H

#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Floats in a vector register, vectors of outputs and rows of pixels in a block that registers can hold.
   The compiler maps the vectors to what the processor has. */
#if defined(__AVX512F__)
#define LANES 16
#define PIXELS 14
#elif defined(__AVX__)
#define LANES 8
#define PIXELS 6
#else
#define LANES 4
#define PIXELS 12
#endif
#define OUTPUTS (2 * LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline vec choose(mask m, vec yes, vec no) { return (vec)((m & (mask)yes) | (~m & (mask)no)); }
static inline vec clamp(vec v, float low, float high) {
    vec l = (vec){} + low, h = (vec){} + high;
    v = choose(v < l, l, v);
    return choose(v > h, h, v);
}

/* A map as rows of `channels` floats. With an index, [tiles][height][width] holds the row of every sample,
   border included, or -1 outside the image: rows below `own_rows` are in `own`, the next `kept_rows` in
   `kept`, the others in `means`. Without one, `own` is [tiles][height][width][channels]. */
typedef struct {
    const float *own, *kept, *means;
    const float *outside; /* what lies outside the image [channels] */
    const int32_t *index;
    int64_t own_rows, kept_rows, tiles;
    int32_t height, width, channels;
    int32_t top, left; /* place of the first window's corner; below 0 on a plain map with padding */
} Source;

static inline const float *row_of(const Source *s, int64_t row) {
    if (row < 0) return s->outside;
    if (row < s->own_rows) return s->own + row * s->channels;
    row -= s->own_rows;
    if (row < s->kept_rows) return s->kept + row * s->channels;
    return s->means + (row - s->kept_rows) * s->channels;
}

/* Row of a sample; -1 outside. */
static inline int64_t row_at(const Source *s, int64_t tile, int32_t y, int32_t x) {
    if (s->index) return s->index[(tile * s->height + y) * s->width + x];
    if ((uint32_t)y >= (uint32_t)s->height || (uint32_t)x >= (uint32_t)s->width) return -1;
    return (tile * s->height + y) * s->width + x;
}

static inline int same_source(const Source *s, int64_t first, int64_t last) {
    if (!s->index || last < s->own_rows) return 1;
    if (first < s->own_rows) return 0;
    return last < s->own_rows + s->kept_rows || first >= s->own_rows + s->kept_rows;
}

static inline int threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

#endif
