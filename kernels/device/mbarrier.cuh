// A barrier in shared memory that some threads arrive at and others wait for (mbarrier, sm_80 and
// later), so that producers and consumers of a tile need not meet at a barrier of the whole block.
//
//   phase 0            phase 1            phase 2
//   ....arrivals...|.......arrivals.....|...
//                  ^                    ^
//       wait(0) passes from here   wait(1) passes from here (and wait(0) blocks again)
//
// A phase ends when as many arrivals have come as the barrier was made for; the next one begins at
// once. wait(p) passes once the phase of parity p has ended: a waiter counts the phases that it has
// waited for and gives their parity, and is never more than one phase behind. What a thread wrote
// before it arrived is seen by those that have waited.
//
// From sm_90 on a phase also counts bytes: mbarrier_expect() arrives and says how many are to come
// (tma.cuh) before the phase can end. And another block of the cluster may arrive.
#pragma once

#include "platform.cuh"

namespace tw {

// Lives in shared memory.
struct Mbarrier {
    uint64_t word;
};

#ifndef TW_EMULATOR

TW_DEVICE unsigned mbarrier_address(const Mbarrier *b) {
    return (unsigned)__cvta_generic_to_shared(b);
}

// By one thread; the others may use it after a barrier of the block. `arrivals`: 1 to 2^20 - 1.
TW_DEVICE void mbarrier_init(Mbarrier *b, unsigned arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(mbarrier_address(b)), "r"(arrivals)
                 : "memory");
}
TW_DEVICE void mbarrier_arrive(Mbarrier *b) {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(mbarrier_address(b)) : "memory");
}
// Arrives when all asynchronous copies that this thread has issued so far have landed: one of the
// arrivals that the barrier was made for.
TW_DEVICE void mbarrier_arrive_copies(Mbarrier *b) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(mbarrier_address(b))
                 : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// try_wait sleeps for a while in hardware before it says no.
#define TW_MBARRIER_WAIT "mbarrier.try_wait.parity"
#else
#define TW_MBARRIER_WAIT "mbarrier.test_wait.parity"
#endif

// One look, which may sleep before it says no.
TW_DEVICE bool mbarrier_passed(Mbarrier *b, unsigned parity) {
    unsigned passed;
    asm volatile("{\n.reg .pred p;\n" TW_MBARRIER_WAIT ".shared.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n}"
                 : "=r"(passed)
                 : "r"(mbarrier_address(b)), "r"(parity)
                 : "memory");
    return passed;
}
TW_DEVICE void mbarrier_wait(Mbarrier *b, unsigned parity) {
    while (!mbarrier_passed(b, parity)) {
    }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// After mbarrier_init, by the same thread: TMA and the cluster's other blocks may use the barriers
// once they have met this thread at a barrier.
TW_DEVICE void mbarrier_fence_init() {
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "fence.proxy.async.shared::cta;" ::
                     : "memory");
}
// Arrives, and holds the phase until `bytes` more have been brought.
TW_DEVICE void mbarrier_expect(Mbarrier *b, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(mbarrier_address(b)),
                 "r"(bytes)
                 : "memory");
}
// Arrives at the barrier at the same place in the shared memory of the cluster's block `rank`. By
// one that has read, and has what it read: what it wrote is not seen there. For that, every arrival
// would wait until all its writes have reached L2, and every wait empty the first-level cache.
TW_DEVICE void mbarrier_arrive_block(Mbarrier *b, unsigned rank) {
    asm volatile("{\n.reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(mbarrier_address(b)),
                 "r"(rank)
                 : "memory");
}

#else // never run: kernels that need them are empty in this code

TW_DEVICE void mbarrier_fence_init() {}
TW_DEVICE void mbarrier_expect(Mbarrier *, unsigned) {}
TW_DEVICE void mbarrier_arrive_block(Mbarrier *, unsigned) {}

#endif
#undef TW_MBARRIER_WAIT

#else

inline void mbarrier_init(Mbarrier *b, unsigned arrivals, TW_EMU_SITE) {
    emu::mbarrier_init(&b->word, arrivals, emu::Site{file, line});
}
inline void mbarrier_arrive(Mbarrier *b, TW_EMU_SITE) {
    emu::mbarrier_arrive(&b->word, emu::Site{file, line});
}
inline void mbarrier_arrive_copies(Mbarrier *b, TW_EMU_SITE) {
    emu::mbarrier_arrive_copies(&b->word, emu::Site{file, line});
}
inline void mbarrier_wait(Mbarrier *b, unsigned parity, TW_EMU_SITE) {
    emu::mbarrier_wait(&b->word, parity, emu::Site{file, line});
}
// A phase that never ends is reported, so that there is always a yes.
inline bool mbarrier_passed(Mbarrier *b, unsigned parity, TW_EMU_SITE) {
    emu::mbarrier_wait(&b->word, parity, emu::Site{file, line});
    return true;
}
inline void mbarrier_fence_init() {
    emu::mbarrier_fence_init();
}
inline void mbarrier_expect(Mbarrier *b, unsigned bytes, TW_EMU_SITE) {
    emu::mbarrier_expect(&b->word, bytes, emu::Site{file, line});
}
inline void mbarrier_arrive_block(Mbarrier *b, unsigned rank, TW_EMU_SITE) {
    emu::mbarrier_arrive_block(&b->word, rank, emu::Site{file, line});
}

#endif

} // namespace tw
