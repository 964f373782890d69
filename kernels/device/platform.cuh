// What every kernel source includes first: the CUDA language, or its stand-in on the host.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef TW_EMULATOR
#include "tw_emulator.h"
#define TW_DEVICE inline
#else
#include <cuda_runtime.h>
#define TW_DEVICE __device__ __forceinline__
#endif
#define TW_BOTH __host__ TW_DEVICE

namespace tw {

constexpr uint32_t full_warp = 0xffffffffu;

template <typename T> constexpr TW_BOTH T ceil_div(T a, T b) {
    return (a + b - 1) / b;
}
template <typename T> constexpr TW_BOTH T smaller(T a, T b) {
    return b < a ? b : a;
}
template <typename T> constexpr TW_BOTH T larger(T a, T b) {
    return a < b ? b : a;
}

} // namespace tw
