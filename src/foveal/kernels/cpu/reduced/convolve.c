/* Which instructions compute a convolution in reduced precision. */
#include <stdlib.h>
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#include "platform/export.h"
#include "reduced/work.h"
#include "platform/region.h"

typedef void (*Path)(const ReducedConvolution *v, Team team);

static const char *const NAMES[PATHS] = {"best", "plain", "avx2", "avxvnni", "avx512", "neon"};

/* The function for a type and a path; NULL where the processor lacks the instructions. */
static Path function_of(int32_t type, int32_t path) {
    const int bytes = type == U8;
    if (path == PLAIN_C) return bytes ? convolve_u8_plain : convolve_bf16_plain;
#if defined(__x86_64__)
    const int wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const int fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (path == AVX2 && fma) return bytes ? convolve_u8_avx2 : convolve_bf16_avx2;
    if (path == AVX_VNNI && fma && bytes && __builtin_cpu_supports("avxvnni")) return convolve_u8_vnni;
    if (path == AVX512 && wide && bytes && __builtin_cpu_supports("avx512vnni")) return convolve_u8_avx512;
    if (path == AVX512 && wide && !bytes && __builtin_cpu_supports("avx512bf16")) return convolve_bf16_avx512;
#elif defined(__aarch64__) && defined(__linux__)
    if (path == NEON_DOT && bytes && getauxval(AT_HWCAP) & HWCAP_ASIMDDP) return convolve_u8_neon;
#endif
    return 0;
}

/* What the environment names; BEST if it names nothing. */
static int32_t named(void) {
    static int32_t known = -1;
    int32_t path = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (path >= 0) return path;
    const char *name = getenv("FOVEAL_INSTRUCTIONS");
    for (path = PATHS - 1; path > 0; path--)
        if (name && !strcmp(name, NAMES[path])) break;
    __atomic_store_n(&known, path, __ATOMIC_RELAXED);
    return path;
}

int32_t reduced_path(int32_t type, int32_t wanted) {
    if (type != U8 && type != BF16) return -1;
    if (wanted != BEST) return function_of(type, wanted) ? wanted : -1;
    if (named() != BEST && function_of(type, named())) return named();
    int32_t path = PATHS - 1;
    while (!function_of(type, path)) path--;
    return path;
}

int64_t reduced_scratch(const ReducedConvolution *v) {
    const int64_t windows = panel_pixels(v) * panel_pitch(v);
    return windows > LINES_BYTES ? windows : LINES_BYTES;
}

void reduced_convolve_step(const ReducedConvolution *v, Team team) {
    function_of(v->in.type, reduced_path(v->in.type, v->path))(v, team);
}

EXPORT int32_t foveal_reduced_path(int32_t type, int32_t wanted) { return reduced_path(type, wanted); }

/* Return 0; 1 where memory is short, 2 where the processor lacks the instructions. */
EXPORT int32_t foveal_reduced_convolve(const ReducedConvolution *given) {
    if (reduced_path(given->in.type, given->path) < 0) return 2;
    ReducedConvolution v = *given;
    v.scratch_bytes = reduced_scratch(&v);
    v.scratch = aligned_alloc(64, (size_t)(v.scratch_bytes * threads()));
    if (!v.scratch) return 1;
    IN_REGION(reduced_convolve_step(&v, team));
    free(v.scratch);
    return 0;
}
