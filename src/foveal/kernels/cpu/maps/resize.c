#include "maps/resize.h"
#include "maps/colours.h"
#include <stdlib.h>
#include "platform/export.h"
#include "platform/region.h"

enum { ALIGNED = 64 };

static double reach_of(int32_t side, int32_t outputs) { return side > outputs ? (double)side / outputs : 1; }

/* Samples that an output can lie over: those whose middles are nearer than the reach, fewer than twice that and one. */
static int32_t most_taps(int32_t side, int32_t outputs) {
    const double most = 2 * reach_of(side, outputs) + 2;
    return most < side ? (int32_t)most : side;
}

static size_t aligned(size_t bytes) { return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED; }

size_t taps_bytes(int32_t side, int32_t outputs) {
    return aligned((size_t)outputs * 4) + aligned((size_t)outputs * (size_t)most_taps(side, outputs) * 4);
}

Taps taps_make(int32_t side, int32_t outputs, void *memory) {
    const double factor = (double)side / outputs, reach = reach_of(side, outputs);
    const int32_t taps = most_taps(side, outputs);
    int32_t *first = memory;
    float *weight = (float *)((char *)memory + aligned((size_t)outputs * 4));
    for (int32_t k = 0; k < outputs; k++) {
        const double middle = (k + 0.5) * factor, lowest = floor(middle - reach + 0.5);
        first[k] = lowest < 0 ? 0 : lowest > side - taps ? side - taps : (int32_t)lowest;
        double sum = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int32_t t = 0; t < taps; t++) {
                const double away = 1 - fabs(first[k] + t + 0.5 - middle) / reach, share = away < 0 ? 0 : away;
                if (pass == 0) sum += share;
                else weight[(int64_t)t * outputs + k] = (float)(share / sum);
            }
    }
    return (Taps){outputs, taps, first, weight};
}

/* Add weight * samples of a line, `step` elements apart, from element `at` on; or begin with them. */
static void add_line(const Pixels *p, int64_t at, int64_t step, int32_t count, float weight, int begin, float *restrict to) {
    if (begin) memset(to, 0, (size_t)count * sizeof(float));
    if (p->bytes) {
        const uint8_t *from = (const uint8_t *)p->at + at;
        weight /= 255;
        if (step == 1)
            for (int32_t x = 0; x < count; x++) to[x] += weight * (float)from[x];
        else
            for (int32_t x = 0; x < count; x++) to[x] += weight * (float)from[x * step];
    } else {
        const float *from = (const float *)p->at + at;
        if (step == 1)
            for (int32_t x = 0; x < count; x++) to[x] += weight * from[x];
        else
            for (int32_t x = 0; x < count; x++) to[x] += weight * from[x * step];
    }
}

/* The mean of the lines under an output, of all colours: [colours][width], or [width][colours] where they lie so. */
static void mean_of_lines(const Pixels *p, int64_t image, const Taps *rows, int32_t y, int together, float *to) {
    const int32_t parts = together ? 1 : p->colours, count = together ? p->width * p->colours : p->width;
    for (int32_t t = 0, begin = 1; t < rows->taps; t++) {
        const float weight = rows->weight[(int64_t)t * rows->outputs + y];
        if (weight == 0) continue;
        for (int32_t c = 0; c < parts; c++) {
            const int64_t at = image * p->image + c * p->plane + (int64_t)(rows->first[y] + t) * p->line;
            add_line(p, at, together ? 1 : p->sample, count, weight, begin, to + (int64_t)c * count);
        }
        begin = 0;
    }
}

/* Outputs whose samples lie in two vectors beside each other: these are read, and shuffled, which is many times as fast as
   to gather samples one by one. Returns how many outputs there are. */
static int32_t means_of_vectors(const float *line, int32_t width, const Taps *columns, float *restrict to) {
    int32_t x = 0;
#if defined(__GNUC__) && !defined(__clang__) /* for __builtin_shuffle */
    const int32_t *first = columns->first;
    for (; x + LANES <= columns->outputs; x += LANES) {
        if (first[x + LANES - 1] - first[x] >= 2 * LANES || first[x] + columns->taps - 1 + 2 * LANES > width) break;
        const mask places = *(const mask *)(first + x) - first[x];
        vec sum = {};
        for (int32_t t = 0; t < columns->taps; t++) {
            const float *from = line + first[x] + t;
            sum += load(columns->weight + (int64_t)t * columns->outputs + x) * __builtin_shuffle(load(from), load(from + LANES), places);
        }
        store(to + x, sum);
    }
#endif
    return x;
}

static void means_of_samples(const float *line, int32_t width, int32_t step, const Taps *columns, float *restrict to) {
    const int32_t *first = columns->first, start = step == 1 ? means_of_vectors(line, width, columns, to) : 0;
    for (int32_t x = start; x < columns->outputs; x++) to[x] = columns->weight[x] * line[first[x] * step];
    for (int32_t t = 1; t < columns->taps; t++) {
        const float *weight = columns->weight + (int64_t)t * columns->outputs, *from = line + (int64_t)t * step;
        for (int32_t x = start; x < columns->outputs; x++) to[x] += weight[x] * from[first[x] * step];
    }
}

void resize_step(const Pixels *p, int64_t images, const Taps *rows, const Taps *columns, float *between, float *out, Team team) {
    const int together = p->colours > 1 && p->plane == 1 && p->sample == p->colours;
    const int parted = together && p->colours == RGB, mixed = together && !parted;
    const int64_t lines = images * rows->outputs, size = lines_per_task(lines, &team), area = (int64_t)rows->outputs * columns->outputs;
    for (int64_t start; (start = take(&team) * size) < lines;)
        for (int64_t line = start; line < start + size && line < lines; line++) {
            const int64_t image = line / rows->outputs, y = line % rows->outputs;
            const float *lines_of = between;
            mean_of_lines(p, image, rows, (int32_t)y, together, between);
            if (parted) {
                float *parts = between + (int64_t)RGB * p->width;
                part_colours(between, p->width, parts, parts + p->width, parts + 2 * (int64_t)p->width);
                lines_of = parts;
            }
            for (int32_t c = 0; c < p->colours; c++)
                means_of_samples(
                    lines_of + (mixed ? c : (int64_t)c * p->width), p->width, mixed ? p->colours : 1, columns,
                    out + (image * p->colours + c) * area + y * columns->outputs);
        }
}

/* Maps as `stride` says [images, channels, lines, samples] -> [images][channels][out_height][out_width]. 0, or -1
   without memory. */
EXPORT int32_t foveal_resize(
    const float *maps, const int64_t *stride, int64_t images, int32_t channels, int32_t height, int32_t width, int32_t out_height,
    int32_t out_width, float *out)
{
    const Pixels p = {maps, stride[0], stride[1], stride[2], stride[3], height, width, channels, 0};
    const size_t lines = taps_bytes(height, out_height), samples = taps_bytes(width, out_width);
    const int64_t line = 2 * (int64_t)width * channels;
    char *memory = aligned_alloc(ALIGNED, aligned(lines + samples + (size_t)threads() * (size_t)line * sizeof(float)));
    if (!memory) return -1;
    const Taps rows = taps_make(height, out_height, memory), columns = taps_make(width, out_width, memory + lines);
    float *between = (float *)(memory + lines + samples);
    IN_REGION(resize_step(&p, images, &rows, &columns, between + team.thread * line, out, team));
    free(memory);
    return 0;
}
