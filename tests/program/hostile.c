/* Load damaged program files, and run those that are still programs: hostile FILE SEEDS.

   Every damaged copy lies in memory of exactly its size, so that a sanitizer sees a read beyond it. Prints how
   many were refused and how many ran. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "foveal.h"

enum { HEIGHT = 45, WIDTH = 70, PLACES = 200 };

static uint64_t state;

/* A number below `most`. Source: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016. */
static uint64_t draw(uint64_t most) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dULL % most;
}

static uint8_t pixels[HEIGHT * WIDTH * 3], labels[HEIGHT * WIDTH];
static float confidence[HEIGHT * WIDTH];
static int refused, ran;

static void run(FovealProgram *program, int32_t method) {
    const FovealImage image = {pixels, FOVEAL_BYTES, HEIGHT, WIDTH, 0, 0, 0};
    const FovealOptions options = {.method = method, .threads = 1 + ran % 2, .budget = 0.5};
    int32_t rows, columns;
    foveal_grid(program, HEIGHT, WIDTH, 0, &rows, &columns);
    int8_t *levels = malloc((size_t)rows * (size_t)columns);
    FovealResult result = {.labels = labels, .confidence = confidence, .levels = levels};
    const int32_t status = foveal_run(program, &image, &options, &result);
    if ((status == FOVEAL_OK) != !*result.error) abort(); /* whatever fails says why */
    free(levels);
}

static void load(const uint8_t *bytes, size_t count) {
    char error[128];
    uint8_t *copy = malloc(count ? count : 1);
    memcpy(copy, bytes, count);
    FovealProgram *program = foveal_load_bytes(copy, count, error, sizeof error);
    free(copy);
    if (!program) {
        if (!*error) abort();
        refused++;
        return;
    }
    for (int32_t method = FOVEAL_DENSE; method <= FOVEAL_COARSE_TO_FINE; method++) run(program, method);
    for (int32_t k = -1; k <= foveal_classes(program); k++) {
        const char *name = foveal_class_name(program, k);
        if (name && strlen(name) > count) abort();
    }
    foveal_free(program);
    ran++;
}

/* Damage one place: a bit, a byte, or a whole number of a table. */
static void damage(uint8_t *bytes, size_t first, size_t last) {
    static const int32_t NUMBERS[] = {0, 1, -1, -2, 2, 3, 255, 4096, 65536, INT32_MAX, INT32_MIN, 0x7fc00000, 0x7f800000};
    const size_t at = first + draw(last - first);
    const uint64_t kind = draw(3);
    if (kind == 0) bytes[at] ^= (uint8_t)(1 << draw(8));
    else if (kind == 1) bytes[at] = (uint8_t)draw(256);
    else if (at / 4 * 4 + 4 <= last) memcpy(bytes + at / 4 * 4, &NUMBERS[draw(sizeof NUMBERS / sizeof *NUMBERS)], 4);
}

int main(int count, char **words) {
    FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
    if (!file) return 2;
    static uint8_t whole[1 << 24], broken[1 << 24];
    const size_t size = fread(whole, 1, sizeof whole, file);
    fclose(file);
    for (size_t k = 0; k < sizeof pixels; k++) pixels[k] = (uint8_t)(k * 37 ^ k >> 5);
    load(whole, size);
    if (ran != 1) return 3;
    uint64_t length;
    int32_t maps, steps;
    memcpy(&length, whole, 8);
    const size_t data = 8 + (size_t)length;
    memcpy(&maps, whole + data + 4, 4), memcpy(&steps, whole + data + 8, 4);
    const size_t tables = data + 32 + 48 * (size_t)maps + 128 * (size_t)steps;
    for (size_t k = 0; k < PLACES; k++) load(whole, k % 2 ? size * k / PLACES : tables * k / PLACES);
    const size_t places[][2] = {{0, 8}, {8, data}, {data, tables}, {data, tables}, {data, tables}, {tables, size}};
    for (int seed = 1; seed <= atoi(words[2]); seed++) {
        state = (uint64_t)seed * 0x9e3779b97f4a7c15ULL;
        memcpy(broken, whole, size);
        for (uint64_t k = draw(4) + 1; k > 0; k--) {
            const uint64_t where = draw(sizeof places / sizeof *places);
            damage(broken, places[where][0], places[where][1]);
        }
        load(broken, size);
    }
    printf("%d refused, %d ran\n", refused, ran);
    return 0;
}
