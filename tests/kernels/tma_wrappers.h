#pragma once
#include "kernels.h"

// Whether the device, its driver and the code for it have TMA.
bool tma_here();

// A tensor and a box of it; see kernels/device/tma.cuh.
struct BoxCall {
    const void *base;
    twk_format format;
    int rank;
    uint64_t size[5], stride_bytes[5];
    uint32_t box[5], step[5];
    int swizzle_bytes; // 128, 64, 32 or 0
    int at[5];
};
constexpr unsigned box_tile_bytes = 64 * 1024;
// One thread asks for the box at the beginning of a tile that holds 0xee, all wait for `bytes`
// bytes; the tile as it lies in shared memory, and whether the wait ended (it gives up after a
// second).
twk_status wrappers_box(const BoxCall &call, unsigned bytes, unsigned char *tile, uint32_t *ended,
                        twk_stream stream);

// d[64][256] = a b by one warpgroup, 64 deep, in bf16 or fp16: a[64][64] and b[256][64], or by
// columns [64][64] and [64][256]; in tiles that TMA brings or that the threads store.
twk_status wrappers_wide_product(twk_format format, bool a_columns, bool b_columns, bool by_tma,
                                 const void *a, const void *b, float *d, uint32_t *ended,
                                 twk_stream stream);

// Block r of each cluster of `cluster` brings piece r of the numbers, 1 KB each, to the blocks of
// masks[r]; a block's pieces lie one behind the other, 0xee where none came. tiles[block][piece].
struct MulticastMasks {
    uint16_t of[4];
};
twk_status wrappers_multicast(unsigned cluster, MulticastMasks masks, const void *numbers,
                              unsigned char *tiles, uint32_t *ended, twk_stream stream);

// Each block of a cluster writes to the others and arrives at their barriers; whether all do, and
// sums[block] of what it finds then.
twk_status wrappers_remote(unsigned cluster, uint32_t *sums, uint32_t *ended, twk_stream stream);

// The parts of a block meet by themselves: of each thread, its neighbour's number in the group.
twk_status wrappers_groups(uint32_t *numbers, twk_stream stream);

// d[128][256] = a[128][k] b[256][k]^T in bf16: a warpgroup that gives its registers away and brings
// tiles 64 deep through a ring of three places, two that take them and multiply.
twk_status wrappers_pipeline(int64_t k, const void *a, const void *b, float *d, uint32_t *ended,
                             twk_stream stream);
