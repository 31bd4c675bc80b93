/* Images into maps: plain, reduced, or as tiles. Images and their reductions are planes of one channel each, so
   that lines are read and averaged whole vectors at a time; channels are joined when a map is written. */
#include "program/program.h"
#include "reduced/samples.h"

/* Images at a level: where samples lie, in elements from image to image, plane, line and sample. */
typedef struct {
    const void *at;
    int64_t image, plane, line, sample;
    int32_t height, width, bytes;
} Images;

static Images images_at(const Run *r, int32_t level) {
    const Request *q = r->request;
    if (!level && !scaled(r)) return (Images){q->image, q->stride[0], q->stride[1], q->stride[2], q->stride[3], q->height, q->width, q->bytes};
    const int64_t height = rows_at(r, 1, level), width = columns_at(r, 1, level), area = height * width;
    return (Images){r->pyramid[level], r->program->head.colours * area, area, width, 1, (int32_t)height, (int32_t)width, 0};
}

/* Samples [left, left + count) of a line of a plane as floats in 0..1: where they lie, or copied to `beside`. */
static const float *read_line(const Images *m, int64_t image, int64_t plane, int64_t y, int64_t left, int64_t count, float *beside) {
    const int64_t at = image * m->image + plane * m->plane + y * m->line + left * m->sample, step = m->sample;
    if (m->bytes) {
        const uint8_t *from = (const uint8_t *)m->at + at;
        if (step == RGB)
            for (int64_t x = 0; x < count; x++) beside[x] = (float)from[x * RGB] / 255.0f;
        else
            for (int64_t x = 0; x < count; x++) beside[x] = (float)from[x * step] / 255.0f;
        return beside;
    }
    const float *from = (const float *)m->at + at;
    if (step == 1) return from;
    if (step == RGB)
        for (int64_t x = 0; x < count; x++) beside[x] = from[x * RGB];
    else
        for (int64_t x = 0; x < count; x++) beside[x] = from[x * step];
    return beside;
}

/* The same of all planes; `beside` has room for them. Three colours beside one another are read together. */
static void read_planes(const Images *m, int32_t colours, int64_t image, int64_t y, int64_t left, int64_t count, float *beside, const float **planes) {
    if (colours == RGB && m->plane == 1 && m->sample == RGB) {
        const int64_t at = image * m->image + y * m->line + left * RGB;
        if (m->bytes) part_bytes((const uint8_t *)m->at + at, count, beside, beside + count, beside + 2 * count);
        else part_colours((const float *)m->at + at, count, beside, beside + count, beside + 2 * count);
        for (int32_t c = 0; c < RGB; c++) planes[c] = beside + c * count;
        return;
    }
    for (int32_t c = 0; c < colours; c++) planes[c] = read_line(m, image, c, y, left, count, beside + c * count);
}

static void notice(Run *r, const float *x, int64_t count) {
    if (unreal(x, count)) __atomic_store_n(&r->unreal, IMAGES, __ATOMIC_RELAXED);
}

/* Means of 2x2 samples of two lines, of those that exist. */
static void halve_lines(const float *upper, const float *lower, int64_t width, float *restrict to) {
    for (int64_t x = 0; x < width / 2; x++) to[x] = 0.25f * (upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]);
    if (width % 2) to[width / 2] = 0.5f * (upper[width - 1] + lower[width - 1]);
}

/* The images of a level at half their size: the next level of the pyramid. */
static void halve_images(Run *r, int32_t level, Team team) {
    const Images from = images_at(r, level), to = images_at(r, level + 1);
    const int32_t colours = r->program->head.colours;
    const int64_t lines = (int64_t)r->request->images * to.height, size = lines_per_task(lines, &team);
    float *upper = r->scratch[team.thread], *lower = upper + (int64_t)colours * from.width;
    const float *one[MOST_COLOURS], *two[MOST_COLOURS];
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t image = line / to.height, y = line % to.height;
            const int both = 2 * y + 1 < from.height;
            read_planes(&from, colours, image, 2 * y, 0, from.width, upper, one);
            if (both) read_planes(&from, colours, image, 2 * y + 1, 0, from.width, lower, two);
            for (int32_t c = 0; c < colours; c++) {
                float *out = r->pyramid[level + 1] + ((image * colours + c) * to.height + y) * to.width;
                halve_lines(one[c], both ? two[c] : one[c], from.width, out);
                if (!level && !from.bytes) notice(r, out, to.width);
            }
        }
}

/* Reduce the images up to a level, those up to `from` being there; the pyramid has a place for each. */
void reduce_input(Run *r, int32_t from, int32_t level, Team team) {
    for (int32_t k = from; k < level; k++) {
        halve_images(r, k, team);
        meet(r, team);
    }
}

/* Store samples of three planes as rows of the input map; a fourth channel, which images lack, is 0. */
static void put_rgb(const MapSpec *m, const float *const *c, void *map, int64_t sample, int64_t count) {
    if (m->precision == F32) {
        float *restrict to = (float *)map + sample * RGB;
        for (int64_t x = 0; x < count; x++) to[RGB * x] = c[0][x], to[RGB * x + 1] = c[1][x], to[RGB * x + 2] = c[2][x];
    } else if (m->precision == U8) {
        uint32_t *restrict to = (uint32_t *)map + sample;
        const float factor = 1 / m->scale;
        for (int64_t x = 0; x < count; x++) to[x] = byte_of(c[0][x] * factor) | byte_of(c[1][x] * factor) << 8 | byte_of(c[2][x] * factor) << 16;
    } else {
        uint32_t *restrict to = (uint32_t *)map + 2 * sample;
        for (int64_t x = 0; x < count; x++) {
            to[2 * x] = to_bf16(c[0][x]) | (uint32_t)to_bf16(c[1][x]) << 16;
            to[2 * x + 1] = to_bf16(c[2][x]);
        }
    }
}

/* Store samples of any number of planes; channels that images lack are 0. */
static void put_samples(const MapSpec *m, const float *const *c, int32_t colours, void *map, int64_t sample, int64_t count) {
    const int64_t channels = m->channels;
    if (colours == RGB && (m->precision == F32 || channels == RGB + 1)) {
        put_rgb(m, c, map, sample, count);
        return;
    }
    const float factor = 1 / m->scale;
    for (int64_t k = 0; k < channels; k++)
        for (int64_t x = 0; x < count; x++) {
            const int64_t at = (sample + x) * channels + k;
            const float value = k < colours ? c[k][x] : 0;
            if (m->precision == F32) ((float *)map)[at] = value;
            else if (m->precision == U8) ((uint8_t *)map)[at] = to_u8(value * factor);
            else ((uint16_t *)map)[at] = to_bf16(value);
        }
}

/* Samples of a line from a place on as rows of the input map; 0 beyond the image. */
static void put_line(Run *r, const Images *m, int64_t image, int64_t y, int64_t left, int64_t count, int64_t sample, Team team) {
    const int32_t input = r->program->head.input, colours = r->program->head.colours;
    int64_t inside = y < m->height ? m->width - left : 0;
    inside = inside > count ? count : inside < 0 ? 0 : inside;
    float *beside = r->scratch[team.thread];
    const float *planes[MOST_COLOURS];
    if (inside) read_planes(m, colours, image, y, left, inside, beside, planes);
    for (int64_t c = 0; c < colours; c++) {
        if (!inside) planes[c] = beside;
        if (m->at == r->request->image && !m->bytes) notice(r, planes[c], inside);
        if (inside == count) continue;
        float *whole = beside + (colours + c) * count; /* 0 beyond the image */
        memcpy(whole, planes[c], (size_t)inside * sizeof(float));
        memset(whole + inside, 0, (size_t)(count - inside) * sizeof(float));
        planes[c] = whole;
    }
    put_samples(&r->program->maps[input], planes, colours, current(r, input), sample, count);
}

/* The images at the level of the pass as the plain input map. */
void plain_input(Run *r, Team team) {
    const Images m = images_at(r, r->pass.level);
    const int64_t lines = (int64_t)r->request->images * m.height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++)
            put_line(r, &m, line / m.height, line % m.height, 0, m.width, line * m.width, team);
    meet(r, team);
}

/* The tiles that are computed now: from the image, or from the pyramid. */
void cut_input_step(Run *r, Team team) {
    const Grid *g = &r->grid;
    const int32_t side = g->tile;
    const int64_t lines = g->computed * side, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t t = g->first + line / side;
            const int32_t level = (int32_t)g->level[t];
            const Images m = images_at(r, level);
            const int64_t y = (g->row[t] * side >> level) + line % side, left = g->column[t] * side >> level;
            put_line(r, &m, g->image[t], y, left, side, line * side, team);
        }
}

/* A line of an image as floats in 0..1: where it lies, or copied to `beside`. */
const float *image_line(const Run *r, int64_t image, int64_t colour, int64_t y, float *beside) {
    const Images m = images_at(r, 0);
    return read_line(&m, image, colour, y, 0, m.width, beside);
}

/* Copy the pixels of the cells that have a level into a picture [images][colours][height][width]. */
void keep_pixels_step(Run *r, float *picture, const int8_t *levels, Team team) {
    const Grid *g = &r->grid;
    const Images m = images_at(r, 0);
    const int64_t colours = r->program->head.colours, lines = r->request->images * colours * m.height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t y = line % m.height, colour = line / m.height % colours, image = line / m.height / colours;
            const int8_t *cells = levels + (image * g->rows + y / g->tile) * g->columns;
            for (int32_t cell = 0, next; cell < g->columns; cell = next + 1) {
                for (; cell < g->columns && cells[cell] < 0; cell++);
                for (next = cell; next < g->columns && cells[next] >= 0; next++);
                const int32_t left = cell * g->tile, right = next * g->tile < m.width ? next * g->tile : m.width;
                if (left >= right) break;
                const float *from = read_line(&m, image, colour, y, left, right - left, r->scratch[team.thread]);
                memcpy(picture + line * m.width + left, from, (size_t)(right - left) * sizeof(float));
            }
        }
}
