/* The exponential function of whole vectors. */
#ifndef FOVEAL_EXPONENTIAL_H
#define FOVEAL_EXPONENTIAL_H

#include "platform/rows.h"

static inline vec broadcast(float v) { return (vec){} + v; }

/* exp, of numbers between -87 and 88: a polynomial on a half octave, error of 2 units in the last place.
   Source: Cephes, expf.c (Moshier). */
static inline vec exponential(vec x) {
    x = clamp(x, -87.0f, 88.0f);
    const vec scaled = x * 1.44269504088896341f;
    const mask whole = __builtin_convertvector(scaled + choose(scaled < broadcast(0), broadcast(-0.5f), broadcast(0.5f)), mask);
    const vec n = __builtin_convertvector(whole, vec), y = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec p = broadcast(1.9875691500e-4f);
    p = p * y + 1.3981999507e-3f;
    p = p * y + 8.3334519073e-3f;
    p = p * y + 4.1665795894e-2f;
    p = p * y + 1.6666665459e-1f;
    p = p * y + 5.0000001201e-1f;
    p = p * y * y + y + 1.0f;
    return p * (vec)((whole + 127) << 23);
}

#endif
