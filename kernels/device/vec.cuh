// Reads and writes of V consecutive elements as fp32, 16 bytes an access where WIDE promises that
// the address is 16-byte aligned and that all V elements exist.
#pragma once

#include "types.cuh"
#include "warp.cuh"

namespace tw {

struct alignas(16) Bytes16 {
    uint32_t word[4];
};

// Streaming: data that is read or written once and not wanted in the cache.
TW_DEVICE Bytes16 read_16(const void *p) {
#ifdef TW_EMULATOR
    return *static_cast<const Bytes16 *>(p);
#else
    const uint4 v = __ldcs(static_cast<const uint4 *>(p));
    return Bytes16{{v.x, v.y, v.z, v.w}};
#endif
}

TW_DEVICE void write_16(void *p, Bytes16 v) {
#ifdef TW_EMULATOR
    *static_cast<Bytes16 *>(p) = v;
#else
    *static_cast<uint4 *>(p) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
#endif
}

// Elements in 16 bytes.
template <typename T> constexpr int per_16 = 16 / (int)sizeof(T);

TW_DEVICE void unpack(Bytes16 b, float *out, float) {
#pragma unroll
    for (int i = 0; i < 4; i++) out[i] = bits_to_float(b.word[i]);
}
template <typename T> TW_DEVICE void unpack(Bytes16 b, float *out, T) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        out[2 * i] = to_float(T{(uint16_t)(b.word[i] & 0xffffu)});
        out[2 * i + 1] = to_float(T{(uint16_t)(b.word[i] >> 16)});
    }
}
TW_DEVICE Bytes16 pack(const float *in, float) {
    Bytes16 b;
#pragma unroll
    for (int i = 0; i < 4; i++) b.word[i] = float_to_bits(in[i]);
    return b;
}
template <typename T> TW_DEVICE Bytes16 pack(const float *in, T) {
    Bytes16 b;
#pragma unroll
    for (int i = 0; i < 4; i++)
        b.word[i] = (uint32_t)from_float<T>(in[2 * i]).bits |
                    (uint32_t)from_float<T>(in[2 * i + 1]).bits << 16;
    return b;
}

// Reads elements [0, count) of the V; the rest become zero. WIDE needs count == V and V a multiple
// of per_16<T>.
template <bool WIDE, int V, typename T>
TW_DEVICE void load(const T *p, int count, float (&out)[V]) {
    if constexpr (WIDE && V % per_16<T> == 0) {
        Bytes16 raw[V / per_16<T>];
#pragma unroll
        for (int i = 0; i < V / per_16<T>; i++) raw[i] = read_16(p + i * per_16<T>);
#pragma unroll
        for (int i = 0; i < V / per_16<T>; i++) unpack(raw[i], out + i * per_16<T>, T{});
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) out[i] = i < count ? to_float(p[i]) : 0.0f;
    }
}

template <bool WIDE, int V, typename T>
TW_DEVICE void store(T *p, int count, const float (&in)[V]) {
    if constexpr (WIDE && V % per_16<T> == 0) {
#pragma unroll
        for (int i = 0; i < V / per_16<T>; i++)
            write_16(p + i * per_16<T>, pack(in + i * per_16<T>, T{}));
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            if (i < count) p[i] = from_float<T>(in[i]);
    }
}

// As store, where every thread of the warp stores a vector and these lie side by side in memory
// (whole_warp says so). Eight floats a thread would be two accesses that each fill only half of
// every memory sector they touch; neighbours swap halves first, so that each fills whole ones.
template <bool WIDE, int V, typename T>
TW_DEVICE void store_warp(T *p, int count, const float (&in)[V], bool whole_warp) {
    if constexpr (WIDE && V == 8 && sizeof(T) == 4) {
        if (whole_warp) {
            const bool odd = threadIdx.x & 1u;
            float first[4], second[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float other = shuffle_xor(full_warp, odd ? in[i] : in[i + 4], 1);
                first[i] = odd ? other : in[i];
                second[i] = odd ? in[i + 4] : other;
            }
            // The neighbour has read what is overwritten here when a tensor is updated in place.
            sync_warp(full_warp);
            T *const pair = odd ? p - 4 : p; // the even thread's vector, plus four when odd
            write_16(pair, pack(first, T{}));
            write_16(pair + 8, pack(second, T{}));
            return;
        }
    }
    store<WIDE>(p, count, in);
}

// Whether the vectors of all threads of this warp exist, index being this thread's of total.
TW_DEVICE bool is_whole_warp(int64_t index, int64_t total) {
    return (index | 31) < total;
}

// True when WIDE may be used on this address.
inline bool aligned_16(const void *p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// a / b for a, b >= 0. 32-bit division is several times cheaper and nearly always enough.
TW_BOTH int64_t quotient(int64_t a, int64_t b) {
    return ((uint64_t)a | (uint64_t)b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

// Where vector `index` of a batch lies: samples are cut into vectors of V one by one, so that a
// vector never straddles two samples.
struct Place {
    int64_t sample;
    int64_t first; // element in the sample
    int64_t at;    // element in the tensor
    int count;     // how many of the V exist
};

TW_BOTH Place place_of(int64_t index, int64_t vectors, int64_t elements, int v) {
    Place p;
    p.sample = quotient(index, vectors);
    p.first = (index - p.sample * vectors) * v;
    p.at = p.sample * elements + p.first;
    p.count = (int)smaller<int64_t>(v, elements - p.first);
    return p;
}

} // namespace tw
