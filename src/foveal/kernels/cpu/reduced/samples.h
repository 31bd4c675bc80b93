/* Reading and writing samples of maps in reduced precision. */
#ifndef FOVEAL_SAMPLES_H
#define FOVEAL_SAMPLES_H

#include <string.h>
#include "reduced/reduced.h"

static inline int64_t type_bytes(int32_t type) { return type == F32 ? 4 : type == BF16 ? 2 : 1; }

static inline int64_t row_bytes(const Samples *s) { return s->channels * type_bytes(s->type); }

/* Row of a sample; -1 outside. */
static inline int64_t sample_row(const Samples *s, int64_t tile, int32_t y, int32_t x) {
    if (s->index) return s->index[(tile * s->height + y) * s->width + x];
    if ((uint32_t)y >= (uint32_t)s->height || (uint32_t)x >= (uint32_t)s->width) return -1;
    return (tile * s->height + y) * s->width + x;
}

/* Where a row lies in memory. */
static inline const uint8_t *row_address(const Samples *s, int64_t row, int64_t bytes) {
    if (row < 0) return s->outside;
    if (!s->index || row < s->own_rows) return (const uint8_t *)s->own + row * bytes;
    return (const uint8_t *)s->means + (row - s->own_rows) * bytes;
}

static inline float within_limits(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

static inline float from_bf16(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Round to nearest even; not a number stays one. */
static inline uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

/* Round to nearest even and saturate. After 1.5 * 2^23 is added, the rounded number stands in the lowest bits;
   bits of floats are in the order of the floats, so that limits can be those of integers, which compilers
   vectorise better. */
static inline uint32_t byte_of(float value) {
    const int32_t zero = 0x4b400000;
    int32_t bits;
    value += 12582912.0f;
    memcpy(&bits, &value, sizeof bits);
    bits = bits < zero ? zero : bits;
    bits = bits > zero + 255 ? zero + 255 : bits;
    return (uint32_t)(bits - zero);
}

static inline uint8_t to_u8(float value) { return (uint8_t)byte_of(value); }

/* Note NaN and infinity, numbers whose exponent is all ones, among values that go into 8 bits. */
static inline __attribute__((always_inline)) void notice_unreal(const float *values, int32_t count, int32_t *noted) {
    uint32_t found = 0, bits;
    for (int32_t i = 0; i < count; i++) memcpy(&bits, values + i, sizeof bits), found |= (bits & 0x7f800000u) == 0x7f800000u;
    if (found && noted) __atomic_store_n(noted, 1, __ATOMIC_RELAXED);
}

/* Read `count` samples from `at` on as float. */
static inline __attribute__((always_inline)) void read_values(float *to, const void *rows, int32_t type, int64_t at, int32_t count) {
    if (type == U8) {
        const uint8_t *from = (const uint8_t *)rows + at;
        for (int32_t i = 0; i < count; i++) to[i] = from[i];
    } else if (type == BF16) {
        const uint16_t *from = (const uint16_t *)rows + at;
        for (int32_t i = 0; i < count; i++) to[i] = from_bf16(from[i]);
    } else {
        memcpy(to, (const float *)rows + at, (size_t)count * sizeof(float));
    }
}

/* Store `count` samples from `at` on, rounded. */
static inline __attribute__((always_inline)) void write_values(void *rows, int32_t type, int64_t at, const float *values, int32_t count) {
    if (type == U8) {
        uint8_t *to = (uint8_t *)rows + at;
        for (int32_t i = 0; i < count; i++) to[i] = to_u8(values[i]);
    } else if (type == BF16) {
        uint16_t *to = (uint16_t *)rows + at;
        for (int32_t i = 0; i < count; i++) to[i] = to_bf16(values[i]);
    } else {
        memcpy((float *)rows + at, values, (size_t)count * sizeof(float));
    }
}

#endif
