/* Foveal in C: segment images with a program file. docs/embedding.md shows how to build and call it.

   A program file is what `Program.save` or `foveal.export_program` wrote. One program may run in several threads
   at once; every run has memory of its own, which is kept for the next one. Needs libc, libm and pthread. */
#ifndef FOVEAL_H
#define FOVEAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FOVEAL_API __attribute__((visibility("default")))

/* Counts changes after which a caller must be compiled again; compare with foveal_api_version(). */
#define FOVEAL_API_VERSION 2

/* Label of a pixel that was not computed, because the mask leaves it out. */
#define FOVEAL_VOID 255

/* Least share of an image's sides that a network can be shown. */
#define FOVEAL_LEAST_SCALE 0.01

typedef struct FovealProgram FovealProgram;

/* What functions return. */
enum { FOVEAL_OK = 0, FOVEAL_NO_MEMORY = -1, FOVEAL_REFUSED = -2 };

/* How an image is segmented: everything at full resolution; levels of tiles chosen by one coarse pass; or
   everything at a coarse level first, then finer where the answer is uncertain. */
enum { FOVEAL_DENSE = 0, FOVEAL_SEGBLOCKS = 1, FOVEAL_COARSE_TO_FINE = 2 };

/* Samples of an image: bytes 0..255, or floats 0..1. */
enum { FOVEAL_BYTES = 0, FOVEAL_FLOATS = 1 };

/* An image of as many channels as the network takes, RGB in general; where the network takes only sides that are
   multiples of a number, others are refused, with the number. The steps count samples; all three 0 means packed lines
   of pixels, R G B R G B ... */
typedef struct {
    const void *pixels;
    int32_t format, height, width;
    int64_t channel_step, row_step, column_step;
} FovealImage;

/* What is asked for. All zero but `method` and `budget` is a good choice: the file says the rest. */
typedef struct {
    int32_t method;
    int32_t tile;        /* side of a tile [px], a multiple of the network's coarsest stride; 0: as the file recommends */
    int32_t threads;     /* 0: as many as the process has processors */
    double budget;       /* share of the dense work on the image, above 0 and at most 1; not read by FOVEAL_DENSE */
    const uint8_t *mask; /* tiles that are wanted [rows][columns], see foveal_grid; NULL for all */
    double scale;        /* the image's sides are shrunk to this share first; 0: as the file recommends; 1 if there is a mask */
} FovealOptions;

/* The answer. The caller gives the arrays; NULL for what is not wanted. */
typedef struct {
    uint8_t *labels;   /* class per pixel [height][width] */
    float *confidence; /* probability of the label per pixel [height][width] */
    int8_t *levels;    /* level per tile [rows][columns] of the image that runs, see foveal_shrunk: 0 full resolution, 1 half, ...; -1 where nothing was computed */
    double work;       /* share of the dense work on the image */
    int64_t macs;      /* multiply-accumulates of the layers that ran */
    int32_t passes;
    char error[256];   /* why a run was refused; empty otherwise */
} FovealResult;

/* Version of the library that is linked. */
FOVEAL_API int32_t foveal_api_version(void);

/* Read a program file, or one that lies in memory. NULL if it is none; `error` [size], which may be NULL, says why. */
FOVEAL_API FovealProgram *foveal_load(const char *path, char *error, size_t size);
FOVEAL_API FovealProgram *foveal_load_bytes(const void *bytes, size_t count, char *error, size_t size);

/* Free a program; no run may be under way. NULL is left alone. */
FOVEAL_API void foveal_free(FovealProgram *program);

FOVEAL_API int32_t foveal_classes(const FovealProgram *program);

/* Channels of an image that the network takes. */
FOVEAL_API int32_t foveal_channels(const FovealProgram *program);

/* Name of the model, of a class, and its colour [3]; NULL if the file does not say, or there is no such class.
   They live as long as the program. */
FOVEAL_API const char *foveal_name(const FovealProgram *program);
FOVEAL_API const char *foveal_class_name(const FovealProgram *program, int32_t label);
FOVEAL_API const uint8_t *foveal_class_color(const FovealProgram *program, int32_t label);

/* Side of a tile that the file recommends [px]. */
FOVEAL_API int32_t foveal_tile(const FovealProgram *program);

/* Rows and columns of the tiles of an image: the shape of a mask and of levels. `tile` 0 as in the options. */
FOVEAL_API void foveal_grid(const FovealProgram *program, int32_t height, int32_t width, int32_t tile, int32_t *rows, int32_t *columns);

/* Height and width of the image that runs at a scale; 0 as in the options, and what foveal_run refuses as 1. */
FOVEAL_API void foveal_shrunk(const FovealProgram *program, int32_t height, int32_t width, double scale, int32_t *small_height, int32_t *small_width);

/* Segment an image. */
FOVEAL_API int32_t foveal_run(FovealProgram *program, const FovealImage *image, const FovealOptions *options, FovealResult *result);

#ifdef __cplusplus
}
#endif

#endif
