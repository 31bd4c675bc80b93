/* Class with the largest bilinearly enlarged logit of every pixel, without writing the enlarged logits. */
#include <stdlib.h>
#include "platform/export.h"
#include "platform/region.h"
#include "reduced/samples.h"

/* Floats of one plane of a line: a sample more on both sides, and whole vectors beside any column. */
static inline int64_t plane_floats(const ReducedLabels *v) { return (v->in.width + 2 + 2 * LANES + LANES - 1) / LANES * LANES; }

int64_t reduced_labels_scratch(const ReducedLabels *v) {
    return (3 * (int64_t)v->classes * plane_floats(v) * (int64_t)sizeof(float) + 63) / 64 * 64;
}

/* One line of logits as planes, its ends repeated. */
static void read_planes(const ReducedLabels *v, int64_t tile, int32_t y, float *planes) {
    const Samples *s = &v->in;
    const int64_t plane = plane_floats(v);
    y = y < 0 ? 0 : y >= s->height ? s->height - 1 : y;
    for (int32_t x = -1; x <= s->width; x++) {
        const int32_t at = x < 0 ? 0 : x >= s->width ? s->width - 1 : x;
        const int64_t row = ((tile * s->height + y) * s->width + at) * s->channels;
        float *to = planes + x + 1;
        if (s->type == BF16)
            for (int32_t k = 0; k < v->classes; k++) to[k * plane] = from_bf16(((const uint16_t *)s->own)[row + k]);
        else
            for (int32_t k = 0; k < v->classes; k++) to[k * plane] = ((const float *)s->own)[row + k];
    }
}

/* e^x for x <= 0, to single precision: 2^n times a series for the rest. */
static inline vec power_of_e(vec x) {
    const vec lowest = (vec){} - 87.0f, magic = (vec){} + 12582912.0f; /* 1.5 * 2^23 rounds to integers */
    x = choose(x < lowest, lowest, x) * 1.44269504f;
    const vec whole = (x + magic) - magic, f = x - whole;
    vec sum = (vec){} + 1.54035304e-4f;
    sum = sum * f + 1.33335581e-3f;
    sum = sum * f + 9.61812911e-3f;
    sum = sum * f + 5.55041087e-2f;
    sum = sum * f + 2.40226507e-1f;
    sum = sum * f + 6.93147181e-1f;
    sum = sum * f + 1.0f;
    const mask exponent = __builtin_convertvector(whole, mask);
    return (vec)((mask)sum + (exponent << 23));
}

/* Labels of one line: columns are handled by their phase in the enlargement, a vector of sources at a time. */
static void label_line(const ReducedLabels *v, const float *line, int64_t out) {
    const int64_t plane = plane_floats(v);
    for (int32_t phase = 0; phase < v->factor; phase++) {
        const float x = ((float)phase + 0.5f) / (float)v->factor - 0.5f;
        const int32_t shift = x < 0 ? -1 : 0;
        const float right = x - (float)shift;
        for (int32_t j = 0; j < v->in.width; j += LANES) {
            const float *from = line + 1 + j + shift;
            vec best = (1 - right) * load(from) + right * load(from + 1), sum = {};
            mask label = {};
            for (int32_t k = 1; k < v->classes; k++) {
                const vec value = (1 - right) * load(from + k * plane) + right * load(from + k * plane + 1);
                const mask more = value > best;
                label = (more & ((mask){} + k)) | (~more & label);
                best = choose(more, value, best);
            }
            if (v->confidence)
                for (int32_t k = 0; k < v->classes; k++)
                    sum += power_of_e((1 - right) * load(from + k * plane) + right * load(from + k * plane + 1) - best);
            for (int32_t l = 0; l < LANES && j + l < v->in.width; l++) {
                const int32_t at = (j + l) * v->factor + phase;
                if (at >= v->width) break;
                v->labels[out + at] = (uint8_t)label[l];
                if (v->confidence) v->confidence[out + at] = 1 / sum[l];
            }
        }
    }
}

/* All lines between two lines of logits, numbered by the lower one; they share what is read. */
static void label_lines(const ReducedLabels *v, int64_t tile, int32_t lower, float *scratch) {
    const int64_t floats = v->classes * plane_floats(v);
    float *above = scratch, *below = above + floats, *line = below + floats;
    int32_t y = lower * v->factor - (v->factor + 1) / 2, end = y + v->factor;
    y = y < 0 ? 0 : y, end = end > v->height ? v->height : end;
    if (y >= end) return;
    read_planes(v, tile, lower - 1, above);
    read_planes(v, tile, lower, below);
    for (; y < end; y++) {
        const float share = ((float)y + 0.5f) / (float)v->factor - 0.5f - (float)(lower - 1);
        for (int64_t i = 0; i < floats; i++) line[i] = (1 - share) * above[i] + share * below[i];
        label_line(v, line, (tile * v->height + y) * v->width);
    }
}

void reduced_labels_step(const ReducedLabels *v, Team team) {
    float *scratch = (float *)((uint8_t *)v->scratch + team.thread * v->scratch_bytes);
    memset(scratch, 0, (size_t)reduced_labels_scratch(v)); /* vectors reach beyond the last column */
    const int64_t tasks = v->in.tiles * (v->in.height + 1);
    for (int64_t task; (task = take(&team)) < tasks;)
        label_lines(v, task / (v->in.height + 1), (int32_t)(task % (v->in.height + 1)), scratch);
}

/* Return 0, or 1 where memory is short. */
EXPORT int32_t foveal_reduced_labels(const ReducedLabels *given) {
    ReducedLabels v = *given;
    v.scratch_bytes = reduced_labels_scratch(&v);
    void *scratch;
    if (posix_memalign(&scratch, 64, (size_t)(v.scratch_bytes * threads()))) return 1;
    v.scratch = scratch;
    IN_REGION(reduced_labels_step(&v, team));
    free(scratch);
    return 0;
}
