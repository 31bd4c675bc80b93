/* Rows added to a map at some of its places, and all of it finished, in one pass. */
#include "platform/export.h"
#include "platform/region.h"

typedef struct {
    const float *base;    /* [count][channels] */
    const float *rows;    /* what is added, rows of `channels` */
    const int32_t *where; /* the row that every sample gets [count]; -1 for none */
    const float *scale;   /* of the base [channels], or NULL for 1 */
    float *out;           /* [count][channels] */
    int64_t count;
    int32_t channels;
    float low, high;
} Added;

static void add_line(const Added *a, int64_t line) {
    const int32_t channels = a->channels;
    const float *base = a->base + line * channels;
    const float *row = a->where[line] < 0 ? NULL : a->rows + (int64_t)a->where[line] * channels;
    float *to = a->out + line * channels;
    int32_t c = 0;
    for (; c + LANES <= channels; c += LANES) {
        vec v = load(base + c);
        if (a->scale) v *= load(a->scale + c);
        if (row) v += load(row + c);
        store(to + c, clamp(v, a->low, a->high));
    }
    for (; c < channels; c++) {
        float v = base[c];
        if (a->scale) v *= a->scale[c];
        if (row) v += row[c];
        v = v < a->low ? a->low : v;
        to[c] = v > a->high ? a->high : v;
    }
}

static void add_step(const Added *a, Team team) {
    const int64_t size = lines_per_task(a->count, &team);
    for (int64_t first; (first = take(&team) * size) < a->count;)
        for (int64_t line = first; line < first + size && line < a->count; line++) add_line(a, line);
}

EXPORT void foveal_add_rows(const Added *a) { IN_REGION(add_step(a, team)); }
