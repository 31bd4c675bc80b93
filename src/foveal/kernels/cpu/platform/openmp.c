/* OpenMP for a process that has none. Kernels that a wheel brings are not linked to OpenMP: in a process with
   PyTorch its own is found first, as it is loaded for all. Where there is no PyTorch only programs run, which have
   threads of their own; everything else then runs on one thread, by what stands here. */
#ifdef FOVEAL_PREBUILT
#include <stdbool.h>

#define FALLBACK __attribute__((weak, visibility("default")))

FALLBACK int omp_get_thread_num(void) { return 0; }
FALLBACK int omp_get_num_threads(void) { return 1; }
FALLBACK int omp_get_max_threads(void) { return 1; }

FALLBACK void GOMP_parallel(void (*run)(void *), void *data, unsigned threads, unsigned flags) {
    (void)threads, (void)flags;
    run(data);
}

FALLBACK void GOMP_barrier(void) {}

/* The one thread takes the whole loop at once. */
FALLBACK bool GOMP_loop_nonmonotonic_dynamic_start(long start, long end, long step, long chunk, long *first, long *last) {
    (void)chunk;
    *first = start, *last = end;
    return step > 0 ? start < end : start > end;
}

FALLBACK bool GOMP_loop_nonmonotonic_dynamic_next(long *first, long *last) {
    (void)first, (void)last;
    return false;
}

FALLBACK void GOMP_loop_end_nowait(void) {}
#endif
