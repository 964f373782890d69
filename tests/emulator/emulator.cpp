// The scheduler: runs the threads of one block (or cluster) at a time as fibers, in a shuffled
// order, and turns every way of meeting wrongly into a report instead of a hang.
//
// Built without ThreadSanitizer's instrumentation even where the kernels have it; its data is
// plain arrays so that no instrumented template from another file is linked in.
#include "tw_emulator.h"

#include "fiber.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef TW_EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tw::emu {
namespace {

constexpr unsigned max_threads = 1024;
constexpr unsigned max_blocks = 16; // of a cluster
constexpr unsigned max_carves = 32;
constexpr unsigned max_copies = 512;
constexpr size_t gap = 64;

enum class State { ready, at_block, at_cluster, at_warp, done };

struct Copy {
    char *dst;
    const char *src;
    unsigned bytes, valid, group;
};

struct Block;

struct Thread {
    Fiber fiber;
    bool started;
    State state;
    dim3 index;
    Block *block;
    unsigned warp, lane;
    Site site; // where it waits
    Meet kind;
    uint32_t mask;
    uint64_t value, result;
    unsigned source;
    unsigned meetings; // of the sub-warp whose lowest lane this is
    char point[2];
    unsigned copies, groups;
    Copy copy[max_copies];
};

struct Block {
    dim3 index;
    unsigned rank, threads, live, waiting;
    Site site; // of the barrier that the first thread reached
    Thread **thread;
    char *shared;
    size_t shared_bytes; // with gaps
    size_t used;         // as a GPU would count it
    unsigned carves;
    size_t offset[max_carves], bytes[max_carves];
    // ThreadSanitizer's names for the opening and for this block's barriers. Barriers alternate, so
    // that a thread still leaving one does not inherit what another did on its way to the next.
    char open_point, point[2];
    unsigned generation;
};

Fiber scheduler;
Thread *pool[max_threads * max_blocks];
unsigned pool_size;
Thread *order[max_threads * max_blocks];
Block blocks[max_blocks];
unsigned n_blocks;
unsigned cluster_waiting;
Site cluster_site;
char cluster_point[2], launch_point, done_point;
unsigned cluster_generation;
const Launch *current_launch;
Thread *current;
bool failed;
char report[2048];
uint64_t random_state;
bool seeded;
uint64_t filter_first, filter_count;
size_t limit_shared = 227 * 1024;
unsigned limit_cluster = 8;
uint64_t n_launches;

uint64_t next_random() {
    if (!seeded) seed();
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

void set_report(const char *format, va_list args) {
    char text[1536];
    vsnprintf(text, sizeof text, format, args);
    const Launch &l = *current_launch;
    snprintf(report, sizeof report, "emulator: kernel %s (launched at %s:%d): %s", l.kernel,
             base_name(l.site.file), l.site.line, text);
    fprintf(stderr, "%s\n", report);
    failed = true;
}

__attribute__((format(printf, 1, 2))) void fault(const char *format, ...) {
    va_list args;
    va_start(args, format);
    set_report(format, args);
    va_end(args);
}

void enter_scheduler() {
    fiber_switch(&current->fiber, &scheduler);
}

// From inside a fiber: reports and never comes back.
#define FAULT_HERE(...)                                                                            \
    do {                                                                                           \
        fault(__VA_ARGS__);                                                                        \
        enter_scheduler();                                                                         \
        abort();                                                                                   \
    } while (0)

void thread_main() {
    fiber_entered();
    for (;;) {
        order_acquire(&launch_point);
        order_acquire(&current->block->open_point);
        current_launch->entry(current_launch->object);
        order_release(&done_point);
        current->state = State::done;
        current->block->live--;
        enter_scheduler();
    }
}

Thread *thread_at(unsigned i) {
    if (i >= pool_size) {
        Thread *t = static_cast<Thread *>(calloc(1, sizeof(Thread)));
        if (!t || !fiber_create(&t->fiber)) {
            fprintf(stderr, "emulator: no memory for fibers\n");
            abort();
        }
        pool[pool_size++] = t;
    }
    return pool[i];
}

// ---- shared memory ------------------------------------------------------------------------------

constexpr unsigned char canary = 0xff; // also a NaN, for what is read before it is written

void shared_open(Block *b, size_t bytes) {
    const size_t total = bytes + (max_carves + 2) * 2 * gap;
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

size_t carve_end(const Block *b) {
    return b->carves ? b->offset[b->carves - 1] + b->bytes[b->carves - 1] : 0;
}

// Looks at the gaps (where AddressSanitizer does not) and closes the region.
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

// ---- running ------------------------------------------------------------------------------------

const char *describe(const Thread *t, char *text, size_t size) {
    switch (t->state) {
    case State::done:
        snprintf(text, size, "has finished");
        break;
    case State::ready:
        snprintf(text, size, "runs");
        break;
    default:
        snprintf(text, size, "waits at %s:%d", base_name(t->site.file), t->site.line);
        break;
    }
    return text;
}

// Nothing can run and not everything has finished.
void report_stuck() {
    char text[256];
    for (unsigned b = 0; b < n_blocks; b++) {
        for (unsigned i = 0; i < blocks[b].threads; i++) {
            const Thread *t = blocks[b].thread[i];
            if (t->state != State::at_warp) continue;
            const Thread *other = nullptr;
            for (unsigned l = 0; l < 32 && !other; l++) {
                if (!(t->mask >> l & 1)) continue;
                const unsigned j = t->warp * 32 + l;
                if (j >= t->block->threads) {
                    fault("warp collective at %s:%d: mask %08x names lane %u, which the block does "
                          "not have",
                          base_name(t->site.file), t->site.line, t->mask, l);
                    return;
                }
                const Thread *o = t->block->thread[j];
                if (o->state != State::at_warp || o->mask != t->mask || o->kind != t->kind)
                    other = o;
            }
            fault("warp collective at %s:%d: mask %08x names lane %u, which %s",
                  base_name(t->site.file), t->site.line, t->mask, other ? other->lane : 0u,
                  other ? describe(other, text, sizeof text) : "is lost");
            return;
        }
    }
    for (unsigned b = 0; b < n_blocks; b++) {
        const Block &k = blocks[b];
        const Thread *waits = nullptr, *other = nullptr;
        for (unsigned i = 0; i < k.threads; i++) {
            const Thread *t = k.thread[i];
            if (t->state == State::at_block || t->state == State::at_cluster)
                waits = t;
            else
                other = t;
        }
        if (waits && other) {
            fault("divergent barrier at %s:%d: thread %u of block %u waits, thread %u %s",
                  base_name(waits->site.file), waits->site.line, waits->warp * 32 + waits->lane,
                  k.index.x, other->warp * 32 + other->lane, describe(other, text, sizeof text));
            return;
        }
    }
    fault("divergent barrier: blocks of a cluster wait at different barriers or have finished");
}

void resume(Thread *t) {
    current = t;
    threadIdx = t->index;
    blockIdx = t->block->index;
    fiber_switch(&scheduler, &t->fiber);
}

void run_blocks(unsigned n_threads) {
    unsigned left = n_threads;
    while (left && !failed) {
        bool moved = false;
        for (unsigned i = 0; i < n_threads && !failed; i++) {
            Thread *t = order[i];
            if (t->state != State::ready) continue;
            moved = true;
            resume(t);
            if (t->state != State::done) continue;
            left--;
            if (t->block->live == 0) shared_close(t->block);
        }
        if (!moved && left) report_stuck();
    }
}

void open_block(Block *b, const Launch &l, uint64_t linear, unsigned rank) {
    b->index = dim3(linear % l.grid.x, linear / l.grid.x % l.grid.y, linear / l.grid.x / l.grid.y);
    b->rank = rank;
    b->threads = b->live = l.block.x * l.block.y * l.block.z;
    b->waiting = 0;
    b->thread = &pool[rank * b->threads];
    shared_open(b, l.shared);
    for (unsigned i = 0; i < b->threads; i++) {
        Thread *t = thread_at(rank * b->threads + i);
        if (!t->started) {
            fiber_prepare(&t->fiber, thread_main);
            t->started = true;
        }
        t->state = State::ready;
        t->index = dim3(i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y);
        t->block = b;
        t->warp = i / 32;
        t->lane = i % 32;
        t->copies = t->groups = 0;
        order[rank * b->threads + i] = t;
    }
    order_release(&b->open_point);
}

void abandon(unsigned n_threads) {
    for (unsigned i = 0; i < n_threads; i++) {
        if (pool[i]->state == State::done) continue;
        pool[i]->started = false;
        fiber_abandon(&pool[i]->fiber, &done_point);
    }
    for (unsigned b = 0; b < n_blocks; b++) {
        if (blocks[b].live) shared_close(&blocks[b]);
    }
}

bool check_launch(const Launch &l) {
    const uint64_t threads = (uint64_t)l.block.x * l.block.y * l.block.z;
    if (threads == 0 || threads > max_threads)
        fault("%llu threads in a block", (unsigned long long)threads);
    else if (!l.grid.x || !l.grid.y || !l.grid.z || l.grid.y > 65535 || l.grid.z > 65535 ||
             l.grid.x > 0x7fffffffu)
        fault("grid %u x %u x %u", l.grid.x, l.grid.y, l.grid.z);
    else if (l.shared > limit_shared)
        fault("%zu bytes of shared memory", l.shared);
    else if (!l.cluster || l.cluster > max_blocks || l.grid.x % l.cluster)
        fault("clusters of %u in a grid %u wide", l.cluster, l.grid.x);
    else
        return true;
    return false;
}

uint64_t gcd(uint64_t a, uint64_t b) {
    return b ? gcd(b, a % b) : a;
}

} // namespace

bool run(const Launch &launch) {
    current_launch = &launch;
    failed = false;
    n_launches++;
    if (!check_launch(launch)) return false;
    if (!scheduler.tsan) fiber_adopt_thread(&scheduler);
    blockDim = launch.block;
    gridDim = launch.grid;
    n_blocks = launch.cluster;
    const unsigned block_threads = launch.block.x * launch.block.y * launch.block.z;
    const unsigned n_threads = block_threads * n_blocks;
    for (unsigned i = 0; i < n_threads; i++) thread_at(i);
    uint64_t first = 0, count = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    if (filter_count) {
        const uint64_t end =
            filter_first + filter_count < count ? filter_first + filter_count : count;
        first = filter_first < end ? filter_first : end;
        count = end - first;
    }
    const uint64_t groups = count / n_blocks;
    uint64_t step = 1, at = 0; // a walk that visits every cluster once, in no natural order
    if (groups > 2) {
        do step = 1 + next_random() % (groups - 1);
        while (gcd(step, groups) != 1);
        at = next_random() % groups;
    }
    order_release(&launch_point);
    for (uint64_t g = 0; g < groups && !failed; g++, at = (at + step) % groups) {
        cluster_waiting = 0;
        for (unsigned r = 0; r < n_blocks; r++)
            open_block(&blocks[r], launch, first + at * n_blocks + r, r);
        for (unsigned i = n_threads - 1; i > 0; i--) {
            const unsigned j = next_random() % (i + 1);
            Thread *t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        run_blocks(n_threads);
    }
    if (failed) abandon(n_threads);
    order_acquire(&done_point);
    current = nullptr;
    return !failed;
}

// ---- meeting points -----------------------------------------------------------------------------

static bool same(Site a, Site b) {
    return a.line == b.line && !strcmp(a.file, b.file);
}

void meet_block(Site site) {
    Block *b = current->block;
    if (b->waiting == 0)
        b->site = site;
    else if (!same(b->site, site))
        FAULT_HERE("divergent barrier: thread %u is at %s:%d, others wait at %s:%d",
                   current->warp * 32 + current->lane, base_name(site.file), site.line,
                   base_name(b->site.file), b->site.line);
    char *point = &b->point[b->generation & 1];
    order_release(point);
    if (++b->waiting == b->threads) {
        b->waiting = 0;
        b->generation++;
        for (unsigned i = 0; i < b->threads; i++) b->thread[i]->state = State::ready;
    } else {
        current->state = State::at_block;
        current->site = site;
        enter_scheduler();
    }
    order_acquire(point);
}

void meet_cluster(Site site) {
    if (cluster_waiting == 0)
        cluster_site = site;
    else if (!same(cluster_site, site))
        FAULT_HERE("divergent barrier: a block is at %s:%d, others wait at %s:%d",
                   base_name(site.file), site.line, base_name(cluster_site.file),
                   cluster_site.line);
    char *point = &cluster_point[cluster_generation & 1];
    order_release(point);
    if (++cluster_waiting == current->block->threads * n_blocks) {
        cluster_waiting = 0;
        cluster_generation++;
        for (unsigned b = 0; b < n_blocks; b++)
            for (unsigned i = 0; i < blocks[b].threads; i++)
                blocks[b].thread[i]->state = State::ready;
    } else {
        current->state = State::at_cluster;
        current->site = site;
        enter_scheduler();
    }
    order_acquire(point);
}

// True when every lane of the mask has arrived with the same mask and kind of meeting. Two lanes
// that wait for each other at different meetings would wait for ever.
static bool warp_complete(Thread *me, Thread **lanes, unsigned count) {
    bool all = true;
    for (unsigned l = 0; l < 32; l++) {
        const bool named = me->mask >> l & 1;
        Thread *o = l < count ? lanes[l] : nullptr;
        if (o && o->state == State::at_warp && o != me && named && (o->mask >> me->lane & 1) &&
            (o->mask != me->mask || o->kind != me->kind || !same(o->site, me->site)))
            FAULT_HERE("warp collective at %s:%d: lane %u comes with mask %08x, lane %u waits at "
                       "%s:%d with mask %08x",
                       base_name(me->site.file), me->site.line, me->lane, me->mask, o->lane,
                       base_name(o->site.file), o->site.line, o->mask);
        if (named && (!o || o->state != State::at_warp)) all = false;
    }
    return all;
}

uint64_t meet_warp(Meet kind, uint32_t mask, uint64_t value, unsigned source, Site site) {
    Thread *me = current;
    Block *b = me->block;
    me->kind = kind;
    me->mask = mask;
    me->value = value;
    me->source = source;
    me->site = site;
    if (!(mask >> me->lane & 1))
        FAULT_HERE("warp collective at %s:%d: lane %u is not in its own mask %08x",
                   base_name(site.file), site.line, me->lane, mask);
    if (kind == Meet::shuffle && !(mask >> source & 1))
        FAULT_HERE("shuffle at %s:%d: lane %u reads lane %u, which is not in mask %08x",
                   base_name(site.file), site.line, me->lane, source, mask);
    Thread **lanes = b->thread + me->warp * 32;
    const unsigned count = b->threads - me->warp * 32 < 32 ? b->threads - me->warp * 32 : 32;
    // Only a warp-wide sync orders memory; shuffles and votes do not.
    Thread *lowest = lanes[__builtin_ctz(mask)];
    char *point = &lowest->point[lowest->meetings & 1];
    if (kind == Meet::sync) order_release(point);
    me->state = State::at_warp;
    if (warp_complete(me, lanes, count)) {
        uint32_t votes = 0;
        lowest->meetings++;
        for (unsigned l = 0; l < count; l++)
            if ((mask >> l & 1) && lanes[l]->value) votes |= 1u << l;
        for (unsigned l = 0; l < count; l++) {
            if (!(mask >> l & 1)) continue;
            Thread *o = lanes[l];
            o->result = kind == Meet::ballot ? votes : lanes[o->source]->value;
            o->state = State::ready;
        }
    } else {
        enter_scheduler();
    }
    if (kind == Meet::sync) order_acquire(point);
    return me->result;
}

// What the lanes brought, by lane. The matrix operations order no memory of their own.
static void *brought[32];

void meet_warp_act(void *mine, void (*act)(void *const *lanes), Site site) {
    Thread *me = current;
    Block *b = me->block;
    me->kind = Meet::act;
    me->mask = 0xffffffffu;
    me->value = reinterpret_cast<uintptr_t>(mine);
    me->site = site;
    me->state = State::at_warp;
    Thread **lanes = b->thread + me->warp * 32;
    const unsigned count = b->threads - me->warp * 32 < 32 ? b->threads - me->warp * 32 : 32;
    if (!warp_complete(me, lanes, count)) {
        enter_scheduler();
        return;
    }
    for (unsigned l = 0; l < 32; l++) {
        brought[l] = reinterpret_cast<void *>(lanes[l]->value);
        lanes[l]->state = State::ready;
    }
    act(brought);
}

// ---- shared memory, clusters, copies ------------------------------------------------------------

void *shared_take(unsigned index, size_t bytes) {
    Block *b = current->block;
    if (index < b->carves) {
        if (b->bytes[index] != bytes)
            FAULT_HERE("carve-out %u of shared memory is %zu bytes for one thread, %zu for another",
                       index, b->bytes[index], bytes);
        return b->shared + b->offset[index];
    }
    if (index > b->carves || index >= max_carves) FAULT_HERE("carve-out %u out of order", index);
    b->used += (bytes + 15) / 16 * 16;
    if (b->used > current_launch->shared)
        FAULT_HERE("takes %zu bytes of shared memory, launched with %zu", b->used,
                   current_launch->shared);
    const size_t at = (carve_end(b) + gap + 63) / 64 * 64;
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

void *cluster_map(void *shared, unsigned rank) {
    Block *b = current->block;
    const size_t offset = static_cast<char *>(shared) - b->shared;
    if (offset >= b->shared_bytes || rank >= n_blocks)
        FAULT_HERE("address outside shared memory, or rank %u in a cluster of %u", rank, n_blocks);
    if (!blocks[rank].live) FAULT_HERE("block %u of the cluster has already finished", rank);
    return blocks[rank].shared + offset;
}

void copy_issue(void *dst, const void *src, size_t bytes, size_t valid) {
    Thread *me = current;
    if (me->copies == max_copies) FAULT_HERE("more than %u copies in flight", max_copies);
    if ((uintptr_t)dst % bytes || (valid && (uintptr_t)src % bytes) || valid > bytes)
        FAULT_HERE("asynchronous copy of %zu bytes is misaligned", bytes);
    note_write(dst, bytes);
    memset(dst, 0xff, bytes);
    me->copy[me->copies++] = Copy{static_cast<char *>(dst), static_cast<const char *>(src),
                                  (unsigned)bytes, (unsigned)valid, me->groups};
}

void copy_commit() {
    current->groups++;
}

void copy_wait(unsigned groups_left) {
    Thread *me = current;
    unsigned kept = 0;
    for (unsigned i = 0; i < me->copies; i++) {
        const Copy c = me->copy[i];
        if (c.group + groups_left >= me->groups) {
            me->copy[kept++] = c;
            continue;
        }
        note_read(c.src, c.valid);
        note_write(c.dst, c.bytes);
        memcpy(c.dst, c.src, c.valid);
        memset(c.dst + c.valid, 0, c.bytes - c.valid);
    }
    me->copies = kept;
}

// ---- what a test uses ---------------------------------------------------------------------------

void set_seed(uint64_t value) {
    random_state = value;
    seeded = true;
}

uint64_t seed() {
    if (!seeded) {
        const char *text = getenv("TW_EMU_SEED");
        set_seed(text ? strtoull(text, nullptr, 0) : 1);
    }
    return random_state;
}

void set_block_filter(uint64_t first, uint64_t count) {
    filter_first = first;
    filter_count = count;
}

std::string take_report() {
    std::string text = report;
    report[0] = 0;
    return text;
}

void set_shared_limit(size_t bytes) {
    limit_shared = bytes;
}
size_t shared_limit() {
    return limit_shared;
}
void set_max_cluster(unsigned n) {
    limit_cluster = n;
}
unsigned max_cluster() {
    return limit_cluster;
}
uint64_t launches() {
    return n_launches;
}

} // namespace tw::emu
