/* Pixels of three colours beside one another, as three lines: read together, whole vectors at a time. */
#ifndef FOVEAL_COLOURS_H
#define FOVEAL_COLOURS_H

#include <stdint.h>

enum { RGB = 3 };

static inline void part_colours(const float *from, int64_t count, float *restrict red, float *restrict green, float *restrict blue) {
    for (int64_t x = 0; x < count; x++) red[x] = from[RGB * x], green[x] = from[RGB * x + 1], blue[x] = from[RGB * x + 2];
}

/* Bytes as floats in 0..1. */
static inline void part_bytes(const uint8_t *from, int64_t count, float *restrict red, float *restrict green, float *restrict blue) {
    for (int64_t x = 0; x < count; x++) {
        red[x] = (float)from[RGB * x] / 255.0f;
        green[x] = (float)from[RGB * x + 1] / 255.0f;
        blue[x] = (float)from[RGB * x + 2] / 255.0f;
    }
}

#endif
