// Boxes of a tensor copied into shared memory by one thread (TMA, compute capability 9.0 by code
// for sm_90a).
//
//      host     TensorBox --tensor_map()--> TensorMap, a parameter of the kernel declared by
//               TW_TENSOR_MAP_PARAM, alone or in a structure that is __grid_constant__
//      device   mbarrier_expect(full, bytes); tma_load_2d(tile, &map, full, c0, c1); ...
//               mbarrier_wait(full, parity) by whoever reads the tile
//
// c0 is where the box begins along the dimension that runs fastest; any coordinate may be negative
// or past the end, and what lies outside of the tensor arrives as zeros. The bytes of a box, zeros
// too, are added to what the barrier's phase waits for. They lie row after row of box[0] elements,
// the chunks of 16 bytes permuted as the swizzle says: by bits of their address in shared memory,
// so that swizzled<128> tells where they are in a tile that begins at a multiple of 1024 bytes.
//
// A tile that was read may be filled again once its readers have arrived at a barrier that the
// producer waited for. Where it was written by plain stores, whoever wrote does
// fence_async_proxy() before.
#pragma once

#include "../base.h"
#include "mbarrier.cuh"
#include "swizzle.cuh"

namespace tw {

// Opaque: the driver's on a device, the emulator's own under it.
struct alignas(64) TensorMap {
    unsigned char bytes[128];
};

// A tensor, and the boxes of it that are to be copied. Index 0 runs fastest and is dense; base and
// strides are multiples of 16, so are the bytes of box[0], which with a swizzle are as many as it
// permutes (128, 64, 32). A box is box[i] elements along dimension i, every step[i]-th of the
// tensor's (1 to 8; step[0] is 1): box[i] * step[i] is no more than 256.
struct TensorBox {
    const void *base;
    twk_format format;
    int rank; // 1 to 5
    uint64_t size[5], stride_bytes[5];
    uint32_t box[5], step[5] = {1, 1, 1, 1, 1};
    Swizzle swizzle = Swizzle::none;
};

// TWK_UNSUPPORTED where there is no TMA or the layout cannot be described.
twk_status tensor_map(const TensorBox &box, TensorMap *map);
#define TW_TENSOR_MAP_PARAM(name) const __grid_constant__ ::tw::TensorMap name
// Whether the driver describes any; see device_limits().
bool tensor_maps_there();

#ifndef TW_EMULATOR

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Brings the description near.
TW_DEVICE void tma_prefetch(const TensorMap *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

#define TW_TMA(form, operands, ...)                                                                \
    asm volatile("cp.async.bulk.tensor." form " " operands                                         \
                 ";" ::"r"((unsigned)__cvta_generic_to_shared(shared)),                            \
                 "l"(map), "r"(mbarrier_address(b)), __VA_ARGS__                                   \
                 : "memory")
#define TW_TMA_ONE ".shared::cluster.global.tile.mbarrier::complete_tx::bytes"
#define TW_TMA_MANY TW_TMA_ONE ".multicast::cluster"

TW_DEVICE void tma_load_2d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1) {
    TW_TMA("2d" TW_TMA_ONE, "[%0], [%1, {%3, %4}], [%2]", "r"(c0), "r"(c1));
}
TW_DEVICE void tma_load_3d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                           int c2) {
    TW_TMA("3d" TW_TMA_ONE, "[%0], [%1, {%3, %4, %5}], [%2]", "r"(c0), "r"(c1), "r"(c2));
}
TW_DEVICE void tma_load_4d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1, int c2,
                           int c3) {
    TW_TMA("4d" TW_TMA_ONE, "[%0], [%1, {%3, %4, %5, %6}], [%2]", "r"(c0), "r"(c1), "r"(c2),
           "r"(c3));
}
TW_DEVICE void tma_load_5d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1, int c2,
                           int c3, int c4) {
    TW_TMA("5d" TW_TMA_ONE, "[%0], [%1, {%3, %4, %5, %6, %7}], [%2]", "r"(c0), "r"(c1), "r"(c2),
           "r"(c3), "r"(c4));
}

// The same for every block of the cluster whose bit is set in `blocks`: the box and its bytes'
// count arrive at the same places in the shared memory of each.
TW_DEVICE void tma_load_2d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0,
                                     int c1, uint16_t blocks) {
    TW_TMA("2d" TW_TMA_MANY, "[%0], [%1, {%3, %4}], [%2], %5", "r"(c0), "r"(c1), "h"(blocks));
}
TW_DEVICE void tma_load_3d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0,
                                     int c1, int c2, uint16_t blocks) {
    TW_TMA("3d" TW_TMA_MANY, "[%0], [%1, {%3, %4, %5}], [%2], %6", "r"(c0), "r"(c1), "r"(c2),
           "h"(blocks));
}
TW_DEVICE void tma_load_4d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0,
                                     int c1, int c2, int c3, uint16_t blocks) {
    TW_TMA("4d" TW_TMA_MANY, "[%0], [%1, {%3, %4, %5, %6}], [%2], %7", "r"(c0), "r"(c1), "r"(c2),
           "r"(c3), "h"(blocks));
}
TW_DEVICE void tma_load_5d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0,
                                     int c1, int c2, int c3, int c4, uint16_t blocks) {
    TW_TMA("5d" TW_TMA_MANY, "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8", "r"(c0), "r"(c1),
           "r"(c2), "r"(c3), "r"(c4), "h"(blocks));
}

#undef TW_TMA_MANY
#undef TW_TMA_ONE
#undef TW_TMA

#else // never run, see has_wgmma

TW_DEVICE void tma_prefetch(const TensorMap *) {}
TW_DEVICE void tma_load_2d(void *, const TensorMap *, Mbarrier *, int, int) {}
TW_DEVICE void tma_load_3d(void *, const TensorMap *, Mbarrier *, int, int, int) {}
TW_DEVICE void tma_load_4d(void *, const TensorMap *, Mbarrier *, int, int, int, int) {}
TW_DEVICE void tma_load_5d(void *, const TensorMap *, Mbarrier *, int, int, int, int, int) {}
TW_DEVICE void tma_load_2d_multicast(void *, const TensorMap *, Mbarrier *, int, int, uint16_t) {}
TW_DEVICE void tma_load_3d_multicast(void *, const TensorMap *, Mbarrier *, int, int, int,
                                     uint16_t) {}
TW_DEVICE void tma_load_4d_multicast(void *, const TensorMap *, Mbarrier *, int, int, int, int,
                                     uint16_t) {}
TW_DEVICE void tma_load_5d_multicast(void *, const TensorMap *, Mbarrier *, int, int, int, int, int,
                                     uint16_t) {}

#endif

#else

inline void tma_prefetch(const TensorMap *map, TW_EMU_SITE) {
    emu::tma_prefetch(map, emu::Site{file, line});
}
inline void tma_load_2d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                        TW_EMU_SITE) {
    const int at[] = {c0, c1};
    emu::tma_load(shared, map, &b->word, at, 2, 0, emu::Site{file, line});
}
inline void tma_load_3d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1, int c2,
                        TW_EMU_SITE) {
    const int at[] = {c0, c1, c2};
    emu::tma_load(shared, map, &b->word, at, 3, 0, emu::Site{file, line});
}
inline void tma_load_4d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1, int c2,
                        int c3, TW_EMU_SITE) {
    const int at[] = {c0, c1, c2, c3};
    emu::tma_load(shared, map, &b->word, at, 4, 0, emu::Site{file, line});
}
inline void tma_load_5d(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1, int c2,
                        int c3, int c4, TW_EMU_SITE) {
    const int at[] = {c0, c1, c2, c3, c4};
    emu::tma_load(shared, map, &b->word, at, 5, 0, emu::Site{file, line});
}
inline void tma_load_2d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                                  uint16_t blocks, TW_EMU_SITE) {
    const int at[] = {c0, c1};
    emu::tma_load(shared, map, &b->word, at, 2, blocks, emu::Site{file, line});
}
inline void tma_load_3d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                                  int c2, uint16_t blocks, TW_EMU_SITE) {
    const int at[] = {c0, c1, c2};
    emu::tma_load(shared, map, &b->word, at, 3, blocks, emu::Site{file, line});
}
inline void tma_load_4d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                                  int c2, int c3, uint16_t blocks, TW_EMU_SITE) {
    const int at[] = {c0, c1, c2, c3};
    emu::tma_load(shared, map, &b->word, at, 4, blocks, emu::Site{file, line});
}
inline void tma_load_5d_multicast(void *shared, const TensorMap *map, Mbarrier *b, int c0, int c1,
                                  int c2, int c3, int c4, uint16_t blocks, TW_EMU_SITE) {
    const int at[] = {c0, c1, c2, c3, c4};
    emu::tma_load(shared, map, &b->word, at, 5, blocks, emu::Site{file, line});
}

#endif

} // namespace tw
