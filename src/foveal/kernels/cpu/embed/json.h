/* A small strict reader of JSON. A text is checked as a whole first; all other functions take values of a text
   that passed. Numbers are read without the locale. */
#ifndef FOVEAL_JSON_H
#define FOVEAL_JSON_H

#include <stddef.h>
#include <stdint.h>

/* Whether a text of a length, which a 0 follows, is one JSON value in UTF-8, nested at most 16 deep. */
int json_valid(const char *text, size_t length);

/* Skip blanks before a value. */
const char *json_start(const char *text);

/* The value of a member of an object; NULL if it is no object, or has no such member, or several. */
const char *json_member(const char *object, const char *name);

/* The first value of an array, and the next one; NULL if there is none. */
const char *json_first(const char *array);
const char *json_next(const char *value);

/* Members of an object or values of an array; -1 for anything else. */
int64_t json_count(const char *value);

/* Read a value; 0, or -1 if it is of another kind, or too large. */
int json_integer(const char *value, int64_t *out);
int json_number(const char *value, double *out);
int json_truth(const char *value, int32_t *out);

/* Text of a string, to be freed; NULL if it is none, or holds a character 0, or there is no memory. */
char *json_text(const char *value);

#endif
