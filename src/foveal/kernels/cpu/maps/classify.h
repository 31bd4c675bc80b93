/* Class with the largest bilinearly enlarged logit. */
#ifndef FOVEAL_CLASSIFY_H
#define FOVEAL_CLASSIFY_H

#include "platform/rows.h"

/* Floats between the classes of a line of so many columns: one before them, and room for whole vectors. */
static inline int64_t padded_columns(int32_t columns) { return (columns + 2 + 2 * LANES) & -(int64_t)LANES; }

/* Labels [width] of a line of logits [classes][padded] that starts with one column before the map. */
void label_line(const float *line, int64_t padded, int32_t classes, int32_t columns, int32_t factor, int32_t width, uint8_t *out);

#endif
