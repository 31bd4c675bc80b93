/* Class with the largest bilinearly enlarged logit. */
#ifndef FOVEAL_CLASSIFY_H
#define FOVEAL_CLASSIFY_H

#include "platform/rows.h"

/* What lies between two rows of logits. A row is [classes][padded]: one column before the map, which repeats its
   first, and the last one repeated behind it. The factor of the enlargement is a power of two. */
typedef struct {
    const float *upper, *lower;
    int64_t padded;
    int32_t classes, columns, factor, width; /* width: pixels of a line of labels */
} Band;

/* Floats between the classes of a row of so many columns. */
static inline int64_t padded_columns(int32_t columns) { return (columns + 2 + 2 * LANES) & -(int64_t)LANES; }

/* Repeat the ends of a plane of a row, whose columns begin at plane[1]. */
static inline void repeat_ends(float *plane, int32_t columns, int64_t padded) {
    plane[0] = plane[1];
    for (int64_t x = columns + 1; x < padded; x++) plane[x] = plane[columns];
}

/* First line, and the one after the last, of the pixels between row `above` of the logits and the next. */
static inline int32_t band_start(int64_t above, int32_t factor) { return (int32_t)(above * factor + factor / 2); }

/* Floats of scratch that a band needs. */
static inline int64_t band_scratch(int32_t classes, int32_t columns) {
    return 6 * (int64_t)classes * LANES + 2 * ((padded_columns(columns) + 3) / 4 * 4);
}

/* Labels [lines][width] of the lines [first, first + lines) of a band, counted from its start, and their
   probabilities [lines][width]; or NULL for either. */
void label_band(const Band *b, int32_t first, int32_t lines, uint8_t *labels, float *confidence, float *scratch);

#endif
