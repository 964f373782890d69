// Host stand-ins for the CUDA language and for the wrappers of kernels/device, so that g++ or
// clang++ can compile the .cu sources and the test suite can execute them without a GPU.
//
// The threads of a block (or of a cluster of blocks) are fibers on one host thread. Every call
// that a GPU would treat as a meeting point is an opaque call into emulator.cpp, which may switch
// to another fiber and which sets the index variables again on the way back.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmath>
#include <functional>
#include <string>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Set by the scheduler each time it resumes a fiber.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tw::emu {

struct Site {
    const char *file;
    int line;
};

// ---- what a test uses -------------------------------------------------------------------------

// Seed of the shuffled thread and block order; taken from TW_EMU_SEED when that is set.
void set_seed(uint64_t seed);
uint64_t seed();
// Run only the blocks whose linear index lies in [first, first + count); count 0 runs all. Lets a
// test look at index arithmetic past 2^31 elements without executing the blocks below.
void set_block_filter(uint64_t first, uint64_t count);
// Text of the last fault found in a launch (and forget it); empty when there was none.
std::string take_report();
// Shared memory and cluster size the pretended device offers.
void set_shared_limit(size_t bytes);
size_t shared_limit();
void set_max_cluster(unsigned blocks);
unsigned max_cluster();
void set_wgmma(bool there);
bool with_wgmma();
void set_tma(bool there);
bool with_tma();
// Number of launches so far: tests of fusions count them.
uint64_t launches();
// Takes every launch as a function to call when its turn comes (false: it reported a fault), where
// a test stands in for the CUDA runtime; false refuses it. Null: launches run at once.
extern bool (*launch_later)(void *stream, std::function<bool()> launch);

// ---- what the stand-ins below use ---------------------------------------------------------------

enum class Meet { sync, shuffle, ballot, act };

struct Launch {
    const char *kernel;
    Site site;
    dim3 grid, block;
    size_t shared;
    unsigned cluster;
    void (*entry)(const void *);
    const void *object;
};

// False when a fault was reported; the fibers of the launch are then abandoned.
bool run(const Launch &launch);

void meet_block(Site site);
void meet_cluster(Site site);
void meet_group(unsigned id, unsigned threads, Site site);
uint64_t meet_warp(Meet kind, uint32_t mask, uint64_t value, unsigned source, Site site);
// A meeting of the whole warp at which the last lane to come calls act with what each lane brought.
void meet_warp_act(void *mine, void (*act)(void *const *lanes), Site site);
// ldmatrix: `count` 8 x 8 matrices of 16-bit elements, one row's address from each lane.
void load_matrices(uint32_t *r, int count, bool transposed, const void *row, Site site);
// m x n products of fragments, added to c; see kernels/device/mma.cuh.
enum class Mma { bf16, f16, tf32 };
void multiply(Mma kind, float *c, const uint32_t *a, const uint32_t *b, int m, int n, Site site);
// wgmma, see kernels/device/wgmma.cuh: d (64 x columns) += a b, told by descriptors.
struct Product {
    Mma kind;
    int columns; // 128 or 256
    uint64_t a, b;
    bool a_columns, b_columns;
};
unsigned shared_address(const void *p);
void fence_async_proxy();
void wgmma_fence();
void wgmma_multiply(const Product &product, float *d, Site site);
void wgmma_commit();
void wgmma_wait(unsigned groups_left, Site site);
void registers_set(unsigned count, bool more, Site site);
void *shared_take(unsigned index, size_t bytes);
unsigned cluster_rank();
unsigned cluster_size();
void *cluster_map(void *shared, unsigned rank, Site site);
void copy_issue(void *dst, const void *src, size_t bytes, size_t valid);
void copy_commit();
void copy_wait(unsigned groups_left);
// See kernels/device/mbarrier.cuh; the word is the barrier's.
void mbarrier_init(uint64_t *word, unsigned arrivals, Site site);
void mbarrier_arrive(uint64_t *word, Site site);
void mbarrier_arrive_copies(uint64_t *word, Site site);
void mbarrier_wait(uint64_t *word, unsigned parity, Site site);
void mbarrier_fence_init();
void mbarrier_expect(uint64_t *word, unsigned bytes, Site site);
void mbarrier_arrive_block(uint64_t *word, unsigned rank, Site site);
// See kernels/device/tma.cuh. What a tensor map of 128 bytes holds here; stride[0] is not used.
struct Tensor {
    const unsigned char *base;
    unsigned element, swizzle; // bytes; as wgmma's descriptors name it
    int rank;
    uint64_t size[5], stride[5];
    uint32_t box[5], step[5];
};
// Null, or why the driver would refuse.
const char *tensor_map(const Tensor &tensor, void *map);
void tma_prefetch(const void *map, Site site);
// `blocks`: bits of the cluster's blocks that get the box, 0 for the running one alone.
void tma_load(void *shared, const void *map, uint64_t *word, const int *at, int rank,
              unsigned blocks, Site site);

inline unsigned lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31u;
}

} // namespace tw::emu

// Default arguments take the place of the call, so that a report names the kernel's line.
#define TW_EMU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace tw {

// ---- kernels/device/warp.cuh --------------------------------------------------------------------

inline void sync_block(TW_EMU_SITE) {
    emu::meet_block(emu::Site{file, line});
}
inline void sync_group(unsigned id, unsigned threads, TW_EMU_SITE) {
    emu::meet_group(id, threads, emu::Site{file, line});
}
inline void sync_warp(uint32_t mask, TW_EMU_SITE) {
    emu::meet_warp(emu::Meet::sync, mask, 0, 0, emu::Site{file, line});
}

template <typename T>
inline T emu_shuffle(uint32_t mask, T value, unsigned source, emu::Site site) {
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "shuffle of a word");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emu::meet_warp(emu::Meet::shuffle, mask, bits, source, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <typename T> inline T shuffle(uint32_t mask, T value, unsigned source, TW_EMU_SITE) {
    return emu_shuffle(mask, value, source & 31u, emu::Site{file, line});
}
template <typename T> inline T shuffle_xor(uint32_t mask, T value, unsigned flip, TW_EMU_SITE) {
    return emu_shuffle(mask, value, (emu::lane() ^ flip) & 31u, emu::Site{file, line});
}
template <typename T> inline T shuffle_down(uint32_t mask, T value, unsigned delta, TW_EMU_SITE) {
    const unsigned from = emu::lane() + delta;
    return emu_shuffle(mask, value, from < 32 ? from : emu::lane(), emu::Site{file, line});
}
template <typename T> inline T shuffle_up(uint32_t mask, T value, unsigned delta, TW_EMU_SITE) {
    const unsigned me = emu::lane();
    return emu_shuffle(mask, value, me >= delta ? me - delta : me, emu::Site{file, line});
}
inline uint32_t ballot(uint32_t mask, bool vote, TW_EMU_SITE) {
    return (uint32_t)emu::meet_warp(emu::Meet::ballot, mask, vote ? 1 : 0, 0,
                                    emu::Site{file, line});
}

// ---- kernels/device/atomic.cuh: integers only, the engine adds no floats atomically -------------

inline uint32_t atomic_add(uint32_t *p, uint32_t v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline uint64_t atomic_add(uint64_t *p, uint64_t v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline uint32_t atomic_min(uint32_t *p, uint32_t v) {
    uint32_t old = __atomic_load_n(p, __ATOMIC_RELAXED);
    if (v < old) __atomic_store_n(p, v, __ATOMIC_RELAXED);
    return old;
}
inline uint32_t atomic_max(uint32_t *p, uint32_t v) {
    uint32_t old = __atomic_load_n(p, __ATOMIC_RELAXED);
    if (v > old) __atomic_store_n(p, v, __ATOMIC_RELAXED);
    return old;
}

// ---- kernels/device/copy.cuh --------------------------------------------------------------------

inline void copy_async_16(void *shared, const void *global, unsigned valid = 16) {
    emu::copy_issue(shared, global, 16, valid);
}
inline void copy_async_8(void *shared, const void *global, unsigned valid = 8) {
    emu::copy_issue(shared, global, 8, valid);
}
inline void copy_async_4(void *shared, const void *global, unsigned valid = 4) {
    emu::copy_issue(shared, global, 4, valid);
}
inline void copy_async_commit() {
    emu::copy_commit();
}
template <int LEFT> inline void copy_async_wait() {
    emu::copy_wait(LEFT);
}

// ---- kernels/device/ldmatrix.cuh ----------------------------------------------------------------

template <int COUNT> inline void load_matrices(uint32_t (&r)[COUNT], const void *row, TW_EMU_SITE) {
    emu::load_matrices(r, COUNT, false, row, emu::Site{file, line});
}
template <int COUNT>
inline void load_matrices_transposed(uint32_t (&r)[COUNT], const void *row, TW_EMU_SITE) {
    emu::load_matrices(r, COUNT, true, row, emu::Site{file, line});
}

// ---- kernels/device/cluster.cuh -----------------------------------------------------------------

inline unsigned cluster_rank() {
    return emu::cluster_rank();
}
inline unsigned cluster_size() {
    return emu::cluster_size();
}
inline void sync_cluster(TW_EMU_SITE) {
    emu::meet_cluster(emu::Site{file, line});
}
template <typename T> inline T *cluster_map(T *shared, unsigned rank, TW_EMU_SITE) {
    return static_cast<T *>(emu::cluster_map(shared, rank, emu::Site{file, line}));
}

// ---- kernels/device/launch.cuh ------------------------------------------------------------------

class SharedArena {
  public:
    template <typename T> T *take(size_t count) {
        return static_cast<T *>(emu::shared_take(index_++, count * sizeof(T)));
    }

  private:
    unsigned index_ = 0;
};

// body may be kept: it owns what the kernel is called with.
template <typename F>
inline bool emu_launch(const char *kernel, emu::Site site, dim3 grid, dim3 block, size_t shared,
                       unsigned cluster, void *stream, const F &body) {
    const auto run = [=] {
        emu::Launch launch{kernel, site, grid, block, shared, cluster, nullptr, &body};
        launch.entry = [](const void *object) { (*static_cast<const F *>(object))(); };
        return emu::run(launch);
    };
    return emu::launch_later ? emu::launch_later(stream, run) : run();
}

} // namespace tw
