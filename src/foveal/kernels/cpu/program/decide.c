/* From scores per cell to the levels of the next pass, for images and masks. */
#pragma GCC optimize("fp-contract=off")
#include <stdio.h>
#include <stdlib.h>
#include "platform/export.h"
#include "program/program.h"

enum { SKIPPED = -1 };

static int wanted(const Run *r, int64_t cell) { return !r->request->mask || r->request->mask[cell]; }

/* Whether a cell of an image, or one of the eight around it, is wanted. */
static int near_wanted(const Run *r, int64_t image, int32_t y, int32_t x) {
    const Grid *g = &r->grid;
    for (int32_t i = y - 1; i <= y + 1; i++)
        for (int32_t j = x - 1; j <= x + 1; j++)
            if (i >= 0 && j >= 0 && i < g->rows && j < g->columns && wanted(r, (image * g->rows + i) * g->columns + j)) return 1;
    return 0;
}

/* Whether a cell belongs to a part of an image. */
static int belongs(const Run *r, MaskPart part, int64_t image, int32_t y, int32_t x) {
    const int inside = wanted(r, (image * r->grid.rows + y) * r->grid.columns + x);
    if (part == WANTED || inside) return inside && part != RIM;
    return r->request->mask_border && near_wanted(r, image, y, x);
}

/* Say that a budget does not pay for the coarse pass and the cheapest plan, both shares of the dense work. */
static int too_dear(Run *r, double pass, double plan) {
    Request *q = r->request;
    const char *remedy = "raise the budget, or give a higher coarse level or max level";
    snprintf(q->error, sizeof q->error, "budget is %g of the dense work; the coarse pass takes %.3g and the cheapest plan %.3g of it; %s", q->budget, pass, plan, remedy);
    return -2;
}

/* Count per square of 2^level cells whether any cell is wanted (1 or 0). */
static void any_wanted(const Run *r, int64_t image, int32_t level, double *cells, double *out, int64_t count) {
    const Grid *g = &r->grid;
    for (int64_t k = 0; k < (int64_t)g->rows * g->columns; k++) cells[k] = wanted(r, image * g->rows * g->columns + k);
    sum_squares(cells, g->rows, g->columns, level, out);
    for (int64_t k = 0; k < count; k++) out[k] = out[k] > 0;
}

/* Gains and costs of splits from `coarsest` down to level 0, as Plan.from_scores has them; a child that nobody
   wants costs nothing. Returns the tiles that everything at `coarsest` takes. */
static double splits(const Run *r, int64_t image, const float *cells, int32_t coarsest, Forest *f, double *a, double *b, double *c) {
    const Grid *g = &r->grid;
    const int64_t area = (int64_t)g->rows * g->columns;
    double cheapest = 0;
    for (int32_t k = 0; k < coarsest; k++) {
        const int32_t level = coarsest - k, tall = ((g->rows - 1) >> (level - 1)) + 1, wide = ((g->columns - 1) >> (level - 1)) + 1;
        for (int64_t i = 0; i < area; i++) a[i] = wanted(r, image * area + i) ? (double)cells[image * area + i] : 0.0;
        sum_squares(a, g->rows, g->columns, level, f->gain[k]);
        any_wanted(r, image, level - 1, a, b, (int64_t)tall * wide);
        sum_squares(b, tall, wide, 1, f->cost[k]);
        any_wanted(r, image, level, a, c, (int64_t)f->rows[k] * f->columns[k]);
        for (int64_t i = 0; i < (int64_t)f->rows[k] * f->columns[k]; i++) f->cost[k][i] -= c[i];
    }
    const int64_t squares = (int64_t)(((g->rows - 1) >> coarsest) + 1) * (((g->columns - 1) >> coarsest) + 1);
    any_wanted(r, image, coarsest, a, b, squares);
    for (int64_t i = 0; i < squares; i++) cheapest += b[i];
    return cheapest;
}

/* Leaves of which no cell belongs to a part are not computed. */
static void keep_only(const Run *r, MaskPart part, int64_t image, int8_t *levels) {
    const Grid *g = &r->grid;
    if (!r->request->mask) return;
    for (int32_t y = 0; y < g->rows; y++)
        for (int32_t x = 0; x < g->columns; x++) {
            const int32_t level = levels[y * g->columns + x], span = level < 0 ? 0 : 1 << level;
            if (level < 0 || y % span || x % span) continue;
            int any = 0;
            for (int pass = 0; pass < 2 && !any; pass++)
                for (int32_t i = y; i < y + span && i < g->rows; i++)
                    for (int32_t j = x; j < x + span && j < g->columns; j++) {
                        if (pass) levels[i * g->columns + j] = SKIPPED;
                        else any |= belongs(r, part, image, i, j);
                    }
        }
}

/* A part of the images at one level [images][rows][columns]. */
void uniform_levels(const Run *r, int32_t level, MaskPart part, int8_t *levels) {
    const int64_t area = (int64_t)r->grid.rows * r->grid.columns;
    memset(levels, level, (size_t)(r->request->images * area));
    for (int64_t n = 0; n < r->request->images; n++) keep_only(r, part, n, levels + n * area);
}

/* Levels [images][rows][columns] within the budget, every image by itself; `spent` went before. */
int decide_blocks(Run *r, const float *cells, double spent, int8_t *levels) {
    const Request *q = r->request;
    const Grid *g = &r->grid;
    const int64_t area = (int64_t)g->rows * g->columns;
    const int32_t coarsest = q->max_level;
    double *room = malloc((size_t)area * 3 * sizeof(double));
    int status = room ? 0 : -1;
    for (int64_t n = 0; n < q->images && !status; n++) {
        Forest f = {0};
        memset(levels + n * area, coarsest, (size_t)area);
        if (coarsest > 0) {
            if (forest_make(&f, g->rows, g->columns, 1, coarsest)) status = -1;
            if (!status) {
                const double cheapest = splits(r, n, cells, coarsest, &f, room, room + area, room + 2 * area);
                const double capacity = 1 * (q->budget - spent) * q->height * q->width / ((double)q->tile * q->tile);
                if (cheapest > capacity + 1) status = too_dear(r, spent, cheapest * ((double)q->tile * q->tile) / ((double)q->height * q->width));
                Forest *const one[1] = {&f};
                if (!status && (forest_rates(&f) || forest_choose(one, 1, capacity + 1 - cheapest))) status = -1;
            }
            for (int32_t k = 0; k < coarsest && !status; k++)
                for (int32_t y = 0; y < g->rows; y++)
                    for (int32_t x = 0; x < g->columns; x++)
                        levels[n * area + y * g->columns + x] -=
                            (int8_t)f.chosen[k][(int64_t)(y >> (coarsest - k)) * f.columns[k] + (x >> (coarsest - k))];
            forest_free(&f);
        }
        keep_only(r, WANTED, n, levels + n * area);
    }
    free(room);
    return status;
}

/* Forest of the tiles of a level and finer that may replace cells of the next coarser one, or of any coarser one
   in a direct step: what each gains and costs, as Refinement.forest has it. */
static void open_forest(const Run *r, int64_t image, const float *cells, int32_t level, Forest *f, double *a, double *b) {
    const Grid *g = &r->grid;
    const int64_t area = (int64_t)g->rows * g->columns;
    for (int32_t k = level; k >= 0; k--) {
        const int32_t map = level - k, gains = r->request->gains;
        const double share = r->request->level_gain[k < gains ? k : gains - 1];
        for (int64_t i = 0; i < area; i++) {
            const int64_t cell = image * area + i;
            const int coarser = r->request->direct ? r->held[cell] > level : r->held[cell] == level + 1;
            const double open = coarser && wanted(r, cell), gain = (double)cells[cell];
            a[i] = (gain < 0 ? 0 : gain) * share * open, b[i] = open;
        }
        sum_squares(a, g->rows, g->columns, k, f->gain[map]);
        sum_squares(b, g->rows, g->columns, k, f->cost[map]);
        for (int64_t i = 0; i < (int64_t)f->rows[map] * f->columns[map]; i++) {
            const int some = f->cost[map][i] > 0;
            f->cost[map][i] = some;
            if (!some) f->gain[map][i] = -1.0;
        }
    }
}

/* Mark the tiles of a forest's first map that are refined: as many as are paid for and gain enough, the most
   compact of them in the last step, where neighbours matter. -1 without memory. */
static int take_first(const Request *q, Forest *f) {
    const int64_t nodes = (int64_t)f->rows[0] * f->columns[0];
    int64_t count = 0;
    for (int64_t k = 0; k < nodes; k++) {
        f->chosen[0][k] &= f->cost[0][k] > 0 && (!q->has_threshold || f->rate[0][k] >= q->threshold);
        count += f->chosen[0][k];
    }
    return q->isolated == 1 || f->depth > 1 ? 0 : foveal_choose_tiles(f->rate[0], f->cost[0], f->rows[0], f->columns[0], q->isolated, count, f->chosen[0]);
}

/* Tiles of a level that replace a part of the next coarser one [images][rows][columns]; SKIP elsewhere.
   Returns how many cells change, or a status below 0. */
int decide_refinement(Run *r, const float *cells, int32_t level, int8_t *levels) {
    const Request *q = r->request;
    const Grid *g = &r->grid;
    const int64_t area = (int64_t)g->rows * g->columns;
    Forest *forests = calloc((size_t)q->images, sizeof *forests), **list = calloc((size_t)q->images, sizeof *list);
    double *room = malloc((size_t)area * 2 * sizeof(double)), all = 0;
    int status = forests && list && room ? 0 : -1, changed = 0;
    for (int32_t n = 0; n < q->images && !status; n++) {
        Forest *f = list[n] = &forests[n];
        const double left = (q->budget - r->spent[n]) * ((double)q->height * q->width) / ((double)q->tile * q->tile) + 1e-9;
        all += left;
        if (forest_make(f, g->rows, g->columns, 0, level + 1)) status = -1;
        if (status) break;
        open_forest(r, n, cells, level, f, room, room + area);
        if (forest_rates(f) || (!q->shared && forest_choose(&list[n], 1, left))) status = -1;
    }
    if (!status && q->shared && forest_choose(list, q->images, all)) status = -1;
    for (int32_t n = 0; n < q->images && !status; n++) status = take_first(q, &forests[n]);
    memset(levels, SKIPPED, (size_t)(q->images * area));
    for (int32_t n = 0; n < q->images && !status; n++)
        for (int32_t y = 0; y < g->rows; y++)
            for (int32_t x = 0; x < g->columns; x++) {
                const int64_t node = (int64_t)(y >> level) * forests[n].columns[0] + (x >> level);
                if (forests[n].chosen[0][node]) levels[n * area + y * g->columns + x] = (int8_t)level, changed++;
            }
    for (int32_t n = 0; forests && n < q->images; n++) forest_free(&forests[n]);
    free(forests), free(list), free(room);
    return status ? status : changed;
}

/* Rates and choice of one forest, all maps one after the other, coarsest first: for tests of equality. */
EXPORT int32_t foveal_program_choose(
    int32_t depth, const int32_t *rows, const int32_t *columns, const double *gains, const double *costs, double budget,
    double *rates, uint8_t *chosen)
{
    Forest f = {0};
    Forest *const one[1] = {&f};
    if (forest_make(&f, rows[depth - 1], columns[depth - 1], 0, depth)) return -1;
    size_t at = 0;
    for (int32_t k = 0; k < depth; k++) {
        const size_t n = (size_t)rows[k] * (size_t)columns[k];
        memcpy(f.gain[k], gains + at, n * sizeof(double)), memcpy(f.cost[k], costs + at, n * sizeof(double));
        at += n;
    }
    int status = forest_rates(&f) || forest_choose(one, 1, budget) ? -1 : 0;
    for (int32_t k = depth - 1; k >= 0; k--) {
        const size_t n = (size_t)rows[k] * (size_t)columns[k];
        at -= n;
        memcpy(rates + at, f.rate[k], n * sizeof(double)), memcpy(chosen + at, f.chosen[k], n);
    }
    forest_free(&f);
    return status;
}

/* Cells and levels of one image from a density, as SegBlocks decides: for tests of equality. */
EXPORT int32_t foveal_program_blocks(
    const float *density, int32_t rows, int32_t columns, int32_t height, int32_t width, int32_t tile, int32_t coarsest,
    double budget, float *cells, int8_t *levels)
{
    Request q = {.images = 1, .height = height, .width = width, .tile = tile, .max_level = coarsest, .budget = budget};
    Run r = {.request = &q, .threads = 1};
    r.grid = (Grid){.height = height, .width = width, .tile = tile, .rows = (height - 1) / tile + 1, .columns = (width - 1) / tile + 1};
    integrate(&r, density, rows, columns, cells, (Team){0, 1, &r.next});
    return decide_blocks(&r, cells, 0, levels);
}
