/* Class with the largest bilinearly enlarged logit, without writing the enlarged logits. */
#include <stdlib.h>
#include "maps/classify.h"
#include "platform/export.h"

/* Labels of one line: columns are handled by their phase in the enlargement, a vector of sources at a time. */
void label_line(const float *line, int64_t padded, int32_t classes, int32_t columns, int32_t factor, int32_t width, uint8_t *out) {
    for (int32_t phase = 0; phase < factor; phase++) {
        const float x = ((float)phase + 0.5f) / (float)factor - 0.5f;
        const int32_t shift = x < 0 ? -1 : 0;
        const float right = x - (float)shift;
        for (int32_t j = 0; j < columns; j += LANES) {
            vec best = {};
            mask label = {};
            for (int32_t k = 0; k < classes; k++) {
                const float *from = line + k * padded + 1 + j + shift;
                const vec value = (1 - right) * load(from) + right * load(from + 1);
                const mask more = value > best;
                if (k == 0) {
                    best = value;
                    continue;
                }
                label = (more & ((mask){} + k)) | (~more & label);
                best = choose(more, value, best);
            }
            for (int32_t l = 0; l < LANES && j + l < columns; l++) {
                const int32_t at = (j + l) * factor + phase;
                if (at < width) out[at] = (uint8_t)label[l];
            }
        }
    }
}

/* logits [images][classes][rows][columns] -> labels [images][height][width]; factor * rows >= height. */
EXPORT void foveal_classify(
    const float *logits, int64_t images, int32_t classes, int32_t rows, int32_t columns, int32_t factor,
    int32_t height, int32_t width, uint8_t *out)
{
    const int64_t padded = (columns + 2 + 2 * LANES) & -(int64_t)LANES;
#pragma omp parallel
    {
        float *line = calloc((size_t)(classes * padded), sizeof(float));
#pragma omp for schedule(static)
        for (int64_t at = 0; at < images * height; at++) {
            const int64_t image = at / height;
            const float y = ((float)(at % height) + 0.5f) / (float)factor - 0.5f;
            const int32_t floor_y = (int32_t)floorf(y);
            const float below = y - (float)floor_y;
            const int32_t top = floor_y < 0 ? 0 : floor_y, bottom = floor_y + 1 >= rows ? rows - 1 : floor_y + 1;
            for (int32_t k = 0; k < classes; k++) {
                const float *map = logits + (image * classes + k) * rows * columns;
                const float *upper = map + (int64_t)top * columns, *lower = map + (int64_t)bottom * columns;
                float *to = line + k * padded + 1;
                for (int32_t j = 0; j < columns; j++) to[j] = (1 - below) * upper[j] + below * lower[j];
                to[-1] = to[0];
                to[columns] = to[columns - 1];
            }
            label_line(line, padded, classes, columns, factor, width, out + at * width);
        }
        free(line);
    }
}
