// Every wrapper of kernels/device on random data. The same test passes under the emulator and on
// hardware, or one of the two is wrong about the other.
#include "wrappers.h"

#include "device/atomic.cuh"
#include "device/cluster.cuh"
#include "device/copy.cuh"
#include "device/launch.cuh"
#include "device/ldmatrix.cuh"
#include "device/math.cuh"
#include "device/mbarrier.cuh"
#include "device/mma.cuh"
#include "device/swizzle.cuh"
#include "device/warp.cuh"
#include "device/wgmma.cuh"

namespace tw {
namespace {

__global__ void wrappers_kernel(const uint32_t *in, WrapperResults *out) {
    TW_SHARED(arena);
    uint32_t *staged = arena.take<uint32_t>(256 * 4);
    uint32_t *partly = arena.take<uint32_t>(256 * 4);
    float *scratch = arena.take<float>(32);
    const unsigned t = threadIdx.x, lane = t % 32;
    const uint32_t v = in[t];
    copy_async_16(staged + 4 * t, in + 4 * t);
    copy_async_commit();
    copy_async_16(partly + 4 * t, in + 4 * t, 4 * (t % 5));
    copy_async_commit();
    out->shuffled[0][t] = shuffle_xor(full_warp, v, 5);
    out->shuffled[1][t] = shuffle_down(full_warp, v, 3);
    out->shuffled[2][t] = shuffle_up(full_warp, v, 7);
    out->shuffled[3][t] = shuffle(full_warp, v, lane * 7 % 32);
    out->votes[t] = ballot(full_warp, v & 1u);
    const uint32_t half = lane < 16 ? 0xffffu : 0xffff0000u;
    out->half_votes[t] = ballot(half, v & 2u);
    sync_warp(full_warp);
    out->block_sum[t] = block_sum((float)(v % 1000u), scratch);
    const Moments m = warp_merge(Moments{1.0f, (float)(v % 1000u), 0.0f});
    out->moments[t][0] = m.count;
    out->moments[t][1] = m.mean;
    out->moments[t][2] = m.m2;
    atomic_add(&out->count, v % 16u);
    atomic_max(&out->largest, v);
    atomic_min(&out->smallest, v);
    copy_async_wait<1>();
    sync_block();
    for (int i = 0; i < 4; i++) out->copied[4 * t + i] = staged[(4 * (t + 1) + i) % 1024];
    copy_async_wait<0>();
    sync_block();
    for (int i = 0; i < 4; i++) out->partly[4 * t + i] = partly[4 * t + i];
}

__global__ void convert_kernel(const float *in, int64_t n, uint16_t *b, uint16_t *h, float *from_b,
                               float *from_h, uint32_t *pairs) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const bf16 x = from_float<bf16>(in[i]);
    const f16 y = from_float<f16>(in[i]);
    b[i] = x.bits;
    h[i] = y.bits;
    from_b[i] = to_float(x);
    from_h[i] = to_float(y);
    pairs[i] = pack_pair(bf16{}, in[i], in[n - 1 - i]);
    pairs[n + i] = pack_pair(f16{}, in[i], in[n - 1 - i]);
}

__global__ void math_kernel(const float *in, int64_t n, float *s, float *e, float *e2, float *sine,
                            float *cosine) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    s[i] = sigmoid(in[i]);
    e[i] = exp_fast(in[i]);
    e2[i] = exp2_fast(in[i]);
    sin_cos_pi(fabsf(in[i]) - 2.0f * floorf(fabsf(in[i]) / 2.0f), &sine[i], &cosine[i]);
}

__global__ void cluster_kernel(uint32_t *out) {
    TW_SHARED(arena);
    uint32_t *word = arena.take<uint32_t>(32);
    word[threadIdx.x] = 100 * cluster_rank() + threadIdx.x;
    sync_cluster();
    uint32_t sum = 0;
    for (unsigned r = 0; r < cluster_size(); r++) sum += cluster_map(word, r)[31 - threadIdx.x];
    sync_cluster();
    out[blockIdx.x * 32 + threadIdx.x] = sum;
}

__global__ void matrix_kernel(const uint32_t *in, MatrixResults *out) {
    TW_SHARED(arena);
    uint32_t *tile = arena.take<uint32_t>(128);
    uint32_t *eight = arena.take<uint32_t>(256);
    uint32_t *four = arena.take<uint32_t>(256);
    const unsigned t = threadIdx.x;
    if (t < 128) copy_async_8(eight + 2 * t, in + 2 * t, 4 * (t % 3));
    copy_async_4(four + t, in + t, 4 * (t % 2));
    copy_async_commit();
    if (t < 128) tile[t] = in[t];
    copy_async_wait<0>();
    sync_block();
    out->copied_8[t] = eight[t];
    out->copied_4[t] = four[t];
    out->rounded[t] = to_tf32(in[t]);
    if (t >= 32) return;
    uint32_t r1[1], r2[2], r4[4];
    load_matrices(r1, tile + t * 4);
    out->one[t] = r1[0];
    load_matrices(r2, tile + t * 4);
    for (int i = 0; i < 2; i++) out->two[t][i] = r2[i];
    load_matrices(r4, tile + t * 4);
    for (int i = 0; i < 4; i++) out->four[t][i] = r4[i];
    load_matrices_transposed(r1, tile + t * 4);
    out->one_t[t] = r1[0];
    load_matrices_transposed(r2, tile + t * 4);
    for (int i = 0; i < 2; i++) out->two_t[t][i] = r2[i];
    load_matrices_transposed(r4, tile + t * 4);
    for (int i = 0; i < 4; i++) out->four_t[t][i] = r4[i];
}

template <typename MATH>
__global__ void multiply_kernel(const unsigned char *a, const unsigned char *b, float *d) {
    TW_SHARED(arena);
    unsigned char *rows = arena.take<unsigned char>(48 * 64);
    const unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < 48 * 4; i += 32) {
        const unsigned row = i / 4, chunk = i % 4;
        copy_async_16(rows + swizzled<64>(row, chunk),
                      (row < 32 ? a + row * 64 : b + (row - 32) * 64) + chunk * 16);
    }
    copy_async_commit();
    copy_async_wait<0>();
    sync_block();
    FragmentC c[2][2] = {};
    for (unsigned step = 0; step < 2; step++) {
        FragmentA fa[2];
        FragmentB fb[2];
        for (int i = 0; i < 2; i++)
            load_matrices(fa[i].word,
                          rows + swizzled<64>(16 * i + lane % 16, 2 * step + lane / 16));
        for (int j = 0; j < 2; j++)
            load_matrices(fb[j].word,
                          rows + swizzled<64>(32 + 8 * j + lane % 8, 2 * step + lane / 8 % 2));
        if constexpr (std::is_same<MATH, tf32>::value) {
            for (int i = 0; i < 2; i++) {
                for (uint32_t &w : fa[i].word) w = to_tf32(w);
                for (uint32_t &w : fb[i].word) w = to_tf32(w);
            }
        }
        multiply_tile<MATH>(c, fa, fb);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            for (int e = 0; e < 4; e++)
                d[(16 * i + lane / 4 + e / 2 * 8) * 16 + 8 * j + lane % 4 * 2 + e % 2] =
                    c[i][j].c[e];
}

// A tile of ROWS rows of 32 elements, or of 32 k of ROWS elements.
template <int ROWS, bool COLUMNS>
TW_DEVICE void copy_warpgroup_tile(unsigned char *tile, const unsigned char *from) {
    for (unsigned i = threadIdx.x; i < ROWS * 4; i += 128) {
        const unsigned k = i / (ROWS / 8), c = i % (ROWS / 8);
        const unsigned at =
            COLUMNS ? c / 8 * 4096 + swizzled<128>(k, c % 8) : swizzled<64>(i / 4, i % 4);
        copy_async_16(tile + at, from + 16 * i);
    }
}

template <bool COLUMNS> TW_DEVICE uint64_t warpgroup_operand(const unsigned char *tile, int step) {
    return COLUMNS ? wgmma_columns(tile + 2048 * step, 4096) : wgmma_rows(tile + 32 * step);
}

template <typename T, bool A_COLUMNS, bool B_COLUMNS>
__global__ void warpgroup_kernel(const unsigned char *a, const unsigned char *b, float *out) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        unsigned char *tiles = arena.take<unsigned char>(192 * 64);
        copy_warpgroup_tile<64, A_COLUMNS>(tiles, a);
        copy_warpgroup_tile<128, B_COLUMNS>(tiles + 4096, b);
        copy_async_commit();
        copy_async_wait<0>();
        fence_async_proxy();
        sync_block();
        float d[64] = {};
        wgmma_fence();
        for (int step = 0; step < 2; step++)
            wgmma_multiply<A_COLUMNS, B_COLUMNS>(T{}, d, warpgroup_operand<A_COLUMNS>(tiles, step),
                                                 warpgroup_operand<B_COLUMNS>(tiles + 4096, step));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(d);
        const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
        for (unsigned i = 0; i < 64; i++)
            out[(row + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
    }
}

__global__ void ring_kernel(const uint32_t *in, int rounds, uint32_t *sums) {
    TW_SHARED(arena);
    Mbarrier *full = arena.take<Mbarrier>(2), *empty = arena.take<Mbarrier>(2);
    uint32_t *ring = arena.take<uint32_t>(2 * 128);
    const unsigned lane = threadIdx.x % 32;
    if (threadIdx.x < 2) {
        mbarrier_init(full + threadIdx.x, 32);
        mbarrier_init(empty + threadIdx.x, 32);
    }
    sync_block();
    for (int round = 0; round < rounds; round++) {
        const int place = round % 2;
        const unsigned parity = (unsigned)round / 2 % 2;
        uint32_t *const row = ring + 128 * place;
        if (threadIdx.x < 32) {
            if (round >= 2) mbarrier_wait(empty + place, parity ^ 1);
            copy_async_16(row + 4 * lane, in + 128 * round + 4 * lane);
            mbarrier_arrive_copies(full + place);
        } else {
            mbarrier_wait(full + place, parity);
            uint32_t sum = 0;
            for (unsigned i = 0; i < 4; i++) sum += row[(4 * (lane + 1) + i) % 128];
            sums[32 * round + (int)lane] = sum;
            mbarrier_arrive(empty + place);
        }
    }
}

LaunchConfig config_of(int64_t n, unsigned block, twk_stream stream) {
    LaunchConfig c;
    c.grid = dim3((unsigned)ceil_div<int64_t>(n, block));
    c.block = dim3(block);
    c.stream = stream;
    return c;
}

} // namespace
} // namespace tw

using namespace tw;

twk_status wrappers_run(const uint32_t *in, WrapperResults *out, twk_stream stream) {
    LaunchConfig c = config_of(256, 256, stream);
    c.shared = 2 * shared_bytes<uint32_t>(256 * 4) + shared_bytes<float>(32);
    return TW_LAUNCH(wrappers_kernel, c, in, out);
}
twk_status wrappers_convert(const float *in, int64_t n, uint16_t *b, uint16_t *h, float *from_b,
                            float *from_h, uint32_t *pairs, twk_stream stream) {
    return TW_LAUNCH(convert_kernel, config_of(n, 128, stream), in, n, b, h, from_b, from_h, pairs);
}
twk_status wrappers_math(const float *in, int64_t n, float *s, float *e, float *e2, float *sine,
                         float *cosine, twk_stream stream) {
    return TW_LAUNCH(math_kernel, config_of(n, 128, stream), in, n, s, e, e2, sine, cosine);
}
twk_status wrappers_cluster(unsigned cluster, uint32_t *out, twk_stream stream) {
    LaunchConfig c = config_of(64 * cluster, 32, stream);
    c.shared = shared_bytes<uint32_t>(32);
    c.cluster = cluster;
    return TW_LAUNCH(cluster_kernel, c, out);
}
unsigned wrappers_max_cluster() {
    return device_limits().cluster;
}

twk_status wrappers_matrices(const uint32_t *in, MatrixResults *out, twk_stream stream) {
    LaunchConfig c = config_of(256, 256, stream);
    c.shared = shared_bytes<uint32_t>(128 + 2 * 256);
    return TW_LAUNCH(matrix_kernel, c, in, out);
}
twk_status wrappers_ring(const uint32_t *in, int rounds, uint32_t *sums, twk_stream stream) {
    LaunchConfig c = config_of(64, 64, stream);
    c.shared = 2 * shared_bytes<Mbarrier>(2) + shared_bytes<uint32_t>(2 * 128);
    return TW_LAUNCH(ring_kernel, c, in, rounds, sums);
}
twk_status wrappers_multiply(twk_format format, const void *a, const void *b, float *d,
                             twk_stream stream) {
    LaunchConfig c = config_of(32, 32, stream);
    c.shared = 48 * 64;
    return with_format(format, [&](auto t) {
        using MATH = std::conditional_t<std::is_same<decltype(t), float>::value, tf32, decltype(t)>;
        return TW_LAUNCH((multiply_kernel<MATH>), c, static_cast<const unsigned char *>(a),
                         static_cast<const unsigned char *>(b), d);
    });
}
bool wrappers_has_wgmma() {
    return device_limits().wgmma;
}
twk_status wrappers_warpgroup(twk_format format, bool a_columns, bool b_columns, const void *a,
                              const void *b, float *d, twk_stream stream) {
    LaunchConfig c = config_of(128, 128, stream);
    c.shared = 192 * 64;
    return with_flag(a_columns, [&](auto ac) {
        return with_flag(b_columns, [&](auto bc) {
            const auto *from_a = static_cast<const unsigned char *>(a);
            const auto *from_b = static_cast<const unsigned char *>(b);
            constexpr bool by_a = decltype(ac)::value, by_b = decltype(bc)::value;
            if (format == TWK_BF16)
                return TW_LAUNCH((warpgroup_kernel<bf16, by_a, by_b>), c, from_a, from_b, d);
            return TW_LAUNCH((warpgroup_kernel<f16, by_a, by_b>), c, from_a, from_b, d);
        });
    });
}
unsigned wrappers_swizzled(int row_bytes, unsigned row, unsigned chunk) {
    switch (row_bytes) {
    case 32:
        return swizzled<32>(row, chunk);
    case 64:
        return swizzled<64>(row, chunk);
    case 128:
        return swizzled<128>(row, chunk);
    default:
        return swizzled<256>(row, chunk);
    }
}
unsigned wrappers_swizzled_words(int row_bytes, unsigned row, unsigned chunk) {
    switch (row_bytes) {
    case 64:
        return swizzled_words<64>(row, chunk);
    case 256:
        return swizzled_words<256>(row, chunk);
    default:
        return swizzled_words<512>(row, chunk);
    }
}
