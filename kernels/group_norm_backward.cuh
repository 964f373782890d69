// What GroupNorm's backward kernels share: the sums that everything follows from, and what does.
#pragma once

#include "group_norm.cuh"

namespace tw {

struct ChannelSums {
    float s1, s2;
    float x; // of x - mean, where dvector is wanted
};

// dx = k d - offset - (x - mean) slope
struct GroupSlope {
    float offset, slope;
};

// The gradient before SiLU, in place of dy; x becomes x - mean.
template <int V>
TW_DEVICE void before_silu(const GnCoefficients<V> &k, bool with_silu, float (&x)[V],
                           float (&dy)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        x[i] -= k.mean[i];
        if (with_silu) dy[i] *= silu_slope(x[i] * k.k[i] + k.b[i]);
    }
}

// The sums of a tile's rows, in shared memory; x NULL where they are not wanted.
struct RowSums {
    float *s1, *s2, *x;
};

template <int V> struct RunningSums {
    float s1[V] = {}, s2[V] = {}, sx[V] = {};
    TW_DEVICE void add(const float (&x)[V], const float (&d)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            s1[i] += d[i];
            s2[i] += d[i] * x[i];
            sx[i] += x[i];
        }
    }
    TW_DEVICE void write(const RowSums &to, int at) const {
#pragma unroll
        for (int i = 0; i < V; i++) {
            to.s1[at + i] = s1[i];
            to.s2[at + i] = s2[i];
            if (to.x) to.x[at + i] = sx[i];
        }
    }
};

template <typename T>
TW_DEVICE float one_plus_scale(const twk_group_norm_args &a, int64_t n, int c) {
    return a.scale ? 1.0f + to_float(static_cast<const T *>(a.scale)[n * a.scale_stride + c])
                   : 1.0f;
}

template <typename T>
TW_DEVICE void write_scale_shift(const twk_group_norm_args &a, int64_t n, int c, ChannelSums s) {
    const int64_t at = n * a.scale_stride + c;
    const float gamma = a.gamma ? a.gamma[c] : 1.0f, beta = a.beta ? a.beta[c] : 0.0f;
    if (a.dshift) static_cast<T *>(a.dshift)[at] = from_float<T>(s.s1);
    if (a.dscale) static_cast<T *>(a.dscale)[at] = from_float<T>(gamma * s.s2 + beta * s.s1);
}

// The sum over the pixels of k d - offset - (x - mean) slope.
template <typename T>
TW_DEVICE void write_vector(const twk_group_norm_args &a, int64_t n, int c, ChannelSums s,
                            GroupSlope slope) {
    const float rstd = a.rstd[n * a.groups + c / (a.channels / a.groups)];
    const float k = rstd * (a.gamma ? a.gamma[c] : 1.0f) * one_plus_scale<T>(a, n, c);
    static_cast<T *>(a.dvector)[n * a.dvector_stride + c] =
        from_float<T>(k * s.s1 - (float)a.pixels * slope.offset - s.x * slope.slope);
}

// One warp: the two means of a group from the sums of its channels, of which `sums` gives one.
template <typename T, typename F>
TW_DEVICE GroupSlope group_slope(const twk_group_norm_args &a, int64_t n, int g, const F &sums) {
    const int per_group = a.channels / a.groups;
    float m1 = 0.0f, m2 = 0.0f;
    for (int i = threadIdx.x % 32; i < per_group; i += 32) {
        const int c = g * per_group + i;
        const float k = (a.gamma ? a.gamma[c] : 1.0f) * one_plus_scale<T>(a, n, c);
        const ChannelSums s = sums(c);
        m1 += k * s.s1;
        m2 += k * s.s2;
    }
    const float size = (float)a.pixels * (float)per_group, rstd = a.rstd[n * a.groups + g];
    m1 = warp_sum(m1) / size;
    m2 = warp_sum(m2) / size;
    return GroupSlope{rstd * m1, rstd * rstd * m2};
}

// The same warp: dvector of the group.
template <typename T, typename F>
TW_DEVICE void write_vectors(const twk_group_norm_args &a, int64_t n, int g, GroupSlope slope,
                             const F &sums) {
    const int per_group = a.channels / a.groups;
    for (int c = g * per_group + (int)threadIdx.x % 32; c < (g + 1) * per_group; c += 32)
        write_vector<T>(a, n, c, sums(c), slope);
}

// Adds up the rows of a tile: the sums of one channel, with rstd put into s2.
TW_DEVICE ChannelSums add_rows(const RowSums &red, int rows, int stride, int at, float rstd) {
    ChannelSums s{0.0f, 0.0f, 0.0f};
    for (int r = 0; r < rows; r++) {
        s.s1 += red.s1[r * stride + at];
        s.s2 += red.s2[r * stride + at];
        if (red.x) s.x += red.x[r * stride + at];
    }
    s.s2 *= rstd;
    return s;
}

} // namespace tw
