#include "fiber.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#ifdef TW_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// This file is never built with ThreadSanitizer's instrumentation (the scheduler's own data would
// look like races); TW_EMU_TSAN says that the runtime is linked.
#ifdef TW_EMU_TSAN
extern "C" {
void *__tsan_get_current_fiber();
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
void __tsan_read_range(void *addr, unsigned long size);
void __tsan_write_range(void *addr, unsigned long size);
}
#endif

namespace tw::emu {

static constexpr size_t page = 4096;
#if defined(TW_EMU_ASAN) || defined(TW_EMU_TSAN)
static constexpr size_t stack_size = 256 * 1024;
#else
static constexpr size_t stack_size = 64 * 1024;
#endif

#ifdef TW_EMU_ASAN
static Fiber *asan_from; // who switched to the fiber that is waking up
#endif

#ifdef TW_EMU_OWN_SWITCH
// void tw_emu_switch(void **save, void *load): callee-saved registers travel on the stack.
asm(R"(
.text
.globl tw_emu_switch
.type tw_emu_switch, @function
tw_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size tw_emu_switch, . - tw_emu_switch
)");
extern "C" void tw_emu_switch(void **save, void *load);
#endif

bool fiber_create(Fiber *fiber) {
    void *base = mmap(nullptr, stack_size + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) return false;
    mprotect(base, page, PROT_NONE);
    fiber->stack = static_cast<char *>(base) + page;
    fiber->stack_bytes = stack_size;
#ifdef TW_EMU_TSAN
    fiber->tsan = __tsan_create_fiber(0);
#endif
    return true;
}

void fiber_prepare(Fiber *fiber, void (*entry)()) {
#ifdef TW_EMU_ASAN
    // The last use of this stack never returned from its outermost frames.
    __asan_unpoison_memory_region(fiber->stack, fiber->stack_bytes);
    fiber->fake_stack = nullptr;
#endif
#ifdef TW_EMU_OWN_SWITCH
    uintptr_t top = reinterpret_cast<uintptr_t>(fiber->stack + fiber->stack_bytes) & ~uintptr_t(15);
    void **slot = reinterpret_cast<void **>(top);
    *--slot = nullptr; // a return address for entry(), which keeps the stack aligned
    *--slot = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++) *--slot = nullptr;
    fiber->position = slot;
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_bytes;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, entry, 0);
#endif
}

void fiber_abandon(Fiber *fiber, void *point) {
#ifdef TW_EMU_TSAN
    void *me = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber->tsan, 1);
    __tsan_release(point);
    __tsan_switch_to_fiber(me, 1);
    __tsan_destroy_fiber(fiber->tsan);
    fiber->tsan = __tsan_create_fiber(0);
#else
    (void)fiber, (void)point;
#endif
}

void fiber_entered() {
#ifdef TW_EMU_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (asan_from && !asan_from->stack) { // the scheduler's thread: learn its stack
        asan_from->stack = static_cast<char *>(const_cast<void *>(bottom));
        asan_from->stack_bytes = size;
    }
#endif
}

void fiber_switch(Fiber *from, Fiber *to) {
#ifdef TW_EMU_ASAN
    asan_from = from;
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef TW_EMU_TSAN
    __tsan_switch_to_fiber(to->tsan, 1 /* no synchronisation */);
#endif
#ifdef TW_EMU_OWN_SWITCH
    tw_emu_switch(&from->position, to->position);
#else
    swapcontext(&from->context, &to->context);
#endif
#ifdef TW_EMU_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void fiber_adopt_thread(Fiber *fiber) {
#ifdef TW_EMU_TSAN
    fiber->tsan = __tsan_get_current_fiber();
#else
    (void)fiber;
#endif
}

void order_release(void *point) {
#ifdef TW_EMU_TSAN
    __tsan_release(point);
#else
    (void)point;
#endif
}

void order_acquire(void *point) {
#ifdef TW_EMU_TSAN
    __tsan_acquire(point);
#else
    (void)point;
#endif
}

void note_read(const void *p, size_t bytes) {
#ifdef TW_EMU_TSAN
    __tsan_read_range(const_cast<void *>(p), bytes);
#else
    (void)p, (void)bytes;
#endif
}

void note_write(void *p, size_t bytes) {
#ifdef TW_EMU_TSAN
    __tsan_write_range(p, bytes);
#else
    (void)p, (void)bytes;
#endif
}

} // namespace tw::emu
