/* Images at other sides, antialiased. */
#ifndef FOVEAL_RESIZE_H
#define FOVEAL_RESIZE_H

#include "platform/rows.h"
#include "platform/team.h"

/* Images as they lie in memory; steps in elements. */
typedef struct {
    const void *at;
    int64_t image, plane, line, sample;
    int32_t height, width, colours, bytes; /* bytes: 0 for float, 1 for bytes that stand for 1 / 255 each */
} Pixels;

/* What the outputs of a side are means of: sample first[k] + t of the side, with weight[t][k]. */
typedef struct {
    int32_t outputs, taps;
    const int32_t *first;
    const float *weight;
} Taps;

/* Bytes that the taps of a side need. */
size_t taps_bytes(int32_t side, int32_t outputs);

/* A triangle around the middle of every output, as wide as an output of the side, or as a sample if these are wider;
   ops/resize/spec.py has the formula. */
Taps taps_make(int32_t side, int32_t outputs, void *memory);

/* Images [images][colours][rows->outputs][columns->outputs]; `between` [2 * width * colours] is the thread's own. */
void resize_step(const Pixels *p, int64_t images, const Taps *rows, const Taps *columns, float *between, float *out, Team team);

#endif
