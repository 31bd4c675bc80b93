/* 8-bit products with NEON's dot product, whose factors are both signed: 128 is taken from the values, and 128
   times the sum of the weights, kept beside the sums, is given back at the end. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("arch=armv8.2-a+dotprod")

typedef int32x4_t Vector, Correction;
typedef int8x16_t Weight, Value;
typedef int32_t Sum;
#define LANES 4
#define PIXELS 6
#define GROUP 2
#define PATH convolve_u8_neon
#define CORRECT
#define begin(start, o) vld1q_s32((start) + (o))
#define weight_at(p) vld1q_s8((const int8_t *)(p))
#define dot(sum, value, weight) vdotq_s32(sum, value, weight)
#define correct(sum, weight) vdotq_s32(sum, vdupq_n_s8(1), weight)
#define finish(to, sum, correction) vst1q_s32(to, vaddq_s32(sum, vshlq_n_s32(correction, 7)))

static inline Value value_at(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, WORD);
    return vreinterpretq_s8_u32(vdupq_n_u32(word ^ 0x80808080u));
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
