// Four consecutive elements: 16 bytes in fp32, 8 in the formats of 16 bits; addresses are multiples
// of that.
#pragma once

#include "copy.cuh"
#include "vec.cuh"

#include <type_traits>

namespace tw {

struct alignas(8) Bytes8 {
    uint32_t word[2];
};

template <typename T> using Four = std::conditional_t<sizeof(T) == 4, Bytes16, Bytes8>;

TW_DEVICE void unpack_four(Bytes16 b, float (&out)[4], float) {
    unpack(b, out, 0.0f);
}
template <typename T> TW_DEVICE void unpack_four(Bytes8 b, float (&out)[4], T) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        out[2 * i] = to_float(T{(uint16_t)(b.word[i] & 0xffffu)});
        out[2 * i + 1] = to_float(T{(uint16_t)(b.word[i] >> 16)});
    }
}

TW_DEVICE Bytes16 pack_four(const float (&in)[4], float) {
    return pack(in, 0.0f);
}
template <typename T> TW_DEVICE Bytes8 pack_four(const float (&in)[4], T) {
    Bytes8 b;
#pragma unroll
    for (int i = 0; i < 2; i++)
        b.word[i] = (uint32_t)from_float<T>(in[2 * i]).bits |
                    (uint32_t)from_float<T>(in[2 * i + 1]).bits << 16;
    return b;
}

// Streaming, as read_16.
TW_DEVICE void load_four(const float *p, float (&out)[4]) {
    unpack(read_16(p), out, 0.0f);
}
template <typename T> TW_DEVICE void load_four(const T *p, float (&out)[4]) {
#ifdef TW_EMULATOR
    unpack_four(*reinterpret_cast<const Bytes8 *>(p), out, T{});
#else
    const uint2 v = __ldcs(reinterpret_cast<const uint2 *>(p));
    unpack_four(Bytes8{{v.x, v.y}}, out, T{});
#endif
}

template <typename T> TW_DEVICE void store_four(T *p, const float (&in)[4]) {
    *reinterpret_cast<Four<T> *>(p) = pack_four(in, T{});
}

// Into shared memory, asynchronously.
template <typename T> TW_DEVICE void copy_four(void *shared, const T *global) {
    if constexpr (sizeof(T) == 4)
        copy_async_16(shared, global);
    else
        copy_async_8(shared, global);
}

} // namespace tw
