/* Memory of a run: maps that live at different times share places, maps that later passes read have their own. */
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "program/program.h"

enum { HUGE = 1 << 21, ALIGNED = 64, GUARD = 64 };

void room_free(Room *r) {
    if (r->at) munmap(r->at, r->bytes);
    *r = (Room){NULL, 0};
}

/* At least so many bytes, huge pages where the system has them; what was there is lost if it grows. NULL if
   there is no memory. */
void *room(Room *r, size_t bytes) {
    if (bytes <= r->bytes) return r->at;
    room_free(r);
    bytes = (bytes + bytes / 8 + 4095) / 4096 * 4096;
    if (bytes >= HUGE) bytes = (bytes + HUGE - 1) / HUGE * HUGE;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE) madvise(at, bytes, MADV_HUGEPAGE);
#endif
    *r = (Room){at, bytes};
    return at;
}

size_t sample_bytes(const MapSpec *m) { return m->precision == F32 ? 4 : m->precision == BF16 ? 2 : 1; }

/* Columns of a grid over a map: those it has, or as many as keep its bins about square. Python's rounding, half to even. */
int64_t bins_columns(const MapSpec *bins, int32_t height, int32_t width) {
    if (bins->columns) return bins->columns;
    const int64_t columns = (int64_t)nearbyint((double)((int64_t)bins->grid * width) / (double)height);
    return columns < 1 ? 1 : columns;
}

/* Side of a whole map where the image has `side` samples at its stride. */
int64_t whole_side(const MapSpec *whole, int32_t side) {
    if (!whole->down) return side;
    const int64_t found = ((int64_t)whole->up * side + whole->more) / whole->down;
    return found < whole->least ? whole->least : found;
}

/* Sides at the finest level that occurs in the image. */
Sides sides_of(const Run *r, const MapSpec *m, int64_t image) {
    const int32_t height = rows_at(r, m->stride, r->base[image]), width = columns_at(r, m->stride, r->base[image]);
    if (m->kind == BINS) return (Sides){m->grid, (int32_t)bins_columns(m, height, width)};
    return (Sides){(int32_t)whole_side(m, height), (int32_t)whole_side(m, width)};
}

/* Rows of a map of WHOLE or BINS that the images before one have. */
int64_t rows_before(const Run *r, const MapSpec *m, int64_t image) {
    int64_t rows = 0;
    for (int64_t n = 0; n < image; n++) {
        const Sides s = sides_of(r, m, n);
        rows += (int64_t)s.rows * s.columns;
    }
    return rows;
}

static int persistent(const Run *r, int32_t map) {
    return r->crossing && (r->program->reached[map] || (r->one_pass && r->program->feeds[map]));
}

/* Whether a map lies in a stream, for the frames that follow. */
static int is_kept(const Run *r, int32_t map) { return r->stream && r->program->reached[map] && r->program->maps[map].kind == TILED; }

static size_t bytes_of(const Run *r, int32_t map) {
    const Program *p = r->program;
    const MapSpec *m = &p->maps[map];
    if (is_kept(r, map) || (r->one_pass && is_inner(p, map, r->grid.tile))) return 0;
    const int64_t images = r->request->images;
    int64_t rows = 0;
    if (m->kind == TILED) {
        const int32_t side = side_of(r, m->stride);
        const int64_t tiles = r->capacity * side * side;
        const int64_t plain = plain_rows(&r->grid, side);
        rows = persistent(r, map) ? plain + tiles : plain > tiles ? plain : tiles;
    } else if (m->kind == WHOLE) {
        rows = images * whole_side(m, rows_at(r, m->stride, 0)) * whole_side(m, columns_at(r, m->stride, 0));
    } else
        for (int32_t level = 0; level < MOST_LEVELS; level++) {
            const int64_t bins = m->grid * bins_columns(m, rows_at(r, m->stride, level), columns_at(r, m->stride, level));
            rows = images * bins > rows ? images * bins : rows;
        }
    return ((size_t)rows * (size_t)m->channels * sample_bytes(m) + GUARD + ALIGNED - 1) / ALIGNED * ALIGNED;
}

/* Steps before and after which a map is not needed. */
typedef struct {
    int32_t birth, death;
} Life;

static void touch(Life *lives, int32_t map, int32_t step) {
    if (map < 0) return;
    if (lives[map].birth > step) lives[map].birth = step;
    if (lives[map].death < step) lives[map].death = step;
}

static void live(const Run *r, Life *lives) {
    const Program *p = r->program;
    for (int32_t m = 0; m < p->head.maps; m++) lives[m] = (Life){p->head.steps, -1};
    touch(lives, p->head.input, -1);
    touch(lives, p->head.output, p->head.steps);
    for (int32_t m = 0; r->request->method == METHOD_PART && m < p->head.maps; m++) {
        if (r->request->given && r->request->given[m]) touch(lives, m, -1);
        if (r->request->taken && r->request->taken[m]) touch(lives, m, p->head.steps);
    }
    for (int32_t s = r->first; s < r->last; s++) {
        const int32_t maps[3] = {p->steps[s].in, p->steps[s].other, p->steps[s].out};
        for (int k = 0; k < 3; k++) {
            touch(lives, maps[k], s);
            if (block_of(r, s) < 0) touch(lives, maps[k], s - 1), touch(lives, maps[k], s - 2); /* all of a block runs at its first step */
            if (maps[k] >= 0 && r->grid.images && p->alias[maps[k]] >= 0) touch(lives, p->alias[maps[k]], s);
        }
    }
    for (int32_t m = 0; m < p->head.maps; m++)
        if (persistent(r, m)) lives[m] = (Life){-1, p->head.steps};
}

/* Give every map its offset: the largest first, each as low as the maps that live with it allow. */
int plan_memory(Run *r) {
    const Program *p = r->program;
    const int32_t maps = p->head.maps;
    Life *lives = malloc((size_t)maps * sizeof *lives);
    int32_t *order = malloc((size_t)maps * sizeof *order);
    size_t *bytes = malloc((size_t)maps * sizeof *bytes), most = 0;
    if (!lives || !order || !bytes) {
        free(lives), free(order), free(bytes);
        return -1;
    }
    live(r, lives);
    for (int32_t m = 0; m < maps; m++) {
        bytes[m] = bytes_of(r, m);
        int32_t k = m;
        for (; k > 0 && bytes[order[k - 1]] < bytes[m]; k--) order[k] = order[k - 1];
        order[k] = m;
    }
    for (int32_t k = 0; k < maps; k++) {
        const int32_t m = order[k];
        size_t at = 0;
        for (int moved = 1; moved;) {
            moved = 0;
            for (int32_t j = 0; j < k; j++) {
                const int32_t o = order[j];
                const int together = lives[o].birth <= lives[m].death && lives[m].birth <= lives[o].death;
                if (together && at < r->offset[o] + bytes[o] && r->offset[o] < at + bytes[m])
                    at = r->offset[o] + bytes[o], moved = 1;
            }
        }
        r->offset[m] = at;
        most = at + bytes[m] > most ? at + bytes[m] : most;
    }
    free(lives), free(order), free(bytes);
    r->arena = room(&r->context->arena, most);
    return r->arena ? 0 : -1;
}

float *pool_of(const Run *r, int32_t map) {
    return (float *)(is_kept(r, map) ? r->stream->pool + r->stream->offset[map] : r->arena + r->offset[map]);
}

/* Where the running pass has its part of a map. */
float *current(const Run *r, int32_t map) {
    const Program *p = r->program;
    if (r->pass.plain && p->alias[map] >= 0) map = p->alias[map];
    const MapSpec *m = &p->maps[map];
    int64_t row = 0;
    if (m->kind == TILED && !r->pass.plain && persistent(r, map)) {
        const int32_t side = side_of(r, m->stride);
        row = plain_rows(&r->grid, side) + r->grid.first * side * side;
    } else if (m->kind != TILED && r->part >= 0) row = rows_before(r, m, r->part);
    return (float *)((char *)pool_of(r, map) + (size_t)row * (size_t)m->channels * sample_bytes(m));
}
