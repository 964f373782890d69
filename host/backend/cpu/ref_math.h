/* exp without a branch for loops that must vectorise. */
#ifndef TW_BACKEND_CPU_REF_MATH_H
#define TW_BACKEND_CPU_REF_MATH_H

#include "backend/cpu/ref.h"

#ifdef TW_REF_DOUBLE

static inline double tw_ref_exp(double x) {
    return exp(x);
}

#else

/* exp(x) for -87 <= x <= 88, within 2 ulp: 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2 with
 * ln 2 in two parts; exp(r) by a polynomial of degree 6 through Chebyshev nodes (relative error
 * 1.1e-8 before rounding). */
static inline float tw_ref_exp_within(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: rounds to whole numbers */
    const float shifted = x * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-06f;
    float q = 0.00139262504f;
    q = q * r + 0.00836323295f;
    q = q * r + 0.0416665524f;
    q = q * r + 0.166665763f;
    q = q * r + 0.5f;
    const float e = 1.0f + (r + r * r * q);
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return e * scale;
}

/* The same for every x: saturates at exp(-87) and exp(88); NaN stays NaN. */
static inline float tw_ref_exp(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    return tw_ref_exp_within(x);
}

#endif

static inline real tw_ref_silu(real x) {
    return x / (1 + tw_ref_exp(-x));
}

/* d silu(x) / dx = s (1 + x (1 - s)), s = 1 / (1 + exp(-x)) */
static inline real tw_ref_silu_slope(real x) {
    const real s = 1 / (1 + tw_ref_exp(-x));
    return s * (1 + x * (1 - s));
}

#endif
