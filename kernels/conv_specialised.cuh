// Convolutions by gemm_specialised.cuh: D's rows are output channels, its columns the pixels of a
// box, K runs over taps and, within one, the channels of one tensor and then the other. Of every
// tap TMA copies the same box of the image, a tap further; what lies in the padding, past the last
// channel or past the last image arrives as zeros.
#pragma once

#include "conv_phases.cuh"
#include "gemm_specialised.cuh"

namespace tw {

// Pixels that are finished at once: a partial of statistics lies in one of these.
constexpr int boxed_chunk = SpecialisedTile<bf16>::chunk;

struct BoxedConv {
    PixelBox box;
    int boxes_x, boxes_y, boxes_n; // of the largest class
    int classes_y, classes_x;
    Phase y[box_classes], x[box_classes];
    int apart;                    // pixels of the input between neighbours of the output
    int channels1, steps1, steps; // of the first tensor; steps along K of its channels, of both's
    int batch, out_h, out_w;      // of all classes
    // What two blocks of a cluster share, and what each then has of its own: tiles of channels with
    // the same pixels, or boxes with the same channels. Of what is shared each copies half for
    // both, of a box along its axis `halved` (0: x, 1: y, 2: images).
    enum { nothing, weights, pixels } shared;
    int halved;
    int across, splits, tiles; // tiles along the output channels; of all of the call
};

// Where a tile lies.
struct BoxPlace {
    int column0, of_class, cy, cx, split, bx, by, x0, y0, n0;
    int first, steps; // along K

    // `rank` of the pair's two tiles.
    TW_DEVICE void find(const BoxedConv &in, int tile, int rank) {
        column0 = tile % in.across * SpecialisedTile<bf16>::bm;
        if (in.shared == BoxedConv::pixels)
            column0 = 2 * column0 + rank * SpecialisedTile<bf16>::bm;
        tile /= in.across;
        split = tile % in.splits;
        tile /= in.splits;
        of_class = tile % (in.classes_y * in.classes_x);
        tile /= in.classes_y * in.classes_x;
        cy = of_class / in.classes_x;
        cx = of_class - cy * in.classes_x;
        if (in.shared == BoxedConv::weights) tile = 2 * tile + rank;
        bx = tile % in.boxes_x;
        tile /= in.boxes_x;
        by = tile % in.boxes_y;
        x0 = bx * in.box.w;
        y0 = by * in.box.h;
        n0 = tile / in.boxes_y * in.box.n;
        const int all = larger(in.y[cy].taps, 0) * larger(in.x[cx].taps, 0) * in.steps;
        const int a_split = ceil_div(all, in.splits);
        first = smaller(split * a_split, all);
        steps = smaller(a_split, all - first);
    }
};

// Partials of a tile, for leave_statistics: boxes are whole and a partial is of one image.
struct BoxParts {
    const BoxedConv &in;
    const BoxPlace &at;
    int row0, rows_per_partial, n_partials;
    TW_DEVICE int operator()(int row) const {
        const int area = in.box.w * in.box.h, image = (row0 + row) / area;
        if (image >= in.box.n || at.n0 + image >= in.batch) return -1;
        if (at.x0 >= in.x[at.cx].size || at.y0 >= in.y[at.cy].size) return -1;
        const int before = at.of_class * in.boxes_y * in.boxes_x + at.by * in.boxes_x + at.bx;
        return (at.n0 + image) * n_partials + before * (area / rows_per_partial) +
               (row0 + row - image * area) / rows_per_partial;
    }
};

struct BoxMaps {
    const TensorMap *weights, *image, *image2;
};

template <typename TILE, typename E> class BoxedWork {
    using T = typename TILE::Storage;

  public:
    static constexpr bool looks = false, narrows = true;

    // pixels: TILE::bn of shared memory.
    TW_DEVICE BoxedWork(const BoxedConv &in, const BoxMaps &maps, const E &e, int *pixels)
        : in_(in), maps_(maps), e_(e), pixels_(pixels) {}

    TW_DEVICE bool take(int i) {
        const unsigned pair = in_.shared != BoxedConv::nothing;
        const int64_t tile = (blockIdx.x >> pair) + (int64_t)i * (gridDim.x >> pair);
        if (tile >= in_.tiles) return false;
        at_.find(in_, (int)tile, (int)(blockIdx.x & pair));
        const int tap = at_.first / in_.steps, taps_x = in_.x[at_.cx].taps;
        step_ = at_.first - tap * in_.steps;
        row_ = at_.steps > 0 ? tap / taps_x : 0;
        column_ = tap - row_ * taps_x;
        return true;
    }
    TW_DEVICE int steps() const { return at_.steps; }
    TW_DEVICE bool narrow() const { return in_.box.narrow(); }
    TW_DEVICE unsigned bytes() const { return (unsigned)(TILE::a_bytes + in_.box.pixels() * 128); }

    TW_DEVICE void fetch(unsigned char *a, unsigned char *b, Mbarrier *full) {
        const bool second = step_ >= in_.steps1;
        const int channel = (second ? step_ - in_.steps1 : step_) * TILE::depth;
        const int taps_x = in_.x[at_.cx].taps;
        const int rank = (int)(blockIdx.x & 1u), both = 3;
        const int from = channel + (second ? in_.channels1 : 0), tap = row_ * taps_x + column_;
        if (in_.shared == BoxedConv::weights)
            tma_load_4d_multicast(a + rank * (TILE::a_bytes / 2), maps_.weights, full, from, tap,
                                  at_.column0 + rank * (TILE::bm / 2), at_.of_class, both);
        else
            tma_load_4d(a, maps_.weights, full, from, tap, at_.column0, at_.of_class);
        const TensorMap *const image = second ? maps_.image2 : maps_.image;
        const int x = at_.x0 * in_.apart - in_.x[at_.cx].pad + column_;
        const int y = at_.y0 * in_.apart - in_.y[at_.cy].pad + row_;
        if (in_.shared == BoxedConv::pixels)
            tma_load_4d_multicast(b + rank * (in_.box.pixels() / 2 * 128), image, full, channel,
                                  x + (in_.halved == 0 ? rank * (in_.box.w / 2) * in_.apart : 0),
                                  y + (in_.halved == 1 ? rank * (in_.box.h / 2) * in_.apart : 0),
                                  at_.n0 + (in_.halved == 2 ? rank * (in_.box.n / 2) : 0), both);
        else
            tma_load_4d(b, image, full, channel, x, y, at_.n0);
        if (++step_ < in_.steps) return;
        step_ = 0;
        if (++column_ < taps_x) return;
        column_ = 0;
        row_++;
    }

    // Which pixel of the output each of the box is.
    TW_DEVICE void prepare() {
        const int i = (int)threadIdx.x, line = i / in_.box.w, image = line / in_.box.h;
        const int x = at_.x0 + i - line * in_.box.w, y = at_.y0 + line - image * in_.box.h;
        const int n = at_.n0 + image;
        const bool there =
            image < in_.box.n && n < in_.batch && y < in_.y[at_.cy].size && x < in_.x[at_.cx].size;
        pixels_[i] = there ? (n * in_.out_h + y * in_.classes_y + at_.cy) * in_.out_w +
                                 x * in_.classes_x + at_.cx
                           : -1;
    }

    TW_DEVICE void finish(float *d, int column) {
        const int *const pixels = pixels_ + column;
        const auto rows = [=](int row) { return pixels[row]; };
        if (e_.slices) {
            leave_rows<TILE::chunk, TILE::bm, TILE::ld>(e_, d, at_.column0, at_.split, rows,
                                                        Workers{});
        } else {
            finish_rows<T, TILE::bm, TILE::ld>(e_, d, TILE::chunk, at_.column0, rows, Workers{});
            if constexpr (std::is_same<E, Epilogue>::value) {
                if (!e_.partial) return;
                Workers::sync();
                const BoxParts parts = {in_, at_, column, e_.rows_per_partial, e_.n_partials};
                leave_statistics<TILE::bm, TILE::ld>(e_, d, TILE::chunk, at_.column0, parts,
                                                     Workers{});
            }
        }
    }

  private:
    const BoxedConv &in_;
    const BoxMaps maps_;
    const E &e_;
    int *pixels_;
    BoxPlace at_;
    int step_, row_, column_; // of the next piece along K: in its tap, and the tap
};

template <typename TILE> constexpr size_t boxed_shared = TILE::shared + TILE::bn * sizeof(int);

// Work: a block is alone on its processor and takes every gridDim.x-th tile of 256 pixels or 128 (a
// box of one image or of several) by 128 channels and, where the sum is split, a part of it; the
// two blocks of a cluster share pixels or weights, neighbouring clusters their pixels. One thread
// copies, 256 multiply and finish tiles 64 pixels at a time while it copies ahead. Limit: the
// tensor cores, which stand still while a tile is finished: about 4500 cycles, as long as 280 along
// K; L2 where nothing is shared (48 KB for 2^22 FLOPs, 81 % of their rate).
template <typename TILE, typename E>
__global__ void __launch_bounds__(TILE::threads, 1)
    conv_box_kernel(TW_TENSOR_MAP_PARAM(weights), TW_TENSOR_MAP_PARAM(image),
                    TW_TENSOR_MAP_PARAM(image2), const BoxedConv in, const E e) {
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::stages * TILE::stage_bytes);
        float *turned = arena.take<float>(TILE::chunk * TILE::ld);
        Mbarrier *barriers = arena.take<Mbarrier>(2 * TILE::stages);
        int *pixels = arena.take<int>(TILE::bn);
        if (threadIdx.x == TILE::workers) {
            tma_prefetch(&weights);
            tma_prefetch(&image);
        }
        BoxedWork<TILE, E> work(in, BoxMaps{&weights, &image, &image2}, e, pixels);
        run_specialised<TILE>(memory, turned, barriers, work);
    }
}

// ---- host ---------------------------------------------------------------------------------------

// Where the weights lie: [class][columns][taps][channels], in elements.
struct BoxWeights {
    const void *from;
    int64_t taps, tap_stride, column_stride, class_stride;
};

inline void classes_of(const PhaseAxis &x, Phase (&to)[box_classes]) {
    for (int c = 0; c < x.classes; c++) to[c] = phase_of(x, c);
}

inline twk_status map_weights(const twk_conv_args &a, const BoxWeights &w, const BoxedConv &b,
                              int channels, int columns, int classes, TensorMap *map) {
    TensorBox box = {};
    box.base = w.from;
    box.format = a.format;
    box.rank = 4;
    const uint64_t size[] = {(uint64_t)channels, (uint64_t)w.taps, (uint64_t)columns,
                             (uint64_t)classes};
    const int64_t stride[] = {1, w.tap_stride, w.column_stride, w.class_stride};
    const uint32_t across[] = {64, 1, b.shared == BoxedConv::weights ? 64u : 128u, 1};
    for (int i = 0; i < 4; i++) {
        box.size[i] = size[i];
        box.stride_bytes[i] = (uint64_t)stride[i] * 2;
        box.box[i] = across[i];
        box.step[i] = 1;
    }
    box.swizzle = Swizzle::bytes_128;
    return tensor_map(box, map);
}

// An image of h x w of the call's format, in the boxes that a block copies.
inline twk_status map_image(const twk_conv_args &a, const void *from, const ConvInput &in,
                            int channels, const BoxedConv &b, TensorMap *map) {
    PixelBox taken = b.box;
    if (b.shared == BoxedConv::pixels) {
        int *const axes[] = {&taken.w, &taken.h, &taken.n};
        *axes[b.halved] /= 2;
    }
    return map_pixels(a.format, from, channels, in.w, in.h, b.batch, taken, b.apart, map);
}

// What two blocks share: pixels, which are more, where they have whole pairs of channels' tiles and
// halves of whole swizzled lines; weights else.
inline void share(const TileChoice &c, BoxedConv *b) {
    const PixelBox &box = c.box;
    b->shared = BoxedConv::nothing;
    b->halved = box.n > 1 ? 2 : box.h > 1 ? 1 : 0;
    const int slowest = box.n > 1 ? box.n : box.h > 1 ? box.h : box.w;
    if (device_limits().cluster < 2) return;
    if (b->across % 2 == 0 && slowest % 2 == 0 && box.pixels() % 16 == 0)
        b->shared = BoxedConv::pixels;
    else if ((int64_t)b->boxes_x * b->boxes_y * b->boxes_n > 1)
        b->shared = BoxedConv::weights;
}

// Sets what follows from the product, the choice and the classes. False: more tiles than can be
// counted.
inline bool complete(const twk_conv_args &a, const Product &p, const TileChoice &c,
                     const ConvInput &in, BoxedConv *b) {
    b->box = c.box;
    b->boxes_x = ceil_div(p.w, c.box.w);
    b->boxes_y = ceil_div(p.h, c.box.h);
    b->boxes_n = (int)ceil_div<int64_t>(a.batch, c.box.n);
    b->apart = p.apart;
    b->channels1 = in.channels1;
    b->steps1 = ceil_div(in.channels1, 64);
    b->steps = b->steps1 + ceil_div(in.channels - in.channels1, 64);
    b->batch = (int)a.batch;
    b->across = (int)ceil_div<int64_t>(p.columns, 128);
    b->splits = c.parts.count;
    share(c, b);
    if (b->shared == BoxedConv::pixels) b->across /= 2;
    int64_t tiles = (int64_t)b->boxes_x * b->boxes_y;
    if (__builtin_mul_overflow(tiles, (int64_t)b->boxes_n, &tiles)) return false;
    if (b->shared == BoxedConv::weights) tiles = ceil_div<int64_t>(tiles, 2);
    for (int64_t by : {p.classes, (int64_t)b->across, (int64_t)c.parts.count})
        if (__builtin_mul_overflow(tiles, by, &tiles)) return false;
    if (tiles > 0x3fffffff) return false; // an index of a pair's second
    b->tiles = (int)tiles;
    return true;
}

// The kernel and, of a split sum, the one that adds the parts. `in` names the images, their size
// and channels.
template <typename MATH, typename E>
twk_status launch_boxes(const twk_conv_args &a, const BoxedConv &b, const ConvInput &in,
                        const BoxWeights &w, const Product &p, const E &e, twk_stream stream) {
    using TILE = SpecialisedTile<MATH>;
    TensorMap weights, image, image2;
    twk_status status = map_weights(a, w, b, in.channels, (int)p.columns, (int)p.classes, &weights);
    if (status == TWK_OK) status = map_image(a, in.x, in, in.channels1, b, &image);
    image2 = image;
    if (status == TWK_OK && in.channels > in.channels1)
        status = map_image(a, in.x2, in, in.channels - in.channels1, b, &image2);
    if (status != TWK_OK) return status;
    LaunchConfig config;
    config.cluster = b.shared == BoxedConv::nothing ? 1 : 2;
    const unsigned rooms = larger(1u, device_limits().processors / config.cluster);
    config.grid = dim3(smaller((unsigned)b.tiles, rooms) * config.cluster);
    config.block = dim3(TILE::threads);
    config.shared = boxed_shared<TILE>;
    config.stream = stream;
    if (config.shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "convolution: the device has too little shared memory");
    status = TW_LAUNCH((conv_box_kernel<TILE, E>), config, weights, image, image2, b, e);
    if (status != TWK_OK || b.splits == 1) return status;
    return launch_gather<MATH>(e, b.splits, stream);
}

// Chooses the format.
template <typename E>
twk_status with_boxes(const twk_conv_args &a, const Product &p, const TileChoice &c, BoxedConv *b,
                      const ConvInput &in, const BoxWeights &w, const E &e, twk_stream stream) {
    const char *const refused = boxes_refused(a, p);
    if (refused) return fail(TWK_UNSUPPORTED, refused);
    if (!complete(a, p, c, in, b))
        return fail(TWK_UNSUPPORTED, "convolution: more tiles than a grid can hold");
    return a.format == TWK_BF16 ? launch_boxes<bf16>(a, *b, in, w, p, e, stream)
                                : launch_boxes<f16>(a, *b, in, w, p, e, stream);
}

// A whole call in classes, see launch_phases.
template <typename E>
twk_status launch_boxed_phases(const twk_conv_args &a, const PhasePlan &plan, const E &e,
                               twk_stream stream) {
    const char *const refused = boxes_refused(a, plan.product);
    if (refused) return fail(TWK_UNSUPPORTED, refused);
    const twk_status laid = lay_weights(a, plan, stream);
    if (laid != TWK_OK) return laid;
    const Phases &p = plan.phases;
    BoxedConv b = {};
    classes_of(p.y, b.y);
    classes_of(p.x, b.x);
    b.classes_y = p.y.classes;
    b.classes_x = p.x.classes;
    b.out_h = p.y.size;
    b.out_w = p.x.size;
    const BoxWeights w = {a.workspace, (int64_t)most_taps(p.y) * most_taps(p.x), plan.in.channels,
                          row_elements(p, plan.in.channels), p.class_elements};
    return with_boxes(a, plan.product, plan.tile, &b, plan.in, w, e, stream);
}

} // namespace tw
