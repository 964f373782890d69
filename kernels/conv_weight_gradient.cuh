// A convolution's weight gradient seen as a matrix product: a row of A is an output channel, a row
// of B a weight of each of them (a tap and an input channel), and K runs over the output pixels of
// the batch. Both operands are columns: the channels of one pixel lie side by side.
#pragma once

#include "conv.cuh"

namespace tw {

struct WeightGradient {
    ConvInput conv; // tiles along K are tiles of pixels
    const void *dy;
    int wide_x, wide_dy; // channels come in chunks of 16 aligned bytes, each within one tensor
    int batch;
    // How far a pass of B's copies is in samples, lines and pixels of the output. Lines and pixels
    // are counted in those of the image that is read, `stride` of them each, and so are the
    // output's height and width.
    int pass_samples, pass_y, pass_x, end_y, end_x;
    int rows, columns; // of dweight: output channels, conv.k
    float *dweight, *slices, *bias_slices;
    float scale;
};

// dy: pixels by output channels, as it lies in memory. WIDE: wide_dy is known to hold.
template <typename TILE, bool WIDE> class GradientColumns {
    using T = typename TILE::Storage;
    using Slot = ColumnSlot<T, TILE::bm>;

  public:
    TW_DEVICE GradientColumns(const WeightGradient &g, int row0, int first_tile)
        : wide_(WIDE || g.wide_dy), channels_(g.rows) {
        const int channel = row0 + slot_.column(), pixel = first_tile * TILE::depth + slot_.row;
        count_ = channels_ - channel;
        next_ = static_cast<const T *>(g.dy) + (int64_t)pixel * channels_ + channel;
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

// The image under every tap: pixels by weights. WIDE: wide_x is known to hold.
template <typename TILE, bool WIDE> class ImageColumns {
    using T = typename TILE::Storage;
    using Slot = ColumnSlot<T, TILE::bn>;
    static_assert(Slot::pass * Slot::chunks == tile_threads, "every thread copies");

  public:
    TW_DEVICE ImageColumns(const WeightGradient &g, int column0, int first_tile)
        : g_(g), tap_(g.conv, column0 + slot_.column()),
          pixel_(g.conv, first_tile * TILE::depth + slot_.row) {}

    TW_DEVICE void fetch(unsigned char *tile) {
        if (WIDE || g_.wide_x) {
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

// Sums of dy over this block's share of its tiles: the blocks that see the same pixels under other
// taps take turns, so that none is later than the others. A thread adds what it copied itself.
template <typename TILE> class GradientSums {
    using T = typename TILE::Storage;
    using Slot = ColumnSlot<T, TILE::bm>;

  public:
    TW_DEVICE GradientSums(const WeightGradient &g, int turn, int turns)
        : turns_(turns), turn_(g.bias_slices && slot_.used() ? turn : -1) {}

    TW_DEVICE void operator()(const unsigned char *tile) {
        if (turn_ < 0) return;
        if (turn_--) return;
        turn_ = turns_ - 1;
#pragma unroll
        for (int i = 0; i < Slot::passes; i++) {
            float v[per_16<T>];
            unpack(*reinterpret_cast<const Bytes16 *>(tile + slot_.offset(i)), v, T{});
#pragma unroll
            for (int e = 0; e < per_16<T>; e++) sum_[e] += v[e];
        }
    }

    // Leaves the block's sums; `memory` is free for [pass][bm] floats.
    TW_DEVICE void leave(const WeightGradient &g, float *memory, int row0, int slice) const {
        if (!g.bias_slices) return;
        sync_block(); // everyone is done with the tile that lay there
        if (slot_.used()) {
#pragma unroll
            for (int e = 0; e < per_16<T>; e++)
                memory[slot_.row * TILE::bm + slot_.column() + e] = sum_[e];
        }
        sync_block();
        const int channel = (int)threadIdx.x;
        if (channel >= TILE::bm || row0 + channel >= g.rows) return;
        float sum = memory[channel];
        for (int r = 1; r < Slot::pass; r++) sum += memory[r * TILE::bm + channel];
        g.bias_slices[(int64_t)slice * g.rows + row0 + channel] = sum;
    }

  private:
    Slot slot_;
    int turns_, turn_; // tiles until it is this block's turn; -1: never
    float sum_[per_16<T>] = {};
};

} // namespace tw
