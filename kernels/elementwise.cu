// Activations, sums and dropout: one element in, one element out.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

template <bool WIDE, int V, typename T>
TW_DEVICE void load_some(const T *p, int count, float (&v)[V]) {
    if (WIDE && count == V)
        load<WIDE>(p, V, v);
    else
        load<false>(p, count, v);
}
template <bool WIDE, int V, typename T>
TW_DEVICE void store_some(T *p, int count, const float (&v)[V]) {
    if (WIDE && count == V)
        store<WIDE>(p, V, v);
    else
        store<false>(p, count, v);
}

struct Forward {
    twk_activation f;
    TW_DEVICE float operator()(float x, float) const {
        return f == TWK_SILU ? silu(x) : f == TWK_RELU ? (x < 0.0f ? 0.0f : x) : gelu(x);
    }
};
struct Backward {
    twk_activation f;
    TW_DEVICE float operator()(float x, float dy) const {
        if (f == TWK_RELU) return x > 0.0f ? dy : 0.0f;
        return dy * (f == TWK_SILU ? silu_slope(x) : gelu_slope(x));
    }
};
struct Combine {
    float ca, cb;
    TW_DEVICE float operator()(float a, float b) const { return ca * a + cb * b; }
};

// Work: a thread owns 16 bytes of each tensor, a block 256 such vectors. A missing b counts as 1.
// Limit: device memory; in 16-bit formats GELU comes near the arithmetic's.
template <typename T, bool WIDE, typename F>
__global__ void __launch_bounds__(block_threads)
    map_kernel(int64_t n, const T *a, const T *b, T *out, F f) {
    constexpr int V = per_16<T>;
    const int64_t first = ((int64_t)blockIdx.x * block_threads + threadIdx.x) * V;
    if (first >= n) return;
    const int count = (int)smaller<int64_t>(V, n - first);
    float x[V], y[V];
    load_some<WIDE>(a + first, count, x);
#pragma unroll
    for (int i = 0; i < V; i++) y[i] = 1.0f;
    if (b) load_some<WIDE>(b + first, count, y);
#pragma unroll
    for (int i = 0; i < V; i++) x[i] = f(x[i], y[i]);
    store_some<WIDE>(out + first, count, x);
}

// Work: a thread owns 16 bytes of one pixel's channels, a block 256 such vectors.
// Limit: device memory.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    add_vector_kernel(int64_t rows, int64_t pixels, int64_t channels, int64_t vectors, const T *x,
                      const T *v, int64_t v_stride, T *y) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= rows * vectors) return;
    const Place at = place_of(index, vectors, channels, V); // a "sample" is a pixel here
    float a[V], b[V];
    load<WIDE>(x + at.at, at.count, a);
    load<WIDE>(v + quotient(at.sample, pixels) * v_stride + at.first, at.count, b);
#pragma unroll
    for (int i = 0; i < V; i++) a[i] += b[i];
    store<WIDE>(y + at.at, at.count, a);
}

// Work: a thread owns V consecutive elements of one sample, a block 256 vectors of the batch.
// Limit: device memory.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    scale_samples_kernel(int64_t batch, int64_t elements, int64_t vectors, const T *x,
                         const float *s, bool divide, T *y) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= batch * vectors) return;
    const Place at = place_of(index, vectors, elements, V);
    const float factor = s[at.sample];
    float v[V];
    load<WIDE>(x + at.at, at.count, v);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = divide ? v[i] / factor : v[i] * factor;
    store<WIDE>(y + at.at, at.count, v);
}

// Work: a thread writes 16 bytes, a block 256 such vectors. Limit: device memory.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads) fill_kernel(int64_t n, float value, T *out) {
    constexpr int V = per_16<T>;
    const int64_t first = ((int64_t)blockIdx.x * block_threads + threadIdx.x) * V;
    if (first >= n) return;
    float v[V];
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = value;
    store_some<WIDE>(out + first, (int)smaller<int64_t>(V, n - first), v);
}

// Work: a thread owns V consecutive elements of one sample, a block 256 vectors of the batch.
// Limit: device memory in fp32, the integer units (Philox) in 16-bit formats.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    dropout_kernel(const twk_dropout_args a, int64_t vectors) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * vectors) return;
    const Place at = place_of(index, vectors, a.elements, V);
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    const Noise noise = make_noise(a.noise, at.sample, TWK_NOISE_DROPOUT + a.layer, step);
    float x[V];
    load<WIDE>(static_cast<const T *>(a.x) + at.at, at.count, x);
    const float keep = 1.0f / (1.0f - a.probability);
#pragma unroll
    for (int q = 0; q < V / 4; q++) {
        const Words4 w = noise_words(noise, (uint32_t)(at.first / 4) + (uint32_t)q);
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[4 * q + i] = uniform(w.w[i]) < a.probability ? 0.0f : x[4 * q + i] * keep;
    }
    store<WIDE>(static_cast<T *>(a.y) + at.at, at.count, x);
}

template <typename F>
twk_status launch_map(twk_format format, int64_t n, const void *a, const void *b, void *out, F f,
                      twk_stream stream) {
    TW_REQUIRE(n > 0, "elementwise: the number of elements must be positive");
    TW_REQUIRE(a && out, "elementwise: input and output are needed");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(n, block_threads * per_16<T>, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "elementwise: more elements than a grid can hold");
        return with_flag(aligned_16(a) && aligned_16(b) && aligned_16(out), [&](auto w) {
            return TW_LAUNCH((map_kernel<T, decltype(w)::value, F>), config, n,
                             static_cast<const T *>(a), static_cast<const T *>(b),
                             static_cast<T *>(out), f);
        });
    });
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_activation_forward(twk_activation f, twk_format format, int64_t n,
                                             const void *x, void *y, twk_stream stream) {
    TW_REQUIRE((unsigned)f <= TWK_GELU, "activation: unknown function");
    return launch_map(format, n, x, nullptr, y, Forward{f}, stream);
}

extern "C" twk_status twk_activation_backward(twk_activation f, twk_format format, int64_t n,
                                              const void *x, const void *dy, void *dx,
                                              twk_stream stream) {
    TW_REQUIRE((unsigned)f <= TWK_GELU, "activation: unknown function");
    TW_REQUIRE(dy, "activation: dy is needed");
    return launch_map(format, n, x, dy, dx, Backward{f}, stream);
}

extern "C" twk_status twk_add(twk_format format, int64_t n, float ca, const void *a, float cb,
                              const void *b, void *y, twk_stream stream) {
    return launch_map(format, n, a, b, y, Combine{ca, cb}, stream);
}

extern "C" twk_status twk_add_vector(twk_format format, int64_t batch, int64_t pixels,
                                     int64_t channels, const void *x, const void *v,
                                     int64_t v_stride, void *y, twk_stream stream) {
    const int64_t rows = total_of(batch, pixels);
    TW_REQUIRE(rows > 0 && total_of(rows, channels) > 0, "add vector: sizes must be positive");
    TW_REQUIRE(x && v && y, "add vector: inputs and output are needed");
    TW_REQUIRE(v_stride == 0 || v_stride >= channels, "add vector: rows of v overlap");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        const int64_t vectors = ceil_div<int64_t>(channels, per_16<T>);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(rows * vectors, block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "add vector: more elements than a grid can hold");
        const bool wide = channels % per_16<T> == 0 && v_stride % per_16<T> == 0 && aligned_16(x) &&
                          aligned_16(v) && aligned_16(y);
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((add_vector_kernel<T, decltype(w)::value>), config, rows, pixels,
                             channels, vectors, static_cast<const T *>(x),
                             static_cast<const T *>(v), v_stride, static_cast<T *>(y));
        });
    });
}

extern "C" twk_status twk_scale_samples(twk_format format, int64_t batch, int64_t elements,
                                        const void *x, const float *s, int divide, void *y,
                                        twk_stream stream) {
    TW_REQUIRE(total_of(batch, elements) > 0, "scale samples: sizes must be positive");
    TW_REQUIRE(x && s && y, "scale samples: inputs and output are needed");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        const int64_t vectors = ceil_div<int64_t>(elements, per_16<T>);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(batch * vectors, block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "scale samples: more elements than a grid can hold");
        const bool wide = elements % per_16<T> == 0 && aligned_16(x) && aligned_16(y);
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((scale_samples_kernel<T, decltype(w)::value>), config, batch, elements,
                             vectors, static_cast<const T *>(x), s, divide != 0,
                             static_cast<T *>(y));
        });
    });
}

extern "C" twk_status twk_constant(twk_format format, int64_t n, float value, void *out,
                                   twk_stream stream) {
    TW_REQUIRE(n > 0 && out, "fill: an output is needed");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(n, block_threads * per_16<T>, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "fill: more elements than a grid can hold");
        return with_flag(aligned_16(out), [&](auto w) {
            return TW_LAUNCH((fill_kernel<T, decltype(w)::value>), config, n, value,
                             static_cast<T *>(out));
        });
    });
}

extern "C" twk_status twk_dropout(const twk_dropout_args *args, twk_stream stream) {
    TW_REQUIRE(args, "dropout: no arguments");
    const twk_dropout_args &a = *args;
    TW_REQUIRE(total_of(a.batch, a.elements) > 0, "dropout: batch and elements must be positive");
    TW_REQUIRE(a.elements <= int64_t(1) << 34, "dropout: a sample has at most 2^34 elements");
    TW_REQUIRE(a.x && a.y, "dropout: input and output are needed");
    TW_REQUIRE(a.probability >= 0 && a.probability < 1, "dropout: probability lies in [0, 1)");
    TW_REQUIRE(a.layer < 0x8000, "dropout: layers count up to 0x7fff");
    return with_format(a.format, [&](auto t) {
        using T = decltype(t);
        const int64_t vectors = ceil_div<int64_t>(a.elements, per_16<T>);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(a.batch * vectors, block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "dropout: more elements than a grid can hold");
        const bool wide = a.elements % per_16<T> == 0 && aligned_16(a.x) && aligned_16(a.y);
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((dropout_kernel<T, decltype(w)::value>), config, a, vectors);
        });
    });
}
