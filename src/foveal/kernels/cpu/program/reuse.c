/* What is computed of the next frame of a video, and what keeps its answer: the decision of
   foveal/methods/video_coarse_to_fine.py in C, with the same numbers in the same order, so that plans are equal. */
#pragma GCC optimize("fp-contract=off")
#include "program/program.h"

enum { SKIPPED = -1 };
enum { PATCH = 4 };               /* side of the squares that differences are averaged over [px] */
enum { DOWN = 12, ACROSS = 16 };  /* samples of the thumbnail that tells scenes apart */
enum { ROUNDS = 40 };             /* halvings of the interval of prices */
static const double ALIKE = 0.5, APART = 0.06, FLAT = 1e-3, LEAST = 1e-9, TIES = 1e-3, GOLDEN = 0.618034;

/* What is found of a frame, in one room. */
typedef struct {
    double *thumb;     /* sums of every line of a frame and of the picture, in ACROSS parts [images][height][2][ACROSS] */
    double *gain;      /* [levels][cells] */
    double *worth;     /* [2][cells] */
    float *patch;      /* largest mean difference of a channel [images][height / PATCH][width / PATCH] */
    float *errors;     /* of the cells of an image if they are kept, then if they are computed at every level */
    uint8_t *differs;  /* whether a line differs within a column of cells [images][height][columns] */
    uint8_t *taken;    /* [levels][cells] */
    int8_t *trial;     /* levels [cells] */
} Findings;

static int32_t patches(int32_t pixels) { return (pixels - 1) / PATCH + 1; }
static int64_t area_of(const Run *r) { return (int64_t)r->grid.rows * r->grid.columns; }

static Findings findings(const Run *r, char *at, size_t *bytes) {
    const Request *q = r->request;
    const size_t images = (size_t)q->images, area = (size_t)area_of(r), lines = images * (size_t)q->height;
    const size_t sizes[] = {lines * 2 * ACROSS * 8, MOST_LEVELS * area * 8, 2 * area * 8,
                            images * (size_t)patches(q->height) * (size_t)patches(q->width) * 4, (MOST_LEVELS + 1) * area * 4,
                            lines * (size_t)r->grid.columns, MOST_LEVELS * area, area};
    void *places[8];
    *bytes = 0;
    for (int k = 0; k < 8; k++) places[k] = at ? at + *bytes : NULL, *bytes += (sizes[k] + 63) / 64 * 64;
    return (Findings){places[0], places[1], places[2], places[3], places[4], places[5], places[6], places[7]};
}

/* Bytes that every thread needs: a line, its difference, and two lines of patches. */
size_t reuse_bytes(const Run *r) { return (size_t)(2 * (r->request->width + PATCH) + 2 * patches(r->request->width)) * sizeof(float); }

/* Sums of a line over parts that overlap where they must, as adaptive pooling has them; added to. */
static void add_line(const float *line, int32_t width, double *sums) {
    for (int64_t j = 0; j < ACROSS; j++) {
        const int64_t left = j * width / ACROSS, right = ((j + 1) * width + ACROSS - 1) / ACROSS;
        vec part = {};
        double sum = 0;
        int64_t x = left;
        for (; x + LANES <= right; x += LANES) part += load(line + x);
        for (; x < right; x++) sum += (double)line[x];
        for (int l = 0; l < LANES; l++) sum += (double)((float *)&part)[l];
        sums[j] += sum;
    }
}

/* Mark the cells of a line in which two lines differ. */
static void mark_cells(const float *a, const float *b, int32_t width, int32_t tile, uint8_t *differs) {
    for (int32_t x = 0, cell = 0; x < width; x += tile, cell++) {
        const int32_t end = width - x < tile ? width : x + tile;
        int any = 0;
        for (int32_t k = x; k < end; k++) any |= a[k] != b[k];
        differs[cell] |= (uint8_t)any;
    }
}

/* Four lines of a frame beside those of the picture. */
static void compare_strip(Run *r, const Findings *f, int64_t image, int32_t strip, Team team) {
    const int32_t width = r->request->width, height = r->request->height, wide = patches(width), colours = r->program->head.colours;
    float *beside = r->scratch[team.thread], *difference = beside + width + PATCH, *sums = difference + width + PATCH;
    float *most = f->patch + (image * patches(height) + strip) * wide;
    memset(most, 0, (size_t)wide * sizeof(float));
    for (int64_t c = 0; c < colours; c++) {
        int any = 0;
        memset(sums, 0, (size_t)wide * sizeof(float));
        for (int32_t k = 0; k < PATCH; k++) {
            const int32_t y = within(strip * PATCH + k, height - 1); /* the last line is repeated */
            const int64_t line = image * height + y;
            const float *now = image_line(r, image, c, y, beside), *then = r->stream->picture + ((image * colours + c) * height + y) * width;
            double *thumb = f->thumb + line * 2 * ACROSS;
            const int fresh = y == strip * PATCH + k, same = !memcmp(now, then, (size_t)width * sizeof(float));
            if (fresh) add_line(then, width, thumb + ACROSS);
            if (fresh && same) add_line(then, width, thumb);
            if (same) continue;
            any = 1;
            if (fresh) {
                if (unreal(now, width)) __atomic_store_n(&r->unreal, IMAGES, __ATOMIC_RELAXED);
                add_line(now, width, thumb), mark_cells(now, then, width, r->grid.tile, f->differs + line * r->grid.columns);
            }
            for (int32_t x = 0; x < width; x++) difference[x] = now[x] - then[x];
            for (int32_t x = width; x < wide * PATCH; x++) difference[x] = difference[width - 1];
            for (int32_t i = 0; i < PATCH; i++)
                for (int32_t x = 0; x < wide; x++) sums[x] += difference[PATCH * x + i];
        }
        for (int32_t x = 0; any && x < wide; x++) {
            const float mean = fabsf(sums[x] / (PATCH * PATCH));
            most[x] = mean > most[x] ? mean : most[x];
        }
    }
}

/* Largest change within a cell. A patch belongs to the cell of its first pixel; cells below its size share it. */
static float change_of(const Run *r, const Findings *f, int64_t image, int32_t row, int32_t column) {
    const Request *q = r->request;
    const int32_t tile = q->tile, high = patches(q->height), wide = patches(q->width), cell[2] = {row, column}, count[2] = {high, wide}, size[2] = {q->height, q->width};
    int32_t first[2], last[2];
    for (int k = 0; k < 2; k++) {
        const int32_t end = (cell[k] + 1) * tile < size[k] ? (cell[k] + 1) * tile : size[k];
        first[k] = tile < PATCH ? cell[k] * tile / PATCH : (cell[k] * tile - 1 + PATCH) / PATCH, last[k] = (end - 1) / PATCH;
        last[k] = last[k] < count[k] ? last[k] : count[k] - 1;
    }
    float most = 0;
    for (int32_t y = first[0]; y <= last[0]; y++)
        for (int32_t x = first[1]; x <= last[1]; x++) {
            const float found = f->patch[(image * high + y) * wide + x];
            most = found > most ? found : most;
        }
    return most;
}

static int differs_in(const Run *r, const Findings *f, int64_t image, int32_t row, int32_t column) {
    const Request *q = r->request;
    for (int32_t y = row * q->tile; y < (row + 1) * q->tile && y < q->height; y++)
        if (f->differs[(image * q->height + y) * r->grid.columns + column]) return 1;
    return 0;
}

/* Whether the thumbnails of a frame and of the picture neither correlate nor agree; those without structure do. */
static int is_scene(const Run *r, const Findings *f, int64_t image) {
    const int32_t height = r->request->height, width = r->request->width, samples = DOWN * ACROSS;
    double small[2][DOWN * ACROSS] = {{0}}, mean[2] = {0}, norm[2] = {0}, product = 0, apart = 0;
    for (int64_t i = 0; i < DOWN; i++) {
        const int64_t top = i * height / DOWN, bottom = ((i + 1) * height + DOWN - 1) / DOWN;
        for (int64_t j = 0; j < ACROSS; j++) {
            const int64_t across = ((j + 1) * width + ACROSS - 1) / ACROSS - j * width / ACROSS;
            for (int k = 0; k < 2; k++) {
                double *to = &small[k][i * ACROSS + j];
                for (int64_t y = top; y < bottom; y++) *to += f->thumb[((image * height + y) * 2 + k) * ACROSS + j];
                *to /= (double)((bottom - top) * across * r->program->head.colours), mean[k] += *to / samples;
            }
        }
    }
    for (int32_t k = 0; k < samples; k++) {
        const double a = small[0][k] - mean[0], b = small[1][k] - mean[1];
        norm[0] += a * a, norm[1] += b * b, product += a * b, apart += fabs(small[0][k] - small[1][k]) / samples;
    }
    const double first = sqrt(norm[0]), second = sqrt(norm[1]), both = first * second;
    const int plain = (first < second ? first : second) < FLAT * sqrt((double)samples);
    return product / (both < 1e-12 ? 1e-12 : both) < ALIKE && apart > APART && !plain;
}

static float least(float a, float b) { return a < b ? a : b; }
static float greatest(float a, float b) { return a > b ? a : b; }

/* Errors of the cells of an image, in float as PyTorch has them: kept [cells], then computed [levels][cells]. */
static void estimate(const Run *r, const Findings *f, int64_t image, const float *at_level) {
    const Request *q = r->request;
    const Reuse *u = r->reuse;
    const int64_t area = area_of(r);
    const int32_t coarsest = q->coarse_level, tile = q->tile;
    for (int64_t k = 0; k < area; k++) {
        const int32_t row = (int32_t)(k / r->grid.columns), column = (int32_t)(k % r->grid.columns), high = q->height - row * tile, wide = q->width - column * tile;
        const float share = (float)((int64_t)(high < tile ? high : tile) * (wide < tile ? wide : tile)) / (float)((int64_t)tile * tile);
        const float uncertain = r->cells[image * area + k] + (float)u->unseen * share;
        const int32_t held = r->held[image * area + k] < coarsest ? r->held[image * area + k] : coarsest, age = r->stream->age[image * area + k] + 1;
        const int differ = differs_in(r, f, image, row, column);
        const float last = at_level[held] * uncertain, old = (float)age / (float)u->max_age;
        float wrong = (change_of(r, f, image, row, column) - (float)u->noise) / (float)(u->clear - u->noise);
        wrong = least(greatest(wrong, 0), 1), wrong = least(wrong * (1 + old), 1);
        const float stale = greatest((float)u->stale * (at_level[coarsest] * uncertain + (float)u->unseen * share), last);
        const float overdue = differ && age >= u->max_age ? (float)u->overdue * share * old : 0;
        const float kept = (wrong < 0.5f ? fmaf(wrong, stale - last, last) : fmaf(wrong - 1, stale - last, stale)) + overdue;
        f->errors[k] = kept;
        for (int32_t level = 0; level <= coarsest; level++) {
            float error = at_level[level] * uncertain + (held != level ? (float)u->hysteresis * uncertain : 0);
            /* Where noise or age alone speaks against an answer, a coarser one gains nothing; where nothing differs, none does. */
            if (!differ || (wrong == 0 && level > held)) error = greatest(error, kept);
            f->errors[(level + 1) * area + k] = error;
        }
    }
}

/* From the finest squares upwards what is worth more than its price, into f->trial; returns the tiles. */
static int64_t take_worthy(const Run *r, const Findings *f, double price) {
    const Grid *g = &r->grid;
    const int32_t coarsest = r->request->coarse_level;
    const int64_t area = area_of(r);
    double *below = f->worth, *here = f->worth + area;
    for (int32_t level = 0; level <= coarsest; level++) {
        const int32_t rows = ((g->rows - 1) >> level) + 1, columns = ((g->columns - 1) >> level) + 1;
        const int32_t tall = level ? ((g->rows - 1) >> (level - 1)) + 1 : 0, wide = level ? ((g->columns - 1) >> (level - 1)) + 1 : 0;
        for (int32_t i = 0; i < rows; i++)
            for (int32_t j = 0; j < columns; j++) {
                const double gain = f->gain[level * area + (int64_t)i * columns + j] - price;
                double parts = 0;
                for (int32_t k = 0; level && k < 4; k++)
                    if (2 * i + k / 2 < tall && 2 * j + k % 2 < wide) parts += below[(int64_t)(2 * i + k / 2) * wide + 2 * j + k % 2];
                f->taken[level * area + (int64_t)i * columns + j] = gain > parts;
                here[(int64_t)i * columns + j] = gain > parts ? gain : parts;
            }
        double *const other = below;
        below = here, here = other;
    }
    int64_t tiles = 0;
    memset(f->trial, SKIPPED, (size_t)area);
    for (int32_t level = coarsest; level >= 0; level--)
        for (int32_t y = 0; y < g->rows; y += 1 << level)
            for (int32_t x = 0; x < g->columns; x += 1 << level) {
                if (!f->taken[level * area + (int64_t)(y >> level) * (((g->columns - 1) >> level) + 1) + (x >> level)] || f->trial[y * g->columns + x] >= 0) continue;
                tiles++;
                for (int32_t i = y; i < y + (1 << level) && i < g->rows; i++)
                    for (int32_t j = x; j < x + (1 << level) && j < g->columns; j++) f->trial[i * g->columns + j] = (int8_t)level;
            }
    return tiles;
}

/* The choice of least error among those of at most so many tiles: foveal/geometry/reuse.py. */
static void choose_levels(const Run *r, const Findings *f, double budget, int8_t *levels) {
    const Grid *g = &r->grid;
    const int64_t area = area_of(r);
    double high = LEAST;
    for (int32_t level = 0; level <= r->request->coarse_level; level++) {
        double *cells = f->worth, most = 0;
        for (int64_t k = 0; k < area; k++) cells[k] = ((double)f->errors[k] - (double)f->errors[(level + 1) * area + k]) * (1 + TIES * fmod((double)k * GOLDEN, 1));
        sum_squares(cells, g->rows, g->columns, level, f->gain + level * area);
        const int64_t squares = (int64_t)(((g->rows - 1) >> level) + 1) * (((g->columns - 1) >> level) + 1);
        for (int64_t k = 0; k < squares; k++) most = f->gain[level * area + k] > most ? f->gain[level * area + k] : most;
        high += most;
    }
    double low = high * LEAST;
    if ((double)take_worthy(r, f, low) <= budget) {
        memcpy(levels, f->trial, (size_t)area);
        return;
    }
    memset(levels, SKIPPED, (size_t)area);
    for (int round = 0; round < ROUNDS; round++) {
        const double price = (low + high) / 2;
        if ((double)take_worthy(r, f, price) <= budget) high = price, memcpy(levels, f->trial, (size_t)area);
        else low = price;
    }
}

/* Decide about one image; 1 if a scene begins and nobody says what is computed then. */
static int decide_image(const Run *r, const Findings *f, int64_t image, const float *at_level) {
    const Request *q = r->request;
    const Reuse *u = r->reuse;
    const int64_t area = area_of(r);
    int8_t *levels = r->decision + image * area;
    memset(levels, SKIPPED, (size_t)area);
    const int scene = !r->stream->frames || is_scene(r, f, image);
    if (u->scenes) u->scenes[image] = (uint8_t)scene;
    if (scene && u->first) memcpy(levels, u->first + image * area, (size_t)area);
    if (scene) return !u->first;
    int any = 0;
    for (int64_t k = 0; k < (int64_t)q->height * r->grid.columns && !any; k++) any = f->differs[image * q->height * r->grid.columns + k];
    if (!any) return 0;
    estimate(r, f, image, at_level);
    choose_levels(r, f, q->budget * ((double)q->height * q->width) / ((double)q->tile * q->tile), levels);
    return 0;
}

static int any_differs(const Run *r, const Findings *f) {
    const int64_t count = (int64_t)r->request->images * r->request->height * r->grid.columns;
    for (int64_t k = 0; k < count; k++)
        if (f->differs[k]) return 1;
    return 0;
}

void decide_reuse(Run *r, Team team) {
    const Request *q = r->request;
    size_t bytes;
    findings(r, NULL, &bytes);
    ALONE(if (!room(&r->context->changes, bytes)) r->stop = -1);
    const Findings f = findings(r, r->context->changes.at, &bytes);
    if (r->stream->frames) {
        ALONE({
            memset(f.differs, 0, (size_t)q->images * (size_t)q->height * (size_t)r->grid.columns);
            memset(f.thumb, 0, (size_t)q->images * (size_t)q->height * 2 * ACROSS * sizeof(double));
        });
        const int32_t strips = patches(q->height);
        for (int64_t task; (task = take(&team)) < (int64_t)q->images * strips;) compare_strip(r, &f, task / strips, (int32_t)(task % strips), team);
        meet(r, team);
        if (r->unreal) return;
        if (any_differs(r, &f)) score_cells(r, r->stream->logits, rows_at(r, output_stride(r), 0), columns_at(r, output_stride(r), 0), r->cells, r->stream->unscored, team);
    }
    ALONE({
        float at_level[MOST_LEVELS] = {0};
        for (int32_t k = 1; k <= q->coarse_level; k++) at_level[k] = at_level[k - 1] + (float)q->level_gain[k - 1 < q->gains ? k - 1 : q->gains - 1];
        for (int64_t n = 0; n < q->images; n++)
            if (decide_image(r, &f, n, at_level)) r->stop = 1;
    });
}
