/* 8-bit products with AVX512-VNNI: four products and their sum per lane. */
#if defined(__x86_64__)
#include <immintrin.h>
#include "reduced/work.h"
#include "reduced/processors/target.h"

TARGET("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")

typedef __m512i Vector, Weight, Value;
typedef int32_t Sum;
#define LANES 16
#define PIXELS 12
#define GROUP 2
#define PATH convolve_u8_avx512
#define begin(start, o) _mm512_loadu_si512((start) + (o))
#define weight_at(p) _mm512_loadu_si512(p)
#define dot(sum, value, weight) _mm512_dpbusd_epi32(sum, value, weight)
#define finish(to, sum, correction) _mm512_store_si512(to, sum)

static inline Value value_at(const uint8_t *p) {
    int32_t word;
    memcpy(&word, p, WORD);
    return _mm512_set1_epi32(word);
}

#include "reduced/processors/block.h"
#include "reduced/processors/panel.h"

TARGET_END
#endif
