/* The tiles of a pass, and the index of every scale. */
#include <stdlib.h>
#include "program/program.h"

/* Append the tiles of some levels [images][rows][columns]: by image, then by first cell in reading order. SKIP
   leaves a cell as it is. Returns how many there are, or -1 without room for them. */
int add_tiles(Run *r, const int8_t *levels) {
    Grid *g = &r->grid;
    g->first = g->tiles;
    for (int64_t n = 0; n < r->request->images; n++)
        for (int64_t y = 0; y < g->rows; y++)
            for (int64_t x = 0; x < g->columns; x++) {
                const int32_t level = levels[(n * g->rows + y) * g->columns + x], last = (1 << (level < 0 ? 0 : level)) - 1;
                if (level < 0 || (y & last) || (x & last)) continue;
                if (g->tiles == r->capacity) return -1;
                const int64_t t = g->tiles++;
                r->image[t] = n, r->level[t] = level, r->row[t] = y, r->column[t] = x;
                for (int64_t i = y; i <= y + last && i < g->rows; i++)
                    for (int64_t j = x; j <= x + last && j < g->columns; j++) {
                        r->owner[(n * g->rows + i) * g->columns + j] = t;
                        r->held[(n * g->rows + i) * g->columns + j] = (int8_t)level;
                    }
                if (level < r->base[n]) r->base[n] = level;
            }
    g->computed = g->tiles - g->first;
    return (int)g->computed;
}

static size_t area_of(const Run *r, const TableSpec *t) {
    const size_t full = (size_t)(side_of(r, t->stride) + 2 * t->border);
    return full * full;
}

/* Number the averages of one scale; more room is made where they need it. */
static int number_means(Run *r, int32_t table) {
    const TableSpec *spec = &r->program->tables[table];
    Table *t = &r->context->tables[table];
    const Grid *g = &r->grid;
    const int32_t side = side_of(r, spec->stride);
    const int32_t *finer = t->finer.at;
    int32_t *index = t->index.at;
    const size_t area = area_of(r, spec);
    int64_t any = 0, parts = 1 << 12;
    for (int64_t k = 0; k < g->computed; k++) any += finer[k];
    t->means = any;
    if (!any) return 0;
    for (;;) {
        parts = parts < 8 * any ? 8 * any : parts;
        Means m = {room(&t->start, (size_t)(any + 1) * 4), room(&t->source, (size_t)parts * 4), room(&t->share, (size_t)parts * 4), 0, 0, any + 1, parts};
        if (!m.start || !m.source || !m.share) return -1;
        m.start[0] = 0;
        for (int64_t k = 0; k < g->computed; k++)
            if (finer[k]) index_means(g, side, spec->border, spec->edge, g->first + k, index + (size_t)k * area, &m);
        if (m.parts <= parts) return 0;
        parts = m.parts;
        for (int64_t k = 0; k < g->computed; k++)
            if (finer[k]) index_tile(g, side, spec->border, spec->edge, g->first + k, index + (size_t)k * area);
    }
}

/* Index all scales of the tiles that are computed now. */
void build_tables(Run *r, Team team) {
    const Program *p = r->program;
    Grid *g = &r->grid;
    if (team.thread == 0)
        for (int32_t k = 0; k < p->table_count; k++) {
            Table *t = &r->context->tables[k];
            t->means = 0;
            if (!room(&t->index, area_of(r, &p->tables[k]) * (size_t)g->computed * 4) || !room(&t->finer, (size_t)g->computed * 4)) r->stop = -1;
        }
    meet(r, team);
    if (r->stop) return;
    for (int64_t task; (task = take(&team)) < p->table_count * g->computed;) {
        const int32_t k = (int32_t)(task / g->computed);
        const int64_t tile = task % g->computed;
        const TableSpec *spec = &p->tables[k];
        Table *t = &r->context->tables[k];
        int32_t *index = (int32_t *)t->index.at + (size_t)tile * area_of(r, spec);
        ((int32_t *)t->finer.at)[tile] = (int32_t)index_tile(g, side_of(r, spec->stride), spec->border, spec->edge, g->first + tile, index);
    }
    meet(r, team);
    for (int64_t task; (task = take(&team)) < p->table_count;)
        if (number_means(r, (int32_t)task)) r->stop = -1;
    meet(r, team);
    if (team.thread == 0) {
        size_t most = 0;
        for (int32_t s = 0; s < p->head.steps; s++) {
            if (p->table[s] < 0) continue;
            const size_t floats = (size_t)r->context->tables[p->table[s]].means * (size_t)p->maps[p->steps[s].in].channels;
            most = floats > most ? floats : most;
        }
        r->means = most ? room(&r->context->means, most * 4) : NULL;
        if (most && !r->means) r->stop = -1;
    }
    meet(r, team);
}
