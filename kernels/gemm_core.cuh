// The product of two tiles that every matrix kernel is built on: D (BM x BN) += A (BM x K) B (BN x
// K)^T, A and B brought piece by piece along K through a pipeline of shared-memory tiles (K = 32 in
// bf16 and fp16, 16 in fp32), D kept in registers and laid down in shared memory at the end.
//
//      global --cp.async--> [tile 0][tile 1][tile 2][tile 3] --ldmatrix--> fragments --mma--> D
//                            copies run three tiles ahead; one barrier a tile
//
// Each operand lies in memory, and in its tile, in one of two forms:
//   rows      K runs fastest: the tile is BM (or BN) rows of 64 bytes; ldmatrix gives fragments
//   columns   K runs slowest: the tile is K rows of BM (or BN) elements; ldmatrix turns 16-bit
//             elements around, 32-bit ones are read word by word
// What brings them is a class of the kernel's with fetch(tile): start copying the next tile.
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

enum class Form { rows, columns };

// A thread's part of the copies of a tile of rows: the same chunk of every 32nd row. (8 rows shift
// a swizzled tile unchanged.)
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

// Byte offset of a chunk in a tile of columns, COUNT of them in storage T; how it is read decides.
template <typename T, int COUNT>
constexpr TW_BOTH unsigned column_chunk(unsigned row, unsigned chunk) {
    constexpr int row_bytes = COUNT * (int)sizeof(T);
    if constexpr (sizeof(T) == 4)
        return swizzled_words<row_bytes>(row, chunk);
    else
        return swizzled<row_bytes>(row, chunk);
}

// The same where a warpgroup reads the tile: 64 columns of every k in a line of their own.
template <int DEPTH> constexpr TW_BOTH unsigned line_chunk(unsigned row, unsigned chunk) {
    return chunk / 8 * (DEPTH * 128) + swizzled<128>(row, chunk % 8);
}

// A thread's part of the copies of a tile of columns: the same chunk of every `pass`-th row along
// K. Where the tile is narrow some threads have none.
template <typename T, int COUNT, bool LINES = false> struct ColumnSlot {
    static constexpr int row_bytes = COUNT * (int)sizeof(T), chunks = row_bytes / 16;
    static constexpr int depth = tile_row_bytes / (int)sizeof(T);
    static constexpr int pass = smaller(tile_threads / chunks, depth), passes = depth / pass;
    static_assert(pass % (sizeof(T) == 4 ? 4 : 8) == 0, "passes shift a swizzled tile unchanged");
    static_assert(!LINES || (sizeof(T) == 2 && COUNT % 64 == 0), "whole lines of 16-bit elements");
    static constexpr int step = pass * (LINES ? 128 : row_bytes);
    int row, chunk;
    unsigned at;
    TW_DEVICE ColumnSlot()
        : row((int)threadIdx.x / chunks), chunk((int)threadIdx.x % chunks),
          at(LINES ? line_chunk<depth>((unsigned)row, (unsigned)chunk)
                   : column_chunk<T, COUNT>((unsigned)row, (unsigned)chunk)) {}
    TW_DEVICE bool used() const { return pass * chunks == tile_threads || row < pass; }
    TW_DEVICE int column() const { return chunk * per_16<T>; }
    TW_DEVICE unsigned offset(int i) const { return at + (unsigned)(i * step); }
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
    static constexpr bool warpgroup = false, built = true;
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

// The fragments of a warp, from row `first` of A or B on, in the two steps along K. `at` is where
// this lane reads for the first of them.
template <typename TILE, Form FORM> struct FragmentsA {
    unsigned at[2];
    TW_DEVICE explicit FragmentsA(int first) {
        const unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (unsigned step = 0; step < 2; step++)
            at[step] = (unsigned)first * tile_row_bytes +
                       swizzled<tile_row_bytes>(lane % 16, 2 * step + lane / 16);
    }
    template <int N>
    TW_DEVICE void load(const unsigned char *tile, int step, FragmentA (&a)[N]) const {
#pragma unroll
        for (int i = 0; i < N; i++)
            load_matrices(a[i].word, tile + at[step] + i * 16 * tile_row_bytes);
    }
};
template <typename TILE, Form FORM> struct FragmentsB {
    unsigned at[2];
    TW_DEVICE explicit FragmentsB(int first) {
        const unsigned lane = threadIdx.x % 32;
#pragma unroll
        for (unsigned step = 0; step < 2; step++)
            at[step] = (unsigned)first * tile_row_bytes +
                       swizzled<tile_row_bytes>(lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2);
    }
    template <int N>
    TW_DEVICE void load(const unsigned char *tile, int step, FragmentB (&b)[N]) const {
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            uint32_t two[4];
            load_matrices(two, tile + at[step] + j * 8 * tile_row_bytes);
            b[j] = FragmentB{{two[0], two[1]}};
            b[j + 1] = FragmentB{{two[2], two[3]}};
        }
    }
};

// In columns a warp's fragments are neighbouring chunks of the same rows. Their number is a power
// of two and the first's a multiple of it, so that exclusive or leads from one to the next through
// the permutation.
template <typename TILE> struct FragmentsA<TILE, Form::columns> {
    using T = typename TILE::Storage;
    static constexpr int row_bytes = TILE::bm * (int)sizeof(T);
    unsigned at;
    TW_DEVICE explicit FragmentsA(int first) {
        const unsigned lane = threadIdx.x % 32, chunk = (unsigned)(first / per_16<T>);
        if constexpr (sizeof(T) == 4)
            at = column_chunk<T, TILE::bm>(lane % 4, chunk + lane / 16) + lane / 4 % 4 * 4;
        else
            at = column_chunk<T, TILE::bm>(lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2);
    }
    template <int N>
    TW_DEVICE void load(const unsigned char *tile, int step, FragmentA (&a)[N]) const {
#pragma unroll
        for (int i = 0; i < N; i++) {
            if constexpr (sizeof(T) == 4) {
#pragma unroll
                for (int w = 0; w < 4; w++) // row + 8 (w % 2), k + 4 (w / 2)
                    a[i].word[w] = *reinterpret_cast<const uint32_t *>(
                        tile + (at ^ (unsigned)(4 * i + 2 * (w % 2)) * 16) +
                        (8 * step + w / 2 * 4) * row_bytes);
            } else {
                load_matrices_transposed(a[i].word,
                                         tile + (at ^ (unsigned)i * 32) + step * 16 * row_bytes);
            }
        }
    }
};
template <typename TILE> struct FragmentsB<TILE, Form::columns> {
    using T = typename TILE::Storage;
    static constexpr int row_bytes = TILE::bn * (int)sizeof(T);
    unsigned at;
    TW_DEVICE explicit FragmentsB(int first) {
        const unsigned lane = threadIdx.x % 32, chunk = (unsigned)(first / per_16<T>);
        if constexpr (sizeof(T) == 4)
            at = column_chunk<T, TILE::bn>(lane % 4, chunk + lane / 16) + lane / 4 % 4 * 4;
        else
            at = column_chunk<T, TILE::bn>(lane % 16, chunk + lane / 16);
    }
    template <int N>
    TW_DEVICE void load(const unsigned char *tile, int step, FragmentB (&b)[N]) const {
        if constexpr (sizeof(T) == 4) {
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int w = 0; w < 2; w++)
                    b[j].word[w] = *reinterpret_cast<const uint32_t *>(
                        tile + (at ^ (unsigned)j * 32) + (8 * step + 4 * w) * row_bytes);
        } else {
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                uint32_t two[4];
                load_matrices_transposed(two,
                                         tile + (at ^ (unsigned)j * 16) + step * 16 * row_bytes);
                b[j] = FragmentB{{two[0], two[1]}};
                b[j + 1] = FragmentB{{two[2], two[3]}};
            }
        }
    }
};

// D of a warp on the tensor cores.
template <typename TILE, Form A_FORM, Form B_FORM> struct TensorProduct {
    static constexpr int m = TILE::warp_m / 16, n = TILE::warp_n / 8;
    static_assert(n % 2 == 0, "columns are loaded in pairs of fragments");
    FragmentC c[m][n] = {};
    FragmentsA<TILE, A_FORM> from_a{TILE::warp_row()};
    FragmentsB<TILE, B_FORM> from_b{TILE::warp_column()};

    TW_DEVICE void add(const unsigned char *tile) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            FragmentA a[m];
            FragmentB b[n];
            from_a.load(tile, step, a);
            from_b.load(tile + TILE::bm * tile_row_bytes, step, b);
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

// Eight of a thread's rows of A or of B in fp32, over a chunk of four k. COUNT rows are dealt out
// to COUNT / 8 threads: every COUNT / 8-th row to each, in columns two chunks of four.
template <Form FORM, int COUNT> struct PlainRows {
    static constexpr int apart = COUNT / 8;
    Bytes16 v[8];
    TW_DEVICE void load(const unsigned char *tile, unsigned first, unsigned chunk) {
        const unsigned at = swizzled<tile_row_bytes>(first, chunk);
#pragma unroll
        for (int i = 0; i < 8; i++)
            v[i] = *reinterpret_cast<const Bytes16 *>(tile + at + i * apart * tile_row_bytes);
    }
    TW_DEVICE float at(int i, int k) const {
        return bits_to_float(v[i].word[k]);
    }
    static TW_DEVICE int row(int first, int i) {
        return first + apart * i;
    }
};
template <int COUNT> struct PlainRows<Form::columns, COUNT> {
    static constexpr int apart = COUNT / 8;
    Bytes16 v[8];
    TW_DEVICE void load(const unsigned char *tile, unsigned first, unsigned chunk) {
#pragma unroll
        for (unsigned i = 0; i < 8; i++)
            v[i] = *reinterpret_cast<const Bytes16 *>(
                tile + chunk * (4 * COUNT * 4) +
                column_chunk<float, COUNT>(i / 2, first + i % 2 * apart));
    }
    TW_DEVICE float at(int i, int k) const {
        return bits_to_float(v[2 * k + i / 4].word[i % 4]);
    }
    static TW_DEVICE int row(int first, int i) {
        return 4 * (first + i / 4 * apart) + i % 4;
    }
};

// D of a thread in fp32: 8 x 8 elements, so chosen that the lanes of a quarter warp read one row of
// A and eight neighbouring rows (or chunks) of B. k ascends in every sum.
template <typename TILE, Form A_FORM, Form B_FORM> struct PlainProduct {
    static_assert(TILE::bm == 128 && TILE::bn == 64, "128 threads with 8 x 8 elements each");
    using A = PlainRows<A_FORM, TILE::bm>;
    using B = PlainRows<B_FORM, TILE::bn>;
    float c[8][8] = {};

    TW_DEVICE void add(const unsigned char *tile) {
#pragma unroll 1
        for (unsigned chunk = 0; chunk < tile_chunks; chunk++) {
            A a;
            B b;
            a.load(tile, threadIdx.x / 8, chunk);
            b.load(tile + TILE::bm * tile_row_bytes, threadIdx.x % 8, chunk);
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int j = 0; j < 8; j++) c[i][j] = fma_rn(a.at(i, k), b.at(j, k), c[i][j]);
        }
    }

    TW_DEVICE void lay_down(float *d) const {
        const int row = (int)threadIdx.x / 8, column = (int)threadIdx.x % 8;
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) d[A::row(row, i) * TILE::ld + B::row(column, j)] = c[i][j];
    }
};

struct Unseen {
    TW_DEVICE void operator()(const unsigned char *) const {}
};

// D = A B^T over `tiles` tiles along K, laid down as [bm][ld] at the start of `memory`
// (TILE::shared bytes). The block has passed a barrier afterwards. `look` is shown every tile (A's
// first) when it is there.
template <typename TILE, Form A_FORM = Form::rows, Form B_FORM = Form::rows, typename A, typename B,
          typename LOOK = Unseen>
TW_DEVICE float *multiply_rows(unsigned char *memory, A &a, B &b, int tiles, LOOK &&look = {}) {
    using Product =
        std::conditional_t<std::is_same<typename TILE::Math, float>::value,
                           PlainProduct<TILE, A_FORM, B_FORM>, TensorProduct<TILE, A_FORM, B_FORM>>;
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
        look(memory + from * TILE::stage_bytes);
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
