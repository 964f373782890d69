// What the convolutions' launchers share: whether the sizes are possible, which tile a call gets
// and in how many parts its sums are split, and the kernel that adds the parts up.
#pragma once

#include "conv.cuh"
#include "conv_box.cuh"
#include "gemm_tiles.cuh"

namespace tw {

struct ConvSizes {
    int64_t out_h, out_w, rows; // rows = batch * out_h * out_w
    int64_t k;                  // taps * input channels
};

// False where there is no output.
inline bool sizes_fit(const twk_conv_args &a, ConvSizes *s) {
    const int64_t most = 0x7fffffff;
    const int up = a.upsample ? 2 : 1;
    if (a.batch < 1 || a.h < 1 || a.w < 1 || a.channels < 1 || a.channels2 < 0 ||
        a.out_channels < 1 || a.kernel_h < 1 || a.kernel_w < 1 || a.stride < 1 || a.pad_top < 0 ||
        a.pad_left < 0 || a.pad_bottom < 0 || a.pad_right < 0)
        return false;
    if (a.h > most / up || a.w > most / up) return false;
    s->out_h = a.h * up + a.pad_top + a.pad_bottom - a.kernel_h;
    s->out_w = a.w * up + a.pad_left + a.pad_right - a.kernel_w;
    if (s->out_h < 0 || s->out_w < 0) return false;
    s->out_h = s->out_h / a.stride + 1;
    s->out_w = s->out_w / a.stride + 1;
    return true;
}

// Indices of pixels and of K are 32 bits wide in the kernels, those of elements 64.
inline bool indices_fit(const twk_conv_args &a, ConvSizes *s) {
    const int64_t most = 0x3fffffff;
    int64_t pixels, taps;
    if (__builtin_mul_overflow(a.h, a.w, &pixels) ||
        __builtin_mul_overflow(pixels, a.batch, &pixels) ||
        __builtin_mul_overflow(s->out_h, s->out_w, &s->rows) ||
        __builtin_mul_overflow(s->rows, a.batch, &s->rows))
        return false;
    taps = (int64_t)a.kernel_h * a.kernel_w;
    if (taps > most || (int64_t)a.channels + a.channels2 > most ||
        __builtin_mul_overflow(taps, (int64_t)a.channels + a.channels2, &s->k))
        return false;
    return pixels <= most && s->rows <= most && s->k <= most && s->out_h <= most &&
           s->out_w <= most && a.out_channels <= most && a.h * 2 <= most && a.w * 2 <= most &&
           (s->out_h - 1) * a.stride <= most && (s->out_w - 1) * a.stride <= most &&
           (int64_t)a.pad_top + a.kernel_h <= most / 2 &&
           (int64_t)a.pad_left + a.kernel_w <= most / 2;
}

// Where a call reads its image; `splits` parts of `tiles` tiles along K.
inline ConvInput input_of(const twk_conv_args &a, const ConvSizes &s, int tiles, int splits) {
    ConvInput in;
    in.x = a.x;
    in.x2 = a.x2;
    in.weight = a.weight;
    in.h = (int)a.h;
    in.w = (int)a.w;
    in.up = a.upsample ? 1 : 0;
    in.channels1 = a.channels;
    in.channels = a.channels + a.channels2;
    in.out_h = (int)s.out_h;
    in.out_w = (int)s.out_w;
    in.rows = (int)s.rows;
    in.out_channels = a.out_channels;
    in.kernel_h = a.kernel_h;
    in.kernel_w = a.kernel_w;
    in.stride = a.stride;
    in.pad_top = a.pad_top;
    in.pad_left = a.pad_left;
    in.k = in.k_row = (int)s.k;
    in.tiles = tiles;
    in.tiles_a_split = ceil_div(tiles, splits);
    return in;
}

template <typename MATH> using Tile128x128 = Tile<MATH, 128, 128, 2, 2>; // 64 x 64 a warp
template <typename MATH> using Tile64x64 = Tile<MATH, 64, 64, 2, 4>;     // 32 x 32 a warp
template <typename MATH> using Tile128x16 = Tile<MATH, 128, 16, 4, 4>;   // 32 x 16 a warp
using TilePlain = Tile<float, 128, 64, 4, 3>;

// What is multiplied: `rows` pixels in each of `classes` by `columns` channels, K up to k.
struct Product {
    int64_t rows, classes, columns, k;
    bool wide; // A comes in chunks of 16 bytes
    // For boxes of pixels, see boxes_refused: a class's pixels, the input's that lie between two
    // neighbours, tiles of 64 along K.
    int w = 0, h = 0, apart = 1, steps = 0;
    bool describable = false;
};

// Tiles of 64 along K where a tile lies within one tap and one tensor.
inline int box_steps(int64_t taps, int channels1, int channels2) {
    const int64_t steps = taps * (ceil_div(channels1, 64) + ceil_div(channels2, 64));
    return (int)smaller<int64_t>(steps, 0x3fffffff);
}

inline int64_t blocks_of(const Product &p, int bm, int bn) {
    return p.classes * ceil_div<int64_t>(p.rows, bm) * ceil_div<int64_t>(p.columns, bn);
}

struct TileChoice {
    twk_tile tile;
    int bm, bn;
    Parts parts;
    int tiles; // along K
    PixelBox box = {0, 0, 0};
    int64_t cycles = 0; // predicted
};

// Why TWK_TILE_128X256_TMA cannot serve a call, or NULL.
inline const char *boxes_refused(const twk_conv_args &a, const Product &p) {
    if (a.format == TWK_F32) return "convolution: boxes of pixels are for bf16 and fp16";
    if (!p.wide) return "convolution: boxes of pixels need aligned channels";
    if (!p.describable)
        return "convolution: boxes of pixels: an image read enlarged, or too many classes of them";
    if (p.apart > 8) return "convolution: boxes of pixels: a stride above 8";
    if (!device_limits().tma || device_limits().shared < 227 * 1024)
        return "convolution: boxes of pixels need TMA and wgmma: compute capability 9.0 and its "
               "code";
    return nullptr;
}

// 128 x 128 needs the fewest bytes of shared memory a product; 64 x 64 gives four times the blocks
// where the image is small, and is the only one that gathers unaligned channels; 128 x 16 wastes
// least on few channels.
inline twk_tile choose_tile(const twk_conv_args &a, const Product &p) {
    if (a.tile != TWK_TILE_AUTO) return a.tile;
    if (a.format == TWK_F32 && !a.tf32) return TWK_TILE_128X64;
    if (!p.wide) return TWK_TILE_64X64;
    if (p.columns <= 16) return TWK_TILE_128X16;
    return p.columns > 64 ? large_tile(a.format, blocks_of(p, 128, 128)) : TWK_TILE_64X64;
}

// Parts of the sum through the workspace: two blocks a processor, each with at least eight tiles
// along K to fill the pipeline for; a part more costs a pass over the output in fp32.
inline int choose_splits(int tiles, int64_t blocks) {
    const int64_t wanted = 2 * (int64_t)device_limits().processors / blocks;
    const int64_t most = smaller<int64_t>(tiles / 8, 16);
    return filled_parts((int)larger<int64_t>(1, smaller(wanted, most)), tiles);
}

// By boxes of no more than `most` pixels, in as many parts as are asked for or best.
inline TileChoice choose_boxes(const twk_conv_args &a, const Product &p, int most) {
    TileChoice c = {};
    c.tile = TWK_TILE_128X256_TMA;
    c.bm = box_pixels;
    c.bn = 128;
    c.tiles = p.steps;
    c.box = choose_box(p.w, p.h, a.batch, p.apart, most);
    const bool narrow = c.box.narrow();
    const int64_t count =
        p.classes * boxes_of(c.box, p.w, p.h, a.batch) * ceil_div<int64_t>(p.columns, c.bn);
    const int64_t elements = p.rows * p.classes * p.columns;
    const int parts =
        a.splits > 0 ? a.splits : specialised_splits(count, c.tiles, elements, narrow);
    c.parts = {filled_parts(parts, c.tiles), false};
    c.cycles = specialised_cycles(count, c.tiles, c.parts.count, elements, true, narrow);
    return c;
}

// Whole tiles or halves.
inline TileChoice choose_boxes(const twk_conv_args &a, const Product &p) {
    const TileChoice whole = choose_boxes(a, p, box_pixels);
    const TileChoice half = choose_boxes(a, p, box_pixels / 2);
    return half.cycles < whole.cycles ? half : whole;
}

// By another tile, likewise.
inline TileChoice choose_shared(const twk_conv_args &a, const Product &p, twk_tile tile) {
    TileChoice c = {};
    c.tile = tile;
    c.bm = tile == TWK_TILE_64X64 ? 64 : 128;
    c.bn = is_large(tile) ? 128 : tile == TWK_TILE_128X16 ? 16 : 64;
    c.tiles = (int)ceil_div<int64_t>(p.k, tile_row_bytes / (int)format_bytes(a.format));
    const int64_t count = blocks_of(p, c.bm, c.bn), elements = p.rows * p.classes * p.columns;
    c.parts = a.splits > 0 ? parts_asked_for(a.splits, c.tiles)
                           : best_parts(is_large(tile), count, c.tiles,
                                        choose_splits(c.tiles, count), elements);
    c.cycles = shared_cycles(is_large(tile), count, c.tiles, c.parts, elements);
    return c;
}

// Where there is wgmma, the tile that is predicted to take least time.
inline TileChoice choose(const twk_conv_args &a, const Product &p) {
    if (a.tile == TWK_TILE_128X256_TMA) return choose_boxes(a, p);
    TileChoice best = choose_shared(a, p, choose_tile(a, p));
    if (a.tile != TWK_TILE_AUTO || a.format == TWK_F32 || !p.wide || p.columns <= 64 ||
        !device_limits().wgmma)
        return best;
    for (twk_tile tile : {TWK_TILE_64X64, TWK_TILE_128X128_WGMMA, TWK_TILE_128X256_TMA}) {
        const bool boxes = tile == TWK_TILE_128X256_TMA;
        if (boxes && (!specialised_tiles || boxes_refused(a, p))) continue;
        const TileChoice c = boxes ? choose_boxes(a, p) : choose_shared(a, p, tile);
        if (c.cycles < best.cycles) best = c;
    }
    return best;
}

// Calls f with the tile's type and whether A is wide.
template <typename MATH, typename F>
twk_status with_tensor_tile(twk_tile tile, bool wide, const F &f) {
    if (!wide) {
        if (tile == TWK_TILE_64X64) return f(Tile64x64<MATH>{}, std::false_type{});
        return fail(TWK_UNSUPPORTED, "convolution: this tile needs aligned channels");
    }
    switch (tile) {
    case TWK_TILE_128X128:
        return f(Tile128x128<MATH>{}, std::true_type{});
    case TWK_TILE_64X64:
        return f(Tile64x64<MATH>{}, std::true_type{});
    case TWK_TILE_128X16:
        return f(Tile128x16<MATH>{}, std::true_type{});
    case TWK_TILE_128X128_WGMMA:
        if constexpr (sizeof(typename StorageOf<MATH>::Type) == 2) {
            if (device_limits().wgmma) return f(WarpgroupTile<MATH>{}, std::true_type{});
        }
        break;
    default:
        break;
    }
    return fail(TWK_UNSUPPORTED, "convolution: not with this tile");
}

template <typename F>
twk_status with_tile(const twk_conv_args &a, twk_tile tile, bool wide, const F &f) {
    if (a.format == TWK_BF16) return with_tensor_tile<bf16>(tile, wide, f);
    if (a.format == TWK_F16) return with_tensor_tile<f16>(tile, wide, f);
    if (a.tf32) return with_tensor_tile<tf32>(tile, wide, f);
    if (tile != TWK_TILE_128X64)
        return fail(TWK_UNSUPPORTED, "convolution: exact fp32 has tiles of 128 x 64 only");
    return wide ? f(TilePlain{}, std::true_type{}) : f(TilePlain{}, std::false_type{});
}

// The grid and the block of a kernel that multiplies.
template <typename TILE>
twk_status tiled_config(const Product &p, const Parts &parts, twk_stream stream,
                        LaunchConfig *config) {
    if (!grid_for(blocks_of(p, TILE::bm, TILE::bn) * parts.blocks(), 1, &config->grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config->grid.y = (unsigned)parts.slices();
    config->cluster = (unsigned)parts.blocks();
    config->block = dim3(tile_threads);
    config->shared = TILE::shared;
    config->stream = stream;
    if (config->shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "convolution: the device has too little shared memory");
    return TWK_OK;
}

constexpr int gather_size = 64, gather_ld = gather_size + 8;

// Work: a block owns 64 pixels by 64 channels of a split sum and adds the slices, first to last.
// Limit: L2, which holds the slices.
template <typename T, typename E>
__global__ void __launch_bounds__(tile_threads) conv_gather_kernel(const E e, int splits) {
    TW_SHARED(arena);
    float *d = arena.take<float>(gather_size * gather_ld);
    const int across = ceil_div(e.columns, gather_size);
    const int row0 = (int)blockIdx.x / across * gather_size;
    const int column0 = (int)blockIdx.x % across * gather_size;
    gather_slices<gather_size, gather_size, gather_ld>(e, d, row0, column0, splits);
    finish_tile<T, gather_size, gather_ld>(e, d, gather_size, row0, column0);
}

template <typename T, typename E>
twk_status launch_gather(const E &e, int splits, twk_stream stream) {
    LaunchConfig config;
    if (!grid_for(ceil_div<int64_t>(e.rows, gather_size) * ceil_div(e.columns, gather_size), 1,
                  &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    config.block = dim3(tile_threads);
    config.shared = shared_bytes<float>(gather_size * gather_ld);
    config.stream = stream;
    return TW_LAUNCH((conv_gather_kernel<T, E>), config, e, splits);
}

} // namespace tw
