/* Class with the largest bilinearly enlarged logit, without writing the enlarged logits.

   A pixel lies in a cell between four logits of every class. Where one class leads at all four corners it leads
   everywhere between them, and nothing is computed: boundaries are a small part of most pictures. */
#include <stdlib.h>
#include "maps/classify.h"
#include "platform/export.h"

/* Class that leads in every column of a row [padded]; the first one where several do. */
static void find_leaders(const Band *b, const float *row, int32_t *leader) {
    for (int64_t x = 0; x < b->padded; x += LANES) {
        vec best = load(row + x);
        mask label = {};
        for (int32_t k = 1; k < b->classes; k++) {
            const vec value = load(row + k * b->padded + x);
            const mask more = value > best;
            label = (more & ((mask){} + k)) | (~more & label);
            best = choose(more, value, best);
        }
        *(mask *)(leader + x) = label;
    }
}

/* Label every column as its leader, one line like the other. */
static void fill(const Band *b, const int32_t *leader, int32_t lines, uint8_t *labels) {
    for (int32_t x = 0; x < b->columns;) {
        int32_t end = x + 1;
        while (end < b->columns && leader[1 + end] == leader[1 + x]) end++;
        const int32_t from = x * b->factor, to = end * b->factor < b->width ? end * b->factor : b->width;
        if (from < to) memset(labels + from, leader[1 + x], (size_t)(to - from));
        x = end;
    }
    for (int32_t y = 1; y < lines; y++) memcpy(labels + (int64_t)y * b->width, labels, (size_t)b->width);
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

/* The pixels at one place of LANES cells: label and, if wanted, probability. Sides are [classes][LANES]. */
static inline mask pixel(const float *left, const float *right, int32_t classes, float share, vec *probability) {
    vec best = (1 - share) * load(left) + share * load(right);
    mask label = {};
    for (int32_t k = 1; k < classes; k++) {
        const vec value = (1 - share) * load(left + k * LANES) + share * load(right + k * LANES);
        const mask more = value > best;
        label = (more & ((mask){} + k)) | (~more & label);
        best = choose(more, value, best);
    }
    if (!probability) return label;
    vec sum = {};
    for (int32_t k = 0; k < classes; k++)
        sum += power_of_e((1 - share) * load(left + k * LANES) + share * load(right + k * LANES) - best);
    *probability = 1 / sum;
    return label;
}

/* All pixels of `count` cells, at most LANES; a cell is named by the padded column on its left. */
static void label_cells(
    const Band *b, const int32_t *cell, int32_t count, int32_t first, int32_t lines, uint8_t *labels, float *confidence, float *scratch)
{
    const int64_t side = (int64_t)b->classes * LANES;
    float *corner[4] = {scratch, scratch + side, scratch + 2 * side, scratch + 3 * side}, *left = scratch + 4 * side, *right = left + side;
    for (int32_t k = 0; k < b->classes; k++)
        for (int32_t i = 0; i < LANES; i++) {
            const int64_t from = k * b->padded + cell[i < count ? i : 0], to = k * LANES + i;
            corner[0][to] = b->upper[from], corner[1][to] = b->upper[from + 1];
            corner[2][to] = b->lower[from], corner[3][to] = b->lower[from + 1];
        }
    const float step = b->factor == 1 ? 0 : 1 / (float)b->factor;
    for (int32_t y = 0; y < lines; y++) {
        const float below = ((float)(first + y) + 0.5f) * step;
        for (int64_t k = 0; k < side; k += LANES) {
            store(left + k, (1 - below) * load(corner[0] + k) + below * load(corner[2] + k));
            store(right + k, (1 - below) * load(corner[1] + k) + below * load(corner[3] + k));
        }
        for (int32_t x = 0; x < b->factor; x++) {
            vec probability = {};
            const mask label = pixel(left, right, b->classes, ((float)x + 0.5f) * step, confidence ? &probability : NULL);
            for (int32_t i = 0; i < count; i++) {
                const int32_t at = band_start(cell[i] - 1, b->factor) + x;
                if (at < 0 || at >= b->width) continue;
                if (labels) labels[(int64_t)y * b->width + at] = (uint8_t)label[i];
                if (confidence) confidence[(int64_t)y * b->width + at] = probability[i];
            }
        }
    }
}

void label_band(const Band *b, int32_t first, int32_t lines, uint8_t *labels, float *confidence, float *scratch) {
    const int64_t length = (b->padded + 3) / 4 * 4;
    int32_t *upper = (int32_t *)scratch, *lower = upper + length, cell[LANES], count = 0;
    float *rest = scratch + 2 * length;
    if (!confidence) {
        find_leaders(b, b->upper, upper), find_leaders(b, b->lower, lower);
        fill(b, upper, lines, labels);
    }
    for (int32_t x = 0; x <= b->columns; x++) {
        if (!confidence && upper[x] == upper[x + 1] && upper[x] == lower[x] && upper[x] == lower[x + 1]) continue;
        cell[count++] = x;
        if (count < LANES) continue;
        label_cells(b, cell, count, first, lines, labels, confidence, rest);
        count = 0;
    }
    if (count) label_cells(b, cell, count, first, lines, labels, confidence, rest);
}

/* logits [images][classes][rows][columns] -> labels [images][height][width]; factor * rows >= height. */
EXPORT void foveal_classify(
    const float *logits, int64_t images, int32_t classes, int32_t rows, int32_t columns, int32_t factor,
    int32_t height, int32_t width, uint8_t *out)
{
    const int64_t padded = padded_columns(columns), plane = classes * padded;
#pragma omp parallel
    {
        float *upper = malloc((size_t)(2 * plane + band_scratch(classes, columns)) * sizeof(float)), *lower = upper + plane;
#pragma omp for schedule(static)
        for (int64_t at = 0; at < images * (rows + 1); at++) {
            const int64_t image = at / (rows + 1), above = at % (rows + 1) - 1;
            const int32_t start = band_start(above, factor), from = start < 0 ? 0 : start;
            const int32_t stop = start + factor < height ? start + factor : height;
            if (from >= stop) continue;
            const int64_t top = above < 0 ? 0 : above, bottom = above + 1 < rows ? above + 1 : rows - 1;
            for (int32_t k = 0; k < classes; k++) {
                const float *map = logits + (image * classes + k) * rows * columns;
                memcpy(upper + k * padded + 1, map + top * columns, (size_t)columns * sizeof(float));
                memcpy(lower + k * padded + 1, map + bottom * columns, (size_t)columns * sizeof(float));
                repeat_ends(upper + k * padded, columns, padded), repeat_ends(lower + k * padded, columns, padded);
            }
            const Band b = {upper, lower, padded, classes, columns, factor, width};
            label_band(&b, from - start, stop - from, out + (image * height + from) * width, NULL, lower + plane);
        }
        free(upper);
    }
}
