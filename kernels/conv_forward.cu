// Convolution forward: an implicit matrix product over output pixels, output channels and taps.
#include "conv.cuh"
#include "device/launch.cuh"

namespace tw {
namespace {

template <typename MATH> using Tile128x128 = Tile<MATH, 128, 128, 2, 2>; // 64 x 64 a warp
template <typename MATH> using Tile64x64 = Tile<MATH, 64, 64, 2, 4>;     // 32 x 32 a warp
template <typename MATH> using Tile128x16 = Tile<MATH, 128, 16, 4, 4>;   // 32 x 16 a warp
using TilePlain = Tile<float, 128, 64, 4, 3>;

// Work: a block of four warps owns a tile of BM output pixels (of one image or several) by BN
// output channels and, where the sum is split, a part of it; neighbouring blocks share their
// pixels. A thread copies one 16-byte chunk of every 32nd row, three tiles ahead, and holds its
// share of the sums in registers. Limit: the tensor cores through mma.sync at 128 x 128 (a warp
// reads 4 KB of shared memory for 65536 multiply-adds, about 3/4 of what shared memory gives
// meanwhile); shared memory at 64 x 64; device memory where channels or taps are few; the fp32
// units in exact fp32.
template <typename TILE, bool WIDE>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    conv_kernel(const ConvInput in, const Epilogue e) {
    using T = typename TILE::Storage;
    TW_SHARED(arena);
    unsigned char *memory = arena.take<unsigned char>(TILE::shared);
    const int across = ceil_div(in.out_channels, TILE::bn);
    const int row0 = (int)blockIdx.x / across * TILE::bm;
    const int column0 = (int)blockIdx.x % across * TILE::bn;
    const int split = (int)blockIdx.y, first = split * in.tiles_a_split;
    const int tiles = smaller(in.tiles_a_split, in.tiles - first);
    ImageRows<TILE, WIDE> a(in, row0, first);
    WeightRows<TILE, WIDE> b(in, column0, first);
    float *const d = multiply_rows<TILE>(memory, a, b, tiles);
    if (e.slices)
        leave_slice<TILE::bm, TILE::bn, TILE::ld>(e, d, row0, column0, split);
    else
        finish_tile<T, TILE::bm, TILE::bn, TILE::ld>(e, d, row0, column0);
}

constexpr int gather_size = 64, gather_ld = gather_size + 8;

// Work: a block owns 64 pixels by 64 channels of a split sum and adds the slices, first to last.
// Limit: L2, which holds the slices.
template <typename T>
__global__ void __launch_bounds__(tile_threads) conv_gather_kernel(const Epilogue e, int splits) {
    TW_SHARED(arena);
    float *d = arena.take<float>(gather_size * gather_ld);
    const int across = ceil_div(e.columns, gather_size);
    const int row0 = (int)blockIdx.x / across * gather_size;
    const int column0 = (int)blockIdx.x % across * gather_size;
    gather_slices<gather_size, gather_size, gather_ld>(e, d, row0, column0, splits);
    finish_tile<T, gather_size, gather_size, gather_ld>(e, d, row0, column0);
}

// What a call is going to do; depends on the arguments and the number of processors.
struct Choice {
    twk_tile tile;
    int bm, bn, depth, splits, tiles, tiles_a_split;
    bool wide;
    int64_t out_h, out_w, rows, k;
};

bool sizes_fit(const twk_conv_args &a, Choice *c) {
    const int64_t most = 0x7fffffff;
    const int up = a.upsample ? 2 : 1;
    if (a.batch < 1 || a.h < 1 || a.w < 1 || a.channels < 1 || a.channels2 < 0 ||
        a.out_channels < 1 || a.kernel_h < 1 || a.kernel_w < 1 || a.stride < 1 || a.pad_top < 0 ||
        a.pad_left < 0 || a.pad_bottom < 0 || a.pad_right < 0)
        return false;
    if (a.h > most / up || a.w > most / up) return false;
    c->out_h = a.h * up + a.pad_top + a.pad_bottom - a.kernel_h;
    c->out_w = a.w * up + a.pad_left + a.pad_right - a.kernel_w;
    if (c->out_h < 0 || c->out_w < 0) return false;
    c->out_h = c->out_h / a.stride + 1;
    c->out_w = c->out_w / a.stride + 1;
    return true;
}

// Indices of pixels and of K are 32 bits wide in the kernels, those of elements 64.
bool indices_fit(const twk_conv_args &a, Choice *c) {
    const int64_t most = 0x3fffffff;
    int64_t pixels, taps;
    if (__builtin_mul_overflow(a.h, a.w, &pixels) ||
        __builtin_mul_overflow(pixels, a.batch, &pixels) ||
        __builtin_mul_overflow(c->out_h, c->out_w, &c->rows) ||
        __builtin_mul_overflow(c->rows, a.batch, &c->rows))
        return false;
    taps = (int64_t)a.kernel_h * a.kernel_w;
    if (taps > most || (int64_t)a.channels + a.channels2 > most ||
        __builtin_mul_overflow(taps, (int64_t)a.channels + a.channels2, &c->k))
        return false;
    return pixels <= most && c->rows <= most && c->k <= most && c->out_h <= most &&
           c->out_w <= most && a.out_channels <= most && a.h * 2 <= most && a.w * 2 <= most &&
           (c->out_h - 1) * a.stride <= most && (c->out_w - 1) * a.stride <= most &&
           (int64_t)a.pad_top + a.kernel_h <= most / 2 &&
           (int64_t)a.pad_left + a.kernel_w <= most / 2;
}

struct TileRow {
    twk_tile tile;
    int bm, bn;
};
// 128 x 128 needs the fewest bytes of shared memory a product; 64 x 64 gives four times the blocks
// where the image is small, and is the only one that gathers unaligned channels; 128 x 16 wastes
// least on the few channels of a picture.
constexpr TileRow tile_rows[] = {
    {TWK_TILE_128X128, 128, 128},
    {TWK_TILE_64X64, 64, 64},
    {TWK_TILE_128X16, 128, 16},
    {TWK_TILE_128X64, 128, 64},
};

int64_t blocks_of(const Choice &c, const twk_conv_args &a, int bm, int bn) {
    return ceil_div<int64_t>(c.rows, bm) * ceil_div(a.out_channels, bn);
}

twk_tile choose_tile(const twk_conv_args &a, const Choice &c, unsigned processors) {
    if (a.format == TWK_F32 && !a.tf32) return TWK_TILE_128X64;
    if (!c.wide) return TWK_TILE_64X64;
    if (a.out_channels <= 16) return TWK_TILE_128X16;
    // A block on nine processors of ten: less, and four times the blocks of a quarter the size are
    // done sooner.
    if (a.out_channels > 64 && 10 * blocks_of(c, a, 128, 128) >= 9 * (int64_t)processors)
        return TWK_TILE_128X128;
    return TWK_TILE_64X64;
}

// Parts of the sum: two blocks a processor, each with at least eight tiles along K to fill the
// pipeline for; a part more costs a pass over the output in fp32.
int choose_splits(const Choice &c, int64_t blocks, unsigned processors) {
    const int64_t wanted = 2 * (int64_t)processors / blocks;
    const int64_t most = smaller<int64_t>(c.tiles / 8, 16);
    return (int)larger<int64_t>(1, smaller(wanted, most));
}

// False where the arguments are wrong.
bool choose(const twk_conv_args &a, Choice *c) {
    if (!is_format(a.format) || !sizes_fit(a, c) || !indices_fit(a, c)) return false;
    const int per = 16 / (int)format_bytes(a.format);
    c->wide = a.channels % per == 0 && a.channels2 % per == 0 && aligned_16(a.x) &&
              aligned_16(a.x2) && aligned_16(a.weight);
    const unsigned processors = device_limits().processors;
    c->tile = a.tile != TWK_TILE_AUTO ? a.tile : choose_tile(a, *c, processors);
    for (const TileRow &row : tile_rows)
        if (row.tile == c->tile) c->bm = row.bm, c->bn = row.bn;
    c->depth = tile_row_bytes / (int)format_bytes(a.format);
    c->tiles = (int)ceil_div<int64_t>(c->k, c->depth);
    const int splits = a.splits > 0 ? smaller(smaller(a.splits, c->tiles), 65535)
                                    : choose_splits(*c, blocks_of(*c, a, c->bm, c->bn), processors);
    c->tiles_a_split = ceil_div(c->tiles, splits);
    c->splits = ceil_div(c->tiles, c->tiles_a_split); // none is empty
    return true;
}

int64_t common(int64_t a, int64_t b) {
    return b ? common(b, a % b) : a;
}

// Rows of a partial: of one sample and in one tile. 0 where statistics cannot be left behind.
int64_t rows_of_partial(const twk_conv_args &a, const Choice &c) {
    if (a.groups < 1 || a.out_channels % a.groups) return 0;
    const int bm = c.splits > 1 ? gather_size : c.bm, bn = c.splits > 1 ? gather_size : c.bn;
    if (bn % (a.out_channels / a.groups)) return 0;
    const int64_t rows = common(c.out_h * c.out_w, bm);
    return rows < 8 && rows < c.out_h * c.out_w ? 0 : rows; // more would be a flood
}

ConvInput input_of(const twk_conv_args &a, const Choice &c) {
    ConvInput in;
    in.x = a.x;
    in.x2 = a.x2;
    in.weight = a.weight;
    in.h = (int)a.h;
    in.w = (int)a.w;
    in.up = a.upsample ? 1 : 0;
    in.channels1 = a.channels;
    in.channels = a.channels + a.channels2;
    in.out_h = (int)c.out_h;
    in.out_w = (int)c.out_w;
    in.rows = (int)c.rows;
    in.out_channels = a.out_channels;
    in.kernel_h = a.kernel_h;
    in.kernel_w = a.kernel_w;
    in.stride = a.stride;
    in.pad_top = a.pad_top;
    in.pad_left = a.pad_left;
    in.k = (int)c.k;
    in.tiles = c.tiles;
    in.tiles_a_split = c.tiles_a_split;
    return in;
}

Epilogue epilogue_of(const twk_conv_args &a, const Choice &c) {
    const int per = 16 / (int)format_bytes(a.format);
    Epilogue e;
    e.rows = (int)c.rows;
    e.columns = a.out_channels;
    e.rows_per_sample = (int)(c.out_h * c.out_w);
    e.bias = a.bias;
    e.vector = a.vector;
    e.vector_stride = a.vector_stride;
    e.residual = a.residual;
    e.scale = a.scale == 0.0f ? 1.0f : a.scale;
    e.silu = a.silu;
    e.y = a.y;
    e.wide = a.out_channels % per == 0 && aligned_16(a.y) && aligned_16(a.residual) &&
             (!a.vector || (aligned_16(a.vector) && a.vector_stride % per == 0));
    e.slices = c.splits > 1 ? static_cast<float *>(a.workspace) : nullptr;
    e.partial = a.partial;
    e.groups = a.groups;
    e.group_columns = a.partial ? a.out_channels / a.groups : 1;
    e.rows_per_partial = a.partial ? (int)rows_of_partial(a, c) : 1;
    e.n_partials = (int)(c.out_h * c.out_w / e.rows_per_partial);
    return e;
}

template <typename TILE, bool WIDE>
twk_status launch(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    LaunchConfig config;
    if (!grid_for(blocks_of(c, a, TILE::bm, TILE::bn), 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config.grid.y = (unsigned)c.splits;
    config.block = dim3(tile_threads);
    config.shared = TILE::shared;
    config.stream = stream;
    if (config.shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "convolution: the device has too little shared memory");
    const ConvInput in = input_of(a, c);
    Epilogue e = epilogue_of(a, c);
    const twk_status status = TW_LAUNCH((conv_kernel<TILE, WIDE>), config, in, e);
    if (status != TWK_OK || c.splits == 1) return status;
    if (!grid_for(blocks_of(c, a, gather_size, gather_size), 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config.shared = shared_bytes<float>(gather_size * gather_ld);
    return TW_LAUNCH((conv_gather_kernel<typename TILE::Storage>), config, e, c.splits);
}

template <typename MATH>
twk_status launch_tensor(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    if (!c.wide) {
        if (c.tile == TWK_TILE_64X64) return launch<Tile64x64<MATH>, false>(a, c, stream);
        return fail(TWK_UNSUPPORTED, "convolution: this tile needs aligned channels");
    }
    switch (c.tile) {
    case TWK_TILE_128X128:
        return launch<Tile128x128<MATH>, true>(a, c, stream);
    case TWK_TILE_64X64:
        return launch<Tile64x64<MATH>, true>(a, c, stream);
    case TWK_TILE_128X16:
        return launch<Tile128x16<MATH>, true>(a, c, stream);
    default:
        return fail(TWK_UNSUPPORTED, "convolution: this tile is for exact fp32");
    }
}

twk_status launch_plain(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    if (c.tile != TWK_TILE_128X64)
        return fail(TWK_UNSUPPORTED, "convolution: exact fp32 has tiles of 128 x 64 only");
    return c.wide ? launch<TilePlain, true>(a, c, stream) : launch<TilePlain, false>(a, c, stream);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" int64_t twk_conv_out_h(const twk_conv_args *args) {
    Choice c;
    return args && sizes_fit(*args, &c) ? c.out_h : 0;
}
extern "C" int64_t twk_conv_out_w(const twk_conv_args *args) {
    Choice c;
    return args && sizes_fit(*args, &c) ? c.out_w : 0;
}

extern "C" int64_t twk_conv_partials(const twk_conv_args *args, int64_t *pixels_per_partial) {
    Choice c;
    const int64_t rows = args && choose(*args, &c) ? rows_of_partial(*args, c) : 0;
    if (pixels_per_partial) *pixels_per_partial = rows;
    return rows ? c.out_h * c.out_w / rows : 0;
}

extern "C" size_t twk_conv_workspace(const twk_conv_args *args) {
    Choice c;
    if (!args || !choose(*args, &c) || c.splits == 1) return 0;
    return (size_t)c.splits * (size_t)c.rows * (size_t)args->out_channels * sizeof(float);
}

extern "C" twk_status twk_conv_forward(const twk_conv_args *args, twk_stream stream) {
    TW_REQUIRE(args, "convolution: no arguments");
    const twk_conv_args &a = *args;
    Choice c = {};
    TW_REQUIRE(is_format(a.format), "convolution: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "convolution: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X64, "convolution: unknown tile");
    TW_REQUIRE(sizes_fit(a, &c), "convolution: sizes, strides and padding leave no output");
    if (!choose(a, &c)) return fail(TWK_UNSUPPORTED, "convolution: more than 2^30 pixels or taps");
    TW_REQUIRE(a.x && a.weight && a.y, "convolution: x, weight and y are needed");
    TW_REQUIRE((a.channels2 > 0) == (a.x2 != nullptr),
               "convolution: x2 and channels2 come together");
    TW_REQUIRE(!a.vector || a.vector_stride >= a.out_channels || a.batch == 1,
               "convolution: rows of vector overlap");
    TW_REQUIRE(!a.partial || rows_of_partial(a, c),
               "convolution: no statistics for this shape, see twk_conv_partials");
    TW_REQUIRE(c.splits == 1 || (a.workspace && a.workspace_bytes >= twk_conv_workspace(args)),
               "convolution: needs more workspace");
    if (a.format == TWK_F32)
        return a.tf32 ? launch_tensor<tf32>(a, c, stream) : launch_plain(a, c, stream);
    return a.format == TWK_BF16 ? launch_tensor<bf16>(a, c, stream)
                                : launch_tensor<f16>(a, c, stream);
}
