/* Windows that need no matrix product: borders, maximum, depthwise convolution, bilinear enlargement. */
#include "maps/windows.h"
#include "platform/region.h"
#include "platform/export.h"

/* Tiles with their border: out [tiles][height][width][channels]. */
EXPORT void foveal_gather(const Source *s, int32_t height, int32_t width, float *out) {
    const int64_t lines = s->tiles * height;
    const size_t bytes = (size_t)s->channels * sizeof(float);
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < lines; line++) {
        const int64_t tile = line / height;
        const int32_t y = (int32_t)(line % height) + s->top;
        float *to = out + line * width * s->channels;
        for (int32_t x = 0; x < width; x++, to += s->channels) memcpy(to, row_of(s, row_at(s, tile, y, x + s->left)), bytes);
    }
}

enum { MOST_TAPS = 121 };

/* Rows of the samples that a window sees. */
static inline void gather_taps(const Window *v, int64_t tile, int32_t y, int32_t x, const float **taps) {
    const Source *s = &v->in;
    const int32_t top = y * v->stride + s->top, left = x * v->stride + s->left;
    const int inside = top >= 0 && left >= 0 && top + (v->rows - 1) * v->dilation < s->height && left + (v->columns - 1) * v->dilation < s->width;
    if (!s->index && inside) {
        const float *from = s->own + ((tile * s->height + top) * s->width + left) * s->channels;
        for (int32_t i = 0; i < v->rows; i++)
            for (int32_t j = 0; j < v->columns; j++) *taps++ = from + ((int64_t)i * s->width + j) * v->dilation * s->channels;
        return;
    }
    for (int32_t i = 0; i < v->rows; i++)
        for (int32_t j = 0; j < v->columns; j++)
            *taps++ = row_of(s, row_at(s, tile, top + i * v->dilation, left + j * v->dilation));
}

static void max_line(const Window *v, int64_t line) {
    const int32_t channels = v->in.channels, count = v->rows * v->columns;
    const float *taps[MOST_TAPS];
    float *to = v->out + line * v->out_width * channels;
    for (int32_t x = 0; x < v->out_width; x++, to += channels) {
        gather_taps(v, line / v->out_height, (int32_t)(line % v->out_height), x, taps);
        int32_t c = 0;
        for (; c + LANES <= channels; c += LANES) {
            vec best = load(taps[0] + c);
            for (int32_t t = 1; t < count; t++) {
                vec value = load(taps[t] + c);
                best = choose((value > best) | (value != value), value, best); /* NaN wins */
            }
            store(to + c, best);
        }
        for (; c < channels; c++) {
            to[c] = taps[0][c];
            for (int32_t t = 1; t < count; t++) to[c] = taps[t][c] > to[c] || isnan(taps[t][c]) ? taps[t][c] : to[c];
        }
    }
}

typedef const float *Taps[MOST_TAPS];

/* Every channel by its own window, of four pixels that share the load of a weight; `wide` of them are others. */
static inline void depthwise_four(const Window *v, Taps taps[4], float *const to[4], int32_t wide) {
    const int32_t channels = v->in.channels, count = v->rows * v->columns;
    int32_t c = 0;
    for (; c + LANES <= channels; c += LANES) {
        vec s0 = v->bias ? load(v->bias + c) : (vec){}, s1 = s0, s2 = s0, s3 = s0;
        for (int32_t t = 0; t < count; t++) {
            const vec w = load(v->weight + (int64_t)t * channels + c);
            s0 += w * load(taps[0][t] + c), s1 += w * load(taps[1][t] + c);
            s2 += w * load(taps[2][t] + c), s3 += w * load(taps[3][t] + c);
        }
        store(to[3] + c, clamp(s3, v->low, v->high)), store(to[2] + c, clamp(s2, v->low, v->high));
        store(to[1] + c, clamp(s1, v->low, v->high)), store(to[0] + c, clamp(s0, v->low, v->high));
    }
    for (; c < channels; c++)
        for (int32_t p = 0; p < wide; p++) {
            float sum = v->bias ? v->bias[c] : 0;
            for (int32_t t = 0; t < count; t++) sum += v->weight[(int64_t)t * channels + c] * taps[p][t][c];
            sum = sum < v->low ? v->low : sum;
            to[p][c] = sum > v->high ? v->high : sum;
        }
}

static void depthwise_line(const Window *v, int64_t line) {
    Taps taps[4];
    for (int32_t x = 0; x < v->out_width; x += 4) {
        float *to[4];
        const int32_t wide = v->out_width - x < 4 ? v->out_width - x : 4;
        for (int32_t p = 0; p < 4; p++) {
            const int32_t here = x + (p < wide ? p : 0);
            to[p] = v->out + (line * v->out_width + here) * v->in.channels;
            gather_taps(v, line / v->out_height, (int32_t)(line % v->out_height), here, taps[p]);
        }
        depthwise_four(v, taps, to, wide);
    }
}

/* The outputs of four tiles that have one each. */
static void depthwise_tiles(const Window *v, int64_t four) {
    Taps taps[4];
    float *to[4];
    const int64_t left = v->in.tiles - 4 * four;
    const int32_t wide = left < 4 ? (int32_t)left : 4;
    for (int32_t p = 0; p < 4; p++) {
        const int64_t tile = 4 * four + (p < wide ? p : 0);
        to[p] = v->out + tile * v->in.channels;
        gather_taps(v, tile, 0, 0, taps[p]);
    }
    depthwise_four(v, taps, to, wide);
}

static void enlarge_line(const Enlargement *e, int64_t line) {
    const Source *s = &e->in;
    const int32_t border = s->index ? s->top : 0, factor = e->factor, channels = s->channels;
    const int64_t tile = line / e->out_height;
    const float y = ((float)(line % e->out_height) + 0.5f) / (float)factor - 0.5f;
    const int32_t top = (int32_t)floorf(y);
    const float below = y - (float)top;
    float *to = e->out + line * e->out_width * channels;
    for (int32_t i = 0; i < e->out_width; i++, to += channels) {
        const float x = ((float)i + 0.5f) / (float)factor - 0.5f;
        const int32_t left = (int32_t)floorf(x);
        const float right = x - (float)left;
        int32_t ys[2] = {top + border, top + 1 + border}, xs[2] = {left + border, left + 1 + border};
        if (!border)
            for (int k = 0; k < 2; k++) {
                ys[k] = ys[k] < 0 ? 0 : ys[k] >= s->height ? s->height - 1 : ys[k];
                xs[k] = xs[k] < 0 ? 0 : xs[k] >= s->width ? s->width - 1 : xs[k];
            }
        const float *p0 = row_of(s, row_at(s, tile, ys[0], xs[0])), *p1 = row_of(s, row_at(s, tile, ys[0], xs[1]));
        const float *p2 = row_of(s, row_at(s, tile, ys[1], xs[0])), *p3 = row_of(s, row_at(s, tile, ys[1], xs[1]));
        const float w0 = (1 - below) * (1 - right), w1 = (1 - below) * right, w2 = below * (1 - right), w3 = below * right;
        int32_t c = 0;
        for (; c + LANES <= channels; c += LANES)
            store(to + c, w0 * load(p0 + c) + w1 * load(p1 + c) + w2 * load(p2 + c) + w3 * load(p3 + c));
        for (; c < channels; c++) to[c] = w0 * p0[c] + w1 * p1[c] + w2 * p2[c] + w3 * p3[c];
    }
}

#define BY_LINES(v, count, one)                                                  \
    const int64_t total = (count), size = lines_per_task(total, &team);          \
    for (int64_t first; (first = take(&team) * size) < total;)                   \
        for (int64_t line = first; line < first + size && line < total; line++) one(v, line);

void max_pool_step(const Window *v, Team team) { BY_LINES(v, v->in.tiles * v->out_height, max_line) }
void depthwise_step(const Window *v, Team team) {
    if (v->out_height == 1 && v->out_width == 1) {
        BY_LINES(v, (v->in.tiles + 3) / 4, depthwise_tiles)
        return;
    }
    BY_LINES(v, v->in.tiles * v->out_height, depthwise_line)
}
void enlarge_step(const Enlargement *e, Team team) { BY_LINES(e, e->in.tiles * e->out_height, enlarge_line) }

EXPORT void foveal_max_pool(const Window *v) { IN_REGION(max_pool_step(v, team)); }
EXPORT void foveal_depthwise(const Window *v) { IN_REGION(depthwise_step(v, team)); }

/* Tiles enlarged whole: out [tiles][factor side][factor side][channels]. */
EXPORT void foveal_enlarge(const Source *s, int32_t factor, float *out) {
    const int32_t border = s->index ? 1 : 0;
    Enlargement e = {*s, factor, (s->height - 2 * border) * factor, (s->width - 2 * border) * factor, out};
    e.in.top = border;
    IN_REGION(enlarge_step(&e, team));
}
