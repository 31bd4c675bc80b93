/* Images into maps: plain, reduced, or as tiles. */
#include "program/program.h"
#include "reduced/samples.h"
#include "maps/tiles.h"

enum { RGB = 3 };

/* Samples [left, left + count) of a line of an image, as floats in 0..1: out [count][3]. */
static void read_line(const Request *q, int64_t image, int64_t y, int64_t left, int64_t count, float *out) {
    for (int64_t c = 0; c < RGB; c++) {
        const int64_t at = image * q->stride[0] + c * q->stride[1] + y * q->stride[2] + left * q->stride[3], step = q->stride[3];
        if (q->bytes) {
            const uint8_t *from = (const uint8_t *)q->image + at;
            for (int64_t x = 0; x < count; x++) out[x * RGB + c] = (float)from[x * step] / 255.0f;
        } else {
            const float *from = (const float *)q->image + at;
            if (step == 1)
                for (int64_t x = 0; x < count; x++) out[x * RGB + c] = from[x];
            else
                for (int64_t x = 0; x < count; x++) out[x * RGB + c] = from[x * step];
        }
    }
}

/* Means of 2x2 samples of two lines, of those that exist; `two` says whether the second line does. */
static void halve_lines(const float *upper, const float *lower, int64_t width, float *to) {
    for (int64_t x = 0; x < width / 2; x++)
        for (int64_t c = 0; c < RGB; c++) {
            const int64_t k = 2 * RGB * x + c;
            to[x * RGB + c] = 0.25f * (upper[k] + upper[k + RGB] + lower[k] + lower[k + RGB]);
        }
    if (width % 2)
        for (int64_t c = 0; c < RGB; c++)
            to[width / 2 * RGB + c] = 0.5f * (upper[(width - 1) * RGB + c] + lower[(width - 1) * RGB + c]);
}

/* The images reduced once, from where they are: level 1 of the pyramid. */
static void first_halving(Run *r, Team team) {
    const Request *q = r->request;
    const int64_t rows = (q->height + 1) / 2, columns = (q->width + 1) / 2, lines = q->images * rows;
    float *buffer = r->scratch[team.thread];
    for (int64_t line; (line = take(&team)) < lines;) {
        const int64_t image = line / rows, y = line % rows * 2;
        float *upper = buffer, *lower = buffer + (int64_t)q->width * RGB;
        read_line(q, image, y, 0, q->width, upper);
        if (y + 1 < q->height) read_line(q, image, y + 1, 0, q->width, lower);
        halve_lines(upper, y + 1 < q->height ? lower : upper, q->width, r->pyramid[1] + line * columns * RGB);
    }
}

/* Where a line of the input map is written first: where it belongs, or beside, to be stored by `put_line`. */
static float *line_of(const Run *r, float *out, int64_t sample, Team team) {
    return r->program->maps[r->program->head.input].precision == F32 ? out + sample * RGB : r->scratch[team.thread];
}

/* Store a line in the input map's precision, channels that an image lacks being 0. */
static void put_line(const Run *r, const float *line, float *out, int64_t sample, int64_t count) {
    const MapSpec *m = &r->program->maps[r->program->head.input];
    if (m->precision == F32) return;
    const float factor = m->precision == U8 ? 1 / m->scale : 1;
    for (int64_t x = 0; x < count; x++) {
        float values[RGB + 1] = {0, 0, 0, 0};
        for (int c = 0; c < RGB; c++) values[c] = line[x * RGB + c] * factor;
        write_values(out, m->precision, (sample + x) * m->channels, values, m->channels < RGB + 1 ? m->channels : RGB + 1);
    }
}

/* Reduce the images up to a level, those up to `from` being there; the pyramid has a place for each. */
void reduce_input(Run *r, int32_t from, int32_t level, Team team) {
    for (int32_t k = from; k < level; k++) {
        if (k == 0) first_halving(r, team);
        else halve_step(r->pyramid[k], r->request->images, rows_at(r, 1, k), columns_at(r, 1, k), RGB, r->pyramid[k + 1], team);
        meet(r, team);
    }
}

/* The images at the level of the pass as the plain input map. */
void plain_input(Run *r, Team team) {
    const Request *q = r->request;
    float *out = current(r, r->program->head.input);
    const int32_t level = r->pass.level, height = rows_at(r, 1, level), width = columns_at(r, 1, level);
    const int64_t lines = (int64_t)q->images * height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            float *to = line_of(r, out, line * width, team);
            if (level) memcpy(to, r->pyramid[level] + line * width * RGB, (size_t)(width * RGB) * sizeof(float));
            else read_line(q, line / height, line % height, 0, width, to);
            put_line(r, to, out, line * width, width);
        }
    meet(r, team);
}

/* The tiles that are computed now: from the image, or from the pyramid. */
void cut_input_step(const Run *r, Team team) {
    const Request *q = r->request;
    const Grid *g = &r->grid;
    const int32_t side = g->tile;
    float *out = current(r, r->program->head.input);
    const int64_t lines = g->computed * side, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++) {
            const int64_t t = g->first + line / side, image = g->image[t];
            const int32_t level = (int32_t)g->level[t], y = (int32_t)(g->row[t] * side >> level) + (int32_t)(line % side);
            const int32_t left = (int32_t)(g->column[t] * side >> level);
            float *to = line_of(r, out, line * side, team);
            if (level) {
                const int32_t height = rows_at(r, 1, level), width = columns_at(r, 1, level);
                const Dense d = {r->pyramid[level] + image * height * width * RGB, height, width, RGB};
                cut_line(&d, 0, y, left, side, to);
                put_line(r, to, out, line * side, side);
                continue;
            }
            int64_t inside = y < q->height ? q->width - left : 0;
            inside = inside > side ? side : inside;
            if (inside > 0) read_line(q, image, y, left, inside, to);
            else inside = 0;
            memset(to + inside * RGB, 0, (size_t)((side - inside) * RGB) * sizeof(float));
            put_line(r, to, out, line * side, side);
        }
}
