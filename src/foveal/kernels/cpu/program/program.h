/* A compiled network: typed steps over numbered maps, and everything that a run of it needs.

   The tables at the top are what a file holds; `foveal/program/spec.py` writes them. A run is one call: every
   member of a team of threads walks through the same code, takes tasks of every step, and meets the others
   behind it. */
#ifndef FOVEAL_PROGRAM_H
#define FOVEAL_PROGRAM_H

#include <pthread.h>
#include "maps/index.h"
#include "maps/resize.h"
#include "reduced/reduced.h"
#include "maps/colours.h"
#include "platform/team.h"

enum { OLDEST_VERSION = 1, PROGRAM_VERSION = 4 };
enum { TILED, WHOLE, BINS };      /* a map in tiles; one of whole images, in a dense module; a small grid of it */
enum { CONVOLVE, DEPTHWISE, MAX_POOL, ENLARGE, ADD, AFFINE, CONCAT, COMPOSE, GRID_POOL, GRID_SPREAD, CUT, REPEAT, SPREAD,
       APPLY, MULTIPLY, OFFSET, LAYER_NORM, GROUP_NORM, MEAN, RESAMPLE, SLICE, STEP_KINDS };
enum { SIGMOID = 1, SILU, HARD_SIGMOID, HARD_SWISH, GELU, GELU_TANH, TANH, LEAKY, PRELU, FUNCTIONS }; /* of APPLY */
enum { UNCOUNTED = 1 }; /* function of CONVOLVE and DEPTHWISE: weights are shares of a mean, or an order */
enum { NEAREST = 1, ALIGN_CORNERS = 2, BY_FACTOR = 4, RESAMPLINGS = 8 };                      /* of RESAMPLE, and GRID_SPREAD */
enum { DIRECT, WINOGRAD2, WINOGRAD4, ALGORITHMS };

typedef struct {
    int32_t version, maps, steps, input, output, classes, coarsest_stride;
    int32_t colours;  /* channels of an image; 0 in older files, for 3 */
    int32_t multiple; /* of which sides of images must be multiples [px]; 0 in files before version 4, for 1 */
} ProgramHead;

typedef struct {
    int32_t kind, channels, stride, precision; /* stride: input pixels per sample at level 0 */
    int32_t grid;                              /* rows of BINS */
    float scale;                               /* a sample q stands for scale * (q - zero); 1 and 0 but for U8 */
    int32_t zero;
    int32_t columns;                           /* of BINS; 0 for as many as keep them about square */
    int32_t up, down, more, least;             /* of WHOLE: sides are max(least, (up * side + more) / down), `side` that of the
                                                  image at the stride; all 0 for `side` itself, as in files before version 3 */
} MapSpec;

/* Offsets count floats in the program's numbers; -1 for none. */
typedef struct {
    int32_t kind, in, other, out; /* other: the residual, the second summand, or the second map; or -1 */
    int32_t rows, columns, stride, dilation, top, left;
    int32_t factor;               /* of ENLARGE, REPEAT, SPREAD and RESAMPLE, 0 there for fewer samples; groups of GROUP_NORM,
                                     and of CONVOLVE: weights beyond the blocks of so many are 0, and not counted */
    int32_t at;                   /* first channel written, of CONCAT and GRID_SPREAD; first one read, of SLICE */
    float before_low, before_high; /* before_low: slope of LEAKY; what norms add to a variance */
    float low, high;
    float rate[ALGORITHMS];       /* relative time of a multiplication by every algorithm; 0 if it cannot be used */
    int32_t function;
    int64_t weight, bias, before_scale, before_shift, residual_scale, outside; /* residual_scale: slopes of PRELU */
} StepSpec;

typedef struct {
    int32_t stride, border, edge;
} TableSpec;

enum { MOST_COLOURS = 64 }; /* channels of an image, usually RGB */
enum { PARTS = 16 }; /* of the sums over an image */
enum { MOST_TABLES = 32, MOST_LEVELS = 8, MOST_THREADS = 64, MOST_TILE = 4096 };

typedef struct Context Context;

/* What a step on a map in reduced precision reads besides it, in units of its output. */
typedef struct {
    void *weight, *outside;
    int32_t *start;
    float *scale, *bias, *residual_scale, low, high;
} ReducedTables;

typedef struct {
    ProgramHead head;
    MapSpec *maps;
    StepSpec *steps;
    float *numbers;
    float **packed;          /* [steps][ALGORITHMS], laid out when first wanted, under PACKING */
    ReducedTables *reduced;  /* [steps] */
    int32_t *table;          /* [steps]: index that a step reads through on tiles; -1 for none */
    TableSpec tables[MOST_TABLES];
    int32_t table_count;
    uint8_t *reached;        /* [maps]: read beyond the tiles of a pass */
    int8_t *blocks;          /* [steps]: 1 for the first of three that may run in one pass, -1 for the others, 0 for none */
    int32_t *inner;          /* [maps]: stride of what a block sees, if the map only stands between its steps; 0 for others */
    uint8_t *feeds;          /* [maps]: what a block begins with, so that it is read beyond tiles */
    uint8_t *cut_only;       /* [steps]: a product sample by sample of whole maps, whose result only CUT reads */
    int32_t *alias;          /* [maps]: map that stands for a WHOLE one where no tiles are; -1 for none */
    float *outside;          /* zeros [widest], then the lowest number [widest] */
    int32_t widest;          /* channels of the widest map */
    int32_t statistics;      /* channels of the widest map whose statistics are needed; 0 for none */
    int64_t scratch;         /* floats of scratch that steps need per thread */
    Context *idle;           /* guarded by CONTEXTS */
} Program;

/* Memory that is kept from run to run and only grows. */
typedef struct {
    void *at;
    size_t bytes;
} Room;

typedef struct {
    Room index, start, source, share, finer;
    int64_t means;
} Table;

struct Context {
    Context *next;
    Room arena, lists, pyramid, logits, enlarged, scores, means, sums, workers, taps, changes, wanted, few;
    Table tables[MOST_TABLES];
};

enum { METHOD_DENSE, METHOD_PLAN, METHOD_SEGBLOCKS, METHOD_COARSE_TO_FINE, METHOD_REUSE /* of streams */, METHOD_PART };
enum { DECIDING, COMPOSING, LABELLING, READING, INDEXING }; /* parts of a profile that are no steps */
enum { IMAGES = 1, LOGITS };         /* what holds numbers that are none */
enum { ENTROPY, MARGIN, WEIGHTED_ENTROPY, REGIONAL_ENTROPY };

/* What is asked of a run, and where its answer goes. `foveal/program/spec.py` mirrors it. */
typedef struct {
    const void *image;
    int64_t stride[4];       /* of images, channels, rows and columns [elements] */
    int32_t bytes;           /* 0: float in 0..1; 1: bytes in 0..255 */
    int32_t images, height, width, tile, method, threads;
    int32_t coarse_level, max_level, score, shared, has_threshold, gains;
    int32_t direct;          /* from the coarse level to full resolution in one step */
    int32_t mask_border;     /* of METHOD_COARSE_TO_FINE: 1 if the first pass goes a cell beyond the mask, so that what is
                                wanted has its borders from there */
    int32_t full_height, full_width; /* of the images that come in, and of labels, where height and width are those of the
                                        images shrunk before all else; 0 where they are not. Without a mask. */
    double budget, threshold, blend, isolated, level_gain[MOST_LEVELS];
    const int8_t *plan;      /* [images][rows][columns], of METHOD_PLAN; of METHOD_COARSE_TO_FINE what is refined to which
                                level, below 0 elsewhere, or NULL where the answer of the pass before decides */
    const uint8_t *mask;     /* cells that are wanted [images][rows][columns], or NULL for all */
    uint8_t *labels;         /* [images][height][width] of the images that come in, or NULL */
    float *confidence;       /* the same, or NULL */
    float *logits;           /* [images][rows][columns][classes] at the output's stride, or NULL; of shrunk images, enlarged */
    int8_t *levels;          /* level that the answer comes from [images][rows][columns] */
    double *work;            /* share of the dense work [images] */
    double *step_ms;         /* [steps + 8], added to; or NULL */
    float *range;            /* smallest and largest value of every map [maps][2], widened; or NULL */
    float *histogram;        /* values of every map between these [maps][bins], added to; or NULL */
    int64_t macs;
    int32_t passes, bins;
    int32_t first_step, last_step; /* of METHOD_PART: the steps [first_step, last_step) run, on the tiles of `plan`, or on
                                      whole images without one */
    void *const *given, *const *taken; /* tiles [tiles][side][side][channels] of maps that earlier steps made, or whole maps
                                          [images][rows][columns][channels], in the map's precision; and where those that
                                          later steps want go; NULL for the others [maps] */
    char error[256];
} Request;

/* The pass that is running: whole maps of a level, or the tiles [grid.first, grid.first + grid.computed). */
typedef struct {
    int32_t plain, level;
} Pass;

/* What METHOD_REUSE is asked besides, and what is said of a frame of a stream; foveal/program/spec.py mirrors it. */
typedef struct {
    const int8_t *first;     /* levels where a scene begins [images][rows][columns]; NULL to stop there with 1 */
    uint8_t *scenes;         /* whether a scene begins [images], or NULL */
    double hysteresis, noise, clear, unseen, stale, overdue;
    int32_t max_age, moved;  /* moved: kept tiles that gave way to new ones */
    int64_t relabelled;      /* pixels that were labelled anew */
} Reuse;

typedef struct Stream Stream;

typedef struct {
    const Program *program;
    Context *context;
    Request *request;
    Stream *stream;          /* what is kept between frames; NULL for images */
    Reuse *reuse;
    Grid grid;
    int64_t *image, *level, *row, *column, *owner; /* what the grid shows, to write */
    int64_t capacity;        /* tiles that there is room for */
    int32_t crossing;        /* later passes read maps of earlier ones */
    Pass pass;
    int32_t first, last;     /* the steps that run */
    int32_t one_pass;        /* blocks run in one pass: nobody asks for what lies between their steps */
    int32_t alike;           /* whether the whole maps of all images have the same sides */
    int64_t part;            /* image whose whole maps a step works on; -1 for all images */
    int32_t *wanted;         /* rows of whole maps that tiles of the pass are cut from, in order; NULL for all */
    int64_t wanted_count;
    int32_t *base, *finest;  /* finest level per image, and 0 per image */
    int8_t *decision;        /* levels of the next pass, per cell */
    float *cells;            /* scores per cell */
    size_t *offset;          /* [maps] in the arena [B] */
    char *arena;
    float *logits;           /* composed [images][rows][columns][classes] */
    float *enlarged;         /* logits of images that were shrunk [images][enlarged_rows][enlarged_columns][classes] */
    int32_t enlarged_rows, enlarged_columns;
    Taps taps[2];            /* of lines and samples, where images are shrunk */
    float *pyramid[MOST_LEVELS]; /* images at a level; those of level 0 only where they were shrunk */
    double *sums;            /* of the statistics of the step that runs */
    float *means;            /* averages of finer samples, of the step that runs */
    float *scratch[MOST_THREADS];
    int64_t scratch_bytes;   /* from thread to thread */
    int8_t *held;            /* level per cell; SKIP */
    uint8_t *changed;        /* whether the last pass changed a cell's logits */
    double *spent;           /* per image */
    int stop;
    int32_t unreal;          /* what holds NaN or infinity: IMAGES, LOGITS */
    int32_t overflow;        /* whether NaN or infinity went into 8 bits, which hold neither */
    double clock;
    /* the team */
    int64_t next;
    int32_t threads, arrived, generation, go;
} Run;

static inline int32_t side_of(const Run *r, int32_t stride) { return r->grid.tile / stride; }
static inline int32_t rows_at(const Run *r, int32_t stride, int32_t level) { return extent(r->grid.height, stride << level); }
static inline int32_t columns_at(const Run *r, int32_t stride, int32_t level) { return extent(r->grid.width, stride << level); }
/* Whether there is NaN or infinity: a number whose exponent is all ones. */
static inline int unreal(const float *x, int64_t count) {
    uint32_t found = 0, bits;
    for (int64_t k = 0; k < count; k++) memcpy(&bits, x + k, sizeof bits), found |= (bits & 0x7f800000u) == 0x7f800000u;
    return found != 0;
}

static inline const float *number(const Program *p, int64_t at) { return at < 0 ? NULL : p->numbers + at; }

/* api.c */
Program *foveal_program_make(
    const ProgramHead *head, const MapSpec *maps, const StepSpec *steps, const float *numbers, int64_t count, char *error, int64_t size);
int32_t foveal_program_run(Program *p, Request *q);
void foveal_program_free(Program *p);
int request_refuse(Request *q, const char *what);
int request_check(const Program *p, Request *q);
/* Run `work` in a team, over a stream or over images alone; `foveal_program_run` says what is returned. */
int32_t program_run(const Program *p, Request *q, Stream *s, Reuse *u, void (*work)(Run *, Team));

/* embed/check.c */
/* 0, or -1 for tables that are no program; `error` [size] says why. */
int program_check(const ProgramHead *head, const MapSpec *maps, const StepSpec *steps, const float *numbers, int64_t count, char *error, size_t size);

/* team.c */
void team_run(Run *r, void (*work)(Run *, Team));
void meet(Run *r, Team team);

/* weights.c */
const float *weights_of(const Program *p, int32_t step, int32_t algorithm);
int32_t algorithm_for(const Run *r, int32_t step, int64_t tiles, int32_t height, int32_t width);

/* reduced.c */
int reduced_prepare(Program *p);
void reduced_free(Program *p);
void reduced_step(Run *r, int32_t step, Team team);
void any_resample_step(Run *r, int32_t step, Team team);
int is_reduced(const Program *p, const StepSpec *s);

/* observe.c */
void observe(Run *r, int32_t step);

/* memory.c */
void *room(Room *r, size_t bytes);
void room_free(Room *r);
int plan_memory(Run *r);
size_t sample_bytes(const MapSpec *m);
int64_t bins_columns(const MapSpec *bins, int32_t height, int32_t width);
int64_t whole_side(const MapSpec *whole, int32_t side);
/* Sides of a map of WHOLE or BINS, of one image. */
typedef struct {
    int32_t rows, columns;
} Sides;

Sides sides_of(const Run *r, const MapSpec *m, int64_t image);
int64_t rows_before(const Run *r, const MapSpec *m, int64_t image);
float *pool_of(const Run *r, int32_t map);
float *current(const Run *r, int32_t map);

/* tables.c */
void build_tables(Run *r, Team team);
int add_tiles(Run *r, const int8_t *levels);

/* steps.c */
/* Maps, tiles or whole images as a step sees them. */
typedef struct {
    int64_t tiles;
    int32_t height, width;
} Shape;

Shape shape_of(const Run *r, int32_t map);
Source source_of(const Run *r, int32_t step, int32_t map, const float *outside);
const Table *table_of(const Run *r, int32_t step);
void run_steps(Run *r, Team team);
void account(Run *r, int32_t step);
void account_part(Run *r, int32_t part);

/* Whether a step is a product sample by sample. */
static inline int is_product(const StepSpec *s) {
    return s->kind == CONVOLVE && s->rows == 1 && s->columns == 1 && s->stride == 1 && !s->top && !s->left;
}

/* blocks.c */
int find_blocks(Program *p);
int is_inner(const Program *p, int32_t map, int32_t tile);
int32_t block_of(const Run *r, int32_t step);
void block_step(Run *r, int32_t step, Team team);

/* wanted.c */
int find_cut_only(Program *p);
int find_wanted(Run *r);
void put_wanted(const Run *r, int32_t map, const void *few, Team team);

/* whole.c */
int64_t compose_macs(const Run *r, int32_t map, const int32_t *base);
void mark_changed(const Run *r, int32_t map, uint8_t *changed);
void compose_step(const Run *r, int32_t map, float *out, const int32_t *base, float blend, const uint8_t *changed, Team team);
void grid_pool_step(const Run *r, const StepSpec *s, Team team);
void grid_spread_step(const Run *r, const StepSpec *s, Team team);
void convert_plain_step(Run *r, int32_t from, int32_t to, Team team);
void cut_whole_step(Run *r, const StepSpec *s, Team team);
void repeat_vector_step(Run *r, const StepSpec *s, Team team);

/* steps/functions.c */
void apply_step(Run *r, const StepSpec *s, Team team);
void combine_step(Run *r, const StepSpec *s, Team team);
void layer_norm_step(Run *r, const StepSpec *s, Team team);

/* steps/statistics.c */
int64_t statistics_scratch(int64_t images, int64_t channels);
void mean_step(Run *r, const StepSpec *s, Team team);
void group_norm_step(Run *r, const StepSpec *s, Team team);

/* steps/resample.c */
void resample_step(Run *r, int32_t step, const Samples *in, int32_t border, Team team);

/* input.c */
void reduce_input(Run *r, int32_t from, int32_t level, Team team);
void plain_input(Run *r, Team team);
void cut_input_step(Run *r, Team team);
void keep_pixels_step(Run *r, float *picture, const int8_t *levels, Team team);
const float *image_line(const Run *r, int64_t image, int64_t colour, int64_t y, float *beside);

/* score.c */
void score_cells(Run *r, const float *logits, int32_t rows, int32_t columns, float *cells, uint8_t *marked, Team team);
void integrate(const Run *r, const float *density, int32_t rows, int32_t columns, float *cells, Team team);
size_t score_bytes(const Run *r);

/* plan.c */
typedef struct {
    int32_t depth, rows[MOST_LEVELS], columns[MOST_LEVELS]; /* maps, coarsest first */
    double *gain[MOST_LEVELS], *cost[MOST_LEVELS], *rate[MOST_LEVELS];
    uint8_t *chosen[MOST_LEVELS];
    void *memory;
} Forest;

int forest_make(Forest *f, int32_t rows, int32_t columns, int32_t finest, int32_t depth);
void forest_free(Forest *f);
int forest_rates(Forest *f);
int forest_choose(Forest *const *forests, int32_t count, double budget);
void sum_squares(const double *x, int32_t rows, int32_t columns, int32_t level, double *out);

/* compact.c */
int32_t foveal_choose_tiles(const double *values, const double *costs, int32_t rows, int32_t columns, double isolated, int64_t count, uint8_t *chosen);

/* decide.c */
/* Cells that a mask wants; these and those around them, where it has such a border; that border alone. */
typedef enum { WANTED, REACHED, RIM } MaskPart;
void uniform_levels(const Run *r, int32_t level, MaskPart part, int8_t *levels);
int decide_blocks(Run *r, const float *cells, double spent, int8_t *levels);
int decide_refinement(Run *r, const float *cells, int32_t level, int8_t *levels);

/* scale.c */
int scaled(const Run *r);
Sides labelled_sides(const Run *r);
int prepare_scale(Run *r);
void shrink_input(Run *r, Team team);
void enlarge_logits(Run *r, const float *logits, int32_t rows, int32_t columns, Team team);

/* labels.c */
void label_step(Run *r, const float *logits, int32_t rows, int32_t columns, Team team);
void relabel_step(Run *r, const float *logits, int32_t rows, int32_t columns, const uint8_t *changed, uint8_t *labels, Team team);
int64_t relabel_scratch(const Run *r);

/* method.c */
/* Let the first member do something that the others wait for. */
#define ALONE(what)                 \
    do {                            \
        meet(r, team);              \
        if (team.thread == 0) what; \
        meet(r, team);              \
        if (r->stop) return;        \
    } while (0)

static inline int64_t cells_of(const Run *r) { return (int64_t)r->request->images * r->grid.rows * r->grid.columns; }
static inline int32_t output_stride(const Run *r) { return r->program->maps[r->program->head.output].stride; }
int64_t count_leaves(const Run *r, const int8_t *levels);
void tile_pass(Run *r, Team team);
void run_method(Run *r, Team team);

/* stream.c */
/* What is kept between the frames of a video: the tiles of every map that is read beyond a tile, each in a slot of
   its own, and the answer. A tile that owns no cell any more frees its slot, so there are never more than cells. */
struct Stream {
    const Program *program;
    int32_t images, height, width, tile, rows, columns;
    int64_t slots, moves;
    int64_t *image, *level, *row, *column; /* of the tile in a slot; its image is -1 for a free one */
    int64_t *owner;                        /* slot per cell [images][rows][columns], or UNKNOWN */
    int64_t *from, *to;                    /* slots of the tiles that move */
    int32_t *age;                          /* frames since a cell was computed */
    int8_t *held;                          /* level per cell; SKIP */
    uint8_t *labels;                       /* [images][height][width] */
    float *picture;                        /* pixels that cells were last computed from [images][colours][height][width] */
    float *logits;                         /* composed [images][rows][columns][classes] */
    float *shares;                         /* sums that cells are scored from [images][rows][columns][2][classes] */
    uint8_t *unscored;                     /* whether a cell has other logits than those that its sums are of */
    size_t *offset;                        /* [maps] in `pool` [B] */
    char *pool;
    Room memory;
    int32_t frames, labelled, running;     /* a frame is held; labels are those of the logits; a run goes on */
};

/* A stream's content, to be copied out and in; tiles are those that own a cell. */
typedef struct {
    int64_t tiles;
    int64_t *image, *level, *row, *column; /* [tiles] */
    int64_t *owner;                        /* tile per cell */
    int32_t *age;
    float *picture, *logits;
    void **maps;                           /* tiles [tiles][side][side][channels] of every map that is kept, else NULL [maps] */
} StreamParts;

void stream_join(Run *r);
int stream_take(Run *r, const int8_t *levels);
void stream_move(Run *r, Team team);
void stream_forget(Stream *s);
int is_quadtree(const int8_t *levels, int64_t images, int32_t rows, int32_t columns);

/* frame.c */
void run_frame(Run *r, Team team);

/* reuse.c */
/* Say what is computed of the next frame of every image, into r->decision. */
void decide_reuse(Run *r, Team team);
size_t reuse_bytes(const Run *r);

#endif
