// Attention on the fp32 units: launchers' side in attention_forward.cu and attention_backward.cu.
#include "attention_plain.cuh"
#include "device/launch.cuh"

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
    const ForwardPlace place(in, (int)blockIdx.x / in.slabs, plain_rows);
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

template <int SLAB>
twk_status launch(AttentionForward in, twk_format format, int64_t pairs, twk_stream stream) {
    LaunchConfig config;
    in.tiles = ceil_div(in.q_tokens, plain_rows);
    in.slabs = ceil_div(in.head_size, SLAB);
    if (!grid_for(pairs * in.tiles, 1, &config.grid) ||
        !grid_for(pairs * in.tiles * in.slabs, 1, &config.grid))
        return fail(TWK_UNSUPPORTED, "attention: more tiles than a grid can hold");
    config.block = dim3(plain_threads);
    config.shared = shared_bytes<float>(plain_tile) + shared_bytes<float>(64 * plain_weights_ld);
    config.stream = stream;
    if (config.shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "attention: the device has too little shared memory");
    return with_format(format, [&](auto t) {
        return TW_LAUNCH((attention_plain_kernel<decltype(t), SLAB>), config, in);
    });
}

} // namespace

twk_status launch_plain_attention(const AttentionForward &in, twk_format format, int64_t pairs,
                                  twk_stream stream) {
    return in.head_size <= 64 ? launch<64>(in, format, pairs, stream)
                              : launch<256>(in, format, pairs, stream);
}

} // namespace tw
