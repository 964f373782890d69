// Functions whose device form is a wrapper of an intrinsic, and the activations.
#pragma once

#include "types.cuh"

namespace tw {

TW_DEVICE float fma_rn(float a, float b, float c) {
#ifdef TW_EMULATOR
    return std::fma(a, b, c);
#else
    return __fmaf_rn(a, b, c);
#endif
}

TW_DEVICE float to_float_rn(uint32_t v) {
#ifdef TW_EMULATOR
    return (float)v;
#else
    return __uint2float_rn(v);
#endif
}

// sin and cos of pi x for x in [0, 2].
TW_DEVICE void sin_cos_pi(float x, float *s, float *c) {
#ifdef TW_EMULATOR
    const double angle = 3.14159265358979323846 * (double)x;
    *s = (float)std::sin(angle);
    *c = (float)std::cos(angle);
#else
    sincospif(x, s, c);
#endif
}

// To [-limit, limit]; NaN stays NaN, as it does not with fminf and fmaxf.
TW_DEVICE float clamp_to(float x, float limit) {
    return x < -limit ? -limit : x > limit ? limit : x;
}

TW_DEVICE bool is_finite(float v) {
    return (float_to_bits(v) & 0x7f800000u) != 0x7f800000u;
}

// exp with a relative error of about (2 + |x|) 2^-23: two instructions on a GPU.
TW_DEVICE float exp_fast(float x) {
#ifdef TW_EMULATOR
    return std::exp(x);
#else
    return __expf(x);
#endif
}

// 2^x with a relative error of about 2^-22, 0 below 2^-126: one instruction on a GPU.
TW_DEVICE float exp2_fast(float x) {
#ifdef TW_EMULATOR
    return x < -126.0f ? 0.0f : std::exp2(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

TW_DEVICE float sigmoid(float x) {
#ifdef TW_EMULATOR
    return 1.0f / (1.0f + exp_fast(-x));
#else
    // The approximate division gives 0 for divisors above 2^126, which is the right limit here.
    return __fdividef(1.0f, 1.0f + exp_fast(-x));
#endif
}

TW_DEVICE float silu(float x) {
    return x * sigmoid(x);
}
TW_DEVICE float silu_slope(float x) {
    const float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

TW_DEVICE float gelu(float x) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}
TW_DEVICE float gelu_slope(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * exp_fast(-0.5f * x * x);
}

} // namespace tw
