// The gradient's norm over many tensors, and AdamW with an average of the weights: one pass.
#include "device/launch.cuh"
#include "device/math.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;
constexpr int64_t chunk_elements = 8192; // what a block takes of one tensor

// The tensor a chunk belongs to: the last one that begins at or before it.
TW_DEVICE twk_parameter parameter_of(const twk_adamw_args &a, int64_t chunk) {
    if (!a.parameters) return a.one;
    int low = 0, high = a.n_parameters - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (a.parameters[middle].first_chunk <= chunk)
            low = middle;
        else
            high = middle - 1;
    }
    return a.parameters[low];
}

template <typename T> TW_DEVICE bool is_aligned(const T *p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// Work: a block takes a chunk of a tensor, found by bisection, and leaves one sum of squares.
// Limit: device memory, one read of the gradients.
template <typename G>
__global__ void __launch_bounds__(block_threads)
    square_kernel(const twk_adamw_args a, float *partial) {
    constexpr int V = per_16<G>;
    TW_SHARED(arena);
    float *scratch = arena.take<float>(32);
    const twk_parameter p = parameter_of(a, blockIdx.x);
    const int64_t first = (blockIdx.x - p.first_chunk) * chunk_elements;
    const int64_t count = smaller(chunk_elements, p.n - first);
    const G *g = static_cast<const G *>(p.gradient) + first;
    const bool wide = is_aligned(g);
    float sum = 0.0f;
    for (int64_t i = (int64_t)threadIdx.x * V; i < count; i += block_threads * V) {
        float v[V];
        if (wide && i + V <= count)
            load<true>(g + i, V, v);
        else
            load<false>(g + i, (int)smaller<int64_t>(V, count - i), v);
#pragma unroll
        for (int k = 0; k < V; k++) sum += v[k] * v[k];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Work: one block adds the partial sums in float64. Limit: latency.
__global__ void __launch_bounds__(block_threads)
    norm_kernel(int64_t chunks, const float *partial, float *norm) {
    TW_SHARED(arena);
    double *scratch = arena.take<double>(32);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < chunks; i += block_threads) sum += (double)partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

// Work: one thread, for all. Limit: latency.
__global__ void decide_kernel(const twk_adamw_args a, twk_adamw_factors *factors) {
    const twk_adamw_hyper &h = *a.hyper;
    twk_adamw_factors &f = *factors;
    f.skip = !is_finite(*a.norm);
    if (f.skip) {
        a.count[1]++;
        return;
    }
    const double t = (double)(a.count[0] + 1), warm = t / (9.0 + t);
    f.gradient = h.max_norm > 0.0f && *a.norm > h.max_norm ? h.max_norm / *a.norm : 1.0f;
    f.m = (float)(1.0 / (1.0 - pow((double)h.beta1, t)));
    f.v = (float)(1.0 / (1.0 - pow((double)h.beta2, t)));
    const bool warming = h.ema_warmup != 0.0f && warm < (double)h.ema_decay;
    f.ema = (float)(1.0 - (warming ? warm : (double)h.ema_decay));
    a.count[0]++;
}

// One vector of a tensor: reads everything, then writes everything.
template <typename G, typename C, bool WIDE, int V>
TW_DEVICE void adamw_vector(const twk_parameter &p, const twk_adamw_hyper &h,
                            const twk_adamw_factors &f, int64_t at, int count, bool whole) {
    float g[V], w[V], m[V], v[V], e[V] = {};
    load<WIDE>(static_cast<const G *>(p.gradient) + at, count, g);
    load<WIDE>(p.master + at, count, w);
    load<WIDE>(p.m + at, count, m);
    load<WIDE>(p.v + at, count, v);
    if (p.ema) load<WIDE>(p.ema + at, count, e);
    const float shrink = 1.0f - h.lr * (h.decay + p.decay);
#pragma unroll
    for (int i = 0; i < V; i++) {
        const float gradient = g[i] * f.gradient;
        m[i] += (1.0f - h.beta1) * (gradient - m[i]);
        v[i] = h.beta2 * v[i] + (1.0f - h.beta2) * gradient * gradient;
        const float size = sqrtf(v[i] * f.v) + h.epsilon;
        w[i] = w[i] * shrink - h.lr * (m[i] * f.m) / size;
        e[i] += f.ema * (w[i] - e[i]);
    }
    store_warp<WIDE>(p.master + at, count, w, whole);
    store_warp<WIDE>(p.m + at, count, m, whole);
    store_warp<WIDE>(p.v + at, count, v, whole);
    if (p.ema) store_warp<WIDE>(p.ema + at, count, e, whole);
    if (p.copy) store_warp<WIDE>(static_cast<C *>(p.copy) + at, count, w, whole);
}

// Work: a block takes a chunk of a tensor, found by bisection; a thread owns 16 bytes of the
// narrowest format at a time. Limit: device memory, 38 bytes a parameter with fp32 gradients, an
// EMA and a 16-bit copy.
template <typename G, typename C>
__global__ void __launch_bounds__(block_threads, 2)
    adamw_kernel(const twk_adamw_args a, const twk_adamw_factors *factors) {
    constexpr int V = larger(per_16<C>, per_16<G>);
    const twk_adamw_factors f = *factors;
    if (f.skip) return;
    const twk_adamw_hyper h = *a.hyper;
    const twk_parameter p = parameter_of(a, blockIdx.x);
    const int64_t first = (blockIdx.x - p.first_chunk) * chunk_elements;
    const int64_t end = smaller(first + chunk_elements, p.n);
    const bool wide = is_aligned(p.master) && is_aligned(p.m) && is_aligned(p.v) &&
                      is_aligned(p.ema) && is_aligned(static_cast<const char *>(p.gradient)) &&
                      is_aligned(static_cast<const char *>(p.copy));
    for (int64_t i = first + (int64_t)threadIdx.x * V; i < end; i += block_threads * V) {
        const bool whole = i + (int64_t)(32 - threadIdx.x % 32) * V <= end;
        if (wide && i + V <= end)
            adamw_vector<G, C, true, V>(p, h, f, i, V, whole);
        else
            adamw_vector<G, C, false, V>(p, h, f, i, (int)smaller<int64_t>(V, end - i), false);
    }
}

// What both launches ask for; a table of one is planned here.
twk_status check(twk_adamw_args *a) {
    if (!a->parameters) {
        a->n_parameters = 1;
        a->n_chunks = twk_adamw_plan(&a->one, 1);
    }
    TW_REQUIRE(a->n_parameters > 0, "adamw: parameters are needed");
    TW_REQUIRE(a->n_chunks > 0 && a->n_chunks <= 0x7fffffff,
               "adamw: the plan's chunks are needed, fewer than 2^31");
    TW_REQUIRE(a->norm, "adamw: a place for the norm is needed");
    TW_REQUIRE(a->workspace && a->workspace_bytes >= twk_adamw_workspace(a->n_chunks),
               "adamw: needs more workspace");
    return TWK_OK;
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" int64_t twk_adamw_plan(twk_parameter *parameters, int32_t n) {
    if (!parameters || n < 1) return -1;
    int64_t chunks = 0;
    for (int32_t i = 0; i < n; i++) {
        if (parameters[i].n < 1) return -1;
        parameters[i].first_chunk = chunks;
        chunks += ceil_div(parameters[i].n, chunk_elements);
    }
    return chunks;
}

extern "C" size_t twk_adamw_workspace(int64_t n_chunks) {
    return n_chunks > 0 ? larger((size_t)n_chunks * sizeof(float), sizeof(twk_adamw_factors)) : 0;
}

extern "C" twk_status twk_gradient_norm(const twk_adamw_args *args, twk_stream stream) {
    TW_REQUIRE(args, "adamw: no arguments");
    twk_adamw_args a = *args;
    twk_status status = check(&a);
    if (status != TWK_OK) return status;
    TW_REQUIRE(a.parameters || a.one.gradient, "adamw: a gradient is needed");
    float *partial = static_cast<float *>(a.workspace);
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    config.grid = dim3((unsigned)a.n_chunks);
    config.shared = shared_bytes<float>(32);
    status = with_format(a.gradient_format, [&](auto g) {
        return TW_LAUNCH((square_kernel<decltype(g)>), config, a, partial);
    });
    if (status != TWK_OK) return status;
    config.grid = dim3(1);
    config.shared = shared_bytes<double>(32);
    return TW_LAUNCH(norm_kernel, config, a.n_chunks, static_cast<const float *>(partial), a.norm);
}

extern "C" twk_status twk_adamw(const twk_adamw_args *args, twk_stream stream) {
    TW_REQUIRE(args, "adamw: no arguments");
    twk_adamw_args a = *args;
    twk_status status = check(&a);
    if (status != TWK_OK) return status;
    const twk_parameter &p = a.one;
    TW_REQUIRE(a.parameters || (p.gradient && p.master && p.m && p.v),
               "adamw: gradient, weights and moments are needed");
    TW_REQUIRE(a.hyper && a.count, "adamw: hyperparameters and counts are needed");
    twk_adamw_factors *factors = static_cast<twk_adamw_factors *>(a.workspace);
    LaunchConfig config;
    config.stream = stream;
    config.block = dim3(1);
    status = TW_LAUNCH(decide_kernel, config, a, factors);
    if (status != TWK_OK) return status;
    config.block = dim3(block_threads);
    config.grid = dim3((unsigned)a.n_chunks);
    return with_format(a.gradient_format, [&](auto g) {
        return with_format(a.copy_format, [&](auto c) {
            return TW_LAUNCH((adamw_kernel<decltype(g), decltype(c)>), config, a,
                             static_cast<const twk_adamw_factors *>(factors));
        });
    });
}
