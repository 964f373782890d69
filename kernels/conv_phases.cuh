// Convolutions whose output is calculated class by class: the pixels whose row and column leave the
// same remainder, which the same taps reach. Each class is an ordinary convolution of the source
// with a kernel of its own, so that no product is wasted on zeros between or in duplicates of
// pixels:
//   - the gradient of a convolution's input, from the source dy. At stride 2 a 3 x 3 kernel falls
//     apart into 4 + 2 + 2 + 1 taps. An upsampled pixel collects what its 2 x 2 pixels would: one
//     kernel, one row and column larger, read at twice the stride;
//   - the convolution of an upsampled image, whose 3 x 3 taps fall on 2 x 2 pixels of the source.
// The kernels of all classes are laid down in the workspace first, [class][columns][taps][source's
// channels], taps that fall on one pixel added up in fp32 and rounded once.
#pragma once

#include "conv_tiles.cuh"

namespace tw {

// One axis of such an output.
struct PhaseAxis {
    int size;                    // pixels
    int classes;                 // of pixels: their place modulo this
    int step;                    // source pixels between neighbours of a class
    int kernel, pad, stride, up; // of the convolution; up: what 1 pixel of x is read as
    bool gradient;
};

// A class along one axis: how many pixels it has, how many taps, and how far its first pixel's
// first tap lies before source pixel 0.
struct Phase {
    int size, taps, pad;
};

TW_BOTH PhaseAxis gradient_axis(int size, int kernel, int pad, int stride, int up) {
    const int both = up == 2 && stride % 2 == 0 ? 2 : 1;
    return PhaseAxis{size, stride / both, up / both, kernel, pad, stride, up, true};
}
TW_BOTH PhaseAxis upsampled_axis(int size, int kernel, int pad, int stride) {
    const int both = stride % 2 == 0 ? 2 : 1;
    return PhaseAxis{size, 2 / both, stride / both, kernel, pad, stride, 2, false};
}

// Gradient: tap r of the convolution takes x's pixel p, which is `classes` i + c, to pixel
// (up p + d + pad - r) / stride of dy where that is whole, for d = 0 .. up - 1. Over r - d those
// are `up` kernels added, each a pixel further.
// Upsampled: tap r brings pixel (stride q - pad + r) / 2, rounded down, to pixel q.
TW_BOTH Phase phase_of(const PhaseAxis &x, int c) {
    Phase p;
    p.size = ceil_div(x.size - c, x.classes);
    if (x.gradient) {
        const int at = x.up * c + x.pad + x.up - 1, first = at % x.stride;
        p.taps = ceil_div(larger(x.kernel + x.up - 1 - first, 0), x.stride);
        p.pad = p.taps - 1 - at / x.stride;
    } else {
        const int at = x.stride * c - x.pad;
        p.taps = ((at + x.kernel - 1) >> 1) - (at >> 1) + 1;
        p.pad = -(at >> 1);
    }
    return p;
}

// The first of the `up` taps of the convolution that make tap t of the class; some may not exist.
TW_BOTH int first_tap(const PhaseAxis &x, const Phase &p, int c, int t) {
    if (!x.gradient) return 2 * (t - p.pad) - (x.stride * c - x.pad);
    return (x.up * c + x.pad + x.up - 1) % x.stride + x.stride * (p.taps - 1 - t) - (x.up - 1);
}

TW_BOTH int most_taps(const PhaseAxis &x) {
    return x.gradient ? ceil_div(x.kernel + x.up - 1, x.stride) : x.kernel / 2 + 1;
}

struct Phases {
    PhaseAxis y, x;
    int64_t class_elements; // from the weights of one class to those of the next
    int round;              // rows of weights are whole multiples of this many elements apart
};

// From one row of a class's weights to the next: as many in every class.
TW_BOTH int row_elements(const Phases &p, int channels) {
    return ceil_div(most_taps(p.y) * most_taps(p.x) * channels, p.round) * p.round;
}

// What the weights are laid down from: element (column, source channel, tap) lies at
// column * column_stride + channel * channel_stride + tap * tap_stride.
struct Laying {
    const void *from;
    void *to;
    int columns, channels; // of the source
    int64_t column_stride, channel_stride, tap_stride;
};

constexpr int laying_size = 32, laying_threads = 256;

// Work: a block turns 32 columns by 32 source channels of one tap of one class around in shared
// memory, so that both sides are reached in whole lines.
// Limit: latency; the weights are small beside the images.
template <typename T>
__global__ void __launch_bounds__(laying_threads, 4)
    conv_lay_kernel(const Laying in, const Phases p) {
    constexpr int n = laying_size, ld = n + 1;
    TW_SHARED(arena);
    float *tile = arena.take<float>(n * ld);
    const int across = ceil_div(in.channels, n), down = ceil_div(in.columns, n);
    const int taps_y = most_taps(p.y), taps_x = most_taps(p.x);
    int block = (int)blockIdx.x;
    const int channel0 = block % across * n;
    block /= across;
    const int column0 = block % down * n;
    block /= down;
    const int tx = block % taps_x;
    block /= taps_x;
    const int ty = block % taps_y;
    block /= taps_y;
    const int cx = block % p.x.classes, cy = block / p.x.classes;
    const Phase y = phase_of(p.y, cy), x = phase_of(p.x, cx);
    if (ty >= y.taps || tx >= x.taps) return;
    const int r0 = first_tap(p.y, y, cy, ty), s0 = first_tap(p.x, x, cx, tx);
    const bool turned = in.column_stride < in.channel_stride; // columns run fastest
    for (int i = (int)threadIdx.x; i < n * n; i += laying_threads) {
        const int slow = i / n, fast = i % n;
        const int column = column0 + (turned ? fast : slow);
        const int channel = channel0 + (turned ? slow : fast);
        if (column >= in.columns || channel >= in.channels) continue;
        const T *const from = static_cast<const T *>(in.from) + column * in.column_stride +
                              channel * in.channel_stride;
        float sum = 0.0f;
        for (int r = larger(r0, 0); r < smaller(r0 + p.y.up, p.y.kernel); r++)
            for (int s = larger(s0, 0); s < smaller(s0 + p.x.up, p.x.kernel); s++)
                sum += to_float(from[((int64_t)r * p.x.kernel + s) * in.tap_stride]);
        tile[slow * ld + fast] = sum;
    }
    sync_block();
    T *const to = static_cast<T *>(in.to) + (cy * p.x.classes + cx) * p.class_elements +
                  (int64_t)(ty * x.taps + tx) * in.channels;
    const int row = row_elements(p, in.channels);
    for (int i = (int)threadIdx.x; i < n * n; i += laying_threads) {
        const int column = column0 + i / n, channel = channel0 + i % n;
        if (column < in.columns && channel < in.channels)
            to[(int64_t)column * row + channel] =
                from_float<T>(turned ? tile[i % n * ld + i / n] : tile[i / n * ld + i % n]);
    }
}

// Which pixel of the output a row of a class's tile is.
struct PhaseRows {
    int row0, rows, w, h; // of the class
    int classes_y, classes_x, cy, cx, out_h, out_w;
    TW_DEVICE int operator()(int row) const {
        const int m = row0 + row;
        if (m >= rows) return -1;
        if (classes_y * classes_x == 1) return m;
        const int line = m / w, sample = line / h;
        return (sample * out_h + (line - sample * h) * classes_y + cy) * out_w +
               (m - line * w) * classes_x + cx;
    }
};

// The class's convolution.
TW_BOTH ConvInput input_of_class(const ConvInput &all, const Phases &p, int cy, int cx,
                                 int element_bytes) {
    const Phase y = phase_of(p.y, cy), x = phase_of(p.x, cx);
    ConvInput in = all;
    in.out_h = y.size;
    in.out_w = x.size;
    in.rows = all.rows * y.size * x.size;
    in.kernel_h = x.taps > 0 ? y.taps : 0;
    in.kernel_w = larger(x.taps, 1);
    in.pad_top = y.pad;
    in.pad_left = x.pad;
    in.k = in.kernel_h * in.kernel_w * in.channels;
    in.k_row = row_elements(p, in.channels);
    in.weight = static_cast<const unsigned char *>(all.weight) +
                (cy * p.x.classes + cx) * p.class_elements * element_bytes;
    return in;
}

// Statistics of a class's tile: the partials of a sample are those of its classes, one after the
// other.
TW_DEVICE Epilogue epilogue_of_class(const Epilogue &e, const ConvInput &in, int of_class) {
    Epilogue mine = e;
    if (!e.partial) return mine;
    mine.rows = in.rows;
    mine.rows_per_sample = in.out_h * in.out_w;
    mine.partial += (int64_t)of_class * (mine.rows_per_sample / e.rows_per_partial) * e.groups;
    return mine;
}

// Work: as the forward kernel, a tile of BM pixels of one class by BN columns; neighbouring blocks
// share their pixels, then the source that they read. all.rows counts samples.
// Limit: as the forward kernel.
template <typename TILE, bool WIDE, typename E>
__global__ void __launch_bounds__(tile_threads, TILE::blocks)
    conv_phase_kernel(const ConvInput all, const Phases p, const E e) {
    using T = typename TILE::Storage;
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::shared);
        const int across = ceil_div(all.out_channels, TILE::bn),
                  classes = p.y.classes * p.x.classes;
        const TilePart part = tile_part(blockIdx.y);
        const int column0 = part.tile % across * TILE::bn;
        const int of_class = part.tile / across % classes;
        const int row0 = part.tile / across / classes * TILE::bm;
        const int cy = of_class / p.x.classes, cx = of_class % p.x.classes;
        const ConvInput in = input_of_class(all, p, cy, cx, (int)sizeof(T));
        if (row0 >= in.rows) return; // a smaller class than others
        const int tiles = ceil_div(in.k, TILE::depth);
        const int a_split = ceil_div(tiles, (int)(gridDim.y * cluster_size()));
        const int first = smaller(part.split * a_split, tiles);
        ImageRows<TILE, WIDE> a(in, row0, first);
        WeightRows<TILE, true> b(in, column0, first);
        float *const d = multiply_tiles<TILE>(memory, a, b, smaller(a_split, tiles - first));
        PhaseRows rows = {row0,        in.rows, in.out_w, in.out_h, p.y.classes,
                          p.x.classes, cy,      cx,       p.y.size, p.x.size};
        if (e.slices) {
            leave_rows<TILE::bm, TILE::bn, TILE::ld>(e, d, column0, part.split, rows);
        } else {
            const RowShare mine = gather_cluster<TILE::bm, TILE::bn, TILE::ld>(d);
            float *const own = d + mine.first * TILE::ld;
            rows.row0 += mine.first;
            finish_rows<T, TILE::bn, TILE::ld>(e, own, mine.count, column0, rows);
            finish_statistics<TILE::bn, TILE::ld>(epilogue_of_class(e, in, of_class), own,
                                                  mine.count, rows.row0, column0);
        }
    }
}

// ---- host ---------------------------------------------------------------------------------------

// A whole call.
struct PhasePlan {
    ConvInput in; // the source; rows counts samples
    Phases phases;
    Laying laying;
    Product product;
    TileChoice tile;
    size_t weight_bytes, slice_bytes; // of the workspace
};

// Sets what follows from the rest. False where the sizes do not fit.
inline bool complete(const twk_conv_args &a, PhasePlan *plan) {
    const int64_t most = 0x3fffffff, bytes = (int64_t)format_bytes(a.format);
    Phases &p = plan->phases;
    const int64_t classes = (int64_t)p.y.classes * p.x.classes, columns = plan->laying.columns;
    const int64_t taps = (int64_t)most_taps(p.y) * most_taps(p.x);
    int64_t k, all;
    if (__builtin_mul_overflow(taps, (int64_t)plan->in.channels, &k) || k > most || classes > most)
        return false;
    p.class_elements = row_elements(p, plan->in.channels) * columns;
    if (__builtin_mul_overflow(p.class_elements, classes * bytes, &all)) return false;
    plan->weight_bytes = ((size_t)all + 255) / 256 * 256;
    plan->product.rows =
        a.batch * ceil_div(p.y.size, p.y.classes) * ceil_div(p.x.size, p.x.classes);
    plan->product.classes = classes;
    plan->product.columns = columns;
    plan->product.k = k;
    plan->product.w = ceil_div(p.x.size, p.x.classes);
    plan->product.h = ceil_div(p.y.size, p.y.classes);
    plan->product.apart = plan->in.stride;
    plan->product.steps =
        box_steps(taps, plan->in.channels1, plan->in.channels - plan->in.channels1);
    plan->product.describable = p.y.classes <= box_classes && p.x.classes <= box_classes;
    plan->tile = choose(a, plan->product);
    const int slices = plan->tile.parts.slices();
    plan->slice_bytes = slices == 1 ? 0
                                    : (size_t)slices * (size_t)a.batch * (size_t)p.y.size *
                                          (size_t)p.x.size * (size_t)columns * sizeof(float);
    return true;
}

inline float *slices_of(const PhasePlan &plan, void *workspace) {
    if (!plan.slice_bytes) return nullptr;
    return reinterpret_cast<float *>(static_cast<unsigned char *>(workspace) + plan.weight_bytes);
}

inline twk_status lay_weights(const twk_conv_args &a, const PhasePlan &plan, twk_stream stream) {
    const Phases &p = plan.phases;
    LaunchConfig config;
    const int64_t tiles = ceil_div<int64_t>(plan.laying.columns, laying_size) *
                          ceil_div<int64_t>(plan.laying.channels, laying_size);
    const int64_t taps = (int64_t)most_taps(p.y) * most_taps(p.x);
    const int64_t each = total_of(tiles, taps); // a class's
    if (each < 0 || each > 0x7fffffff || !grid_for(each * plan.product.classes, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "convolution: more weights than a grid can hold");
    config.block = dim3(laying_threads);
    config.shared = shared_bytes<float>(laying_size * (laying_size + 1));
    config.stream = stream;
    return with_format(a.format, [&](auto t) {
        return TW_LAUNCH((conv_lay_kernel<decltype(t)>), config, plan.laying, p);
    });
}

// The whole call: the weights, the product, the sum of its parts.
template <typename E>
twk_status launch_phases(const twk_conv_args &a, const PhasePlan &plan, const E &e,
                         twk_stream stream) {
    return with_tile(a, plan.tile.tile, plan.product.wide, [&](auto tile, auto wide) {
        using TILE = decltype(tile);
        LaunchConfig config;
        twk_status status = tiled_config<TILE>(plan.product, plan.tile.parts, stream, &config);
        if (status == TWK_OK) status = lay_weights(a, plan, stream);
        if (status == TWK_OK)
            status = TW_LAUNCH((conv_phase_kernel<TILE, decltype(wide)::value, E>), config, plan.in,
                               plan.phases, e);
        if (status != TWK_OK || !e.slices) return status;
        return launch_gather<typename TILE::Storage>(e, plan.tile.parts.count, stream);
    });
}

} // namespace tw
