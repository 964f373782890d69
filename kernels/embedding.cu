// Class and time embeddings.
#include "device/launch.cuh"
#include "device/math.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// Work: a thread copies one element, a block 256 of them; neighbours share a row.
// Limit: the launch; a batch of embeddings is small.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    gather_kernel(int64_t n, int64_t rows, int64_t width, const T *table, const int32_t *index,
                  T *out) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at >= n * width) return;
    const int64_t row = index[at / width];
    out[at] = row >= 0 && row < rows ? table[row * width + at % width] : from_float<T>(NAN);
}

// Work: a thread owns one element of the table and walks through the batch in order, so that the
// sum is the same every time; the indices come from the cache.
// Limit: latency of the walk; no atomics by design.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    gather_backward_kernel(int64_t n, int64_t rows, int64_t width, const T *dout,
                           const int32_t *index, float *dtable) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at >= rows * width) return;
    const int64_t row = at / width, column = at % width;
    float sum = 0.0f;
    bool any = false;
    for (int64_t i = 0; i < n; i++) {
        if (index[i] != row) continue;
        sum += to_float(dout[i * width + column]);
        any = true;
    }
    if (any) dtable[at] += sum;
}

// Work: a thread makes one element, a block 256 of them. Limit: the launch.
template <typename T>
__global__ void __launch_bounds__(block_threads) time_kernel(const twk_time_embedding_args a) {
    const int64_t at = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (at >= a.batch * a.width) return;
    const int64_t n = at / a.width;
    const int column = (int)(at % a.width), half = a.width / 2;
    if (column >= 2 * half) {
        static_cast<T *>(a.out)[at] = from_float<T>(0.0f);
        return;
    }
    const int i = column % half;
    const bool sine = (column < half) != (a.cosine_first != 0);
    const float time = a.t[a.counter ? (int64_t)*a.counter : n];
    const float t = a.log_time ? logf(time) : time;
    // Whole turns are taken off before pi comes in: the angle may be large. In float32 the rate's
    // exponent alone would cost two digits of it.
    float turns;
    if (a.weights) {
        turns = t * a.weights[i];
        turns -= floorf(turns);
    } else {
        const double rate = exp(-log((double)a.max_period) * i / (half - (double)a.shift));
        const double all = (double)a.scale * t * rate * 0.15915494309189535;
        turns = (float)(all - floor(all));
    }
    float s, c;
    sin_cos_pi(2.0f * turns, &s, &c);
    static_cast<T *>(a.out)[at] = from_float<T>(sine ? s : c);
}

bool grid_of(int64_t count, twk_stream stream, LaunchConfig *config) {
    config->block = dim3(block_threads);
    config->stream = stream;
    return grid_for(count, block_threads, &config->grid);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_embedding(twk_format format, int64_t n, int64_t rows, int64_t width,
                                    const void *table, const int32_t *index, void *out,
                                    twk_stream stream) {
    TW_REQUIRE(total_of(n, width) > 0 && total_of(rows, width) > 0,
               "embedding: sizes must be positive");
    TW_REQUIRE(table && index && out, "embedding: table, index and output are needed");
    LaunchConfig config;
    if (!grid_of(n * width, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "embedding: more elements than a grid can hold");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        return TW_LAUNCH((gather_kernel<T>), config, n, rows, width, static_cast<const T *>(table),
                         index, static_cast<T *>(out));
    });
}

extern "C" twk_status twk_embedding_backward(twk_format format, int64_t n, int64_t rows,
                                             int64_t width, const void *dout, const int32_t *index,
                                             float *dtable, twk_stream stream) {
    TW_REQUIRE(total_of(n, width) > 0 && total_of(rows, width) > 0,
               "embedding: sizes must be positive");
    TW_REQUIRE(dout && index && dtable, "embedding: gradient, index and output are needed");
    LaunchConfig config;
    if (!grid_of(rows * width, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "embedding: more elements than a grid can hold");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        return TW_LAUNCH((gather_backward_kernel<T>), config, n, rows, width,
                         static_cast<const T *>(dout), index, dtable);
    });
}

extern "C" twk_status twk_time_embedding(const twk_time_embedding_args *args, twk_stream stream) {
    TW_REQUIRE(args, "time embedding: no arguments");
    const twk_time_embedding_args &a = *args;
    TW_REQUIRE(a.width >= 2 && total_of(a.batch, a.width) > 0,
               "time embedding: batch must be positive and width at least 2");
    TW_REQUIRE(a.t && a.out, "time embedding: times and output are needed");
    TW_REQUIRE(a.weights || !a.log_time, "time embedding: the logarithm is Fourier's only");
    TW_REQUIRE(a.weights || (a.max_period > 1 && a.shift < (float)(a.width / 2)),
               "time embedding: max_period must exceed 1 and shift stay below half the width");
    LaunchConfig config;
    if (!grid_of(a.batch * a.width, stream, &config))
        return fail(TWK_BAD_ARGUMENT, "time embedding: more elements than a grid can hold");
    return with_format(a.format,
                       [&](auto t) { return TW_LAUNCH((time_kernel<decltype(t)>), config, a); });
}
