// What GroupNorm's forward and backward share: how channels and pixels are laid over a block, the
// coefficients of a channel, and the choice of slices that fit on chip.
//
// A thread owns one vector of V channels and walks down the pixels; `lanes` neighbouring threads
// cover `lanes * V` channels of a pixel, so that reads are contiguous, and a block has `rows`
// pixels under way at once. Groups may begin and end anywhere inside a vector.
#pragma once

#include "device/four.cuh"
#include "device/launch.cuh"
#include "device/math.cuh"
#include "device/vec.cuh"
#include "device/warp.cuh"

namespace tw {

constexpr int gn_threads = 256;
constexpr size_t gn_chunk_bytes = 32 * 1024; // of x that a block of the two-pass path reads

// How a block walks over a sample.
struct GnWalk {
    int lanes, rows;
    int tile_channels; // lanes * V; a block loops over tiles of that many channels
    int64_t chunk;     // pixels a block
    int64_t chunks;    // blocks a sample
};

template <typename T> GnWalk gn_walk(const twk_group_norm_args &a) {
    constexpr int V = per_16<T>;
    GnWalk w;
    const int vectors = ceil_div(a.channels, V);
    w.lanes = smaller(vectors, gn_threads);
    w.rows = gn_threads / w.lanes;
    w.tile_channels = w.lanes * V;
    const int64_t wanted = (int64_t)(gn_chunk_bytes / sizeof(T)) / a.channels;
    w.chunk = smaller<int64_t>(a.pixels, larger<int64_t>(wanted, w.rows));
    w.chunks = ceil_div(a.pixels, w.chunk);
    return w;
}

// A slice of whole groups and whole vectors of a sample, kept in the shared memory of `cluster`
// blocks that split the pixels. A thread owns four channels: registers for more would leave a
// processor too few threads to calculate while others wait for memory.
constexpr int gn_chip_v = 4;

struct GnSlice {
    int channels, slices, lanes, rows, cluster;
    int pixels; // a block
    size_t shared;
    bool fits;
};

inline int gn_gcd(int a, int b) {
    return b ? gn_gcd(b, a % b) : a;
}

// A group's channels in whole vectors and in two memory sectors at least; more, where few pixels
// would leave the threads of a block without work, and as long as there are blocks for a GPU.
template <typename T> int gn_slice_channels(const twk_group_norm_args &a) {
    constexpr int V = per_16<T>, most = gn_threads * gn_chip_v;
    constexpr int64_t busy = 4 * most, blocks = 256;
    const int per_group = a.channels / a.groups, whole = per_group / gn_gcd(per_group, V) * V;
    const int least = 64 / (int)sizeof(T);
    int channels = smaller(ceil_div(least, whole) * whole, a.channels);
    while (channels * a.pixels < busy && 2 * channels <= smaller(most, a.channels) &&
           a.batch * ceil_div(a.channels, 2 * channels) >= blocks)
        channels *= 2;
    return channels <= most ? channels : 0;
}

// `bytes` of every element of the slice are held at once.
template <typename T> GnSlice gn_slice(const twk_group_norm_args &a, size_t bytes) {
    constexpr size_t sweet = 74 * 1024; // three such blocks share a processor
    GnSlice s = {};
    if (a.channels % per_16<T>) return s;
    s.channels = gn_slice_channels<T>(a);
    if (!s.channels) return s;
    s.slices = ceil_div(a.channels, s.channels);
    s.lanes = s.channels / gn_chip_v;
    s.rows = gn_threads / s.lanes;
    const Limits limits = device_limits();
    // A block alone calculates nothing while it waits for memory: where there is much bandwidth for
    // each processor, as with clusters, two passes are quicker.
    const size_t most = limits.cluster > 1 ? limits.shared / 2 : limits.shared;
    const size_t fixed = 2 * shared_bytes<float>((size_t)s.rows * s.channels) +
                         4 * shared_bytes<float>(2 * (size_t)s.channels);
    for (s.cluster = 1; s.cluster <= (int)limits.cluster; s.cluster *= 2) {
        const int64_t pixels = ceil_div<int64_t>(a.pixels, s.cluster);
        s.shared = (size_t)pixels * s.channels * bytes + fixed;
        const bool last = s.cluster * 2 > (int)limits.cluster || pixels < 64;
        if (s.shared <= (last ? most : smaller(sweet, most))) {
            s.pixels = (int)pixels;
            s.fits = true;
            break;
        }
        if (last) break;
    }
    return s;
}

// y = (x - mean) k + b for V channels; rstd and g = gamma (1 + scale) for the gradient.
template <int V> struct GnCoefficients { float mean[V], k[V], b[V]; };

// mean and rstd are indexed by group - first_group.
template <typename T, int V>
TW_DEVICE GnCoefficients<V> gn_coefficients(const twk_group_norm_args &a, int64_t n, int channel,
                                            const float *mean, const float *rstd, int first_group) {
    GnCoefficients<V> r;
    const int per_group = a.channels / a.groups;
#pragma unroll
    for (int i = 0; i < V; i++) {
        const int c = smaller(channel + i, a.channels - 1), g = c / per_group - first_group;
        const float gamma = a.gamma ? a.gamma[c] : 1.0f, beta = a.beta ? a.beta[c] : 0.0f;
        const int64_t at = n * a.scale_stride + c;
        const float scale = a.scale ? 1.0f + to_float(static_cast<const T *>(a.scale)[at]) : 1.0f;
        const float shift = a.shift ? to_float(static_cast<const T *>(a.shift)[at]) : 0.0f;
        r.mean[i] = mean[g];
        r.k[i] = rstd[g] * gamma * scale;
        r.b[i] = fma_rn(beta, scale, shift);
    }
    return r;
}

// Where `channel` of a pixel lies: in x, or behind x's channels in x2; and how far the next pixel
// is.
template <typename T> struct GnRows {
    T *first;
    int64_t stride;
};

template <typename T>
TW_DEVICE GnRows<T> gn_rows(const twk_group_norm_args &a, T *x, T *x2, int64_t pixel, int channel) {
    if (!x2) return {x + pixel * a.channels + channel, a.channels};
    const int before = a.channels - a.channels2;
    if (channel < before) return {x + pixel * before + channel, before};
    return {x2 + pixel * a.channels2 + channel - before, a.channels2};
}

template <typename T>
TW_DEVICE GnRows<const T> gn_input(const twk_group_norm_args &a, int64_t pixel, int channel) {
    return gn_rows<const T>(a, static_cast<const T *>(a.x),
                            a.channels2 ? static_cast<const T *>(a.x2) : nullptr, pixel, channel);
}

twk_status gn_check(const twk_group_norm_args *a);

} // namespace tw
