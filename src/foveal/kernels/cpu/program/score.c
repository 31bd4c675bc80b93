/* How uncertain the network's own answer is, and what that makes for every cell. The scores are those of
   foveal/policies/uncertainty.py. */
#pragma GCC optimize("fp-contract=off")
#include <math.h>
#include "platform/exponential.h"
#include "program/program.h"

enum { AROUND = 48 }; /* reach of a regional score [px] */

/* Natural logarithm of normal numbers of at least 1: a polynomial around 1, error of 1 unit in the last place.
   Source: Cephes, logf.c (Moshier). */
static inline vec logarithm(vec x) {
    const mask bits = (mask)x;
    vec m = (vec)((bits & 0x7fffff) | 0x3f000000); /* 0.5 to 1 */
    const mask low = m < broadcast(0.707106781186547524f);
    const vec e = __builtin_convertvector((bits >> 23) - 126 + low, vec);
    m += choose(low, m, broadcast(0)) - 1.0f;
    const vec z = m * m;
    vec p = broadcast(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    return m + (p * m * z + e * -2.12194440e-4f - 0.5f * z) + e * 0.693359375f;
}

/* LANES pixels: logits by class, their exponentials, and the sums. */
typedef struct {
    vec t[256], e[256], sum, most;
} Block;

static void read_block(const float *logits, int32_t classes, int32_t count, Block *b) {
    for (int32_t l = 0; l < LANES; l++)
        for (int32_t k = 0; k < classes; k++) ((float *)&b->t[k])[l] = logits[(l < count ? l : count - 1) * classes + k];
    b->most = b->t[0];
    for (int32_t k = 1; k < classes; k++) b->most = choose(b->t[k] > b->most, b->t[k], b->most);
    b->sum = (vec){};
    for (int32_t k = 0; k < classes; k++) b->sum += b->e[k] = exponential(b->t[k] - b->most);
}

static vec entropy_of(const Block *b, int32_t classes) {
    vec total = {};
    const vec log = logarithm(b->sum);
    for (int32_t k = 0; k < classes; k++) {
        const vec less = b->t[k] - b->most - log;
        total += b->e[k] * less;
    }
    return -total / b->sum;
}

static vec margin_of(const Block *b, int32_t classes) {
    vec first = b->e[0], second = classes > 1 ? (vec){} : first;
    for (int32_t k = 1; k < classes; k++) {
        const vec lower = choose(b->e[k] > first, first, b->e[k]);
        second = choose(lower > second, lower, second);
        first = choose(b->e[k] > first, b->e[k], first);
    }
    return 1.0f - (first - second) / b->sum;
}

/* Columns of a line of scores, in whole vectors. */
static int64_t padded(int32_t columns) { return ((int64_t)columns + LANES - 1) / LANES * LANES; }

/* Entropy [lines][padded columns] and the numerators of all probabilities [lines][classes][padded columns], whose
   sums follow the classes; and the sums of the probabilities over each line [lines][classes]. What a score by
   rarity needs once the rarity of the classes is known, so that exponentials are computed once. */
static void class_shares(const float *logits, int64_t lines, int32_t columns, int32_t classes, double *sums, float *entropy, float *parts, Team team) {
    const int64_t wide = padded(columns);
    Block b;
    for (int64_t line; (line = take(&team)) < lines;) {
        double *to = sums + line * classes;
        float *kept = parts + line * (classes + 1) * wide;
        vec total[256];
        for (int32_t k = 0; k < classes; k++) total[k] = (vec){};
        for (int32_t x = 0; x < columns; x += LANES) {
            const int32_t count = columns - x < LANES ? columns - x : LANES;
            read_block(logits + (line * columns + x) * classes, classes, count, &b);
            const vec per = 1.0f / b.sum, measure = entropy_of(&b, classes);
            memcpy(entropy + line * wide + x, &measure, sizeof measure);
            memcpy(kept + classes * wide + x, &b.sum, sizeof b.sum);
            for (int32_t k = 0; k < classes; k++) {
                vec p = b.e[k] * per;
                memcpy(kept + k * wide + x, &b.e[k], sizeof p);
                for (int32_t l = count; l < LANES; l++) ((float *)&p)[l] = 0;
                total[k] += p;
            }
        }
        for (int32_t k = 0; k < classes; k++) {
            to[k] = 0;
            for (int l = 0; l < LANES; l++) to[k] += (double)((float *)&total[k])[l];
        }
    }
}

/* From the sums of the probabilities of every class over `rows` lines [rows][classes], of so many samples in all. */
static void rarity_of(const double *sums, int32_t rows, int64_t samples, int32_t classes, float *rarity) {
    for (int32_t k = 0; k < classes; k++) {
        double sum = 0;
        for (int32_t y = 0; y < rows; y++) sum += sums[(int64_t)y * classes + k];
        float share = (float)(sum / (double)samples);
        share = share < 1e-4f ? 1e-4f : share;
        rarity[k] = sqrtf(1.0f / (float)classes / share);
    }
}

/* Score of every sample [lines][columns] that needs nothing but its own logits. */
static void densities(const Run *r, const float *logits, int32_t rows, int32_t columns, float *out, Team team) {
    const int32_t classes = r->program->head.classes, kind = r->request->score;
    const int64_t lines = (int64_t)r->request->images * rows;
    Block b;
    for (int64_t line; (line = take(&team)) < lines;)
        for (int32_t x = 0; x < columns; x += LANES) {
            const int32_t count = columns - x < LANES ? columns - x : LANES;
            read_block(logits + (line * columns + x) * classes, classes, count, &b);
            const vec score = kind == MARGIN ? margin_of(&b, classes) : entropy_of(&b, classes);
            memcpy(out + line * columns + x, &score, (size_t)count * sizeof(float));
        }
}

/* Entropy by the mean rarity of the classes in question [lines][columns], from what `class_shares` left. */
static void weigh(const Run *r, int32_t rows, int32_t columns, const double *sums, const float *entropy, const float *parts, float *out, Team team) {
    const int32_t classes = r->program->head.classes;
    const int64_t lines = (int64_t)r->request->images * rows, wide = padded(columns);
    float rarity[256];
    int64_t image = -1;
    for (int64_t line; (line = take(&team)) < lines;) {
        if (image != line / rows) {
            image = line / rows;
            rarity_of(sums + image * rows * classes, rows, (int64_t)rows * columns, classes, rarity);
        }
        const float *kept = parts + line * (classes + 1) * wide;
        for (int32_t x = 0; x < columns; x += LANES) {
            vec weight = {}, e, score;
            for (int32_t k = 0; k < classes; k++) memcpy(&e, kept + k * wide + x, sizeof e), weight += e * rarity[k];
            memcpy(&e, kept + classes * wide + x, sizeof e);
            memcpy(&score, entropy + line * wide + x, sizeof score);
            score *= weight / e;
            memcpy(out + line * columns + x, &score, (size_t)(columns - x < LANES ? columns - x : LANES) * sizeof(float));
        }
    }
}

/* Mean over the samples within `reach`, of those that exist: along lines, then across them. */
static void average_lines(const float *in, int64_t lines, int32_t columns, int32_t reach, float *out, Team team) {
    for (int64_t line; (line = take(&team)) < lines;) {
        const float *from = in + line * columns;
        double sum = 0;
        for (int32_t x = 0; x < reach && x < columns; x++) sum += (double)from[x];
        for (int32_t x = 0; x < columns; x++) {
            if (x + reach < columns) sum += (double)from[x + reach];
            if (x - reach - 1 >= 0) sum -= (double)from[x - reach - 1];
            out[line * columns + x] = (float)sum;
        }
    }
}

static void average_columns(const float *in, int64_t images, int32_t rows, int32_t columns, int32_t reach, float *out, Team team) {
    for (int64_t line; (line = take(&team)) < images * rows;) {
        const int32_t y = (int32_t)(line % rows), top = within(y - reach, rows - 1), bottom = within(y + reach, rows - 1);
        const float *map = in + line / rows * rows * columns;
        float *to = out + line * columns;
        memset(to, 0, (size_t)columns * sizeof(float));
        for (int32_t i = top; i <= bottom; i++)
            for (int32_t x = 0; x < columns; x++) to[x] += map[(int64_t)i * columns + x];
        for (int32_t x = 0; x < columns; x++)
            to[x] /= (float)((bottom - top + 1) * (within(x + reach, columns - 1) - within(x - reach, columns - 1) + 1));
    }
}

static int32_t gcd(int32_t a, int32_t b) { return b ? gcd(b, a % b) : a; }

/* How samples of a map lie in the cells of the grid: a sample is `stride` pixels wide, a cell has `per` parts of it. */
typedef struct {
    int32_t part, per, repeat;
} Fit;

static Fit fit_of(const Grid *g, int32_t rows, int32_t columns) {
    const int32_t down = (g->height - 1) / rows + 1, across = (g->width - 1) / columns + 1, unit = down > across ? down : across;
    int32_t stride = 1;
    while (stride < unit) stride *= 2;
    const int32_t part = gcd(stride, g->tile);
    return (Fit){part, g->tile / part, stride / part};
}

/* Integrate densities over cells: the same sums in the same order as `foveal.policies.budgeted.per_cell`. */
void integrate(const Run *r, const float *density, int32_t rows, int32_t columns, float *cells, Team team) {
    const Grid *g = &r->grid;
    const Fit fit = fit_of(g, rows, columns);
    const int32_t part = fit.part, per = fit.per, repeat = fit.repeat;
    for (int64_t task; (task = take(&team)) < (int64_t)r->request->images * g->rows;) {
        const int64_t image = task / g->rows;
        const int32_t top = (int32_t)(task % g->rows) * per;
        for (int32_t cell = 0; cell < g->columns; cell++) {
            float sum = 0;
            const int32_t left = cell * per;
            const int whole = (top + per) * part <= g->height && (left + per) * part <= g->width;
            for (int32_t i = top; whole && i < top + per; i++) {
                const float *from = density + (image * rows + i / repeat) * columns;
                if (repeat == 1)
                    for (int32_t j = left; j < left + per; j++) sum += from[j];
                else
                    for (int32_t j = left; j < left + per; j++) sum += from[j / repeat];
            }
            for (int32_t i = top; !whole && i < top + per; i++)
                for (int32_t j = left; j < left + per; j++) {
                    const int32_t tall = g->height - i * part, wide = g->width - j * part;
                    if (tall <= 0 || wide <= 0) continue;
                    float value = density[(image * rows + i / repeat) * columns + j / repeat];
                    value *= (float)(tall < part ? tall : part) / (float)part;
                    value *= (float)(wide < part ? wide : part) / (float)part;
                    sum += value;
                }
            const float mean = sum / (float)(per * per);
            cells[task * g->columns + cell] = isfinite(mean) ? mean : 0; /* plans are sorted by sums of these */
        }
    }
}

/* What a cell needs to be scored once the rarity of the classes is known [2][classes]: the sum of entropy times
   probability of every class, and the sum of the probabilities. Cells that are not marked keep what they have. A task is
   a row of cells; samples are taken a vector at a time, from top to bottom. */
static void cell_shares(const Run *r, const float *logits, int32_t rows, int32_t columns, Fit fit, const uint8_t *marked, float *shares, Team team) {
    const Grid *g = &r->grid;
    const int32_t classes = r->program->head.classes, step = fit.per / gcd(fit.per, LANES) * LANES;
    vec weighted[256], plain[256];
    Block b;
    for (int64_t task; (task = take(&team)) < (int64_t)r->request->images * g->rows;) {
        const int64_t image = task / g->rows;
        const int32_t top = (int32_t)(task % g->rows) * fit.per, bottom = top + fit.per < rows ? top + fit.per : rows;
        for (int32_t group = 0; group < columns; group += step) {
            const int32_t first = group / fit.per, last = within((group + step - 1) / fit.per, g->columns - 1);
            if (marked && !memchr(marked + task * g->columns + first, 1, (size_t)(last - first + 1))) continue;
            memset(shares + (task * g->columns + first) * 2 * classes, 0, (size_t)(last - first + 1) * 2 * (size_t)classes * sizeof(float));
            for (int32_t x = group; x < group + step && x < columns; x += LANES) {
                const int32_t count = columns - x < LANES ? columns - x : LANES;
                vec here = {}, wide = {};
                for (int32_t l = 0; l < count; l++) {
                    const int32_t inside = g->width - (x + l) * fit.part;
                    here[l] = 1, wide[l] = (float)(inside < fit.part ? inside : fit.part) / (float)fit.part;
                }
                for (int32_t k = 0; k < classes; k++) weighted[k] = plain[k] = (vec){};
                for (int32_t y = top; y < bottom; y++) {
                    const int32_t inside = g->height - y * fit.part;
                    read_block(logits + ((image * rows + y) * columns + x) * classes, classes, count, &b);
                    const vec per = here / b.sum, by = entropy_of(&b, classes) * wide * ((float)(inside < fit.part ? inside : fit.part) / (float)fit.part);
                    for (int32_t k = 0; k < classes; k++) {
                        const vec p = b.e[k] * per;
                        plain[k] += p, weighted[k] += by * p;
                    }
                }
                for (int32_t l = 0; l < count; l++) {
                    float *to = shares + (task * g->columns + within((x + l) / fit.per, g->columns - 1)) * 2 * classes;
                    for (int32_t k = 0; k < classes; k++) to[k] += ((float *)&weighted[k])[l], to[classes + k] += ((float *)&plain[k])[l];
                }
            }
        }
    }
}

/* Scores by rarity, from what `cell_shares` left. */
static void weigh_cells(const Run *r, int32_t rows, int32_t columns, Fit fit, const float *shares, float *cells, Team team) {
    const Grid *g = &r->grid;
    const int32_t classes = r->program->head.classes;
    float rarity[256];
    int64_t image = -1;
    for (int64_t task; (task = take(&team)) < (int64_t)r->request->images * g->rows;) {
        if (image != task / g->rows) {
            double sums[256] = {0};
            image = task / g->rows;
            const float *from = shares + image * g->rows * g->columns * 2 * classes + classes;
            for (int64_t cell = 0; cell < (int64_t)g->rows * g->columns; cell++, from += 2 * classes)
                for (int32_t k = 0; k < classes; k++) sums[k] += (double)from[k];
            rarity_of(sums, 1, (int64_t)rows * columns, classes, rarity);
        }
        for (int64_t cell = task * g->columns; cell < (task + 1) * g->columns; cell++) {
            float sum = 0;
            for (int32_t k = 0; k < classes; k++) sum += shares[cell * 2 * classes + k] * rarity[k];
            const float mean = sum / (float)(fit.per * fit.per);
            cells[cell] = isfinite(mean) ? mean : 0; /* plans are sorted by sums of these */
        }
    }
}

/* Whether scores need nothing but sums over cells: every sample lies in one of them. */
static int by_cells(const Run *r, Fit fit) { return r->request->score == WEIGHTED_ENTROPY && fit.repeat == 1; }

/* Bytes that scoring maps of at most the output's size takes. */
size_t score_bytes(const Run *r) {
    const int32_t stride = r->program->maps[r->program->head.output].stride;
    const size_t lines = (size_t)r->request->images * (size_t)rows_at(r, stride, 0), classes = (size_t)r->program->head.classes;
    const size_t maps = 2 + (r->request->score >= WEIGHTED_ENTROPY ? classes + 2 : 0), cells = (size_t)cells_of(r) * 2 * classes * 4;
    const size_t samples = lines * ((size_t)padded(columns_at(r, stride, 0)) * 4 * maps + classes * 8) + 64;
    return samples > cells ? samples : cells;
}

/* Score an answer [images][rows][columns][classes] per cell [images][grid rows][grid columns]. With marked cells, the
   logits of the others are those that this run, or stream, scored before; the marks are taken away. */
void score_cells(Run *r, const float *logits, int32_t rows, int32_t columns, float *cells, uint8_t *marked, Team team) {
    const int32_t classes = r->program->head.classes, images = r->request->images;
    const int64_t lines = (int64_t)images * rows, area = lines * columns;
    const Fit fit = fit_of(&r->grid, rows, columns);
    if (by_cells(r, fit)) {
        float *shares = r->stream ? r->stream->shares : r->context->scores.at;
        cell_shares(r, logits, rows, columns, fit, marked, shares, team);
        meet(r, team);
        if (marked && team.thread == 0) memset(marked, 0, (size_t)cells_of(r));
        weigh_cells(r, rows, columns, fit, shares, cells, team);
        meet(r, team);
        return;
    }
    double *sums = r->context->scores.at;
    float *density = (float *)(sums + lines * classes), *beside = density + area;
    if (r->request->score >= WEIGHTED_ENTROPY) {
        float *entropy = beside + area, *parts = entropy + lines * padded(columns);
        class_shares(logits, lines, columns, classes, sums, entropy, parts, team);
        meet(r, team);
        weigh(r, rows, columns, sums, entropy, parts, density, team);
    } else densities(r, logits, rows, columns, density, team);
    meet(r, team);
    if (r->request->score == REGIONAL_ENTROPY) {
        int32_t stride = (int32_t)nearbyint((double)r->grid.height / rows), reach;
        stride = stride < 1 ? 1 : stride;
        reach = AROUND / stride < 1 ? 1 : AROUND / stride;
        average_lines(density, lines, columns, reach, beside, team);
        meet(r, team);
        average_columns(beside, images, rows, columns, reach, density, team);
        meet(r, team);
    }
    integrate(r, density, rows, columns, cells, team);
    meet(r, team);
}
