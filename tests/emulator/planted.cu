// Small kernels, each right or with one planted mistake: what the emulator's own tests run.
#include "planted.h"

#include "../../kernels/device/launch.cuh"
#include "../../kernels/device/copy.cuh"
#include "../../kernels/device/mbarrier.cuh"
#include "../../kernels/device/swizzle.cuh"
#include "../../kernels/device/warp.cuh"
#include "../../kernels/device/wgmma.cuh"
#include "../../kernels/device/cluster.cuh"

namespace {

// One block; each thread reads its neighbour's word through shared memory.
__global__ void neighbour_kernel(const int *in, int *out, int barrier, int reach) {
    TW_SHARED(arena);
    int *tile = arena.take<int>(blockDim.x);
    int *other = arena.take<int>(4);
    if (threadIdx.x < 4) other[threadIdx.x] = 0;
    tile[threadIdx.x] = in[threadIdx.x];
    if (barrier) tw::sync_block();
    out[threadIdx.x] = tile[(threadIdx.x + 1) % blockDim.x + reach];
}

// As above, but the last thread writes `past` words behind its place.
__global__ void past_end_kernel(const int *in, int *out, int shared_past, int global_past) {
    TW_SHARED(arena);
    int *tile = arena.take<int>(blockDim.x);
    const bool last = threadIdx.x == blockDim.x - 1;
    tile[threadIdx.x + (last ? shared_past : 0)] = in[threadIdx.x];
    tw::sync_block();
    out[threadIdx.x + (last ? global_past : 0)] = 1;
}

__global__ void staged_kernel(const float *in, float *out, int commit, int wait, int barrier) {
    TW_SHARED(arena);
    float *tile = arena.take<float>(blockDim.x * 4);
    tw::copy_async_16(tile + threadIdx.x * 4, in + threadIdx.x * 4);
    if (commit) tw::copy_async_commit();
    if (wait) tw::copy_async_wait<0>();
    if (barrier) tw::sync_block();
    for (int i = 0; i < 4; i++) {
        const unsigned at = (threadIdx.x * 4 + i + 4) % (blockDim.x * 4);
        out[threadIdx.x * 4 + i] = tile[barrier ? at : threadIdx.x * 4 + i];
    }
}

__global__ void mask_kernel(uint32_t *out, int fault) {
    const unsigned lane = threadIdx.x & 31u;
    if (fault == 1 && lane >= 16) return; // lanes 16.. never come
    uint32_t mask = 0xffffffffu;
    if (fault == 2) mask = lane < 16 ? 0x0001ffffu : 0xffffffffu; // lanes disagree
    if (fault == 3) mask = 0x0000ffffu;                           // half is not in its own mask
    uint32_t v = lane;
    if (fault == 4) v = tw::shuffle(0xffffu << (lane & 16u), v, lane ^ 16u); // reads outside
    if (fault == 2) tw::ballot(mask, true);
    for (unsigned s = 16; s > 0 && fault != 4; s >>= 1) v += tw::shuffle_xor(mask, v, s);
    const uint32_t votes = fault ? 0 : tw::ballot(mask, lane & 1u);
    out[threadIdx.x] = v ^ votes;
}

__global__ void divergent_kernel(int *out, int fault) {
    if (fault == 1 && threadIdx.x == 3) return;
    if (fault == 2 && threadIdx.x < 32)
        tw::sync_block();
    else
        tw::sync_block();
    if (fault == 3 && threadIdx.x % 2) tw::sync_block();
    out[threadIdx.x] = 1;
}

// A carried value: two barriers are needed in each turn, the second is left out on request.
__global__ void turns_kernel(int *out, int second) {
    TW_SHARED(arena);
    int *word = arena.take<int>(1);
    int sum = 0;
    for (int turn = 0; turn < 4; turn++) {
        if (threadIdx.x == (unsigned)turn) *word = turn;
        tw::sync_block();
        sum += *word;
        if (second) tw::sync_block();
    }
    out[threadIdx.x] = sum;
}

__global__ void exchange_kernel(int *out, int linger) {
    TW_SHARED(arena);
    int *word = arena.take<int>(1);
    const unsigned rank = tw::cluster_rank(), n = tw::cluster_size();
    if (threadIdx.x == 0) *word = 100 + (int)rank;
    tw::sync_cluster();
    int sum = 0;
    for (unsigned r = 0; r < n; r++) sum += *tw::cluster_map(word, r);
    if (linger) tw::sync_cluster();
    out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void count_kernel(uint32_t *count, uint32_t *largest) {
    tw::atomic_add(count, 1u);
    tw::atomic_max(largest, blockIdx.x * blockDim.x + threadIdx.x);
}

// Two blocks write one word.
__global__ void collide_kernel(int *out) {
    out[threadIdx.x == blockIdx.x ? 0 : 1 + threadIdx.x + 64 * blockIdx.x] = 1;
}

// Two rounds of 32 times four floats through one place.
__global__ void ring_kernel(const float *in, float *out, int fault) {
    TW_SHARED(arena);
    tw::Mbarrier *full = arena.take<tw::Mbarrier>(1), *empty = arena.take<tw::Mbarrier>(1);
    float *place = arena.take<float>(128);
    const unsigned lane = threadIdx.x % 32;
    if (threadIdx.x == 0 && fault != 4) {
        tw::mbarrier_init(full, 32);
        tw::mbarrier_init(empty, 32);
    }
    tw::sync_block();
    for (unsigned round = 0; round < 2; round++) {
        if (threadIdx.x < 32) {
            if (round && fault != 5) tw::mbarrier_wait(empty, 0);
            tw::copy_async_16(place + 4 * lane, in + 4 * lane);
            if (fault != 3 || lane) tw::mbarrier_arrive_copies(full);
        } else {
            if (fault != 1) tw::mbarrier_wait(full, fault == 2 ? round ^ 1 : round);
            out[lane] = place[(4 * lane + 4) % 128];
            tw::mbarrier_arrive(empty);
        }
    }
}

// A's tile and B's behind it, a chunk of every eighth (rows) or fourth (columns) line a thread.
void copy_tiles(unsigned char *tiles, const uint16_t *a, const uint16_t *b, int columns) {
    for (unsigned i = threadIdx.x; i < 192 * 4; i += 128) {
        const bool second = i >= 64 * 4;
        const unsigned chunk = second ? i - 64 * 4 : i, across = second ? 16 : 8;
        const unsigned k = chunk / across, c = chunk % across;
        const unsigned at = columns ? c / 8 * 4096 + tw::swizzled<128>(k, c % 8)
                                    : tw::swizzled<64>(chunk / 4, chunk % 4);
        tw::copy_async_16(tiles + (second ? 4096 : 0) + at, (second ? b : a) + 8 * chunk);
    }
    tw::copy_async_commit();
}

void start_products(float (&d)[64], const unsigned char *tiles, int columns, PlantedProduct fault) {
    using P = PlantedProduct;
    for (unsigned step = 0; step < 2; step++) {
        if (!columns) {
            const unsigned stride = fault == P::wrong_stride ? 1024 : 512;
            const tw::Swizzle swizzle =
                fault == P::wrong_swizzle ? tw::Swizzle::bytes_32 : tw::Swizzle::bytes_64;
            const unsigned char *const other =
                tiles + (fault == P::other_product && threadIdx.x >= 96 ? 512 : 0);
            tw::wgmma_multiply<false, false>(
                tw::bf16{}, d, tw::wgmma_rows(other + 32 * step),
                tw::wgmma_descriptor(tiles + 4096 + 32 * step, 16, stride, swizzle));
        } else {
            const unsigned leading = fault == P::wrong_leading ? 2048 : 4096;
            const unsigned stride = fault == P::wrong_stride ? 512 : 1024;
            const tw::Swizzle swizzle =
                fault == P::wrong_swizzle ? tw::Swizzle::bytes_64 : tw::Swizzle::bytes_128;
            tw::wgmma_multiply<true, true>(
                tw::bf16{}, d, tw::wgmma_columns(tiles + 2048 * step, 4096),
                tw::wgmma_descriptor(tiles + 4096 + 2048 * step, leading, stride, swizzle));
        }
    }
}

__global__ void product_kernel(const uint16_t *a, const uint16_t *b, float *out, int columns,
                               PlantedProduct fault) {
    using P = PlantedProduct;
    TW_SHARED(arena);
    if (fault == P::misaligned) arena.take<unsigned char>(128);
    unsigned char *tiles = arena.take<unsigned char>(192 * 64);
    copy_tiles(tiles, a, b, columns);
    if (fault != P::no_copy_wait) tw::copy_async_wait<0>();
    if (fault != P::no_proxy_fence) tw::fence_async_proxy();
    if (fault != P::no_barrier) tw::sync_block();
    float d[64] = {};
    if (fault != P::no_fence) tw::wgmma_fence();
    const bool left_out = (fault == P::warp_left_out && threadIdx.x >= 96) ||
                          (fault == P::lane_left_out && threadIdx.x == 77);
    if (!left_out) start_products(d, tiles, columns, fault);
    if (fault != P::no_commit) tw::wgmma_commit();
    if (fault == P::d_touched) d[5] = 1.0f;
    if (fault == P::tile_overwritten && threadIdx.x < 32)
        tw::copy_async_16(tiles + 16 * threadIdx.x, a);
    if (fault != P::no_wait) tw::wgmma_wait<0>();
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    for (unsigned i = 0; i < 64; i++)
        out[(row + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

tw::LaunchConfig config(unsigned grid, unsigned block, size_t shared, unsigned cluster = 1) {
    tw::LaunchConfig c;
    c.grid = dim3(grid);
    c.block = dim3(block);
    c.shared = shared;
    c.cluster = cluster;
    return c;
}

} // namespace

twk_status planted_neighbour(const int *in, int *out, int n, int barrier, int reach) {
    return TW_LAUNCH(neighbour_kernel, config(1, n, n * 4 + 16), in, out, barrier, reach);
}
twk_status planted_past_end(const int *in, int *out, int n, int shared_past, int global_past) {
    return TW_LAUNCH(past_end_kernel, config(1, n, n * 4), in, out, shared_past, global_past);
}
twk_status planted_staged(const float *in, float *out, int n, int commit, int wait, int barrier) {
    return TW_LAUNCH(staged_kernel, config(1, n, n * 16), in, out, commit, wait, barrier);
}
twk_status planted_mask(uint32_t *out, int n, int fault) {
    return TW_LAUNCH(mask_kernel, config(1, n, 0), out, fault);
}
twk_status planted_divergent(int *out, int n, int fault) {
    return TW_LAUNCH(divergent_kernel, config(1, n, 0), out, fault);
}
twk_status planted_turns(int *out, int n, int second) {
    return TW_LAUNCH(turns_kernel, config(1, n, 16), out, second);
}
twk_status planted_exchange(int *out, int blocks, int n, int cluster, int linger) {
    return TW_LAUNCH(exchange_kernel, config(blocks, n, 16, cluster), out, linger);
}
twk_status planted_ring(const float *in, float *out, int fault) {
    return TW_LAUNCH(ring_kernel, config(1, 64, 16 + 16 + 512), in, out, fault);
}
twk_status planted_product(const uint16_t *a, const uint16_t *b, float *d, int columns,
                           PlantedProduct fault) {
    return TW_LAUNCH(product_kernel, config(1, 128, 128 + 192 * 64), a, b, d, columns, fault);
}
twk_status planted_count(uint32_t *count, uint32_t *largest, int blocks, int n) {
    return TW_LAUNCH(count_kernel, config(blocks, n, 0), count, largest);
}
twk_status planted_collide(int *out) {
    return TW_LAUNCH(collide_kernel, config(2, 64, 0), out);
}
twk_status planted_shared_too_small(const int *in, int *out, int n) {
    return TW_LAUNCH(neighbour_kernel, config(1, n, n * 4), in, out, 1, 0);
}
