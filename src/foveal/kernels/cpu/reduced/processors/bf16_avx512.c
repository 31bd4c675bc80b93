/* bfloat16 products with AVX512-BF16: two products and their sum per lane. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")

typedef __m512 Vector;
typedef __m512bh Weight, Value;
typedef float Sum;
#define LANES 16
#define PIXELS 12
#define GROUP 2
#define PATH convolve_bf16_avx512
#define begin(start, o) _mm512_setzero_ps()
#define weight_at(p) ((__m512bh)_mm512_loadu_si512(p))
#define dot(sum, value, weight) _mm512_dpbf16_ps(sum, value, weight)
#define finish(to, sum, correction) _mm512_store_ps(to, sum)

static inline Value value_at(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, WORD);
    return (__m512bh)_mm512_set1_epi32(word);
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
