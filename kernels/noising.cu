// Forward noising for training, plain noise, and the step counter.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// Work: a thread owns V consecutive elements of one sample, V the larger of what 16 bytes of x0
// and of x_t hold; a block 256 vectors of the batch.
// Limit: device memory for fp32; the noise's arithmetic where both tensors are 16 bits wide.
template <typename X0, typename XT, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    noising_kernel(const twk_noising_args a, int64_t vectors) {
    constexpr int V = larger(per_16<X0>, per_16<XT>);
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * vectors) return;
    const Place at = place_of(index, vectors, a.elements, V);
    float x[V], z[V], target[V];
    load<WIDE>(static_cast<const X0 *>(a.x0) + at.at, at.count, x);
    const int64_t t = a.time[at.sample], entry = t * (a.table_stride ? a.table_stride : 1);
    const bool known = t >= 0 && t < a.n_times;
    const float ca = known ? sqrtf(a.a[entry]) : NAN;
    const float cb = known ? sqrtf(a.one_minus_a[entry]) : NAN;
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    normals<V>(make_noise(a.noise, at.sample, a.purpose, step), at.first, z);
#pragma unroll
    for (int i = 0; i < V; i++) {
        switch (a.prediction) {
        case TWK_PREDICT_EPSILON:
            target[i] = z[i];
            break;
        case TWK_PREDICT_SAMPLE:
            target[i] = x[i];
            break;
        case TWK_PREDICT_V:
            target[i] = ca * z[i] - cb * x[i];
            break;
        case TWK_PREDICT_SCORE:
            target[i] = -z[i] / cb;
            break;
        }
        x[i] = ca * x[i] + cb * z[i];
    }
    const bool whole = is_whole_warp(index, a.batch * vectors);
    store_warp<WIDE>(static_cast<XT *>(a.x_t) + at.at, at.count, x, whole);
    if (a.target) store_warp<WIDE>(a.target + at.at, at.count, target, whole);
}

// Work: a thread makes V consecutive elements of one sample, a block 256 vectors of the batch.
// Limit: the integer units (Philox) and special function units; writes come second.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    fill_kernel(const twk_noise_fill_args a, int64_t vectors) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * vectors) return;
    const Place at = place_of(index, vectors, a.elements, V);
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    const Noise noise = make_noise(a.noise, at.sample, a.purpose, step);
    float z[V];
    if (a.kind == TWK_FILL_NORMAL) {
        normals<V>(noise, at.first, z);
    } else {
#pragma unroll
        for (int q = 0; q < V / 4; q++) {
            const Words4 w = noise_words(noise, (uint32_t)(at.first / 4) + (uint32_t)q);
#pragma unroll
            for (int i = 0; i < 4; i++)
                z[4 * q + i] = a.kind == TWK_FILL_WORDS ? bits_to_float(w.w[i]) : uniform(w.w[i]);
        }
    }
    if (a.kind != TWK_FILL_WORDS) {
#pragma unroll
        for (int i = 0; i < V; i++) z[i] *= a.scale;
    }
    store<WIDE>(static_cast<T *>(a.out) + at.at, at.count, z);
}

// Work: one thread. Limit: the launch.
__global__ void counter_kernel(uint32_t *counter, uint32_t by) {
    *counter += by;
}

template <typename X0, typename XT>
twk_status launch_noising(const twk_noising_args &a, twk_stream stream) {
    constexpr int V = larger(per_16<X0>, per_16<XT>);
    const int64_t vectors = ceil_div<int64_t>(a.elements, V);
    LaunchConfig config;
    config.stream = stream;
    config.block = dim3(block_threads);
    if (!grid_for(a.batch * vectors, block_threads, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "noising: more elements than a grid can hold");
    const bool wide =
        a.elements % V == 0 && aligned_16(a.x0) && aligned_16(a.x_t) && aligned_16(a.target);
    return with_flag(wide, [&](auto w) {
        return TW_LAUNCH((noising_kernel<X0, XT, decltype(w)::value>), config, a, vectors);
    });
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_forward_noising(const twk_noising_args *args, twk_stream stream) {
    TW_REQUIRE(args, "noising: no arguments");
    const twk_noising_args &a = *args;
    TW_REQUIRE(total_of(a.batch, a.elements) > 0, "noising: batch and elements must be positive");
    TW_REQUIRE(a.elements <= int64_t(1) << 34, "noising: a sample has at most 2^34 elements");
    TW_REQUIRE(a.x0 && a.x_t && a.time, "noising: x0, x_t and time are needed");
    TW_REQUIRE(a.a && a.one_minus_a && a.n_times > 0, "noising: the tables of A are needed");
    TW_REQUIRE(a.table_stride >= 0, "noising: the table's stride must not be negative");
    TW_REQUIRE((unsigned)a.prediction <= TWK_PREDICT_SCORE, "noising: unknown prediction");
    TW_REQUIRE(a.purpose <= 0xffffu, "noising: a purpose has 16 bits");
    return with_format(a.x0_format, [&](auto x0) {
        return with_format(a.xt_format, [&](auto xt) {
            return launch_noising<decltype(x0), decltype(xt)>(a, stream);
        });
    });
}

extern "C" twk_status twk_noise_fill(const twk_noise_fill_args *args, twk_stream stream) {
    TW_REQUIRE(args, "noise: no arguments");
    const twk_noise_fill_args &a = *args;
    TW_REQUIRE(total_of(a.batch, a.elements) > 0, "noise: batch and elements must be positive");
    TW_REQUIRE(a.elements <= int64_t(1) << 34, "noise: a sample has at most 2^34 elements");
    TW_REQUIRE(a.out, "noise: no output");
    TW_REQUIRE((unsigned)a.kind <= TWK_FILL_WORDS, "noise: unknown kind");
    TW_REQUIRE(a.kind != TWK_FILL_WORDS || a.format == TWK_F32, "noise: words are 32 bits wide");
    TW_REQUIRE(a.purpose <= 0xffffu, "noise: a purpose has 16 bits");
    return with_format(a.format, [&](auto t) {
        using T = decltype(t);
        constexpr int V = per_16<T>;
        const int64_t vectors = ceil_div<int64_t>(a.elements, V);
        LaunchConfig config;
        config.stream = stream;
        config.block = dim3(block_threads);
        if (!grid_for(a.batch * vectors, block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "noise: more elements than a grid can hold");
        return with_flag(a.elements % V == 0 && aligned_16(a.out), [&](auto w) {
            return TW_LAUNCH((fill_kernel<T, decltype(w)::value>), config, a, vectors);
        });
    });
}

extern "C" twk_status twk_counter_add(uint32_t *counter, uint32_t by, twk_stream stream) {
    TW_REQUIRE(counter, "counter: no counter");
    LaunchConfig config;
    config.stream = stream;
    config.block = dim3(1);
    return TW_LAUNCH(counter_kernel, config, counter, by);
}
