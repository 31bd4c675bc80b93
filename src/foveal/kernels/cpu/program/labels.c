/* Labels, and how sure they are, from logits at the network's stride. */
#include "maps/classify.h"
#include "program/program.h"

enum { VOID = 255 };

/* A row of logits [columns][classes] as [classes][padded], its ends repeated. */
static void by_class(const float *row, int32_t columns, int32_t classes, int64_t padded, float *out) {
    for (int32_t k = 0; k < classes; k++) {
        float *to = out + k * padded;
        for (int32_t x = 0; x < columns; x++) to[1 + x] = row[(int64_t)x * classes + k];
        to[0] = to[1];
        for (int64_t x = columns + 1; x < padded; x++) to[x] = to[columns];
    }
}

/* Probability of the largest class of every pixel of a line. */
static void sure_line(const float *line, int64_t padded, int32_t classes, int32_t factor, int32_t width, float *out) {
    for (int32_t i = 0; i < width; i++) {
        const float x = ((float)i + 0.5f) / (float)factor - 0.5f;
        const int32_t left = (int32_t)floorf(x);
        const float after = x - (float)left, *from = line + 1 + left;
        float most = -INFINITY, sum = 0;
        for (int32_t k = 0; k < classes; k++) {
            const float v = (1 - after) * from[k * padded] + after * from[k * padded + 1];
            most = v > most ? v : most;
        }
        for (int32_t k = 0; k < classes; k++) sum += expf((1 - after) * from[k * padded] + after * from[k * padded + 1] - most);
        out[i] = 1 / sum;
    }
}

/* What was not computed has no label. */
static void blank(const Run *r, int64_t image, int32_t y, uint8_t *labels, float *sure) {
    const Grid *g = &r->grid;
    const int64_t line = (image * g->rows + y / g->tile) * g->columns;
    for (int32_t x = 0; x < g->columns; x++) {
        if (r->held[line + x] >= 0 && !(r->request->mask && !r->request->mask[line + x])) continue;
        const int32_t left = x * g->tile, right = left + g->tile < g->width ? left + g->tile : g->width;
        if (labels) memset(labels + left, VOID, (size_t)(right - left));
        if (sure) memset(sure + left, 0, (size_t)(right - left) * sizeof(float));
    }
}

static int32_t factor_of(const Run *r, int32_t rows, int32_t columns) {
    const int32_t down = (r->grid.height - 1) / rows + 1, across = (r->grid.width - 1) / columns + 1, least = down > across ? down : across;
    int32_t factor = 1;
    while (factor < least) factor *= 2;
    return factor;
}

/* Labels and confidence of all images from logits [images][rows][columns][classes]. A task is what lies between
   two rows of logits. */
void label_step(const Run *r, const float *logits, int32_t rows, int32_t columns, Team team) {
    const Request *q = r->request;
    const int32_t classes = r->program->head.classes, factor = factor_of(r, rows, columns);
    const int64_t padded = padded_columns(columns), plane = padded * classes;
    float *upper = r->scratch[team.thread], *lower = upper + plane, *line = lower + plane;
    if (!q->labels && !q->confidence) return;
    for (int64_t task; (task = take(&team)) < (int64_t)q->images * (rows + 1);) {
        const int64_t image = task / (rows + 1), floor_y = task % (rows + 1) - 1;
        const int64_t first = factor * floor_y + factor / 2, stop = first + factor;
        const int32_t top = within((int32_t)floor_y, rows - 1), bottom = within((int32_t)floor_y + 1, rows - 1);
        if (first >= q->height || stop <= 0) continue;
        by_class(logits + ((image * rows + top) * columns) * classes, columns, classes, padded, upper);
        by_class(logits + ((image * rows + bottom) * columns) * classes, columns, classes, padded, lower);
        for (int64_t y = first < 0 ? 0 : first; y < stop && y < q->height; y++) {
            const float below = ((float)y + 0.5f) / (float)factor - 0.5f - (float)floor_y;
            for (int64_t k = 0; k < plane; k++) line[k] = (1 - below) * upper[k] + below * lower[k];
            const int64_t at = (image * q->height + y) * q->width;
            uint8_t *labels = q->labels ? q->labels + at : NULL;
            float *sure = q->confidence ? q->confidence + at : NULL;
            if (labels) label_line(line, padded, classes, columns, factor, q->width, labels);
            if (sure) sure_line(line, padded, classes, factor, q->width, sure);
            blank(r, image, (int32_t)y, labels, sure);
        }
    }
}
