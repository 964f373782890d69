// Convolution forward: an implicit matrix product over output pixels, output channels and taps.
#include "conv_few.cuh"
#include "conv_specialised.cuh"

namespace tw {
namespace {

// Work: a block of four warps owns a tile of BM output pixels (of one image or several) by BN
// output channels and, where the sum is split, a part of it; neighbouring blocks share their
// pixels. A thread copies one 16-byte chunk of every 32nd row, three tiles ahead, and holds its
// share of the sums in registers. Limit: by wgmma L2 (16 KB for 2^20 FLOPs) and shared memory, see
// gemm_warpgroup.cuh; the tensor cores through mma.sync at 128 x 128 (a warp reads 4 KB of shared
// memory for 65536 multiply-adds, about 3/4 of what it gives meanwhile); shared memory at 64 x 64;
// device memory where channels or taps are few; the fp32 units in exact fp32.
template <typename TILE, bool WIDE>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    conv_kernel(const ConvInput in, const Epilogue e) {
    using T = typename TILE::Storage;
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::shared);
        const int across = ceil_div(in.out_channels, TILE::bn);
        const TilePart part = tile_part(blockIdx.y);
        const int row0 = part.tile / across * TILE::bm, column0 = part.tile % across * TILE::bn;
        const int first = smaller(part.split * in.tiles_a_split, in.tiles);
        const int tiles = smaller(in.tiles_a_split, in.tiles - first);
        ImageRows<TILE, WIDE> a(in, row0, first);
        WeightRows<TILE, WIDE> b(in, column0, first);
        float *const d = multiply_tiles<TILE>(memory, a, b, tiles);
        if (e.slices) {
            leave_slice<TILE::bm, TILE::bn, TILE::ld>(e, d, row0, column0, part.split);
        } else {
            const RowShare mine = gather_cluster<TILE::bm, TILE::bn, TILE::ld>(d);
            finish_tile<T, TILE::bn, TILE::ld>(e, d + mine.first * TILE::ld, mine.count,
                                               row0 + mine.first, column0);
        }
    }
}

enum class Way { tiles, phases, few_inputs, few_outputs };

// What a call is going to do; depends on the arguments and the number of processors.
struct Choice {
    Way way;
    ConvSizes size;
    Product product;
    TileChoice tile;
    PhasePlan phases;
};

ConvInput input_of(const twk_conv_args &a, const Choice &c) {
    return input_of(a, c.size, c.tile.tiles, c.tile.parts.count);
}

// An upsampled image in phases. False where the sizes do not fit.
bool fold(const twk_conv_args &a, Choice *c) {
    const int per = 16 / (int)format_bytes(a.format), channels = a.channels + a.channels2;
    const int64_t taps = (int64_t)a.kernel_h * a.kernel_w;
    PhasePlan &plan = c->phases;
    plan.phases.y = upsampled_axis((int)c->size.out_h, a.kernel_h, a.pad_top, a.stride);
    plan.phases.x = upsampled_axis((int)c->size.out_w, a.kernel_w, a.pad_left, a.stride);
    plan.phases.round = per;
    plan.laying = {a.weight, a.workspace, a.out_channels, channels, taps * channels, 1, channels};
    ConvInput &in = plan.in;
    in = {};
    in.x = a.x;
    in.x2 = a.x2;
    in.weight = a.workspace;
    in.h = (int)a.h;
    in.w = (int)a.w;
    in.channels1 = a.channels;
    in.channels = channels;
    in.rows = (int)a.batch;
    in.out_channels = a.out_channels;
    in.stride = plan.phases.y.step;
    plan.product.wide = c->product.wide;
    if (!complete(a, &plan)) return false;
    c->product = plan.product;
    c->tile = plan.tile;
    return true;
}

// False where the sizes do not fit.
bool choose(const twk_conv_args &a, Choice *c) {
    if (!is_format(a.format) || !sizes_fit(a, &c->size) || !indices_fit(a, &c->size)) return false;
    const int per = 16 / (int)format_bytes(a.format);
    c->way = a.upsample && a.fold ? Way::phases : Way::tiles;
    c->product.wide = a.channels % per == 0 && a.channels2 % per == 0 && aligned_16(a.x) &&
                      aligned_16(a.x2) && (c->way == Way::phases || aligned_16(a.weight));
    if (c->way == Way::phases) return fold(a, c);
    c->product.rows = c->size.rows;
    c->product.classes = 1;
    c->product.columns = a.out_channels;
    c->product.k = c->size.k;
    c->product.w = (int)c->size.out_w;
    c->product.h = (int)c->size.out_h;
    c->product.apart = a.stride;
    c->product.steps = box_steps((int64_t)a.kernel_h * a.kernel_w, a.channels, a.channels2);
    c->product.describable = !a.upsample;
    c->tile = choose(a, c->product);
    const ConvInput in = input_of(a, *c);
    if (takes_few_inputs(a, in)) {
        c->way = Way::few_inputs;
        c->tile = {TWK_TILE_AUTO, few_inputs_bm, few_inputs_bn, {1, false}, 1};
    } else if (takes_few_outputs(a, in, c->product.wide)) {
        c->way = Way::few_outputs;
        c->tile.parts = {1, false};
    }
    return true;
}

int64_t common(int64_t a, int64_t b) {
    return b ? common(b, a % b) : a;
}

// Rows of a partial: of one sample and in one tile. 0 where statistics cannot be left behind.
int64_t rows_of_partial(const twk_conv_args &a, const Choice &c) {
    if (a.groups < 1 || a.out_channels % a.groups || c.way == Way::few_outputs) return 0;
    const bool split = c.tile.parts.slices() > 1;
    const bool boxes = c.tile.tile == TWK_TILE_128X256_TMA && !split;
    const int bm = split ? gather_size : boxes ? boxed_chunk : c.tile.bm / c.tile.parts.blocks();
    const int bn = split ? gather_size : c.tile.bn;
    if (bn % (a.out_channels / a.groups)) return 0;
    int64_t h = c.size.out_h, w = c.size.out_w;
    if (c.way == Way::phases && !split) { // a tile's pixels are of one class; all have as many
        const PhaseAxis &y = c.phases.phases.y, &x = c.phases.phases.x;
        if (h % y.classes || w % x.classes) return 0;
        h /= y.classes;
        w /= x.classes;
    }
    if (boxes) { // the pixels of a box that are of one image
        const PixelBox &box = c.tile.box;
        if (h % box.h || w % box.w) return 0;
        h = box.h;
        w = box.w;
    }
    const int64_t rows = common(h * w, bm);
    return rows < 8 && rows < h * w ? 0 : rows; // more would be a flood
}

size_t workspace_of(const twk_conv_args &a, const Choice &c) {
    if (c.way == Way::phases) return c.phases.weight_bytes + c.phases.slice_bytes;
    const int slices = c.tile.parts.slices();
    if (slices == 1) return 0;
    return (size_t)slices * (size_t)c.size.rows * (size_t)a.out_channels * sizeof(float);
}

float *slices_of(const twk_conv_args &a, const Choice &c) {
    if (c.way == Way::phases) return slices_of(c.phases, a.workspace);
    return c.tile.parts.slices() > 1 ? static_cast<float *>(a.workspace) : nullptr;
}

Epilogue epilogue_of(const twk_conv_args &a, const Choice &c) {
    const int per = 16 / (int)format_bytes(a.format);
    const int area = (int)(c.size.out_h * c.size.out_w);
    Epilogue e;
    e.rows = (int)c.size.rows;
    e.columns = a.out_channels;
    e.rows_per_sample = area;
    e.bias = a.bias;
    e.vector = a.vector;
    e.vector_stride = a.vector_stride;
    e.residual = a.residual;
    e.scale = a.scale == 0.0f ? 1.0f : a.scale;
    e.silu = a.silu;
    e.y = a.y;
    e.wide = a.out_channels % per == 0 && aligned_16(a.y) && aligned_16(a.residual) &&
             (!a.vector || (aligned_16(a.vector) && a.vector_stride % per == 0));
    e.slices = slices_of(a, c);
    e.partial = a.partial;
    e.groups = a.groups;
    e.group_columns = a.partial ? a.out_channels / a.groups : 1;
    e.rows_per_partial = a.partial ? (int)rows_of_partial(a, c) : 1;
    e.n_partials = area / e.rows_per_partial;
    return e;
}

twk_status launch_plain_boxes(const twk_conv_args &a, const Choice &c, const Epilogue &e,
                              twk_stream stream) {
    BoxedConv b = {};
    b.classes_y = b.classes_x = 1;
    b.y[0] = {(int)c.size.out_h, a.kernel_h, a.pad_top};
    b.x[0] = {(int)c.size.out_w, a.kernel_w, a.pad_left};
    b.out_h = b.y[0].size;
    b.out_w = b.x[0].size;
    const BoxWeights w = {a.weight, (int64_t)a.kernel_h * a.kernel_w, a.channels + a.channels2,
                          c.size.k, c.size.k};
    return with_boxes(a, c.product, c.tile, &b, input_of(a, c), w, e, stream);
}

template <typename TILE, bool WIDE>
twk_status launch(const Choice &c, const ConvInput &in, const Epilogue &e, twk_stream stream) {
    LaunchConfig config;
    twk_status status = tiled_config<TILE>(c.product, c.tile.parts, stream, &config);
    if (status != TWK_OK) return status;
    status = TW_LAUNCH((conv_kernel<TILE, WIDE>), config, in, e);
    if (status != TWK_OK || !e.slices) return status;
    return launch_gather<typename TILE::Storage>(e, c.tile.parts.count, stream);
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" int64_t twk_conv_out_h(const twk_conv_args *args) {
    ConvSizes s;
    return args && sizes_fit(*args, &s) ? s.out_h : 0;
}
extern "C" int64_t twk_conv_out_w(const twk_conv_args *args) {
    ConvSizes s;
    return args && sizes_fit(*args, &s) ? s.out_w : 0;
}

extern "C" int64_t twk_conv_partials(const twk_conv_args *args, int64_t *pixels_per_partial) {
    Choice c;
    const int64_t rows = args && choose(*args, &c) ? rows_of_partial(*args, c) : 0;
    if (pixels_per_partial) *pixels_per_partial = rows;
    return rows ? c.size.out_h * c.size.out_w / rows : 0;
}

extern "C" size_t twk_conv_workspace(const twk_conv_args *args) {
    Choice c;
    return args && choose(*args, &c) ? workspace_of(*args, c) : 0;
}

extern "C" twk_status twk_conv_forward(const twk_conv_args *args, twk_stream stream) {
    TW_REQUIRE(args, "convolution: no arguments");
    const twk_conv_args &a = *args;
    Choice c = {};
    TW_REQUIRE(is_format(a.format), "convolution: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "convolution: tf32 is a way to multiply fp32");
    TW_REQUIRE((unsigned)a.tile <= TWK_TILE_128X256_TMA, "convolution: unknown tile");
    TW_REQUIRE(sizes_fit(a, &c.size), "convolution: sizes, strides and padding leave no output");
    if (!choose(a, &c)) return fail(TWK_UNSUPPORTED, "convolution: more than 2^30 pixels or taps");
    TW_REQUIRE(a.x && a.weight && a.y, "convolution: x, weight and y are needed");
    TW_REQUIRE((a.channels2 > 0) == (a.x2 != nullptr),
               "convolution: x2 and channels2 come together");
    TW_REQUIRE(!a.vector || a.vector_stride >= a.out_channels || a.batch == 1,
               "convolution: rows of vector overlap");
    TW_REQUIRE(!a.partial || rows_of_partial(a, c),
               "convolution: no statistics for this shape, see twk_conv_partials");
    const size_t needed = workspace_of(a, c);
    TW_REQUIRE(!needed || (a.workspace && aligned_16(a.workspace) && a.workspace_bytes >= needed),
               "convolution: needs more workspace, at a multiple of 16 bytes");
    const Epilogue e = epilogue_of(a, c);
    const bool boxes = c.tile.tile == TWK_TILE_128X256_TMA;
    if (c.way == Way::phases)
        return boxes ? launch_boxed_phases(a, c.phases, e, stream)
                     : launch_phases(a, c.phases, e, stream);
    if (c.way == Way::few_inputs) return launch_few_inputs(a, input_of(a, c), e, stream);
    if (c.way == Way::few_outputs) return launch_few_outputs(a, input_of(a, c), e, stream);
    if (boxes) return launch_plain_boxes(a, c, e, stream);
    return with_tile(a, c.tile.tile, c.product.wide, [&](auto tile, auto wide) {
        return launch<decltype(tile), decltype(wide)::value>(c, input_of(a, c), e, stream);
    });
}
