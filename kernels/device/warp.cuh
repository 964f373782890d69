// Meeting points of a block and of a warp, and the sums built on them. Sums add in one fixed
// order, so that a result is equal to the bit from run to run.
#pragma once

#include "platform.cuh"

namespace tw {

#ifndef TW_EMULATOR
TW_DEVICE void sync_block() {
    __syncthreads();
}
// A barrier of `threads` threads, whole warps, that name the same `id`, 1 to 15.
TW_DEVICE void sync_group(unsigned id, unsigned threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
TW_DEVICE void sync_warp(uint32_t mask) {
    __syncwarp(mask);
}
template <typename T> TW_DEVICE T shuffle(uint32_t mask, T v, unsigned source) {
    return __shfl_sync(mask, v, (int)source);
}
template <typename T> TW_DEVICE T shuffle_xor(uint32_t mask, T v, unsigned flip) {
    return __shfl_xor_sync(mask, v, (int)flip);
}
template <typename T> TW_DEVICE T shuffle_down(uint32_t mask, T v, unsigned delta) {
    return __shfl_down_sync(mask, v, delta);
}
template <typename T> TW_DEVICE T shuffle_up(uint32_t mask, T v, unsigned delta) {
    return __shfl_up_sync(mask, v, delta);
}
TW_DEVICE uint32_t ballot(uint32_t mask, bool vote) {
    return __ballot_sync(mask, vote);
}
#endif

// Every lane gets the sum over the warp.
template <typename T> TW_DEVICE T warp_sum(T v) {
    for (unsigned s = 16; s > 0; s >>= 1) v += shuffle_xor(full_warp, v, s);
    return v;
}

// Every thread gets the sum over the block. `scratch` is 32 values of shared memory, free again
// when the next barrier of the caller has passed.
template <typename T> TW_DEVICE T block_sum(T v, T *scratch) {
    v = warp_sum(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    sync_block();
    T sum = scratch[0];
    for (unsigned w = 1; w < (blockDim.x + 31) / 32; w++) sum += scratch[w];
    return sum;
}

// Count, mean and sum of squared deviations of a set: merged by Chan's rule, which loses nothing
// where E[x^2] - mean^2 would cancel.
struct Moments {
    float count, mean, m2;
};

TW_DEVICE Moments merge(Moments a, Moments b) {
    const float count = a.count + b.count;
    if (count == 0.0f) return a;
    const float delta = b.mean - a.mean, share = b.count / count;
    return Moments{count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

// Every lane gets the merged moments of the warp. The exchange is symmetric in the lanes, but
// rounding is not: the lower lane's set always comes first.
TW_DEVICE Moments warp_merge(Moments v) {
    for (unsigned s = 16; s > 0; s >>= 1) {
        Moments o{shuffle_xor(full_warp, v.count, s), shuffle_xor(full_warp, v.mean, s),
                  shuffle_xor(full_warp, v.m2, s)};
        v = (threadIdx.x & s) ? merge(o, v) : merge(v, o);
    }
    return v;
}

} // namespace tw
