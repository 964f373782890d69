// Dynamic thresholding's scalar per sample: an exact quantile of |x0|.
#include "device/atomic.cuh"
#include "device/cluster.cuh"
#include "device/launch.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

#include "ddim.cuh"

namespace tw {
namespace {

constexpr int block_threads = 512;
constexpr int bins = 2048;
constexpr int bins_a_thread = bins / block_threads;
constexpr uint32_t absent = 0xffffffffu; // above every key
constexpr uint32_t infinity_key = 0x7f800000u;
constexpr int findings = 5; // bin, rank in it, its size, next larger key, whether there is a NaN

struct Rank {
    int64_t below;  // index of the lower order statistic
    float fraction; // of the way to the next one
    float limit;
};

// |x0| of V elements as integers that order like it; those past `count` are absent.
template <bool WIDE, typename X, typename M, int V>
TW_DEVICE void load_keys(const twk_ddim_args &a, const DdimStep &s, int64_t at, int64_t count,
                         uint32_t (&key)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) key[i] = absent;
    if (count <= 0) return;
    const int n = (int)smaller<int64_t>(V, count);
    float x[V], m[V], u[V] = {};
    load<WIDE>(static_cast<const X *>(a.x) + at, n, x);
    load<WIDE>(static_cast<const M *>(a.m) + at, n, m);
    if (a.m_uncond) load<WIDE>(static_cast<const M *>(a.m_uncond) + at, n, u);
#pragma unroll
    for (int i = 0; i < V; i++) {
        float x0, e;
        predict(s, a.prediction, x[i], a.m_uncond ? u[i] + a.guidance * (m[i] - u[i]) : m[i], &x0,
                &e);
        if (i < n) key[i] = float_to_bits(x0) & 0x7fffffffu;
    }
}

// Finds the bin that holds the element of rank `rank` of the whole sample: found = {bin, rank
// inside the bin, its size}, in every block of the cluster. Each thread owns a run of bins, adds up
// those of all blocks, and one of them finds its run to hold it.
TW_DEVICE void find_bin(uint32_t *histogram, uint32_t rank, uint32_t *warps, uint32_t *found) {
    uint32_t mine[bins_a_thread] = {}, sum = 0;
    for (unsigned block = 0; block < cluster_size(); block++) {
        const uint32_t *theirs = cluster_map(histogram, block) + threadIdx.x * bins_a_thread;
#pragma unroll
        for (int i = 0; i < bins_a_thread; i++) mine[i] += theirs[i];
    }
#pragma unroll
    for (int i = 0; i < bins_a_thread; i++) sum += mine[i];
    uint32_t before = sum; // of this thread's run and those of the lanes below
    for (unsigned s = 1; s < 32; s <<= 1) {
        const uint32_t other = shuffle_up(full_warp, before, s);
        if (threadIdx.x % 32 >= s) before += other;
    }
    if (threadIdx.x % 32 == 31) warps[threadIdx.x / 32] = before;
    before -= sum;
    sync_block();
    for (unsigned w = 0; w < threadIdx.x / 32; w++) before += warps[w];
    if (rank >= before && rank < before + sum) {
#pragma unroll
        for (int i = 0; i < bins_a_thread; i++) {
            if (rank >= before && rank < before + mine[i]) {
                found[0] = threadIdx.x * bins_a_thread + (unsigned)i;
                found[1] = rank - before;
                found[2] = mine[i];
            }
            before += mine[i];
        }
    }
    sync_block();
}

// Work: a cluster of blocks a sample, each block a slice; a thread keeps the keys of its own
// elements in shared memory (KEEP), so that the sample is read once. Three passes over the keys
// narrow the answer down by 11, 10 and 10 bits with a histogram a block, which the blocks add up by
// reading each other's; a fourth finds the next larger key. Slices too large for shared memory are
// read again instead, from the cache where they fit there.
// Limit: latency of the passes (barriers, and conflicts on popular bins in the first).
template <typename X, typename M, bool WIDE, bool KEEP>
__global__ void __launch_bounds__(block_threads)
    threshold_kernel(const twk_ddim_args a, Rank rank, int64_t slice, int64_t slots,
                     float *threshold) {
    constexpr int V = larger(per_16<X>, per_16<M>);
    TW_SHARED(arena);
    uint32_t *histogram = arena.take<uint32_t>(bins);
    uint32_t *warps = arena.take<uint32_t>(block_threads / 32);
    uint32_t *found = arena.take<uint32_t>(findings);
    uint32_t *keys = KEEP ? arena.take<uint32_t>((size_t)slots) : nullptr;
    const unsigned block = cluster_rank(), blocks = cluster_size();
    const int64_t sample = blockIdx.x / blocks, first = block * slice;
    const int64_t count = smaller(slice, a.elements - first), base = sample * a.elements + first;
    const DdimStep s = ddim_step(a, sample);
    // Calls use(key) for this thread's keys. Key j of vector v lies in slot j * block_threads: the
    // threads of a warp meet no bank twice.
    bool loaded = false;
    const auto each = [&](const auto &use) {
        int64_t slot = threadIdx.x;
        for (int64_t i = (int64_t)threadIdx.x * V; i < count;
             i += block_threads * V, slot += block_threads * V) {
            uint32_t key[V];
            if (KEEP && loaded) {
#pragma unroll
                for (int j = 0; j < V; j++) key[j] = keys[slot + j * block_threads];
            } else {
                load_keys<WIDE, X, M>(a, s, base + i, count - i, key);
#pragma unroll
                for (int j = 0; KEEP && j < V; j++) keys[slot + j * block_threads] = key[j];
            }
#pragma unroll
            for (int j = 0; j < V; j++) use(key[j]);
        }
        loaded = true;
    };
    if (threadIdx.x == 0) found[4] = 0;
    bool spoiled = false;
    uint32_t prefix = 0, left = (uint32_t)rank.below;
    for (int pass = 0; pass < 3; pass++) {
        const int shift = 20 - 10 * pass, above = pass == 0 ? 31 : shift + 10;
        for (int i = threadIdx.x; i < bins; i += block_threads) histogram[i] = 0;
        sync_block();
        each([&](uint32_t key) {
            if (key >> above == prefix >> above)
                atomic_add(&histogram[key >> shift & (pass == 0 ? 2047u : 1023u)], 1u);
            spoiled = spoiled || (key > infinity_key && key != absent);
        });
        if (pass == 0 && spoiled) atomic_max(&found[4], 1u);
        sync_cluster();
        find_bin(histogram, left, warps, found);
        prefix |= found[0] << shift;
        left = found[1];
        sync_cluster(); // the others have read this block's histogram, and all have read found
    }
    // found[2] elements equal the lower order statistic; unless one more of them follows, the
    // upper one is the smallest larger key.
    const bool repeated = left + 1 < found[2];
    if (threadIdx.x == 0) found[3] = 0x7fffffffu;
    sync_block();
    if (!repeated && rank.fraction > 0.0f) {
        uint32_t next = 0x7fffffffu;
        each([&](uint32_t key) {
            if (key > prefix) next = smaller(next, key);
        });
        atomic_min(&found[3], next);
    }
    sync_cluster();
    if (block == 0 && threadIdx.x == 0) {
        uint32_t next = 0x7fffffffu, any_nan = 0;
        for (unsigned b = 0; b < blocks; b++) {
            next = smaller(next, cluster_map(found, b)[3]);
            any_nan |= cluster_map(found, b)[4];
        }
        const float low = bits_to_float(prefix);
        const float high = repeated || rank.fraction == 0.0f ? low : bits_to_float(next);
        const float s = fminf(fmaxf(low + rank.fraction * (high - low), 1.0f), rank.limit);
        threshold[sample] = any_nan ? NAN : s;
    }
    if (blocks > 1) sync_cluster(); // nobody leaves while its memory is read
}

struct Slices {
    unsigned blocks; // of a sample
    int64_t slice;   // elements of a block
    int64_t slots;   // keys that it can keep; 0: it keeps none
};

// Enough blocks that the machine is full and no slice is long, as far as clusters go.
Slices slices_of(const twk_ddim_args &a, int vector, const Limits &limits) {
    const int64_t together = (int64_t)block_threads * vector;
    const size_t fixed = shared_bytes<uint32_t>(bins) + shared_bytes<uint32_t>(block_threads / 32) +
                         shared_bytes<uint32_t>(findings);
    Slices s = {1, a.elements, 0};
    for (; s.blocks < limits.cluster && s.slice > 4096; s.blocks *= 2) {
        if (s.slice <= 16384 && a.batch * s.blocks * 2 > limits.processors) break;
        s.slice = ceil_div<int64_t>(ceil_div<int64_t>(a.elements, s.blocks * 2), vector) * vector;
    }
    const int64_t slots = ceil_div(s.slice, together) * together;
    if (limits.shared > fixed && slots <= (int64_t)((limits.shared - fixed) / sizeof(uint32_t)))
        s.slots = slots;
    return s;
}

template <typename X, typename M>
twk_status launch_threshold(const twk_ddim_args &a, const Rank &rank, float *threshold,
                            twk_stream stream) {
    constexpr int V = larger(per_16<X>, per_16<M>);
    const Slices s = slices_of(a, V, device_limits());
    if (a.batch > 0x7fffffff / s.blocks)
        return fail(TWK_UNSUPPORTED, "threshold: more samples than a grid can hold");
    const bool wide = a.elements % V == 0 && aligned_16(a.x) && aligned_16(a.m) &&
                      (!a.m_uncond || aligned_16(a.m_uncond));
    LaunchConfig config;
    config.grid = dim3((unsigned)a.batch * s.blocks);
    config.block = dim3(block_threads);
    config.cluster = s.blocks;
    config.stream = stream;
    config.shared = shared_bytes<uint32_t>(bins) + shared_bytes<uint32_t>(block_threads / 32) +
                    shared_bytes<uint32_t>(findings) + shared_bytes<uint32_t>((size_t)s.slots);
    return with_flag(wide, [&](auto w) {
        return with_flag(s.slots > 0, [&](auto keep) {
            return TW_LAUNCH((threshold_kernel<X, M, decltype(w)::value, decltype(keep)::value>),
                             config, a, rank, s.slice, s.slots, threshold);
        });
    });
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_dynamic_threshold(const twk_ddim_args *args, float quantile, float limit,
                                            float *threshold, twk_stream stream) {
    const twk_status status = check_ddim(args);
    if (status != TWK_OK) return status;
    TW_REQUIRE(quantile >= 0 && quantile <= 1, "threshold: a quantile lies in [0, 1]");
    TW_REQUIRE(limit >= 1, "threshold: the limit is at least 1");
    TW_REQUIRE(threshold, "threshold: no output");
    if (args->elements > int64_t(1) << 31)
        return fail(TWK_UNSUPPORTED, "threshold: more than 2^31 elements in a sample");
    const double position = (double)quantile * (double)(args->elements - 1);
    Rank rank;
    rank.below = (int64_t)position;
    rank.fraction = (float)(position - (double)rank.below);
    rank.limit = limit;
    return with_format(args->m_format, [&](auto m) {
        using M = decltype(m);
        return args->x_format == TWK_F32
                   ? launch_threshold<float, M>(*args, rank, threshold, stream)
                   : launch_threshold<M, M>(*args, rank, threshold, stream);
    });
}
