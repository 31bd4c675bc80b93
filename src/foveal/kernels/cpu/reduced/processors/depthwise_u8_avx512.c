/* Depthwise convolution of 8-bit maps with AVX512-VNNI: 64 channels at a time. Four samples of a window are
   interleaved byte by byte, so that one product sums four of them per channel; 128-bit lanes keep 16 channels
   each, and narrowing the sums brings the channels back into order. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")

typedef uint8_t Sample;
typedef struct {
    __m512 low, high;
} Limits;
#define PATH depthwise_u8_avx512

enum { CHANNELS = 64, MOST_GROUPS = (DEPTHWISE_TAPS + 3) / 4 };

static inline Limits limits(const ReducedConvolution *v) {
    return (Limits){_mm512_set1_ps(v->low > 0 ? v->low : 0), _mm512_set1_ps(v->high < 255 ? v->high : 255)};
}

/* Four vectors of 16 sums: number q holds the channels 16 lane + 4 q + 0..3. */
typedef struct {
    __m512i q[4];
} Quad;

static inline Quad interleave(__m512i a, __m512i b, __m512i c, __m512i d) {
    const __m512i ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    const __m512i cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    return (Quad){{_mm512_unpacklo_epi16(ab0, cd0), _mm512_unpackhi_epi16(ab0, cd0),
                   _mm512_unpacklo_epi16(ab1, cd1), _mm512_unpackhi_epi16(ab1, cd1)}};
}

/* A table of 32-bit numbers [count], count <= 64, in the order of a Quad. */
static inline Quad table(const void *from, int32_t count) {
    __m512i z[4];
    for (int32_t k = 0; k < 4; k++) {
        const int32_t left = count - 16 * k, many = left < 0 ? 0 : left > 16 ? 16 : left;
        z[k] = _mm512_maskz_loadu_epi32((__mmask16)((1u << many) - 1), (const int32_t *)from + 16 * k);
    }
    const __m512i a = _mm512_shuffle_i32x4(z[0], z[1], 0x44), b = _mm512_shuffle_i32x4(z[0], z[1], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(z[2], z[3], 0x44), d = _mm512_shuffle_i32x4(z[2], z[3], 0xee);
    return (Quad){{_mm512_shuffle_i32x4(a, c, 0x88), _mm512_shuffle_i32x4(a, c, 0xdd),
                   _mm512_shuffle_i32x4(b, d, 0x88), _mm512_shuffle_i32x4(b, d, 0xdd)}};
}

/* What a block of channels needs: it is laid out once per task. */
typedef struct {
    Quad weight[MOST_GROUPS], start, scale, bias;
    __mmask64 there;
} Block;

static void prepare(const ReducedConvolution *v, int32_t c, int32_t taps, Block *b) {
    const int32_t channels = v->in.channels, count = channels - c < CHANNELS ? channels - c : CHANNELS;
    b->there = count == CHANNELS ? ~0ull : (1ull << count) - 1;
    for (int32_t t = 0; t < taps; t += 4) {
        __m512i w[4];
        for (int32_t k = 0; k < 4; k++)
            w[k] = t + k < taps ? _mm512_maskz_loadu_epi8(b->there, (const int8_t *)v->weight + (int64_t)(t + k) * channels + c) : _mm512_setzero_si512();
        b->weight[t / 4] = interleave(w[0], w[1], w[2], w[3]);
    }
    b->start = table(v->start + c, count), b->scale = table(v->scale + c, count), b->bias = table(v->bias + c, count);
}

/* One pixel; taps[t] are the addresses of its samples, from the block's first channel on. */
static inline __attribute__((always_inline)) void pixel(
    const Block *b, const uint8_t *const *taps, int32_t count, int64_t c, const Limits *limit, Sample *to)
{
    Quad sum = b->start;
    for (int32_t t = 0; t < count; t += 4) {
        __m512i x[4];
        for (int32_t k = 0; k < 4; k++)
            x[k] = t + k < count ? _mm512_maskz_loadu_epi8(b->there, taps[t + k] + c) : _mm512_setzero_si512();
        const Quad value = interleave(x[0], x[1], x[2], x[3]);
        for (int32_t q = 0; q < 4; q++) sum.q[q] = _mm512_dpbusd_epi32(sum.q[q], value.q[q], b->weight[t / 4].q[q]);
    }
    for (int32_t q = 0; q < 4; q++) {
        __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum.q[q]), _mm512_castsi512_ps(b->scale.q[q]), _mm512_castsi512_ps(b->bias.q[q]));
        y = _mm512_min_ps(_mm512_max_ps(y, limit->low), limit->high);
        sum.q[q] = _mm512_cvtps_epi32(y);
    }
    const __m512i bytes = _mm512_packus_epi16(_mm512_packs_epi32(sum.q[0], sum.q[1]), _mm512_packs_epi32(sum.q[2], sum.q[3]));
    _mm512_mask_storeu_epi8(to + c, b->there, bytes);
}

#include "reduced/processors/depthwise.h"

TARGET_END
#endif
