#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <map>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

namespace memory {
namespace {

constexpr size_t guard = 256, alignment = 256, page = 4096;
constexpr unsigned char guard_byte = 0xc7;

struct Block {
    size_t bytes, room; // room: of the block and the guard zone after it, aligned
    bool live;
};

char *region;
size_t used; // everything that was ever touched, in whole pages
size_t total;
int depth;
std::map<char *, Block> blocks;

void protect(bool on) {
    if (used && mprotect(region, used, on ? PROT_READ | PROT_WRITE : PROT_NONE) != 0) {
        perror("emulated device memory");
        abort();
    }
}

bool whole(const char *address, const Block &b) {
#if defined(__SANITIZE_ADDRESS__)
    (void)address, (void)b; // a touch is reported at once
    return true;
#else
    for (size_t i = 1; i <= guard; i++)
        if ((unsigned char)address[-(ptrdiff_t)i] != guard_byte) return false;
    for (size_t i = b.bytes; i < b.room; i++)
        if ((unsigned char)address[i] != guard_byte) return false;
    return true;
#endif
}

// The lowest gap that holds `room` bytes and a guard zone before them.
char *gap(size_t room) {
    char *at = region + guard;
    for (const auto &b : blocks) {
        if (b.first - guard >= at + room) return at;
        at = b.first + b.second.room + guard;
    }
    return at + room <= region + capacity ? at : nullptr;
}

} // namespace

void open() {
    if (depth++ == 0) protect(true);
}

void close() {
    if (--depth == 0) protect(false);
}

void *take(size_t bytes) {
    if (!region) {
        void *p =
            mmap(nullptr, capacity, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) return nullptr;
        region = static_cast<char *>(p);
    }
    if (bytes > capacity) return nullptr;
    const size_t room = (bytes + guard + alignment - 1) / alignment * alignment;
    char *at = gap(room);
    if (!at) return nullptr;
    const size_t end = ((size_t)(at - region) + room + page - 1) / page * page;
    if (end > used) used = end;
    if (depth) protect(true);
    open();
    ASAN_UNPOISON_MEMORY_REGION(at - guard, guard + room);
    memset(at - guard, guard_byte, guard + room);
    memset(at, 0xff, bytes);
    ASAN_POISON_MEMORY_REGION(at - guard, guard);
    ASAN_POISON_MEMORY_REGION(at + bytes, room - bytes);
    close();
    blocks[at] = Block{bytes, room, true};
    total += bytes;
    return at;
}

bool leave(void *address) {
    const auto b = blocks.find(static_cast<char *>(address));
    if (b == blocks.end() || !b->second.live) return false;
    b->second.live = false;
    total -= b->second.bytes;
    return true;
}

bool give(void *address) {
    const auto b = blocks.find(static_cast<char *>(address));
    if (b == blocks.end()) return false;
    const bool ok = whole(b->first, b->second);
    ASAN_UNPOISON_MEMORY_REGION(b->first, b->second.room);
    memset(b->first, 0xff, b->second.bytes);
    ASAN_POISON_MEMORY_REGION(b->first, b->second.room);
    blocks.erase(b);
    return ok;
}

bool is_live(const void *address, size_t bytes) {
    char *at = const_cast<char *>(static_cast<const char *>(address));
    auto next = blocks.upper_bound(at);
    if (next == blocks.begin()) return false;
    --next;
    return next->second.live && at + bytes <= next->first + next->second.bytes;
}

bool intact() {
    for (const auto &b : blocks)
        if (!whole(b.first, b.second)) return false;
    return true;
}

size_t bytes() {
    return total;
}

} // namespace memory
