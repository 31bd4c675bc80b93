/* What a file says besides its tables: names, colours, and the settings that suit its network. */
#include <stdio.h>
#include <stdlib.h>
#include "embed/file.h"
#include "embed/json.h"
#include "foveal.h"

enum { DEFAULT_TILE = 32, MOST_GAIN = 1 << 20, SETTINGS = 10, WITHOUT_SCALE = 9, OLDEST_SETTINGS = 7 };

static const char *const SCORES[] = {"entropy", "margin", "weighted_entropy", "regional_entropy"};

void info_free(Info *info) {
    for (int32_t k = 0; info->classes && k < info->class_count; k++) free(info->classes[k]);
    free(info->classes), free(info->palette), free(info->name);
    *info = (Info){0};
}

static int wrong(char *error, size_t size, const char *what) {
    if (error && size) snprintf(error, size, "its info has no proper %s", what);
    return -1;
}

static int read_size(const char *value, int32_t least, int32_t most, int32_t *out) {
    int64_t number;
    if (json_integer(value, &number) || number < least || number > most) return -1;
    *out = (int32_t)number;
    return 0;
}

static int read_score(const char *value, int32_t *out) {
    char *name = json_text(value);
    int status = -1;
    for (int32_t k = 0; name && k <= REGIONAL_ENTROPY; k++)
        if (!strcmp(name, SCORES[k])) *out = k, status = 0;
    free(name);
    return status;
}

static int read_classes(const char *array, int32_t classes, Info *info) {
    if (!array || *array != '[' || json_count(array) != classes) return -1;
    info->classes = calloc((size_t)classes, sizeof *info->classes);
    if (!info->classes) return -1;
    info->class_count = classes;
    int32_t k = 0;
    for (const char *at = json_first(array); at; at = json_next(at), k++) {
        info->classes[k] = json_text(at);
        if (!info->classes[k]) return -1;
    }
    return 0;
}

static int read_palette(const char *array, int32_t classes, Info *info) {
    if (!array || *array != '[' || json_count(array) != classes) return array && *array == '[' && json_count(array) == 0 ? 0 : -1;
    info->palette = calloc((size_t)classes, sizeof *info->palette);
    int32_t k = 0, value = 0;
    for (const char *at = json_first(array); info->palette && at; at = json_next(at), k++) {
        if (*at != '[' || json_count(at) != 3) return -1;
        int32_t c = 0;
        for (const char *part = json_first(at); part; part = json_next(part), c++) {
            if (read_size(part, 0, 255, &value)) return -1;
            info->palette[k][c] = (uint8_t)value;
        }
    }
    return info->palette ? 0 : -1;
}

static int read_gains(const char *array, Info *info) {
    const int64_t count = array && *array == '[' ? json_count(array) : 0;
    if (count < 1 || count > MOST_LEVELS) return -1;
    info->gains = 0;
    for (const char *at = json_first(array); at; at = json_next(at)) {
        double *gain = &info->level_gain[info->gains++];
        if (json_number(at, gain) || !(*gain >= 0 && *gain <= MOST_GAIN)) return -1;
    }
    return 0;
}

static int read_share(const char *value, double *out) { return json_number(value, out) || !(*out >= 0 && *out <= 1) ? -1 : 0; }

static int read_run(const char *run, int32_t coarsest, Info *info, char *error, size_t size) {
    const int64_t members = json_count(run);
    if ((members != SETTINGS && members != WITHOUT_SCALE && members != OLDEST_SETTINGS) || *run != '{') return wrong(error, size, "run");
    if (read_size(json_member(run, "tile"), 1, MOST_TILE, &info->tile) || info->tile % coarsest) return wrong(error, size, "tile");
    if (read_size(json_member(run, "coarse_level"), 0, MOST_LEVELS - 1, &info->coarse_level)) return wrong(error, size, "coarse_level");
    if (read_size(json_member(run, "max_level"), 0, MOST_LEVELS - 1, &info->max_level)) return wrong(error, size, "max_level");
    if (read_score(json_member(run, "segblocks_score"), &info->segblocks_score)) return wrong(error, size, "segblocks_score");
    if (read_score(json_member(run, "coarse_to_fine_score"), &info->coarse_to_fine_score)) return wrong(error, size, "coarse_to_fine_score");
    if (read_gains(json_member(run, "level_gain"), info)) return wrong(error, size, "level_gain");
    if (read_share(json_member(run, "logit_blend"), &info->logit_blend)) return wrong(error, size, "logit_blend");
    if (members == OLDEST_SETTINGS) return 0;
    if (read_share(json_member(run, "isolated_gain"), &info->isolated_gain)) return wrong(error, size, "isolated_gain");
    if (json_truth(json_member(run, "direct"), &info->direct)) return wrong(error, size, "direct");
    if (members == WITHOUT_SCALE) return 0;
    return read_share(json_member(run, "scale"), &info->scale) || info->scale < FOVEAL_LEAST_SCALE ? wrong(error, size, "scale") : 0;
}

int info_read(const char *text, const ProgramHead *head, Info *info, char *error, size_t size) {
    const int32_t coarsest = head->coarsest_stride;
    *info = (Info){.tile = (DEFAULT_TILE + coarsest - 1) / coarsest * coarsest, .coarse_level = 1, .max_level = 2, .segblocks_score = ENTROPY,
                   .coarse_to_fine_score = WEIGHTED_ENTROPY, .gains = 2, .level_gain = {0.5, 1.0}, .isolated_gain = 1, .scale = 1};
    if (!text) return 0;
    const char *all = json_start(text);
    if (*all != '{' || json_count(all) != 4) return wrong(error, size, "four members");
    info->name = json_text(json_member(all, "name"));
    if (!info->name) return wrong(error, size, "name");
    if (read_classes(json_member(all, "classes"), head->classes, info)) return wrong(error, size, "classes");
    if (read_palette(json_member(all, "palette"), head->classes, info)) return wrong(error, size, "palette");
    return read_run(json_member(all, "run"), coarsest, info, error, size);
}
