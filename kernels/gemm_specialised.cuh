// The product of tiles of 128 x 256 by TMA and wgmma, on GPUs of compute capability 9.0, 16-bit
// formats alone: D (128 x 256) += A (128 x K) B (256 x K)^T by three warpgroups, of which the last
// copies and the others multiply, 64 rows of D and its 256 columns each.
//
//      warpgroup 2      one thread: waits for empty[s], tells full[s] how many bytes come, starts
//                       the copies of A's and B's next 64 along K into stage s; up to four stages
//                       ahead, across the tiles that its block is given
//      warpgroups 0, 1  wait for full[s]; four products of 64 x 256 x 16 each; once the next four
//                       have been started, these are done and empty[s] is told
//
// A stage has A's tile first, then B's, each in one of two forms:
//   rows      K runs fastest: lines of 64 k (128 bytes), one for each row, swizzled<128>
//   columns   K runs slowest: 64 lines of 64 rows (128 bytes), one for each k, swizzled<128>; then
//             the next 64 rows
// A box of TMA that ends past the matrix brings zeros.
//
// In clusters of two blocks a copy may go to both, at the same place: then both take the same
// number of tiles and of pieces along K, and a stage is free when both have multiplied it.
//
// A kernel is run_specialised() and a class WORK of its own, of which both sides have a copy:
//   bool take(int i)      the i-th tile of this block; false: there is none. Tiles without products
//                         are taken like others
//   int steps() const     pieces of 64 along K of the tile
//   unsigned bytes()      of a stage's copies, the other block's too
//   void fetch(unsigned char *a, unsigned char *b, Mbarrier *full)
//                         starts the copies of the tile's next piece
//   static constexpr bool narrows
//   bool narrow() const   if it does: whether the first 128 columns of the tile are all
//   static constexpr bool looks
//   void look(const unsigned char *a, const unsigned char *b)
//                         if it does: by the threads that multiply, at every piece along K
//   void prepare()        by those threads, before a tile's first finish
//   void finish(float *d, int column)
//                         by those threads: 64 columns of D from `column` on, turned around, as
//                         [64][SpecialisedTile::ld]: a row for each of D's columns
#pragma once

#include "gemm_core.cuh"
#include "device/cluster.cuh"
#include "device/launch.cuh"
#include "device/mbarrier.cuh"
#include "device/tma.cuh"
#include "device/wgmma.cuh"

namespace tw {

template <typename MATH> struct SpecialisedTile {
    using Math = MATH;
    using Storage = MATH;
    static_assert(sizeof(Storage) == 2, "16-bit formats alone");
    static constexpr bool built = has_wgmma;
    static constexpr int bm = 128, bn = 256, depth = 64, stages = 4;
    static constexpr int a_bytes = bm * 128, b_bytes = bn * 128, stage_bytes = a_bytes + b_bytes;
    static constexpr int workers = 256, threads = 384;
    // Of the registers that launch bounds leave a thread, in eights; more would be waited for for
    // ever.
    static constexpr int copying = 40, multiplying = 232;
    static_assert((threads - workers) * copying + workers * multiplying <=
                      65536 / threads / 8 * 8 * threads,
                  "more registers than a block begins with");
    // D is turned around 64 columns at a time. Four lanes of a warp write two rows apart: 8 banks.
    static constexpr int chunk = 64, ld = bm + 4;
    static constexpr size_t shared = stages * stage_bytes + chunk * ld * sizeof(float) +
                                     2 * stages * sizeof(Mbarrier); // and what the work takes
};

// The threads that multiply.
using Workers = FirstThreads<SpecialisedTile<bf16>::workers>;

// Stages, one after the other and around.
template <typename TILE> struct Ring {
    unsigned char *stage;
    Mbarrier *full, *empty;
    bool shared; // by two blocks
    int at = 0;
    unsigned parity = 0;
    // By a thread of each warp that multiplies, when its products are done.
    TW_DEVICE void release(Mbarrier *stage_empty) const {
        mbarrier_arrive(stage_empty);
        if (shared) mbarrier_arrive_block(stage_empty, cluster_rank() ^ 1u);
    }
    TW_DEVICE unsigned char *a() const { return stage + at * TILE::stage_bytes; }
    TW_DEVICE unsigned char *b() const { return a() + TILE::a_bytes; }
    TW_DEVICE void next() {
        if (++at < TILE::stages) return;
        at = 0;
        parity ^= 1;
    }
};

// D of a warpgroup, see wgmma.cuh.
template <typename TILE, Form A_FORM, Form B_FORM> struct SpecialisedProduct {
    static constexpr int lines = 64 * 128; // bytes of 64 rows, in either form
    float d[TILE::bn / 2];

    template <Form FORM> static TW_DEVICE uint64_t operand(const unsigned char *tile, int k16) {
        if constexpr (FORM == Form::rows)
            return wgmma_rows_128(tile + k16 * 32);
        else
            return wgmma_columns(tile + k16 * 16 * 128, lines);
    }

    // The first COLUMNS of the tile.
    template <int COLUMNS, typename WORK>
    TW_DEVICE void multiply_columns(Ring<TILE> &ring, WORK &work) {
        float(&sums)[COLUMNS / 2] = reinterpret_cast<float(&)[COLUMNS / 2]>(d);
#pragma unroll
        for (int i = 0; i < COLUMNS / 2; i++) sums[i] = 0.0f;
        const int a_half = (int)threadIdx.x / 128 * lines;
        const bool tells = threadIdx.x % 32 == 0;
        Mbarrier *before = nullptr;
#pragma unroll 1
        for (int i = work.steps(); i > 0; i--) {
            mbarrier_wait(ring.full + ring.at, ring.parity);
            wgmma_fence();
#pragma unroll
            for (int k16 = 0; k16 < TILE::depth / 16; k16++)
                wgmma_multiply<A_FORM == Form::columns, B_FORM == Form::columns>(
                    typename TILE::Math{}, sums, operand<A_FORM>(ring.a() + a_half, k16),
                    operand<B_FORM>(ring.b(), k16));
            wgmma_commit();
            if constexpr (WORK::looks) work.look(ring.a(), ring.b());
            wgmma_wait<1>();
            sync_warp(full_warp); // every lane has waited, and looked
            if (before && tells) ring.release(before);
            before = ring.empty + ring.at;
            ring.next();
        }
        wgmma_wait<0>();
        wgmma_settle(sums);
        sync_warp(full_warp);
        if (before && tells) ring.release(before);
    }
    // How many columns there are.
    template <typename WORK> TW_DEVICE int multiply(Ring<TILE> &ring, WORK &work) {
        if constexpr (WORK::narrows) {
            if (work.narrow()) {
                multiply_columns<TILE::bn / 2>(ring, work);
                return TILE::bn / 2;
            }
        }
        multiply_columns<TILE::bn>(ring, work);
        return TILE::bn;
    }

    // Columns from 64 CHUNK on, as rows of `to`.
    template <int CHUNK> TW_DEVICE void turn_chunk(float *to) const {
        const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
        float *const mine = to + lane % 4 * 2 * TILE::ld + warp * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                mine[(8 * j + i % 2) * TILE::ld + i / 2 * 8] = d[32 * CHUNK + 4 * j + i];
    }
    TW_DEVICE void turn(float *to, int chunk) const {
        switch (chunk) {
        case 0:
            return turn_chunk<0>(to);
        case 1:
            return turn_chunk<1>(to);
        case 2:
            return turn_chunk<2>(to);
        default:
            return turn_chunk<3>(to);
        }
    }
};

// The copies of all tiles, by one thread.
template <typename TILE, typename WORK> TW_DEVICE void produce(Ring<TILE> ring, WORK &work) {
#pragma unroll 1
    for (int tile = 0; work.take(tile); tile++)
#pragma unroll 1
        for (int i = work.steps(); i > 0; i--) {
            mbarrier_wait(ring.empty + ring.at, ring.parity ^ 1);
            mbarrier_expect(ring.full + ring.at, work.bytes());
            work.fetch(ring.a(), ring.b(), ring.full + ring.at);
            ring.next();
        }
}

// The products of all tiles and what becomes of them, by the others.
template <typename TILE, Form A_FORM, Form B_FORM, typename WORK>
TW_DEVICE void consume(Ring<TILE> ring, float *turned, WORK &work) {
    SpecialisedProduct<TILE, A_FORM, B_FORM> product;
#pragma unroll 1
    for (int tile = 0; work.take(tile); tile++) {
        const int columns = product.multiply(ring, work);
        work.prepare();
#pragma unroll 1
        for (int chunk = 0; chunk < columns / TILE::chunk; chunk++) {
            product.turn(turned, chunk);
            Workers::sync();
            work.finish(turned, chunk * TILE::chunk);
            Workers::sync();
        }
    }
}

// All tiles of this block. `memory` and `turned` as SpecialisedTile::shared has them.
template <typename TILE, Form A_FORM = Form::rows, Form B_FORM = Form::rows, typename WORK>
TW_DEVICE void run_specialised(unsigned char *memory, float *turned, Mbarrier *barriers,
                               WORK &work) {
    const unsigned blocks = cluster_size();
    Ring<TILE> ring = {memory, barriers, barriers + TILE::stages, blocks > 1};
    if (threadIdx.x == 0) {
        for (int s = 0; s < TILE::stages; s++) {
            mbarrier_init(ring.full + s, 1);
            mbarrier_init(ring.empty + s, TILE::workers / 32 * blocks);
        }
        mbarrier_fence_init();
    }
    if (ring.shared)
        sync_cluster();
    else
        sync_block();
    if (threadIdx.x >= TILE::workers) {
        registers_give<TILE::copying>();
        if (threadIdx.x == TILE::workers) produce(ring, work);
        sync_warp(full_warp);
    } else {
        registers_take<TILE::multiplying>();
        consume<TILE, A_FORM, B_FORM>(ring, turned, work);
    }
    if (ring.shared) sync_cluster(); // nothing arrives where a block has gone
}

} // namespace tw
