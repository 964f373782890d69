// Every wrapper of kernels/device on random data. The same test passes under the emulator and on
// hardware, or one of the two is wrong about the other.
#include "wrappers.h"

#include "device/atomic.cuh"
#include "device/cluster.cuh"
#include "device/copy.cuh"
#include "device/launch.cuh"
#include "device/math.cuh"
#include "device/warp.cuh"

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
                               float *from_h) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const bf16 x = from_float<bf16>(in[i]);
    const f16 y = from_float<f16>(in[i]);
    b[i] = x.bits;
    h[i] = y.bits;
    from_b[i] = to_float(x);
    from_h[i] = to_float(y);
}

__global__ void math_kernel(const float *in, int64_t n, float *s, float *e, float *sine,
                            float *cosine) {
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    s[i] = sigmoid(in[i]);
    e[i] = exp_fast(in[i]);
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
                            float *from_h, twk_stream stream) {
    return TW_LAUNCH(convert_kernel, config_of(n, 128, stream), in, n, b, h, from_b, from_h);
}
twk_status wrappers_math(const float *in, int64_t n, float *s, float *e, float *sine, float *cosine,
                         twk_stream stream) {
    return TW_LAUNCH(math_kernel, config_of(n, 128, stream), in, n, s, e, sine, cosine);
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
