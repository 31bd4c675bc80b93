/* Whether tables are a program: what the steps read and write lies where they look for it. Everything that
   native code takes for granted about tables is asked here once, so that no file makes it read beyond them. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "program/program.h"
#include "steps/values.h"

enum {
    MOST_MAPS = 1 << 14, MOST_STEPS = 1 << 14, MOST_CLASSES = 255, MOST_CHANNELS = 1 << 14,
    MOST_STRIDE = 1 << 10, MOST_MULTIPLE = 1 << 12, MOST_GRID = 64, MOST_FACTOR = 64,
    MOST_DOWN = 64, MOST_UP = 4,      /* of a whole map's sides: shares of the image's, and how many times them */
    MOST_WINDOW = 64,                 /* rows or columns of a convolution */
    MOST_TAPS = 121,                  /* samples in a window of other steps */
    MOST_REACH = 128,                 /* samples from a window's first one to its last */
    MOST_PRODUCTS = 1 << 16,          /* of bytes that a sum of 32 bits holds */
};

typedef struct {
    const ProgramHead *head;
    const MapSpec *maps;
    const StepSpec *steps;
    const float *numbers;
    int64_t count; /* of numbers */
    uint8_t *known; /* maps that hold something when a step runs */
    char *error;
    size_t size;
} Tables;

static int __attribute__((format(printf, 2, 3))) refuse(const Tables *t, const char *format, ...) {
    va_list values;
    va_start(values, format);
    if (t->error && t->size) vsnprintf(t->error, t->size, format, values);
    va_end(values);
    return -1;
}

static int between(int64_t value, int64_t least, int64_t most) { return least <= value && value <= most; }

static int check_head(const Tables *t) {
    const ProgramHead *h = t->head;
    if (!between(h->version, OLDEST_VERSION, PROGRAM_VERSION)) return refuse(t, "its tables are of version %d, this library reads version %d", h->version, PROGRAM_VERSION);
    if (!between(h->maps, 1, MOST_MAPS) || !between(h->steps, 1, MOST_STEPS)) return refuse(t, "it has %d maps and %d steps", h->maps, h->steps);
    if (!between(h->input, 0, h->maps - 1) || !between(h->output, 0, h->maps - 1)) return refuse(t, "its image or its logits are no map");
    if (!between(h->classes, 1, MOST_CLASSES)) return refuse(t, "it has %d classes, a label is a byte", h->classes);
    if (!between(h->coarsest_stride, 1, MOST_STRIDE)) return refuse(t, "its coarsest stride is %d", h->coarsest_stride);
    if (!between(h->multiple, 0, MOST_MULTIPLE)) return refuse(t, "sides of its images are multiples of %d", h->multiple);
    return 0;
}

/* Whether the sides of a whole map are those of the image, or a share of them. */
static int sides_fit(const MapSpec *m) {
    if (!m->down) return !m->up && !m->more && !m->least;
    return m->kind == WHOLE && between(m->down, 1, MOST_DOWN) && between(m->up, 0, MOST_UP * m->down) && between(m->more, 0, m->down - 1) &&
           between(m->least, 1, MOST_GRID);
}

static int check_maps(const Tables *t) {
    const ProgramHead *h = t->head;
    for (int32_t k = 0; k < h->maps; k++) {
        const MapSpec *m = &t->maps[k];
        const int sizes = between(m->channels, 1, MOST_CHANNELS) && between(m->stride, 1, MOST_STRIDE) && h->coarsest_stride % m->stride == 0;
        const int kinds = between(m->kind, TILED, BINS) && between(m->precision, F32, U8) && (m->kind != BINS || m->precision == F32);
        const int fixed = m->columns == 0 || (m->kind == BINS && between(m->columns, 1, MOST_GRID));
        const int scales = isfinite(m->scale) && m->scale > 0 && between(m->zero, 0, 255);
        if (!sizes || !kinds || !scales || !fixed || !sides_fit(m) || (m->kind == BINS && !between(m->grid, 1, MOST_GRID)))
            return refuse(t, "map %d cannot be", k);
    }
    const MapSpec *in = &t->maps[h->input], *out = &t->maps[h->output];
    const int32_t colours = h->colours ? h->colours : RGB;
    const int fits = between(colours, 1, MOST_COLOURS) && between(in->channels, colours, in->precision == F32 ? colours : colours + 3);
    if (in->kind != TILED || in->stride != 1 || !fits) return refuse(t, "map %d holds no image", h->input);
    if (out->kind != TILED || out->precision != F32 || out->channels != h->classes) return refuse(t, "map %d holds no logits", h->output);
    return 0;
}

/* Whether samples of two maps lie at the same places. */
static int same_places(const MapSpec *a, const MapSpec *b) {
    const int sides = a->up == b->up && a->down == b->down && a->more == b->more && a->least == b->least;
    return a->kind == b->kind && a->stride == b->stride && sides && (a->kind != BINS || (a->grid == b->grid && a->columns == b->columns));
}

static int same_shape(const MapSpec *a, const MapSpec *b) { return same_places(a, b) && a->channels == b->channels; }

/* Whether numbers are there from an offset on; -1 for none where they may be absent. */
static int numbers_at(const Tables *t, int64_t at, int64_t count, int needed) {
    return at < 0 ? at == -1 && !needed : at <= t->count && count <= t->count - at;
}

static int numbers_are_there(const Tables *t, const StepSpec *s) {
    const int64_t in = t->maps[s->in].channels, out = t->maps[s->out].channels;
    const int multiplies = s->kind == CONVOLVE || s->kind == DEPTHWISE;
    const int64_t weights = !multiplies ? 0 : s->rows * (int64_t)s->columns * out * (s->kind == CONVOLVE ? in : 1);
    return numbers_at(t, s->weight, weights, multiplies) && numbers_at(t, s->bias, out, 0) && numbers_at(t, s->residual_scale, out, 0) &&
           numbers_at(t, s->outside, in, 0) && numbers_at(t, s->before_scale, in, 0) && numbers_at(t, s->before_shift, in, 0) &&
           (s->before_scale < 0) == (s->before_shift < 0);
}

/* Whether a window looks no further than its border, and its results are as far apart as the map says. */
static int window_fits(const Tables *t, const StepSpec *s, int32_t most) {
    const MapSpec *in = &t->maps[s->in], *out = &t->maps[s->out];
    if (!between(s->rows, 1, most) || !between(s->columns, 1, most) || !between(s->stride, 1, most) || !between(s->dilation, 1, MOST_REACH)) return 0;
    const int32_t down = s->dilation * (s->rows - 1), across = s->dilation * (s->columns - 1);
    if (down > MOST_REACH || across > MOST_REACH || !between(s->top, 0, down) || !between(s->left, 0, across)) return 0;
    if (in->kind == TILED) return out->kind == TILED && out->stride == (int64_t)in->stride * s->stride;
    const int looks = s->rows > 1 || s->columns > 1 || s->stride > 1 || s->top || s->left;
    return looks ? in->kind == WHOLE && out->kind == WHOLE && in->stride == out->stride : same_places(in, out);
}

static int is_plain_square(const StepSpec *s) {
    return s->rows == 3 && s->columns == 3 && s->stride == 1 && s->dilation == 1 && s->top == 1 && s->left == 1 && s->before_scale < 0;
}

static int convolution_fits(const Tables *t, const StepSpec *s) {
    const MapSpec *in = &t->maps[s->in], *out = &t->maps[s->out], *more = s->other < 0 ? NULL : &t->maps[s->other];
    if (!window_fits(t, s, MOST_WINDOW) || (more && !same_shape(more, out)) || !between(s->factor, 1, in->channels)) return 0;
    for (int a = 0; a < ALGORITHMS; a++)
        if (!isfinite(s->rate[a]) || (a != DIRECT && s->rate[a] > 0 && !(in->kind == TILED && is_plain_square(s)))) return 0;
    if (in->precision == F32) return out->precision == F32 && (!more || more->precision == F32);
    const int64_t products = (int64_t)s->rows * s->columns * in->channels;
    return in->channels % (in->precision == U8 ? 4 : 2) == 0 && (in->precision != U8 || products <= MOST_PRODUCTS);
}

static int window_step_fits(const Tables *t, const StepSpec *s) {
    const MapSpec *in = &t->maps[s->in], *out = &t->maps[s->out];
    if (in->kind == BINS || in->channels != out->channels || !window_fits(t, s, MOST_TAPS) || s->rows * s->columns > MOST_TAPS) return 0;
    if (s->kind == MAX_POOL) return s->other < 0 && in->precision == out->precision;
    return convolution_fits(t, s) && (s->other < 0 || in->precision != F32);
}

/* Whether a step without a window says so. */
static int has_no_window(const StepSpec *s) {
    return s->rows == 1 && s->columns == 1 && s->stride == 1 && s->dilation == 1 && s->top == 0 && s->left == 0;
}

/* Whether a second map is of the same shape or has one channel, or is a vector for every image of tiles. */
static int combined_fit(const MapSpec *in, const MapSpec *more) {
    if (same_places(in, more)) return more->channels == in->channels || more->channels == 1;
    return (in->kind != BINS && is_vector(more) && in->channels == more->channels);
}

/* Whether the maps of a step are those that its kind works on. */
static int step_fits(const Tables *t, const StepSpec *s) {
    const MapSpec *in = &t->maps[s->in], *out = &t->maps[s->out];
    const int alone = s->other < 0, along = in->stride == out->stride, plain = in->precision == F32 && out->precision == F32;
    const int within_out = s->at >= 0 && in->channels <= out->channels && s->at <= out->channels - in->channels;
    if (s->kind == CONVOLVE) return convolution_fits(t, s);
    if (s->kind == DEPTHWISE || s->kind == MAX_POOL) return window_step_fits(t, s);
    if (!has_no_window(s)) return 0;
    switch (s->kind) {
        case ENLARGE:
            return alone && in->kind == TILED && out->kind == TILED && in->channels == out->channels && between(s->factor, 1, MOST_FACTOR) &&
                   (int64_t)out->stride * s->factor == in->stride;
        case REPEAT:
        case SPREAD:
            return alone && in->kind == TILED && out->kind == TILED && in->precision == out->precision && between(s->factor, 1, MOST_FACTOR) &&
                   (int64_t)out->stride * s->factor == in->stride &&
                   in->channels == (int64_t)out->channels * (s->kind == SPREAD ? s->factor * s->factor : 1);
        case ADD: return !alone && s->at == 0 && same_shape(in, out) && same_shape(&t->maps[s->other], out);
        case AFFINE: return alone && s->at == 0 && same_shape(in, out);
        case CONCAT: return alone && within_out && same_places(in, out);
        case COMPOSE: return alone && in->kind == TILED && out->kind == WHOLE && !out->down && out->precision == F32 && along && in->channels == out->channels;
        case CUT: return alone && in->kind == WHOLE && !in->down && in->precision == F32 && out->kind == TILED && along && in->channels == out->channels;
        case GRID_POOL: return alone && plain && in->kind == WHOLE && out->kind != TILED && along && in->channels == out->channels;
        case GRID_SPREAD:
            if (!alone || in->kind != BINS || !within_out || !between(s->function, 0, RESAMPLINGS - 1)) return 0;
            return out->kind == TILED ? is_vector(in) : plain && out->kind == WHOLE && along;
        case APPLY: return alone && s->at == 0 && same_shape(in, out) && between(s->function, 1, FUNCTIONS - 1) && isfinite(s->before_low) &&
                           (s->function != PRELU || s->residual_scale >= 0);
        case MULTIPLY:
        case OFFSET: return !alone && s->at == 0 && same_shape(in, out) && combined_fit(in, &t->maps[s->other]);
        case LAYER_NORM: return alone && s->at == 0 && same_shape(in, out) && isfinite(s->before_low) && s->before_low >= 0;
        case GROUP_NORM:
            return alone && s->at == 0 && in->kind == TILED && same_shape(in, out) && isfinite(s->before_low) && s->before_low >= 0 &&
                   between(s->factor, 1, in->channels) && in->channels % s->factor == 0;
        case MEAN: return alone && in->kind == TILED && is_vector(out) && in->channels == out->channels;
        case RESAMPLE:
            if (in->kind == WHOLE)
                return alone && out->kind == WHOLE && along && in->channels == out->channels && !s->factor && between(s->function, 0, BY_FACTOR - 1);
            if (!alone || in->kind != TILED || out->kind != TILED || in->channels != out->channels || !between(s->function, 0, RESAMPLINGS - 1)) return 0;
            if (!s->factor) return !(s->function & BY_FACTOR) && out->stride % in->stride == 0 && out->stride / in->stride <= MOST_FACTOR;
            return between(s->factor, 1, MOST_FACTOR) && (int64_t)out->stride * s->factor == in->stride;
        case SLICE:
            return alone && same_places(in, out) && in->precision == out->precision && s->at >= 0 && out->channels <= in->channels &&
                   s->at <= in->channels - out->channels;
        default: return 0;
    }
}

static int check_step(const Tables *t, int32_t k) {
    const ProgramHead *h = t->head;
    const StepSpec *s = &t->steps[k];
    if (!between(s->in, 0, h->maps - 1) || !between(s->out, 0, h->maps - 1) || !between(s->other, -1, h->maps - 1))
        return refuse(t, "step %d points at a map that is not there", k);
    if (s->out == s->in || s->out == s->other || s->out == h->input || !t->known[s->in] || (s->other >= 0 && !t->known[s->other]))
        return refuse(t, "step %d reads a map before it is written, or writes what it reads", k);
    if (isnan(s->before_low) || isnan(s->before_high) || isnan(s->low) || isnan(s->high)) return refuse(t, "step %d has a bound that holds NaN", k);
    if (!step_fits(t, s)) return refuse(t, "step %d does not fit its maps", k);
    if (!numbers_are_there(t, s)) return refuse(t, "step %d points beyond the numbers", k);
    t->known[s->out] = 1;
    return 0;
}

/* Weights that are no numbers make every answer wrong, and none looks so. In a file they may lie at any address. */
static int check_numbers(const Tables *t) {
    for (int64_t k = 0; k < t->count; k++)
        if (unreal(t->numbers + k, 1)) return refuse(t, "number %lld holds NaN or infinity", (long long)k);
    return 0;
}

int program_check(const ProgramHead *head, const MapSpec *maps, const StepSpec *steps, const float *numbers, int64_t count, char *error, size_t size) {
    Tables t = {head, maps, steps, numbers, count, NULL, error, size};
    if (check_head(&t) || check_maps(&t)) return -1;
    t.known = calloc((size_t)head->maps, 1);
    if (!t.known) return refuse(&t, "there is no memory");
    t.known[head->input] = 1;
    int status = 0;
    for (int32_t k = 0; k < head->steps && !status; k++) status = check_step(&t, k);
    for (int32_t k = 0; k < head->maps && !status; k++)
        if (!t.known[k]) status = refuse(&t, "map %d is never written", k);
    free(t.known);
    return status || check_numbers(&t) ? -1 : 0;
}
