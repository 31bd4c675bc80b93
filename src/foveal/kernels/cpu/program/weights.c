/* Weights in the order in which kernels read them, laid out when they are first wanted. */
#include <stdlib.h>
#include "convolve/convolve.h"
#include "platform/lock.h"
#include "program/program.h"

static const double FILTER2[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double FILTER4[6][3] = {
    {1.0 / 4, 0, 0},
    {-1.0 / 6, -1.0 / 6, -1.0 / 6},
    {-1.0 / 6, 1.0 / 6, -1.0 / 6},
    {1.0 / 24, 1.0 / 12, 1.0 / 6},
    {1.0 / 24, -1.0 / 12, 1.0 / 6},
    {0, 0, 1},
};

/* A 3x3 window at the points of evaluation: Lavin and Gray, CVPR 2016, equations 9 and 17. */
static void transform(const double (*filter)[3], int32_t points, const float *window, double *out) {
    for (int32_t i = 0; i < points; i++)
        for (int32_t j = 0; j < points; j++) {
            double sum = 0;
            for (int32_t a = 0; a < 3; a++)
                for (int32_t b = 0; b < 3; b++) sum += filter[i][a] * filter[j][b] * window[a * 3 + b];
            out[i * points + j] = sum;
        }
}

/* [outputs][channels][taps] -> [blocks][taps or points][channels][OUTPUTS], zeros at the end. */
static float *pack(const Program *p, const StepSpec *s, int32_t algorithm) {
    const int64_t channels = p->maps[s->in].channels, outputs = p->maps[s->out].channels, taps = (int64_t)s->rows * s->columns;
    const int32_t across = algorithm == DIRECT ? 0 : algorithm == WINOGRAD2 ? 4 : 6;
    const int64_t lines = across ? across * across : taps, blocks = (outputs + OUTPUTS - 1) / OUTPUTS;
    const size_t bytes = (size_t)(blocks * lines * channels * OUTPUTS) * sizeof(float);
    float *packed = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!packed) return NULL;
    memset(packed, 0, bytes);
    const float *weight = number(p, s->weight);
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t c = 0; c < channels; c++) {
            const float *window = weight + (o * channels + c) * taps;
            double points[36];
            if (across) transform(across == 4 ? FILTER2 : FILTER4, across, window, points);
            for (int64_t line = 0; line < lines; line++)
                packed[((o / OUTPUTS * lines + line) * channels + c) * OUTPUTS + o % OUTPUTS] =
                    across ? (float)points[line] : window[line];
        }
    return packed;
}

/* NULL if there is no memory. */
const float *weights_of(const Program *p, int32_t step, int32_t algorithm) {
    float **place = &p->packed[step * ALGORITHMS + algorithm];
    float *packed = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    if (packed) return packed;
    lock_take(PACKING);
    if (!*place) __atomic_store_n(place, pack(p, &p->steps[step], algorithm), __ATOMIC_RELEASE);
    packed = *place;
    lock_give(PACKING);
    return packed;
}

/* The algorithm that is expected to be fastest: by multiplications, those for squares that hang over included,
   and by the weights to read. */
int32_t algorithm_for(const Run *r, int32_t step, int64_t tiles, int32_t height, int32_t width) {
    const Program *p = r->program;
    const StepSpec *s = &p->steps[step];
    const double speed = 60e9 * r->threads, bandwidth = 8e9;
    const double product = (double)p->maps[s->in].channels * p->maps[s->out].channels;
    double best = INFINITY;
    int32_t found = DIRECT;
    for (int32_t a = DIRECT; a < ALGORITHMS; a++) {
        if (s->rate[a] <= 0) continue;
        const int32_t square = a == DIRECT ? 1 : a == WINOGRAD2 ? 2 : 4;
        const double taps = a == DIRECT ? (double)s->rows * s->columns : (double)((square + 2) * (square + 2));
        const double places = (double)tiles * ((height + square - 1) / square) * ((width + square - 1) / square);
        const double time = s->rate[a] * places * taps * product / speed + 4 * taps * product / bandwidth;
        if (time < best) best = time, found = a;
    }
    return found;
}
