/* Numbers too small to matter.

   Below 1.2e-38 a float loses digits, and processors take up to a hundred times longer for it. Trained networks have such
   values where a channel died. A team computes with zeros instead, and its threads are given back as they were. */
#ifndef FOVEAL_TINY_H
#define FOVEAL_TINY_H

#include <stdint.h>

/* Take such numbers for zeros from now on, in this thread; return what was set before. */
static inline uint64_t flush_tiny(void) {
#if defined(__x86_64__)
    const uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(before | 0x8040); /* results and operands */
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | (1u << 24)));
    return before;
#else
    return 0;
#endif
}

/* Set again what `flush_tiny` found. */
static inline void keep_tiny(uint64_t before) {
#if defined(__x86_64__)
    __builtin_ia32_ldmxcsr((uint32_t)before);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

#endif
