/* Convolution by 3x3 windows of stride 1 with fewer multiplications, through the same index as any other. */
#include <stdlib.h>
#include <unistd.h>
#include "platform/export.h"
#include "convolve/convolve.h"
#include "platform/region.h"

enum { MOST_SQUARES = 4 * PIXELS };

/* A square of outputs: where its inputs start, where its outputs go, and how many there are of them. */
typedef struct {
    int64_t tile, out;
    int32_t y, x, rows, columns;
} Square;

static Square square_at(const Convolution *v, int64_t number, int32_t side) {
    const int64_t down = (v->out_height + side - 1) / side, across = (v->out_width + side - 1) / side;
    const int64_t tile = number / (down * across);
    const int32_t y = (int32_t)(number / across % down) * side, x = (int32_t)(number % across) * side;
    return (Square){
        .tile = tile,
        .out = ((tile * v->out_height + y) * v->out_width + x) * v->outputs,
        .y = y + v->in.top,
        .x = x + v->in.left,
        .rows = v->out_height - y < side ? v->out_height - y : side,
        .columns = v->out_width - x < side ? v->out_width - x : side,
    };
}

#define SQUARE 2
#include "convolve/winograd.h"
#undef SQUARE
#define SQUARE 4
#include "convolve/winograd.h"
#undef SQUARE

/* Size of the second-level cache [B]; asking takes long on a virtual machine, so it is asked once. */
static int64_t second_cache(void) {
    static int64_t known = 0;
    int64_t cache = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (cache) return cache;
#ifdef _SC_LEVEL2_CACHE_SIZE
    cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    if (cache <= 0) cache = 1 << 20;
    __atomic_store_n(&known, cache, __ATOMIC_RELAXED);
    return cache;
}

/* Squares that are worked on together: their panels fill about half of the second-level cache. */
static int64_t together(int64_t channels, int64_t points) {
    const int64_t blocks = second_cache() / 2 / (points * channels * PIXELS * (int64_t)sizeof(float));
    return PIXELS * (blocks < 1 ? 1 : blocks > MOST_SQUARES / PIXELS ? MOST_SQUARES / PIXELS : blocks);
}

int64_t winograd_scratch(int64_t channels, int32_t side) {
    const int64_t points = (side + 2) * (side + 2), parts = (channels + DEPTH - 1) / DEPTH;
    return (points * together(channels, points) * (parts * PITCH + OUTPUTS) + 15) / 16 * 16;
}

/* As convolve_step, for 3x3 windows of stride and dilation 1 whose input needs no clamp; channels and
   outputs are multiples of LANES. Weights: [ceil(outputs / OUTPUTS)][points][channels][OUTPUTS]. */
void winograd_step(const Convolution *v, int32_t side, float *scratch, Team team) {
    const int64_t points = (side + 2) * (side + 2), channels = v->in.channels;
    const int64_t down = (v->out_height + side - 1) / side, across = (v->out_width + side - 1) / side;
    const int64_t total = v->in.tiles * down * across, blocks = (v->outputs + OUTPUTS - 1) / OUTPUTS;
    const Share share = share_work(total, together(channels, points), blocks, points * channels, team.threads);
    for (int64_t task; (task = take(&team)) < share.chunks * share.groups;) {
        const int64_t group = task % share.groups, first = task / share.groups * share.size;
        const int64_t count = total - first < share.size ? total - first : share.size;
        const int32_t from = (int32_t)(blocks * group / share.groups * OUTPUTS);
        int32_t to = (int32_t)(blocks * (group + 1) / share.groups * OUTPUTS);
        to = to < v->outputs ? to : v->outputs;
        if (side == 2) squares2(v, scratch, first, count, from, to);
        else squares4(v, scratch, first, count, from, to);
    }
}

static void with_scratch(const Convolution *v, int32_t side, Team team) {
    float *scratch = aligned_alloc(64, (size_t)winograd_scratch(v->in.channels, side) * sizeof(float));
    winograd_step(v, side, scratch, team);
    free(scratch);
}

EXPORT void foveal_winograd(const Convolution *v, int32_t side) { IN_REGION(with_scratch(v, side, team)); }
