// Asynchronous copies from global to shared memory, 16, 8 or 4 bytes each (cp.async, sm_80 and
// later). The bytes are there for the issuing thread after the wait, for others after a barrier
// too. Both addresses are multiples of the size; with `valid` 0 the global one is never looked at.
#pragma once

#include "platform.cuh"

#ifndef TW_EMULATOR
namespace tw {

// Copies `valid` bytes (0 to 16) and fills the rest with zeros.
TW_DEVICE void copy_async_16(void *shared, const void *global, unsigned valid = 16) {
    const unsigned dst = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(global), "r"(valid)
                 : "memory");
}
// The same for smaller pieces, which go through the first-level cache.
TW_DEVICE void copy_async_8(void *shared, const void *global, unsigned valid = 8) {
    const unsigned dst = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(dst), "l"(global), "r"(valid)
                 : "memory");
}
TW_DEVICE void copy_async_4(void *shared, const void *global, unsigned valid = 4) {
    const unsigned dst = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(global), "r"(valid)
                 : "memory");
}
TW_DEVICE void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int LEFT> TW_DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

} // namespace tw
#endif
