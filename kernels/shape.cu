// Moving elements: concat and split, pooling and its counterpart, layout and format, images.
#include "device/launch.cuh"
#include "device/philox.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

namespace tw {
namespace {

constexpr int block_threads = 256;

// Work: a thread moves one vector (16 bytes when WIDE, else one element) of the joined row, a block
// 256. JOIN reads the parts and writes the row, else the reverse; a missing part is passed over.
// Limit: device memory.
template <typename T, bool WIDE, bool JOIN>
__global__ void __launch_bounds__(block_threads)
    concat_kernel(int64_t rows, int64_t a_channels, int64_t b_channels, T *a, T *b, T *joined) {
    constexpr int V = WIDE ? per_16<T> : 1;
    const int64_t channels = a_channels + b_channels, vectors = channels / V;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= rows * vectors) return;
    const Place at = place_of(index, vectors, channels, V); // a "sample" is a row
    T *part = at.first < a_channels ? a : b;
    if (!part) return;
    part += at.first < a_channels ? at.sample * a_channels + at.first
                                  : at.sample * b_channels + at.first - a_channels;
    T *row = joined + at.at;
    if constexpr (WIDE)
        write_16(JOIN ? row : part, read_16(JOIN ? part : row));
    else
        *(JOIN ? row : part) = *(JOIN ? part : row);
}

// A pixel of a tensor [n, h, w] and the vector of its channels.
struct Pixel {
    int64_t n, y, x;
};
TW_DEVICE Pixel pixel_of(int64_t index, int64_t h, int64_t w) {
    const int64_t row = quotient(index, w), n = quotient(row, h);
    return Pixel{n, row - n * h, index - row * w};
}

// Work: a thread makes one vector of one output pixel and adds the k x k block in order, a block of
// threads 256 vectors. Limit: device memory.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    pool_kernel(const twk_blocks_args a, int64_t vectors) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    const int64_t h = a.h / a.k, w = a.w / a.k;
    if (index >= a.batch * h * w * vectors) return;
    const Place at = place_of(index, vectors, a.channels, V);
    const Pixel p = pixel_of(at.sample, h, w);
    float sum[V] = {};
    for (int dy = 0; dy < a.k; dy++)
        for (int dx = 0; dx < a.k; dx++) {
            const int64_t pixel = (p.n * a.h + p.y * a.k + dy) * a.w + p.x * a.k + dx;
            float v[V];
            load<WIDE>(static_cast<const T *>(a.in) + pixel * a.channels + at.first, at.count, v);
#pragma unroll
            for (int i = 0; i < V; i++) sum[i] += v[i];
        }
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] *= a.scale;
    store<WIDE>(static_cast<T *>(a.out) + at.at, at.count, sum);
}

// Work: a thread makes one vector of one pixel of the large image, a block 256 vectors; the small
// image comes from the cache k * k - 1 times. Limit: device memory, mostly writes.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(block_threads)
    spread_kernel(const twk_blocks_args a, int64_t vectors) {
    constexpr int V = per_16<T>;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * a.h * a.w * vectors) return;
    const Place at = place_of(index, vectors, a.channels, V);
    const Pixel p = pixel_of(at.sample, a.h, a.w);
    const int64_t h = a.h / a.k, w = a.w / a.k, y = quotient(p.y, a.k), x = quotient(p.x, a.k);
    float v[V] = {};
    if (y < h && x < w) {
        const int64_t pixel = (p.n * h + y) * w + x;
        load<WIDE>(static_cast<const T *>(a.in) + pixel * a.channels + at.first, at.count, v);
    }
#pragma unroll
    for (int i = 0; i < V; i++) v[i] *= a.scale;
    store<WIDE>(static_cast<T *>(a.out) + at.at, at.count, v);
}

constexpr int tile = 32, tile_rows = 8;

// Turns [batch, rows, columns] into [batch, columns, rows].
// Work: a block of 32 x 8 threads takes a 32 x 32 tile through shared memory (padded by a column,
// so that reading it across meets no bank twice). Limit: device memory.
template <typename A, typename B>
__global__ void __launch_bounds__(tile *tile_rows)
    transpose_kernel(int64_t rows, int64_t columns, int64_t row_tiles, int64_t column_tiles,
                     const A *in, B *out) {
    TW_SHARED(arena);
    float *cells = arena.take<float>(tile * (tile + 1));
    const int64_t column_tile = blockIdx.x % column_tiles, rest = blockIdx.x / column_tiles;
    const int64_t row0 = rest % row_tiles * tile, column0 = column_tile * tile;
    const int64_t base = rest / row_tiles * rows * columns;
    const int tx = (int)threadIdx.x % tile, ty = (int)threadIdx.x / tile;
    for (int i = ty; i < tile; i += tile_rows) {
        const int64_t r = row0 + i, c = column0 + tx;
        if (r < rows && c < columns)
            cells[i * (tile + 1) + tx] = to_float(in[base + r * columns + c]);
    }
    sync_block();
    for (int i = ty; i < tile; i += tile_rows) {
        const int64_t r = row0 + tx, c = column0 + i;
        if (r < rows && c < columns)
            out[base + c * rows + r] = from_float<B>(cells[tx * (tile + 1) + i]);
    }
}

// As transpose_kernel for 16-bit elements, which it moves two at a time: rows and columns are even,
// in and out begin at 4 bytes.
// Work: a block of 32 x 8 threads takes a 64 x 64 tile. A thread reads two neighbours of two rows
// and swaps the middle ones, so that each word holds two rows of a column; the words of even
// columns lie in the first half of shared memory, of odd ones in the second, each row padded by a
// word: neither way meets a bank twice. Limit: device memory.
__global__ void __launch_bounds__(tile *tile_rows)
    transpose_pairs_kernel(int64_t rows, int64_t columns, int64_t row_tiles, int64_t column_tiles,
                           const uint32_t *in, uint32_t *out) {
    TW_SHARED(arena);
    uint32_t *cells = arena.take<uint32_t>(2 * tile * (tile + 1));
    const int64_t column_tile = blockIdx.x % column_tiles, rest = blockIdx.x / column_tiles;
    const int64_t base = rest / row_tiles * rows * columns / 2; // all in words from here
    const int64_t row0 = rest % row_tiles * (2 * tile), column0 = column_tile * tile;
    const int tx = (int)threadIdx.x % tile, ty = (int)threadIdx.x / tile;
    const int64_t wide = columns / 2, high = rows / 2;
#pragma unroll
    for (int i = ty; i < tile; i += tile_rows) {
        const int64_t r = row0 + 2 * i, c = column0 + tx;
        if (r < rows && c < wide) {
            const uint32_t upper = in[base + r * wide + c], lower = in[base + (r + 1) * wide + c];
            cells[tx * (tile + 1) + i] = (upper & 0xffffu) | lower << 16;
            cells[(tile + tx) * (tile + 1) + i] = upper >> 16 | (lower & 0xffff0000u);
        }
    }
    sync_block();
#pragma unroll
    for (int i = ty; i < 2 * tile; i += tile_rows) {
        const int64_t r = row0 / 2 + tx, c = 2 * column0 + i;
        if (r < high && c < columns)
            out[base + c * high + r] = cells[(i / 2 + i % 2 * tile) * (tile + 1) + tx];
    }
}

// Work: a thread converts V elements (16 bytes of the narrower format), a block 256 vectors.
// Limit: device memory.
template <typename A, typename B, bool WIDE>
__global__ void __launch_bounds__(block_threads) cast_kernel(int64_t n, const A *in, B *out) {
    constexpr int V = larger(per_16<A>, per_16<B>);
    const int64_t first = ((int64_t)blockIdx.x * block_threads + threadIdx.x) * V;
    if (first >= n) return;
    const int count = (int)smaller<int64_t>(V, n - first);
    float v[V];
    if (WIDE && count == V) {
        load<WIDE>(in + first, V, v);
        store_warp<WIDE>(out + first, V, v, is_whole_warp(first / V, n / V));
    } else {
        load<false>(in + first, count, v);
        store<false>(out + first, count, v);
    }
}

// Work: a thread makes one element, neighbours read neighbouring bytes (backwards when mirrored);
// a block 256 elements. Limit: device memory; one byte in, two to four out.
template <typename T>
__global__ void __launch_bounds__(block_threads) image_kernel(const twk_image_args a) {
    const int64_t elements = a.h * a.w * a.channels;
    const int64_t index = (int64_t)blockIdx.x * block_threads + threadIdx.x;
    if (index >= a.batch * elements) return;
    const Place at = place_of(index, elements, elements, 1);
    const int64_t row_length = a.w * a.channels, row = quotient(at.first, row_length);
    int64_t in_row = at.first - row * row_length;
    const uint32_t step = a.device_step ? *a.device_step : a.step;
    if (a.flip > 0.0f) {
        const Words4 r = noise_words(make_noise(a.noise, at.sample, TWK_NOISE_FLIP, step), 0);
        if (uniform(r.w[0]) < a.flip) {
            const int64_t x = quotient(in_row, a.channels);
            in_row += (a.w - 1 - 2 * x) * a.channels;
        }
    }
    int64_t image = a.index ? a.index[at.sample] : at.sample;
    image = image < 0 ? 0 : image < a.n_images ? image : a.n_images - 1;
    const float v = (float)a.in[image * elements + row * row_length + in_row];
    static_cast<T *>(a.out)[index] = from_float<T>((2.0f * v - 255.0f) / 255.0f);
}

template <bool JOIN>
twk_status launch_concat(twk_format format, int64_t rows, int64_t ca, int64_t cb, void *a, void *b,
                         void *joined, twk_stream stream) {
    TW_REQUIRE(ca > 0 && cb > 0 && ca <= INT64_MAX - cb && total_of(rows, ca + cb) > 0,
               "concat: sizes must be positive");
    TW_REQUIRE(joined && (JOIN ? a && b : a || b), "concat: inputs and output are needed");
    return with_format(format, [&](auto t) {
        using T = decltype(t);
        const bool wide = ca % per_16<T> == 0 && cb % per_16<T> == 0 && aligned_16(a) &&
                          aligned_16(b) && aligned_16(joined);
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(rows * ((ca + cb) / (wide ? per_16<T> : 1)), block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "concat: more elements than a grid can hold");
        return with_flag(wide, [&](auto w) {
            return TW_LAUNCH((concat_kernel<T, decltype(w)::value, JOIN>), config, rows, ca, cb,
                             static_cast<T *>(a), static_cast<T *>(b), static_cast<T *>(joined));
        });
    });
}

twk_status check_blocks(const twk_blocks_args *a) {
    TW_REQUIRE(a, "pool: no arguments");
    const int64_t rows = total_of(a->batch, a->h);
    TW_REQUIRE(rows > 0 && total_of(rows, a->w) > 0 && total_of(rows * a->w, a->channels) > 0,
               "pool: sizes must be positive");
    TW_REQUIRE(a->k > 0 && a->k <= a->h && a->k <= a->w, "pool: the block must fit the image");
    TW_REQUIRE(a->in && a->out, "pool: input and output are needed");
    return TWK_OK;
}

template <bool POOL> twk_status launch_blocks(const twk_blocks_args *args, twk_stream stream) {
    const twk_status status = check_blocks(args);
    if (status != TWK_OK) return status;
    const twk_blocks_args &a = *args;
    return with_format(a.format, [&](auto t) {
        using T = decltype(t);
        const int64_t vectors = ceil_div<int64_t>(a.channels, per_16<T>);
        const int64_t pixels = POOL ? a.batch * (a.h / a.k) * (a.w / a.k) : a.batch * a.h * a.w;
        LaunchConfig config;
        config.block = dim3(block_threads);
        config.stream = stream;
        if (!grid_for(pixels * vectors, block_threads, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "pool: more elements than a grid can hold");
        const bool wide = a.channels % per_16<T> == 0 && aligned_16(a.in) && aligned_16(a.out);
        return with_flag(wide, [&](auto w) {
            constexpr bool W = decltype(w)::value;
            if constexpr (POOL)
                return TW_LAUNCH((pool_kernel<T, W>), config, a, vectors);
            else
                return TW_LAUNCH((spread_kernel<T, W>), config, a, vectors);
        });
    });
}

bool aligned_4(const void *p) {
    return reinterpret_cast<uintptr_t>(p) % 4 == 0;
}

template <typename A, typename B>
twk_status launch_convert(const twk_convert_args &a, twk_stream stream) {
    const A *in = static_cast<const A *>(a.in);
    B *out = static_cast<B *>(a.out);
    LaunchConfig config;
    config.stream = stream;
    if (a.in_layout == a.out_layout || a.channels == 1 || a.pixels == 1) {
        constexpr int V = larger(per_16<A>, per_16<B>);
        const int64_t n = a.batch * a.pixels * a.channels;
        config.block = dim3(block_threads);
        if (!grid_for(n, block_threads * V, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "convert: more elements than a grid can hold");
        return with_flag(aligned_16(in) && aligned_16(out), [&](auto w) {
            return TW_LAUNCH((cast_kernel<A, B, decltype(w)::value>), config, n, in, out);
        });
    }
    const int64_t rows = a.in_layout == TWK_NHWC ? a.pixels : a.channels;
    const int64_t columns = a.in_layout == TWK_NHWC ? a.channels : a.pixels;
    const bool pairs = std::is_same<A, B>::value && sizeof(A) == 2 && rows % 2 == 0 &&
                       columns % 2 == 0 && aligned_4(in) && aligned_4(out);
    const int64_t side = pairs ? 2 * tile : tile;
    const int64_t row_tiles = ceil_div(rows, side), column_tiles = ceil_div(columns, side);
    config.block = dim3(tile * tile_rows);
    config.shared = shared_bytes<float>((pairs ? 2 : 1) * tile * (tile + 1));
    if (!grid_for(a.batch * row_tiles * column_tiles, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "convert: more elements than a grid can hold");
    if (pairs)
        return TW_LAUNCH(transpose_pairs_kernel, config, rows, columns, row_tiles, column_tiles,
                         static_cast<const uint32_t *>(a.in), static_cast<uint32_t *>(a.out));
    return TW_LAUNCH((transpose_kernel<A, B>), config, rows, columns, row_tiles, column_tiles, in,
                     out);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_concat(twk_format format, int64_t rows, int64_t a_channels,
                                 int64_t b_channels, const void *a, const void *b, void *out,
                                 twk_stream stream) {
    return launch_concat<true>(format, rows, a_channels, b_channels, const_cast<void *>(a),
                               const_cast<void *>(b), out, stream);
}

extern "C" twk_status twk_split(twk_format format, int64_t rows, int64_t a_channels,
                                int64_t b_channels, const void *in, void *a, void *b,
                                twk_stream stream) {
    return launch_concat<false>(format, rows, a_channels, b_channels, a, b, const_cast<void *>(in),
                                stream);
}

extern "C" twk_status twk_pool(const twk_blocks_args *args, twk_stream stream) {
    return launch_blocks<true>(args, stream);
}

extern "C" twk_status twk_spread(const twk_blocks_args *args, twk_stream stream) {
    return launch_blocks<false>(args, stream);
}

extern "C" twk_status twk_convert(const twk_convert_args *args, twk_stream stream) {
    TW_REQUIRE(args, "convert: no arguments");
    const twk_convert_args &a = *args;
    const int64_t pixels = total_of(a.batch, a.pixels);
    TW_REQUIRE(pixels > 0 && total_of(pixels, a.channels) > 0, "convert: sizes must be positive");
    TW_REQUIRE(a.in && a.out, "convert: input and output are needed");
    TW_REQUIRE((unsigned)a.in_layout <= TWK_NCHW && (unsigned)a.out_layout <= TWK_NCHW,
               "convert: unknown layout");
    return with_format(a.in_format, [&](auto in) {
        return with_format(a.out_format, [&](auto out) {
            return launch_convert<decltype(in), decltype(out)>(a, stream);
        });
    });
}

extern "C" twk_status twk_image_to_tensor(const twk_image_args *args, twk_stream stream) {
    TW_REQUIRE(args, "image: no arguments");
    const twk_image_args &a = *args;
    const int64_t rows = total_of(a.batch, a.h);
    TW_REQUIRE(rows > 0 && total_of(rows, a.w) > 0 && total_of(rows * a.w, a.channels) > 0,
               "image: sizes must be positive");
    TW_REQUIRE(a.in && a.out, "image: input and output are needed");
    TW_REQUIRE(a.n_images > 0 && (a.index || a.batch <= a.n_images),
               "image: the batch needs more images than there are");
    TW_REQUIRE(a.flip >= 0 && a.flip <= 1, "image: the share of mirrored images lies in [0, 1]");
    LaunchConfig config;
    config.block = dim3(block_threads);
    config.stream = stream;
    if (!grid_for(rows * a.w * a.channels, block_threads, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "image: more elements than a grid can hold");
    return with_format(a.format,
                       [&](auto t) { return TW_LAUNCH((image_kernel<decltype(t)>), config, a); });
}
