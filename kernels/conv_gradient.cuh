// What becomes of a finished tile of sums of an input's gradient: dx = scale sum + add, the columns
// dealt out to the two tensors that x was read from.
#pragma once

#include "conv.cuh"

namespace tw {

struct ImageGradient {
    int rows;              // pixels of the batch
    int columns1, columns; // of dx, and of both
    float scale;
    void *dx, *dx2;
    const void *add, *add2;
    int wide;      // rows of all of them start at multiples of 16 bytes
    float *slices; // as Epilogue's
};

// V columns of one tensor; without WIDE, one of either.
template <bool WIDE, typename T, int V>
TW_DEVICE void finish_part(const ImageGradient &e, const float *d, int row, int column) {
    const bool second = column >= e.columns1;
    const int64_t at = second ? (int64_t)row * (e.columns - e.columns1) + column - e.columns1
                              : (int64_t)row * e.columns1 + column;
    const T *const add = static_cast<const T *>(second ? e.add2 : e.add);
    float v[V], other[V] = {};
    if (add) load<WIDE>(add + at, V, other);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = d[i] * e.scale + other[i];
    store<WIDE>(static_cast<T *>(second ? e.dx2 : e.dx) + at, V, v);
}

template <bool WIDE, typename T>
TW_DEVICE void finish_vector(const ImageGradient &e, float *d, int row, int column, int count) {
    if constexpr (WIDE) {
        finish_part<true, T, per_16<T>>(e, d, row, column);
    } else {
        for (int i = 0; i < count; i++) finish_part<false, T, 1>(e, d + i, row, column + i);
    }
}

template <int BN, int LD>
TW_DEVICE void finish_statistics(const ImageGradient &, const float *, int, int, int) {}
TW_DEVICE ImageGradient epilogue_of_class(const ImageGradient &e, const ConvInput &, int) {
    return e;
}

} // namespace tw
