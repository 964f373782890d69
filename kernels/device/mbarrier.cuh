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
#pragma once

#include "platform.cuh"

namespace tw {

// Lives in shared memory.
struct Mbarrier {
    uint64_t word;
};

#ifndef TW_EMULATOR

// By one thread; the others may use it after a barrier of the block. `arrivals`: 1 to 2^20 - 1.
TW_DEVICE void mbarrier_init(Mbarrier *b, unsigned arrivals) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(b);
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
TW_DEVICE void mbarrier_arrive(Mbarrier *b) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(b);
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(at) : "memory");
}
// Arrives when all asynchronous copies that this thread has issued so far have landed: one of the
// arrivals that the barrier was made for.
TW_DEVICE void mbarrier_arrive_copies(Mbarrier *b) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(b);
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(at) : "memory");
}
TW_DEVICE void mbarrier_wait(Mbarrier *b, unsigned parity) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(b);
    unsigned passed;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(passed)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!passed);
}

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

#endif

} // namespace tw
