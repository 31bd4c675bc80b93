/* What of a whole map the tiles of a pass are cut from: products sample by sample that nothing else reads are computed there
   alone. A first pass sees everything, later ones a few tiles, but modules that see the whole map take the whole of it. */
#include <stdlib.h>
#include "program/program.h"

enum { MOST_QUARTERS = 3 }; /* of a map: where more is wanted, all of it is computed */

static int same_sides(const MapSpec *a, const MapSpec *b) {
    return a->stride == b->stride && a->up == b->up && a->down == b->down && a->more == b->more && a->least == b->least;
}

static int is_whole_product(const Program *p, const StepSpec *s) {
    const MapSpec *in = &p->maps[s->in], *out = &p->maps[s->out];
    return is_product(s) && s->other < 0 && in->kind == WHOLE && out->kind == WHOLE && same_sides(in, out);
}

/* Find the products whose result only CUT reads, of maps of one size: that of the last one. */
int find_cut_only(Program *p) {
    const MapSpec *like = NULL;
    p->cut_only = calloc((size_t)p->head.steps + 1, 1);
    if (!p->cut_only) return -1;
    for (int32_t k = p->head.steps - 1; k >= 0; k--) {
        const StepSpec *s = &p->steps[k];
        int cuts = 0, others = 0;
        if (!is_whole_product(p, s) || (like && !same_sides(like, &p->maps[s->out]))) continue;
        for (int32_t j = 0; j < p->head.steps; j++) {
            const StepSpec *t = &p->steps[j];
            if (j == k) continue;
            cuts += t->kind == CUT && t->in == s->out;
            others += (t->kind != CUT && t->in == s->out) || t->other == s->out || t->out == s->out;
        }
        p->cut_only[k] = cuts && !others;
        if (p->cut_only[k]) like = &p->maps[s->out];
    }
    return 0;
}

static const MapSpec *like_of(const Program *p, int32_t *widest) {
    const MapSpec *like = NULL;
    *widest = 0;
    for (int32_t k = 0; k < p->head.steps; k++) {
        if (!p->cut_only[k]) continue;
        like = &p->maps[p->steps[k].out];
        *widest = like->channels > *widest ? like->channels : *widest;
    }
    return like;
}

/* List the rows under the tiles of the running pass; r->wanted is NULL where it is not worth it. -1 without memory. */
int find_wanted(Run *r) {
    int32_t widest;
    const MapSpec *like = like_of(r->program, &widest);
    const Grid *g = &r->grid;
    r->wanted = NULL, r->wanted_count = 0;
    if (r->pass.plain || !like || like->kind != WHOLE || like->down || g->tile < like->stride) return 0;
    const int64_t rows = rows_before(r, like, r->request->images);
    int32_t *list = room(&r->context->wanted, (size_t)rows * sizeof(int32_t) + (size_t)rows);
    if (!list) return -1;
    uint8_t *mark = (uint8_t *)(list + rows);
    memset(mark, 0, (size_t)rows);
    for (int64_t t = g->first; t < g->first + g->computed; t++) {
        const Sides sides = sides_of(r, like, g->image[t]);
        const int32_t cell = g->tile / like->stride, base = r->base[g->image[t]];
        const int32_t size = cell << g->level[t] >> base, top = (int32_t)(g->row[t] * cell >> base), left = (int32_t)(g->column[t] * cell >> base);
        const int32_t wide = left + size < sides.columns ? size : sides.columns - left;
        uint8_t *image = mark + rows_before(r, like, g->image[t]);
        for (int32_t y = top; y < top + size && y < sides.rows && wide > 0; y++) memset(image + (int64_t)y * sides.columns + left, 1, (size_t)wide);
    }
    for (int64_t row = 0; row < rows; row++)
        if (mark[row]) list[r->wanted_count++] = (int32_t)row;
    if (4 * r->wanted_count > MOST_QUARTERS * rows) return 0;
    if (!room(&r->context->few, (size_t)r->wanted_count * (size_t)widest * sizeof(float) + 64)) return -1;
    r->wanted = list;
    return 0;
}

/* Put rows that were computed one behind the other where they belong in their map. */
void put_wanted(const Run *r, int32_t map, const void *few, Team team) {
    const MapSpec *m = &r->program->maps[map];
    const size_t bytes = (size_t)m->channels * sample_bytes(m);
    const int64_t size = lines_per_task(r->wanted_count, &team);
    char *to = (char *)current(r, map);
    for (int64_t first; (first = take(&team) * size) < r->wanted_count;)
        for (int64_t k = first; k < first + size && k < r->wanted_count; k++)
            memcpy(to + (size_t)r->wanted[k] * bytes, (const char *)few + (size_t)k * bytes, bytes);
}
