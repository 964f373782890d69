// TMA and what belongs to it, one building block a kernel.
#include "tma_wrappers.h"

#include "device/cluster.cuh"
#include "device/launch.cuh"
#include "device/mbarrier.cuh"
#include "device/swizzle.cuh"
#include "device/tma.cuh"
#include "device/warp.cuh"
#include "device/wgmma.cuh"

namespace tw {
namespace {

// A wait that gives up after a second or so: what was expected wrongly must not hang the device.
TW_DEVICE bool comes(Mbarrier *b, unsigned parity) {
#ifdef TW_EMULATOR
    return mbarrier_passed(b, parity);
#else
    const long long begun = clock64();
    do {
        if (mbarrier_passed(b, parity)) return true;
    } while (clock64() - begun < 2000000000ll);
    return false;
#endif
}

TW_DEVICE void fill(unsigned char *tile, unsigned bytes) {
    for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) tile[i] = 0xee;
    fence_async_proxy();
}

TW_DEVICE void dump(unsigned char *to, const unsigned char *tile, unsigned bytes) {
    for (unsigned i = threadIdx.x; i < bytes; i += blockDim.x) to[i] = tile[i];
}

struct At {
    int of[5];
};

TW_DEVICE void load(void *tile, const TensorMap *map, Mbarrier *b, int rank, const At &at) {
    const int *c = at.of;
    if (rank == 2)
        tma_load_2d(tile, map, b, c[0], c[1]);
    else if (rank == 3)
        tma_load_3d(tile, map, b, c[0], c[1], c[2]);
    else if (rank == 4)
        tma_load_4d(tile, map, b, c[0], c[1], c[2], c[3]);
    else
        tma_load_5d(tile, map, b, c[0], c[1], c[2], c[3], c[4]);
}

__global__ void box_kernel(TW_TENSOR_MAP_PARAM(map), int rank, At at, unsigned bytes,
                           unsigned char *out, uint32_t *ended) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        unsigned char *tile = arena.take<unsigned char>(box_tile_bytes);
        Mbarrier *full = arena.take<Mbarrier>(1);
        fill(tile, box_tile_bytes);
        if (threadIdx.x == 0) {
            mbarrier_init(full, 1);
            mbarrier_fence_init();
            tma_prefetch(&map);
        }
        sync_block();
        if (threadIdx.x == 0) {
            mbarrier_expect(full, bytes);
            load(tile, &map, full, rank, at);
        }
        const bool came = comes(full, 0);
        if (threadIdx.x == 0) *ended = came;
        sync_block();
        dump(out, tile, box_tile_bytes);
    }
}

constexpr unsigned wide_a = 64 * 128, wide_b = 256 * 128;

// A tile of ROWS rows of 64 elements, or of 64 k of ROWS elements, by plain stores.
template <int ROWS, bool COLUMNS>
TW_DEVICE void store_tile(unsigned char *tile, const unsigned char *from) {
    for (unsigned i = threadIdx.x; i < ROWS * 128; i += blockDim.x) {
        const unsigned chunk = i / 16;
        const unsigned k = chunk / (ROWS / 8), c = chunk % (ROWS / 8);
        const unsigned at =
            COLUMNS ? c / 8 * 8192 + swizzled<128>(k, c % 8) : swizzled<128>(chunk / 8, chunk % 8);
        tile[at + i % 16] = from[i];
    }
}

template <int ROWS, bool COLUMNS>
TW_DEVICE void load_tile(unsigned char *tile, const TensorMap *map, Mbarrier *full) {
    if constexpr (COLUMNS) {
        for (int i = 0; i < ROWS / 64; i++) tma_load_2d(tile + i * 8192, map, full, 64 * i, 0);
    } else {
        tma_load_2d(tile, map, full, 0, 0);
    }
}

template <bool COLUMNS> TW_DEVICE uint64_t wide_operand(const unsigned char *tile, int step) {
    return COLUMNS ? wgmma_columns(tile + 2048 * step, 8192) : wgmma_rows_128(tile + 32 * step);
}

TW_DEVICE void lay_down(float *out, const float (&d)[128]) {
    const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (unsigned i = 0; i < 128; i++)
        out[(row + i / 2 % 2 * 8) * 256 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

template <typename T, bool A_COLUMNS, bool B_COLUMNS>
__global__ void __launch_bounds__(128, 1)
    wide_kernel(TW_TENSOR_MAP_PARAM(map_a), TW_TENSOR_MAP_PARAM(map_b), bool by_tma,
                const unsigned char *a, const unsigned char *b, float *out, uint32_t *ended) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        unsigned char *tiles = arena.take<unsigned char>(wide_a + wide_b);
        Mbarrier *full = arena.take<Mbarrier>(1);
        if (threadIdx.x == 0) {
            mbarrier_init(full, 1);
            mbarrier_fence_init();
        }
        sync_block();
        bool came = true;
        if (by_tma) {
            if (threadIdx.x == 0) {
                mbarrier_expect(full, wide_a + wide_b);
                load_tile<64, A_COLUMNS>(tiles, &map_a, full);
                load_tile<256, B_COLUMNS>(tiles + wide_a, &map_b, full);
            }
            came = comes(full, 0);
        } else {
            store_tile<64, A_COLUMNS>(tiles, a);
            store_tile<256, B_COLUMNS>(tiles + wide_a, b);
            fence_async_proxy();
            sync_block();
        }
        if (threadIdx.x == 0) *ended = came;
        float d[128] = {};
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_multiply<A_COLUMNS, B_COLUMNS>(T{}, d, wide_operand<A_COLUMNS>(tiles, step),
                                                 wide_operand<B_COLUMNS>(tiles + wide_a, step));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(d);
        lay_down(out, d);
    }
}

__global__ void multicast_kernel(TW_TENSOR_MAP_PARAM(map), MulticastMasks masks, unsigned char *out,
                                 uint32_t *ended) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        unsigned char *tile = arena.take<unsigned char>(4 * 1024);
        Mbarrier *full = arena.take<Mbarrier>(1);
        const unsigned rank = cluster_rank(), size = cluster_size();
        fill(tile, 4 * 1024);
        if (threadIdx.x == 0) {
            mbarrier_init(full, 1);
            mbarrier_fence_init();
        }
        sync_cluster();
        if (threadIdx.x == 0) {
            unsigned pieces = 0;
            for (unsigned r = 0; r < size; r++) pieces += masks.of[r] >> rank & 1;
            mbarrier_expect(full, 1024 * pieces);
            if (masks.of[rank])
                tma_load_2d_multicast(tile + 1024 * rank, &map, full, 0, (int)(8 * rank),
                                      masks.of[rank]);
        }
        const bool came = comes(full, 0);
        if (threadIdx.x == 0) ended[blockIdx.x] = came;
        sync_cluster();
        dump(out + 4 * 1024 * (size_t)blockIdx.x, tile, 4 * 1024);
    }
}

__global__ void remote_kernel(uint32_t *sums, uint32_t *ended) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        uint32_t *words = arena.take<uint32_t>(32 * 8);
        Mbarrier *all = arena.take<Mbarrier>(1);
        const unsigned rank = cluster_rank(), size = cluster_size(), t = threadIdx.x;
        if (t == 0) {
            mbarrier_init(all, 32 * size);
            mbarrier_fence_init();
        }
        sync_cluster();
        for (unsigned r = 0; r < size; r++) {
            cluster_map(words, r)[32 * rank + t] = 1000 * blockIdx.x + 32 * r + t;
            mbarrier_arrive_block(all, r);
        }
        const bool came = comes(all, 0);
        sync_cluster(); // which makes the words seen
        uint32_t sum = 0;
        for (unsigned r = 0; r < size; r++) sum += words[32 * r + 31 - t];
        sums[32 * blockIdx.x + t] = sum;
        if (t == 0) ended[blockIdx.x] = came;
        sync_cluster();
    }
}

__global__ void groups_kernel(uint32_t *numbers) {
    TW_SHARED(arena);
    uint32_t *word = arena.take<uint32_t>(192);
    const unsigned group = threadIdx.x < 64 ? 0 : 1, first = 64 * group, size = 64 << group;
    uint32_t found = 0;
    for (unsigned turn = 0; turn < 1 + 3 * group; turn++) { // not as often in each
        word[threadIdx.x] = 1000 * turn + threadIdx.x;
        sync_group(1 + group, size);
        found = word[first + (threadIdx.x - first + 33) % size];
        sync_group(1 + group, size);
    }
    numbers[threadIdx.x] = found;
}

constexpr int places = 3;
constexpr unsigned place_a = 128 * 128, place_bytes = place_a + 256 * 128;

struct Ring {
    unsigned char *place;
    Mbarrier *full, *empty;
    TW_DEVICE unsigned char *at(int i) const { return place + i % places * place_bytes; }
    TW_DEVICE static unsigned parity(int i) { return (unsigned)(i / places) % 2; }
};

TW_DEVICE bool produce(const Ring &ring, const TensorMap *a, const TensorMap *b, int tiles) {
    bool came = true;
    for (int i = 0; i < tiles && came; i++) {
        if (i >= places) came = comes(ring.empty + i % places, Ring::parity(i) ^ 1);
        Mbarrier *const full = ring.full + i % places;
        mbarrier_expect(full, place_bytes);
        tma_load_2d(ring.at(i), a, full, 64 * i, 0);
        tma_load_2d(ring.at(i) + place_a, b, full, 64 * i, 0);
    }
    return came;
}

TW_DEVICE bool consume(const Ring &ring, float (&d)[128], unsigned group, int tiles) {
    bool came = true;
    for (int i = 0; i < tiles && came; i++) {
        came = comes(ring.full + i % places, Ring::parity(i));
        const unsigned char *const a = ring.at(i) + group * 64 * 128, *const b =
                                                                          ring.at(i) + place_a;
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma_multiply<false, false>(bf16{}, d, wgmma_rows_128(a + 32 * step),
                                         wgmma_rows_128(b + 32 * step));
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_settle(d);
        mbarrier_arrive(ring.empty + i % places);
    }
    return came;
}

__global__ void __launch_bounds__(384, 1)
    pipeline_kernel(TW_TENSOR_MAP_PARAM(map_a), TW_TENSOR_MAP_PARAM(map_b), int tiles, float *out,
                    uint32_t *ended) {
    if constexpr (has_wgmma) {
        TW_SHARED(arena);
        Ring ring;
        ring.place = arena.take<unsigned char>(places * place_bytes);
        ring.full = arena.take<Mbarrier>(places);
        ring.empty = arena.take<Mbarrier>(places);
        if (threadIdx.x == 0) {
            for (int i = 0; i < places; i++) {
                mbarrier_init(ring.full + i, 1);
                mbarrier_init(ring.empty + i, 256);
            }
            mbarrier_fence_init();
        }
        sync_block();
        const unsigned group = threadIdx.x / 128;
        if (group == 2) {
            registers_give<24>();
            if (threadIdx.x == 256) ended[2] = produce(ring, &map_a, &map_b, tiles);
        } else {
            registers_take<240>();
            float d[128] = {};
            const bool came = consume(ring, d, group, tiles);
            if (threadIdx.x % 128 == 0) ended[group] = came;
            const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
            for (unsigned i = 0; i < 128; i++)
                out[(row + i / 2 % 2 * 8) * 256 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
        }
    }
}

// Rows of `across` 16-bit elements, in boxes of 64 of `rows` rows.
twk_status plain_map(const void *base, twk_format format, uint64_t across, uint32_t rows,
                     uint32_t box_rows, TensorMap *map) {
    TensorBox t = {};
    t.base = base;
    t.format = format;
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

Swizzle swizzle_of(int bytes) {
    return bytes == 128  ? Swizzle::bytes_128
           : bytes == 64 ? Swizzle::bytes_64
           : bytes == 32 ? Swizzle::bytes_32
                         : Swizzle::none;
}

} // namespace
} // namespace tw

using namespace tw;

bool tma_here() {
    return device_limits().tma;
}

twk_status wrappers_box(const BoxCall &call, unsigned bytes, unsigned char *tile, uint32_t *ended,
                        twk_stream stream) {
    TensorBox t;
    At at;
    t.base = call.base;
    t.format = call.format;
    t.rank = call.rank;
    t.swizzle = swizzle_of(call.swizzle_bytes);
    for (int i = 0; i < 5; i++) {
        t.size[i] = call.size[i];
        t.stride_bytes[i] = call.stride_bytes[i];
        t.box[i] = call.box[i];
        t.step[i] = call.step[i];
        at.of[i] = call.at[i];
    }
    TensorMap map;
    const twk_status status = tensor_map(t, &map);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.block = dim3(128);
    c.shared = box_tile_bytes + 16;
    c.stream = stream;
    return TW_LAUNCH(box_kernel, c, map, call.rank, at, bytes, tile, ended);
}

twk_status wrappers_wide_product(twk_format format, bool a_columns, bool b_columns, bool by_tma,
                                 const void *a, const void *b, float *d, uint32_t *ended,
                                 twk_stream stream) {
    TensorMap map_a, map_b;
    twk_status status = plain_map(a, format, 64, 64, 64, &map_a);
    if (status == TWK_OK)
        status = b_columns ? plain_map(b, format, 256, 64, 64, &map_b)
                           : plain_map(b, format, 64, 256, 256, &map_b);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.block = dim3(128);
    c.shared = wide_a + wide_b + 16;
    c.stream = stream;
    return with_flag(a_columns, [&](auto ac) {
        return with_flag(b_columns, [&](auto bc) {
            const auto *from_a = static_cast<const unsigned char *>(a);
            const auto *from_b = static_cast<const unsigned char *>(b);
            constexpr bool by_a = decltype(ac)::value, by_b = decltype(bc)::value;
            if (format == TWK_BF16)
                return TW_LAUNCH((wide_kernel<bf16, by_a, by_b>), c, map_a, map_b, by_tma, from_a,
                                 from_b, d, ended);
            return TW_LAUNCH((wide_kernel<f16, by_a, by_b>), c, map_a, map_b, by_tma, from_a,
                             from_b, d, ended);
        });
    });
}

twk_status wrappers_multicast(unsigned cluster, MulticastMasks masks, const void *numbers,
                              unsigned char *tiles, uint32_t *ended, twk_stream stream) {
    TensorMap map;
    const twk_status status = plain_map(numbers, TWK_BF16, 64, 32, 8, &map);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.grid = dim3(2 * cluster);
    c.block = dim3(64);
    c.cluster = cluster;
    c.shared = 4 * 1024 + 16;
    c.stream = stream;
    return TW_LAUNCH(multicast_kernel, c, map, masks, tiles, ended);
}

twk_status wrappers_remote(unsigned cluster, uint32_t *sums, uint32_t *ended, twk_stream stream) {
    LaunchConfig c;
    c.grid = dim3(2 * cluster);
    c.block = dim3(32);
    c.cluster = cluster;
    c.shared = shared_bytes<uint32_t>(32 * 8) + 16;
    c.stream = stream;
    return TW_LAUNCH(remote_kernel, c, sums, ended);
}

twk_status wrappers_groups(uint32_t *numbers, twk_stream stream) {
    LaunchConfig c;
    c.block = dim3(192);
    c.shared = shared_bytes<uint32_t>(192);
    c.stream = stream;
    return TW_LAUNCH(groups_kernel, c, numbers);
}

twk_status wrappers_pipeline(int64_t k, const void *a, const void *b, float *d, uint32_t *ended,
                             twk_stream stream) {
    TensorMap map_a, map_b;
    twk_status status = plain_map(a, TWK_BF16, (uint64_t)k, 128, 128, &map_a);
    if (status == TWK_OK) status = plain_map(b, TWK_BF16, (uint64_t)k, 256, 256, &map_b);
    if (status != TWK_OK) return status;
    LaunchConfig c;
    c.block = dim3(384);
    c.shared = places * place_bytes + 2 * shared_bytes<Mbarrier>(places);
    c.stream = stream;
    return TW_LAUNCH(pipeline_kernel, c, map_a, map_b, (int)ceil_div<int64_t>(k, 64), d, ended);
}
