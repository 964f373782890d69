// Boxes of pixels, of which one makes a tile of 256, or half of one, where pixels are copied by
// TMA: w x h pixels of n images, as they lie in the output; every tap sees the same box of the
// input, a tap further.
#pragma once

#include "device/tma.cuh"

namespace tw {

constexpr int box_pixels = 256, box_span = 256; // the most, and the most of the input in a line

struct PixelBox {
    int w, h, n;
    TW_BOTH int pixels() const { return w * h * n; }
    // Half a tile holds it: half of the products.
    TW_BOTH bool narrow() const { return 2 * pixels() <= box_pixels; }
};

// Classes of pixels along an axis, see conv_phases.cuh.
constexpr int box_classes = 4;

inline int64_t boxes_of(const PixelBox &box, int64_t w, int64_t h, int64_t images) {
    return ceil_div<int64_t>(w, box.w) * ceil_div<int64_t>(h, box.h) *
           ceil_div<int64_t>(images, box.n);
}

// The box of no more than `most` pixels of which an image of w x h needs fewest, pixels of the
// input being `step` apart; of those that need as many the one that divides the image, for
// statistics, then the smallest.
inline PixelBox choose_box(int w, int h, int64_t images, int step, int most) {
    const int widest = box_span / step;
    PixelBox best = {};
    int64_t least = 0;
    for (int across = ceil_div(w, smaller(widest, most)); across <= w; across++) {
        PixelBox box;
        box.w = ceil_div(w, across);
        box.h = smaller(smaller(h, widest), most / box.w);
        box.h = ceil_div(h, ceil_div(h, box.h));
        box.n = 1;
        if (across == 1 && box.h == h)
            box.n = (int)smaller<int64_t>(images, most / (box.w * box.h));
        const int64_t uneven = (w % box.w || h % box.h) ? 1 : 0;
        const int64_t cost =
            (boxes_of(box, w, h, images) * 2 + uneven) * (box_pixels + 1) + box.pixels();
        if (!least || cost < least) least = cost, best = box;
        if (box.w <= 8) break;
    }
    return best;
}

// Boxes of 64 channels of an image of n x h x w pixels, every step-th of them.
inline twk_status map_pixels(twk_format format, const void *from, int64_t channels, int64_t w,
                             int64_t h, int64_t n, const PixelBox &of, int step, TensorMap *map) {
    TensorBox box = {};
    box.base = from;
    box.format = format;
    box.rank = 4;
    const int64_t size[] = {channels, w, h, n};
    const int across[] = {64, of.w, of.h, of.n};
    uint64_t stride = 2;
    for (int i = 0; i < 4; i++) {
        box.size[i] = (uint64_t)size[i];
        box.stride_bytes[i] = stride;
        stride *= box.size[i];
        box.box[i] = (uint32_t)across[i];
        box.step[i] = i == 1 || i == 2 ? (uint32_t)step : 1;
    }
    box.swizzle = Swizzle::bytes_128;
    return tensor_map(box, map);
}

} // namespace tw
