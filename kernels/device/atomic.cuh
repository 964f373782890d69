// Atomics on integers. Floats are never added atomically: their order would not be the same twice.
#pragma once

#include "platform.cuh"

#ifndef TW_EMULATOR
namespace tw {

TW_DEVICE uint32_t atomic_add(uint32_t *p, uint32_t v) {
    return atomicAdd(p, v);
}
TW_DEVICE uint64_t atomic_add(uint64_t *p, uint64_t v) {
    return atomicAdd(reinterpret_cast<unsigned long long *>(p), (unsigned long long)v);
}
TW_DEVICE uint32_t atomic_min(uint32_t *p, uint32_t v) {
    return atomicMin(p, v);
}
TW_DEVICE uint32_t atomic_max(uint32_t *p, uint32_t v) {
    return atomicMax(p, v);
}

} // namespace tw
#endif
