// What the parts of the emulator share: the threads and blocks that are running, and reports.
//
// All of it is built without ThreadSanitizer's instrumentation even where the kernels have it; the
// data is plain arrays so that no instrumented template from another file is linked in.
#pragma once

#include "fiber.h"
#include "tw_emulator.h"

#include <stdlib.h>

namespace tw::emu {

constexpr unsigned max_threads = 1024;
constexpr unsigned max_blocks = 8; // of a cluster: more need an attribute that TW_LAUNCH lacks
constexpr unsigned max_carves = 32;
constexpr unsigned max_copies = 512;
constexpr unsigned max_promises = 16;
constexpr unsigned max_products = 32; // of a warpgroup in flight
constexpr unsigned max_product_groups = 8;
constexpr unsigned max_columns = 256; // of a product
constexpr unsigned max_boxes = 512;   // of a cluster in flight
constexpr unsigned max_unfenced = 64; // mbarriers of a block
constexpr unsigned max_named = 16;    // barriers of a block's parts

enum class State { ready, at_block, at_group, at_cluster, at_warp, at_mbarrier, done };

struct Copy {
    char *dst;
    const char *src;
    unsigned bytes, valid, group;
    uint64_t serial; // of the thread's copies
};

// An arrival at an mbarrier once the copies before `copies` have landed.
struct Promise {
    uint64_t *word;
    uint64_t copies;
};

// A thread's share of D while products add to it: taken away from the thread, which finds NaN.
struct Share {
    float *d;
    unsigned products, size;
    float value[max_columns / 2];
};

// What a thread has done of its warpgroup's products; serials count from the block's beginning.
struct Products {
    bool fenced;
    uint64_t issued, done;
    unsigned groups, groups_done;
    uint64_t group_end[max_product_groups]; // serial after the group's last product
    float *d[max_products];
    Share share[4];
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
    uint64_t copy_serial;
    Copy copy[max_copies];
    const uint64_t *mbarrier; // that it waits for
    unsigned promises;
    Promise promise[max_promises];
    char promise_point;
    Products products;
    uint32_t proxy_epoch; // no other thread's, and another after every fence_async_proxy
    unsigned registers, register_moves;
    unsigned named; // barrier that it waits at
};

// The lanes of a warp that wait for others, and one of them while all wait at the same meeting.
struct Waiting {
    uint32_t lanes;
    const Thread *like;
};

// What is known of 16 bytes of shared memory; see proxy.cpp.
struct Landed {
    uint32_t run;           // of the block that it is known of
    uint32_t thread, epoch; // whose asynchronous copy landed; no epoch: nobody's
    uint32_t fences;
    uint64_t seen[2];
};

// A barrier of some of a block's threads.
struct Named {
    unsigned waiting, threads, generation;
    Site site;
    char point[2];
};

// An mbarrier that nobody but its maker may use yet, unless as threads of its block.
struct Unfenced {
    const uint64_t *word;
    const Thread *maker;
};

struct Warpgroup; // see wgmma.cpp

struct Block {
    dim3 index;
    unsigned rank, threads, live, waiting;
    Site site; // of the barrier that the first thread reached
    Thread **thread;
    Waiting warp[max_threads / 32];
    char *shared;
    size_t shared_bytes; // with gaps
    size_t used;         // as a GPU would count it
    unsigned carves;
    size_t offset[max_carves], bytes[max_carves];
    // ThreadSanitizer's names for the opening and for this block's barriers. Barriers alternate, so
    // that a thread still leaving one does not inherit what another did on its way to the next.
    char open_point, point[2];
    unsigned generation;
    Landed *landed; // for each 16 bytes
    size_t landed_bytes;
    uint32_t run, fences; // no other run's; by all its threads
    Unfenced unfenced[max_unfenced];
    unsigned n_unfenced;
    Named named[max_named];
    Warpgroup *warpgroup[max_threads / 128];
};

extern Block blocks[max_blocks]; // of the running cluster
extern unsigned n_blocks;
extern const Launch *current_launch;
extern Thread *current;
extern bool failed; // a fault was reported

const char *base_name(const char *path);
bool same(Site a, Site b);

// Reports a fault: the launch ends when the scheduler sees it.
__attribute__((format(printf, 1, 2))) void fault(const char *format, ...);
// Reports why nothing can run although not everything has finished.
void report_stuck();

// From inside a fiber: lets the others run.
void enter_scheduler();

// From inside a fiber: reports and never comes back.
#define FAULT_HERE(...)                                                                            \
    do {                                                                                           \
        ::tw::emu::fault(__VA_ARGS__);                                                             \
        ::tw::emu::enter_scheduler();                                                              \
        abort();                                                                                   \
    } while (0)

// A cluster begins: nobody waits at its barrier.
void meet_begin();

// A block's shared memory, for one run of it.
void shared_open(Block *block, size_t bytes);
// Looks at the gaps (where AddressSanitizer does not) and closes the region.
void shared_close(Block *block);

// Where a pointer into the running block's shared memory leads in the cluster's block `rank`;
// reports one that leads nowhere.
void *shared_of_block(const void *shared, unsigned rank, const char *what, Site site);
// Whether the bytes lie in one carve-out.
bool shared_holds(const Block *block, size_t at, size_t bytes);

// The generic and the asynchronous proxy, for one run of a block.
void proxy_open(Block *block);
void proxy_copied(const Thread *thread, const void *to, size_t bytes); // by cp.async
void proxy_brought(Block *block, const void *to, size_t bytes);        // by TMA, or poisoned
// Reports what the asynchronous proxy may not see, or write over, yet.
void proxy_check(Block *block, size_t at, const char *what, Site site);

// A box of `bytes` has been brought to the barrier, in its phase `phase` when it was asked for.
void mbarrier_complete(Block *block, uint64_t *word, uint32_t phase, unsigned bytes, Site site);
uint32_t mbarrier_phase(const uint64_t *word, Site site);
// What a phase that never ends lacks.
void mbarrier_describe(const uint64_t *word, char *text, size_t size);
// Reports a barrier that TMA or another block uses before its maker's fence.
void mbarrier_check_fenced(const Block *block, const uint64_t *word, const char *what, Site site);
// Nothing can run: those wake that wait for boxes alone, which land then.
bool mbarrier_wake_for_boxes();

// Boxes on their way: none when a cluster begins, none to a block that ends.
void boxes_open();
void boxes_close(const Block *block);
bool boxes_coming(const uint64_t *word, uint32_t phase);
void boxes_land(uint64_t *word);

// Each warpgroup's registers, together no more than the block has.
void registers_open(Block *block);
void registers_close(const Block *block);

// The elements of a word of an operand as the tensor cores see them, and how many they are.
int matrix_elements(Mma kind, uint32_t word, float *out);

// A block's products, for one run of it.
void products_open(Block *block);
void products_close(Block *block);

// The thread's copies up to the one with serial `before` land; the later ones stay in flight.
void copies_land(Thread *thread, uint64_t before);

} // namespace tw::emu
