/* The public functions of include/foveal.h. */
#if defined(__linux__)
#define _GNU_SOURCE
#include <sched.h>
#endif
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "embed/file.h"
#include "foveal.h"

struct FovealProgram {
    Program *program;
    Info info;
};

int32_t foveal_api_version(void) { return FOVEAL_API_VERSION; }

FovealProgram *foveal_load_bytes(const void *bytes, size_t count, char *error, size_t size) {
    if (error && size) *error = 0;
    FovealProgram *p = calloc(1, sizeof *p);
    if (p) p->program = bytes || !count ? file_read(bytes, count, &p->info, error, size) : NULL;
    if (p && p->program) return p;
    if (error && size && !*error) snprintf(error, size, "there is no memory");
    free(p);
    return NULL;
}

/* All bytes of a file, to be freed; NULL if it cannot be read. */
static uint8_t *read_all(FILE *file, size_t *count) {
    size_t room = 1 << 16;
    uint8_t *bytes = malloc(room);
    *count = 0;
    while (bytes) {
        *count += fread(bytes + *count, 1, room - *count, file);
        if (*count < room) break;
        uint8_t *more = room < SIZE_MAX / 2 ? realloc(bytes, 2 * room) : NULL;
        if (!more) free(bytes);
        bytes = more, room *= 2;
    }
    if (bytes && ferror(file)) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

FovealProgram *foveal_load(const char *path, char *error, size_t size) {
    size_t count = 0;
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = file ? read_all(file, &count) : NULL;
    if (file) fclose(file);
    FovealProgram *p = bytes ? foveal_load_bytes(bytes, count, error, size) : NULL;
    if (!bytes && error && size) snprintf(error, size, "the file cannot be read");
    free(bytes);
    return p;
}

void foveal_free(FovealProgram *p) {
    if (!p) return;
    foveal_program_free(p->program);
    info_free(&p->info);
    free(p);
}

int32_t foveal_classes(const FovealProgram *p) { return p->program->head.classes; }
int32_t foveal_channels(const FovealProgram *p) { return p->program->head.colours; }
int32_t foveal_tile(const FovealProgram *p) { return p->info.tile; }
const char *foveal_name(const FovealProgram *p) { return p->info.name; }

const char *foveal_class_name(const FovealProgram *p, int32_t label) {
    return p->info.classes && label >= 0 && label < p->info.class_count ? p->info.classes[label] : NULL;
}

const uint8_t *foveal_class_color(const FovealProgram *p, int32_t label) {
    return p->info.palette && label >= 0 && label < p->info.class_count ? p->info.palette[label] : NULL;
}

void foveal_grid(const FovealProgram *p, int32_t height, int32_t width, int32_t tile, int32_t *rows, int32_t *columns) {
    if (tile < 1) tile = p->info.tile;
    *rows = height < 1 ? 0 : (height - 1) / tile + 1, *columns = width < 1 ? 0 : (width - 1) / tile + 1;
}

static int32_t shrunk_side(int32_t side, double scale) {
    const double small = nearbyint(side * scale);
    return small < 1 ? 1 : (int32_t)small;
}

static int is_scale(double scale) { return scale >= FOVEAL_LEAST_SCALE && scale <= 1; }

void foveal_shrunk(const FovealProgram *p, int32_t height, int32_t width, double scale, int32_t *small_height, int32_t *small_width) {
    const double share = scale == 0 ? p->info.scale : is_scale(scale) ? scale : 1;
    *small_height = shrunk_side(height, share), *small_width = shrunk_side(width, share);
}

/* Processors that the process may use. */
static int32_t processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : (int32_t)count;
}

/* Pixels that run, as a share of the image's. */
static double share_of(const Request *q, const FovealImage *image) {
    return (double)q->height * q->width / ((double)image->height * image->width);
}

/* What native code is asked for, from what a caller asks for and the file recommends. */
static Request request_of(const FovealProgram *p, const FovealImage *image, const FovealOptions *o, FovealResult *result) {
    static const int32_t METHODS[] = {METHOD_DENSE, METHOD_SEGBLOCKS, METHOD_COARSE_TO_FINE};
    const Info *info = &p->info;
    const int64_t colours = p->program->head.colours;
    const int packed = !image->channel_step && !image->row_step && !image->column_step, coarse_to_fine = o->method == FOVEAL_COARSE_TO_FINE;
    Request q = {
        .image = image->pixels, .bytes = image->format == FOVEAL_BYTES, .images = 1, .height = image->height, .width = image->width,
        .stride = {0, packed ? 1 : image->channel_step, packed ? colours * image->width : image->row_step, packed ? colours : image->column_step},
        .tile = o->tile ? o->tile : info->tile, .method = METHODS[o->method], .threads = o->threads > 0 ? o->threads : processors(),
        .coarse_level = info->coarse_level, .max_level = info->max_level, .gains = info->gains, .blend = info->logit_blend, .isolated = info->isolated_gain, .direct = info->direct,
        .score = coarse_to_fine ? info->coarse_to_fine_score : info->segblocks_score,
        .budget = o->method == FOVEAL_DENSE ? 1 : o->budget, .mask = o->mask,
        .labels = result->labels, .confidence = result->confidence, .levels = result->levels, .work = &result->work,
    };
    memcpy(q.level_gain, info->level_gain, sizeof q.level_gain);
    foveal_shrunk(p, image->height, image->width, o->scale, &q.height, &q.width);
    if (q.height == image->height && q.width == image->width) return q;
    const double budget = q.budget / share_of(&q, image);
    q.full_height = image->height, q.full_width = image->width;
    q.budget = budget < 1 ? budget : 1;
    return q;
}

static int32_t refuse(FovealResult *result, const char *why) {
    snprintf(result->error, sizeof result->error, "%s", why);
    return FOVEAL_REFUSED;
}

int32_t foveal_run(FovealProgram *p, const FovealImage *image, const FovealOptions *options, FovealResult *result) {
    result->error[0] = 0, result->work = 0, result->macs = 0, result->passes = 0;
    if (!image->pixels) return refuse(result, "there is no image");
    if (image->format != FOVEAL_BYTES && image->format != FOVEAL_FLOATS) return refuse(result, "format must be FOVEAL_BYTES or FOVEAL_FLOATS");
    if (options->method < FOVEAL_DENSE || options->method > FOVEAL_COARSE_TO_FINE)
        return refuse(result, "method must be FOVEAL_DENSE, FOVEAL_SEGBLOCKS or FOVEAL_COARSE_TO_FINE");
    if (options->method != FOVEAL_DENSE && !(options->budget > 0 && options->budget <= 1))
        return refuse(result, "budget must be above 0 and at most 1, a share of the dense work");
    if (options->scale != 0 && !is_scale(options->scale))
        return refuse(result, "scale must be 0, or a share of the image's sides between 0.01 and 1");
    if (image->height < 1 || image->width < 1) return refuse(result, "images are empty");
    Request q = request_of(p, image, options, result);
    const int32_t status = foveal_program_run(p->program, &q);
    result->work *= share_of(&q, image);
    result->macs = q.macs, result->passes = q.passes;
    memcpy(result->error, q.error, sizeof result->error);
    if (status == FOVEAL_NO_MEMORY) refuse(result, "there is no memory");
    return status;
}
