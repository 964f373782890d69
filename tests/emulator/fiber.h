// One stack and one saved position: the smallest thing that can be switched to.
// x86-64 has its own twelve instructions (a switch costs a few nanoseconds); other machines use
// ucontext. AddressSanitizer and ThreadSanitizer are told of every switch.
#pragma once

#include <stddef.h>

#if defined(__x86_64__) && !defined(TW_EMU_UCONTEXT)
#define TW_EMU_OWN_SWITCH 1
#else
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define TW_EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TW_EMU_ASAN 1
#endif
#endif

namespace tw::emu {

struct Fiber {
    void *position = nullptr; // saved stack pointer (x86-64)
    char *stack = nullptr;
    size_t stack_bytes = 0;
    void *fake_stack = nullptr; // AddressSanitizer's
    void *tsan = nullptr;
#ifndef TW_EMU_OWN_SWITCH
    ucontext_t context;
#endif
};

// Stack from the system, with an unmapped page below it. False when there is no memory.
bool fiber_create(Fiber *fiber);
// Makes the next switch to the fiber call entry(), which must never return.
void fiber_prepare(Fiber *fiber, void (*entry)());
// Gives up a fiber that will never be continued, as if it had reached `point`. It can be prepared
// again.
void fiber_abandon(Fiber *fiber, void *point);
// Saves the running position in `from` and continues `to`.
void fiber_switch(Fiber *from, Fiber *to);
// First thing entry() must call.
void fiber_entered();
// Describes the thread that runs the scheduler.
void fiber_adopt_thread(Fiber *fiber);

// ThreadSanitizer's view of a meeting point; nothing in other builds.
void order_release(void *point);
void order_acquire(void *point);
void note_read(const void *p, size_t bytes);
void note_write(void *p, size_t bytes);

} // namespace tw::emu
