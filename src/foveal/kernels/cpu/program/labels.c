/* Labels, and how sure they are, from logits at the network's stride. */
#include "maps/classify.h"
#include "program/program.h"

enum { VOID = 255 };

/* A row of logits [columns][classes] as [classes][padded], its ends repeated. */
static void by_class(const float *row, int32_t columns, int32_t classes, int64_t padded, float *out) {
    for (int32_t k = 0; k < classes; k++) {
        float *to = out + k * padded;
        for (int32_t x = 0; x < columns; x++) to[1 + x] = row[(int64_t)x * classes + k];
        repeat_ends(to, columns, padded);
    }
}

static int computed(const Run *r, int64_t cell) {
    return r->held[cell] >= 0 && !(r->request->mask && !r->request->mask[cell]);
}

/* Note NaN and infinity among the logits [columns][classes] of row y of an image, where they were computed. */
static void notice(Run *r, const float *row, int64_t image, int32_t y, int32_t columns, int32_t factor) {
    const Grid *g = &r->grid;
    const int32_t classes = r->program->head.classes, wide = g->tile / factor;
    const int64_t line = (image * g->rows + (int64_t)y * factor / g->tile) * g->columns;
    for (int32_t cell = 0, x = 0; x < columns; cell++, x += wide) {
        const int32_t count = x + wide < columns ? wide : columns - x;
        if (!r->unreal && computed(r, line + cell) && unreal(row + (int64_t)x * classes, (int64_t)count * classes))
            __atomic_store_n(&r->unreal, LOGITS, __ATOMIC_RELAXED);
    }
}

/* What was not computed has no label. */
static void blank(const Run *r, int64_t image, int32_t y, uint8_t *labels, float *sure) {
    const Grid *g = &r->grid;
    const int64_t line = (image * g->rows + y / g->tile) * g->columns;
    for (int32_t x = 0; x < g->columns; x++) {
        if (computed(r, line + x)) continue;
        const int32_t left = x * g->tile, right = left + g->tile < g->width ? left + g->tile : g->width;
        if (labels) memset(labels + left, VOID, (size_t)(right - left));
        if (sure) memset(sure + left, 0, (size_t)(right - left) * sizeof(float));
    }
}

static int32_t factor_of(const Run *r, int32_t rows, int32_t columns) {
    const Sides s = labelled_sides(r);
    const int32_t down = (s.rows - 1) / rows + 1, across = (s.columns - 1) / columns + 1, least = down > across ? down : across;
    int32_t factor = 1;
    while (factor < least) factor *= 2;
    return factor;
}

/* Labels and confidence of all images from logits [images][rows][columns][classes]. A task is what lies between
   two rows of logits. */
void label_step(Run *r, const float *logits, int32_t rows, int32_t columns, Team team) {
    const Request *q = r->request;
    const int32_t classes = r->program->head.classes, factor = factor_of(r, rows, columns);
    const int64_t padded = padded_columns(columns), plane = padded * classes;
    float *upper = r->scratch[team.thread], *lower = upper + plane;
    const int32_t height = labelled_sides(r).rows, width = labelled_sides(r).columns;
    const Band band = {upper, lower, padded, classes, columns, factor, width};
    if (!q->labels && !q->confidence) return;
    for (int64_t task; (task = take(&team)) < (int64_t)q->images * (rows + 1);) {
        const int64_t image = task / (rows + 1), above = task % (rows + 1) - 1;
        const int32_t start = band_start(above, factor), from = start < 0 ? 0 : start;
        const int32_t stop = start + factor < height ? start + factor : height;
        if (from >= stop) continue;
        const int32_t row = within((int32_t)above, rows - 1);
        const float *first = logits + (image * rows + row) * columns * classes;
        if (above >= 0 && !scaled(r)) notice(r, first, image, row, columns, factor);
        by_class(first, columns, classes, padded, upper);
        by_class(logits + ((image * rows + within((int32_t)above + 1, rows - 1)) * columns) * classes, columns, classes, padded, lower);
        const int64_t at = ((int64_t)image * height + from) * width;
        uint8_t *labels = q->labels ? q->labels + at : NULL;
        float *sure = q->confidence ? q->confidence + at : NULL;
        label_band(&band, from - start, stop - from, labels, sure, lower + plane);
        for (int32_t y = from; y < stop && !scaled(r); y++)
            blank(r, image, y, labels ? labels + (int64_t)(y - from) * width : NULL, sure ? sure + (int64_t)(y - from) * width : NULL);
    }
}

/* Floats that a thread needs to label a part of a band: two rows of logits, what a band needs, and its lines. */
int64_t relabel_scratch(const Run *r) {
    const int32_t classes = r->program->head.classes, columns = columns_at(r, output_stride(r), 0);
    const int64_t lines = 2 * output_stride(r) * ((int64_t)r->grid.width + 2 * output_stride(r)); /* bytes */
    return 2 * classes * padded_columns(columns) + band_scratch(classes, columns) + (lines + 3) / 4;
}

/* What lies between two rows of logits, and between the columns before `first` and behind `last`. The columns at the
   ends are there for the pixels between them and the next; their other pixels are not written. */
static int64_t relabel_part(const Run *r, const float *logits, int64_t image, int64_t above, int32_t first, int32_t last, int32_t rows, int32_t columns, uint8_t *labels, float *scratch) {
    const Grid *g = &r->grid;
    const int32_t classes = r->program->head.classes, factor = factor_of(r, rows, columns);
    const int32_t start = band_start(above, factor), top = start < 0 ? 0 : start, bottom = start + factor < g->height ? start + factor : g->height;
    const int32_t from = within(first - 1, columns - 1), count = within(last + 1, columns - 1) - from + 1;
    const int32_t left = from * factor, wide = count * factor < g->width - left ? count * factor : g->width - left;
    const int32_t begin = band_start(first - 1, factor) < 0 ? 0 : band_start(first - 1, factor);
    const int32_t end = last == columns - 1 || band_start(last + 1, factor) > g->width ? g->width : band_start(last + 1, factor);
    if (top >= bottom || begin >= end) return 0;
    const int64_t padded = padded_columns(count), plane = padded * classes;
    float *upper = scratch, *lower = upper + plane, *rest = lower + plane;
    uint8_t *lines = (uint8_t *)(rest + band_scratch(classes, count));
    by_class(logits + ((image * rows + within((int32_t)above, rows - 1)) * columns + from) * classes, count, classes, padded, upper);
    by_class(logits + ((image * rows + within((int32_t)above + 1, rows - 1)) * columns + from) * classes, count, classes, padded, lower);
    const Band band = {upper, lower, padded, classes, count, factor, wide};
    label_band(&band, top - start, bottom - top, lines, NULL, rest);
    for (int32_t y = top; y < bottom; y++)
        memcpy(labels + (image * g->height + y) * g->width + begin, lines + (int64_t)(y - top) * wide + begin - left, (size_t)(end - begin));
    return (int64_t)(bottom - top) * (end - begin);
}

/* Labels of the pixels that see logits of marked cells; the others stay. A task is what lies between two rows of
   logits. */
void relabel_step(Run *r, const float *logits, int32_t rows, int32_t columns, const uint8_t *changed, uint8_t *labels, Team team) {
    const Grid *g = &r->grid;
    const int32_t factor = factor_of(r, rows, columns), wide = g->tile / factor;
    int64_t pixels = 0;
    for (int64_t task; (task = take(&team)) < (int64_t)r->request->images * (rows + 1);) {
        const int64_t image = task / (rows + 1), above = task % (rows + 1) - 1;
        const uint8_t *line[2];
        for (int32_t k = 0; k < 2; k++) line[k] = changed + (image * g->rows + (int64_t)within((int32_t)above + k, rows - 1) / wide) * g->columns;
        if (above >= 0 && memchr(line[0], 1, (size_t)g->columns)) notice(r, logits + (image * rows + above) * columns * r->program->head.classes, image, (int32_t)above, columns, factor);
        for (int32_t cell = 0; cell < g->columns; cell++) {
            if (!(line[0][cell] | line[1][cell])) continue;
            int32_t next = cell + 1;
            while (next < g->columns && (line[0][next] | line[1][next])) next++;
            pixels += relabel_part(r, logits, image, above, cell * wide, within(next * wide, columns) - 1, rows, columns, labels, r->scratch[team.thread]);
            cell = next;
        }
    }
    __atomic_add_fetch(&r->reuse->relabelled, pixels, __ATOMIC_RELAXED);
}
