// Shared memory, the shared memory of a cluster's other blocks, and asynchronous copies into it.
#include "machine.h"

#include <stdio.h>
#include <sys/mman.h>

#ifdef TW_EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace tw::emu {

static constexpr size_t gap = 64;
static constexpr unsigned char canary = 0xff; // also a NaN, for what is read before it is written

// A carve-out begins where it would on a GPU, but for a multiple of this.
static constexpr size_t period = 1024;

void shared_open(Block *b, size_t bytes) {
    const size_t total = bytes + (max_carves + 2) * (gap + period);
#ifdef TW_EMU_TSAN
    // Fresh pages: the last block's accesses must not look like this block's.
    b->shared = static_cast<char *>(
        mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
#else
    if (b->shared_bytes < total) {
        free(b->shared);
        b->shared = nullptr;
        if (posix_memalign(reinterpret_cast<void **>(&b->shared), 1024, total)) b->shared = nullptr;
    }
#endif
    if (!b->shared || b->shared == MAP_FAILED) {
        fprintf(stderr, "emulator: no memory for shared memory\n");
        abort();
    }
    b->shared_bytes = total;
    b->used = 0;
    b->carves = 0;
#ifdef TW_EMU_ASAN
    __asan_unpoison_memory_region(b->shared, total);
#endif
    memset(b->shared, canary, total);
#ifdef TW_EMU_ASAN
    __asan_poison_memory_region(b->shared, total);
#endif
}

static size_t carve_end(const Block *b) {
    return b->carves ? b->offset[b->carves - 1] + b->bytes[b->carves - 1] : 0;
}

void shared_close(Block *b) {
#ifndef TW_EMU_ASAN
    size_t at = 0;
    for (unsigned i = 0; i <= b->carves && !failed; i++) {
        const size_t end = i < b->carves ? b->offset[i] : carve_end(b) + gap;
        for (; at < end; at++) {
            if (static_cast<unsigned char>(b->shared[at]) == canary) continue;
            fault("shared memory written %zu bytes past the end of carve-out %d",
                  at - (i ? b->offset[i - 1] + b->bytes[i - 1] : 0), (int)i - 1);
            break;
        }
        if (i < b->carves) at = b->offset[i] + b->bytes[i];
    }
#endif
#ifdef TW_EMU_ASAN
    __asan_poison_memory_region(b->shared, b->shared_bytes);
#endif
#ifdef TW_EMU_TSAN
    munmap(b->shared, b->shared_bytes);
    b->shared = nullptr;
    b->shared_bytes = 0;
#endif
}

void *shared_take(unsigned index, size_t bytes) {
    Block *b = current->block;
    if (index < b->carves) {
        if (b->bytes[index] != bytes)
            FAULT_HERE("carve-out %u of shared memory is %zu bytes for one thread, %zu for another",
                       index, b->bytes[index], bytes);
        return b->shared + b->offset[index];
    }
    if (index > b->carves || index >= max_carves) FAULT_HERE("carve-out %u out of order", index);
    const size_t before = b->used;
    b->used += (bytes + 15) / 16 * 16;
    if (b->used > current_launch->shared)
        FAULT_HERE("takes %zu bytes of shared memory, launched with %zu", b->used,
                   current_launch->shared);
    const size_t free = carve_end(b) + gap;
    const size_t at = free + (before + period - free % period) % period;
    b->offset[index] = at;
    b->bytes[index] = bytes;
    b->carves++;
#ifdef TW_EMU_ASAN
    __asan_unpoison_memory_region(b->shared + at, bytes);
#endif
    return b->shared + at;
}

unsigned cluster_rank() {
    return current->block->rank;
}
unsigned cluster_size() {
    return n_blocks;
}

void *shared_of_block(const void *shared, unsigned rank, const char *what, Site site) {
    const Block *b = current->block;
    const size_t offset = static_cast<const char *>(shared) - b->shared;
    if (offset >= b->shared_bytes || rank >= n_blocks)
        FAULT_HERE("%s at %s:%d: address outside shared memory, or rank %u in a cluster of %u",
                   what, base_name(site.file), site.line, rank, n_blocks);
    if (!blocks[rank].live)
        FAULT_HERE("%s at %s:%d: block %u of the cluster has already finished", what,
                   base_name(site.file), site.line, rank);
    return blocks[rank].shared + offset;
}

bool shared_holds(const Block *b, size_t at, size_t bytes) {
    for (unsigned i = 0; i < b->carves; i++)
        if (at >= b->offset[i] && at + bytes <= b->offset[i] + b->bytes[i]) return true;
    return false;
}

void *cluster_map(void *shared, unsigned rank, Site site) {
    return shared_of_block(shared, rank, "map of a cluster", site);
}

void copy_issue(void *dst, const void *src, size_t bytes, size_t valid) {
    Thread *me = current;
    if (me->copies == max_copies) FAULT_HERE("more than %u copies in flight", max_copies);
    if ((uintptr_t)dst % bytes || (valid && (uintptr_t)src % bytes) || valid > bytes)
        FAULT_HERE("asynchronous copy of %zu bytes is misaligned", bytes);
    note_write(dst, bytes);
    memset(dst, 0xff, bytes);
    proxy_brought(me->block, dst, bytes);
    me->copy[me->copies++] = Copy{static_cast<char *>(dst),
                                  static_cast<const char *>(src),
                                  (unsigned)bytes,
                                  (unsigned)valid,
                                  me->groups,
                                  me->copy_serial++};
}

void copy_commit() {
    current->groups++;
}

void copies_land(Thread *t, uint64_t before) {
    unsigned landed = 0;
    for (; landed < t->copies && t->copy[landed].serial < before; landed++) {
        const Copy &c = t->copy[landed];
        note_read(c.src, c.valid);
        note_write(c.dst, c.bytes);
        memcpy(c.dst, c.src, c.valid);
        memset(c.dst + c.valid, 0, c.bytes - c.valid);
        proxy_copied(t, c.dst, c.bytes);
    }
    t->copies -= landed;
    memmove(t->copy, t->copy + landed, t->copies * sizeof *t->copy);
}

void copy_wait(unsigned groups_left) {
    const Thread *me = current;
    uint64_t before = me->copy_serial;
    for (unsigned i = me->copies; i-- > 0 && me->copy[i].group + groups_left >= me->groups;)
        before = me->copy[i].serial;
    copies_land(current, before);
}

} // namespace tw::emu
