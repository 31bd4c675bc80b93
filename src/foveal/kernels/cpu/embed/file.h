/* A program file: the tables, and what a user needs to run it. */
#ifndef FOVEAL_FILE_H
#define FOVEAL_FILE_H

#include "program/program.h"

/* Settings of runs that the file recommends, and names; `foveal/program/info.py` writes them. */
typedef struct {
    char *name, **classes;     /* NULL if the file says nothing; [class_count] */
    uint8_t (*palette)[3];     /* [class_count], or NULL */
    int32_t class_count, tile, coarse_level, max_level, segblocks_score, coarse_to_fine_score, gains;
    double level_gain[MOST_LEVELS], logit_blend, isolated_gain, scale;
    int32_t direct;
} Info;

/* Read the info [JSON text, checked] of a program, or take what suits any program where `text` is NULL. 0, or
   -1 if it is none; `error` [size] says why. To be freed in either case. */
int info_read(const char *text, const ProgramHead *head, Info *info, char *error, size_t size);
void info_free(Info *info);

/* Read a program from a file in memory. NULL if it holds none; `error` [size] says why. */
Program *file_read(const uint8_t *bytes, size_t count, Info *info, char *error, size_t size);

#endif
