/* Functions for loops that must vectorise, without a division or a branch. */
#ifndef TW_BACKEND_CPU_FAST_MATH_H
#define TW_BACKEND_CPU_FAST_MATH_H

#include "backend/cpu/ref_math.h"

/* 1 / d for 1 <= d < 2^126, within 2 ulp: a guess from the exponent, off by an eighth at most,
 * whose error Newton's iteration squares three times. Several times quicker than a division. */
static inline float tw_fast_reciprocal(float d) {
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    bits = 0x7ef311c7u - bits;
    float r;
    memcpy(&r, &bits, sizeof r);
    r += r * (1.0f - d * r);
    r += r * (1.0f - d * r);
    r += r * (1.0f - d * r);
    return r;
}

/* 1 / (1 + exp(-x)) within 4 ulp, saturating beyond |x| = 87; a number for NaN too, so that callers
 * multiply with x. The magnitude is cut as an integer: GCC makes branches of cutting a float. */
static inline float tw_fast_sigmoid(float x) {
    int32_t bits, cut;
    memcpy(&bits, &x, sizeof bits);
    cut = bits & 0x7fffffff;
    cut = cut < 0x42ae0000 ? cut : 0x42ae0000; /* 87 */
    cut |= ~bits & (int32_t)0x80000000;
    memcpy(&x, &cut, sizeof x);
    return tw_fast_reciprocal(1.0f + tw_ref_exp_within(x));
}

static inline float tw_fast_silu(float x) {
    return x * tw_fast_sigmoid(x);
}

/* d silu(x) / dx */
static inline float tw_fast_silu_slope(float x) {
    const float s = tw_fast_sigmoid(x);
    return s * (1 + x * (1 - s));
}

#endif
