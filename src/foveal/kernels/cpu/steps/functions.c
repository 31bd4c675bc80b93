/* Functions of single numbers, sample by sample, on maps in any precision. */
#include "platform/exponential.h"
#include "program/program.h"
#include "steps/values.h"

static vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* Error of at most 1.5e-7. Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26. */
static vec error_function(vec x) {
    const vec size = choose(x < broadcast(0), -x, x), t = 1.0f / (1.0f + 0.3275911f * size);
    vec p = broadcast(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const vec found = 1.0f - p * t * exponential(-size * size);
    return choose(x < broadcast(0), -found, found);
}

static vec hyperbolic_tangent(vec x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

static vec value_of(int32_t function, float parameter, vec x) {
    switch (function) {
        case SIGMOID: return sigmoid(x);
        case SILU: return x * sigmoid(x);
        case HARD_SIGMOID: return clamp(x + 3.0f, 0, 6) / 6.0f;
        case HARD_SWISH: return x * clamp(x + 3.0f, 0, 6) / 6.0f;
        case GELU: return 0.5f * x * (1.0f + error_function(x * 0.70710678118654752f));
        case GELU_TANH: return 0.5f * x * (1.0f + hyperbolic_tangent(0.79788456080286536f * (x + 0.044715f * x * x * x)));
        case TANH: return hyperbolic_tangent(x);
        case LEAKY: return choose(x < broadcast(0), parameter * x, x);
        default: return x;
    }
}

/* Apply a function to `count` numbers in place. */
static void apply(int32_t function, float parameter, float *x, int64_t count) {
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES) store(x + k, value_of(function, parameter, load(x + k)));
    if (k == count) return;
    float rest[LANES] = {0};
    memcpy(rest, x + k, (size_t)(count - k) * sizeof(float));
    store(rest, value_of(function, parameter, load(rest)));
    memcpy(x + k, rest, (size_t)(count - k) * sizeof(float));
}

/* What a step does to the channels of one sample: numbers per channel, which may be absent. */
typedef struct {
    const StepSpec *step;
    const float *scale, *shift, *slope;
} Numbers;

typedef void (*Change)(const Numbers *n, float *x, int32_t channels);

/* Read, change and write sample by sample. */
static void each_sample(Run *r, const StepSpec *s, Change change, Team team) {
    const Program *p = r->program;
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out];
    const Shape shape = shape_of(r, s->in);
    const int64_t rows = shape.tiles * shape.height * shape.width, size = lines_per_task(rows, &team);
    const Numbers n = {s, number(p, s->before_scale), number(p, s->before_shift), number(p, s->residual_scale)};
    const void *from = current(r, s->in);
    void *to = current(r, s->out);
    for (int64_t first; (first = take(&team) * size) < rows;)
        for (int64_t row = first; row < first + size && row < rows; row++) {
            float *values = out->precision == F32 ? (float *)to + row * out->channels : r->scratch[team.thread];
            load_row(in, from, row, values);
            change(&n, values, in->channels);
            if (out->precision != F32) store_row(r, out, to, row, values);
        }
}

/* function(scale * x + shift) */
static void apply_to(const Numbers *n, float *restrict x, int32_t channels) {
    const float *restrict scale = n->scale, *restrict shift = n->shift, *restrict slope = n->slope;
    for (int32_t c = 0; scale && c < channels; c++) x[c] = scale[c] * x[c] + shift[c];
    if (n->step->function != PRELU) apply(n->step->function, n->step->before_low, x, channels);
    else for (int32_t c = 0; c < channels; c++) x[c] = x[c] < 0 ? slope[c] * x[c] : x[c];
}

void apply_step(Run *r, const StepSpec *s, Team team) { each_sample(r, s, apply_to, team); }

/* x times or plus y, number by number; the result may lie where x does. */
static void combine(int32_t kind, const float *x, const float *y, float *to, int64_t count) {
    int64_t k = 0;
    if (kind == MULTIPLY)
        for (; k + LANES <= count; k += LANES) store(to + k, load(x + k) * load(y + k));
    else
        for (; k + LANES <= count; k += LANES) store(to + k, load(x + k) + load(y + k));
    for (; k < count; k++) to[k] = kind == MULTIPLY ? x[k] * y[k] : x[k] + y[k];
}

/* Read the numbers that go with a sample: one per channel, or one for all of them. */
static void load_factors(const MapSpec *more, const void *others, int64_t row, float *factors, int32_t channels) {
    load_row(more, others, row, factors);
    for (int32_t c = more->channels; c < channels; c++) factors[c] = factors[0];
}

/* A map times or plus another one, one of a single channel, or a vector of every image. */
void combine_step(Run *r, const StepSpec *s, Team team) {
    const Program *p = r->program;
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out], *more = &p->maps[s->other];
    const Shape shape = shape_of(r, s->in);
    const int by_image = is_vector(more) && !is_vector(in), direct = in->precision == F32 && out->precision == F32;
    const int64_t area = (int64_t)shape.height * shape.width, rows = shape.tiles * area, size = lines_per_task(rows, &team);
    const int32_t channels = in->channels;
    const void *from = current(r, s->in), *others = current(r, s->other);
    void *to = current(r, s->out);
    float *values = r->scratch[team.thread], *factors = values + channels;
    const int flat = direct && !by_image && more->precision == F32 && more->channels == channels;
    for (int64_t first; (first = take(&team) * size) < rows;) {
        const int64_t last = first + size < rows ? first + size : rows;
        if (flat) {
            const int64_t at = first * channels;
            combine(s->kind, (const float *)from + at, (const float *)others + at, (float *)to + at, (last - first) * channels);
            continue;
        }
        for (int64_t row = first; row < last; row++) {
            if (!by_image) load_factors(more, others, row, factors, channels);
            else if (row == first || row % area == 0) load_factors(more, others, image_in(r, in, row / area), factors, channels);
            if (direct) {
                combine(s->kind, (const float *)from + row * channels, factors, (float *)to + row * channels, channels);
                continue;
            }
            load_row(in, from, row, values);
            combine(s->kind, values, factors, values, channels);
            store_row(r, out, to, row, values);
        }
    }
}

/* A sample less the mean of its channels, over their deviation. */
static void normalise(const Numbers *n, float *x, int32_t channels) {
    double sum = 0, squares = 0;
    for (int32_t c = 0; c < channels; c++) sum += x[c];
    const double mean = sum / channels;
    for (int32_t c = 0; c < channels; c++) squares += (x[c] - mean) * (x[c] - mean);
    const double unit = 1 / sqrt(squares / channels + n->step->before_low);
    for (int32_t c = 0; c < channels; c++) {
        x[c] = (float)((x[c] - mean) * unit);
        if (n->scale) x[c] = n->scale[c] * x[c] + n->shift[c];
    }
}

void layer_norm_step(Run *r, const StepSpec *s, Team team) { each_sample(r, s, normalise, team); }
