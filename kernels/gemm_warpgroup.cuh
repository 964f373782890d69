// The same product by wgmma, on GPUs of compute capability 9.0: the block's four warps multiply
// tiles of 128 x 128 straight from shared memory, 16-bit formats alone (tf32 operands would be cut
// instead of rounded).
//
//      copies         ... [i + 4]      three tiles and more ahead
//      tensor cores   [i - 1] [i]      one group of products runs while the next is prepared
//      free           [i - 2]          filled with tile i + 4 once everyone has passed the barrier
#pragma once

#include "gemm_core.cuh"
#include "device/wgmma.cuh"

namespace tw {

template <typename MATH> struct WarpgroupTile {
    using Math = MATH;
    using Storage = MATH;
    static_assert(sizeof(Storage) == 2, "16-bit formats alone");
    static constexpr bool warpgroup = true, built = has_wgmma;
    static constexpr int bm = 128, bn = 128, blocks = 2;
    static constexpr int depth = tile_row_bytes / (int)sizeof(Storage);
    static constexpr int stages = 6, stage_bytes = (bm + bn) * tile_row_bytes;
    static constexpr int ld = bn + 8;
    static constexpr int shared = larger(stages * stage_bytes, bm *ld * 4);
};

// D of a warpgroup: rows 0 to 63 in c[0], 64 to 127 in c[1].
template <typename TILE, Form A_FORM, Form B_FORM> struct WarpgroupProduct {
    static constexpr unsigned half_bytes = 64 * tile_row_bytes; // of A or B, in either form
    float c[2][64] = {};

    template <Form FORM> static TW_DEVICE uint64_t operand(const unsigned char *tile, int step) {
        if constexpr (FORM == Form::rows)
            return wgmma_rows(tile + step * 32);
        else
            return wgmma_columns(tile + step * 16 * 128, half_bytes);
    }

    // Begins to add a tile.
    TW_DEVICE void start(const unsigned char *tile) {
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
            for (int half = 0; half < 2; half++)
                wgmma_multiply<A_FORM == Form::columns, B_FORM == Form::columns>(
                    typename TILE::Math{}, c[half], operand<A_FORM>(tile + half * half_bytes, step),
                    operand<B_FORM>(tile + TILE::bm * tile_row_bytes, step));
        wgmma_commit();
    }

    TW_DEVICE void finish() {
        wgmma_wait<0>();
        wgmma_settle(c[0]);
        wgmma_settle(c[1]);
    }

    TW_DEVICE void lay_down(float *d) const {
        const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
        float *const mine = d + (16 * warp + lane / 4) * TILE::ld + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) // 8 rows
#pragma unroll
            for (int j = 0; j < TILE::bn / 8; j++) {
                float *const to = mine + (i / 2 * 64 + i % 2 * 8) * TILE::ld + 8 * j;
                to[0] = c[i / 2][4 * j + i % 2 * 2];
                to[1] = c[i / 2][4 * j + i % 2 * 2 + 1];
            }
    }
};

template <typename TILE, Form A_FORM, Form B_FORM, typename A, typename B, typename LOOK>
TW_DEVICE float *multiply_warpgroup(unsigned char *memory, A &a, B &b, int tiles, LOOK &&look) {
    constexpr int b_tile = TILE::bm * tile_row_bytes, ahead = TILE::stages - 2;
#pragma unroll 1
    for (int i = 0; i < ahead; i++) {
        if (i < tiles) {
            a.fetch(memory + i * TILE::stage_bytes);
            b.fetch(memory + i * TILE::stage_bytes + b_tile);
        }
        copy_async_commit(); // empty ones keep the count
    }
    WarpgroupProduct<TILE, A_FORM, B_FORM> product;
    int from = 0, to = ahead;
#pragma unroll 1
    for (int i = 0; i < tiles; i++) {
        copy_async_wait<ahead - 1>();
        fence_async_proxy();
        sync_block(); // tile i is there for everyone, and everyone is done with tile i - 2
        product.start(memory + from * TILE::stage_bytes);
        if (i + ahead < tiles) {
            a.fetch(memory + to * TILE::stage_bytes);
            b.fetch(memory + to * TILE::stage_bytes + b_tile);
        }
        copy_async_commit();
        look(memory + from * TILE::stage_bytes);
        wgmma_wait<1>();
        from = from == TILE::stages - 1 ? 0 : from + 1;
        to = to == TILE::stages - 1 ? 0 : to + 1;
    }
    product.finish();
    copy_async_wait<0>();
    sync_block();
    float *const d = reinterpret_cast<float *>(memory);
    product.lay_down(d);
    sync_block();
    return d;
}

// D = A B^T over `tiles` tiles along K, in the way of the tile; see multiply_rows.
template <typename TILE, Form A_FORM = Form::rows, Form B_FORM = Form::rows, typename A, typename B,
          typename LOOK = Unseen>
TW_DEVICE float *multiply_tiles(unsigned char *memory, A &a, B &b, int tiles, LOOK &&look = {}) {
    if constexpr (TILE::warpgroup)
        return multiply_warpgroup<TILE, A_FORM, B_FORM>(memory, a, b, tiles, look);
    else
        return multiply_rows<TILE, A_FORM, B_FORM>(memory, a, b, tiles, look);
}

} // namespace tw
