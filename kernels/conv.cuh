// The rows of a convolution seen as a matrix product: a row of A is an output pixel, a row of B an
// output channel, and K runs over the kernel's rows, its columns and the input's channels, the last
// fastest, as the weights lie in memory. A is never written: its rows are read from the image.
#pragma once

#include "gemm_epilogue.cuh"
#include "gemm_warpgroup.cuh"

namespace tw {

struct ConvInput {
    const void *x, *x2, *weight;
    int h, w;                // of x
    int up;                  // 1: every pixel of x is read as 2 x 2 pixels
    int channels1, channels; // of x, and of both
    int out_h, out_w, rows;  // rows = batch * out_h * out_w
    int out_channels, kernel_h, kernel_w, stride, pad_top, pad_left;
    int k, k_row; // kernel_h * kernel_w * channels; elements from one row of B to the next
    int tiles, tiles_a_split; // along K
};

// Where this thread's chunk stands along K.
struct Tap {
    int row, column, channel;
    TW_DEVICE Tap(const ConvInput &in, int k) {
        const int tap = k / in.channels;
        channel = k - tap * in.channels;
        row = tap / in.kernel_w;
        column = tap - row * in.kernel_w;
    }
    TW_DEVICE void advance(const ConvInput &in, int by) {
        channel += by;
        while (channel >= in.channels) {
            channel -= in.channels;
            if (++column == in.kernel_w) {
                column = 0;
                row++;
            }
        }
    }
};

// Rows of A. WIDE: channels come in chunks of 16 aligned bytes, each within one tap and one tensor.
template <typename TILE, bool WIDE> class ImageRows {
    using T = typename TILE::Storage;
    static constexpr int passes = TILE::bm / tile_pass;

  public:
    TW_DEVICE ImageRows(const ConvInput &in, int row0, int first_tile)
        : in_(in), tap_(in, first_tile * TILE::depth + slot_.chunk * per_16<T>) {
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int wanted = row0 + slot_.row + i * tile_pass, m = smaller(wanted, in.rows - 1);
            const int line = m / in.out_w, sample = line / in.out_h;
            image_[i] = sample * in.h * in.w;
            top_[i] = (line - sample * in.out_h) * in.stride - in.pad_top;
            left_[i] = (m - line * in.out_w) * in.stride - in.pad_left;
            if (wanted > m) top_[i] = -0x40000000; // outside, whatever the tap
        }
    }

    TW_DEVICE void fetch(unsigned char *tile) {
        if constexpr (WIDE) {
            const bool second = tap_.channel >= in_.channels1;
            const T *const from = static_cast<const T *>(second ? in_.x2 : in_.x);
            const int stride = second ? in_.channels - in_.channels1 : in_.channels1;
            const int channel = tap_.channel - (second ? in_.channels1 : 0);
#pragma unroll
            for (int i = 0; i < passes; i++) {
                int pixel;
                const bool there = find(i, tap_, &pixel);
                copy_async_16(tile + slot_.offset(i),
                              there ? from + (int64_t)pixel * stride + channel : from,
                              there ? 16 : 0);
            }
        } else {
            Chunk<T> chunk[passes];
            Tap tap = tap_;
#pragma unroll
            for (int e = 0; e < per_16<T>; e++) {
                const bool second = tap.channel >= in_.channels1;
                const T *const from = static_cast<const T *>(second ? in_.x2 : in_.x);
                const int stride = second ? in_.channels - in_.channels1 : in_.channels1;
                const int channel = tap.channel - (second ? in_.channels1 : 0);
#pragma unroll
                for (int i = 0; i < passes; i++) {
                    int pixel;
                    if (find(i, tap, &pixel))
                        chunk[i].set(e, from + (int64_t)pixel * stride + channel);
                }
                tap.advance(in_, 1);
            }
#pragma unroll
            for (int i = 0; i < passes; i++)
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk[i].bytes;
        }
        tap_.advance(in_, TILE::depth);
    }

  private:
    // The pixel under a tap of this thread's row i; false in the padding and past the last row.
    TW_DEVICE bool find(int i, const Tap &tap, int *pixel) const {
        const int y = top_[i] + tap.row, x = left_[i] + tap.column;
        const bool there = tap.row < in_.kernel_h && (unsigned)y < (unsigned)(in_.h << in_.up) &&
                           (unsigned)x < (unsigned)(in_.w << in_.up);
        *pixel = there ? image_[i] + (y >> in_.up) * in_.w + (x >> in_.up) : 0;
        return there;
    }

    const ConvInput &in_;
    TileSlot slot_;
    Tap tap_;
    int image_[passes], top_[passes], left_[passes];
};

// Rows of B: [out_channels][k_row] as they lie in memory. WIDE: they start at multiples of 16
// bytes.
template <typename TILE, bool WIDE> class WeightRows {
    using T = typename TILE::Storage;
    static constexpr int passes = ceil_div(TILE::bn, tile_pass);

  public:
    TW_DEVICE WeightRows(const ConvInput &in, int column0, int first_tile)
        : in_(in), column_(column0 + slot_.row),
          k_(first_tile * TILE::depth + slot_.chunk * per_16<T>) {}

    TW_DEVICE void fetch(unsigned char *tile) {
        const T *const weight = static_cast<const T *>(in_.weight);
        const int left = in_.k - k_; // elements of the row
#pragma unroll
        for (int i = 0; i < passes; i++) {
            if (TILE::bn % tile_pass && slot_.row + i * tile_pass >= TILE::bn) break;
            const int column = column_ + i * tile_pass;
            const T *const from = weight + (int64_t)column * in_.k_row + k_;
            if constexpr (WIDE) {
                const int there = column < in_.out_channels ? smaller(left, per_16<T>) : 0;
                copy_async_16(tile + slot_.offset(i), there > 0 ? from : weight,
                              there > 0 ? there * (int)sizeof(T) : 0);
            } else {
                Chunk<T> chunk;
#pragma unroll
                for (int e = 0; e < per_16<T>; e++)
                    if (column < in_.out_channels && e < left) chunk.set(e, from + e);
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk.bytes;
            }
        }
        k_ += TILE::depth;
    }

  private:
    const ConvInput &in_;
    TileSlot slot_;
    int column_, k_;
};

} // namespace tw
