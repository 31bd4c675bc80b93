/* Windows that need no matrix product. */
#ifndef FOVEAL_WINDOWS_H
#define FOVEAL_WINDOWS_H

#include "platform/rows.h"
#include "platform/team.h"

typedef struct {
    Source in;
    const float *weight; /* depthwise: [rows * columns][channels] */
    const float *bias;   /* [channels], or NULL */
    float low, high;
    float *out; /* [tiles][out_height][out_width][channels] */
    int32_t rows, columns, stride, dilation, out_height, out_width;
} Window;

/* Bilinear enlargement by a whole factor, half-pixel centres. The source has a border of `top` on every side (of
   an index), or repeats its edge (a plain map). Out: [tiles][out_height][out_width][channels]. */
typedef struct {
    Source in;
    int32_t factor, out_height, out_width;
    float *out;
} Enlargement;

void max_pool_step(const Window *v, Team team);
void depthwise_step(const Window *v, Team team);
void enlarge_step(const Enlargement *e, Team team);

#endif
