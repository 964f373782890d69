// A convolution's weight gradient seen as a matrix product: a row of A is an output channel, a row
// of B a weight of each of them (a tap and an input channel), and K runs over the output pixels of
// the batch. Both operands are columns: the channels of one pixel lie side by side.
//
// Turned around, for few output channels: a row of A is an input channel, a row of B a tap and an
// output channel, and K runs over the input's pixels, each of which is read once. dy is then what
// is seen under the taps, the last first: dweight[o][r][s][c] is the sum over p of
// x[p][c] dy[p - (r, s) + pad][o].
#pragma once

#include "conv.cuh"

namespace tw {

struct WeightGradient {
    ConvInput conv;    // what B is read from: x, turned dy; tiles along K are tiles of pixels
    const void *plain; // what A is: dy, turned x
    int wide_image, wide_plain; // channels come in chunks of 16 aligned bytes, each of one tensor
    int batch;
    // How far a pass of B's copies is in samples, lines and pixels of the output. Lines and pixels
    // are counted in those of the image that is read, `stride` of them each, and so are the
    // output's height and width.
    int pass_samples, pass_y, pass_x, end_y, end_x;
    int rows, columns; // channels of A; conv.k
    float *dweight, *slices, *bias_slices;
    int bias_column; // turned: the first column of the tap that sees every pixel of dy
    float scale;
};

// A: pixels by channels, as they lie in memory. WIDE: wide_plain is known to hold.
template <typename TILE, bool WIDE> class PlainColumns {
    using T = typename TILE::Storage;
    using Slot = ColumnSlot<T, TILE::bm, TILE::warpgroup>;

  public:
    TW_DEVICE PlainColumns(const WeightGradient &g, int row0, int first_tile)
        : wide_(WIDE || g.wide_plain), channels_(g.rows) {
        const int channel = row0 + slot_.column(), pixel = first_tile * TILE::depth + slot_.row;
        count_ = channels_ - channel;
        next_ = static_cast<const T *>(g.plain) + (int64_t)pixel * channels_ + channel;
        left_ = count_ > 0 && slot_.used() ? g.conv.rows - pixel : 0;
    }

    TW_DEVICE void fetch(unsigned char *tile) {
        if (!slot_.used()) return;
#pragma unroll
        for (int i = 0; i < Slot::passes; i++) {
            if (WIDE || wide_) {
                copy_async_16(tile + slot_.offset(i), next_, left_ > 0 ? 16 : 0);
            } else {
                Chunk<T> chunk;
#pragma unroll
                for (int e = 0; e < per_16<T>; e++)
                    if (left_ > 0 && e < count_) chunk.set(e, next_ + e);
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk.bytes;
            }
            next_ += (int64_t)Slot::pass * channels_;
            left_ -= Slot::pass;
        }
    }

  private:
    Slot slot_;
    const T *next_;
    bool wide_;
    int channels_, count_, left_; // count_: channels from this chunk on; left_: pixels
};

// Where the image is read for one output pixel, before the tap is added.
struct ReadPixel {
    int sample, y, x;
    TW_DEVICE ReadPixel(const ConvInput &in, int pixel) {
        const int line = pixel / in.out_w;
        sample = line / in.out_h;
        y = (line - sample * in.out_h) * in.stride;
        x = (pixel - line * in.out_w) * in.stride;
    }
    TW_DEVICE void pass(const WeightGradient &g) {
        x += g.pass_x;
        y += g.pass_y;
        sample += g.pass_samples;
        if (x >= g.end_x) {
            x -= g.end_x;
            y += g.conv.stride;
        }
        if (y >= g.end_y) {
            y -= g.end_y;
            sample++;
        }
    }
};

// The image under every tap: pixels by weights. WIDE: wide_image is known to hold.
template <typename TILE, bool WIDE> class ImageColumns {
    using T = typename TILE::Storage;
    using Slot = ColumnSlot<T, TILE::bn, TILE::warpgroup>;
    static_assert(Slot::pass * Slot::chunks == tile_threads, "every thread copies");

  public:
    TW_DEVICE ImageColumns(const WeightGradient &g, int column0, int first_tile)
        : g_(g), tap_(g.conv, column0 + slot_.column()),
          pixel_(g.conv, first_tile * TILE::depth + slot_.row) {}

    TW_DEVICE void fetch(unsigned char *tile) {
        if (WIDE || g_.wide_image) {
#pragma unroll
            for (int i = 0; i < Slot::passes; i++) {
                const T *from = nullptr;
                const bool there = find(pixel_, tap_, &from);
                copy_async_16(tile + slot_.offset(i), from, there ? 16 : 0);
                pixel_.pass(g_);
            }
        } else {
#pragma unroll
            for (int i = 0; i < Slot::passes; i++) {
                Chunk<T> chunk;
                Tap tap = tap_;
#pragma unroll
                for (int e = 0; e < per_16<T>; e++) {
                    const T *from;
                    if (find(pixel_, tap, &from)) chunk.set(e, from);
                    tap.advance(g_.conv, 1);
                }
                *reinterpret_cast<Bytes16 *>(tile + slot_.offset(i)) = chunk.bytes;
                pixel_.pass(g_);
            }
        }
    }

  private:
    // The element under a tap; false in the padding, past the last pixel and past the last tap.
    TW_DEVICE bool find(const ReadPixel &p, const Tap &tap, const T **from) const {
        const ConvInput &in = g_.conv;
        const int y = p.y + tap.row - in.pad_top, x = p.x + tap.column - in.pad_left;
        const bool there = tap.row < in.kernel_h && p.sample < g_.batch &&
                           (unsigned)y < (unsigned)(in.h << in.up) &&
                           (unsigned)x < (unsigned)(in.w << in.up);
        const bool second = tap.channel >= in.channels1;
        const int stride = second ? in.channels - in.channels1 : in.channels1;
        const int channel = tap.channel - (second ? in.channels1 : 0);
        const int pixel = there ? (p.sample * in.h + (y >> in.up)) * in.w + (x >> in.up) : 0;
        *from = static_cast<const T *>(second ? in.x2 : in.x) + (int64_t)pixel * stride + channel;
        return there;
    }

    const WeightGradient &g_;
    Slot slot_;
    Tap tap_;
    ReadPixel pixel_;
};

// Sums of dy over pixels. Blocks that see the same pixels under other taps take turns, tile by
// tile, so that none is later than the others; turned, dy is under one tap of B. A thread adds what
// it copied itself.
template <typename TILE, bool TURNED> class GradientSums {
    using T = typename TILE::Storage;
    static constexpr int width = TURNED ? TILE::bn : TILE::bm;
    static constexpr int offset = TURNED ? TILE::bm * tile_row_bytes : 0;
    using Slot = ColumnSlot<T, width, TILE::warpgroup>;

  public:
    TW_DEVICE GradientSums(const WeightGradient &g, int row0, int column0)
        : channels_(TURNED ? g.conv.out_channels : g.rows),
          channel0_(TURNED ? column0 - g.bias_column : row0),
          turn_(TURNED ? 0 : column0 / TILE::bn),
          turns_(TURNED ? 1 : ceil_div(g.columns, TILE::bn)) {
        part_ = turn_;
        wanted_ = g.bias_slices && (!TURNED || row0 == 0) && channel0_ < channels_ &&
                  channel0_ + width > 0;
    }

    TW_DEVICE void operator()(const unsigned char *tile) {
        if (!wanted_ || turn_--) return;
        turn_ = turns_ - 1;
        if (!slot_.used()) return;
#pragma unroll
        for (int i = 0; i < Slot::passes; i++) {
            float v[per_16<T>];
            unpack(*reinterpret_cast<const Bytes16 *>(tile + offset + slot_.offset(i)), v, T{});
#pragma unroll
            for (int e = 0; e < per_16<T>; e++) sum_[e] += v[e];
        }
    }

    // Leaves the block's sums; `memory` is free for [pass][width] floats.
    TW_DEVICE void leave(const WeightGradient &g, float *memory, int split) const {
        if (!wanted_) return;
        sync_block(); // everyone is done with the tile that lay there
        if (slot_.used()) {
#pragma unroll
            for (int e = 0; e < per_16<T>; e++)
                memory[slot_.row * width + slot_.column() + e] = sum_[e];
        }
        sync_block();
        const int mine = (int)threadIdx.x, channel = channel0_ + mine;
        if (mine >= width || channel < 0 || channel >= channels_) return;
        float sum = memory[mine];
        for (int r = 1; r < Slot::pass; r++) sum += memory[r * width + mine];
        g.bias_slices[((int64_t)split * turns_ + part_) * channels_ + channel] = sum;
    }

  private:
    Slot slot_;
    bool wanted_;
    int channels_, channel0_;
    int turn_, turns_, part_; // turn_: tiles until it is this block's turn
    float sum_[per_16<T>] = {};
};

// A tile of D turned around: its rows, which are input channels, run fastest in dweight.
template <typename TILE>
TW_DEVICE void leave_turned(const WeightGradient &g, const float *d, int row0, int column0,
                            int split) {
    const int outputs = g.conv.out_channels, taps = g.columns / outputs;
    float *const out = g.slices ? g.slices + (int64_t)split * g.rows * g.columns : g.dweight;
    for (int i = (int)threadIdx.x; i < TILE::bm * TILE::bn; i += tile_threads) {
        const int row = row0 + i % TILE::bm, column = column0 + i / TILE::bm;
        if (row >= g.rows || column >= g.columns) continue;
        const int tap = taps - 1 - column / outputs;
        float *const to = out + (int64_t)(column % outputs * taps + tap) * g.rows + row;
        const float v = d[i % TILE::bm * TILE::ld + i / TILE::bm];
        *to = g.slices ? v : *to + g.scale * v;
    }
}

} // namespace tw
