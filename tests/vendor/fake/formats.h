// Values in memory, for the stand-in.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace fake {

enum class Format { f32, f16, bf16 };

inline size_t bytes_of(Format f) {
    return f == Format::f32 ? 4 : 2;
}

inline double read(Format f, const void *base, int64_t at) {
    if (f == Format::f32) return static_cast<const float *>(base)[at];
    const uint16_t b = static_cast<const uint16_t *>(base)[at];
    if (f == Format::bf16) {
        const uint32_t bits = (uint32_t)b << 16;
        float x;
        memcpy(&x, &bits, 4);
        return x;
    }
    const int e = b >> 10 & 31, m = b & 1023;
    const double v =
        e == 31 ? (m ? NAN : INFINITY) : std::ldexp(e ? 1024 + m : m, (e ? e : 1) - 25);
    return b & 0x8000 ? -v : v;
}

// Rounded to nearest, ties to even, through the double's own digits.
inline void write(Format f, void *base, int64_t at, double v) {
    if (f == Format::f32) {
        static_cast<float *>(base)[at] = (float)v;
        return;
    }
    const int digits = f == Format::bf16 ? 8 : 11, lowest = f == Format::bf16 ? -133 : -24;
    int e = 0;
    double r = v;
    if (v != 0 && std::isfinite(v)) {
        std::frexp(v, &e);
        const int unit = e - digits > lowest ? e - digits : lowest;
        r = std::ldexp(std::nearbyint(std::ldexp(v, -unit)), unit);
    }
    uint16_t &out = static_cast<uint16_t *>(base)[at];
    if (f == Format::bf16) {
        const float x = (float)r;
        uint32_t bits;
        memcpy(&bits, &x, 4);
        out = (uint16_t)(bits >> 16);
        return;
    }
    const uint16_t sign = std::signbit(r) ? 0x8000 : 0;
    const double a = std::fabs(r);
    if (std::isnan(a))
        out = 0x7fff;
    else if (a > 65504)
        out = sign | 0x7c00;
    else if (a < 0x1p-14)
        out = sign | (uint16_t)(a * 0x1p24);
    else {
        const double m = std::frexp(a, &e);
        out = sign | (uint16_t)((e + 14) << 10) | (uint16_t)((2 * m - 1) * 1024);
    }
}

} // namespace fake
