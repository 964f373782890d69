// GroupNorm backward, through SiLU and scale/shift. With u the value before SiLU, d its gradient
// and h = (x - mean) rstd, everything follows from two sums over the pixels of each channel,
//     S1 = sum d        S2 = sum d h
// They are dshift and, with gamma and beta, dscale; over the samples they are dbeta and dgamma;
// over a group's channels they are the two means in dx. The activation is calculated again. dx's
// own sum over the pixels follows from them and from the sum of x - mean.
#include "group_norm_backward.cuh"

#include "device/cluster.cuh"

namespace tw {
namespace {

// Work: a block takes a chunk of pixels of one sample, all channels, tile by tile; the rows of a
// tile meet in shared memory and are added in order. Leaves [batch, chunks, channels] sums.
// Limit: device memory, one read of x and of dy.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_sums_kernel(const twk_group_norm_args a, GnWalk w, ChannelSums *partial) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    const size_t held = (size_t)w.rows * w.tile_channels;
    RowSums red = {};
    red.s1 = arena.take<float>(held);
    red.s2 = arena.take<float>(held);
    if (a.dvector) red.x = arena.take<float>(held);
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

constexpr int gn_reduce_channels = 32; // that a block adds up at once

// Groups of a block of gn_reduce_kernel.
TW_BOTH int reduce_groups(const twk_group_norm_args &a) {
    return smaller(a.groups, larger(1, gn_reduce_channels * a.groups / a.channels));
}

// Work: a block takes a few groups of one sample, 32 channels after the other; its eight warps
// stride over the chunks and meet in shared memory, where they are added in order. Then a warp a
// group. Limit: latency and L2, the sums are small.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_reduce_kernel(const twk_group_norm_args a, int64_t chunks, const ChannelSums *partial,
                     ChannelSums *sums, GroupSlope *slopes) {
    TW_SHARED(arena);
    ChannelSums *part = arena.take<ChannelSums>(gn_threads);
    const int per_group = a.channels / a.groups, take = reduce_groups(a);
    const int blocks = ceil_div(a.groups, take), first = (int)(blockIdx.x % blocks) * take;
    const int64_t n = blockIdx.x / blocks;
    const int end_group = smaller(first + take, a.groups), end = end_group * per_group;
    const int column = threadIdx.x % gn_reduce_channels, row = threadIdx.x / gn_reduce_channels;
    constexpr int rows = gn_threads / gn_reduce_channels;
    for (int tile = first * per_group; tile < end; tile += gn_reduce_channels) {
        const int c = tile + column;
        ChannelSums s{0.0f, 0.0f, 0.0f};
        if (c < end) {
            const ChannelSums *from = partial + n * chunks * a.channels + c;
#pragma unroll 8
            for (int64_t p = row; p < chunks; p += rows) {
                const ChannelSums v = from[p * a.channels];
                s.s1 += v.s1;
                s.s2 += v.s2;
                s.x += v.x;
            }
        }
        part[threadIdx.x] = s;
        sync_block();
        if (row == 0 && c < end) {
            for (int r = 1; r < rows; r++) {
                s.s1 += part[r * gn_reduce_channels + column].s1;
                s.s2 += part[r * gn_reduce_channels + column].s2;
                s.x += part[r * gn_reduce_channels + column].x;
            }
            sums[n * a.channels + c] = s;
            write_scale_shift<T>(a, n, c, s);
        }
        sync_block();
    }
    for (int g = first + (int)threadIdx.x / 32; g < end_group; g += gn_threads / 32) {
        const GroupSlope slope =
            group_slope<T>(a, n, g, [&](int c) { return sums[n * a.channels + c]; });
        if (threadIdx.x % 32 == 0) slopes[n * a.groups + g] = slope;
        if (a.dvector)
            write_vectors<T>(a, n, g, slope, [&](int c) { return sums[n * a.channels + c]; });
    }
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

// The parameters' gradients of 32 channels: a block's eight warps stride over the samples and meet
// in shared memory, where the first adds them in order.
template <typename T>
TW_DEVICE void add_parameters(const twk_group_norm_args &a, int block, const ChannelSums *sums,
                              ChannelSums *part) {
    const int c = block * 32 + (int)threadIdx.x % 32;
    ChannelSums s{0.0f, 0.0f, 0.0f};
    if (c < a.channels) {
#pragma unroll 4
        for (int64_t n = threadIdx.x / 32; n < a.batch; n += gn_threads / 32) {
            const float k = one_plus_scale<T>(a, n, c);
            const ChannelSums v = sums[n * a.channels + c];
            s.s1 += k * v.s1;
            s.s2 += k * v.s2;
        }
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

// Work: the first `parameter_blocks` blocks take 32 channels each of the parameters' gradients, the
// others are as those of gn_sums_kernel, with all coefficients of V channels in registers. They
// begin with what that kernel has read last, a part of which L2 may still have.
// Limit: device memory, a read of x and of dy and a write of dx.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_input_kernel(const twk_group_norm_args a, GnWalk w, int parameter_blocks,
                    const ChannelSums *sums, const GroupSlope *slopes) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    ChannelSums *part = arena.take<ChannelSums>(gn_threads);
    if ((int)blockIdx.x < parameter_blocks) {
        add_parameters<T>(a, (int)blockIdx.x, sums, part);
        return;
    }
    const int64_t item = gridDim.x - 1 - blockIdx.x;
    const int64_t n = item / w.chunks, first = item % w.chunks * w.chunk;
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

// Adds rows of red, [rows][channels], to its first `parts` ones: each to the one that is a multiple
// of `parts` above it.
TW_DEVICE void fold_rows(float *red1, float *red2, int rows, int channels, int parts) {
    for (int i = threadIdx.x; i < parts * channels; i += gn_threads) {
        float s1 = 0.0f, s2 = 0.0f;
        for (int at = i; at < rows * channels; at += parts * channels) {
            s1 += red1[at];
            if (red2) s2 += red2[at];
        }
        red1[i] = s1;
        if (red2) red2[i] = s2;
    }
}

// A channel's sums over the cluster, added in the order of its blocks.
TW_DEVICE ChannelSums cluster_sums(ChannelSums *mine, int cluster, int channel) {
    if (cluster == 1) return mine[channel];
    ChannelSums all{0.0f, 0.0f, 0.0f};
    for (int r = 0; r < cluster; r++) {
        const ChannelSums part = cluster_map(mine, r)[channel];
        all.s1 += part.s1;
        all.s2 += part.s2;
        all.x += part.x;
    }
    return all;
}

// What the one-read kernel holds of dy: room for the gradient before SiLU in fp32 with KEEP.
template <typename T, bool KEEP> using GnHeld = std::conditional_t<KEEP, Bytes16, Four<T>>;

template <typename T, typename H> TW_DEVICE void unpack_held(const H &held, float (&out)[4]) {
    if constexpr (sizeof(H) == sizeof(Four<T>))
        unpack_four(held, out, T{});
    else
        unpack_four(Bytes8{{held.word[0], held.word[1]}}, out, T{});
}

// Work: a cluster of blocks takes a slice of whole groups of one sample and splits its pixels;
// x and dy are copied to shared memory once and serve both the sums and dx. With KEEP the gradient
// before SiLU takes dy's place between the two, since SiLU's slope costs as much as all the rest.
// Limit: device memory, one read of x and of dy and a write of dx.
template <typename T, bool KEEP> // without it shared memory is too full for four blocks
__global__ void __launch_bounds__(gn_threads, KEEP ? 4 : 3)
    gn_chip_backward_kernel(const twk_group_norm_args a, GnSlice s, ChannelSums *sums) {
    constexpr int V = gn_chip_v;
    const int per_group = a.channels / a.groups;
    TW_SHARED(arena);
    Four<T> *const xs = arena.take<Four<T>>((size_t)s.pixels * s.lanes);
    GnHeld<T, KEEP> *const ds = arena.take<GnHeld<T, KEEP>>((size_t)s.pixels * s.lanes);
    RowSums red = {};
    red.s1 = arena.take<float>((size_t)s.rows * s.channels);
    red.s2 = arena.take<float>((size_t)s.rows * s.channels);
    ChannelSums *const mine = arena.take<ChannelSums>(s.channels);
    GroupSlope *const slopes = arena.take<GroupSlope>(s.channels / per_group);
    const unsigned rank = cluster_rank();
    const int64_t item = blockIdx.x / s.cluster, n = item / s.slices;
    const int base_channel = (int)(item % s.slices) * s.channels;
    const int channels = smaller(s.channels, a.channels - base_channel);
    const int first_group = base_channel / per_group;
    const int64_t first = (int64_t)rank * s.pixels;
    const int pixels = (int)larger<int64_t>(0, smaller<int64_t>(s.pixels, a.pixels - first));
    const int lane = threadIdx.x % s.lanes, row = threadIdx.x / s.lanes;
    const bool works = row < s.rows && lane * V < channels;
    const int channel = base_channel + lane * V;
    const int64_t base = (n * a.pixels + first) * a.channels + channel;
    GnCoefficients<V> k = {};
    if (works) {
        const GnRows<const T> from = gn_input<T>(a, n * a.pixels + first, channel);
        const T *const dy = static_cast<const T *>(a.dy) + base;
        for (int p = row; p < pixels; p += s.rows) {
            copy_four(xs + p * s.lanes + lane, from.first + p * from.stride);
            copy_four(ds + p * s.lanes + lane, dy + (int64_t)p * a.channels);
        }
        copy_async_commit();
        k = gn_coefficients<T, V>(a, n, channel, a.mean + n * a.groups, a.rstd + n * a.groups, 0);
        copy_async_wait<0>();
    }
    RunningSums<V> own;
    for (int p = row; works && p < pixels; p += s.rows) {
        float x[V], d[V];
        unpack_four(xs[p * s.lanes + lane], x, T{});
        unpack_held<T>(ds[p * s.lanes + lane], d);
        before_silu<V>(k, a.silu, x, d);
        own.add(x, d);
        if constexpr (KEEP) ds[p * s.lanes + lane] = pack_four(d, 0.0f);
    }
    if (row < s.rows) own.write(red, row * s.channels + lane * V);
    sync_block();
    const int parts = smaller(s.rows, larger(1, gn_threads / s.channels));
    fold_rows(red.s1, red.s2, s.rows, s.channels, parts);
    sync_block();
    for (int c = threadIdx.x; c < channels; c += gn_threads)
        mine[c] = add_rows(red, parts, s.channels, c,
                           a.rstd[n * a.groups + (base_channel + c) / per_group]);
    if (a.dvector) { // by themselves: registers and shared memory are short above
        float sx[V] = {};
        for (int p = row; works && p < pixels; p += s.rows) {
            float x[V];
            unpack_four(xs[p * s.lanes + lane], x, T{});
#pragma unroll
            for (int i = 0; i < V; i++) sx[i] += x[i] - k.mean[i];
        }
        sync_block(); // the other sums have been read
#pragma unroll
        for (int i = 0; row < s.rows && i < V; i++) red.s1[row * s.channels + lane * V + i] = sx[i];
        sync_block();
        fold_rows(red.s1, nullptr, s.rows, s.channels, parts);
        sync_block();
        for (int c = threadIdx.x; c < channels; c += gn_threads) {
            float sum = 0.0f;
            for (int r = 0; r < parts; r++) sum += red.s1[r * s.channels + c];
            mine[c].x = sum;
        }
    }
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    for (int g = threadIdx.x / 32; g < channels / per_group; g += gn_threads / 32) {
        const GroupSlope slope = group_slope<T>(a, n, first_group + g, [&](int c) {
            const ChannelSums all = cluster_sums(mine, s.cluster, c - base_channel);
            if (rank == 0) {
                sums[n * a.channels + c] = all;
                write_scale_shift<T>(a, n, c, all);
            }
            return all;
        });
        if (threadIdx.x % 32 == 0) slopes[g] = slope;
        if (a.dvector && rank == 0)
            write_vectors<T>(a, n, first_group + g, slope, [&](int c) {
                return cluster_sums(mine, s.cluster, c - base_channel);
            });
    }
    // Nobody leaves while others may still read its sums.
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    if (!works) return;
    float offset[V], slope[V];
#pragma unroll
    for (int i = 0; i < V; i++) {
        offset[i] = slopes[(channel + i) / per_group - first_group].offset;
        slope[i] = slopes[(channel + i) / per_group - first_group].slope;
    }
    const GnRows<T> to = gradient_rows<T>(a, n * a.pixels + first, channel);
    for (int p = row; p < pixels; p += s.rows) {
        float x[V], d[V];
        unpack_four(xs[p * s.lanes + lane], x, T{});
        if constexpr (KEEP) {
            unpack_four(ds[p * s.lanes + lane], d, 0.0f);
#pragma unroll
            for (int i = 0; i < V; i++) x[i] -= k.mean[i];
        } else {
            unpack_held<T>(ds[p * s.lanes + lane], d);
            before_silu<V>(k, a.silu, x, d);
        }
        input_gradient<V>(k, offset, slope, x, d);
        if (a.dx_add) {
            float more[V];
            load_four(static_cast<const T *>(a.dx_add) + base + (int64_t)p * a.channels, more);
#pragma unroll
            for (int i = 0; i < V; i++) d[i] += more[i];
        }
        store_four(to.first + p * to.stride, d);
    }
}

// Work: see add_parameters. Limit: latency and L2, the sums are small.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_parameters_kernel(const twk_group_norm_args a, const ChannelSums *sums) {
    TW_SHARED(arena);
    add_parameters<T>(a, (int)blockIdx.x, sums, arena.take<ChannelSums>(gn_threads));
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

// The parameters' gradients: blocks of 32 channels; 0 where they are not wanted.
int parameter_blocks(const twk_group_norm_args &a) {
    return a.dgamma || a.dbeta ? ceil_div(a.channels, 32) : 0;
}

template <typename T>
twk_status launch_two_pass(const twk_group_norm_args &a, const GnWalk &w, const Workspace &ws,
                           bool wide, twk_stream stream) {
    const int parameters = parameter_blocks(a);
    const int64_t reduce_blocks = a.batch * ceil_div(a.groups, reduce_groups(a));
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    LaunchConfig sums = config, reduce = config, input = config;
    if (!grid_for(a.batch * w.chunks, 1, &sums.grid) || !grid_for(reduce_blocks, 1, &reduce.grid) ||
        !grid_for(a.batch * w.chunks + parameters, 1, &input.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more pixels than a grid can hold");
    sums.shared = (a.dvector ? 3 : 2) * shared_bytes<float>((size_t)w.rows * w.tile_channels);
    reduce.shared = input.shared = shared_bytes<ChannelSums>(gn_threads);
    twk_status status = with_flag(wide, [&](auto flag) {
        return TW_LAUNCH((gn_sums_kernel<T, decltype(flag)::value>), sums, a, w, ws.partial);
    });
    if (status != TWK_OK) return status;
    status = TW_LAUNCH((gn_reduce_kernel<T>), reduce, a, w.chunks,
                       static_cast<const ChannelSums *>(ws.partial), ws.sums, ws.slopes);
    if (status != TWK_OK) return status;
    return with_flag(wide, [&](auto flag) {
        return TW_LAUNCH((gn_input_kernel<T, decltype(flag)::value>), input, a, w, parameters,
                         static_cast<const ChannelSums *>(ws.sums),
                         static_cast<const GroupSlope *>(ws.slopes));
    });
}

template <typename T, bool KEEP>
twk_status launch_chip(const twk_group_norm_args &a, const GnSlice &s, ChannelSums *sums,
                       twk_stream stream) {
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    config.shared = s.shared;
    config.cluster = (unsigned)s.cluster;
    if (!grid_for(a.batch * s.slices * s.cluster, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more samples than a grid can hold");
    const twk_status status = TW_LAUNCH((gn_chip_backward_kernel<T, KEEP>), config, a, s, sums);
    const int parameters = parameter_blocks(a);
    if (status != TWK_OK || !parameters) return status;
    LaunchConfig last;
    last.block = dim3(gn_threads);
    last.stream = stream;
    last.grid = dim3((unsigned)parameters);
    last.shared = shared_bytes<ChannelSums>(gn_threads);
    return TW_LAUNCH((gn_parameters_kernel<T>), last, a, static_cast<const ChannelSums *>(sums));
}

template <typename T> bool is_wide(const twk_group_norm_args &a) {
    return a.channels % per_16<T> == 0 && aligned_16(a.x) && aligned_16(a.dy) && aligned_16(a.dx) &&
           (!a.channels2 || aligned_16(a.x2)) && (!a.dx2 || aligned_16(a.dx2)) &&
           (!a.dx_add || aligned_16(a.dx_add));
}

// *keep: whether the gradient before SiLU fits, too.
template <typename T> GnSlice slice_of(const twk_group_norm_args &a, bool *keep) {
    GnSlice s = {};
    if (!is_wide<T>(a)) return s;
    *keep = true;
    s = gn_slice<T>(a, sizeof(T) + sizeof(float));
    if (s.fits || sizeof(T) == sizeof(float)) return s;
    *keep = false;
    return gn_slice<T>(a, 2 * sizeof(T));
}

template <typename T> twk_status launch_backward(const twk_group_norm_args &a, twk_stream stream) {
    const GnWalk w = gn_walk<T>(a);
    Workspace ws;
    if (!a.workspace || a.workspace_bytes < lay_out(a, w.chunks, nullptr, nullptr))
        return fail(TWK_BAD_ARGUMENT, "group norm: needs more workspace");
    lay_out(a, w.chunks, static_cast<char *>(a.workspace), &ws);
    bool keep = false;
    const GnSlice s = slice_of<T>(a, &keep);
    if (!s.fits) return launch_two_pass<T>(a, w, ws, is_wide<T>(a), stream);
    if constexpr (sizeof(T) < sizeof(float)) {
        if (!keep) return launch_chip<T, false>(a, s, ws.sums, stream);
    }
    return launch_chip<T, true>(a, s, ws.sums, stream);
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

extern "C" int twk_group_norm_backward_reads_twice(const twk_group_norm_args *args) {
    if (gn_check(args) != TWK_OK) return 0;
    int twice = 0;
    with_format(args->format, [&](auto t) {
        bool keep;
        twice = !slice_of<decltype(t)>(*args, &keep).fits;
        return TWK_OK;
    });
    return twice;
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
