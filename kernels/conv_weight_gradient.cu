// Convolution, gradient of its weights and bias.
#include "conv_tiles.cuh"
#include "conv_weight_boxed.cuh"
#include "conv_weight_gradient.cuh"
#include "slices.cuh"

#include <utility>

namespace tw {
namespace {

template <typename MATH> using Tile16x128 = Tile<MATH, 16, 128, 1, 4>; // 16 x 32 a warp
template <typename MATH> using Tile128x32 = Tile<MATH, 128, 32, 4, 4>; // 32 x 32 a warp

// Work: a block of four warps owns a tile of BM channels of A by BN columns of B (one tap or
// several, and their channels) and a part of the batch's pixels; the blocks beside it read the same
// A and, a pixel or a line away, the same image, which L2 gives them. A thread copies one chunk of
// 16 bytes of every 8th pixel (at 128 x 128) three tiles ahead, the same tap and channels
// throughout. Limit: by wgmma 16 KB from L2 for 2^20 FLOPs (5 TB/s at 40 % of the reference's
// tensor rate), then 8 bytes a weight and part for the slices; the tensor cores through mma.sync at
// 128 x 128; shared memory at 64 x 64, the gathering of single elements at 128 x 32, which device
// memory should bind, the fp32 units in exact fp32.
template <typename TILE, bool WIDE, bool TURNED>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    weight_gradient_kernel(const WeightGradient g) {
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::shared);
        const int across = ceil_div(g.columns, TILE::bn);
        const int row0 = (int)blockIdx.x / across * TILE::bm;
        const int column0 = (int)blockIdx.x % across * TILE::bn;
        const int split = (int)blockIdx.y, first = split * g.conv.tiles_a_split;
        PlainColumns<TILE, WIDE> a(g, row0, first);
        ImageColumns<TILE, WIDE> b(g, column0, first);
        GradientSums<TILE, TURNED> sums(g, row0, column0);
        float *const d = multiply_tiles<TILE, Form::columns, Form::columns>(
            memory, a, b, smaller(g.conv.tiles_a_split, g.conv.tiles - first), sums);
        if constexpr (TURNED)
            leave_turned<TILE>(g, d, row0, column0, split);
        else if (g.slices)
            leave_slice<TILE::bm, TILE::bn, TILE::ld>(g, d, row0, column0, split);
        else
            add_tile<TILE::bn, TILE::ld>(g.dweight, g.rows, g.columns, g.scale, d, TILE::bm, row0,
                                         column0);
        sums.leave(g, d, split);
    }
}

// What a call is going to do; depends on the arguments and the number of processors.
struct Choice {
    ConvSizes size;
    twk_tile tile;
    bool turned, wide_x, wide_dy;
    int64_t rows, columns, pixels; // of the product; pixels are K
    int bm, bn, splits, tiles;
    int across;   // tiles along the columns
    PixelBox box; // of TWK_TILE_128X256_TMA
};

// Where output channels are few and a tap sees all of dy, every pixel under itself.
bool may_turn(const twk_conv_args &a, const Choice &c) {
    return a.tile == TWK_TILE_AUTO && c.wide_x && a.channels >= 64 && !a.channels2 && !a.upsample &&
           a.stride == 1 && a.out_channels <= 8 && c.size.k / a.channels * a.out_channels <= 64 &&
           a.pad_top < a.kernel_h && a.pad_left < a.kernel_w && c.size.out_h <= a.h &&
           c.size.out_w <= a.w;
}

twk_tile choose_tile(const twk_conv_args &a, const Choice &c) {
    if (a.tile != TWK_TILE_AUTO) return a.tile;
    if (a.format == TWK_F32 && !a.tf32) return TWK_TILE_128X64;
    if (c.turned) return TWK_TILE_128X32;
    if (c.rows <= 16) return TWK_TILE_16X128;
    // Gathered one by one, elements should serve as many rows as possible.
    if (!c.wide_x && c.wide_dy && c.rows > 64) return TWK_TILE_128X32;
    if (!c.wide_x || !c.wide_dy || c.rows <= 64 || c.columns <= 64) return TWK_TILE_64X64;
    // The large tile where it gives a block to enough processors with the pixels in parts of eight
    // tiles.
    const int64_t blocks = ceil_div<int64_t>(c.rows, 128) * ceil_div<int64_t>(c.columns, 128);
    const int64_t parts = larger(1, c.tiles / 8);
    return large_tile(a.format, blocks * parts);
}

void choose_sizes(twk_tile tile, Choice *c) {
    c->bm = tile == TWK_TILE_64X64 ? 64 : tile == TWK_TILE_16X128 ? 16 : 128;
    c->bn = tile == TWK_TILE_64X64 || tile == TWK_TILE_128X64 ? 64
            : tile == TWK_TILE_128X32                         ? 32
                                                              : 128;
}

int64_t bias_parts(const Choice &c) {
    return (int64_t)c.splits * (c.turned ? 1 : c.across);
}

int64_t blocks_of(const Choice &c) {
    return ceil_div<int64_t>(c.rows, c.bm) * c.across;
}

// The sum in as many parts as are asked for, or best.
void split_pixels(const twk_conv_args &a, Choice *c) {
    const int64_t blocks = blocks_of(*c), elements = c->rows * c->columns;
    const int resident = is_large(c->tile) ? 2 : c->tile == TWK_TILE_128X64 ? 3 : 4;
    if (a.splits > 0)
        c->splits = smaller(smaller(a.splits, c->tiles), 65535);
    else if (c->tile == TWK_TILE_128X256_TMA)
        c->splits = specialised_parts(blocks, c->tiles, elements);
    else
        c->splits = choose_parts(blocks, resident, c->tiles, elements);
    c->splits = ceil_div(c->tiles, ceil_div(c->tiles, c->splits)); // none is empty
}

// By boxes of pixels.
Choice boxed(const twk_conv_args &a, Choice c) {
    const int classes = gradient_classes(a);
    c.tile = TWK_TILE_128X256_TMA;
    c.bm = 128;
    c.bn = 256;
    c.box = choose_gradient_box((int)ceil_div<int64_t>(c.size.out_w, classes),
                                (int)ceil_div<int64_t>(c.size.out_h, classes), a.batch,
                                larger(gradient_apart(a), classes));
    c.tiles = gradient_steps(a, c.size, c.box);
    c.across = gradient_across(a);
    split_pixels(a, &c);
    return c;
}

// Whether they are predicted to take less time.
bool boxes_pay(const Choice &boxes, const Choice &other) {
    const int64_t elements = boxes.rows * boxes.columns;
    return specialised_cycles(blocks_of(boxes), boxes.tiles, boxes.splits, elements, false) <
           shared_cycles(is_large(other.tile), blocks_of(other), other.tiles, {other.splits, false},
                         elements);
}

// False where the sizes do not fit.
bool choose(const twk_conv_args &a, Choice *c) {
    if (!is_format(a.format) || !sizes_fit(a, &c->size) || !indices_fit(a, &c->size)) return false;
    // Steps from pixel to pixel are added to places in the image before they are wrapped around.
    if (c->size.out_h > 0x1fffffff / a.stride || c->size.out_w > 0x1fffffff / a.stride)
        return false;
    const int per = 16 / (int)format_bytes(a.format);
    c->wide_x =
        a.channels % per == 0 && a.channels2 % per == 0 && aligned_16(a.x) && aligned_16(a.x2);
    c->wide_dy = a.out_channels % per == 0 && aligned_16(a.dy);
    const bool wide = c->wide_x && c->wide_dy;
    const bool boxes = !gradient_boxes_refused(a, wide);
    c->turned = may_turn(a, *c);
    c->rows = c->turned ? a.channels : a.out_channels;
    c->columns = c->turned ? c->size.k / a.channels * a.out_channels : c->size.k;
    c->pixels = c->turned ? a.batch * a.h * a.w : c->size.rows;
    c->tiles = (int)ceil_div<int64_t>(c->pixels, tile_row_bytes / (int)format_bytes(a.format));
    c->tile = choose_tile(a, *c);
    choose_sizes(c->tile, c);
    c->across = (int)ceil_div<int64_t>(c->columns, c->bn);
    split_pixels(a, c);
    if (a.tile == TWK_TILE_128X256_TMA && boxes) {
        *c = boxed(a, *c);
    } else if (specialised_tiles && a.tile == TWK_TILE_AUTO && boxes && !c->turned &&
               c->rows > 64 && c->columns > 64) {
        const Choice other = boxed(a, *c);
        if (boxes_pay(other, *c)) *c = other;
    }
    return c->rows * c->columns < (int64_t)1 << 40 && bias_parts(*c) < 0x7fffffff;
}

// Elements of the slices, and behind them of the bias's.
int64_t slice_elements(const Choice &c) {
    return c.splits == 1 ? 0 : c.splits * c.rows * c.columns;
}
size_t workspace_of(const twk_conv_args &a, const Choice &c) {
    const int64_t bias = a.dbias ? bias_parts(c) * a.out_channels : 0;
    return (size_t)(slice_elements(c) + bias) * sizeof(float);
}

ConvInput input_of(const twk_conv_args &a, const Choice &c) {
    ConvInput in = input_of(a, c.size, c.tiles, c.splits);
    if (!c.turned) return in;
    in.x = a.dy;
    in.channels1 = in.channels = a.out_channels;
    std::swap(in.h, in.out_h);
    std::swap(in.w, in.out_w);
    in.rows = (int)c.pixels;
    in.pad_top = a.kernel_h - 1 - a.pad_top;
    in.pad_left = a.kernel_w - 1 - a.pad_left;
    in.k = (int)c.columns;
    return in;
}

WeightGradient gradient_of(const twk_conv_args &a, const Choice &c, int pass) {
    WeightGradient g;
    g.conv = input_of(a, c);
    g.plain = c.turned ? a.x : a.dy;
    g.wide_image = c.turned ? c.wide_dy : c.wide_x;
    g.wide_plain = c.turned ? c.wide_x : c.wide_dy;
    g.batch = (int)a.batch;
    const int out_h = g.conv.out_h, out_w = g.conv.out_w;
    g.pass_samples = pass / out_w / out_h;
    g.pass_y = pass / out_w % out_h * a.stride;
    g.pass_x = pass % out_w * a.stride;
    g.end_y = out_h * a.stride;
    g.end_x = out_w * a.stride;
    g.rows = (int)c.rows;
    g.columns = (int)c.columns;
    g.bias_column = c.turned ? (g.conv.pad_top * a.kernel_w + g.conv.pad_left) * a.out_channels : 0;
    g.dweight = a.dweight;
    float *const workspace = static_cast<float *>(a.workspace);
    g.slices = c.splits > 1 ? workspace : nullptr;
    g.bias_slices = a.dbias ? workspace + slice_elements(c) : nullptr;
    g.scale = a.scale == 0.0f ? 1.0f : a.scale;
    return g;
}

twk_status add_parts_up(const twk_conv_args &a, const Choice &c, const float *slices,
                        const float *bias_slices, float scale, twk_stream stream) {
    if (!slices && !bias_slices) return TWK_OK;
    SliceSum weights = {a.dweight, slices, c.rows * c.columns, 0, c.splits};
    SliceSum bias = {a.dbias, bias_slices, a.out_channels, 0, (int)bias_parts(c)};
    if (!slices) weights.elements = 0;
    if (!bias_slices) bias.elements = 0;
    return add_slices(weights, bias, scale, 1, stream);
}

template <typename MATH>
twk_status launch_boxes(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    const char *const refused = gradient_boxes_refused(a, c.wide_x && c.wide_dy);
    if (refused) return fail(TWK_UNSUPPORTED, refused);
    float *const workspace = static_cast<float *>(a.workspace);
    BoxedGradient g = {};
    g.rows = (int)c.rows;
    g.columns = (int)c.columns;
    g.dweight = a.dweight;
    g.slices = c.splits > 1 ? workspace : nullptr;
    g.bias_slices = a.dbias ? workspace + slice_elements(c) : nullptr;
    g.scale = a.scale == 0.0f ? 1.0f : a.scale;
    const twk_status launched =
        launch_gradient_boxes<MATH>(a, c.size, c.box, c.tiles, c.splits, g, stream);
    return launched == TWK_OK ? add_parts_up(a, c, g.slices, g.bias_slices, g.scale, stream)
                              : launched;
}

template <typename TILE, bool WIDE, bool TURNED = false>
twk_status launch(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    LaunchConfig config;
    const Product product = {c.rows, 1, c.columns, c.pixels, WIDE};
    const twk_status status = tiled_config<TILE>(product, {c.splits, false}, stream, &config);
    if (status != TWK_OK) return status;
    const int pass = ColumnSlot<typename TILE::Storage, TILE::bn>::pass;
    const WeightGradient g = gradient_of(a, c, pass);
    const twk_status launched = TW_LAUNCH((weight_gradient_kernel<TILE, WIDE, TURNED>), config, g);
    return launched == TWK_OK ? add_parts_up(a, c, g.slices, g.bias_slices, g.scale, stream)
                              : launched;
}

template <typename MATH>
twk_status launch_tensor(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    const bool wide = c.wide_x && c.wide_dy;
    if (c.turned) return launch<Tile128x32<MATH>, false, true>(a, c, stream);
    if (c.tile == TWK_TILE_64X64)
        return wide ? launch<Tile64x64<MATH>, true>(a, c, stream)
                    : launch<Tile64x64<MATH>, false>(a, c, stream);
    if (c.tile == TWK_TILE_16X128) return launch<Tile16x128<MATH>, false>(a, c, stream);
    if (c.tile == TWK_TILE_128X32) return launch<Tile128x32<MATH>, false>(a, c, stream);
    if (c.tile == TWK_TILE_128X128 && wide) return launch<Tile128x128<MATH>, true>(a, c, stream);
    if constexpr (sizeof(typename StorageOf<MATH>::Type) == 2) {
        if (c.tile == TWK_TILE_128X256_TMA) return launch_boxes<MATH>(a, c, stream);
        if (c.tile == TWK_TILE_128X128_WGMMA && wide && device_limits().wgmma)
            return launch<WarpgroupTile<MATH>, true>(a, c, stream);
    }
    return fail(TWK_UNSUPPORTED, "convolution weight gradient: not with this tile");
}

twk_status launch_plain(const twk_conv_args &a, const Choice &c, twk_stream stream) {
    if (c.tile != TWK_TILE_128X64)
        return fail(TWK_UNSUPPORTED, "convolution weight gradient: not with this tile");
    if (c.turned) return launch<TilePlain, false, true>(a, c, stream);
    return c.wide_x && c.wide_dy ? launch<TilePlain, true>(a, c, stream)
                                 : launch<TilePlain, false>(a, c, stream);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_conv_weight_gradient_workspace(const twk_conv_args *args) {
    Choice c;
    return args && choose(*args, &c) ? workspace_of(*args, c) : 0;
}

extern "C" twk_status twk_conv_weight_gradient(const twk_conv_args *args, twk_stream stream) {
    TW_REQUIRE(args, "convolution weight gradient: no arguments");
    const twk_conv_args &a = *args;
    Choice c = {};
    TW_REQUIRE(is_format(a.format), "convolution weight gradient: format: expected fp32, bf16 or "
                                    "fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32,
               "convolution weight gradient: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X256_TMA,
               "convolution weight gradient: unknown tile");
    TW_REQUIRE(sizes_fit(a, &c.size),
               "convolution weight gradient: sizes, strides and padding leave no output");
    if (!choose(a, &c))
        return fail(TWK_UNSUPPORTED, "convolution weight gradient: more than 2^30 pixels or taps");
    TW_REQUIRE(!a.silu, "convolution weight gradient: none through the activation");
    TW_REQUIRE(a.x && a.dy && a.dweight, "convolution weight gradient: needs x, dy and dweight");
    TW_REQUIRE((a.channels2 > 0) == (a.x2 != nullptr),
               "convolution weight gradient: x2 and channels2 come together");
    const size_t needed = workspace_of(a, c);
    TW_REQUIRE(!needed || (a.workspace && a.workspace_bytes >= needed),
               "convolution weight gradient: needs more workspace");
    if (a.format == TWK_F32)
        return a.tf32 ? launch_tensor<tf32>(a, c, stream) : launch_plain(a, c, stream);
    return a.format == TWK_BF16 ? launch_tensor<bf16>(a, c, stream)
                                : launch_tensor<f16>(a, c, stream);
}
