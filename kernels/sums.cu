// The training loss and sums over pixels. Both leave partial sums in the workspace and add those in
// a fixed order.
#include "device/launch.cuh"
#include "device/math.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;
constexpr int64_t mse_chunk = 8192;         // elements of a sample that a block takes
constexpr int64_t column_bytes = 64 * 1024; // of x that a block of the column sums reads

// Work: a block takes a chunk of one sample, threads stride over vectors of V; leaves one sum of
// squares a block. Limit: device memory, both inputs read and the gradient written once.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    mse_kernel(const twk_mse_args a, int64_t chunks, float *partial) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    float *scratch = arena.take<float>(32);
    const int64_t n = blockIdx.x / chunks, first = blockIdx.x % chunks * mse_chunk;
    const int64_t count = smaller(mse_chunk, a.elements - first), base = n * a.elements + first;
    const float weight = a.weight ? a.weight[n] : 1.0f;
    const float upper = a.device_gradient_scale ? *a.device_gradient_scale : a.gradient_scale;
    const float scale = 2.0f * upper * weight / ((float)a.batch * (float)a.elements);
    float sum = 0.0f;
    for (int64_t i = (int64_t)threadIdx.x * V; i < count; i += block_threads * V) {
        const int here = (int)smaller<int64_t>(V, count - i);
        float p[V], t[V];
        load<WIDE>(static_cast<const T *>(a.p) + base + i, here, p);
        load<WIDE>(a.target + base + i, here, t);
#pragma unroll
        for (int k = 0; k < V; k++) {
            p[k] -= t[k];
            sum += p[k] * p[k];
            p[k] *= scale;
        }
        if (a.dp) store<WIDE>(static_cast<T *>(a.dp) + base + i, here, p);
    }
    if (!partial) return; // the gradient alone
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Work: a warp a sample, eight to a block. Limit: latency.
__global__ void __launch_bounds__(block_threads)
    sample_loss_kernel(const twk_mse_args a, int64_t chunks, const float *partial) {
    const int64_t n = (int64_t)blockIdx.x * (block_threads / 32) + threadIdx.x / 32;
    if (n >= a.batch) return;
    float sum = 0.0f;
    for (int64_t i = threadIdx.x % 32; i < chunks; i += 32) sum += partial[n * chunks + i];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0)
        a.sample_loss[n] = (a.weight ? a.weight[n] : 1.0f) * sum / (float)a.elements;
}

// Work: one block, threads stride over the samples. Limit: latency.
__global__ void __launch_bounds__(block_threads) mean_loss_kernel(const twk_mse_args a) {
    TW_SHARED(arena);
    float *scratch = arena.take<float>(32);
    float sum = 0.0f;
    for (int64_t n = threadIdx.x; n < a.batch; n += block_threads) sum += a.sample_loss[n];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *a.loss = sum / (float)a.batch;
}

struct Walk {
    int lanes, rows;
    int64_t tiles, chunk, chunks;
};

template <typename T> Walk column_walk(int64_t pixels, int64_t channels) {
    Walk w;
    const int64_t vectors = ceil_div<int64_t>(channels, per_16<T>);
    w.lanes = (int)smaller<int64_t>(vectors, block_threads);
    w.rows = block_threads / w.lanes;
    w.tiles = ceil_div<int64_t>(vectors, w.lanes);
    const int64_t row_bytes = (int64_t)w.lanes * 16;
    w.chunk = smaller(pixels, larger<int64_t>(column_bytes / row_bytes, w.rows));
    w.chunks = ceil_div(pixels, w.chunk);
    return w;
}

// Work: a block takes a chunk of pixels of one sample and up to 256 vectors of channels; a thread
// owns a vector and walks down the pixels, then the rows are added in order in shared memory.
// Limit: device memory, one read of x.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads, 2)
    column_kernel(const twk_column_sums_args a, Walk w, float *partial) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    float *red = arena.take<float>((size_t)w.rows * w.lanes * V);
    const int64_t tile = blockIdx.x % w.tiles, rest = blockIdx.x / w.tiles;
    const int64_t n = rest / w.chunks, chunk = rest % w.chunks, first = chunk * w.chunk;
    const int64_t pixels = smaller(w.chunk, a.pixels - first);
    const int lane = threadIdx.x % w.lanes, row = threadIdx.x / w.lanes;
    const int64_t channel = (tile * w.lanes + lane) * V;
    const int count = (int)smaller<int64_t>(V, a.channels - channel);
    if (row < w.rows && count > 0) {
        const T *x = static_cast<const T *>(a.x) + (n * a.pixels + first) * a.channels + channel;
        float sum[V] = {};
#pragma unroll 4
        for (int64_t p = row; p < pixels; p += w.rows) {
            float v[V];
            load<WIDE>(x + p * a.channels, count, v);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] += v[i];
        }
#pragma unroll
        for (int i = 0; i < V; i++) red[(row * w.lanes + lane) * V + i] = sum[i];
    }
    sync_block();
    const int64_t width = smaller<int64_t>((int64_t)w.lanes * V, a.channels - tile * w.lanes * V);
    for (int64_t c = threadIdx.x; c < width; c += block_threads) {
        float sum = 0.0f;
        for (int r = 0; r < w.rows; r++) sum += red[r * w.lanes * V + c];
        partial[(n * w.chunks + chunk) * a.channels + tile * w.lanes * V + c] = sum;
    }
}

// Work: a block takes 32 channels of a sample; its eight warps stride over the chunks and meet in
// shared memory, where the first adds them in order. Limit: latency and L2.
template <typename T>
__global__ void __launch_bounds__(block_threads)
    column_finish_kernel(const twk_column_sums_args a, int64_t chunks, int64_t groups,
                         const float *partial) {
    TW_SHARED(arena);
    float *part = arena.take<float>(block_threads);
    const int64_t n = blockIdx.x / groups;
    const int64_t c = blockIdx.x % groups * 32 + threadIdx.x % 32;
    float sum = 0.0f;
    for (int64_t i = threadIdx.x / 32; i < chunks && c < a.channels; i += block_threads / 32)
        sum += partial[(n * chunks + i) * a.channels + c];
    part[threadIdx.x] = sum;
    sync_block();
    if (threadIdx.x >= 32 || c >= a.channels) return;
    for (int w = 1; w < block_threads / 32; w++) sum += part[w * 32 + threadIdx.x];
    T *out = static_cast<T *>(a.out) + n * a.out_stride + c;
    *out = from_float<T>(a.accumulate ? to_float(*out) + sum : sum);
}

template <typename T> twk_status launch_columns(const twk_column_sums_args &a, twk_stream stream) {
    const Walk w = column_walk<T>(a.pixels, a.channels);
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    config.shared = shared_bytes<float>((size_t)w.rows * w.lanes * per_16<T>);
    if (!grid_for(a.batch * w.chunks * w.tiles, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "column sums: more elements than a grid can hold");
    float *partial = static_cast<float *>(a.workspace);
    const bool wide = a.channels % per_16<T> == 0 && aligned_16(a.x);
    const twk_status status = with_flag(wide, [&](auto flag) {
        return TW_LAUNCH((column_kernel<T, decltype(flag)::value>), config, a, w, partial);
    });
    if (status != TWK_OK) return status;
    const int64_t groups = ceil_div<int64_t>(a.channels, 32);
    config.shared = shared_bytes<float>(block_threads);
    if (!grid_for(a.batch * groups, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "column sums: more elements than a grid can hold");
    return with_format(a.out_format, [&](auto t) {
        return TW_LAUNCH((column_finish_kernel<decltype(t)>), config, a, w.chunks, groups,
                         static_cast<const float *>(partial));
    });
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_mse_workspace(int64_t batch, int64_t elements) {
    if (total_of(batch, elements) < 0) return 0;
    return (size_t)(batch * ceil_div(elements, mse_chunk)) * sizeof(float);
}

extern "C" twk_status twk_mse(const twk_mse_args *args, twk_stream stream) {
    TW_REQUIRE(args, "mse: no arguments");
    const twk_mse_args &a = *args;
    TW_REQUIRE(total_of(a.batch, a.elements) > 0, "mse: batch and elements must be positive");
    TW_REQUIRE(a.p && a.target, "mse: p and target are needed");
    TW_REQUIRE(a.sample_loss || (a.dp && !a.loss), "mse: sample_loss is needed but for dp alone");
    TW_REQUIRE(!a.sample_loss ||
                   (a.workspace && a.workspace_bytes >= twk_mse_workspace(a.batch, a.elements)),
               "mse: needs more workspace");
    const int64_t chunks = ceil_div(a.elements, mse_chunk);
    float *partial = a.sample_loss ? static_cast<float *>(a.workspace) : nullptr;
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    config.shared = shared_bytes<float>(32);
    if (!grid_for(a.batch * chunks, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "mse: more elements than a grid can hold");
    twk_status status = with_format(a.format, [&](auto t) {
        using T = decltype(t);
        const bool wide = a.elements % per_16<T> == 0 && aligned_16(a.p) && aligned_16(a.target) &&
                          aligned_16(a.dp);
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((mse_kernel<T, decltype(w)::value>), config, a, chunks, partial);
        });
    });
    if (status != TWK_OK || !partial) return status;
    LaunchConfig finish = config;
    finish.shared = 0;
    grid_for(a.batch, block_threads / 32, &finish.grid);
    status = TW_LAUNCH(sample_loss_kernel, finish, a, chunks, static_cast<const float *>(partial));
    if (status != TWK_OK || !a.loss) return status;
    config.grid = dim3(1);
    return TW_LAUNCH(mean_loss_kernel, config, a);
}

extern "C" size_t twk_column_sums_workspace(int64_t batch, int64_t pixels, int64_t channels) {
    if (total_of(batch, pixels) < 0 || total_of(batch * pixels, channels) < 0) return 0;
    const int64_t chunks = larger(column_walk<float>(pixels, channels).chunks,
                                  column_walk<bf16>(pixels, channels).chunks);
    return (size_t)(batch * chunks * channels) * sizeof(float);
}

extern "C" twk_status twk_column_sums(const twk_column_sums_args *args, twk_stream stream) {
    TW_REQUIRE(args, "column sums: no arguments");
    twk_column_sums_args a = *args;
    TW_REQUIRE(total_of(a.batch, a.pixels) > 0 && total_of(a.batch * a.pixels, a.channels) > 0,
               "column sums: sizes must be positive");
    TW_REQUIRE(a.x && a.out, "column sums: input and output are needed");
    TW_REQUIRE(a.workspace &&
                   a.workspace_bytes >= twk_column_sums_workspace(a.batch, a.pixels, a.channels),
               "column sums: needs more workspace");
    TW_REQUIRE(!a.accumulate || a.out_format == TWK_F32, "column sums: only fp32 is added to");
    if (!a.out_stride) a.out_stride = a.channels;
    TW_REQUIRE(a.out_stride >= a.channels || a.batch == 1, "column sums: rows of out overlap");
    return with_format(a.format, [&](auto t) { return launch_columns<decltype(t)>(a, stream); });
}
