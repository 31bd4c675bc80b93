/* Segment a picture: segment PROGRAM PICTURE.ppm LABELS.pgm [BUDGET [TILE [THREADS]]]

   Reads a binary PPM (P6), runs coarse to fine at a budget, or everything at full resolution at budget 1, writes
   the class of every pixel as a binary PGM (P5), and prints work and milliseconds. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "foveal.h"

/* The next number of a PPM's header; what follows a # is a remark. -1 if there is none. */
static long number(FILE *file) {
    int c = getc(file);
    while (isspace(c) || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF) c = getc(file);
        c = getc(file);
    }
    if (!isdigit(c)) return -1;
    long value = 0;
    for (; isdigit(c) && value < 1000000; c = getc(file)) value = 10 * value + (c - '0');
    return value; /* the blank behind it is read too: behind the last one bytes follow */
}

/* Pixels [height][width][3]; NULL if the file is no such picture. */
static unsigned char *read_ppm(const char *path, int32_t *height, int32_t *width) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    unsigned char *pixels = NULL;
    if (getc(file) == 'P' && getc(file) == '6') {
        const long across = number(file), down = number(file), most = number(file);
        if (across > 0 && down > 0 && across <= 30000 && down <= 30000 && most == 255) {
            const size_t bytes = (size_t)across * (size_t)down * 3;
            *height = (int32_t)down, *width = (int32_t)across;
            pixels = malloc(bytes);
            if (pixels && fread(pixels, 1, bytes, file) != bytes) free(pixels), pixels = NULL;
        }
    }
    fclose(file);
    return pixels;
}

static int write_pgm(const char *path, const unsigned char *labels, int32_t height, int32_t width) {
    FILE *file = fopen(path, "wb");
    if (!file) return -1;
    const size_t bytes = (size_t)height * (size_t)width;
    fprintf(file, "P5\n%d %d\n255\n", width, height);
    const int good = fwrite(labels, 1, bytes, file) == bytes;
    return fclose(file) || !good ? -1 : 0;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* Run a program, print what it took, and the share of every class that occurs. */
static int segment(FovealProgram *program, const FovealImage *image, const FovealOptions *options, unsigned char *labels) {
    FovealResult result = {.labels = labels};
    const double start = now();
    if (foveal_run(program, image, options, &result) != FOVEAL_OK) {
        fprintf(stderr, "segment: %s\n", result.error);
        return -1;
    }
    printf("work %.3f, %.1f ms, %lld MAC\n", result.work, now() - start, (long long)result.macs);
    const size_t pixels = (size_t)image->height * (size_t)image->width;
    for (int32_t k = 0; k < foveal_classes(program); k++) {
        size_t count = 0;
        for (size_t at = 0; at < pixels; at++) count += labels[at] == k;
        const char *name = foveal_class_name(program, k);
        if (count) printf("%5.1f %% %s\n", 100.0 * (double)count / (double)pixels, name ? name : "");
    }
    return 0;
}

int main(int count, char **words) {
    if (count < 4) {
        fprintf(stderr, "usage: %s PROGRAM PICTURE.ppm LABELS.pgm [BUDGET [TILE [THREADS]]]\n", words[0]);
        return 2;
    }
    const double budget = count > 4 ? atof(words[4]) : 1;
    const FovealOptions options = {
        .method = budget < 1 ? FOVEAL_COARSE_TO_FINE : FOVEAL_DENSE,
        .budget = budget,
        .tile = count > 5 ? atoi(words[5]) : 0,
        .threads = count > 6 ? atoi(words[6]) : 0,
    };
    char error[256] = "";
    FovealImage image = {.format = FOVEAL_BYTES};
    FovealProgram *program = foveal_load(words[1], error, sizeof error);
    unsigned char *pixels = program ? read_ppm(words[2], &image.height, &image.width) : NULL;
    unsigned char *labels = pixels ? malloc((size_t)image.height * (size_t)image.width) : NULL;
    int status = 1;
    image.pixels = pixels;
    if (!program) fprintf(stderr, "segment: %s holds no program: %s\n", words[1], error);
    else if (foveal_channels(program) != 3) fprintf(stderr, "segment: the network takes %d channels, a PPM has 3\n", foveal_channels(program));
    else if (!labels) fprintf(stderr, "segment: %s is no binary PPM of 8 bits\n", words[2]);
    else if (!segment(program, &image, &options, labels)) {
        status = write_pgm(words[3], labels, image.height, image.width) ? 1 : 0;
        if (status) fprintf(stderr, "segment: %s cannot be written\n", words[3]);
    }
    free(labels), free(pixels);
    foveal_free(program);
    return status;
}
