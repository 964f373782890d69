// The storage formats and their conversion to and from fp32, where all arithmetic happens.
#pragma once

#include "platform.cuh"

#include <string.h>

#ifndef TW_EMULATOR
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace tw {

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

TW_DEVICE float bits_to_float(uint32_t bits) {
#ifdef TW_EMULATOR
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
#else
    return __uint_as_float(bits);
#endif
}

TW_DEVICE uint32_t float_to_bits(float v) {
#ifdef TW_EMULATOR
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
#else
    return __float_as_uint(v);
#endif
}

TW_DEVICE float to_float(float v) {
    return v;
}
TW_DEVICE float to_float(bf16 v) {
    return bits_to_float((uint32_t)v.bits << 16);
}
TW_DEVICE float to_float(f16 v) {
#ifdef TW_EMULATOR
    const uint32_t sign = (uint32_t)(v.bits & 0x8000u) << 16;
    const uint32_t exponent = v.bits >> 10 & 31u, fraction = v.bits & 1023u;
    if (exponent == 31) return bits_to_float(sign | 0x7f800000u | fraction << 13);
    if (exponent) return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float tiny = (float)fraction * 5.9604644775390625e-8f; // 2^-24
    return sign ? -tiny : tiny;
#else
    return __half2float(__ushort_as_half(v.bits));
#endif
}

// Rounds to nearest, ties to even.
template <typename T> TW_DEVICE T from_float(float v);
template <> TW_DEVICE float from_float<float>(float v) {
    return v;
}
template <> TW_DEVICE bf16 from_float<bf16>(float v) {
#ifdef TW_EMULATOR
    const uint32_t bits = float_to_bits(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
    return bf16{(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
#else
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#endif
}
template <> TW_DEVICE f16 from_float<f16>(float v) {
#ifdef TW_EMULATOR
    const uint32_t bits = float_to_bits(v), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return f16{0x7fff};
    if (size >= 0x477ff000u) return f16{(uint16_t)(sign | 0x7c00u)};
    if (size < 0x38800000u) { // subnormal: adding 1/2 leaves the rounded multiple of 2^-24
        const float shifted = bits_to_float(size) + 0.5f;
        return f16{(uint16_t)(sign | (float_to_bits(shifted) - 0x3f000000u))};
    }
    return f16{(uint16_t)(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13))};
#else
    return f16{__half_as_ushort(__float2half_rn(v))};
#endif
}

// Two elements of a 16-bit format in a word, the first in the lower half.
TW_DEVICE uint32_t pack_pair(bf16, float first, float second) {
#ifdef TW_EMULATOR
    return (uint32_t)from_float<bf16>(first).bits | (uint32_t)from_float<bf16>(second).bits << 16;
#else
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return (uint32_t)__bfloat16_as_ushort(pair.x) | (uint32_t)__bfloat16_as_ushort(pair.y) << 16;
#endif
}
TW_DEVICE uint32_t pack_pair(f16, float first, float second) {
#ifdef TW_EMULATOR
    return (uint32_t)from_float<f16>(first).bits | (uint32_t)from_float<f16>(second).bits << 16;
#else
    const __half2 pair = __floats2half2_rn(first, second);
    return (uint32_t)__half_as_ushort(pair.x) | (uint32_t)__half_as_ushort(pair.y) << 16;
#endif
}

} // namespace tw
