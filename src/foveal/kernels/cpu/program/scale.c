/* Images that are shrunk before all else: the program runs on small ones, and labels have the size of those that come in. */
#include "program/program.h"

enum { COARSEST = 4 }; /* logits are enlarged to the first of the strides 4, 2 and 1 of the images that keeps all of them */

int scaled(const Run *r) { return r->request->full_height > 0; }

/* Sides of the images that come in, which labels have. */
Sides labelled_sides(const Run *r) {
    const Request *q = r->request;
    return scaled(r) ? (Sides){q->full_height, q->full_width} : (Sides){q->height, q->width};
}

/* Whether logits of so many rows and columns fit into those of a stride of the images that come in. */
static int keeps(const Request *q, int32_t rows, int32_t columns, int32_t stride) {
    return rows <= extent(q->full_height, stride) && columns <= extent(q->full_width, stride);
}

/* Give a run what shrinking and enlarging need. 0, or -1 without memory. */
int prepare_scale(Run *r) {
    r->enlarged_rows = r->enlarged_columns = 0;
    if (!scaled(r)) return 0;
    const Request *q = r->request;
    const ProgramHead *head = &r->program->head;
    const int32_t output = r->program->maps[head->output].stride;
    const size_t lines = taps_bytes(q->full_height, q->height), samples = taps_bytes(q->full_width, q->width);
    char *memory = room(&r->context->taps, lines + samples);
    if (!memory) return -1;
    r->taps[0] = taps_make(q->full_height, q->height, memory);
    r->taps[1] = taps_make(q->full_width, q->width, memory + lines);
    int32_t stride = COARSEST;
    while (stride > 1 && !keeps(q, rows_at(r, output, 0), columns_at(r, output, 0), stride)) stride /= 2;
    r->enlarged_rows = extent(q->full_height, stride), r->enlarged_columns = extent(q->full_width, stride);
    r->enlarged = room(&r->context->enlarged, (size_t)q->images * (size_t)r->enlarged_rows * (size_t)r->enlarged_columns * (size_t)head->classes * 4);
    return r->enlarged ? 0 : -1;
}

/* Note NaN and infinity among numbers, of images or logits. */
static void notice(Run *r, const float *x, int64_t count, int32_t what) {
    if (!r->unreal && unreal(x, count)) __atomic_store_n(&r->unreal, what, __ATOMIC_RELAXED);
}

/* The images as they come in, shrunk into the pyramid's level 0. */
void shrink_input(Run *r, Team team) {
    const Request *q = r->request;
    const int32_t colours = r->program->head.colours;
    const Pixels p = {q->image, q->stride[0], q->stride[1], q->stride[2], q->stride[3], q->full_height, q->full_width, colours, q->bytes};
    resize_step(&p, q->images, &r->taps[0], &r->taps[1], r->scratch[team.thread], r->pyramid[0], team);
    meet(r, team);
    const int64_t lines = (int64_t)q->images * colours * q->height, size = lines_per_task(lines, &team);
    for (int64_t first; !q->bytes && (first = take(&team) * size) < lines;) {
        const int64_t count = first + size < lines ? size : lines - first;
        notice(r, r->pyramid[0] + first * q->width, count * q->width, IMAGES);
    }
}

/* Where output `k` of a side lies among its `count` samples: between `low` and the next, `after` behind it. */
static int32_t place(int32_t k, int32_t count, int32_t outputs, int32_t *next, float *after) {
    const double at = (k + 0.5) * count / outputs - 0.5, from = at < 0 ? 0 : at;
    const int32_t low = within((int32_t)from, count - 1);
    *next = within(low + 1, count - 1), *after = (float)(from - low);
    return low;
}

/* Logits [images][rows][columns][classes] bilinearly at a stride of the images that came in. */
void enlarge_logits(Run *r, const float *logits, int32_t rows, int32_t columns, Team team) {
    const int32_t classes = r->program->head.classes, height = r->enlarged_rows, width = r->enlarged_columns;
    const int64_t line = (int64_t)columns * classes, lines = (int64_t)r->request->images * height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t at = first; at < first + size && at < lines; at++) {
            int32_t next;
            float below;
            const int32_t low = place((int32_t)(at % height), rows, height, &next, &below);
            const float *map = logits + at / height * rows * line, *upper = map + low * line, *lower = map + next * line;
            float *to = r->enlarged + at * width * classes;
            for (int32_t x = 0; x < width; x++, to += classes) {
                int32_t right;
                float after;
                const int64_t left = (int64_t)place(x, columns, width, &right, &after) * classes, step = (int64_t)right * classes - left;
                const float *a = upper + left, *b = lower + left;
                for (int32_t k = 0; k < classes; k++) {
                    const float one = a[k] + after * (a[k + step] - a[k]), two = b[k] + after * (b[k + step] - b[k]);
                    to[k] = one + below * (two - one);
                }
            }
            notice(r, r->enlarged + at * width * classes, (int64_t)width * classes, LOGITS);
        }
}
