// Matrix products of a batch, which a linear layer is one of: d = a b^T, rows of a by rows of b.
#include "device/launch.cuh"
#include "gemm_core.cuh"
#include "gemm_epilogue.cuh"

namespace tw {
namespace {

struct GemmInput {
    const void *a, *b;
    int64_t a_row, b_row, a_batch, b_batch, d_batch;
    int m, n, k;
};

// Rows of a matrix in memory, ROWS of them from row0 on. WIDE: rows start at multiples of 16 bytes
// and k is whole chunks.
template <typename T, int ROWS, bool WIDE> class MatrixRows {
    static constexpr int passes = ROWS / tile_pass;

  public:
    TW_DEVICE MatrixRows(const T *matrix, int64_t row_stride, int row0, int rows, int k)
        : matrix_(matrix), row_stride_(row_stride), row_(row0 + slot_.row), rows_(rows), k_(k),
          at_(slot_.chunk * per_16<T>) {}

    TW_DEVICE void fetch(unsigned char *tile) {
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int row = row_ + i * tile_pass;
            const T *const from = matrix_ + (int64_t)row * row_stride_ + at_;
            if constexpr (WIDE) {
                const bool there = row < rows_ && at_ < k_;
                copy_async_16(tile + slot_.offset(i), there ? from : matrix_, there ? 16 : 0);
            } else {
                Chunk<T> chunk;
#pragma unroll
                for (int e = 0; e < per_16<T>; e++)
                    if (row < rows_ && at_ + e < k_) chunk.set(e, from + e);
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk.bytes;
            }
        }
        at_ += tile_row_bytes / (int)sizeof(T);
    }

  private:
    TileSlot slot_;
    const T *matrix_;
    int64_t row_stride_;
    int row_, rows_, k_, at_;
};

template <typename MATH> using Gemm128x128 = Tile<MATH, 128, 128, 2, 2>;
template <typename MATH> using Gemm64x64 = Tile<MATH, 64, 64, 2, 4>;
using GemmPlain = Tile<float, 128, 64, 4, 3>;

// Work: a block of four warps owns a tile of BM rows of a by BN rows of b of one product of the
// batch; neighbouring blocks share their rows of a.
// Limit: the tensor cores through mma.sync at 128 x 128, shared memory at 64 x 64, device memory
// where k is short, the fp32 units in exact fp32.
template <typename TILE, bool WIDE>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    gemm_kernel(const GemmInput in, const Epilogue shared_by_all) {
    using T = typename TILE::Storage;
    TW_SHARED(arena);
    unsigned char *memory = arena.take<unsigned char>(TILE::shared);
    const int across = ceil_div(in.n, TILE::bn);
    const int row0 = (int)blockIdx.x / across * TILE::bm;
    const int column0 = (int)blockIdx.x % across * TILE::bn;
    const int64_t batch = blockIdx.y;
    MatrixRows<T, TILE::bm, WIDE> a(static_cast<const T *>(in.a) + batch * in.a_batch, in.a_row,
                                    row0, in.m, in.k);
    MatrixRows<T, TILE::bn, WIDE> b(static_cast<const T *>(in.b) + batch * in.b_batch, in.b_row,
                                    column0, in.n, in.k);
    float *const d = multiply_rows<TILE>(memory, a, b, ceil_div(in.k, TILE::depth));
    Epilogue e = shared_by_all;
    e.y = static_cast<T *>(e.y) + batch * in.d_batch;
    if (e.residual) e.residual = static_cast<const T *>(e.residual) + batch * in.d_batch;
    finish_tile<T, TILE::bm, TILE::bn, TILE::ld>(e, d, row0, column0);
}

template <typename TILE, bool WIDE>
twk_status launch(const twk_gemm_args &a, const GemmInput &in, const Epilogue &e,
                  twk_stream stream) {
    LaunchConfig config;
    const int64_t tiles = ceil_div<int64_t>(a.m, TILE::bm) * ceil_div<int64_t>(a.n, TILE::bn);
    if (a.batch > 65535 || !grid_for(tiles, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "matrix product: more tiles or products than a grid can hold");
    config.grid.y = (unsigned)a.batch;
    config.block = dim3(tile_threads);
    config.shared = TILE::shared;
    config.stream = stream;
    if (config.shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "matrix product: the device has too little shared memory");
    return TW_LAUNCH((gemm_kernel<TILE, WIDE>), config, in, e);
}

template <typename MATH>
twk_status launch_tensor(const twk_gemm_args &a, const GemmInput &in, const Epilogue &e, bool wide,
                         twk_stream stream) {
    // The large tile where it gives a block to nine processors of ten, as in convolutions.
    const int64_t large = ceil_div<int64_t>(a.m, 128) * ceil_div<int64_t>(a.n, 128) * a.batch;
    const bool enough = a.n > 64 && 10 * large >= 9 * (int64_t)device_limits().processors;
    const twk_tile tile = a.tile != TWK_TILE_AUTO ? a.tile
                          : wide && enough        ? TWK_TILE_128X128
                                                  : TWK_TILE_64X64;
    if (tile == TWK_TILE_64X64)
        return wide ? launch<Gemm64x64<MATH>, true>(a, in, e, stream)
                    : launch<Gemm64x64<MATH>, false>(a, in, e, stream);
    if (tile == TWK_TILE_128X128 && wide) return launch<Gemm128x128<MATH>, true>(a, in, e, stream);
    return fail(TWK_UNSUPPORTED, "matrix product: not with this tile");
}

Epilogue epilogue_of(const twk_gemm_args &a) {
    const int per = 16 / (int)format_bytes(a.format);
    Epilogue e = {};
    e.rows = e.rows_per_sample = (int)a.m;
    e.columns = (int)a.n;
    e.bias = a.bias;
    e.residual = a.residual;
    e.scale = a.scale == 0.0f ? 1.0f : a.scale;
    e.silu = a.silu;
    e.y = a.d;
    e.wide = a.n % per == 0 && a.d_batch % per == 0 && aligned_16(a.d) && aligned_16(a.residual);
    return e;
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" twk_status twk_gemm(const twk_gemm_args *args, twk_stream stream) {
    const int64_t most = 0x3fffffff;
    TW_REQUIRE(args, "matrix product: no arguments");
    const twk_gemm_args &a = *args;
    TW_REQUIRE(is_format(a.format), "matrix product: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "matrix product: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X64, "matrix product: unknown tile");
    TW_REQUIRE(a.batch > 0 && a.m > 0 && a.n > 0 && a.k > 0,
               "matrix product: sizes must be positive");
    if (a.m > most || a.n > most || a.k > most)
        return fail(TWK_UNSUPPORTED, "matrix product: more than 2^30 rows or columns");
    TW_REQUIRE(a.a && a.b && a.d, "matrix product: a, b and d are needed");
    TW_REQUIRE(a.a_row >= 0 && a.b_row >= 0 && a.a_batch >= 0 && a.b_batch >= 0 &&
                   (a.batch == 1 || a.d_batch >= a.m * a.n),
               "matrix product: strides are not negative, and products do not overlap");
    const int per = 16 / (int)format_bytes(a.format);
    const bool wide = a.k % per == 0 && a.a_row % per == 0 && a.b_row % per == 0 &&
                      a.a_batch % per == 0 && a.b_batch % per == 0 && aligned_16(a.a) &&
                      aligned_16(a.b);
    const GemmInput in = {a.a,       a.b,       a.a_row,  a.b_row,  a.a_batch,
                          a.b_batch, a.d_batch, (int)a.m, (int)a.n, (int)a.k};
    const Epilogue e = epilogue_of(a);
    if (a.format == TWK_BF16) return launch_tensor<bf16>(a, in, e, wide, stream);
    if (a.format == TWK_F16) return launch_tensor<f16>(a, in, e, wide, stream);
    if (a.tf32) return launch_tensor<tf32>(a, in, e, wide, stream);
    if (a.tile != TWK_TILE_AUTO && a.tile != TWK_TILE_128X64)
        return fail(TWK_UNSUPPORTED, "matrix product: not with this tile");
    return wide ? launch<GemmPlain, true>(a, in, e, stream)
                : launch<GemmPlain, false>(a, in, e, stream);
}
