// TMA, mbarriers of a cluster, setmaxnreg and barriers of a part of a block, each right or with one
// planted mistake.
#include "planted_tma.h"

#include "../../kernels/device/cluster.cuh"
#include "../../kernels/device/launch.cuh"
#include "../../kernels/device/tma.cuh"
#include "../../kernels/device/warp.cuh"
#include "../../kernels/device/wgmma.cuh"

using namespace tw;

namespace {

constexpr unsigned a_bytes = 64 * 128, stage_bytes = a_bytes + 256 * 128;

void bring(unsigned char *stages, Mbarrier *full, Mbarrier *empty, const TensorMap *a,
           const TensorMap *b, int steps, PlantedTma fault) {
    using P = PlantedTma;
    for (int i = 0; i < steps; i++) {
        unsigned char *const tile = stages + i % 2 * stage_bytes;
        Mbarrier *const f = full + i % 2;
        if (i >= 2 && fault != P::early_overwrite)
            mbarrier_wait(empty + i % 2, (unsigned)(i / 2 - 1) % 2);
        if (fault == P::box_over_stores) tile[a_bytes] = 1;
        const unsigned bytes = fault == P::bytes_more    ? stage_bytes + 16
                               : fault == P::bytes_fewer ? stage_bytes - a_bytes
                                                         : stage_bytes;
        if (fault == P::no_expect)
            mbarrier_arrive(f);
        else if (fault != P::every_lane || threadIdx.x % 32 == 0)
            mbarrier_expect(f, bytes);
        tma_load_2d(tile + (fault == P::misaligned ? 64 : 0), a, f, 64 * i, 0);
        tma_load_2d(tile + a_bytes + (fault == P::past_the_end ? stage_bytes : 0), b, f, 64 * i, 0);
    }
}

// By plain stores: what it was is put back where it is fenced.
void store_anew(unsigned char *tile, PlantedTma fault) {
    for (unsigned i = threadIdx.x; i < a_bytes; i += 128) tile[i] ^= 0x01;
    if (fault == PlantedTma::stored_and_fenced) {
        for (unsigned i = threadIdx.x; i < a_bytes; i += 128) tile[i] ^= 0x01;
        fence_async_proxy();
    }
    sync_group(1, 128);
}

void multiply(float (&d)[128], const unsigned char *tile) {
    wgmma_fence();
    for (int k = 0; k < 4; k++)
        wgmma_multiply<false, false>(bf16{}, d, wgmma_rows_128(tile + 32 * k),
                                     wgmma_rows_128(tile + a_bytes + 32 * k));
    wgmma_commit();
}

void consume(float (&d)[128], unsigned char *stages, Mbarrier *full, Mbarrier *empty, int steps,
             PlantedTma fault) {
    using P = PlantedTma;
    for (int i = 0; i < steps; i++) {
        unsigned char *const tile = stages + i % 2 * stage_bytes;
        const unsigned parity = (unsigned)i / 2 % 2 ^ (fault == P::wrong_parity ? 1 : 0);
        if (fault != P::no_wait && (fault != P::left_coming || i < steps - 1))
            mbarrier_wait(full + i % 2, parity);
        if (fault == P::left_coming && i == steps - 1) break;
        if (fault == P::stored || fault == P::stored_and_fenced) store_anew(tile, fault);
        multiply(d, tile);
        const bool arrives = fault != P::missing_arrival || threadIdx.x != 77;
        if (fault == P::early_release) mbarrier_arrive(empty + i % 2);
        wgmma_wait<0>();
        if (fault != P::early_release && arrives) mbarrier_arrive(empty + i % 2);
    }
}

__global__ void tma_kernel(TW_TENSOR_MAP_PARAM(a), TW_TENSOR_MAP_PARAM(b), float *out, int steps,
                           PlantedTma fault) {
    using P = PlantedTma;
    TW_SHARED(arena);
    unsigned char *stages = arena.take<unsigned char>(2 * stage_bytes);
    Mbarrier *full = arena.take<Mbarrier>(2), *empty = arena.take<Mbarrier>(2);
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            mbarrier_init(full + i, 1);
            mbarrier_init(empty + i, 128);
        }
        if (fault != P::no_init_fence) mbarrier_fence_init();
    }
    sync_block();
    if (threadIdx.x >= 128) {
        const bool keeps = fault == P::too_many_registers ||
                           (fault == P::one_warp_keeps_registers && threadIdx.x < 160);
        if (!keeps) registers_give<40>();
        if (threadIdx.x == 128 || (fault == P::every_lane && threadIdx.x < 160))
            bring(stages, full, empty, &a, &b, steps, fault);
        return;
    }
    if (fault == P::too_many_registers)
        registers_take<256>();
    else if (fault == P::fewer_taken)
        registers_take<24>();
    float d[128] = {};
    consume(d, stages, full, empty, steps, fault);
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
    for (unsigned i = 0; i < 128; i++)
        out[(row + i / 2 % 2 * 8) * 256 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

// Twice: the place is given back to both producers before it is filled again.
__global__ void cluster_tma_kernel(TW_TENSOR_MAP_PARAM(numbers), float *sums,
                                   PlantedCluster fault) {
    using P = PlantedCluster;
    TW_SHARED(arena);
    float *tile = arena.take<float>(256);
    Mbarrier *full = arena.take<Mbarrier>(1), *empty = arena.take<Mbarrier>(1);
    const unsigned rank = cluster_rank(), t = threadIdx.x;
    if (t == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(empty, 64);
        if (fault != P::no_init_fence) mbarrier_fence_init();
    }
    if (fault == P::no_cluster_sync)
        sync_block();
    else
        sync_cluster();
    float sum = 0;
    for (unsigned round = 0; round < 2; round++) {
        if (t == 0) {
            if (round) mbarrier_wait(empty, 0);
            mbarrier_expect(full, 1024);
            tma_load_2d_multicast(tile + 128 * rank, &numbers, full, 0, (int)(2 * rank), 3);
        }
        mbarrier_wait(full, round);
        for (unsigned i = 0; i < 8; i++) sum += tile[32 * i + t];
        if (round) break;
        for (unsigned r = 0; r < 2; r++)
            if (fault != P::no_remote_arrival || r == rank) mbarrier_arrive_block(empty, r);
    }
    sums[32 * blockIdx.x + t] = sum;
    if (fault == P::leaves_early && rank == 1) return;
    if (fault == P::leaves_early)
        mbarrier_arrive_block(empty, 1);
    else
        sync_cluster();
}

__global__ void groups_kernel(int *out, PlantedGroups fault) {
    using P = PlantedGroups;
    TW_SHARED(arena);
    int *word = arena.take<int>(128);
    const unsigned group = threadIdx.x / 64, first = 64 * group;
    const unsigned threads = fault == P::other_count && threadIdx.x == 5 ? 32 : 64;
    int sum = 0;
    for (unsigned turn = 0; turn < 2; turn++) {
        word[threadIdx.x] = (int)(turn * 1000 + threadIdx.x);
        if (fault == P::missing && threadIdx.x == 70) return;
        if (fault != P::no_barrier) sync_group(1 + group, threads);
        sum += word[first + (threadIdx.x + 1) % 64];
        if (fault != P::no_barrier) sync_group(1 + group, threads);
    }
    out[threadIdx.x] = sum;
}

twk_status map_of(const void *base, uint64_t across, uint64_t rows, uint32_t box_rows,
                  TensorMap *map) {
    TensorBox t = {};
    t.base = base;
    t.format = TWK_BF16;
    t.rank = 2;
    t.size[0] = across;
    t.size[1] = rows;
    t.stride_bytes[1] = 2 * across;
    t.box[0] = 64;
    t.box[1] = box_rows;
    t.step[0] = t.step[1] = 1;
    t.swizzle = Swizzle::bytes_128;
    return tensor_map(t, map);
}

} // namespace

twk_status planted_tma(const void *a, const void *b, float *d, int steps, PlantedTma fault) {
    TensorMap map_a, map_b;
    const uint64_t k = 64 * (uint64_t)steps;
    twk_status status = map_of(a, k, 64, 64, &map_a);
    if (status == TWK_OK) status = map_of(b, k, 256, 256, &map_b);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.block = dim3(256);
    c.shared = 2 * stage_bytes + 32;
    return TW_LAUNCH(tma_kernel, c, map_a, map_b, d, steps, fault);
}

twk_status planted_cluster_tma(const void *numbers, float *sums, PlantedCluster fault) {
    TensorBox t = {};
    t.base = numbers;
    t.format = TWK_F32;
    t.rank = 2;
    t.size[0] = 64;
    t.size[1] = 4;
    t.stride_bytes[1] = 256;
    t.box[0] = 64;
    t.box[1] = 2;
    t.step[0] = t.step[1] = 1;
    TensorMap map;
    const twk_status status = tensor_map(t, &map);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.grid = dim3(2);
    c.block = dim3(32);
    c.cluster = 2;
    c.shared = 1024 + 32;
    return TW_LAUNCH(cluster_tma_kernel, c, map, sums, fault);
}

twk_status planted_groups(int *out, PlantedGroups fault) {
    LaunchConfig c;
    c.block = dim3(128);
    c.shared = 512;
    return TW_LAUNCH(groups_kernel, c, out, fault);
}
