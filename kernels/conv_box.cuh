// Boxes of pixels, of which one makes a tile of 256 where pixels are copied by TMA: w x h pixels of
// n images, as they lie in the output; every tap sees the same box of the input, a tap further.
#pragma once

#include "device/platform.cuh"

namespace tw {

struct PixelBox {
    int w, h, n;
    TW_BOTH int pixels() const { return w * h * n; }
};

// Classes of pixels along an axis, see conv_phases.cuh.
constexpr int box_classes = 4;
constexpr int box_pixels = 256, box_span = 256; // the most, and the most of the input in a line

inline int64_t boxes_of(const PixelBox &box, int64_t w, int64_t h, int64_t images) {
    return ceil_div<int64_t>(w, box.w) * ceil_div<int64_t>(h, box.h) *
           ceil_div<int64_t>(images, box.n);
}

// The box of which an image of w x h needs fewest, pixels of the input being `step` apart; of those
// that need as many the one that divides the image, for statistics, then the smallest.
inline PixelBox choose_box(int w, int h, int64_t images, int step) {
    const int widest = (box_span - 1) / step + 1;
    PixelBox best = {};
    int64_t least = 0;
    for (int across = ceil_div(w, smaller(widest, box_pixels)); across <= w; across++) {
        PixelBox box;
        box.w = ceil_div(w, across);
        box.h = smaller(smaller(h, widest), box_pixels / box.w);
        box.h = ceil_div(h, ceil_div(h, box.h));
        box.n = 1;
        if (across == 1 && box.h == h)
            box.n = (int)smaller<int64_t>(images, box_pixels / (box.w * box.h));
        const int64_t uneven = (w % box.w || h % box.h) ? 1 : 0;
        const int64_t cost =
            (boxes_of(box, w, h, images) * 2 + uneven) * (box_pixels + 1) + box.pixels();
        if (!least || cost < least) least = cost, best = box;
        if (box.w <= 8) break;
    }
    return best;
}

} // namespace tw
