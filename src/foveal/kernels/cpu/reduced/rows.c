/* Rows of maps in reduced precision: conversions, sums, averages. */
#include "platform/export.h"
#include "platform/region.h"
#include "reduced/samples.h"

enum { PIECE = 64, SHORT = 16 }; /* channels that are worked on together */

static inline int32_t piece(int32_t c, int32_t channels) { return channels - c < PIECE ? channels - c : PIECE; }

/* One piece of a row; `count` is a constant, so that loops have a known length. */
static inline __attribute__((always_inline)) void change_piece(const ReducedChange *v, int64_t row, int32_t c, int32_t count) {
    float x[PIECE] = {0}, more[PIECE];
    const int32_t there = v->in_channels - c < count ? v->in_channels - c : count;
    const int64_t at = row * v->channels + c;
    if (there == count) read_values(x, v->in, v->in_type, row * v->in_channels + c, count);
    else if (there > 0) read_values(x, v->in, v->in_type, row * v->in_channels + c, there);
    if (v->scale) for (int32_t i = 0; i < count; i++) x[i] = __builtin_fmaf(x[i], v->scale[c + i], v->shift[c + i]);
    if (v->more) {
        read_values(more, v->more, v->more_type, at, count);
        for (int32_t i = 0; i < count; i++)
            x[i] = v->more_scale ? __builtin_fmaf(more[i], v->more_scale[c + i], x[i]) : more[i] + x[i];
    }
    for (int32_t i = 0; i < count; i++) x[i] = within_limits(x[i], v->low, v->high);
    if (v->out_type == U8 && (v->in_type != U8 || (v->more && v->more_type != U8))) notice_unreal(x, count, v->unreal);
    write_values(v->out, v->out_type, row * v->pitch + v->at + c, x, count);
}

/* The channels behind the last whole piece: copied to and from a short one that zeros fill up, so that loops have a known
   length here too. */
typedef struct {
    float in[SHORT], scale[SHORT], shift[SHORT], more[SHORT], more_scale[SHORT], out[SHORT];
    ReducedChange change;
    int32_t first, count; /* channels */
} Rest;

static void take_table(float *own, const float **table, int32_t first, int32_t count) {
    if (!*table) return;
    memcpy(own, *table + first, (size_t)count * sizeof(float));
    *table = own;
}

/* The last channels as a change of their own, of as many channels as a short piece has. */
static void make_rest(const ReducedChange *v, int32_t first, Rest *rest) {
    memset(rest, 0, sizeof *rest);
    rest->change = *v, rest->first = first, rest->count = v->channels - first;
    take_table(rest->scale, &rest->change.scale, first, rest->count);
    take_table(rest->shift, &rest->change.shift, first, rest->count);
    take_table(rest->more_scale, &rest->change.more_scale, first, rest->count);
    rest->change.in = rest->in, rest->change.out = rest->out, rest->change.at = 0;
    if (v->more) rest->change.more = rest->more;
    rest->change.in_channels = rest->change.channels = rest->change.pitch = SHORT;
}

static void change_rest(const ReducedChange *v, int64_t row, Rest *rest) {
    const int32_t left = v->in_channels - rest->first, there = left < 0 ? 0 : left < rest->count ? left : rest->count;
    const int64_t in = type_bytes(v->in_type), more = type_bytes(v->more_type), out = type_bytes(v->out_type);
    memcpy(rest->in, (const char *)v->in + (row * v->in_channels + rest->first) * in, (size_t)(there * in));
    if (v->more) memcpy(rest->more, (const char *)v->more + (row * v->channels + rest->first) * more, (size_t)(rest->count * more));
    change_piece(&rest->change, 0, 0, SHORT);
    memcpy((char *)v->out + (row * v->pitch + v->at + rest->first) * out, rest->out, (size_t)(rest->count * out));
}

/* Where all rows have the same tables of few channels, nothing is gained by pieces of many rows: rows are short
   in images only. */
void reduced_change_step(const ReducedChange *v, Team team) {
    const int64_t size = lines_per_task(v->rows, &team);
    Rest rest;
    make_rest(v, v->channels / SHORT * SHORT, &rest);
    for (int64_t first; (first = take(&team) * size) < v->rows;)
        for (int64_t row = first; row < first + size && row < v->rows; row++) {
            int32_t c = 0;
            for (; c + PIECE <= v->channels; c += PIECE) change_piece(v, row, c, PIECE);
            for (; c + SHORT <= v->channels; c += SHORT) change_piece(v, row, c, SHORT);
            if (c < v->channels) change_rest(v, row, &rest);
        }
}

EXPORT void foveal_reduced_change(const ReducedChange *v) { IN_REGION(reduced_change_step(v, team)); }

static void mean(const ReducedMeans *v, int64_t m, int64_t bytes) {
    const Samples *s = &v->in;
    for (int32_t c = 0; c < s->channels; c += PIECE) {
        const int32_t count = piece(c, s->channels);
        float sum[PIECE], x[PIECE], rest = 1;
        for (int32_t p = v->start[m]; p < v->start[m + 1]; p++) rest -= v->share[p];
        read_values(sum, v->unknown, s->type, c, count);
        for (int32_t i = 0; i < count; i++) sum[i] *= rest;
        for (int32_t p = v->start[m]; p < v->start[m + 1]; p++) {
            read_values(x, row_address(s, v->source[p], bytes), s->type, c, count);
            for (int32_t i = 0; i < count; i++) sum[i] = __builtin_fmaf(x[i], v->share[p], sum[i]);
        }
        write_values(v->out, s->type, m * s->channels + c, sum, count);
    }
}

void reduced_means_step(const ReducedMeans *v, Team team) {
    const int64_t size = lines_per_task(v->means, &team), bytes = row_bytes(&v->in);
    for (int64_t first; (first = take(&team) * size) < v->means;)
        for (int64_t m = first; m < first + size && m < v->means; m++) mean(v, m, bytes);
}

EXPORT void foveal_reduced_means(const ReducedMeans *v) { IN_REGION(reduced_means_step(v, team)); }

/* The mean of up to four samples; where one is missing, its neighbour counts twice. */
static void halve_line(const ReducedHalving *v, int64_t tile, int32_t y) {
    const Samples *s = &v->in;
    const int32_t width = (s->width + 1) / 2, height = (s->height + 1) / 2;
    const int64_t line = (int64_t)s->width * s->channels;
    const int64_t upper = (tile * s->height + 2 * y) * line, lower = upper + (2 * y + 1 < s->height ? line : 0);
    for (int32_t x = 0; x < width; x++) {
        const int64_t left = (int64_t)2 * x * s->channels, right = left + (2 * x + 1 < s->width ? s->channels : 0);
        const int64_t places[4] = {upper + left, upper + right, lower + left, lower + right};
        for (int32_t c = 0; c < s->channels; c += PIECE) {
            const int32_t count = piece(c, s->channels);
            float sum[PIECE] = {0}, value[PIECE];
            for (int k = 0; k < 4; k++) {
                read_values(value, s->own, s->type, places[k] + c, count);
                for (int32_t i = 0; i < count; i++) sum[i] += value[i];
            }
            for (int32_t i = 0; i < count; i++) sum[i] *= 0.25f;
            write_values(v->out, s->type, ((tile * height + y) * width + x) * s->channels + c, sum, count);
        }
    }
}

void reduced_halve_step(const ReducedHalving *v, Team team) {
    const int32_t height = (v->in.height + 1) / 2;
    const int64_t lines = v->in.tiles * height, size = lines_per_task(lines, &team);
    for (int64_t first; (first = take(&team) * size) < lines;)
        for (int64_t line = first; line < first + size && line < lines; line++)
            halve_line(v, line / height, (int32_t)(line % height));
}

EXPORT void foveal_reduced_halve(const ReducedHalving *v) { IN_REGION(reduced_halve_step(v, team)); }
