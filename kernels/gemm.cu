// Matrix products of a batch, which a linear layer is one of: d = a b^T, rows of a by rows of b.
#include "gemm_boxed.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_tiles.cuh"
#include "gemm_warpgroup.cuh"
#include "slices.cuh"

namespace tw {
namespace {

// A matrix whose rows are multiplied: element k of row r lies at r * row + k * step.
struct GemmOperand {
    const void *matrix;
    int64_t row, step, batch;
    int rows;
};

struct GemmInput {
    GemmOperand a, b;
    int64_t d_batch;
    int k;
    int splits, tiles, tiles_a_split; // along K
    int add;
};

// ROWS rows from row0 on, in a tile of rows. WIDE: steps are 1, rows start at multiples of 16 bytes
// and k is whole chunks. Else element by element, whatever the form in memory.
template <typename T, int ROWS, bool WIDE> class MatrixRows {
    static constexpr int passes = ROWS / tile_pass;

  public:
    TW_DEVICE MatrixRows(const GemmOperand &m, int64_t batch, int row0, int k, int first_tile)
        : m_(m), matrix_(static_cast<const T *>(m.matrix) + batch * m.batch),
          row_(row0 + slot_.row), k_(k),
          at_(first_tile * (tile_row_bytes / (int)sizeof(T)) + slot_.chunk * per_16<T>) {}

    TW_DEVICE void fetch(unsigned char *tile) {
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int row = row_ + i * tile_pass;
            const T *const from = matrix_ + (int64_t)row * m_.row + (WIDE ? at_ : at_ * m_.step);
            if constexpr (WIDE) {
                const bool there = row < m_.rows && at_ < k_;
                copy_async_16(tile + slot_.offset(i), there ? from : matrix_, there ? 16 : 0);
            } else {
                Chunk<T> chunk;
#pragma unroll
                for (int e = 0; e < per_16<T>; e++)
                    if (row < m_.rows && at_ + e < k_) chunk.set(e, from + e * m_.step);
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk.bytes;
            }
        }
        at_ += tile_row_bytes / (int)sizeof(T);
    }

  private:
    const GemmOperand &m_;
    TileSlot slot_;
    const T *matrix_;
    int row_, k_, at_;
};

// The same in a tile of columns: rows are 1 apart, each k starts at a multiple of 16 bytes, and
// rows come in whole chunks.
template <typename T, int ROWS, bool LINES> class MatrixColumns {
    using Slot = ColumnSlot<T, ROWS, LINES>;

  public:
    TW_DEVICE MatrixColumns(const GemmOperand &m, int64_t batch, int row0, int k, int first_tile)
        : pass_step_(m.step * Slot::pass) {
        const int row = row0 + slot_.column(), at = first_tile * Slot::depth + slot_.row;
        next_ = static_cast<const T *>(m.matrix) + batch * m.batch + row + at * m.step;
        left_ = row < m.rows ? k - at : 0;
    }

    TW_DEVICE void fetch(unsigned char *tile) {
#pragma unroll
        for (int i = 0; i < Slot::passes; i++) {
            copy_async_16(tile + slot_.offset(i), next_, left_ > 0 ? 16 : 0);
            next_ += pass_step_;
            left_ -= Slot::pass;
        }
    }

  private:
    Slot slot_;
    const T *next_;
    int64_t pass_step_;
    int left_; // k from the next one to the last
};

template <typename TILE, int ROWS, Form FORM, bool WIDE>
using Matrix =
    std::conditional_t<FORM == Form::rows, MatrixRows<typename TILE::Storage, ROWS, WIDE>,
                       MatrixColumns<typename TILE::Storage, ROWS, TILE::warpgroup>>;

template <typename MATH> using Gemm128x128 = Tile<MATH, 128, 128, 2, 2>;
template <typename MATH> using Gemm64x64 = Tile<MATH, 64, 64, 2, 4>;
template <typename MATH> using GemmGather = Tile<MATH, 64, 64, 2, 3>; // addresses take registers
using GemmPlain = Tile<float, 128, 64, 4, 3>;

template <typename T>
TW_DEVICE Epilogue epilogue_of_product(const GemmInput &in, const Epilogue &e, int64_t batch) {
    return epilogue_of_product<T>(e, batch, in.d_batch, in.add, in.splits);
}

// Work: a block of four warps owns a tile of BM rows of a by BN rows of b of one product of the
// batch and, where the sum is split, a part of it; neighbouring blocks share their rows of a.
// Limit: L2 and shared memory by wgmma, the tensor cores through mma.sync at 128 x 128, shared
// memory at 64 x 64, device memory where k is short, the fp32 units in exact fp32.
template <typename TILE, Form A_FORM, Form B_FORM, bool WIDE>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    gemm_kernel(const GemmInput in, const Epilogue shared_by_all) {
    using T = typename TILE::Storage;
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::shared);
        const int across = ceil_div(in.b.rows, TILE::bn);
        const TilePart part = tile_part(blockIdx.z);
        const int row0 = part.tile / across * TILE::bm, column0 = part.tile % across * TILE::bn;
        const int64_t batch = blockIdx.y;
        const int first = smaller(part.split * in.tiles_a_split, in.tiles);
        Matrix<TILE, TILE::bm, A_FORM, WIDE> a(in.a, batch, row0, in.k, first);
        Matrix<TILE, TILE::bn, B_FORM, WIDE> b(in.b, batch, column0, in.k, first);
        float *const d = multiply_tiles<TILE, A_FORM, B_FORM>(
            memory, a, b, smaller(in.tiles_a_split, in.tiles - first));
        const Epilogue e = epilogue_of_product<T>(in, shared_by_all, batch);
        if (e.slices) {
            leave_slice<TILE::bm, TILE::bn, TILE::ld>(e, d, row0, column0, part.split);
            return;
        }
        const RowShare mine = gather_cluster<TILE::bm, TILE::bn, TILE::ld>(d);
        float *const own = d + mine.first * TILE::ld;
        if (in.add)
            add_tile<TILE::bn, TILE::ld>(static_cast<float *>(e.y), e.rows, e.columns, e.scale, own,
                                         mine.count, row0 + mine.first, column0);
        else
            finish_tile<T, TILE::bn, TILE::ld>(e, own, mine.count, row0 + mine.first, column0);
    }
}

constexpr int gather_size = 64, gather_ld = gather_size + 8;

// Work: a block owns 64 x 64 elements of one product of the batch and adds their slices, first to
// last. Limit: L2, which holds the slices.
template <typename T>
__global__ void __launch_bounds__(tile_threads)
    gemm_gather_kernel(const GemmInput in, const Epilogue shared_by_all) {
    TW_SHARED(arena);
    float *d = arena.take<float>(gather_size * gather_ld);
    const Epilogue e = epilogue_of_product<T>(in, shared_by_all, blockIdx.y);
    const int across = ceil_div(e.columns, gather_size);
    const int row0 = (int)blockIdx.x / across * gather_size;
    const int column0 = (int)blockIdx.x % across * gather_size;
    gather_slices<gather_size, gather_size, gather_ld>(e, d, row0, column0, in.splits);
    finish_tile<T, gather_size, gather_ld>(e, d, gather_size, row0, column0);
}

// What a call is going to do.
struct Choice {
    twk_tile tile;
    bool wide;
    int tiles; // along K
    Parts parts;
    int64_t cycles; // predicted
};

bool is_wide(const twk_gemm_args &a) {
    const int per = 16 / (int)format_bytes(a.format);
    return ((a.a_columns && a.b_columns) || a.k % per == 0) && (!a.a_columns || a.m % per == 0) &&
           (!a.b_columns || a.n % per == 0) && a.a_row % per == 0 && a.b_row % per == 0 &&
           a.a_batch % per == 0 && a.b_batch % per == 0 && aligned_16(a.a) && aligned_16(a.b);
}

int64_t blocks_of(const twk_gemm_args &a, int bm, int bn) {
    return a.batch * ceil_div<int64_t>(a.m, bm) * ceil_div<int64_t>(a.n, bn);
}

// The large tile where it gives a block to enough processors, as in convolutions, or would with the
// sum in parts of eight tiles.
twk_tile choose_tile(const twk_gemm_args &a, bool wide, int tiles) {
    if (a.tile != TWK_TILE_AUTO) return a.tile;
    if (a.format == TWK_F32 && !a.tf32) return TWK_TILE_128X64;
    const int64_t parts = a.add_f32 ? larger(1, tiles / 8) : 1;
    const bool large = wide && a.m > 64 && a.n > 64;
    return large ? large_tile(a.format, blocks_of(a, 128, 128) * parts) : TWK_TILE_64X64;
}

// By boxes, in as many parts as are asked for or best.
Choice choose_boxes(const twk_gemm_args &a) {
    Choice c;
    c.wide = true;
    c.tile = TWK_TILE_128X256_TMA;
    c.tiles = (int)ceil_div<int64_t>(a.k, 64);
    const int64_t count = blocks_of(a, 256, 128), elements = a.batch * a.m * a.n;
    const int parts = a.splits > 0 ? a.splits : specialised_parts(count, c.tiles, elements);
    c.parts = {filled_parts(parts, c.tiles), false};
    c.cycles = specialised_cycles(count, c.tiles, c.parts.count, elements, false);
    return c;
}

// By another tile, likewise.
Choice choose_shared(const twk_gemm_args &a, twk_tile tile, bool wide, int tiles) {
    Choice c = {tile, wide, tiles, {1, false}, 0};
    const bool large = is_large(tile);
    const int bm = tile == TWK_TILE_64X64 ? 64 : 128, bn = large ? 128 : 64;
    const int resident = large ? 2 : tile == TWK_TILE_64X64 && wide ? 4 : 3;
    const int64_t count = blocks_of(a, bm, bn), elements = a.batch * a.m * a.n;
    const int slices = filled_parts(choose_parts(count, resident, tiles, elements), tiles);
    c.parts = a.splits > 0 ? parts_asked_for(a.splits, tiles)
                           : best_parts(large, count, tiles, slices, elements);
    c.cycles = shared_cycles(large, count, tiles, c.parts, elements);
    return c;
}

// Where there is wgmma, the tile that is predicted to take least time.
Choice choose(const twk_gemm_args &a) {
    if (a.tile == TWK_TILE_128X256_TMA) return choose_boxes(a);
    const bool wide = is_wide(a);
    const int tiles = (int)ceil_div<int64_t>(a.k, tile_row_bytes / (int)format_bytes(a.format));
    Choice best = choose_shared(a, choose_tile(a, wide, tiles), wide, tiles);
    if (a.tile != TWK_TILE_AUTO || a.format == TWK_F32 || a.m <= 64 || a.n <= 64 ||
        !device_limits().wgmma)
        return best;
    for (twk_tile tile : {TWK_TILE_64X64, TWK_TILE_128X128_WGMMA, TWK_TILE_128X256_TMA}) {
        const bool boxes = tile == TWK_TILE_128X256_TMA;
        if (boxes ? !specialised_tiles || boxes_refused(a) : !wide) continue;
        const Choice c = boxes ? choose_boxes(a) : choose_shared(a, tile, wide, tiles);
        if (c.cycles < best.cycles) best = c;
    }
    return best;
}

template <typename TILE, Form A_FORM, Form B_FORM, bool WIDE>
twk_status launch(const twk_gemm_args &a, const Parts &parts, const GemmInput &in,
                  const Epilogue &e, twk_stream stream) {
    LaunchConfig config;
    if (!grid_for(blocks_of(a, TILE::bm, TILE::bn) / a.batch * parts.blocks(), 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "matrix product: more tiles than a grid can hold");
    config.grid.y = (unsigned)a.batch;
    config.grid.z = (unsigned)parts.slices();
    config.cluster = (unsigned)parts.blocks();
    config.block = dim3(tile_threads);
    config.shared = TILE::shared;
    config.stream = stream;
    if (config.shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "matrix product: the device has too little shared memory");
    return TW_LAUNCH((gemm_kernel<TILE, A_FORM, B_FORM, WIDE>), config, in, e);
}

// The four combinations of forms; unaligned operands are gathered into rows.
template <typename TILE>
twk_status launch_forms(const twk_gemm_args &a, const Parts &parts, const GemmInput &in,
                        const Epilogue &e, twk_stream stream) {
    constexpr Form rows = Form::rows, columns = Form::columns;
    if (a.a_columns)
        return a.b_columns ? launch<TILE, columns, columns, true>(a, parts, in, e, stream)
                           : launch<TILE, columns, rows, true>(a, parts, in, e, stream);
    return a.b_columns ? launch<TILE, rows, columns, true>(a, parts, in, e, stream)
                       : launch<TILE, rows, rows, true>(a, parts, in, e, stream);
}

template <typename MATH>
twk_status launch_tensor(const twk_gemm_args &a, const Choice &c, const GemmInput &in,
                         const Epilogue &e, twk_stream stream) {
    if (c.tile == TWK_TILE_64X64)
        return c.wide ? launch_forms<Gemm64x64<MATH>>(a, c.parts, in, e, stream)
                      : launch<GemmGather<MATH>, Form::rows, Form::rows, false>(a, c.parts, in, e,
                                                                                stream);
    if (c.tile == TWK_TILE_128X128 && c.wide)
        return launch_forms<Gemm128x128<MATH>>(a, c.parts, in, e, stream);
    if constexpr (sizeof(typename StorageOf<MATH>::Type) == 2) {
        if (c.tile == TWK_TILE_128X256_TMA)
            return launch_boxes<MATH>(a, c.tiles, c.parts.count, e, stream);
        if (c.tile == TWK_TILE_128X128_WGMMA && c.wide && device_limits().wgmma)
            return launch_forms<WarpgroupTile<MATH>>(a, c.parts, in, e, stream);
    }
    return fail(TWK_UNSUPPORTED, "matrix product: not with this tile");
}

twk_status launch_plain(const twk_gemm_args &a, const Choice &c, const GemmInput &in,
                        const Epilogue &e, twk_stream stream) {
    if (c.tile != TWK_TILE_128X64)
        return fail(TWK_UNSUPPORTED, "matrix product: not with this tile");
    return c.wide ? launch_forms<GemmPlain>(a, c.parts, in, e, stream)
                  : launch<GemmPlain, Form::rows, Form::rows, false>(a, c.parts, in, e, stream);
}

GemmInput input_of(const twk_gemm_args &a, const Choice &c) {
    GemmInput in;
    in.a = {a.a, a.a_columns ? 1 : a.a_row, a.a_columns ? a.a_row : 1, a.a_batch, (int)a.m};
    in.b = {a.b, a.b_columns ? 1 : a.b_row, a.b_columns ? a.b_row : 1, a.b_batch, (int)a.n};
    in.d_batch = a.d_batch;
    in.k = (int)a.k;
    in.splits = c.parts.count;
    in.tiles = c.tiles;
    in.tiles_a_split = ceil_div(c.tiles, c.parts.count);
    in.add = a.add_f32;
    return in;
}

Epilogue epilogue_of(const twk_gemm_args &a, const Choice &c) {
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
    e.slices = c.parts.slices() > 1 ? static_cast<float *>(a.workspace) : nullptr;
    return e;
}

twk_status add_parts_up(const twk_gemm_args &a, const GemmInput &in, const Epilogue &e,
                        twk_stream stream) {
    if (a.add_f32) {
        const SliceSum sum = {static_cast<float *>(a.d), e.slices, a.m * a.n, a.d_batch, in.splits};
        return add_slices(sum, {}, e.scale, a.batch, stream);
    }
    LaunchConfig config;
    if (!grid_for(blocks_of(a, gather_size, gather_size) / a.batch, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "matrix product: more tiles than a grid can hold");
    config.grid.y = (unsigned)a.batch;
    config.block = dim3(tile_threads);
    config.shared = shared_bytes<float>(gather_size * gather_ld);
    config.stream = stream;
    return with_format(a.format, [&](auto t) {
        return TW_LAUNCH((gemm_gather_kernel<decltype(t)>), config, in, e);
    });
}

size_t workspace_of(const twk_gemm_args &a, const Choice &c) {
    const int slices = c.parts.slices();
    if (slices == 1) return 0;
    return (size_t)slices * (size_t)a.batch * (size_t)a.m * (size_t)a.n * sizeof(float);
}

twk_status check(const twk_gemm_args &a) {
    const int64_t most = 0x3fffffff;
    TW_REQUIRE(is_format(a.format), "matrix product: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "matrix product: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X256_TMA, "matrix product: unknown tile");
    TW_REQUIRE(a.batch > 0 && a.m > 0 && a.n > 0 && a.k > 0,
               "matrix product: sizes must be positive");
    if (a.m > most || a.n > most || a.k > most || a.batch > 65535 || a.m * a.n > most << 10)
        return fail(TWK_UNSUPPORTED,
                    "matrix product: more than 2^30 rows or columns, 2^40 elements "
                    "or 65535 products");
    TW_REQUIRE(a.a_row >= 0 && a.b_row >= 0 && a.a_batch >= 0 && a.b_batch >= 0 &&
                   (a.batch == 1 || a.d_batch >= a.m * a.n),
               "matrix product: strides are not negative, and products do not overlap");
    TW_REQUIRE(!a.add_f32 || (!a.bias && !a.residual && !a.silu),
               "matrix product: what is added to fp32 has no bias, residual or activation");
    return TWK_OK;
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_gemm_workspace(const twk_gemm_args *args) {
    if (!args || check(*args) != TWK_OK) return 0;
    return workspace_of(*args, choose(*args));
}

extern "C" twk_status twk_gemm(const twk_gemm_args *args, twk_stream stream) {
    TW_REQUIRE(args, "matrix product: no arguments");
    const twk_gemm_args &a = *args;
    const twk_status right = check(a);
    if (right != TWK_OK) return right;
    TW_REQUIRE(a.a && a.b && a.d, "matrix product: a, b and d are needed");
    Choice c = choose(a);
    if (!a.splits && !a.workspace && c.parts.slices() > 1) c.parts = {1, false};
    TW_REQUIRE(c.parts.slices() == 1 || (a.workspace && a.workspace_bytes >= workspace_of(a, c)),
               "matrix product: needs more workspace");
    const GemmInput in = input_of(a, c);
    const Epilogue e = epilogue_of(a, c);
    twk_status status;
    if (a.format == TWK_BF16)
        status = launch_tensor<bf16>(a, c, in, e, stream);
    else if (a.format == TWK_F16)
        status = launch_tensor<f16>(a, c, in, e, stream);
    else if (a.tf32)
        status = launch_tensor<tf32>(a, c, in, e, stream);
    else
        status = launch_plain(a, c, in, e, stream);
    return status == TWK_OK && e.slices ? add_parts_up(a, in, e, stream) : status;
}
