// Attention on the fp32 units: launchers' side in attention_forward.cu and attention_backward.cu.
#include "attention_plain.cuh"

namespace tw {
namespace {

// Over the 16 threads that share rows.
TW_DEVICE float sixteen_max(float v) {
    for (unsigned s = 8; s > 0; s >>= 1) v = fmaxf(v, shuffle_xor(full_warp, v, s));
    return v;
}
TW_DEVICE float sixteen_sum(float v) {
    for (unsigned s = 8; s > 0; s >>= 1) v += shuffle_xor(full_warp, v, s);
    return v;
}

// Scores to exponentials relative to the largest so far, and what has been summed with them.
template <int SLAB>
TW_DEVICE void follow_plain(float (&s)[4][4], float c, int count, float (&reference)[4],
                            float (&sum)[4], float (&o)[4][SLAB / 64][4]) {
    const int across = (int)threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float largest = -INFINITY;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (across + 16 * j >= count) s[i][j] = -INFINITY;
            largest = fmaxf(largest, s[i][j]);
        }
        largest = fmaxf(reference[i], sixteen_max(largest));
        const float factor = exp2_fast((reference[i] - largest) * c);
        reference[i] = largest;
        sum[i] *= factor;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            s[i][j] = exp2_fast(fma_rn(s[i][j], c, -largest * c));
            sum[i] += s[i][j];
        }
#pragma unroll
        for (int j = 0; j < SLAB / 64; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[i][j][e] *= factor;
    }
}

// Work: a block owns 64 queries of one head and a slab of up to 256 channels of the output; see
// attention_plain.cuh. Limit: the fp32 units, and shared memory close behind (a warp reads 12 lines
// for 64 of its multiply-adds).
template <typename T, int SLAB>
__global__ void __launch_bounds__(plain_threads, SLAB == 64 ? 2 : 1)
    attention_plain_kernel(const AttentionForward in) {
    TW_SHARED(arena);
    float *const tile = arena.take<float>(plain_tile);
    float *const weights = arena.take<float>(64 * plain_weights_ld);
    const BlockPlace place(in, (int)blockIdx.x / in.slabs, plain_rows);
    const int channel0 = (int)blockIdx.x % in.slabs * SLAB;
    const HeadRows<T> q = place.rows<T>(in.q), k = place.rows<T>(in.k), v = place.rows<T>(in.v);
    float o[4][SLAB / 64][4] = {}, sum[4] = {}, reference[4];
#pragma unroll
    for (int i = 0; i < 4; i++) reference[i] = -INFINITY;
#pragma unroll 1
    for (int first = 0; first < in.k_tokens; first += 64) {
        float s[4][4] = {};
        add_plain_scores(s, tile, q, place.row0, in.q_tokens, k, first, in.k_tokens, in.head_size);
        follow_plain<SLAB>(s, in.c, in.k_tokens - first, reference, sum, o);
        sync_block(); // everyone is done with the last weights
        share_plain_weights(weights, s);
        add_plain_weighted<T, SLAB>(o, weights, tile, v, first, in.k_tokens, channel0,
                                    in.head_size);
    }
    const int row = place.row0 + (int)threadIdx.x / 16;
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float all = sixteen_sum(sum[i]);
        factor[i] = 1.0f / all;
        if (in.lse && channel0 == 0 && threadIdx.x % 16 == 0 && row + 16 * i < in.q_tokens)
            in.lse[place.pair * in.q_tokens + row + 16 * i] = reference[i] * in.scale + logf(all);
    }
    leave_plain<T, SLAB>(place.output<T>(in.o), in.o.row, o, factor, in.q_tokens - place.row0,
                         channel0, in.head_size);
}

// Work: as above, for 64 rows of one gradient; runs once for each of dq, dk and dv. Limit: the
// same.
template <typename T, int SLAB>
__global__ void __launch_bounds__(plain_threads, 1)
    attention_plain_gradient_kernel(const AttentionGradient in) {
    TW_SHARED(arena);
    float *const tile = arena.take<float>(plain_tile);
    float *const weights = arena.take<float>(64 * plain_weights_ld);
    const BlockPlace place(in, (int)blockIdx.x / in.slabs, plain_rows);
    const int channel0 = (int)blockIdx.x % in.slabs * SLAB;
    const int across = (int)threadIdx.x % 16, row = place.row0 + (int)threadIdx.x / 16;
    const QueryStats *const stats = in.stats + place.pair * in.stats_count;
    const HeadRows<T> x1 = place.rows<T>(in.x1), x2 = place.rows<T>(in.x2);
    const HeadRows<T> y1 = place.rows<T>(in.y1), y2 = place.rows<T>(in.y2);
    const HeadRows<T> z = place.rows<T>(in.z);
    float sums[4][SLAB / 64][4] = {};
#pragma unroll 1
    for (int first = 0; first < in.y_tokens; first += 64) {
        float p[4][4] = {}, dp[4][4] = {};
        add_plain_scores(p, tile, x1, place.row0, in.x_tokens, y1, first, in.y_tokens,
                         in.head_size);
        if (in.second)
            add_plain_scores(dp, tile, x2, place.row0, in.x_tokens, y2, first, in.y_tokens,
                             in.head_size);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int column = first + across + 16 * j;
                const QueryStats of = stats[in.by_column ? column : row + 16 * i];
                const bool there = column < in.y_tokens;
                p[i][j] = there ? exp2_fast(fma_rn(p[i][j], in.c, -of.lse)) : 0.0f;
                if (in.second) p[i][j] *= dp[i][j] - of.delta;
            }
        sync_block(); // everyone is done with the last weights
        share_plain_weights(weights, p);
        add_plain_weighted<T, SLAB>(sums, weights, tile, z, first, in.y_tokens, channel0,
                                    in.head_size);
    }
    const float factor[4] = {in.factor, in.factor, in.factor, in.factor};
    leave_plain<T, SLAB>(place.output<T>(in.out), in.out.row, sums, factor,
                         in.x_tokens - place.row0, channel0, in.head_size);
}

template <int SLAB, typename IN>
twk_status config_of(IN *in, int64_t pairs, int tokens, twk_stream stream, LaunchConfig *config) {
    in->slabs = ceil_div(in->head_size, SLAB);
    return attention_config(in, pairs, tokens, plain_rows, plain_threads,
                            shared_bytes<float>(plain_tile) +
                                shared_bytes<float>(64 * plain_weights_ld),
                            stream, config);
}

template <int SLAB>
twk_status launch(AttentionForward in, twk_format format, int64_t pairs, twk_stream stream) {
    LaunchConfig config;
    const twk_status status = config_of<SLAB>(&in, pairs, in.q_tokens, stream, &config);
    if (status != TWK_OK) return status;
    return with_format(format, [&](auto t) {
        return TW_LAUNCH((attention_plain_kernel<decltype(t), SLAB>), config, in);
    });
}

template <int SLAB>
twk_status launch_gradient(AttentionGradient in, twk_format format, int64_t pairs,
                           twk_stream stream) {
    LaunchConfig config;
    const twk_status status = config_of<SLAB>(&in, pairs, in.x_tokens, stream, &config);
    if (status != TWK_OK) return status;
    return with_format(format, [&](auto t) {
        return TW_LAUNCH((attention_plain_gradient_kernel<decltype(t), SLAB>), config, in);
    });
}

} // namespace

twk_status launch_plain_gradient(const AttentionGradient &in, twk_format format, int64_t pairs,
                                 twk_stream stream) {
    return in.head_size <= 64 ? launch_gradient<64>(in, format, pairs, stream)
                              : launch_gradient<256>(in, format, pairs, stream);
}

twk_status launch_plain_attention(const AttentionForward &in, twk_format format, int64_t pairs,
                                  twk_stream stream) {
    return in.head_size <= 64 ? launch<64>(in, format, pairs, stream)
                              : launch<256>(in, format, pairs, stream);
}

} // namespace tw
