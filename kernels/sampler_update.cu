// The general sampler update: one linear combination that serves ancestral, SDE, Heun, multistep
// and Runge-Kutta steps, with an embedded error norm on request.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

#include "ddim.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// Adds c * tensor to out and e * tensor to err.
template <bool WIDE, int V, typename T>
TW_DEVICE void add_term(const T *tensor, const Place &at, float c, float e, float (&out)[V],
                        float (&err)[V]) {
    if (!tensor) return;
    float v[V];
    load<WIDE>(tensor + at.at, at.count, v);
#pragma unroll
    for (int i = 0; i < V; i++) {
        out[i] += c * v[i];
        err[i] += e * v[i];
    }
}

// Sum over the vector of (error / tolerance)^2.
template <int V>
TW_DEVICE float scaled_error(const twk_update_args &a, const Place &at, const float (&x)[V],
                             const float (&out)[V], const float (&err)[V]) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float size = fmaxf(fabsf(x[i]), fabsf(out[i]));
        const float part = err[i] / (a.atol + a.rtol * size);
        if (i < at.count) sum += part * part;
    }
    return sum;
}

// Everything for one vector; gives its part of the error norm.
template <typename P, bool WIDE, bool ERROR, int V>
TW_DEVICE float update_vector(const twk_update_args &a, const Place &at, bool whole) {
    const twk_update_row &r = *row_at(a.rows, row_of(a, at.sample), a.row_stride);
    const float threshold = a.threshold ? a.threshold[at.sample] : 0.0f;
    float x[V], y[V] = {}, out[V], err[V];
    load<WIDE>(a.x + at.at, at.count, x);
#pragma unroll
    for (int i = 0; i < V; i++) {
        y[i] = r.dx * x[i];
        out[i] = r.cx * x[i];
        err[i] = r.ex * x[i];
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        if (!a.p[k]) continue;
        float p[V];
        load<WIDE>(static_cast<const P *>(a.p[k]) + at.at, at.count, p);
#pragma unroll
        for (int i = 0; i < V; i++) {
            y[i] += r.dp[k] * p[i];
            out[i] += r.cp[k] * p[i];
            err[i] += r.ep[k] * p[i];
        }
    }
#pragma unroll
    for (int k = 0; k < 3; k++) add_term<WIDE>(a.h[k], at, r.ch[k], r.eh[k], out, err);
#pragma unroll
    for (int i = 0; i < V; i++) {
        if (a.threshold)
            y[i] = clamp_to(y[i], threshold) / threshold;
        else if (r.clip > 0.0f)
            y[i] = clamp_to(y[i], r.clip);
        out[i] += r.cy * y[i];
        err[i] += r.ey * y[i];
    }
    if (r.cz != 0.0f) {
        float z[V];
        normals<V>(make_noise(a.noise, at.sample, TWK_NOISE_SAMPLER, r.noise_step), at.first, z);
        if (a.variance) {
            float o[V];
            load<WIDE>(static_cast<const P *>(a.variance) + at.at, at.count, o);
            const float middle = 0.25f * (r.log_large + r.log_small);
            const float half = 0.25f * (r.log_large - r.log_small);
#pragma unroll
            for (int i = 0; i < V; i++) z[i] *= expf(middle + half * o[i]);
        }
#pragma unroll
        for (int i = 0; i < V; i++) out[i] += r.cz * z[i];
    }
    if (a.y_out) store_warp<WIDE>(a.y_out + at.at, at.count, y, whole);
    store_warp<WIDE>(a.x_out + at.at, at.count, out, whole);
    return ERROR ? scaled_error<V>(a, at, x, out, err) : 0.0f;
}

// Work: a thread owns V consecutive elements, a block 256 vectors. Without an error norm vectors
// are counted over the batch; with one a block stays inside a sample and leaves its partial sum.
// Limit: device memory.
template <typename P, bool WIDE, bool ERROR>
__global__ void __launch_bounds__(block_threads)
    update_kernel(const twk_update_args a, int64_t vectors, unsigned blocks_per_sample) {
    constexpr int V = per_16<P>;
    if constexpr (!ERROR) {
        const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
        if (index < a.batch * vectors)
            update_vector<P, WIDE, false, V>(a, place_of(index, vectors, a.elements, V),
                                             is_whole_warp(index, a.batch * vectors));
    } else {
        TW_SHARED(arena);
        float *scratch = arena.take<float>(32);
        const int64_t sample = blockIdx.x / blocks_per_sample;
        const int64_t in_sample =
            (int64_t)(blockIdx.x % blocks_per_sample) * block_threads + threadIdx.x;
        float sum = 0.0f;
        if (in_sample < vectors)
            sum = update_vector<P, WIDE, true, V>(
                a, place_of(sample * vectors + in_sample, vectors, a.elements, V),
                is_whole_warp(in_sample, vectors));
        sum = block_sum(sum, scratch);
        if (threadIdx.x == 0) static_cast<float *>(a.workspace)[blockIdx.x] = sum;
    }
}

// Work: a warp a sample, eight to a block; lanes stride over the partial sums.
// Limit: latency; there is next to nothing to read.
__global__ void __launch_bounds__(block_threads)
    error_norm_kernel(const float *partial, unsigned blocks_per_sample, int64_t batch,
                      int64_t elements, float *error) {
    const int64_t sample = (int64_t)blockIdx.x * (block_threads / 32) + threadIdx.x / 32;
    if (sample >= batch) return;
    float sum = 0.0f;
    for (unsigned i = threadIdx.x % 32; i < blocks_per_sample; i += 32)
        sum += partial[sample * blocks_per_sample + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) error[sample] = sqrtf(sum / (float)elements);
}

int64_t blocks_per_sample(int64_t elements) {
    return ceil_div<int64_t>(elements, 4 * block_threads); // enough for V = 4 and for V = 8
}

template <typename P> twk_status launch_update(const twk_update_args &a, twk_stream stream) {
    constexpr int V = per_16<P>;
    const int64_t vectors = ceil_div<int64_t>(a.elements, V);
    const int64_t per_sample = ceil_div<int64_t>(vectors, block_threads);
    const bool error = a.error_out != nullptr;
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    config.shared = error ? shared_bytes<float>(32) : 0;
    if (!grid_for(error ? a.batch * per_sample : a.batch * vectors, error ? 1 : block_threads,
                  &config.grid))
        return fail(TWK_BAD_ARGUMENT, "update: more elements than a grid can hold");
    const bool wide = a.elements % V == 0 && aligned_16(a.x) && aligned_16(a.x_out) &&
                      aligned_16(a.y_out) && aligned_16(a.p[0]) && aligned_16(a.p[1]) &&
                      aligned_16(a.h[0]) && aligned_16(a.h[1]) && aligned_16(a.h[2]) &&
                      aligned_16(a.variance);
    twk_status status = with_flag(wide, [&](auto w) {
        return with_flag(error, [&](auto e) {
            return TW_LAUNCH((update_kernel<P, decltype(w)::value, decltype(e)::value>), config, a,
                             vectors, (unsigned)per_sample);
        });
    });
    if (status != TWK_OK || !error) return status;
    config.grid = dim3((unsigned)ceil_div<int64_t>(a.batch, block_threads / 32));
    config.shared = 0;
    return TW_LAUNCH(error_norm_kernel, config, static_cast<const float *>(a.workspace),
                     (unsigned)per_sample, a.batch, a.elements, a.error_out);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_sampler_update_workspace(int64_t batch, int64_t elements) {
    if (total_of(batch, elements) < 0) return 0;
    return (size_t)(batch * blocks_per_sample(elements)) * sizeof(float);
}

extern "C" twk_status twk_sampler_update(const twk_update_args *args, twk_stream stream) {
    TW_REQUIRE(args, "update: no arguments");
    const twk_update_args &a = *args;
    TW_REQUIRE(total_of(a.batch, a.elements) > 0, "update: batch and elements must be positive");
    TW_REQUIRE(a.elements <= int64_t(1) << 34, "update: a sample has at most 2^34 elements");
    TW_REQUIRE(a.x && a.x_out, "update: x and x_out are needed");
    TW_REQUIRE(a.rows && a.n_rows > 0, "update: a table of coefficients is needed");
    TW_REQUIRE(!a.error_out ||
                   a.workspace_bytes >= twk_sampler_update_workspace(a.batch, a.elements),
               "update: the error norm needs more workspace");
    TW_REQUIRE(!a.error_out || a.workspace, "update: the error norm needs workspace");
    TW_REQUIRE(!a.error_out || (a.atol >= 0 && a.rtol >= 0 && a.atol + a.rtol > 0),
               "update: tolerances must not be negative, nor both zero");
    return with_format(a.p_format, [&](auto p) { return launch_update<decltype(p)>(a, stream); });
}
