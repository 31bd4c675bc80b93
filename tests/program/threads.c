/* Run one program in several threads at once, each with a team of its own: threads FILE.

   Every thread runs every method at several budgets, from a fresh program, so that weights are laid out while
   others run; its labels must be those of a run alone. Prints how many runs were the same. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "foveal.h"

enum { HEIGHT = 77, WIDTH = 131, THREADS = 4, TURNS = 3, WAYS = 5 };

static const FovealOptions WAY[WAYS] = {
    {.method = FOVEAL_DENSE, .threads = 2},
    {.method = FOVEAL_SEGBLOCKS, .threads = 2, .budget = 0.5},
    {.method = FOVEAL_COARSE_TO_FINE, .threads = 2, .budget = 0.4},
    {.method = FOVEAL_COARSE_TO_FINE, .threads = 2, .budget = 0.7},
    {.method = FOVEAL_COARSE_TO_FINE, .threads = 1, .budget = 0.9},
};

static uint8_t pixels[HEIGHT * WIDTH * 3], alone[WAYS][HEIGHT * WIDTH];
static FovealProgram *program;

static void run(FovealProgram *p, int32_t way, uint8_t *labels) {
    const FovealImage image = {pixels, FOVEAL_BYTES, HEIGHT, WIDTH, 0, 0, 0};
    FovealResult result = {.labels = labels};
    if (foveal_run(p, &image, &WAY[way], &result) != FOVEAL_OK) {
        fprintf(stderr, "threads: %s\n", result.error);
        exit(1);
    }
}

/* Returns how many runs were as those alone. */
static void *work(void *given) {
    const int32_t first = *(int32_t *)given;
    uint8_t *labels = malloc(HEIGHT * WIDTH);
    intptr_t same = 0;
    for (int32_t k = 0; labels && k < TURNS * WAYS; k++) {
        const int32_t way = (first + k) % WAYS;
        run(program, way, labels);
        same += !memcmp(labels, alone[way], HEIGHT * WIDTH);
    }
    free(labels);
    return (void *)same;
}

int main(int count, char **words) {
    if (count != 2) return 2;
    for (int32_t k = 0; k < HEIGHT * WIDTH * 3; k++) pixels[k] = (uint8_t)((k * 2654435761u >> 13) & 255);
    FovealProgram *one = foveal_load(words[1], NULL, 0);
    program = foveal_load(words[1], NULL, 0);
    if (!one || !program) return 2;
    for (int32_t way = 0; way < WAYS; way++) run(one, way, alone[way]);
    foveal_free(one);
    pthread_t threads[THREADS];
    int32_t first[THREADS];
    intptr_t same = 0;
    for (int32_t k = 0; k < THREADS; k++) {
        first[k] = k;
        if (pthread_create(&threads[k], NULL, work, &first[k])) return 2;
    }
    for (int32_t k = 0; k < THREADS; k++) {
        void *found;
        pthread_join(threads[k], &found);
        same += (intptr_t)found;
    }
    foveal_free(program);
    printf("%d of %d runs the same\n", (int)same, THREADS * TURNS * WAYS);
    return same != THREADS * TURNS * WAYS;
}
