// What a step draws beside noise (times, dropped labels, mirrored images), and what it reads of its
// own state. Small ones: a launch each, or part of the step's graph.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// Work: a thread a sample, a block 256 of them. Limit: the launch.
__global__ void __launch_bounds__(block_threads) times_kernel(const twk_times_args a) {
    const int64_t n = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (n >= a.batch) return;
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    const uint64_t sample = sample_of(a.noise, n);
    const bool mirrored = a.antithetic && sample % 2;
    const Noise noise =
        make_noise(seed_of(a.noise), mirrored ? sample - 1 : sample, TWK_NOISE_TRAIN_T, step);
    const uint64_t word = noise_words(noise, 0).w[0];
    const int64_t t = (int64_t)(word * (uint64_t)a.steps >> 32);
    a.out[n] = (int32_t)(mirrored ? a.steps - 1 - t : t);
}

// Work: a thread a sample, a block 256 of them. Limit: the launch.
__global__ void __launch_bounds__(block_threads) drop_kernel(const twk_drop_labels_args a) {
    const int64_t n = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (n >= a.batch) return;
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    const Noise noise = make_noise(a.noise, n, TWK_NOISE_COND_DROP, step);
    const bool drop = uniform(noise_words(noise, 0).w[0]) < a.probability;
    a.out[n] = drop ? a.null_label : a.label[n];
}

// Work: a thread moves one vector (16 bytes when WIDE, else one element) of a pixel, a block 256.
// Limit: device memory; the generator is asked once a thread.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    mirror_kernel(const twk_mirror_args a, int64_t vectors) {
    constexpr int V = WIDE ? per_16<T> : 1;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    const int64_t pixels = a.h * a.w;
    if (index >= a.batch * pixels * vectors) return;
    const Place at = place_of(index, vectors, a.channels, V); // a "sample" is a pixel
    const int64_t n = quotient(at.sample, pixels);
    const int64_t x = at.sample - quotient(at.sample, a.w) * a.w;
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    const Noise noise = make_noise(a.noise, n, TWK_NOISE_FLIP, step);
    const bool mirrored = uniform(noise_words(noise, 0).w[0]) < a.probability;
    const int64_t from = at.at + (mirrored ? (a.w - 1 - 2 * x) * a.channels : 0);
    const T *in = static_cast<const T *>(a.x) + from;
    T *out = static_cast<T *>(a.y) + at.at;
    if constexpr (WIDE)
        write_16(out, read_16(in));
    else
        *out = *in;
}

// Work: a thread an entry, a block 256 of them. Limit: the launch.
__global__ void __launch_bounds__(block_threads)
    entry_kernel(const float *table, int64_t rows, int64_t width, int64_t column,
                 const uint32_t *counter, int64_t n, float *out) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at >= n) return;
    const int64_t row = *counter;
    out[at] = row < rows ? table[row * width + column] : NAN;
}

// Work: a thread a number, a block 256 of them. Limit: the launch.
__global__ void __launch_bounds__(block_threads)
    real_kernel(int64_t n, const int32_t *in, float *out) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at < n) out[at] = (float)in[at];
}

// Work: a thread a number, a block 256 of them. Limit: the launch.
__global__ void __launch_bounds__(block_threads)
    whole_kernel(int64_t n, const float *in, int32_t *out) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at >= n) return;
    const float x = in[at];
    out[at] = x != x               ? 0
              : x >= 2147483648.0f ? INT32_MAX
              : x < -2147483648.0f ? INT32_MIN
                                   : (int32_t)x;
}

bool grid_of(int64_t count, twk_stream stream, LaunchConfig *config) {
    config->block = dim3(block_threads);
    config->stream = stream;
    return grid_for(count, block_threads, &config->grid);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_draw_times(const twk_times_args *args, twk_stream stream) {
    TW_REQUIRE(args, "times: no arguments");
    TW_REQUIRE(args->batch > 0 && args->out, "times: an output is needed");
    TW_REQUIRE(args->steps > 0 && args->steps <= INT32_MAX, "times: 1 to 2^31 - 1 steps");
    LaunchConfig config;
    if (!grid_of(args->batch, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "times: more samples than a grid can hold");
    return TW_LAUNCH(times_kernel, config, *args);
}

extern "C" twk_status twk_drop_labels(const twk_drop_labels_args *args, twk_stream stream) {
    TW_REQUIRE(args, "drop labels: no arguments");
    TW_REQUIRE(args->batch > 0 && args->label && args->out,
               "drop labels: labels and output are needed");
    LaunchConfig config;
    if (!grid_of(args->batch, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "drop labels: more samples than a grid can hold");
    return TW_LAUNCH(drop_kernel, config, *args);
}

extern "C" twk_status twk_mirror(const twk_mirror_args *args, twk_stream stream) {
    TW_REQUIRE(args, "mirror: no arguments");
    const twk_mirror_args &a = *args;
    const int64_t rows = total_of(a.batch, a.h);
    TW_REQUIRE(rows > 0 && total_of(rows, a.w) > 0 && total_of(rows * a.w, a.channels) > 0,
               "mirror: sizes must be positive");
    TW_REQUIRE(a.x && a.y && a.x != a.y, "mirror: an input and another output are needed");
    return with_format(a.format, [&](auto t) {
        using T = decltype(t);
        const bool wide = a.channels % per_16<T> == 0 && aligned_16(a.x) && aligned_16(a.y);
        const int64_t vectors = wide ? a.channels / per_16<T> : a.channels;
        LaunchConfig config;
        if (!grid_of(rows * a.w * vectors, stream, &config))
            return fail(TWK_BAD_ARGUMENT, "mirror: more elements than a grid can hold");
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((mirror_kernel<T, decltype(w)::value>), config, a, vectors);
        });
    });
}

extern "C" twk_status twk_table_entry(const float *table, int64_t rows, int64_t width,
                                      int64_t column, const uint32_t *counter, int64_t n,
                                      float *out, twk_stream stream) {
    TW_REQUIRE(table && counter && out && n > 0, "table: table, counter and output are needed");
    TW_REQUIRE(rows > 0 && column >= 0 && column < width, "table: there is no such column");
    LaunchConfig config;
    if (!grid_of(n, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "table: more elements than a grid can hold");
    return TW_LAUNCH(entry_kernel, config, table, rows, width, column, counter, n, out);
}

extern "C" twk_status twk_int_to_real(int64_t n, const int32_t *in, float *out, twk_stream stream) {
    TW_REQUIRE(n > 0 && in && out, "numbers: input and output are needed");
    LaunchConfig config;
    if (!grid_of(n, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "numbers: more elements than a grid can hold");
    return TW_LAUNCH(real_kernel, config, n, in, out);
}

extern "C" twk_status twk_real_to_int(int64_t n, const float *in, int32_t *out, twk_stream stream) {
    TW_REQUIRE(n > 0 && in && out, "numbers: input and output are needed");
    LaunchConfig config;
    if (!grid_of(n, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "numbers: more elements than a grid can hold");
    return TW_LAUNCH(whole_kernel, config, n, in, out);
}
