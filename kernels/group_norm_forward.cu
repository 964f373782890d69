// GroupNorm forward, with SiLU and scale/shift: in one pass where a slice of a sample fits on chip,
// else statistics, then application; or from statistics that another kernel left behind, or from
// mean and rstd as they are.
#include "group_norm.cuh"

#include "device/cluster.cuh"

namespace tw {
namespace {

// Sums of a thread's own pixels about its first one. That pixel is one of the set, so the
// subtraction at the end costs at most a factor of the set's size in precision, which is small.
template <int V> struct Shifted {
    float origin[V], sum[V], squares[V];
    int count = 0;

    TW_DEVICE void add(const float (&x)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (count == 0) {
                origin[i] = x[i];
                sum[i] = squares[i] = 0.0f;
            }
            const float d = x[i] - origin[i];
            sum[i] += d;
            squares[i] += d * d;
        }
        count++;
    }
    // To [channel] of one row of shared memory.
    TW_DEVICE void write(float *mean, float *m2) const {
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float average = count ? sum[i] / (float)count : 0.0f;
            mean[i] = count ? origin[i] + average : 0.0f;
            m2[i] = count ? fmaxf(squares[i] - sum[i] * average, 0.0f) : 0.0f;
        }
    }
};

// Pixels that row `row` of `rows` gets out of `pixels`.
TW_DEVICE int64_t row_share(int64_t pixels, int row, int rows) {
    return pixels > row ? (pixels - row - 1) / rows + 1 : 0;
}

// Merges the moments of channels [first, last) of all rows, by one warp; every lane gets them.
TW_DEVICE Moments merge_channels(const float *mean, const float *m2, int rows, int stride,
                                 int first, int last, int64_t pixels) {
    Moments sum{0.0f, 0.0f, 0.0f};
    const int width = last - first;
    for (int item = threadIdx.x % 32; item < rows * width; item += 32) {
        const int row = item / width, at = row * stride + first + item % width;
        sum = merge(sum, Moments{(float)row_share(pixels, row, rows), mean[at], m2[at]});
    }
    return warp_merge(sum);
}

// Work: a block takes a chunk of pixels of one sample, all channels, tile by tile; its warps then
// merge one group after another. Leaves [batch, chunks, groups] moments.
// Limit: device memory, one read of x.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_stats_kernel(const twk_group_norm_args a, GnWalk w, twk_moments *partial) {
    constexpr int V = per_16<T>;
    TW_SHARED(arena);
    float *mean = arena.take<float>((size_t)w.rows * w.tile_channels);
    float *m2 = arena.take<float>((size_t)w.rows * w.tile_channels);
    Moments *group = arena.take<Moments>(a.groups);
    const int64_t n = blockIdx.x / w.chunks, chunk = blockIdx.x % w.chunks;
    const int64_t first = chunk * w.chunk, pixels = smaller(w.chunk, a.pixels - first);
    const int lane = threadIdx.x % w.lanes, row = threadIdx.x / w.lanes;
    const int per_group = a.channels / a.groups;
    for (int g = threadIdx.x; g < a.groups; g += gn_threads) group[g] = Moments{0.0f, 0.0f, 0.0f};
    for (int tile = 0; tile < a.channels; tile += w.tile_channels) {
        const int channel = tile + lane * V, count = smaller(V, a.channels - channel);
        if (row < w.rows && count > 0) {
            Shifted<V> s;
            const GnRows<const T> x = gn_input<T>(a, n * a.pixels + first, channel);
#pragma unroll 4
            for (int64_t p = row; p < pixels; p += w.rows) {
                float v[V];
                load<WIDE>(x.first + p * x.stride, count, v);
                s.add(v);
            }
            s.write(mean + row * w.tile_channels + lane * V, m2 + row * w.tile_channels + lane * V);
        }
        sync_block();
        const int end = smaller(tile + w.tile_channels, a.channels);
        for (int g = tile / per_group + (int)threadIdx.x / 32; g * per_group < end;
             g += gn_threads / 32) {
            const int from = larger(g * per_group, tile), to = smaller((g + 1) * per_group, end);
            const Moments m =
                merge_channels(mean, m2, w.rows, w.tile_channels, from - tile, to - tile, pixels);
            if (threadIdx.x % 32 == 0) group[g] = merge(group[g], m);
        }
        sync_block();
    }
    for (int g = threadIdx.x; g < a.groups; g += gn_threads)
        partial[(n * w.chunks + chunk) * a.groups + g] = twk_moments{group[g].mean, group[g].m2};
}

// Work: a warp a group of a sample; lanes stride over the partial moments.
// Limit: latency; there is next to nothing to read.
__global__ void __launch_bounds__(gn_threads, 2)
    gn_finish_kernel(const twk_group_norm_args a, const twk_moments *partial, int64_t partials,
                     int64_t pixels_per_partial) {
    const int64_t at = (int64_t)blockIdx.x * (gn_threads / 32) + threadIdx.x / 32;
    if (at >= a.batch * a.groups) return;
    const int64_t n = at / a.groups, g = at % a.groups;
    const float per_group = (float)(a.channels / a.groups);
    Moments sum{0.0f, 0.0f, 0.0f};
    for (int64_t p = threadIdx.x % 32; p < partials; p += 32) {
        const twk_moments m = partial[(n * partials + p) * a.groups + g];
        const int64_t pixels = smaller(pixels_per_partial, a.pixels - p * pixels_per_partial);
        sum = merge(sum, Moments{(float)pixels * per_group, m.mean, m.m2});
    }
    sum = warp_merge(sum);
    if (threadIdx.x % 32 != 0) return;
    a.mean[at] = sum.mean;
    a.rstd[at] = 1.0f / sqrtf(sum.m2 / sum.count + a.epsilon);
}

template <int V> TW_DEVICE void apply(const GnCoefficients<V> &k, bool with_silu, float (&v)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        v[i] = fma_rn(v[i] - k.mean[i], k.k[i], k.b[i]); // the same bits in every kernel
        if (with_silu) v[i] = silu(v[i]);
    }
}

// Work: as gn_stats_kernel; a thread keeps the coefficients of its V channels in registers. With
// `back` the blocks go from the end to the beginning: L2 may still have what was read last.
// Limit: device memory, one read and one write.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(gn_threads, 2)
    gn_apply_kernel(const twk_group_norm_args a, GnWalk w, int back) {
    constexpr int V = per_16<T>;
    const int64_t item = back ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    const int64_t n = item / w.chunks, first = item % w.chunks * w.chunk;
    const int64_t pixels = smaller(w.chunk, a.pixels - first);
    const int lane = threadIdx.x % w.lanes, row = threadIdx.x / w.lanes;
    if (row >= w.rows) return;
    for (int tile = 0; tile < a.channels; tile += w.tile_channels) {
        const int channel = tile + lane * V, count = smaller(V, a.channels - channel);
        if (count <= 0) return;
        const GnCoefficients<V> k =
            gn_coefficients<T, V>(a, n, channel, a.mean + n * a.groups, a.rstd + n * a.groups, 0);
        const int64_t base = (n * a.pixels + first) * a.channels + channel;
        const GnRows<const T> x = gn_input<T>(a, n * a.pixels + first, channel);
#pragma unroll 4
        for (int64_t p = row; p < pixels; p += w.rows) {
            float v[V];
            load<WIDE>(x.first + p * x.stride, count, v);
            apply<V>(k, a.silu, v);
            store<WIDE>(static_cast<T *>(a.y) + base + p * a.channels, count, v);
        }
    }
}

// Work: a cluster of blocks takes a slice of whole groups of one sample and splits its pixels; the
// slice is copied to shared memory once, measured there and applied from there. A thread touches
// only what it copied itself; groups meet through shared memory, blocks through each other's.
// Limit: device memory, one read and one write.
template <typename T>
__global__ void __launch_bounds__(gn_threads, 4)
    gn_chip_kernel(const twk_group_norm_args a, GnSlice s) {
    constexpr int V = gn_chip_v;
    TW_SHARED(arena);
    Four<T> *data = arena.take<Four<T>>((size_t)s.pixels * s.lanes);
    float *mean = arena.take<float>((size_t)s.rows * s.channels);
    float *m2 = arena.take<float>((size_t)s.rows * s.channels);
    const int per_group = a.channels / a.groups, slice_groups = s.channels / per_group;
    Moments *mine = arena.take<Moments>(slice_groups);
    float *group_mean = arena.take<float>(slice_groups);
    float *group_rstd = arena.take<float>(slice_groups);
    const unsigned rank = cluster_rank();
    const int64_t item = blockIdx.x / s.cluster, n = item / s.slices;
    const int base_channel = (int)(item % s.slices) * s.channels;
    const int channels = smaller(s.channels, a.channels - base_channel); // the last slice is short
    const int groups = channels / per_group, first_group = base_channel / per_group;
    const int64_t first = (int64_t)rank * s.pixels;
    const int pixels = (int)larger<int64_t>(0, smaller<int64_t>(s.pixels, a.pixels - first));
    const int lane = threadIdx.x % s.lanes, row = threadIdx.x / s.lanes;
    const bool works = row < s.rows && lane * V < channels;
    const int64_t base = (n * a.pixels + first) * a.channels + base_channel + lane * V;
    if (works) {
        const GnRows<const T> x = gn_input<T>(a, n * a.pixels + first, base_channel + lane * V);
        for (int p = row; p < pixels; p += s.rows)
            copy_four(data + p * s.lanes + lane, x.first + p * x.stride);
        copy_async_commit();
        copy_async_wait<0>();
        Shifted<V> sums;
        for (int p = row; p < pixels; p += s.rows) {
            float v[V];
            unpack_four(data[p * s.lanes + lane], v, T{});
            sums.add(v);
        }
        sums.write(mean + row * s.channels + lane * V, m2 + row * s.channels + lane * V);
    }
    sync_block();
    for (int g = threadIdx.x / 32; g < groups; g += gn_threads / 32) {
        const Moments m = merge_channels(mean, m2, s.rows, s.channels, g * per_group,
                                         (g + 1) * per_group, pixels);
        if (threadIdx.x % 32 == 0) mine[g] = m;
    }
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    for (int g = threadIdx.x; g < groups; g += gn_threads) {
        Moments m = mine[g];
        if (s.cluster > 1) {
            m = Moments{0.0f, 0.0f, 0.0f};
            for (int r = 0; r < s.cluster; r++) m = merge(m, cluster_map(mine, r)[g]);
        }
        group_mean[g] = m.mean;
        group_rstd[g] = 1.0f / sqrtf(m.m2 / m.count + a.epsilon);
        if (rank == 0) a.mean[n * a.groups + first_group + g] = m.mean;
        if (rank == 0) a.rstd[n * a.groups + first_group + g] = group_rstd[g];
    }
    // Nobody leaves while others may still read its moments.
    if (s.cluster > 1)
        sync_cluster();
    else
        sync_block();
    if (!works) return;
    const GnCoefficients<V> k =
        gn_coefficients<T, V>(a, n, base_channel + lane * V, group_mean, group_rstd, first_group);
    T *y = static_cast<T *>(a.y) + base;
    for (int p = row; p < pixels; p += s.rows) {
        float v[V];
        unpack_four(data[p * s.lanes + lane], v, T{});
        apply<V>(k, a.silu, v);
        store_four(y + (int64_t)p * a.channels, v);
    }
}

template <typename T> bool is_wide(const twk_group_norm_args &a) {
    return a.channels % per_16<T> == 0 && aligned_16(a.x) && aligned_16(a.y) &&
           (!a.channels2 || aligned_16(a.x2));
}

template <typename T>
twk_status launch_chip(const twk_group_norm_args &a, const GnSlice &s, twk_stream stream) {
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    config.shared = s.shared;
    config.cluster = (unsigned)s.cluster;
    if (!grid_for(a.batch * s.slices * s.cluster, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more samples than a grid can hold");
    return TW_LAUNCH((gn_chip_kernel<T>), config, a, s);
}

template <typename T> bool reads_twice(const twk_group_norm_args &a) {
    return !is_wide<T>(a) || !gn_slice<T>(a, sizeof(T)).fits;
}

template <typename T>
twk_status launch_apply(const twk_group_norm_args &a, const GnWalk &w, bool back,
                        const LaunchConfig &config) {
    return with_flag(is_wide<T>(a), [&](auto flag) {
        return TW_LAUNCH((gn_apply_kernel<T, decltype(flag)::value>), config, a, w, (int)back);
    });
}

template <typename T> twk_status launch_two_pass(const twk_group_norm_args &a, twk_stream stream) {
    const GnWalk w = gn_walk<T>(a);
    const twk_moments *partial = a.partial;
    int64_t partials = a.n_partials, pixels_per_partial = a.pixels_per_partial;
    LaunchConfig config;
    config.block = dim3(gn_threads);
    config.stream = stream;
    if (!grid_for(a.batch * w.chunks, 1, &config.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more pixels than a grid can hold");
    if (a.given) return launch_apply<T>(a, w, false, config);
    if (!partial) {
        LaunchConfig stats = config;
        stats.shared = 2 * shared_bytes<float>((size_t)w.rows * w.tile_channels) +
                       shared_bytes<Moments>((size_t)a.groups);
        if (stats.shared > device_limits().shared)
            return fail(TWK_UNSUPPORTED, "group norm: too many groups for shared memory");
        const twk_status status = with_flag(is_wide<T>(a), [&](auto flag) {
            return TW_LAUNCH((gn_stats_kernel<T, decltype(flag)::value>), stats, a, w,
                             static_cast<twk_moments *>(a.workspace));
        });
        if (status != TWK_OK) return status;
        partial = static_cast<const twk_moments *>(a.workspace);
        partials = w.chunks;
        pixels_per_partial = w.chunk;
    }
    LaunchConfig finish = config;
    if (!grid_for(a.batch * a.groups, gn_threads / 32, &finish.grid))
        return fail(TWK_BAD_ARGUMENT, "group norm: more groups than a grid can hold");
    const twk_status status =
        TW_LAUNCH(gn_finish_kernel, finish, a, partial, partials, pixels_per_partial);
    return status == TWK_OK ? launch_apply<T>(a, w, true, config) : status;
}

} // namespace

twk_status gn_check(const twk_group_norm_args *a) {
    TW_REQUIRE(a, "group norm: no arguments");
    TW_REQUIRE(a->channels > 0 && a->groups > 0 && a->channels % a->groups == 0,
               "group norm: channels must be a positive multiple of groups");
    TW_REQUIRE(a->pixels > 0 && total_of(a->batch, a->pixels) > 0 &&
                   total_of(a->batch * a->pixels, a->channels) > 0,
               "group norm: batch and pixels must be positive");
    TW_REQUIRE(is_format(a->format), "group norm: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(a->x, "group norm: x is needed");
    TW_REQUIRE(a->channels2 >= 0 && a->channels2 < a->channels && (!a->channels2 || a->x2),
               "group norm: x2 must have some of the channels");
    const int vector = a->format == TWK_F32 ? 4 : 8;
    if (a->channels2 && (a->channels % vector || a->channels2 % vector))
        return fail(TWK_UNSUPPORTED, "group norm: parts that are no multiples of 16 bytes");
    TW_REQUIRE(a->mean && a->rstd, "group norm: mean and rstd are needed");
    TW_REQUIRE(a->epsilon >= 0, "group norm: epsilon must not be negative");
    TW_REQUIRE((!a->scale && !a->shift) || a->scale_stride >= a->channels || a->batch == 1,
               "group norm: rows of scale and shift overlap");
    return TWK_OK;
}

} // namespace tw

using namespace tw;

extern "C" size_t twk_group_norm_workspace(const twk_group_norm_args *args) {
    if (!args || args->channels <= 0 || args->groups <= 0 || args->pixels <= 0) return 0;
    if (args->given) return 0;
    // The same for every path, so that it depends on the shape only.
    int64_t chunks = 0;
    if (args->format == TWK_F32)
        chunks = gn_walk<float>(*args).chunks;
    else
        chunks = gn_walk<bf16>(*args).chunks;
    return (size_t)(args->batch * chunks * args->groups) * sizeof(twk_moments);
}

extern "C" int twk_group_norm_reads_twice(const twk_group_norm_args *args) {
    if (gn_check(args) != TWK_OK) return 0;
    int twice = 0;
    with_format(args->format, [&](auto t) {
        twice = reads_twice<decltype(t)>(*args);
        return TWK_OK;
    });
    return twice;
}

extern "C" twk_status twk_group_norm_forward(const twk_group_norm_args *args, twk_stream stream) {
    const twk_status status = gn_check(args);
    if (status != TWK_OK) return status;
    const twk_group_norm_args &a = *args;
    TW_REQUIRE(a.y, "group norm: y is needed");
    TW_REQUIRE(!a.partial || !a.given, "group norm: either statistics or mean and rstd");
    TW_REQUIRE(!a.partial || (a.n_partials > 0 && a.pixels_per_partial > 0 &&
                              a.n_partials == ceil_div(a.pixels, a.pixels_per_partial)),
               "group norm: the partial statistics must cover the pixels");
    TW_REQUIRE(a.partial || a.given ||
                   (a.workspace && a.workspace_bytes >= twk_group_norm_workspace(args)),
               "group norm: needs more workspace");
    return with_format(a.format, [&](auto t) {
        using T = decltype(t);
        if (a.partial || a.given || reads_twice<T>(a)) return launch_two_pass<T>(a, stream);
        return launch_chip<T>(a, gn_slice<T>(a, sizeof(T)), stream);
    });
}
