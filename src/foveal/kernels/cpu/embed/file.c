/* Reading a program file: a safetensors container of four tables, which `foveal/program/file.py` writes. */
#include <stdio.h>
#include <stdlib.h>
#include "embed/file.h"
#include "embed/json.h"

enum { PREFIX = 8, MOST_HEADER = 1 << 24, TABLES = 4 };
enum { SIDES_SINCE = 3, MAP_BEFORE = 32, MULTIPLE_SINCE = 4, HEAD_BEFORE = 32 }; /* bytes of a map, of the head in older files */

static const char *const NAMES[TABLES] = {"head", "maps", "steps", "numbers"};
static const char *const FORMAT = "foveal-program";

/* A file in memory, and where its tables lie in it. */
typedef struct {
    const uint8_t *bytes;
    size_t count, first; /* of the data */
    char *header;
    const uint8_t *table[TABLES];
    size_t length[TABLES];
    size_t map, head; /* bytes of a map, of the head */
    char *error;
    size_t size;
} File;

static int wrong(const File *f, const char *what) {
    if (f->error && f->size) snprintf(f->error, f->size, "%s", what);
    return -1;
}

static char *copy_text(const uint8_t *from, size_t length) {
    char *text = malloc(length + 1);
    if (text) memcpy(text, from, length), text[length] = 0;
    return text;
}

/* Whether a member of an object is a certain string. */
static int is_text(const char *object, const char *name, const char *expected) {
    char *text = json_text(json_member(object, name));
    const int same = text && !strcmp(text, expected);
    free(text);
    return same;
}

static int read_header(File *f) {
    uint64_t length = 0;
    if (f->count < PREFIX) return wrong(f, "it is cut short");
    for (int k = PREFIX - 1; k >= 0; k--) length = length << 8 | f->bytes[k];
    if (length > MOST_HEADER) return wrong(f, "its header is too large");
    if (length > f->count - PREFIX) return wrong(f, "it is cut short");
    f->header = copy_text(f->bytes + PREFIX, (size_t)length);
    if (!f->header) return wrong(f, "there is no memory");
    if (!json_valid(f->header, (size_t)length) || *json_start(f->header) != '{') return wrong(f, "its header is no JSON object");
    if (json_count(json_start(f->header)) != TABLES + 1) return wrong(f, "it holds other tables than those of a program");
    f->first = PREFIX + (size_t)length;
    return 0;
}

static int check_version(File *f, const char *metadata) {
    char version[16];
    if (!is_text(metadata, "format", FORMAT)) return wrong(f, "its format is not foveal-program");
    for (int k = OLDEST_VERSION; k <= PROGRAM_VERSION; k++) {
        snprintf(version, sizeof version, "%d", k);
        if (!is_text(metadata, "version", version)) continue;
        f->map = k < SIDES_SINCE ? MAP_BEFORE : sizeof(MapSpec);
        f->head = k < MULTIPLE_SINCE ? HEAD_BEFORE : sizeof(ProgramHead);
        return 0;
    }
    return wrong(f, "it is of another version");
}

/* Find a table behind the one before it, which ends at `at`; nothing lies between or behind tables. */
static int find_table(File *f, int k, size_t *at) {
    const char *entry = json_member(json_start(f->header), NAMES[k]), *offsets = json_member(entry, "data_offsets"), *shape = json_member(entry, "shape");
    const int floats = k == TABLES - 1;
    int64_t first = 0, last = 0, count = 0;
    if (!is_text(entry, "dtype", floats ? "F32" : "U8")) return wrong(f, "a table is missing, or of another type");
    if (json_count(offsets) != 2 || *offsets != '[' || json_integer(json_first(offsets), &first) || json_integer(json_next(json_first(offsets)), &last))
        return wrong(f, "a table has no place");
    if (first < 0 || (uint64_t)first != *at || last < first) return wrong(f, "its tables do not lie one behind the other");
    if ((uint64_t)last > f->count - f->first) return wrong(f, "it is cut short");
    if (json_count(shape) != 1 || *shape != '[' || json_integer(json_first(shape), &count) || count < 0 || count > last || count * (floats ? 4 : 1) != last - first)
        return wrong(f, "a table has another size than its shape says");
    f->table[k] = f->bytes + f->first + first, f->length[k] = (size_t)(last - first), *at = (size_t)last;
    return 0;
}

/* Names of the steps: as many strings. */
static int check_names(const File *f, const char *metadata, int32_t steps) {
    char *text = json_text(json_member(metadata, "names"));
    int good = text && json_valid(text, strlen(text)) && *json_start(text) == '[' && json_count(json_start(text)) == steps;
    for (const char *at = good ? json_first(json_start(text)) : NULL; at; at = json_next(at)) good = good && *at == '"';
    free(text);
    return good ? 0 : wrong(f, "it does not name its steps");
}

/* Make the program: the tables are copied first, since they may lie anywhere. */
static Program *make(const File *f, const ProgramHead *head) {
    const size_t count = f->length[1] / f->map;
    MapSpec *maps = calloc(count, sizeof *maps);
    StepSpec *steps = malloc(f->length[2]);
    Program *p = NULL;
    if (maps && steps) {
        for (size_t k = 0; k < count; k++) memcpy(maps + k, f->table[1] + k * f->map, f->map);
        memcpy(steps, f->table[2], f->length[2]);
        p = foveal_program_make(head, maps, steps, (const void *)f->table[3], (int64_t)(f->length[3] / sizeof(float)), f->error, (int64_t)f->size);
    }
    free(maps), free(steps);
    if (!p && !(f->size && *f->error)) wrong(f, "there is no memory");
    return p;
}

static int read_info(const File *f, const char *metadata, const ProgramHead *head, Info *info) {
    const char *value = json_member(metadata, "info");
    char *text = json_text(value);
    int status = 0;
    if (value && !(text && json_valid(text, strlen(text)))) status = wrong(f, "its info is no JSON");
    if (!status) status = info_read(text, head, info, f->error, f->size);
    free(text);
    return status;
}

static Program *read_program(File *f, Info *info) {
    size_t at = 0;
    ProgramHead head = {0};
    if (read_header(f)) return NULL;
    const char *metadata = json_member(json_start(f->header), "__metadata__");
    if (check_version(f, metadata)) return NULL;
    for (int k = 0; k < TABLES; k++)
        if (find_table(f, k, &at)) return NULL;
    if (at != f->count - f->first) return wrong(f, "something lies behind its tables"), NULL;
    if (f->length[0] != f->head) return wrong(f, "its tables do not belong together"), NULL;
    memcpy(&head, f->table[0], f->head);
    const int fit = head.maps > 0 && head.steps > 0 && f->length[1] / f->map == (size_t)head.maps && f->length[1] % f->map == 0 &&
                    f->length[2] / sizeof(StepSpec) == (size_t)head.steps && f->length[2] % sizeof(StepSpec) == 0;
    if (!fit) return wrong(f, "its tables do not belong together"), NULL;
    if (check_names(f, metadata, head.steps)) return NULL;
    Program *p = make(f, &head);
    if (p && read_info(f, metadata, &head, info)) {
        foveal_program_free(p);
        return NULL;
    }
    return p;
}

Program *file_read(const uint8_t *bytes, size_t count, Info *info, char *error, size_t size) {
    File f = {.bytes = bytes, .count = count, .error = error, .size = error ? size : 0};
    *info = (Info){0};
    Program *p = read_program(&f, info);
    free(f.header);
    if (!p) info_free(info);
    return p;
}
