/* 8-bit products with AVX2, exact: products of even and odd bytes are summed in pairs as 16-bit numbers. The
   instruction that multiplies bytes saturates its sums and is not used. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma")

typedef __m256i Vector;
typedef struct {
    __m256i even, odd;
} Weight, Value;
typedef int32_t Sum;
#define LANES 8
#define PIXELS 3
#define GROUP 1
#define PATH convolve_u8_avx2
#define begin(start, o) _mm256_loadu_si256((const __m256i *)((start) + (o)))
#define finish(to, sum, correction) _mm256_store_si256((__m256i *)(to), sum)

static inline Weight weight_at(const uint8_t *p) {
    const __m256i w = _mm256_loadu_si256((const __m256i *)p);
    return (Weight){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}

static inline Value value_at(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, WORD);
    const __m256i a = _mm256_set1_epi32(word);
    return (Value){_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_srli_epi16(a, 8)};
}

static inline Vector dot(Vector sum, Value a, Weight w) {
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a.even, w.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a.odd, w.odd));
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
