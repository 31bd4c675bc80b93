/* The next frame of a video: what is computed anew, beside what a stream keeps. */
#include "program/program.h"

/* Multiply-accumulates of composing anew the places that changed [MAC]: 4 a sample that comes from a coarser level. */
static int64_t recomposed_macs(const Run *r) {
    const Grid *g = &r->grid;
    const int64_t stride = output_stride(r);
    int64_t pixels = 0;
    for (int64_t k = 0; k < cells_of(r); k++) {
        const int32_t below = g->height - (int32_t)(k / g->columns % g->rows) * g->tile, right = g->width - (int32_t)(k % g->columns) * g->tile;
        if (r->changed[k] && r->held[k] > 0) pixels += (int64_t)(below < g->tile ? below : g->tile) * (right < g->tile ? right : g->tile);
    }
    return 4 * pixels * r->program->head.classes / (stride * stride);
}

/* Compose and label what changed. */
static void renew_answer(Run *r, Team team) {
    Stream *s = r->stream;
    const int32_t output = r->program->head.output, rows = rows_at(r, output_stride(r), 0), columns = columns_at(r, output_stride(r), 0);
    if (team.thread == 0) mark_changed(r, output, r->changed);
    meet(r, team);
    compose_step(r, output, s->logits, r->finest, 0, r->changed, team);
    meet(r, team);
    if (team.thread == 0) {
        r->request->macs += recomposed_macs(r);
        account_part(r, COMPOSING);
        for (int64_t k = 0; k < cells_of(r); k++) s->unscored[k] |= r->changed[k];
        if (!s->labelled) memset(r->changed, 1, (size_t)cells_of(r));
    }
    meet(r, team);
    relabel_step(r, s->logits, rows, columns, r->changed, s->labels, team);
    ALONE({
        s->labelled = !r->unreal;
        account_part(r, LABELLING);
    });
}

/* Compute the tiles of a decision in free slots. */
static void compute(Run *r, Team team) {
    int32_t most = 0;
    for (int64_t k = 0; k < cells_of(r); k++) most = r->decision[k] > most ? r->decision[k] : most;
    ALONE(r->stop = stream_take(r, r->decision));
    stream_move(r, team);
    reduce_input(r, 0, most, team);
    tile_pass(r, team);
    if (r->stop) return;
    keep_pixels_step(r, r->stream->picture, r->decision, team);
    meet(r, team);
    renew_answer(r, team);
}

/* Refuse a decision that is no quadtree, or that leaves out what is not known. */
static int check_decision(const Run *r) {
    if (!is_quadtree(r->decision, r->request->images, r->grid.rows, r->grid.columns))
        return request_refuse(r->request, "the plan is no quadtree: a tile of level l covers an aligned square of 2^l x 2^l cells");
    for (int64_t k = 0; k < cells_of(r) && !r->stream->frames; k++)
        if (r->decision[k] < 0) return request_refuse(r->request, "the plan leaves cells out, and nothing is known of them; a first frame computes every cell");
    return 0;
}

void run_frame(Run *r, Team team) {
    const Request *q = r->request;
    Stream *s = r->stream;
    if (team.thread == 0) account(r, -1);
    if (q->method == METHOD_REUSE) decide_reuse(r, team);
    else if (team.thread == 0) memcpy(r->decision, q->plan, (size_t)cells_of(r));
    if (r->stop || r->unreal) return;
    ALONE({
        r->stop = check_decision(r);
        account_part(r, DECIDING);
    });
    const int64_t tiles = count_leaves(r, r->decision);
    if (tiles) compute(r, team);
    else if (!s->labelled) {
        ALONE(r->grid.first = r->grid.computed = 0);
        renew_answer(r, team);
    }
    if (r->stop) return;
    for (int64_t line; q->labels && (line = take(&team)) < (int64_t)q->images * q->height;)
        memcpy(q->labels + line * q->width, s->labels + line * q->width, (size_t)q->width);
    ALONE({
        for (int64_t k = 0; k < cells_of(r); k++) s->age[k] = r->decision[k] >= 0 ? 0 : s->age[k] + (s->age[k] < 1 << 30);
        s->frames = !r->unreal && !r->overflow;
    });
}
