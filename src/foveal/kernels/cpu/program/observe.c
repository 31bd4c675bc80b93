/* What values maps hold: for the choice of their scales. Of maps in single precision, by one thread. */
#include "program/program.h"

/* Widen the range of the map that a step writes; where there are histograms, count its values instead. A map that
   is joined from parts is looked at when the last one is there. */
void observe(Run *r, int32_t step) {
    const int32_t map = r->program->steps[step].out;
    for (int32_t later = step + 1; later < r->program->head.steps; later++)
        if (r->program->steps[later].out == map) return;
    Request *q = r->request;
    const MapSpec *m = &r->program->maps[map];
    if (m->kind == BINS || m->precision != F32) return;
    const Shape shape = shape_of(r, map);
    const int64_t count = shape.tiles * shape.height * shape.width * m->channels;
    const float *x = current(r, map);
    float low = q->range[2 * map], high = q->range[2 * map + 1];
    if (q->histogram) {
        float *bins = q->histogram + (int64_t)map * q->bins;
        const float scale = high > low ? (float)q->bins / (high - low) : 0;
        for (int64_t k = 0; k < count; k++) {
            const int64_t bin = (int64_t)((x[k] - low) * scale);
            bins[bin < 0 ? 0 : bin >= q->bins ? q->bins - 1 : bin] += 1;
        }
        return;
    }
    for (int64_t k = 0; k < count; k++) low = x[k] < low ? x[k] : low, high = x[k] > high ? x[k] : high;
    q->range[2 * map] = low, q->range[2 * map + 1] = high;
}
