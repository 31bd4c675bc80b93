/* The methods: which passes run, and what decides about them. Every member of the team walks through this; the
   first one decides. */
#include <stdio.h>
#include "program/program.h"

enum { SKIPPED = -1 };

/* Forget all tiles; `level` is that of plain maps, or below 0 for none. */
static void start(Run *r, int32_t level, int64_t capacity, int crossing) {
    r->grid.images = level < 0 ? 0 : r->request->images;
    r->grid.plain_level = level < 0 ? 0 : level;
    r->grid.tiles = r->grid.first = r->grid.computed = 0;
    r->capacity = capacity, r->crossing = crossing;
    for (int64_t k = 0; k < cells_of(r); k++) r->owner[k] = level < 0 ? UNKNOWN : PLAIN, r->held[k] = (int8_t)(level < 0 ? SKIPPED : level);
    for (int32_t n = 0; n < r->request->images; n++) r->base[n] = level < 0 ? MOST_LEVELS : level;
    if (plan_memory(r)) r->stop = -1;
}

/* Append the tiles of a decision and count their work. */
static void take_tiles(Run *r, const int8_t *levels) {
    Request *q = r->request;
    r->pass = (Pass){0, 0};
    if (add_tiles(r, levels) < 0) r->stop = -1;
    for (int64_t t = r->grid.first; t < r->grid.first + r->grid.computed; t++) q->work[r->image[t]] += 1;
    for (int32_t n = 0; n < q->images; n++) {
        if (r->base[n] == MOST_LEVELS) r->base[n] = 0;
        r->spent[n] += q->work[n] * ((double)q->tile * q->tile) / ((double)q->height * q->width);
        q->work[n] = 0;
    }
    q->passes++;
}

static void plain_pass(Run *r, int32_t level, Team team) {
    ALONE(r->pass = ((Pass){1, level}));
    plain_input(r, team);
    if (team.thread == 0) account_part(r, READING);
    run_steps(r, team);
}

void tile_pass(Run *r, Team team) {
    build_tables(r, team);
    if (r->stop) return;
    if (team.thread == 0) account_part(r, INDEXING);
    cut_input_step(r, team);
    meet(r, team);
    if (team.thread == 0) account_part(r, READING);
    run_steps(r, team);
}

/* Compose the logits; after the first time only what the last pass changed. */
static void compose(Run *r, float blend, int again, Team team) {
    const int32_t output = r->program->head.output;
    if (again && team.thread == 0) mark_changed(r, output, r->changed);
    meet(r, team);
    compose_step(r, output, r->logits, r->finest, blend, again ? r->changed : NULL, team);
    meet(r, team);
    if (team.thread == 0) {
        r->request->macs += compose_macs(r, r->program->head.output, r->finest);
        account_part(r, COMPOSING);
    }
}

/* Labels of logits at full resolution. */
static void answer(Run *r, Team team) {
    const int32_t rows = rows_at(r, output_stride(r), 0), columns = columns_at(r, output_stride(r), 0);
    if (scaled(r)) {
        enlarge_logits(r, r->logits, rows, columns, team);
        meet(r, team);
        label_step(r, r->enlarged, r->enlarged_rows, r->enlarged_columns, team);
    } else
        label_step(r, r->logits, rows, columns, team);
    meet(r, team);
    if (team.thread == 0) account_part(r, LABELLING);
}

static void dense(Run *r, Team team) {
    ALONE(start(r, 0, 0, 0));
    plain_pass(r, 0, team);
    if (r->stop) return;
    if (team.thread == 0) r->logits = current(r, r->program->head.output);
    meet(r, team);
    answer(r, team);
}

int64_t count_leaves(const Run *r, const int8_t *levels) {
    const Grid *g = &r->grid;
    int64_t count = 0;
    for (int64_t k = 0; k < cells_of(r); k++) {
        const int64_t y = k / g->columns % g->rows, x = k % g->columns, last = levels[k] < 0 ? 0 : (1 << levels[k]) - 1;
        count += levels[k] >= 0 && !(y & last) && !(x & last);
    }
    return count;
}

/* Run the tiles of a decision, from nothing; the pyramid is there up to a level. */
static void from_plan(Run *r, const int8_t *levels, int32_t reduced, Team team) {
    int32_t most = 0;
    for (int64_t k = 0; k < cells_of(r); k++) most = levels[k] > most ? levels[k] : most;
    ALONE({
        start(r, -1, count_leaves(r, levels), 0);
        if (!r->stop) take_tiles(r, levels);
    });
    reduce_input(r, reduced, most, team);
    if (r->grid.computed) tile_pass(r, team);
    if (r->stop) return;
    compose(r, 0, 0, team);
    answer(r, team);
}

static void segblocks(Run *r, Team team) {
    const Request *q = r->request;
    const int32_t level = q->coarse_level;
    ALONE(start(r, level, 0, 0));
    reduce_input(r, 0, level, team);
    plain_pass(r, level, team);
    if (r->stop) return;
    const int32_t rows = rows_at(r, output_stride(r), level), columns = columns_at(r, output_stride(r), level);
    score_cells(r, current(r, r->program->head.output), rows, columns, r->cells, NULL, team);
    const double spent = (double)((int64_t)rows_at(r, 1, level) * columns_at(r, 1, level)) / ((double)q->height * q->width);
    ALONE({
        const int status = decide_blocks(r, r->cells, spent, r->decision);
        if (status < 0) r->stop = status;
        for (int32_t n = 0; n < q->images; n++) r->spent[n] = spent;
        account_part(r, DECIDING);
    });
    from_plan(r, r->decision, level, team);
}

/* Tiles that all refinements together may take; those of a plan that was given. */
static int64_t room_for(const Run *r, double first) {
    const Request *q = r->request;
    if (q->plan) return count_leaves(r, q->plan);
    const double left = (q->budget - first) * ((double)q->height * q->width) / ((double)q->tile * q->tile) + 1;
    int64_t squares = 0;
    for (int32_t level = 0; level < q->coarse_level; level++)
        squares += (int64_t)(((r->grid.rows - 1) >> level) + 1) * (((r->grid.columns - 1) >> level) + 1);
    const int64_t paid = (int64_t)(left < 0 ? 0 : left) + 1;
    return q->images * (paid < squares ? paid : squares);
}

/* The first pass: everything at the coarse level, as plain maps or, where a mask leaves something out, tiles. */
static void first_pass(Run *r, Team team) {
    Request *q = r->request;
    const int32_t level = q->coarse_level;
    ALONE({
        uniform_levels(r, level, REACHED, r->decision);
        const int64_t tiles = count_leaves(r, r->decision);
        const double all = (double)((((r->grid.rows - 1) >> level) + 1) * (int64_t)(((r->grid.columns - 1) >> level) + 1));
        const double work = all * ((double)q->tile * q->tile) / ((double)q->height * q->width);
        if (!q->mask && !q->plan && work > q->budget) {
            snprintf(q->error, sizeof q->error, "budget is %g and the first pass at level %d takes %.3g of the dense work; raise the budget or take a coarser level", q->budget, level, work);
            r->stop = -2;
        }
        const int64_t extra = room_for(r, q->mask ? 0 : work);
        start(r, q->mask ? -1 : level, extra + (q->mask ? tiles : 0), level > 0);
        if (!r->stop && q->mask) take_tiles(r, r->decision);
        if (!q->mask) {
            for (int32_t n = 0; n < q->images; n++) r->spent[n] = work;
            q->passes++;
        }
    });
    reduce_input(r, 0, level, team);
    if (q->mask) tile_pass(r, team);
    else plain_pass(r, level, team);
}

/* The cells that a plan refines to a level; returns how many. */
static int planned_refinement(const Run *r, int32_t level, int8_t *levels) {
    int changed = 0;
    for (int64_t k = 0; k < cells_of(r); k++) {
        const int refined = r->request->plan[k] == level;
        levels[k] = (int8_t)(refined ? level : SKIPPED), changed += refined;
    }
    return changed;
}

/* What a mask wants at full resolution, over a coarse pass of the places around it where these are to be its border. */
static void wanted_at_once(Run *r, Team team) {
    const Request *q = r->request;
    ALONE({
        uniform_levels(r, 0, WANTED, r->decision);
        const int64_t inside = count_leaves(r, r->decision);
        uniform_levels(r, q->coarse_level, RIM, r->decision);
        const int64_t around = count_leaves(r, r->decision);
        start(r, -1, inside + around, around > 0);
        if (!r->stop && around) take_tiles(r, r->decision);
    });
    if (r->grid.computed) {
        reduce_input(r, 0, q->coarse_level, team);
        tile_pass(r, team);
        if (r->stop) return;
    }
    ALONE({
        uniform_levels(r, 0, WANTED, r->decision);
        r->grid.computed = 0;
        if (count_leaves(r, r->decision)) take_tiles(r, r->decision);
    });
    if (r->grid.computed) tile_pass(r, team);
    if (r->stop) return;
    compose(r, 0, 0, team);
    answer(r, team);
}

static void coarse_to_fine(Run *r, Team team) {
    const Request *q = r->request;
    first_pass(r, team);
    if (r->stop) return;
    compose(r, 0, 0, team);
    const int32_t rows = rows_at(r, output_stride(r), 0), columns = columns_at(r, output_stride(r), 0);
    uint8_t *marked = NULL; /* cells whose logits are others than those that were scored */
    for (int32_t level = q->direct && q->coarse_level > 0 ? 0 : q->coarse_level - 1; level >= 0; level--) {
        if (!q->plan) score_cells(r, r->logits, rows, columns, r->cells, marked, team);
        ALONE({
            const int changed = q->plan ? planned_refinement(r, level, r->decision) : decide_refinement(r, r->cells, level, r->decision);
            r->stop = changed < 0 ? changed : 0;
            r->grid.computed = 0;
            if (changed > 0) take_tiles(r, r->decision);
            account_part(r, DECIDING);
        });
        if (!r->grid.computed && q->plan) continue;
        if (!r->grid.computed) break;
        tile_pass(r, team);
        if (r->stop) return;
        compose(r, (float)q->blend, q->blend == 0, team);
        marked = q->blend == 0 ? r->changed : NULL;
    }
    answer(r, team);
}

/* Copy maps that earlier steps made in, or those that later steps want out. */
static void copy_maps(Run *r, void *const *where, int in, Team team) {
    enum { PIECE = 1 << 18 };
    for (int32_t m = 0; where && m < r->program->head.maps; m++) {
        if (!where[m]) continue;
        const Shape s = shape_of(r, m);
        const size_t bytes = (size_t)s.tiles * (size_t)s.height * (size_t)s.width * (size_t)r->program->maps[m].channels * sample_bytes(&r->program->maps[m]);
        char *own = (char *)current(r, m), *other = where[m];
        for (size_t at; (at = (size_t)take(&team) * PIECE) < bytes;) {
            const size_t size = bytes - at < PIECE ? bytes - at : PIECE;
            memcpy((in ? own : other) + at, (in ? other : own) + at, size);
        }
        meet(r, team);
    }
}

/* Some of the steps, on the tiles of a plan or on whole images: what they read comes in, the image's own samples too, and
   what they made goes out. */
static void part(Run *r, Team team) {
    const Request *q = r->request;
    ALONE({
        start(r, q->plan ? -1 : 0, q->plan ? count_leaves(r, q->plan) : 0, 0);
        if (!r->stop && q->plan) take_tiles(r, q->plan);
        if (!q->plan) r->pass = ((Pass){1, 0});
    });
    if (q->plan && !r->grid.computed) return;
    if (q->plan) {
        build_tables(r, team);
        if (r->stop) return;
    }
    if (team.thread == 0) account_part(r, INDEXING);
    copy_maps(r, q->given, 1, team);
    if (team.thread == 0) account_part(r, READING);
    run_steps(r, team);
    if (!r->stop) copy_maps(r, q->taken, 0, team);
}

/* Whether everything runs at full resolution at once: it is paid for, and no first pass saves any of it. */
static int sees_all(const Run *r) {
    const Request *q = r->request;
    if (q->plan) return 0;
    if (q->method == METHOD_SEGBLOCKS) return q->budget >= 1;
    if (q->budget < 1 || !q->has_threshold) return q->budget >= 1;
    const int32_t level = q->coarse_level;
    const double all = (double)((((r->grid.rows - 1) >> level) + 1) * (int64_t)(((r->grid.columns - 1) >> level) + 1));
    return all * ((double)q->tile * q->tile) >= (double)q->height * q->width;
}

void run_method(Run *r, Team team) {
    const Request *q = r->request;
    if (team.thread == 0) account(r, -1);
    if (scaled(r)) {
        shrink_input(r, team);
        meet(r, team);
        if (team.thread == 0) account_part(r, READING);
    }
    if (q->method == METHOD_PART) {
        part(r, team);
    } else if (q->method == METHOD_PLAN) {
        from_plan(r, q->plan, 0, team);
    } else if (q->method == METHOD_DENSE || sees_all(r)) {
        if (q->mask) wanted_at_once(r, team);
        else {
            dense(r, team);
            if (team.thread == 0)
                for (int32_t n = 0; n < q->images; n++)
                    r->spent[n] = q->method == METHOD_DENSE ? 1 : (double)r->grid.rows * r->grid.columns * ((double)q->tile * q->tile) / ((double)q->height * q->width);
        }
    } else if (q->method == METHOD_SEGBLOCKS) segblocks(r, team);
    else coarse_to_fine(r, team);
}
