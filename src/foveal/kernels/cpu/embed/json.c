/* A small strict reader of JSON. Source: RFC 8259. */
#include "embed/json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 16, MOST_DIGITS = 18, MOST_EXPONENT = 300 };

static const char *blanks(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
    return at;
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static int hex_of(char c) { return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* Four hexadecimal digits; -1 if they are none. */
static int32_t unit_of(const char *at) {
    int32_t unit = 0;
    for (int k = 0; k < 4; k++) {
        const int digit = hex_of(at[k]);
        if (digit < 0) return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* The character after `\u`, two units for one beyond the first 65536; `at` moves behind it. -1 if it is none. */
static int32_t escaped(const char **at) {
    const int32_t first = unit_of(*at);
    if (first < 0 || (first >= 0xdc00 && first < 0xe000)) return -1;
    *at += 4;
    if (first < 0xd800 || first >= 0xe000) return first;
    if ((*at)[0] != '\\' || (*at)[1] != 'u') return -1;
    const int32_t second = unit_of(*at + 2);
    if (second < 0xdc00 || second >= 0xe000) return -1;
    *at += 6;
    return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

/* Bytes of the UTF-8 character here; 0 if it is none. A text ends with 0, which is no part of a character. */
static int utf8_bytes(const unsigned char *at) {
    const int more = at[0] < 0x80 ? 0 : at[0] >= 0xc2 && at[0] < 0xe0 ? 1 : (at[0] & 0xf0) == 0xe0 ? 2 : at[0] >= 0xf0 && at[0] < 0xf5 ? 3 : -1;
    for (int k = 1; k <= more; k++)
        if ((at[k] & 0xc0) != 0x80) return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] >= 0xa0)) return 0;
    if ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] >= 0x90)) return 0;
    return more + 1;
}

static const char *check_string(const char *at) {
    for (at++; *at != '"';) {
        if ((unsigned char)*at < 0x20) return NULL;
        if (*at != '\\') {
            const int bytes = utf8_bytes((const unsigned char *)at);
            if (!bytes) return NULL;
            at += bytes;
        } else if (at[1] == 'u') {
            at += 2;
            if (escaped(&at) < 0) return NULL;
        } else {
            if (!at[1] || !strchr("\"\\/bfnrt", at[1])) return NULL;
            at += 2;
        }
    }
    return at + 1;
}

static const char *check_number(const char *at) {
    at += *at == '-';
    if (!is_digit(*at)) return NULL;
    if (*at == '0') at++;
    else while (is_digit(*at)) at++;
    if (*at == '.') {
        if (!is_digit(*++at)) return NULL;
        while (is_digit(*at)) at++;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '-' || *at == '+';
        if (!is_digit(*at)) return NULL;
        while (is_digit(*at)) at++;
    }
    return at;
}

static const char *check_value(const char *at, int deep);

/* Members of an object or values of an array; returns what follows, or NULL. */
static const char *check_many(const char *at, int deep) {
    const int named = *at == '{';
    const char last = named ? '}' : ']';
    at = blanks(at + 1);
    if (*at == last) return at + 1;
    for (;;) {
        if (named) {
            at = *at == '"' ? check_string(at) : NULL;
            at = at ? blanks(at) : NULL;
            if (!at || *at != ':') return NULL;
            at = blanks(at + 1);
        }
        at = check_value(at, deep + 1);
        at = at ? blanks(at) : NULL;
        if (!at) return NULL;
        if (*at == last) return at + 1;
        if (*at != ',') return NULL;
        at = blanks(at + 1);
    }
}

static const char *check_value(const char *at, int deep) {
    if (deep > DEEPEST) return NULL;
    if (*at == '{' || *at == '[') return check_many(at, deep);
    if (*at == '"') return check_string(at);
    if (!strncmp(at, "true", 4) || !strncmp(at, "null", 4)) return at + 4;
    if (!strncmp(at, "false", 5)) return at + 5;
    return check_number(at);
}

int json_valid(const char *text, size_t length) {
    if (strlen(text) != length) return 0;
    const char *end = check_value(blanks(text), 0);
    return end && blanks(end) == text + length;
}

const char *json_start(const char *text) { return blanks(text); }

const char *json_member(const char *object, const char *name) {
    const size_t length = strlen(name);
    const char *found = NULL;
    if (!object || *object != '{') return NULL;
    for (const char *at = blanks(object + 1); *at != '}';) {
        const char *end = check_string(at), *value = blanks(blanks(end) + 1);
        if ((size_t)(end - at) == length + 2 && !memcmp(at + 1, name, length)) {
            if (found) return NULL;
            found = value;
        }
        at = blanks(check_value(value, 0));
        if (*at == ',') at = blanks(at + 1);
    }
    return found;
}

const char *json_first(const char *array) {
    if (!array || *array != '[') return NULL;
    array = blanks(array + 1);
    return *array == ']' ? NULL : array;
}

const char *json_next(const char *value) {
    value = blanks(check_value(value, 0));
    return *value == ',' ? blanks(value + 1) : NULL;
}

int64_t json_count(const char *value) {
    int64_t count = 0;
    if (!value || (*value != '{' && *value != '[')) return -1;
    if (*value == '[') {
        for (const char *at = json_first(value); at; at = json_next(at)) count++;
        return count;
    }
    for (const char *at = blanks(value + 1); *at != '}'; count++) {
        at = blanks(check_value(blanks(blanks(check_string(at)) + 1), 0));
        if (*at == ',') at = blanks(at + 1);
    }
    return count;
}

int json_integer(const char *value, int64_t *out) {
    double number;
    if (json_number(value, &number) || number != floor(number) || fabs(number) > 9e15) return -1;
    const char *end = check_number(value);
    for (const char *at = value; at < end; at++)
        if (!is_digit(*at) && *at != '-') return -1;
    *out = (int64_t)number;
    return 0;
}

int json_truth(const char *value, int32_t *out) {
    if (!value || (*value != 't' && *value != 'f')) return -1;
    *out = *value == 't';
    return 0;
}

int json_number(const char *value, double *out) {
    if (!value || (*value != '-' && !is_digit(*value))) return -1;
    const char *at = value + (*value == '-');
    int64_t digits = 0;
    int32_t scale = 0, exponent = 0, count = 0;
    for (int behind = 0; is_digit(*at) || *at == '.'; at++) {
        if (*at == '.') {
            behind = 1;
            continue;
        }
        if (count >= MOST_DIGITS && !behind) return -1;
        if (count >= MOST_DIGITS) continue;
        digits = 10 * digits + (*at - '0'), count += digits > 0, scale -= behind;
    }
    if (*at == 'e' || *at == 'E') {
        const int negative = at[1] == '-';
        for (at += at[1] == '-' || at[1] == '+' ? 2 : 1; is_digit(*at); at++) {
            exponent = 10 * exponent + (*at - '0');
            if (exponent > MOST_EXPONENT) return -1;
        }
        exponent = negative ? -exponent : exponent;
    }
    exponent += scale;
    const double size = exponent < 0 ? (double)digits / pow(10, -exponent) : (double)digits * pow(10, exponent);
    *out = *value == '-' ? -size : size;
    return 0;
}

static char *put_utf8(char *to, int32_t c) {
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const int FIRST[] = {0, 0xc0, 0xe0, 0xf0};
    *to++ = (char)(FIRST[more] | c >> 6 * more);
    for (int k = more - 1; k >= 0; k--) *to++ = (char)(0x80 | (c >> 6 * k & 0x3f));
    return to;
}

char *json_text(const char *value) {
    if (!value || *value != '"') return NULL;
    const char *at = value + 1, *end = check_string(value) - 1;
    char *text = malloc((size_t)(end - at) + 1), *to = text; /* an escape is never shorter than what it stands for */
    while (text && at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        const char kind = at[1];
        at += 2;
        static const char NAMES[] = "bfnrt", VALUES[] = "\b\f\n\r\t";
        const int32_t c = kind == 'u' ? escaped(&at) : strchr(NAMES, kind) ? VALUES[strchr(NAMES, kind) - NAMES] : kind;
        if (c == 0) {
            free(text);
            return NULL;
        }
        to = put_utf8(to, c);
    }
    if (text) *to = 0;
    return text;
}
