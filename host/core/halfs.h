/* bfloat16 and IEEE binary16 to and from float32: widening is exact, narrowing rounds to nearest,
 * ties to even. NaN stays NaN (its payload is cut, never to infinity). */
#ifndef TW_CORE_HALFS_H
#define TW_CORE_HALFS_H

#include <stdint.h>
#include <string.h>

static inline float tw_f32_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t tw_f32_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float tw_bf16_to_f32(uint16_t h) {
    return tw_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t tw_f32_to_bf16(float f) {
    uint32_t x = tw_f32_to_bits(f);
    if ((x & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((x >> 16) | 0x40u);
    return (uint16_t)((x + 0x7fffu + ((x >> 16) & 1u)) >> 16);
}

static inline float tw_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
    if (exponent == 31u) return tw_f32_from_bits(sign | 0x7f800000u | (mantissa << 13));
    if (exponent) return tw_f32_from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
    float magnitude = (float)mantissa * 0x1p-24f;
    return tw_f32_from_bits(sign | tw_f32_to_bits(magnitude));
}

static inline uint16_t tw_f32_to_f16(float f) {
    uint32_t x = tw_f32_to_bits(f), sign = (x >> 16) & 0x8000u, a = x & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above */
    if (a >= 0x38800000u) {                                  /* normal: 2^-14 and above */
        a += 0xfffu + ((a >> 13) & 1u);
        return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
    }
    if (a < 0x33000000u) return (uint16_t)sign; /* below 2^-25 */
    uint32_t m = (a & 0x7fffffu) | 0x800000u, shift = 126u - (a >> 23);
    uint32_t half = 1u << (shift - 1u), rest = m & ((1u << shift) - 1u), q = m >> shift;
    return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1u)))));
}

#endif
