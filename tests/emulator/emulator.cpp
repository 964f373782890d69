// The scheduler: runs the threads of one block (or cluster) at a time as fibers, in a shuffled
// order, and turns every way of meeting wrongly into a report instead of a hang.
#include "machine.h"

#include <stdio.h>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tw::emu {

Block blocks[max_blocks];
unsigned n_blocks;
const Launch *current_launch;
Thread *current;
bool failed;
bool (*launch_later)(void *stream, std::function<bool()> launch);

namespace {

Fiber scheduler;
Thread *pool[max_threads * max_blocks];
unsigned pool_size;
Thread *order[max_threads * max_blocks];
char launch_point, done_point;
uint64_t random_state;
bool seeded;
uint64_t filter_first, filter_count;
size_t limit_shared = 227 * 1024;
unsigned limit_cluster = 8;
bool have_wgmma = true;
uint64_t n_launches;

uint64_t next_random() {
    if (!seeded) seed();
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

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
            if (t->block->live) continue;
            products_close(t->block);
            registers_close(t->block);
            boxes_close(t->block);
            shared_close(t->block);
        }
        if (!moved && left && !mbarrier_wake_for_boxes()) report_stuck();
    }
}

void open_block(Block *b, const Launch &l, uint64_t linear, unsigned rank) {
    b->index = dim3(linear % l.grid.x, linear / l.grid.x % l.grid.y, linear / l.grid.x / l.grid.y);
    b->rank = rank;
    b->threads = b->live = l.block.x * l.block.y * l.block.z;
    b->waiting = 0;
    b->thread = &pool[rank * b->threads];
    shared_open(b, l.shared);
    for (Waiting &w : b->warp) w = Waiting{0, nullptr};
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
        t->copies = t->groups = t->promises = 0;
        t->copy_serial = 0;
        order[rank * b->threads + i] = t;
    }
    products_open(b);
    proxy_open(b);
    registers_open(b);
    for (Named &n : b->named) n.waiting = 0;
    b->n_unfenced = 0;
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

void enter_scheduler() {
    fiber_switch(&current->fiber, &scheduler);
}

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
        meet_begin();
        boxes_open();
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
void set_wgmma(bool there) {
    have_wgmma = there;
}
bool with_wgmma() {
    return have_wgmma;
}
uint64_t launches() {
    return n_launches;
}

} // namespace tw::emu
