// A convolution's weight gradient by gemm_specialised.cuh: D's rows are output channels, its
// columns weights of each, in groups of 64 channels of one tap and one tensor; K runs over boxes of
// 64 pixels of the output. Of every box TMA copies dy, and for each group the image a tap further:
// what lies in the padding, or past an edge or the last channel, arrives as zeros.
//
// Read enlarged, a pixel of the image serves two neighbours along each axis: then a box is of
// pixels of one class, those with the same remainder modulo `classes`, and the image's are whole
// pixels apart, see conv_phases.cuh.
#pragma once

#include "conv_tiles.cuh"
#include "gemm_specialised.cuh"

namespace tw {

constexpr int group_channels = 64, group_bytes = 64 * 128; // of a stage, of 64 pixels
constexpr int tile_groups = SpecialisedTile<bf16>::bn / group_channels;

struct BoxedGradient {
    PixelBox box;
    int boxes_x, boxes_y; // of the largest class
    int classes, apart;   // along each axis; pixels of the image between neighbours of a class
    int up, stride, pad_top, pad_left, kernel_w;
    int groups1, groups, all_groups; // of the first tensor, of both, of all taps
    int channels1, channels;
    int rows, columns;
    int down, across, tiles; // tiles of D along rows and columns; of all parts
    int steps, steps_a_split;
    float *dweight, *slices, *bias_slices;
    float scale;
};

struct WeightGroup {
    int first, count;    // column of D, as it lies in memory; how many there are
    int second, channel; // of which tensor
    int y, x;            // the tap, less the padding
    TW_DEVICE WeightGroup(const BoxedGradient &in, int group) {
        const int tap = group / in.groups, mine = group - tap * in.groups;
        second = mine >= in.groups1;
        channel = (mine - (second ? in.groups1 : 0)) * group_channels;
        count =
            smaller(group_channels, (second ? in.channels - in.channels1 : in.channels1) - channel);
        first = tap * in.channels + (second ? in.channels1 : 0) + channel;
        y = tap / in.kernel_w;
        x = tap - y * in.kernel_w - in.pad_left;
        y -= in.pad_top;
    }
};

struct GradientMaps {
    const TensorMap *dy, *image, *image2;
};

template <typename TILE> class GradientWork {
    using T = typename TILE::Storage;
    static constexpr int chunks = TILE::bm / per_16<T>, lines = TILE::workers / chunks;

  public:
    static constexpr bool looks = true, narrows = false;

    // places: four numbers of each group, for the thread that copies.
    TW_DEVICE GradientWork(const BoxedGradient &in, const GradientMaps &maps, int *places,
                           float *turned)
        : in_(in), maps_(maps), places_(places), turned_(turned) {}

    TW_DEVICE bool take(int i) {
        const int64_t wanted = blockIdx.x + (int64_t)i * gridDim.x;
        if (wanted >= in_.tiles) return false;
        int tile = (int)wanted;
        part_ = tile % in_.across;
        tile /= in_.across;
        row0_ = tile % in_.down * TILE::bm;
        split_ = tile / in_.down;
        groups_ = smaller(tile_groups, in_.all_groups - part_ * tile_groups);
        const int first = split_ * in_.steps_a_split;
        steps_ = smaller(in_.steps_a_split, in_.steps - first);
        turn_ = part_;
#pragma unroll
        for (int e = 0; e < per_16<T>; e++) sum_[e] = 0.0f;
        if ((int)threadIdx.x >= TILE::workers) find_places(first);
        return true;
    }
    TW_DEVICE int steps() const {
        return steps_;
    }
    TW_DEVICE unsigned bytes() const {
        return (unsigned)((halves() + groups_) * group_bytes);
    }

    TW_DEVICE void fetch(unsigned char *a, unsigned char *b, Mbarrier *full) {
        const int x = box_x_ * in_.box.w, y = box_y_ * in_.box.h, n = box_n_ * in_.box.n;
        for (int i = 0; i < halves(); i++)
            tma_load_4d(a + i * group_bytes, maps_.dy, full, row0_ + i * 64,
                        x * in_.classes + class_x_, y * in_.classes + class_y_, n);
        for (int g = 0; g < groups_; g++) {
            const int *const place = places_ + 4 * g;
            tma_load_4d(b + g * group_bytes, place[0] ? maps_.image2 : maps_.image, full, place[1],
                        x * in_.apart + from_tap(place[2], class_x_),
                        y * in_.apart + from_tap(place[3], class_y_), n);
        }
        if (++box_x_ < in_.boxes_x) return;
        box_x_ = 0;
        if (++box_y_ < in_.boxes_y) return;
        box_y_ = 0;
        if (++class_x_ < in_.classes) return;
        class_x_ = 0;
        if (++class_y_ < in_.classes) return;
        class_y_ = 0;
        box_n_++;
    }

    // The bias's gradient: blocks that see the same dy under other groups take turns, step by step.
    TW_DEVICE void look(const unsigned char *a, const unsigned char *) {
        if (!in_.bias_slices || turn_--) return;
        turn_ = in_.across - 1;
        const unsigned chunk = threadIdx.x % chunks, line = threadIdx.x / chunks;
        const unsigned char *const from =
            a + chunk / 8 * group_bytes + swizzled<128>(line, chunk % 8);
#pragma unroll
        for (int i = 0; i < 64 / lines; i++) {
            float v[per_16<T>];
            unpack(*reinterpret_cast<const Bytes16 *>(from + i * lines * 128), v, T{});
#pragma unroll
            for (int e = 0; e < per_16<T>; e++) sum_[e] += v[e];
        }
    }

    // Leaves the sums over the block's turns.
    TW_DEVICE void prepare() {
        if (!in_.bias_slices) return;
        const int mine = (int)threadIdx.x, line = mine / chunks, chunk = mine % chunks;
#pragma unroll
        for (int e = 0; e < per_16<T>; e++)
            turned_[line * TILE::bm + chunk * per_16<T> + e] = sum_[e];
        Workers::sync();
        if (mine < TILE::bm && row0_ + mine < in_.rows) {
            float sum = turned_[mine];
            for (int r = 1; r < lines; r++) sum += turned_[r * TILE::bm + mine];
            in_.bias_slices[((int64_t)split_ * in_.across + part_) * in_.rows + row0_ + mine] = sum;
        }
        Workers::sync();
    }

    // Eight columns and four rows a warp: all banks, and whole sectors of the result.
    TW_DEVICE void finish(const float *d, int column) {
        if (column / group_channels >= groups_) return;
        const WeightGroup g(in_, part_ * tile_groups + column / group_channels);
        float *const out =
            in_.slices ? in_.slices + (int64_t)split_ * in_.rows * in_.columns : in_.dweight;
        for (int i = (int)threadIdx.x; i < TILE::chunk * TILE::bm; i += TILE::workers) {
            const int c = i % 8 + i / 32 % 8 * 8, r = i / 8 % 4 + i / 256 * 4, row = row0_ + r;
            if (c >= g.count || row >= in_.rows) continue;
            float *const to = out + (int64_t)row * in_.columns + g.first + c;
            const float v = d[c * TILE::ld + r];
            *to = in_.slices ? v : *to + in_.scale * v;
        }
    }

  private:
    // dy's boxes of 64 channels.
    TW_DEVICE int halves() const {
        return row0_ + 64 < in_.rows ? 2 : 1;
    }
    TW_DEVICE int from_tap(int at, int of_class) const {
        return in_.up ? (in_.stride * of_class + at) >> 1 : at;
    }
    TW_DEVICE void find_places(int step) {
        for (int g = 0; g < groups_; g++) {
            const WeightGroup group(in_, part_ * tile_groups + g);
            int *const place = places_ + 4 * g;
            place[0] = group.second;
            place[1] = group.channel;
            place[2] = group.x;
            place[3] = group.y;
        }
        box_x_ = step % in_.boxes_x;
        step /= in_.boxes_x;
        box_y_ = step % in_.boxes_y;
        step /= in_.boxes_y;
        class_x_ = step % in_.classes;
        step /= in_.classes;
        class_y_ = step % in_.classes;
        box_n_ = step / in_.classes;
    }

    const BoxedGradient &in_;
    const GradientMaps maps_;
    int *const places_;
    float *const turned_;
    int part_, row0_, split_, groups_, steps_;
    int box_x_, box_y_, box_n_, class_x_, class_y_; // of the next step
    int turn_;                                      // steps until it is this block's turn
    float sum_[per_16<T>];
};

template <typename TILE>
constexpr size_t gradient_shared = TILE::shared + 4 * tile_groups * sizeof(int);

// Work: a block is alone on its processor and takes every gridDim.x-th tile of 128 output channels
// by 256 weights of each and a part of the pixels; neighbouring blocks share their pixels. One
// thread copies, 256 multiply, add up dy in turns and finish tiles 64 weights at a time while it
// copies ahead. Limit: L2 (48 KB for 2^22 FLOPs, 81 % of the tensor cores' rate), then the tensor
// cores, which stand still while a tile is finished; the slices where pixels are few.
template <typename TILE>
__global__ void __launch_bounds__(TILE::threads, 1)
    weight_gradient_box_kernel(TW_TENSOR_MAP_PARAM(dy), TW_TENSOR_MAP_PARAM(image),
                               TW_TENSOR_MAP_PARAM(image2), const BoxedGradient in) {
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::stages * TILE::stage_bytes);
        float *turned = arena.take<float>(TILE::chunk * TILE::ld);
        Mbarrier *barriers = arena.take<Mbarrier>(2 * TILE::stages);
        int *places = arena.take<int>(4 * tile_groups);
        GradientWork<TILE> work(in, GradientMaps{&dy, &image, &image2}, places, turned);
        run_specialised<TILE, Form::columns, Form::columns>(memory, turned, barriers, work);
    }
}

// ---- host ---------------------------------------------------------------------------------------

// Classes along an axis, and how far apart the image's pixels are for neighbours of one.
inline int gradient_classes(const twk_conv_args &a) {
    return a.upsample && a.stride % 2 ? 2 : 1;
}
inline int gradient_apart(const twk_conv_args &a) {
    return a.upsample ? a.stride * gradient_classes(a) / 2 : a.stride;
}

// The box of 64 pixels of which an image of w x h needs fewest, the widest of those.
inline PixelBox choose_gradient_box(int w, int h, int64_t images, int apart) {
    PixelBox best = {};
    int64_t least = 0;
    for (int across = 64; across >= 1; across /= 2)
        for (int down = 64 / across; down >= 1; down /= 2) {
            if (across * apart > box_span || down * apart > box_span) continue;
            const PixelBox box = {across, down, 64 / across / down};
            const int64_t count = boxes_of(box, w, h, images);
            if (!least || count < least) least = count, best = box;
        }
    return best;
}

// Tiles along the weights, steps along the pixels.
inline int gradient_across(const twk_conv_args &a) {
    const int64_t groups =
        (int64_t)a.kernel_h * a.kernel_w *
        (ceil_div(a.channels, group_channels) + ceil_div(a.channels2, group_channels));
    return (int)smaller<int64_t>(ceil_div<int64_t>(groups, tile_groups), 0x3fffffff);
}
inline int gradient_steps(const twk_conv_args &a, const ConvSizes &size, const PixelBox &box) {
    const int classes = gradient_classes(a);
    const int64_t w = ceil_div<int64_t>(size.out_w, classes),
                  h = ceil_div<int64_t>(size.out_h, classes);
    return (int)smaller<int64_t>(boxes_of(box, w, h, a.batch) * classes * classes, 0x3fffffff);
}

// Why TWK_TILE_128X256_TMA cannot serve a call with aligned channels, or NULL.
inline const char *gradient_boxes_refused(const twk_conv_args &a, bool wide) {
    if (a.format == TWK_F32) return "convolution weight gradient: boxes are for bf16 and fp16";
    if (!wide) return "convolution weight gradient: boxes need aligned channels";
    if (gradient_apart(a) > 8) return "convolution weight gradient: boxes: a stride above 8";
    const Limits limits = device_limits();
    if (!limits.tma || limits.shared < gradient_shared<SpecialisedTile<bf16>>)
        return "convolution weight gradient: boxes need TMA and wgmma: compute capability 9.0 and "
               "its code";
    return nullptr;
}

// The kernel; g has what follows from the call's result, see WeightGradient.
template <typename MATH>
twk_status launch_gradient_boxes(const twk_conv_args &a, const ConvSizes &size, const PixelBox &box,
                                 int steps, int splits, BoxedGradient g, twk_stream stream) {
    using TILE = SpecialisedTile<MATH>;
    g.box = box;
    g.classes = gradient_classes(a);
    g.apart = gradient_apart(a);
    g.boxes_x = (int)ceil_div<int64_t>(ceil_div<int64_t>(size.out_w, g.classes), box.w);
    g.boxes_y = (int)ceil_div<int64_t>(ceil_div<int64_t>(size.out_h, g.classes), box.h);
    g.up = a.upsample;
    g.stride = a.stride;
    g.pad_top = a.pad_top;
    g.pad_left = a.pad_left;
    g.kernel_w = a.kernel_w;
    g.channels1 = a.channels;
    g.channels = a.channels + a.channels2;
    g.groups1 = ceil_div(a.channels, group_channels);
    g.groups = g.groups1 + ceil_div(a.channels2, group_channels);
    g.all_groups = a.kernel_h * a.kernel_w * g.groups;
    g.down = ceil_div(g.rows, TILE::bm);
    g.across = gradient_across(a);
    g.steps = steps;
    g.steps_a_split = ceil_div(steps, splits);
    int64_t tiles = (int64_t)g.down * g.across;
    if (tiles > 0x7fffffff || (tiles *= splits) > 0x7fffffff)
        return fail(TWK_UNSUPPORTED,
                    "convolution weight gradient: more tiles than a grid can hold");
    g.tiles = (int)tiles;
    TensorMap dy, image, image2;
    twk_status status = map_pixels(a.format, a.dy, a.out_channels, size.out_w, size.out_h, a.batch,
                                   box, g.classes, &dy);
    if (status == TWK_OK)
        status = map_pixels(a.format, a.x, a.channels, a.w, a.h, a.batch, box, g.apart, &image);
    image2 = image;
    if (status == TWK_OK && a.channels2)
        status = map_pixels(a.format, a.x2, a.channels2, a.w, a.h, a.batch, box, g.apart, &image2);
    if (status != TWK_OK) return status;
    LaunchConfig config;
    config.grid = dim3((unsigned)smaller<int64_t>(tiles, device_limits().processors));
    config.block = dim3(TILE::threads);
    config.shared = gradient_shared<TILE>;
    config.stream = stream;
    return TW_LAUNCH(weight_gradient_box_kernel<TILE>, config, dy, image, image2, g);
}

} // namespace tw
