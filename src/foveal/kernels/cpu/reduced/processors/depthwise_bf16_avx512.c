/* Depthwise convolution of bfloat16 maps with AVX-512: 32 channels at a time, sums in single precision. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")

typedef uint16_t Sample;
typedef struct {
    __m512 low, high;
} Limits;
#define PATH depthwise_bf16_avx512

enum { CHANNELS = 32 };

/* Two vectors of 16 channels. */
typedef struct {
    __m512 half[2];
} Pair;

typedef struct {
    Pair weight[DEPTHWISE_TAPS], scale, bias;
    __mmask32 there;
} Block;

static inline Limits limits(const ReducedConvolution *v) { return (Limits){_mm512_set1_ps(v->low), _mm512_set1_ps(v->high)}; }

static inline Pair widen(__mmask32 there, const uint16_t *from) {
    const __m512i x = _mm512_maskz_loadu_epi16(there, from);
    const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)), b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1));
    return (Pair){{_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16))}};
}

static inline Pair table(__mmask32 there, const float *from) {
    return (Pair){{_mm512_maskz_loadu_ps((__mmask16)there, from), _mm512_maskz_loadu_ps((__mmask16)(there >> 16), from + 16)}};
}

static void prepare(const ReducedConvolution *v, int32_t c, int32_t taps, Block *b) {
    const int32_t channels = v->in.channels, count = channels - c < CHANNELS ? channels - c : CHANNELS;
    b->there = count == CHANNELS ? ~0u : (1u << count) - 1;
    for (int32_t t = 0; t < taps; t++) b->weight[t] = widen(b->there, (const uint16_t *)v->weight + (int64_t)t * channels + c);
    b->scale = table(b->there, v->scale + c), b->bias = table(b->there, v->bias + c);
}

/* One pixel; taps[t] are the addresses of its samples. */
static inline __attribute__((always_inline)) void pixel(
    const Block *b, const uint8_t *const *taps, int32_t count, int64_t c, const Limits *limit, Sample *to)
{
    Pair sum = {{_mm512_setzero_ps(), _mm512_setzero_ps()}};
    for (int32_t t = 0; t < count; t++) {
        const Pair x = widen(b->there, (const uint16_t *)taps[t] + c);
        for (int32_t k = 0; k < 2; k++) sum.half[k] = _mm512_fmadd_ps(x.half[k], b->weight[t].half[k], sum.half[k]);
    }
    for (int32_t k = 0; k < 2; k++) {
        const __m512 y = _mm512_fmadd_ps(sum.half[k], b->scale.half[k], b->bias.half[k]);
        sum.half[k] = _mm512_min_ps(limit->high, _mm512_max_ps(limit->low, y)); /* NaN stays: the second operand is returned */
    }
    const __m512i out = (__m512i)_mm512_cvtne2ps_pbh(sum.half[1], sum.half[0]);
    _mm512_mask_storeu_epi16(to + c, b->there, out);
}

#include "reduced/processors/depthwise.h"

TARGET_END
#endif
