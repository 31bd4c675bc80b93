/* 8-bit products in 256-bit vectors with AVX-VNNI. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma,avxvnni")

typedef __m256i Vector, Weight, Value;
typedef int32_t Sum;
#define LANES 8
#define PIXELS 6
#define GROUP 2
#define PATH convolve_u8_vnni
#define begin(start, o) _mm256_loadu_si256((const __m256i *)((start) + (o)))
#define weight_at(p) _mm256_loadu_si256((const __m256i *)(p))
#define dot(sum, value, weight) _mm256_dpbusd_avx_epi32(sum, value, weight)
#define finish(to, sum, correction) _mm256_store_si256((__m256i *)(to), sum)

static inline Value value_at(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, WORD);
    return _mm256_set1_epi32(word);
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
