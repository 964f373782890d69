// The fused DDIM update: one read of each input, one write of each output, noise in registers.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"

#include "ddim.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// x_p of V elements from x and the guided prediction m; x0 is left in x0.
template <int V>
TW_DEVICE void step_elements(const twk_ddim_args &a, const DdimStep &s, float threshold, float *x,
                             const float *m, float *x0) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        float e;
        predict(s, a.prediction, x[i], m[i], &x0[i], &e);
        if (a.clip_mode != TWK_CLIP_NONE) {
            x0[i] = clamp_to(x0[i], threshold);
            if (a.clip_mode == TWK_CLIP_DYNAMIC) x0[i] = x0[i] / threshold;
            if (a.rederive_epsilon) e = (x[i] - s.sqrt_a_t * x0[i]) * s.inv_sqrt_b_t;
        }
        x[i] = s.sqrt_a_p * x0[i] + s.direction * e;
    }
}

// Where the mask is 1: the known image, noised to the level of p.
template <typename X, int V>
TW_DEVICE void blend_known(const twk_ddim_args &a, const DdimStep &s, const Place &at, float *x) {
    float z[V];
    normals<V>(make_noise(a.noise, at.sample, TWK_NOISE_INPAINT, s.noise_step), at.first, z);
    const X *known = static_cast<const X *>(a.known) + (a.known_batched ? at.at : at.first);
    const int64_t width = a.mask_per_element ? a.elements : a.elements / a.channels;
    const float *mask = a.mask + (a.mask_batched ? at.sample * width : 0);
#pragma unroll
    for (int i = 0; i < V; i++) {
        if (i >= at.count) break;
        const int64_t e = at.first + i;
        const float k = mask[a.mask_per_element ? e : quotient(e, a.channels)];
        const float there = s.sqrt_a_p * to_float(known[i]) + s.sqrt_b_p * z[i];
        x[i] = k * there + (1.0f - k) * x[i];
    }
}

// Work: a thread owns V consecutive elements of one sample (V = 8 for 16-bit predictions, else 4),
// a block 256 such vectors; vectors are counted over the whole batch.
// Limit: device memory; with noise in a 16-bit format also the integer and special function units.
template <typename X, typename M, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    ddim_kernel(const twk_ddim_args a, int64_t vectors) {
    constexpr int V = per_16<M>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * vectors) return;
    const Place at = place_of(index, vectors, a.elements, V);
    // All reads are on their way before the first result is needed.
    float x[V], m[V], x0[V];
    load<WIDE>(static_cast<const X *>(a.x) + at.at, at.count, x);
    load<WIDE>(static_cast<const M *>(a.m) + at.at, at.count, m);
    if (a.m_uncond) {
        float u[V];
        load<WIDE>(static_cast<const M *>(a.m_uncond) + at.at, at.count, u);
#pragma unroll
        for (int i = 0; i < V; i++) m[i] = u[i] + a.guidance * (m[i] - u[i]);
    }
    const DdimStep s = ddim_step(a, at.sample);
    const float threshold = a.clip_mode == TWK_CLIP_DYNAMIC ? a.threshold[at.sample] : a.clip;
    step_elements<V>(a, s, threshold, x, m, x0);
    const bool whole = is_whole_warp(index, a.batch * vectors);
    if (a.x0_out) store_warp<WIDE>(static_cast<X *>(a.x0_out) + at.at, at.count, x0, whole);
    if (s.sigma > 0.0f) {
        float z[V];
        normals<V>(make_noise(a.noise, at.sample, TWK_NOISE_SAMPLER, s.noise_step), at.first, z);
#pragma unroll
        for (int i = 0; i < V; i++) x[i] += s.sigma * z[i];
    }
    if (a.mask) blend_known<X, V>(a, s, at, x);
    store_warp<WIDE>(static_cast<X *>(a.x_out) + at.at, at.count, x, whole);
}

template <typename X, typename M>
twk_status launch_ddim(const twk_ddim_args &a, twk_stream stream) {
    constexpr int V = per_16<M>;
    const int64_t vectors = ceil_div<int64_t>(a.elements, V);
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    if (!grid_for(a.batch * vectors, block_threads, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "ddim: more elements than a grid can hold");
    const bool wide = a.elements % V == 0 && aligned_16(a.x) && aligned_16(a.x_out) &&
                      aligned_16(a.x0_out) && aligned_16(a.m) && aligned_16(a.m_uncond);
    return with_flag(wide, [&](auto w) {
        return TW_LAUNCH((ddim_kernel<X, M, decltype(w)::value>), config, a, vectors);
    });
}

} // namespace

twk_status check_ddim(const twk_ddim_args *a) {
    TW_REQUIRE(a, "ddim: no arguments");
    TW_REQUIRE(total_of(a->batch, a->elements) > 0, "ddim: batch and elements must be positive");
    TW_REQUIRE(a->elements <= int64_t(1) << 34, "ddim: a sample has at most 2^34 elements");
    TW_REQUIRE(is_format(a->x_format) && is_format(a->m_format),
               "ddim: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(a->x_format == TWK_F32 || a->x_format == a->m_format,
               "ddim: the state is fp32 or in the prediction's format");
    TW_REQUIRE(a->x && a->m, "ddim: x and m are needed");
    TW_REQUIRE((unsigned)a->prediction <= TWK_PREDICT_SCORE, "ddim: unknown prediction");
    TW_REQUIRE(a->rows && a->n_rows > 0, "ddim: a table of coefficients is needed");
    return TWK_OK;
}

} // namespace tw

using namespace tw;

extern "C" twk_status twk_ddim_update(const twk_ddim_args *args, twk_stream stream) {
    const twk_status status = check_ddim(args);
    if (status != TWK_OK) return status;
    const twk_ddim_args &a = *args;
    TW_REQUIRE(a.x_out, "ddim: x_out is needed");
    TW_REQUIRE((unsigned)a.clip_mode <= TWK_CLIP_DYNAMIC, "ddim: unknown way of clipping");
    TW_REQUIRE(a.clip_mode != TWK_CLIP_FIXED || a.clip > 0, "ddim: clip must be positive");
    TW_REQUIRE(a.clip_mode != TWK_CLIP_DYNAMIC || a.threshold, "ddim: thresholds are needed");
    TW_REQUIRE(!a.mask == !a.known, "ddim: mask and known image come together");
    TW_REQUIRE(!a.mask || a.mask_per_element || (a.channels > 0 && a.elements % a.channels == 0),
               "ddim: the mask needs the number of channels");
    return with_format(a.m_format, [&](auto m) {
        using M = decltype(m);
        return a.x_format == TWK_F32 ? launch_ddim<float, M>(a, stream)
                                     : launch_ddim<M, M>(a, stream);
    });
}
