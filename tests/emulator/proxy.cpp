// The two ways into shared memory. cp.async and plain stores go by the generic proxy, wgmma reads
// and TMA writes by the asynchronous one, which sees what the other did once its thread has fenced.
//
// Of cp.async it is known whose copy landed, and whether that thread has fenced since. Plain stores
// are not followed, but bytes that are not what was seen last were stored: then somebody of the
// block must have fenced since they were seen.
#include "machine.h"

#include <stdio.h>

namespace tw::emu {

static uint32_t last_epoch, last_run;

void proxy_open(Block *b) {
    const size_t count = b->shared_bytes / 16 + 1;
    if (b->landed_bytes < count * sizeof(Landed)) {
        free(b->landed);
        b->landed = static_cast<Landed *>(calloc(count, sizeof(Landed)));
        b->landed_bytes = count * sizeof(Landed);
        if (!b->landed) {
            fprintf(stderr, "emulator: no memory for copies\n");
            abort();
        }
    }
    b->run = ++last_run;
    b->fences = 0;
    for (unsigned i = 0; i < b->threads; i++) b->thread[i]->proxy_epoch = ++last_epoch;
}

void fence_async_proxy() {
    current->proxy_epoch = ++last_epoch;
    current->block->fences++;
}

// Beyond a carve-out's last element too: a chunk is looked at whole.
#define WHOLE_CHUNKS __attribute__((no_sanitize("address")))

WHOLE_CHUNKS static void see(Block *b, Landed *l, size_t at) {
    const volatile uint64_t *now = reinterpret_cast<const volatile uint64_t *>(b->shared + at);
    l->run = b->run;
    l->fences = b->fences;
    l->seen[0] = now[0];
    l->seen[1] = now[1];
}

void proxy_copied(const Thread *t, const void *to, size_t bytes) {
    Block *b = t->block;
    const size_t at = static_cast<const char *>(to) - b->shared;
    if (at + bytes > b->shared_bytes) return;
    Landed *l = &b->landed[at / 16];
    see(b, l, at / 16 * 16);
    l->thread = t->warp * 32 + t->lane;
    l->epoch = t->proxy_epoch;
}

void proxy_brought(Block *b, const void *to, size_t bytes) {
    const size_t begin = static_cast<const char *>(to) - b->shared;
    if (begin + bytes > b->shared_bytes) return;
    for (size_t at = begin / 16 * 16; at < begin + bytes; at += 16) {
        Landed *l = &b->landed[at / 16];
        see(b, l, at);
        l->epoch = 0;
    }
}

WHOLE_CHUNKS void proxy_check(Block *b, size_t at, const char *what, Site site) {
    Landed *l = &b->landed[at / 16];
    if (l->run != b->run) *l = Landed{b->run, 0, 0, 0, {~0ull, ~0ull}};
    if (l->epoch && l->thread < b->threads && b->thread[l->thread]->proxy_epoch == l->epoch)
        FAULT_HERE("%s at %s:%d: no fence_async_proxy() of thread %u after its copy", what,
                   base_name(site.file), site.line, l->thread);
    const uint64_t *now = reinterpret_cast<const uint64_t *>(b->shared + at);
    if ((now[0] ^ l->seen[0]) | (now[1] ^ l->seen[1])) {
        if (l->fences == b->fences)
            FAULT_HERE(
                "%s at %s:%d: no fence_async_proxy() of anyone after stores at %zu of shared "
                "memory",
                what, base_name(site.file), site.line, at);
        see(b, l, at);
    }
}

} // namespace tw::emu
