/* Dense maps into tiles. */
#ifndef FOVEAL_TILES_H
#define FOVEAL_TILES_H

#include "platform/rows.h"
#include "platform/team.h"

/* A map of one image [height][width][channels]. */
typedef struct {
    const float *map;
    int32_t height, width, channels;
} Dense;

/* One line of a tile: `side` samples from (y, left) of a level, relative to the map's; 0 outside the map. */
void cut_line(const Dense *d, int32_t level, int32_t y, int32_t left, int32_t side, float *to);

/* Maps [images][(height + 1) / 2][(width + 1) / 2][channels]: means of 2x2 samples, of those that exist. */
void halve_step(const float *maps, int64_t images, int32_t height, int32_t width, int32_t channels, float *out, Team team);

#endif
