/* Streams: making, copying and freeing what is kept between the frames of a video, and where its tiles lie. */
#include <stdlib.h>
#include "platform/export.h"
#include "program/program.h"

enum { SKIPPED = -1, GUARD = 64, MOST_SAMPLES = 1 << 30 };

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

static int64_t side_at(const Stream *s, const MapSpec *m) { return s->tile / m->stride; }

/* Bytes of one tile of a map. */
static size_t tile_bytes(const Stream *s, int32_t map) {
    const MapSpec *m = &s->program->maps[map];
    return (size_t)(side_at(s, m) * side_at(s, m) * m->channels) * sample_bytes(m);
}

static int is_kept(const Stream *s, int32_t map) { return s->program->reached[map] && s->program->maps[map].kind == TILED; }

static size_t logits_count(const Stream *s) {
    const int32_t stride = s->program->maps[s->program->head.output].stride;
    return (size_t)s->images * (size_t)extent(s->height, stride) * (size_t)extent(s->width, stride) * (size_t)s->program->head.classes;
}

static size_t picture_count(const Stream *s) { return (size_t)s->images * (size_t)s->program->head.colours * (size_t)s->height * (size_t)s->width; }

/* Give every part its place; without memory only the bytes are counted. */
static size_t lay_out(Stream *s, char *at) {
    const Program *p = s->program;
    const size_t slots = (size_t)s->slots, cells = slots;
    const size_t sizes[] = {slots * 8, slots * 8, slots * 8, slots * 8, cells * 8, slots * 8, slots * 8, cells * 4, cells,
                            (size_t)s->images * (size_t)s->height * (size_t)s->width, picture_count(s) * 4, logits_count(s) * 4, (size_t)p->head.maps * sizeof(size_t),
                            cells * 2 * (size_t)p->head.classes * 4, cells};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    void *places[COUNT];
    size_t total = 0;
    for (size_t k = 0; k < COUNT; k++) places[k] = at ? at + total : NULL, total += aligned(sizes[k]);
    s->image = places[0], s->level = places[1], s->row = places[2], s->column = places[3], s->owner = places[4];
    s->from = places[5], s->to = places[6], s->age = places[7], s->held = places[8], s->labels = places[9];
    s->picture = places[10], s->logits = places[11], s->offset = places[12], s->shares = places[13], s->unscored = places[14], s->pool = at ? at + total : NULL;
    size_t pool = 0;
    for (int32_t m = 0; m < p->head.maps; m++) {
        if (at) s->offset[m] = pool;
        if (is_kept(s, m)) pool += aligned(slots * tile_bytes(s, m) + GUARD);
    }
    return total + pool;
}

/* Forget the frame that is held; what follows is a first one. */
void stream_forget(Stream *s) {
    for (int64_t k = 0; k < s->slots; k++) s->image[k] = -1, s->owner[k] = UNKNOWN, s->held[k] = SKIPPED, s->age[k] = 0, s->unscored[k] = 1;
    s->frames = s->labelled = 0;
}

/* Make a stream for frames of one size. NULL with the reason in `error` [size], or without memory. */
EXPORT Stream *foveal_stream_make(const Program *p, int32_t images, int32_t height, int32_t width, int32_t tile, char *error, int64_t size) {
    Request q = {.images = images, .height = height, .width = width, .tile = tile, .gains = 1};
    if (size > 0) *error = 0;
    int status = request_check(p, &q);
    const int64_t rows = status ? 1 : extent(height, tile), columns = status ? 1 : extent(width, tile), slots = images * rows * columns;
    if (!status && slots > MOST_SAMPLES / ((int64_t)tile * tile)) status = request_refuse(&q, "the frames have too many pixels for one stream; split them");
    if (status) {
        for (int64_t k = 0; k < size && k < (int64_t)sizeof q.error; k++) error[k] = q.error[k];
        return NULL;
    }
    Stream *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    *s = (Stream){.program = p, .images = images, .height = height, .width = width, .tile = tile, .rows = (int32_t)rows, .columns = (int32_t)columns, .slots = slots};
    char *at = room(&s->memory, lay_out(s, NULL));
    if (!at) {
        free(s);
        return NULL;
    }
    lay_out(s, at);
    stream_forget(s);
    return s;
}

EXPORT void foveal_stream_free(Stream *s) {
    if (!s) return;
    room_free(&s->memory);
    free(s);
}

/* Bytes that a stream takes, whatever its frames show. */
EXPORT int64_t foveal_stream_bytes(const Stream *s) { return (int64_t)s->memory.bytes; }

/* Only one run, or copy, at a time. */
static int enter(Stream *s) { return !__atomic_exchange_n(&s->running, 1, __ATOMIC_ACQUIRE); }
static void leave(Stream *s) { __atomic_store_n(&s->running, 0, __ATOMIC_RELEASE); }

/* Another stream with the same content; NULL without memory, or while the stream runs. */
EXPORT Stream *foveal_stream_copy(Stream *s) {
    if (!enter(s)) return NULL;
    Stream *to = foveal_stream_make(s->program, s->images, s->height, s->width, s->tile, NULL, 0);
    if (to) {
        memcpy(to->memory.at, s->memory.at, lay_out(s, s->memory.at));
        to->frames = s->frames, to->labelled = s->labelled;
    }
    leave(s);
    return to;
}

/* The next frame. As foveal_program_run; 1 if a scene begins and nobody says what is computed then. After an error
   other than that, in a frame that was begun, nothing is held. */
EXPORT int32_t foveal_stream_run(Stream *s, Request *q, Reuse *u) {
    u->moved = 0, u->relabelled = 0;
    if (q->method != METHOD_PLAN && q->method != METHOD_REUSE) return request_refuse(q, "there is no such method for streams");
    if (q->images != s->images || q->height != s->height || q->width != s->width || q->tile != s->tile)
        return request_refuse(q, "the frames have another size, number or tile than those of the stream; make another stream");
    if (q->method == METHOD_PLAN && !q->plan) return request_refuse(q, "there is no plan");
    if (q->method == METHOD_REUSE && u->max_age < 1) return request_refuse(q, "max_age must be at least 1");
    if (q->mask || q->confidence || q->range || q->full_height) return request_refuse(q, "streams have no masks, confidence, ranges or scale");
    if (!enter(s)) return request_refuse(q, "this stream is running in another thread; give every thread a stream of its own");
    const int32_t status = program_run(s->program, q, s, u, run_frame);
    if (status && !s->frames) stream_forget(s);
    leave(s);
    return status;
}

/* Let a run work on the places of a stream. */
void stream_join(Run *r) {
    Stream *s = r->stream;
    r->grid.image = r->image = s->image, r->grid.level = r->level = s->level, r->grid.row = r->row = s->row;
    r->grid.column = r->column = s->column, r->grid.owner = r->owner = s->owner;
    r->held = s->held, r->logits = s->logits, r->crossing = 1;
    r->grid.tiles = s->slots;
}

int is_quadtree(const int8_t *levels, int64_t images, int32_t rows, int32_t columns) {
    for (int64_t k = 0; k < images * rows * columns; k++)
        if (levels[k] < SKIPPED || levels[k] >= MOST_LEVELS) return 0;
    for (int64_t n = 0; n < images; n++)
        for (int32_t y = 0; y < rows; y++)
            for (int32_t x = 0; x < columns; x++) {
                const int8_t *map = levels + n * rows * columns, level = map[(int64_t)y * columns + x];
                const int32_t span = level < 0 ? 1 : 1 << level;
                if (map[(int64_t)(y / span * span) * columns + x / span * span] != level) return 0;
                for (int32_t i = y; !(y % span) && !(x % span) && i < y + span && i < rows; i++)
                    for (int32_t j = x; j < x + span && j < columns; j++)
                        if (map[(int64_t)i * columns + j] != level) return 0;
            }
    return 1;
}

/* Free the slots whose tiles own no cell. */
static void free_slots(Stream *s) {
    for (int64_t k = 0; k < s->slots; k++) s->to[k] = 0;
    for (int64_t k = 0; k < s->slots; k++)
        if (s->owner[k] >= 0) s->to[s->owner[k]] = 1;
    for (int64_t k = 0; k < s->slots; k++)
        if (!s->to[k]) s->image[k] = -1;
}

/* First of `count` slots one after the other that hold the fewest tiles. */
static int64_t find_window(const Stream *s, int64_t count) {
    int64_t found = 0, least = 0, here = 0;
    for (int64_t k = 0; k < count; k++) here += s->image[k] >= 0;
    least = here;
    for (int64_t k = count; k < s->slots; k++) {
        here += (s->image[k] >= 0) - (s->image[k - count] >= 0);
        if (here < least) least = here, found = k - count + 1;
    }
    return found;
}

/* Let the cells under a tile, which `to` describes now, know its new slot. */
static void rename_owner(Stream *s, int64_t from, int64_t to) {
    const int64_t span = (int64_t)1 << s->level[to], below = s->row[to] + span, right = s->column[to] + span;
    int64_t *owner = s->owner + s->image[to] * s->rows * s->columns;
    for (int64_t y = s->row[to]; y < below && y < s->rows; y++)
        for (int64_t x = s->column[to]; x < right && x < s->columns; x++)
            if (owner[y * s->columns + x] == from) owner[y * s->columns + x] = to;
}

/* Note that the tiles in a window move to free slots outside it. There are enough of these: every tile that stays and
   every new one owns a cell that no other has, and there is a slot for every cell. */
static void clear_window(Stream *s, int64_t first, int64_t count) {
    int64_t free = 0;
    s->moves = 0;
    for (int64_t k = first; k < first + count; k++) {
        if (s->image[k] < 0) continue;
        while (s->image[free] >= 0 || (free >= first && free < first + count)) free++;
        s->from[s->moves] = k, s->to[s->moves++] = free;
        s->image[free] = s->image[k], s->level[free] = s->level[k], s->row[free] = s->row[k], s->column[free] = s->column[k];
        s->image[k] = -1;
    }
    for (int64_t m = 0; m < s->moves; m++) rename_owner(s, s->from[m], s->to[m]);
}

/* Give the tiles of a decision slots one after the other, and count their work; 0, or -1 without memory. */
int stream_take(Run *r, const int8_t *levels) {
    Stream *s = r->stream;
    Request *q = r->request;
    const int64_t count = count_leaves(r, levels), area = (int64_t)s->rows * s->columns;
    s->frames = 0; /* until the frame is done */
    for (int64_t k = 0; k < s->slots; k++)
        if (levels[k] >= 0) s->owner[k] = UNKNOWN;
    free_slots(s);
    const int64_t first = find_window(s, count);
    clear_window(s, first, count);
    r->reuse->moved = (int32_t)s->moves;
    for (int32_t n = 0; n < q->images; n++) r->base[n] = MOST_LEVELS;
    r->grid.tiles = first, r->capacity = first + count, r->pass = (Pass){0, 0};
    if (add_tiles(r, levels) != count) return -1;
    r->grid.tiles = s->slots, r->capacity = count, q->passes++;
    for (int64_t k = 0; k < s->slots; k++)
        if (r->held[k] < r->base[k / area]) r->base[k / area] = r->held[k];
    const double share = ((double)q->tile * q->tile) / ((double)q->height * q->width);
    for (int64_t t = first; t < first + count; t++) q->work[r->image[t]] += 1;
    for (int32_t n = 0; n < q->images; n++) r->spent[n] = q->work[n] * share, q->work[n] = 0;
    return plan_memory(r);
}

/* Move what has to give way, in every map. */
void stream_move(Run *r, Team team) {
    const Stream *s = r->stream;
    const int32_t maps = r->program->head.maps;
    for (int64_t task; (task = take(&team)) < s->moves * maps;) {
        const int32_t map = (int32_t)(task % maps);
        if (!is_kept(s, map)) continue;
        const size_t bytes = tile_bytes(s, map);
        char *pool = s->pool + s->offset[map];
        memcpy(pool + (size_t)s->to[task / maps] * bytes, pool + (size_t)s->from[task / maps] * bytes, bytes);
    }
    meet(r, team);
}

/* Number the tiles that are held, in the order of their slots; returns how many. */
static int64_t number_tiles(const Stream *s, int64_t *number) {
    int64_t tiles = 0;
    for (int64_t k = 0; k < s->slots; k++) number[k] = s->image[k] < 0 ? -1 : tiles++;
    return tiles;
}

/* Copy what is held: with `tiles` 0 only their number is written, then everything into places that have room for so
   many, the maps only if there is a place for them. -1 while the stream runs, or for another number of tiles. */
EXPORT int32_t foveal_stream_copy_out(Stream *s, StreamParts *out) {
    if (!enter(s)) return -1;
    const int64_t tiles = number_tiles(s, s->from);
    int status = 0;
    if (!out->tiles) out->tiles = tiles;
    else if (out->tiles != tiles) status = -1;
    else {
        for (int64_t k = 0; k < s->slots; k++) {
            const int64_t t = s->from[k];
            out->owner[k] = s->owner[k] < 0 ? -1 : s->from[s->owner[k]];
            if (t < 0) continue;
            out->image[t] = s->image[k], out->level[t] = s->level[k], out->row[t] = s->row[k], out->column[t] = s->column[k];
            for (int32_t m = 0; m < s->program->head.maps && out->maps; m++)
                if (is_kept(s, m)) memcpy((char *)out->maps[m] + (size_t)t * tile_bytes(s, m), s->pool + s->offset[m] + (size_t)k * tile_bytes(s, m), tile_bytes(s, m));
        }
        memcpy(out->age, s->age, (size_t)s->slots * 4);
        memcpy(out->picture, s->picture, picture_count(s) * 4), memcpy(out->logits, s->logits, logits_count(s) * 4);
    }
    leave(s);
    return status;
}

/* Whether every cell belongs to a tile that covers it, and every tile has a cell. */
static int is_whole(const Stream *s, const StreamParts *in, int64_t *owned) {
    const int64_t area = (int64_t)s->rows * s->columns;
    for (int64_t t = 0; t < in->tiles; t++) owned[t] = 0;
    for (int64_t k = 0; k < s->slots; k++) {
        const int64_t t = in->owner[k], y = k % area / s->columns, x = k % s->columns;
        if (t < 0 || t >= in->tiles || in->level[t] < 0 || in->level[t] >= MOST_LEVELS || in->age[k] < 0) return 0;
        const int64_t span = (int64_t)1 << in->level[t];
        if (in->image[t] != k / area || in->row[t] != y / span * span || in->column[t] != x / span * span) return 0;
        owned[t] = 1;
    }
    for (int64_t t = 0; t < in->tiles; t++)
        if (!owned[t]) return 0;
    return 1;
}

/* Hold what was copied out. 0, -1 while the stream runs, -2 if the parts do not belong together. */
EXPORT int32_t foveal_stream_copy_in(Stream *s, const StreamParts *in) {
    if (!enter(s)) return -1;
    int status = !in->maps || in->tiles < 1 || in->tiles > s->slots || !is_whole(s, in, s->from) ? -2 : 0;
    if (!status && (unreal(in->picture, (int64_t)picture_count(s)) || unreal(in->logits, (int64_t)logits_count(s)))) status = -2;
    if (!status) {
        stream_forget(s);
        for (int64_t t = 0; t < in->tiles; t++) {
            s->image[t] = in->image[t], s->level[t] = in->level[t], s->row[t] = in->row[t], s->column[t] = in->column[t];
            for (int32_t m = 0; m < s->program->head.maps; m++)
                if (is_kept(s, m)) memcpy(s->pool + s->offset[m] + (size_t)t * tile_bytes(s, m), (const char *)in->maps[m] + (size_t)t * tile_bytes(s, m), tile_bytes(s, m));
        }
        for (int64_t k = 0; k < s->slots; k++) s->owner[k] = in->owner[k], s->held[k] = (int8_t)in->level[in->owner[k]], s->age[k] = in->age[k] < 1 << 30 ? in->age[k] : 1 << 30;
        memcpy(s->picture, in->picture, picture_count(s) * 4), memcpy(s->logits, in->logits, logits_count(s) * 4);
        s->frames = 1;
    }
    leave(s);
    return status;
}
