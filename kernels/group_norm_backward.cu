// GroupNorm backward, through SiLU and scale/shift. With u the value before SiLU, d its gradient
// and h = (x - mean) rstd, everything follows from two sums over the pixels of each channel,
//     S1 = sum d        S2 = sum d h
// They are dshift and, with gamma and beta, dscale; over the samples they are dbeta and dgamma;
// over a group's channels they are the two means in dx. The activation is calculated again. dx's
// own sum over the pixels follows from them and from the sum of x - mean.
#include "group_norm.cuh"

#include "device/cluster.cuh"
#include "device/copy.cuh"

namespace tw {
namespace {

struct ChannelSums {
    float s1, s2;
    float x; // of x - mean
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

// The sums of a tile's rows, in shared memory; x only for dvector.
struct RowSums {
    float *s1, *s2, *x;
};

TW_DEVICE RowSums take_row_sums(SharedArena &arena, const twk_group_norm_args &a, size_t count) {
    RowSums r;
    r.s1 = arena.take<float>(count);
    r.s2 = arena.take<float>(count);
    r.x = a.dvector ? arena.take<float>(count) : nullptr;
    return r;
}

inline int row_sums_of(const twk_group_norm_args &a) {
    return a.dvector ? 3 : 2;
}

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

// One warp: the two means of a group from the sums of its channels, sums[0] being the first.
template <typename T>
TW_DEVICE GroupSlope group_slope(const twk_group_norm_args &a, int64_t n, int g,
                                 const ChannelSums *sums) {
    const int per_group = a.channels / a.groups;
    float m1 = 0.0f, m2 = 0.0f;
    for (int i = threadIdx.x % 32; i < per_group; i += 32) {
        const int c = g * per_group + i;
        const float k = (a.gamma ? a.gamma[c] : 1.0f) * one_plus_scale<T>(a, n, c);
        m1 += k * sums[i].s1;
        m2 += k * sums[i].s2;
    }
    const float size = (float)a.pixels * (float)per_group, rstd = a.rstd[n * a.groups + g];
    m1 = warp_sum(m1) / size;
    m2 = warp_sum(m2) / size;
    return GroupSlope{rstd * m1, rstd * rstd * m2};
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

// Work: a block takes a chunk of pixels of one sample, all channels, tile by tile; the rows of a
// tile meet in shared memory and are added in order. Leaves [batch, chunks, channels] sums.
// Limit: device memory, one read of x and of dy.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_sums_kernel(const twk_group_norm_args a, GnWalk w, ChannelSums *partial) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    const RowSums red = take_row_sums(arena, a, (size_t)w.rows * w.tile_channels);
    const int64_t n = blockIdx.x / w.chunks, chunk = blockIdx.x % w.chunks;
    const int64_t first = chunk * w.chunk, pixels = smaller(w.chunk, a.pixels - first);
    const int lane = threadIdx.x % w.lanes, row = threadIdx.x / w.lanes;
    const int per_group = a.channels / a.groups;
    for (int tile = 0; tile < a.channels; tile += w.tile_channels) {
        const int channel = tile + lane * V, count = smaller(V, a.channels - channel);
        if (row < w.rows && count > 0) {
            const GnCoefficients<V> k = gn_coefficients<T, V>(a, n, channel, a.mean + n * a.groups,
                                                              a.rstd + n * a.groups, 0);
            const int64_t base = (n * a.pixels + first) * a.channels + channel;
            const GnRows<const T> from = gn_input<T>(a, n * a.pixels + first, channel);
            RunningSums<V> sums;
#pragma unroll 2
            for (int64_t p = row; p < pixels; p += w.rows) {
                float x[V], d[V];
                load<WIDE>(from.first + p * from.stride, count, x);
                load<WIDE>(static_cast<const T *>(a.dy) + base + p * a.channels, count, d);
                before_silu<V>(k, a.silu, x, d);
                sums.add(x, d);
            }
            sums.write(red, row * w.tile_channels + lane * V);
        }
        sync_block();
        const int end = smaller(w.tile_channels, a.channels - tile);
        for (int i = threadIdx.x; i < end; i += gn_threads) {
            const float rstd = a.rstd[n * a.groups + (tile + i) / per_group];
            partial[(n * w.chunks + chunk) * a.channels + tile + i] =
                add_rows(red, w.rows, w.tile_channels, i, rstd);
        }
        sync_block();
    }
}

// Work: one block a sample; threads stride over channels and add the chunks in order, then warps
// stride over groups. Limit: latency and L2, the sums are small.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_reduce_kernel(const twk_group_norm_args a, int64_t chunks, const ChannelSums *partial,
                     ChannelSums *sums, GroupSlope *slopes) {
    const int64_t n = blockIdx.x;
    for (int c = threadIdx.x; c < a.channels; c += gn_threads) {
        ChannelSums s{0.0f, 0.0f, 0.0f};
        for (int64_t p = 0; p < chunks; p++) {
            const ChannelSums v = partial[(n * chunks + p) * a.channels + c];
            s.s1 += v.s1;
            s.s2 += v.s2;
            s.x += v.x;
        }
        sums[n * a.channels + c] = s;
        write_scale_shift<T>(a, n, c, s);
    }
    sync_block();
    const int per_group = a.channels / a.groups;
    for (int g = threadIdx.x / 32; g < a.groups; g += gn_threads / 32) {
        const GroupSlope slope =
            group_slope<T>(a, n, g, sums + n * a.channels + (int64_t)g * per_group);
        if (threadIdx.x % 32 == 0) slopes[n * a.groups + g] = slope;
    }
    if (!a.dvector) return;
    sync_block();
    for (int c = threadIdx.x; c < a.channels; c += gn_threads)
        write_vector<T>(a, n, c, sums[n * a.channels + c], slopes[n * a.groups + c / per_group]);
}

template <typename T>
TW_DEVICE GnRows<T> gradient_rows(const twk_group_norm_args &a, int64_t pixel, int channel) {
    return gn_rows<T>(a, static_cast<T *>(a.dx), static_cast<T *>(a.dx2), pixel, channel);
}

// Adds what arrives by other paths, element `at` on.
template <bool WIDE, typename T, int V>
TW_DEVICE void add_gradient(const twk_group_norm_args &a, int64_t at, int count, float (&d)[V]) {
    if (!a.dx_add) return;
    float more[V];
    load<WIDE>(static_cast<const T *>(a.dx_add) + at, count, more);
#pragma unroll
    for (int i = 0; i < V; i++) d[i] += more[i];
}

// dx of V channels of a pixel, in place of d; x holds x - mean.
template <int V>
TW_DEVICE void input_gradient(const GnCoefficients<V> &k, const float (&offset)[V],
                              const float (&slope)[V], const float (&x)[V], float (&d)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) d[i] = k.k[i] * d[i] - offset[i] - x[i] * slope[i];
}

// Work: as gn_sums_kernel, with all coefficients of V channels in registers.
// Limit: device memory, a read of x and of dy and a write of dx.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_input_kernel(const twk_group_norm_args a, GnWalk w, const GroupSlope *slopes) {
    constexpr int V = per_16<T>;
    const int64_t n = blockIdx.x / w.chunks, first = blockIdx.x % w.chunks * w.chunk;
    const int64_t pixels = smaller(w.chunk, a.pixels - first);
    const int lane = threadIdx.x % w.lanes, row = threadIdx.x / w.lanes;
    const int per_group = a.channels / a.groups;
    if (row >= w.rows) return;
    for (int tile = 0; tile < a.channels; tile += w.tile_channels) {
        const int channel = tile + lane * V, count = smaller(V, a.channels - channel);
        if (count <= 0) return;
        const GnCoefficients<V> k =
            gn_coefficients<T, V>(a, n, channel, a.mean + n * a.groups, a.rstd + n * a.groups, 0);
        float offset[V], slope[V];
#pragma unroll
        for (int i = 0; i < V; i++) {
            const int g = smaller(channel + i, a.channels - 1) / per_group;
            offset[i] = slopes[n * a.groups + g].offset;
            slope[i] = slopes[n * a.groups + g].slope;
        }
        const int64_t base = (n * a.pixels + first) * a.channels + channel;
        const GnRows<const T> from = gn_input<T>(a, n * a.pixels + first, channel);
        const GnRows<T> to = gradient_rows<T>(a, n * a.pixels + first, channel);
#pragma unroll 2
        for (int64_t p = row; p < pixels; p += w.rows) {
            float x[V], d[V];
            load<WIDE>(from.first + p * from.stride, count, x);
            load<WIDE>(static_cast<const T *>(a.dy) + base + p * a.channels, count, d);
            before_silu<V>(k, a.silu, x, d);
            input_gradient<V>(k, offset, slope, x, d);
            add_gradient<WIDE, T>(a, base + p * a.channels, count, d);
            store<WIDE>(to.first + p * to.stride, count, d);
        }
    }
}

// What the one-read kernel keeps in shared memory besides the slice.
struct ChipShared {
    Bytes16 *x, *dy;
    RowSums red;
    ChannelSums *mine, *all;
    GroupSlope *slopes;
};

// Adds the cluster's sums in the order of its blocks; the first block leaves them for the
// parameters' gradients.
template <typename T>
TW_DEVICE void gather_sums(const twk_group_norm_args &a, const GnSlice &s, const ChipShared &m,
                           int64_t n, int base_channel, int channels, ChannelSums *sums) {
    for (int c = threadIdx.x; c < channels; c += gn_threads) {
        ChannelSums all = m.mine[c];
        if (s.cluster > 1) {
            all = ChannelSums{0.0f, 0.0f, 0.0f};
            for (int r = 0; r < s.cluster; r++) {
                const ChannelSums part = cluster_map(m.mine, r)[c];
                all.s1 += part.s1;
                all.s2 += part.s2;
                all.x += part.x;
            }
        }
        m.all[c] = all;
        if (cluster_rank() != 0) continue;
        sums[n * a.channels + base_channel + c] = all;
        write_scale_shift<T>(a, n, base_channel + c, all);
    }
}

// Work: a cluster of blocks takes a slice of whole groups of one sample and splits its pixels;
// x and dy are copied to shared memory once and serve both the sums and dx.
// Limit: device memory, one read of x and of dy and a write of dx.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_chip_backward_kernel(const twk_group_norm_args a, GnSlice s, ChannelSums *sums) {
    constexpr int V = per_16<T>;
    const int per_group = a.channels / a.groups;
    TW_SHARED(arena);
    ChipShared m;
    m.x = arena.take<Bytes16>((size_t)s.pixels * s.lanes);
    m.dy = arena.take<Bytes16>((size_t)s.pixels * s.lanes);
    m.red = take_row_sums(arena, a, (size_t)s.rows * s.channels);
    m.mine = arena.take<ChannelSums>(s.channels);
    m.all = arena.take<ChannelSums>(s.channels);
    m.slopes = arena.take<GroupSlope>(s.channels / per_group);
    const unsigned rank = cluster_rank();
    const int64_t item = blockIdx.x / s.cluster, n = item / s.slices;
    const int base_channel = (int)(item % s.slices) * s.channels;
    const int channels = smaller(s.channels, a.channels - base_channel);
    const int first_group = base_channel / per_group;
    const int64_t first = rank * s.pixels;
    const int64_t pixels = larger<int64_t>(0, smaller(s.pixels, a.pixels - first));
    const int lane = threadIdx.x % s.lanes, row = threadIdx.x / s.lanes;
    const bool works = row < s.rows && lane * V < channels;
    const int channel = base_channel + lane * V;
    const int64_t base = (n * a.pixels + first) * a.channels + channel;
    GnCoefficients<V> k = {};
    if (works) {
        const GnRows<const T> from = gn_input<T>(a, n * a.pixels + first, channel);
        for (int64_t p = row; p < pixels; p += s.rows) {
            copy_async_16(m.x + p * s.lanes + lane, from.first + p * from.stride);
            copy_async_16(m.dy + p * s.lanes + lane,
                          static_cast<const T *>(a.dy) + base + p * a.channels);
        }
        copy_async_commit();
        k = gn_coefficients<T, V>(a, n, channel, a.mean + n * a.groups, a.rstd + n * a.groups, 0);
        copy_async_wait<0>();
        RunningSums<V> own;
        for (int64_t p = row; p < pixels; p += s.rows) {
            float x[V], d[V];
            unpack(m.x[p * s.lanes + lane], x, T{});
            unpack(m.dy[p * s.lanes + lane], d, T{});
            before_silu<V>(k, a.silu, x, d);
            own.add(x, d);
        }
        own.write(m.red, row * s.channels + lane * V);
    }
    sync_block();
    for (int c = threadIdx.x; c < channels; c += gn_threads)
        m.mine[c] = add_rows(m.red, s.rows, s.channels, c,
                             a.rstd[n * a.groups + (base_channel + c) / per_group]);
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    gather_sums<T>(a, s, m, n, base_channel, channels, sums);
    // Nobody leaves while others may still read its sums.
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    for (int g = threadIdx.x / 32; g < channels / per_group; g += gn_threads / 32) {
        const GroupSlope slope = group_slope<T>(a, n, first_group + g, m.all + g * per_group);
        if (threadIdx.x % 32 == 0) m.slopes[g] = slope;
    }
    sync_block();
    if (a.dvector && rank == 0)
        for (int c = threadIdx.x; c < channels; c += gn_threads)
            write_vector<T>(a, n, base_channel + c, m.all[c], m.slopes[c / per_group]);
    if (!works) return;
    float offset[V], slope[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
        offset[i] = m.slopes[(channel + i) / per_group - first_group].offset;
        slope[i] = m.slopes[(channel + i) / per_group - first_group].slope;
    }
    const GnRows<T> to = gradient_rows<T>(a, n * a.pixels + first, channel);
    for (int64_t p = row; p < pixels; p += s.rows) {
        float x[V], d[V];
        unpack(m.x[p * s.lanes + lane], x, T{});
        unpack(m.dy[p * s.lanes + lane], d, T{});
        before_silu<V>(k, a.silu, x, d);
        input_gradient<V>(k, offset, slope, x, d);
        add_gradient<true, T>(a, base + p * a.channels, V, d);
        store<true>(to.first + p * to.stride, V, d);
    }
}

// Work: a block takes 32 channels; its eight warps stride over the samples and meet in shared
// memory, where the first adds them in order. Limit: latency and L2, the sums are small.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_parameters_kernel(const twk_group_norm_args a, const ChannelSums *sums) {
    TW_SHARED(arena);
    ChannelSums *part = arena.take<ChannelSums>(gn_threads);
    const int c = (int)blockIdx.x * 32 + (int)threadIdx.x % 32;
    ChannelSums s{0.0f, 0.0f, 0.0f};
    for (int64_t n = threadIdx.x / 32; n < a.batch && c < a.channels; n += gn_threads / 32) {
        const float k = one_plus_scale<T>(a, n, c);
        s.s1 += k * sums[n * a.channels + c].s1;
        s.s2 += k * sums[n * a.channels + c].s2;
    }
    part[threadIdx.x] = s;
    sync_block();
    if (threadIdx.x >= 32 || c >= a.channels) return;
    for (int w = 1; w < gn_threads / 32; w++) {
        s.s1 += part[w * 32 + threadIdx.x].s1;
        s.s2 += part[w * 32 + threadIdx.x].s2;
    }
    if (a.dbeta) a.dbeta[c] += s.s1;
    if (a.dgamma) a.dgamma[c] += s.s2;
}

size_t align_256(size_t bytes) {
    return (bytes + 255) / 256 * 256;
}

struct Workspace {
    ChannelSums *sums, *partial;
    GroupSlope *slopes;
};

// Pieces of the workspace, and its size when base is NULL.
size_t lay_out(const twk_group_norm_args &a, int64_t chunks, char *base, Workspace *w) {
    const size_t sums = align_256((size_t)(a.batch * a.channels) * sizeof(ChannelSums));
    const size_t slopes = align_256((size_t)(a.batch * a.groups) * sizeof(GroupSlope));
    const size_t partial = (size_t)(a.batch * chunks * a.channels) * sizeof(ChannelSums);
    if (w && base) {
        w->sums = reinterpret_cast<ChannelSums *>(base);
        w->slopes = reinterpret_cast<GroupSlope *>(base + sums);
        w->partial = reinterpret_cast<ChannelSums *>(base + sums + slopes);
    }
    return sums + slopes + partial;
}

template <typename T>
twk_status launch_two_pass(const twk_group_norm_args &a, const GnWalk &w, const Workspace &ws,
                           bool wide, twk_stream stream) {
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    if (!grid_for(a.batch * w.chunks, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more pixels than a grid can hold");
    LaunchConfig sums = config;
    sums.shared = row_sums_of(a) * shared_bytes<float>((size_t)w.rows * w.tile_channels);
    twk_status status = with_flag(wide, [&](auto flag) {
        return TW_LAUNCH((gn_sums_kernel<T, decltype(flag)::value>), sums, a, w, ws.partial);
    });
    if (status != TWK_OK) return status;
    LaunchConfig reduce = config;
    reduce.grid = dim3((unsigned)a.batch);
    status = TW_LAUNCH((gn_reduce_kernel<T>), reduce, a, w.chunks,
                       static_cast<const ChannelSums *>(ws.partial), ws.sums, ws.slopes);
    if (status != TWK_OK) return status;
    return with_flag(wide, [&](auto flag) {
        return TW_LAUNCH((gn_input_kernel<T, decltype(flag)::value>), config, a, w,
                         static_cast<const GroupSlope *>(ws.slopes));
    });
}

template <typename T> twk_status launch_backward(const twk_group_norm_args &a, twk_stream stream) {
    const GnWalk w = gn_walk<T>(a);
    Workspace ws;
    if (!a.workspace || a.workspace_bytes < lay_out(a, w.chunks, nullptr, nullptr))
        return fail(TWK_BAD_ARGUMENT, "group norm: needs more workspace");
    lay_out(a, w.chunks, static_cast<char *>(a.workspace), &ws);
    const bool wide = a.channels % per_16<T> == 0 && aligned_16(a.x) && aligned_16(a.dy) &&
                      aligned_16(a.dx) && (!a.channels2 || aligned_16(a.x2)) &&
                      (!a.dx2 || aligned_16(a.dx2)) && (!a.dx_add || aligned_16(a.dx_add));
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    GnSlice s = {};
    if (wide) s = gn_slice<T>(a, 2, row_sums_of(a));
    twk_status status;
    if (s.fits) {
        config.shared = s.shared;
        config.cluster = (unsigned)s.cluster;
        if (!grid_for(a.batch * s.slices * s.cluster, 1, &config.grid))
            return fail(TWK_BAD_ARGUMENT, "group norm: more samples than a grid can hold");
        status = TW_LAUNCH((gn_chip_backward_kernel<T>), config, a, s, ws.sums);
    } else {
        status = launch_two_pass<T>(a, w, ws, wide, stream);
    }
    if (status != TWK_OK || (!a.dgamma && !a.dbeta)) return status;
    LaunchConfig parameters;
    parameters.block = dim3(gn_threads);
    parameters.stream = stream;
    parameters.grid = dim3((unsigned)ceil_div(a.channels, 32));
    parameters.shared = shared_bytes<ChannelSums>(gn_threads);
    return TW_LAUNCH((gn_parameters_kernel<T>), parameters, a,
                     static_cast<const ChannelSums *>(ws.sums));
}

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_group_norm_backward_workspace(const twk_group_norm_args *args) {
    if (!args || args->channels <= 0 || args->groups <= 0 || args->pixels <= 0) return 0;
    const int64_t chunks =
        args->format == TWK_F32 ? gn_walk<float>(*args).chunks : gn_walk<bf16>(*args).chunks;
    return lay_out(*args, chunks, nullptr, nullptr);
}

extern "C" twk_status twk_group_norm_backward(const twk_group_norm_args *args, twk_stream stream) {
    const twk_status status = gn_check(args);
    if (status != TWK_OK) return status;
    TW_REQUIRE(args->dy && args->dx, "group norm: dy and dx are needed");
    TW_REQUIRE(!args->dx2 || args->channels2, "group norm: dx2 without x2");
    TW_REQUIRE(!args->dvector || !args->dx_add, "group norm: dvector is of dx without dx_add");
    TW_REQUIRE(!args->dvector || args->dvector_stride >= args->channels || args->batch == 1,
               "group norm: rows of dvector overlap");
    TW_REQUIRE(args->batch <= 0x7fffffff, "group norm: more samples than a grid can hold");
    TW_REQUIRE((!args->dscale && !args->dshift) || args->scale_stride >= args->channels ||
                   args->batch == 1,
               "group norm: rows of dscale and dshift overlap");
    return with_format(args->format,
                       [&](auto t) { return launch_backward<decltype(t)>(*args, stream); });
}
