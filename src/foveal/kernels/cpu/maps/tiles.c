/* Dense maps into tiles and back. */
#include "maps/tiles.h"
#include "platform/region.h"
#include "platform/export.h"

/* Where tiles lie. */
typedef struct {
    const int64_t *image, *level, *row, *column;
    int64_t tiles;
    int32_t height, width, channels; /* of the dense map */
    int32_t side, base;              /* samples on a tile's side, level of the map */
} Places;

/* Add the mean of the samples under a coordinate of a level, of those that the map has: the mean of the four
   samples one level finer, and so on down. */
static void add_mean(const Dense *d, int32_t level, int32_t y, int32_t x, float share, float *to) {
    if (level == 0) {
        const float *from = d->map + ((int64_t)y * d->width + x) * d->channels;
        for (int32_t c = 0; c < d->channels; c++) to[c] += share * from[c];
        return;
    }
    const int32_t height = ((d->height - 1) >> (level - 1)) + 1, width = ((d->width - 1) >> (level - 1)) + 1;
    const int32_t rows = 2 * y + 1 < height ? 2 : 1, columns = 2 * x + 1 < width ? 2 : 1;
    share /= (float)(rows * columns);
    for (int32_t i = 0; i < rows; i++)
        for (int32_t j = 0; j < columns; j++) add_mean(d, level - 1, 2 * y + i, 2 * x + j, share, to);
}

void cut_line(const Dense *d, int32_t level, int32_t y, int32_t left, int32_t side, float *to) {
    const int32_t height = ((d->height - 1) >> level) + 1, width = ((d->width - 1) >> level) + 1, channels = d->channels;
    int32_t inside = y < height ? width - left : 0;
    inside = inside > side ? side : inside < 0 ? 0 : inside;
    if (level == 0) {
        if (inside) memcpy(to, d->map + ((int64_t)y * d->width + left) * channels, (size_t)(inside * channels) * sizeof(float));
        memset(to + inside * channels, 0, (size_t)((side - inside) * channels) * sizeof(float));
        return;
    }
    memset(to, 0, (size_t)(side * channels) * sizeof(float));
    const int32_t whole = level == 1 && 2 * y + 1 < d->height ? (d->width / 2 < left + inside ? d->width / 2 : left + inside) - left : 0;
    for (int32_t x = 0; x < whole; x++) {
        const float *a = d->map + ((int64_t)2 * y * d->width + 2 * (left + x)) * channels, *b = a + (int64_t)d->width * channels;
        for (int32_t c = 0; c < channels; c++)
            to[x * channels + c] = 0.25f * (a[c] + a[c + channels] + b[c] + b[c + channels]);
    }
    for (int32_t x = whole < 0 ? 0 : whole; x < inside; x++) add_mean(d, level, y, left + x, 1.0f, to + x * channels);
}

/* Tiles [tiles][side][side][channels] of maps [images][height][width][channels]; 0 outside the image. */
EXPORT void foveal_cut(const Places *p, const float *maps, float *out) {
    const int32_t side = p->side;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < p->tiles * side; line++) {
        const int64_t tile = line / side, area = (int64_t)p->height * p->width * p->channels;
        const Dense d = {maps + p->image[tile] * area, p->height, p->width, p->channels};
        const int32_t y = (int32_t)(p->row[tile] * side >> p->level[tile]) + (int32_t)(line % side);
        const int32_t left = (int32_t)(p->column[tile] * side >> p->level[tile]);
        cut_line(&d, (int32_t)p->level[tile] - p->base, y, left, side, out + line * side * p->channels);
    }
}

/* Maps [images][height][width][channels] from tiles with a border of 1 (of an index whose edge is repeated):
   coarser tiles are enlarged bilinearly. A tile writes the cells [images][rows][columns] that it owns. */
EXPORT void foveal_compose(const Places *p, const Source *s, const int64_t *owner, int32_t rows, int32_t columns, float *maps) {
    const int32_t side = p->side, channels = p->channels;
#pragma omp parallel for schedule(dynamic)
    for (int64_t tile = 0; tile < p->tiles; tile++) {
        const int32_t level = (int32_t)p->level[tile], factor = 1 << (level - p->base);
        const int32_t top = (int32_t)(p->row[tile] * side >> level) * factor, left = (int32_t)(p->column[tile] * side >> level) * factor;
        const int32_t bottom = top + side * factor < p->height ? top + side * factor : p->height;
        const int32_t right = left + side * factor < p->width ? left + side * factor : p->width;
        const int64_t *cells = owner + p->image[tile] * rows * columns;
        for (int32_t y = top; y < bottom; y++) {
            const float v = ((float)(y - top) + 0.5f) / (float)factor - 0.5f;
            const int32_t upper = (int32_t)floorf(v);
            const float below = v - (float)upper;
            float *to = maps + ((p->image[tile] * p->height + y) * p->width + left) * channels;
            for (int32_t x = left; x < right; x++, to += channels) {
                const int64_t cell = (((int64_t)y << p->base) / side) * columns + ((int64_t)x << p->base) / side;
                if (cells[cell] != tile) continue;
                const float u = ((float)(x - left) + 0.5f) / (float)factor - 0.5f;
                const int32_t first = (int32_t)floorf(u);
                const float after = u - (float)first;
                const float *p0 = row_of(s, row_at(s, tile, upper + 1, first + 1));
                if (factor == 1) {
                    memcpy(to, p0, (size_t)channels * sizeof(float));
                    continue;
                }
                const float *p1 = row_of(s, row_at(s, tile, upper + 1, first + 2));
                const float *p2 = row_of(s, row_at(s, tile, upper + 2, first + 1)), *p3 = row_of(s, row_at(s, tile, upper + 2, first + 2));
                const float w0 = (1 - below) * (1 - after), w1 = (1 - below) * after, w2 = below * (1 - after), w3 = below * after;
                for (int32_t c = 0; c < channels; c++) to[c] = w0 * p0[c] + w1 * p1[c] + w2 * p2[c] + w3 * p3[c];
            }
        }
    }
}

void halve_step(const float *maps, int64_t images, int32_t height, int32_t width, int32_t channels, float *out, Team team) {
    const int32_t rows = (height + 1) / 2, columns = (width + 1) / 2;
    const int64_t line = (int64_t)width * channels, size = lines_per_task(images * rows, &team);
    for (int64_t first; (first = take(&team) * size) < images * rows;)
        for (int64_t at = first; at < first + size && at < images * rows; at++) {
            const int32_t y = (int32_t)(at % rows) * 2;
            const float *upper = maps + (at / rows * height + y) * line, *lower = upper + (y + 1 < height ? line : 0);
            float *to = out + at * columns * channels;
            for (int32_t x = 0; x < width / 2; x++)
                for (int32_t c = 0; c < channels; c++) {
                    const int64_t k = (int64_t)2 * x * channels + c;
                    to[x * channels + c] = 0.25f * (upper[k] + upper[k + channels] + lower[k] + lower[k + channels]);
                }
            if (width % 2)
                for (int32_t c = 0; c < channels; c++)
                    to[(columns - 1) * channels + c] = 0.5f * (upper[line - channels + c] + lower[line - channels + c]);
        }
}

EXPORT void foveal_halve(const float *maps, int64_t images, int32_t height, int32_t width, int32_t channels, float *out) {
    IN_REGION(halve_step(maps, images, height, width, channels, out, team));
}
