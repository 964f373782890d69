// Attention on the fp32 units: exact fp32, and 16-bit tensors whose rows are not aligned. Any head
// size: the products run over as many channels as there are, the sums cover a slab of them.
#pragma once

#include "attention.cuh"

namespace tw {

// A block of 16 x 16 threads owns 64 rows and looks at 64 columns at a time. Thread (down, across)
// has scores of rows down + 16 i and columns across + 16 j, and sums of the same rows and of
// channels 4 across + 64 j + 0 .. 3.
constexpr int plain_threads = 256, plain_rows = 64;
constexpr int plain_depth = 32;               // channels of x and y at a time
constexpr int plain_ld = plain_depth + 4;     // so that eight rows lie in different banks
constexpr int plain_weights_ld = 64 + 4;      // of the weights, [row][column]
constexpr int plain_tile = 2 * 64 * plain_ld; // x and y, or 16 rows of z

struct alignas(16) Floats4 {
    float v[4];
};
TW_DEVICE Floats4 floats_at(const float *p) {
    return *reinterpret_cast<const Floats4 *>(p);
}

template <typename T>
TW_DEVICE float element_at(const HeadRows<T> &m, int row, int rows, int channel, int channels) {
    return row < rows && channel < channels ? to_float(m.data[row * m.row + channel]) : 0.0f;
}

// s += x y^T for rows from x0 and columns from y0 on; `tile` is free for it.
template <typename T>
TW_DEVICE void add_plain_scores(float (&s)[4][4], float *tile, const HeadRows<T> &x, int x0,
                                int x_rows, const HeadRows<T> &y, int y0, int y_rows,
                                int channels) {
    const int across = (int)threadIdx.x % 16, down = (int)threadIdx.x / 16;
    const int row = (int)threadIdx.x / plain_depth, channel = (int)threadIdx.x % plain_depth;
    constexpr int pass = plain_threads / plain_depth, passes = 64 / pass;
    float *const xs = tile, *const ys = tile + 64 * plain_ld;
    float next[2][passes];
    const auto read = [&](int first) {
#pragma unroll
        for (int i = 0; i < passes; i++) {
            const int r = row + i * pass;
            next[0][i] = element_at(x, x0 + r, x_rows, first + channel, channels);
            next[1][i] = element_at(y, y0 + r, y_rows, first + channel, channels);
        }
    };
    read(0);
#pragma unroll 1
    for (int first = 0; first < channels; first += plain_depth) {
        sync_block(); // everyone is done with what is overwritten
#pragma unroll
        for (int i = 0; i < passes; i++) {
            xs[(row + i * pass) * plain_ld + channel] = next[0][i];
            ys[(row + i * pass) * plain_ld + channel] = next[1][i];
        }
        sync_block();
        if (first + plain_depth < channels) read(first + plain_depth);
#pragma unroll 2
        for (int k = 0; k < plain_depth; k += 4) {
            Floats4 b[4];
#pragma unroll
            for (int j = 0; j < 4; j++) b[j] = floats_at(ys + (across + 16 * j) * plain_ld + k);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Floats4 a = floats_at(xs + (down + 16 * i) * plain_ld + k);
#pragma unroll
                for (int q = 0; q < 4; q++)
#pragma unroll
                    for (int j = 0; j < 4; j++) s[i][j] = fma_rn(a.v[q], b[j].v[q], s[i][j]);
            }
        }
    }
}

TW_DEVICE void share_plain_weights(float *weights, const float (&w)[4][4]) {
    const int across = (int)threadIdx.x % 16, down = (int)threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            weights[(down + 16 * i) * plain_weights_ld + across + 16 * j] = w[i][j];
}

// sums += w z for the 64 columns from z0 on and the channels from `channel0` on. `tile` is free.
template <typename T, int SLAB>
TW_DEVICE void add_plain_weighted(float (&sums)[4][SLAB / 64][4], const float *weights, float *tile,
                                  const HeadRows<T> &z, int z0, int z_rows, int channel0,
                                  int channels) {
    const int across = (int)threadIdx.x % 16, down = (int)threadIdx.x / 16;
    constexpr int pass = plain_threads / SLAB, passes = 16 / pass;
    static_assert(16 * SLAB <= plain_tile, "z takes the place of x and y");
    const int row = (int)threadIdx.x / SLAB, channel = channel0 + (int)threadIdx.x % SLAB;
    float next[passes];
    const auto read = [&](int first) {
#pragma unroll
        for (int i = 0; i < passes; i++)
            next[i] = element_at(z, first + row + i * pass, z_rows, channel, channels);
    };
    const int end = smaller(z_rows, z0 + 64);
    read(z0);
#pragma unroll 1
    for (int first = z0; first < end; first += 16) {
        sync_block(); // the weights are there, and everyone is done with what is overwritten
#pragma unroll
        for (int i = 0; i < passes; i++)
            tile[(row + i * pass) * SLAB + channel - channel0] = next[i];
        sync_block();
        if (first + 16 < end) read(first + 16);
#pragma unroll 1
        for (int k = 0; k < 16; k += 4) {
            Floats4 w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = floats_at(weights + (down + 16 * i) * plain_weights_ld + first - z0 + k);
#pragma unroll
            for (int q = 0; q < 4; q++)
#pragma unroll
                for (int j = 0; j < SLAB / 64; j++) {
                    if (channel0 + 64 * j >= channels) break;
                    const Floats4 v = floats_at(tile + (k + q) * SLAB + 4 * across + 64 * j);
#pragma unroll
                    for (int i = 0; i < 4; i++)
#pragma unroll
                        for (int e = 0; e < 4; e++)
                            sums[i][j][e] = fma_rn(w[i].v[q], v.v[e], sums[i][j][e]);
                }
        }
    }
}

// Writes the sums, each row times its factor; `to` is the block's first row.
template <typename T, int SLAB>
TW_DEVICE void leave_plain(T *to, int64_t stride, const float (&sums)[4][SLAB / 64][4],
                           const float (&factor)[4], int rows, int channel0, int channels) {
    const int across = (int)threadIdx.x % 16, down = (int)threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < SLAB / 64; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int channel = channel0 + 4 * across + 64 * j + e;
                if (down + 16 * i < rows && channel < channels)
                    to[(down + 16 * i) * stride + channel] =
                        from_float<T>(sums[i][j][e] * factor[i]);
            }
}

} // namespace tw
