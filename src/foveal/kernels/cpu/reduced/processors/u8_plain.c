/* 8-bit products in plain C, for any processor. */
#include "reduced/work.h"

typedef struct {
    int32_t lane[16];
} Vector;
typedef const int8_t *Weight;
typedef const uint8_t *Value;
typedef int32_t Sum;
#define LANES 16
#define PIXELS 3
#define GROUP 1
#define PATH convolve_u8_plain
#define weight_at(p) ((const int8_t *)(p))
#define value_at(p) (p)
#define finish(to, sum, correction) memcpy(to, &(sum), sizeof(sum))

static inline Vector begin(const int32_t *start, int o) {
    Vector v;
    memcpy(v.lane, start + o, sizeof v.lane);
    return v;
}

static inline Vector dot(Vector sum, Value a, Weight w) {
    for (int o = 0; o < LANES; o++)
        for (int i = 0; i < WORD; i++) sum.lane[o] += a[i] * w[o * WORD + i];
    return sum;
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"
