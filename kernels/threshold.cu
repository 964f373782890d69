// Dynamic thresholding's scalar per sample: an exact quantile of |x0|.
#include "device/atomic.cuh"
#include "device/launch.cuh"
#include "device/warp.cuh"

#include "ddim.cuh"

namespace tw {
namespace {

constexpr int block_threads = 1024;
constexpr int bins = 2048;

struct Rank {
    int64_t below;  // index of the lower order statistic
    float fraction; // of the way to the next one
    float limit;
};

// |x0| of an element as an integer that orders like it.
template <typename X, typename M>
TW_DEVICE uint32_t key_at(const twk_ddim_args &a, const DdimStep &s, int64_t at) {
    const float x = to_float(static_cast<const X *>(a.x)[at]);
    float m = to_float(static_cast<const M *>(a.m)[at]), x0, e;
    if (a.m_uncond) {
        const float u = to_float(static_cast<const M *>(a.m_uncond)[at]);
        m = u + a.guidance * (m - u);
    }
    predict(s, a.prediction, x, m, &x0, &e);
    return float_to_bits(x0) & 0x7fffffffu;
}

// The first warp finds the bin that holds the element of rank `rank`: found = {bin, rank inside the
// bin, its size}. Each lane adds up a run of bins, then the lane whose run holds it looks closer.
TW_DEVICE void find_bin(const uint32_t *histogram, uint32_t rank, uint32_t *found) {
    if (threadIdx.x >= 32) return;
    constexpr unsigned run = bins / 32;
    uint32_t sum = 0;
    for (unsigned i = 0; i < run; i++) sum += histogram[threadIdx.x * run + i];
    uint32_t before = sum;
    for (unsigned s = 1; s < 32; s <<= 1) {
        const uint32_t other = shuffle_up(full_warp, before, s);
        if (threadIdx.x >= s) before += other;
    }
    before -= sum;
    if (rank < before || rank >= before + sum) return;
    unsigned bin = threadIdx.x * run;
    while (rank >= before + histogram[bin]) before += histogram[bin++];
    found[0] = bin;
    found[1] = rank - before;
    found[2] = histogram[bin];
}

// Work: one block a sample. Three passes narrow the key down by 11, 10 and 10 bits with a histogram
// in shared memory, a fourth finds the next larger key; the sample comes from L2 after the first.
// Limit: L2 bandwidth of one processor, and conflicts on popular bins in the first pass.
template <typename X, typename M>
__global__ void __launch_bounds__(block_threads)
    threshold_kernel(const twk_ddim_args a, Rank rank, float *threshold) {
    TW_SHARED(arena);
    uint32_t *histogram = arena.take<uint32_t>(bins);
    uint32_t *found = arena.take<uint32_t>(4);
    const int64_t sample = blockIdx.x, base = sample * a.elements;
    const DdimStep s = ddim_step(a, sample);
    uint32_t prefix = 0, left = (uint32_t)rank.below;
    for (int pass = 0; pass < 3; pass++) {
        const int shift = 20 - 10 * pass, above = pass == 0 ? 31 : shift + 10;
        for (int i = threadIdx.x; i < bins; i += block_threads) histogram[i] = 0;
        sync_block();
        for (int64_t i = threadIdx.x; i < a.elements; i += block_threads) {
            const uint32_t key = key_at<X, M>(a, s, base + i);
            if (key >> above == prefix >> above)
                atomic_add(&histogram[key >> shift & (pass == 0 ? 2047u : 1023u)], 1u);
        }
        sync_block();
        find_bin(histogram, left, found);
        sync_block();
        prefix |= found[0] << shift;
        left = found[1];
    }
    // found[2] elements equal the lower order statistic; unless one more of them follows, the
    // upper one is the smallest larger key.
    const bool repeated = left + 1 < found[2];
    sync_block();
    if (threadIdx.x == 0) found[3] = 0x7fffffffu;
    sync_block();
    if (!repeated && rank.fraction > 0.0f) {
        uint32_t next = 0x7fffffffu;
        for (int64_t i = threadIdx.x; i < a.elements; i += block_threads) {
            const uint32_t key = key_at<X, M>(a, s, base + i);
            if (key > prefix) next = smaller(next, key);
        }
        atomic_min(&found[3], next);
    }
    sync_block();
    if (threadIdx.x != 0) return;
    const float low = bits_to_float(prefix);
    const float high = repeated || rank.fraction == 0.0f ? low : bits_to_float(found[3]);
    threshold[sample] = fminf(fmaxf(low + rank.fraction * (high - low), 1.0f), rank.limit);
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
    if (args->elements > int64_t(1) << 31 || args->batch > 0x7fffffff)
        return fail(TWK_UNSUPPORTED, "threshold: more than 2^31 elements in a sample");
    const double position = (double)quantile * (double)(args->elements - 1);
    Rank rank;
    rank.below = (int64_t)position;
    rank.fraction = (float)(position - (double)rank.below);
    rank.limit = limit;
    LaunchConfig config;
    config.grid = dim3((unsigned)args->batch);
    config.block = dim3(block_threads);
    config.shared = shared_bytes<uint32_t>(bins) + shared_bytes<uint32_t>(4);
    config.stream = stream;
    return with_format(args->m_format, [&](auto m) {
        using M = decltype(m);
        return args->x_format == TWK_F32
            ? TW_LAUNCH((threshold_kernel<float, M>), config, *args, rank, threshold)
                   : TW_LAUNCH((threshold_kernel<M, M>), config, *args, rank, threshold);
    });
}
