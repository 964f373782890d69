// The product of two tiles that every matrix kernel is built on: D (BM x BN) += A (BM x K) B (BN x
// K)^T, A and B brought row by row through a pipeline of shared-memory tiles whose rows are 64
// bytes (K = 32 in bf16 and fp16, 16 in fp32), D kept in registers and laid down in shared memory
// at the end.
//
//      global --cp.async--> [tile 0][tile 1][tile 2][tile 3] --ldmatrix--> fragments --mma--> D
//                            copies run three tiles ahead; one barrier a tile
//
// What brings the rows is a class of the kernel's with fetch(tile): start copying the next tile.
#pragma once

#include "device/copy.cuh"
#include "device/ldmatrix.cuh"
#include "device/math.cuh"
#include "device/mma.cuh"
#include "device/swizzle.cuh"
#include "device/vec.cuh"

#include <type_traits>

namespace tw {

constexpr int tile_row_bytes = 64, tile_chunks = 4, tile_stages = 4, tile_threads = 128;
// Rows that the block's threads bring at once, a chunk of 16 bytes each.
constexpr int tile_pass = tile_threads / tile_chunks;

// How a format is stored: tf32 is arithmetic on fp32.
template <typename MATH> struct StorageOf { using Type = MATH; };
template <> struct StorageOf<tf32> { using Type = float; };

// A thread's part of the copies of a tile: the same chunk of every 32nd row. (8 rows shift a
// swizzled tile unchanged.)
struct TileSlot {
    int row, chunk;
    unsigned at;
    TW_DEVICE TileSlot()
        : row((int)threadIdx.x / tile_chunks), chunk((int)threadIdx.x % tile_chunks),
          at(swizzled<tile_row_bytes>((unsigned)row, (unsigned)chunk)) {}
    TW_DEVICE unsigned offset(int pass) const {
        return at + (unsigned)(pass * tile_pass * tile_row_bytes);
    }
};

// 16 bytes that are put together element by element, for rows whose start is not aligned.
template <typename T> struct Chunk {
    static constexpr int elements = 16 / (int)sizeof(T);
    using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
    Bytes16 bytes = {};
    TW_DEVICE void set(int i, const T *p) {
        const uint32_t bits = *reinterpret_cast<const Bits *>(p);
        if constexpr (sizeof(T) == 4)
            bytes.word[i] = bits;
        else
            bytes.word[i / 2] |= bits << i % 2 * 16;
    }
};

// Four warps, WARPS_M of them below each other. BLOCKS: how many share a processor.
template <typename MATH_, int BM_, int BN_, int WARPS_M, int BLOCKS> struct Tile {
    using Math = MATH_;
    using Storage = typename StorageOf<Math>::Type;
    static constexpr int bm = BM_, bn = BN_, blocks = BLOCKS;
    static constexpr int warp_m = bm / WARPS_M, warp_n = bn * WARPS_M / (tile_threads / 32);
    static constexpr int depth = tile_row_bytes / (int)sizeof(Storage);
    static constexpr int stage_bytes = (bm + bn) * tile_row_bytes;
    // D in shared memory: 8 columns more, so that the quads of a warp write to different banks.
    static constexpr int ld = bn + 8;
    static constexpr int shared = larger(tile_stages * stage_bytes, bm *ld * 4);

    static TW_DEVICE int warp_row() { return (int)(threadIdx.x / 32) % WARPS_M * warp_m; }
    static TW_DEVICE int warp_column() { return (int)(threadIdx.x / 32) / WARPS_M * warp_n; }
};

// D of a warp on the tensor cores.
template <typename TILE> struct TensorProduct {
    static constexpr int m = TILE::warp_m / 16, n = TILE::warp_n / 8;
    static_assert(n % 2 == 0, "columns are loaded in pairs of fragments");
    FragmentC c[m][n] = {};
    unsigned a_at[2], b_at[2]; // of this lane's row in the two steps along K

    TW_DEVICE TensorProduct() {
        const unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (unsigned step = 0; step < 2; step++) {
            a_at[step] = (unsigned)TILE::warp_row() * tile_row_bytes +
                         swizzled<tile_row_bytes>(lane % 16, 2 * step + lane / 16);
            b_at[step] =
                (unsigned)(TILE::bm + TILE::warp_column()) * tile_row_bytes +
                swizzled<tile_row_bytes>(lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2);
        }
    }

    TW_DEVICE void add(const unsigned char *tile) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            FragmentA a[m];
            FragmentB b[n];
#pragma unroll
            for (int i = 0; i < m; i++)
                load_matrices(a[i].word, tile + a_at[step] + i * 16 * tile_row_bytes);
#pragma unroll
            for (int j = 0; j < n; j += 2) {
                uint32_t two[4];
                load_matrices(two, tile + b_at[step] + j * 8 * tile_row_bytes);
                b[j] = FragmentB{{two[0], two[1]}};
                b[j + 1] = FragmentB{{two[2], two[3]}};
            }
            if constexpr (std::is_same<typename TILE::Math, tf32>::value) {
#pragma unroll
                for (int i = 0; i < m; i++)
#pragma unroll
                    for (int w = 0; w < 4; w++) a[i].word[w] = to_tf32(a[i].word[w]);
#pragma unroll
                for (int j = 0; j < n; j++)
#pragma unroll
                    for (int w = 0; w < 2; w++) b[j].word[w] = to_tf32(b[j].word[w]);
            }
            multiply_tile<typename TILE::Math>(c, a, b);
        }
    }

    TW_DEVICE void lay_down(float *d) const {
        const int lane = (int)threadIdx.x % 32;
        float *const mine =
            d + (TILE::warp_row() + lane / 4) * TILE::ld + TILE::warp_column() + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < m; i++)
#pragma unroll
            for (int j = 0; j < n; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float *const to = mine + (16 * i + 8 * half) * TILE::ld + 8 * j;
                    to[0] = c[i][j].c[2 * half];
                    to[1] = c[i][j].c[2 * half + 1];
                }
    }
};

// D of a thread in fp32: 8 x 8 elements, every 16th row and every 8th column, so that the lanes of
// a quarter warp read one row of A and eight neighbouring rows of B. k ascends in every sum.
template <typename TILE> struct PlainProduct {
    static_assert(TILE::bm == 128 && TILE::bn == 64, "128 threads with 8 x 8 elements each");
    float c[8][8] = {};

    TW_DEVICE static float element(const Bytes16 &v, int i) { return bits_to_float(v.word[i]); }

    TW_DEVICE void add(const unsigned char *tile) {
        const unsigned row = threadIdx.x / 8, column = threadIdx.x % 8;
        const unsigned char *const second = tile + TILE::bm * tile_row_bytes;
#pragma unroll 1
        for (unsigned chunk = 0; chunk < tile_chunks; chunk++) {
            Bytes16 b[8];
#pragma unroll
            for (unsigned j = 0; j < 8; j++)
                b[j] = *reinterpret_cast<const Bytes16 *>(
                    second + swizzled<tile_row_bytes>(column, chunk) + j * 8 * tile_row_bytes);
#pragma unroll
            for (unsigned i = 0; i < 8; i++) {
                const Bytes16 a = *reinterpret_cast<const Bytes16 *>(
                    tile + swizzled<tile_row_bytes>(row, chunk) + i * 16 * tile_row_bytes);
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int j = 0; j < 8; j++)
                        c[i][j] = fma_rn(element(a, k), element(b[j], k), c[i][j]);
            }
        }
    }

    TW_DEVICE void lay_down(float *d) const {
        const int row = (int)threadIdx.x / 8, column = (int)threadIdx.x % 8;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) d[(row + 16 * i) * TILE::ld + column + 8 * j] = c[i][j];
    }
};

// D = A B^T over `tiles` tiles along K, laid down as [bm][ld] at the start of `memory`
// (TILE::shared bytes). The block has passed a barrier afterwards.
template <typename TILE, typename A, typename B>
TW_DEVICE float *multiply_rows(unsigned char *memory, A &a, B &b, int tiles) {
    using Product = std::conditional_t<std::is_same<typename TILE::Math, float>::value,
                                       PlainProduct<TILE>, TensorProduct<TILE>>;
    constexpr int b_tile = TILE::bm * tile_row_bytes;
#pragma unroll 1
    for (int i = 0; i < tile_stages - 1; i++) {
        if (i < tiles) {
            a.fetch(memory + i * TILE::stage_bytes);
            b.fetch(memory + i * TILE::stage_bytes + b_tile);
        }
        copy_async_commit(); // empty ones keep the count
    }
    Product product;
    int from = 0, to = tile_stages - 1;
#pragma unroll 1
    for (int i = 0; i < tiles; i++) {
        copy_async_wait<tile_stages - 2>();
        sync_block(); // tile i is there for everyone, and everyone is done with the one before it
        if (i + tile_stages - 1 < tiles) {
            a.fetch(memory + to * TILE::stage_bytes);
            b.fetch(memory + to * TILE::stage_bytes + b_tile);
        }
        copy_async_commit();
        product.add(memory + from * TILE::stage_bytes);
        from = from == tile_stages - 1 ? 0 : from + 1;
        to = to == tile_stages - 1 ? 0 : to + 1;
    }
    copy_async_wait<0>();
    sync_block();
    float *const d = reinterpret_cast<float *>(memory);
    product.lay_down(d);
    sync_block();
    return d;
}

} // namespace tw
