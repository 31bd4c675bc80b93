/* bfloat16 products in plain C, for any processor. */
#include "reduced/work.h"

typedef struct {
    float lane[16];
} Vector;
typedef const uint8_t *Weight;
typedef struct {
    float pair[2];
} Value;
typedef float Sum;
#define LANES 16
#define PIXELS 3
#define GROUP 1
#define PATH convolve_bf16_plain
#define begin(start, o) ((Vector){{0}})
#define weight_at(p) (p)
#define finish(to, sum, correction) memcpy(to, &(sum), sizeof(sum))

static inline Value value_at(const uint8_t *p) {
    uint16_t pair[2];
    memcpy(pair, p, sizeof pair);
    return (Value){{from_bf16(pair[0]), from_bf16(pair[1])}};
}

static inline Vector dot(Vector sum, Value a, Weight w) {
    for (int o = 0; o < LANES; o++) {
        const Value weight = value_at(w + o * WORD);
        sum.lane[o] += a.pair[0] * weight.pair[0];
        sum.lane[o] += a.pair[1] * weight.pair[1];
    }
    return sum;
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"
