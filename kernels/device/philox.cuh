// Philox4x32-10 and the engine's noise contract: key = seed; counter = (element / 4, step, low
// half of the sample's number, purpose << 16 | 16 more bits of it). Noise belongs to a sample and
// is the same to the bit whatever the batch, the chunking or the device.
#pragma once

#include "../kernels.h"
#include "math.cuh"

namespace tw {

struct Words4 {
    uint32_t w[4];
};

TW_DEVICE Words4 philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                        uint32_t k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        const uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return Words4{{c0, c1, c2, c3}};
}

// A stream of noise for one sample, one purpose and one step.
struct Noise {
    uint32_t k0, k1, step, c2, c3;
};

TW_DEVICE Noise make_noise(uint64_t seed, uint64_t sample, uint32_t purpose, uint32_t step) {
    return Noise{(uint32_t)seed, (uint32_t)(seed >> 32), step, (uint32_t)sample,
                 purpose << 16 | ((uint32_t)(sample >> 32) & 0xffffu)};
}

// The seed, and the number of sample n of the batch, from a launcher's description.
TW_DEVICE uint64_t seed_of(const twk_noise &d) {
    return d.device_seed ? *d.device_seed : d.seed;
}
TW_DEVICE uint64_t sample_of(const twk_noise &d, int64_t n) {
    if (d.samples) return d.samples[n];
    return (d.device_first_sample ? *d.device_first_sample : d.first_sample) + (uint64_t)n;
}
TW_DEVICE Noise make_noise(const twk_noise &d, int64_t n, uint32_t purpose, uint32_t step) {
    return make_noise(seed_of(d), sample_of(d, n), purpose, step);
}

// The words of elements 4 quad .. 4 quad + 3.
TW_DEVICE Words4 noise_words(const Noise &n, uint32_t quad) {
    return philox(quad, n.step, n.c2, n.c3, n.k0, n.k1);
}

TW_DEVICE void normal_pair(uint32_t r0, uint32_t r1, float *a, float *b) {
    const float u = fma_rn(to_float_rn(r0), 2.3283064365386963e-10f, 1.1641532182693481e-10f);
    const float rad = sqrtf(-2.0f * logf(u));
    float s, c;
    sin_cos_pi(to_float_rn(r1) * 4.656612873077393e-10f, &s, &c); // 2 r1 / 2^32
    *a = rad * c;
    *b = rad * s;
}

TW_DEVICE void normals_4(Words4 r, float *out) {
    normal_pair(r.w[0], r.w[1], out, out + 1);
    normal_pair(r.w[2], r.w[3], out + 2, out + 3);
}

TW_DEVICE float uniform(uint32_t r) {
    return (float)(r >> 8) * 5.9604644775390625e-8f;
}

// Normals of elements first .. first + V - 1; first is a multiple of 4, as is V.
template <int V> TW_DEVICE void normals(const Noise &n, int64_t first, float (&out)[V]) {
    static_assert(V % 4 == 0, "whole counters");
#pragma unroll
    for (int i = 0; i < V / 4; i++)
        normals_4(noise_words(n, (uint32_t)(first / 4) + (uint32_t)i), out + 4 * i);
}

} // namespace tw
