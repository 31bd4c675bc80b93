/* bfloat16 products with AVX2 and FMA: even and odd numbers are widened to single precision. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma")

typedef __m256 Vector;
typedef struct {
    __m256 even, odd;
} Weight, Value;
typedef float Sum;
#define LANES 8
#define PIXELS 3
#define GROUP 1
#define PATH convolve_bf16_avx2
#define begin(start, o) _mm256_setzero_ps()
#define finish(to, sum, correction) _mm256_store_ps(to, sum)

static inline Weight widen(__m256i pairs) {
    const __m256i upper = _mm256_set1_epi32((int32_t)0xffff0000);
    return (Weight){_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))};
}

static inline Weight weight_at(const uint8_t *p) { return widen(_mm256_loadu_si256((const __m256i *)p)); }

static inline Value value_at(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, WORD);
    return widen(_mm256_set1_epi32(word));
}

static inline Vector dot(Vector sum, Value a, Weight w) {
    return _mm256_fmadd_ps(a.odd, w.odd, _mm256_fmadd_ps(a.even, w.even, sum));
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
