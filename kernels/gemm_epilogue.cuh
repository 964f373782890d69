// What becomes of a finished tile of sums: y = silu?(scale (sum + bias + vector + residual)),
// rounded to the format, with GroupNorm's statistics of the rounded values. Where a sum is split
// along K, the blocks of a cluster add up their parts first, or each leaves a slice that another
// kernel adds up.
#pragma once

#include "kernels.h"
#include "device/cluster.cuh"
#include "device/math.cuh"
#include "device/vec.cuh"

namespace tw {

struct Epilogue {
    int rows, columns, rows_per_sample;
    const float *bias;
    const void *vector;
    int64_t vector_stride;
    const void *residual;
    float scale;
    int silu;
    void *y;
    int wide;      // rows of y, residual and vector start at multiples of 16 bytes
    float *slices; // [splits, rows, columns], or NULL
    twk_moments *partial;
    int groups, group_columns, rows_per_partial, n_partials;
};

// The threads that share an epilogue: the whole block, or its first COUNT threads, which meet at a
// barrier of their own.
struct WholeBlock {
    static TW_DEVICE int threads() { return (int)blockDim.x; }
    static TW_DEVICE void sync() { sync_block(); }
};
template <int COUNT> struct FirstThreads {
    static TW_DEVICE int threads() { return COUNT; }
    static TW_DEVICE void sync() { sync_group(1, COUNT); }
};

// Which tile of D a block calculates, and which part of its sum: those of one tile's blocks are a
// cluster, or `slice` tells them apart.
struct TilePart {
    int tile, split;
};
TW_DEVICE TilePart tile_part(unsigned slice) {
    return {(int)(blockIdx.x / cluster_size()), (int)(slice + cluster_rank())};
}

// Neighbouring rows of a tile: those that a block finishes.
struct RowShare {
    int first, count;
};

// Of a tile of which every block of the cluster has laid down a part as [BM][LD], a share of the
// rows, first to last rank, in place. All rows where the block is alone. The block has passed a
// barrier, and nobody reads its memory any more.
template <int BM, int BN, int LD> TW_DEVICE RowShare gather_cluster(float *d) {
    const int blocks = (int)cluster_size();
    if (blocks == 1) return {0, BM};
    const RowShare mine = {BM / blocks * (int)cluster_rank(), BM / blocks};
    sync_cluster();
    for (int i = (int)threadIdx.x; i < mine.count * (BN / 4); i += (int)blockDim.x) {
        float *const to = d + (mine.first + i / (BN / 4)) * LD + i % (BN / 4) * 4;
        float sum[4] = {};
#pragma unroll 2
        for (int rank = 0; rank < blocks; rank++) {
            const Bytes16 part = *reinterpret_cast<const Bytes16 *>(cluster_map(to, rank));
#pragma unroll
            for (int e = 0; e < 4; e++) sum[e] += bits_to_float(part.word[e]);
        }
#pragma unroll
        for (int e = 0; e < 4; e++) to[e] = sum[e];
    }
    sync_cluster();
    return mine;
}

// V of a tile's sums. Eight are read as two halves, every fourth lane the other way around, so that
// eight neighbouring lanes read from all banks.
template <int V> TW_DEVICE void read_sums(const float *d, float (&v)[V]) {
    static_assert(V == 4 || V == 8, "16 bytes of a format");
    const unsigned flip = V == 8 ? threadIdx.x >> 2 & 1u : 0u;
    Bytes16 half[V / 4];
#pragma unroll
    for (unsigned i = 0; i < V / 4; i++)
        half[i] = *reinterpret_cast<const Bytes16 *>(d + ((i ^ flip) << 2));
#pragma unroll
    for (int i = 0; i < V; i++)
        v[i] = bits_to_float(flip ? half[V / 4 - 1 - i / 4].word[i % 4] : half[i / 4].word[i % 4]);
}

template <bool WIDE, typename T>
TW_DEVICE void finish_vector(const Epilogue &e, float *d, int row, int column, int count) {
    constexpr int V = per_16<T>;
    const int64_t at = (int64_t)row * e.columns + column;
    float v[V], other[V];
    read_sums(d, v);
    if (e.bias) {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += i < count ? e.bias[column + i] : 0.0f;
    }
    if (e.vector) {
        load<WIDE>(static_cast<const T *>(e.vector) + row / e.rows_per_sample * e.vector_stride +
                       column,
                   count, other);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += other[i];
    }
    if (e.residual) {
        load<WIDE>(static_cast<const T *>(e.residual) + at, count, other);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] += other[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) v[i] *= e.scale;
    if (e.silu) {
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = silu(v[i]);
    }
    store<WIDE>(static_cast<T *>(e.y) + at, count, v);
    if (e.partial) {
#pragma unroll
        for (int i = 0; i < V; i++) d[i] = to_float(from_float<T>(v[i]));
    }
}

// Statistics of a tile's rows: a warp takes one group over rows_per_partial of them at a time. The
// rows of a partial belong to one sample and are all among these, and so are a group's columns.
// parts says which of all partials begins at a row.
template <int BN, int LD, typename PARTS, typename TEAM>
TW_DEVICE void leave_statistics(const Epilogue &e, const float *d, int rows, int column0,
                                const PARTS &parts, TEAM team) {
    const int lane = (int)threadIdx.x % 32, warps = team.threads() / 32;
    const int across = BN / e.group_columns, pieces = rows / e.rows_per_partial * across;
    const int count = e.rows_per_partial * e.group_columns;
    // Lanes side by side in a row of the group, and as many rows as that leaves room for.
    const int beside = smaller(e.group_columns, 32), together = 32 / beside;
    const int first = lane < together * beside ? lane / beside : e.rows_per_partial;
    for (int piece = (int)threadIdx.x / 32; piece < pieces; piece += warps) {
        const int row = piece / across * e.rows_per_partial;
        const int column = piece % across * e.group_columns;
        const int part = parts(row);
        if (part < 0 || column0 + column >= e.columns) continue;
        const float *const from = d + row * LD + column;
        float sum = 0.0f, m2 = 0.0f;
        for (int r = first; r < e.rows_per_partial; r += together)
            for (int c = lane % beside; c < e.group_columns; c += beside) sum += from[r * LD + c];
        const float mean = warp_sum(sum) / (float)count;
        for (int r = first; r < e.rows_per_partial; r += together)
            for (int c = lane % beside; c < e.group_columns; c += beside) {
                const float off = from[r * LD + c] - mean;
                m2 += off * off;
            }
        m2 = warp_sum(m2);
        if (lane) continue;
        const int group = (column0 + column) / e.group_columns;
        e.partial[(int64_t)part * e.groups + group] = twk_moments{mean, m2};
    }
}

// Which row of the result a row of a tile is: the one below its neighbour, as here, or another.
struct RowsBelow {
    int row0, rows;
    TW_DEVICE int operator()(int row) const { return row0 + row < rows ? row0 + row : -1; }
};

// Their partials, or -1.
struct PartsBelow {
    int row0, rows, rows_per_sample, rows_per_partial, n_partials;
    TW_DEVICE PartsBelow(const Epilogue &e, int row0_)
        : row0(row0_), rows(e.rows), rows_per_sample(e.rows_per_sample),
          rows_per_partial(e.rows_per_partial), n_partials(e.n_partials) {}
    TW_DEVICE int operator()(int row) const {
        if (row0 + row >= rows) return -1;
        const int sample = (row0 + row) / rows_per_sample;
        return sample * n_partials + (row0 + row - sample * rows_per_sample) / rows_per_partial;
    }
};

// d is [rows][LD] in shared memory, its first element that of column0 in a row of its own. An
// epilogue E is anything that finish_vector and finish_statistics take.
template <typename T, int BN, int LD, typename E, typename ROWS, typename TEAM = WholeBlock>
TW_DEVICE void finish_rows(const E &e, float *d, int rows, int column0, const ROWS &row_of,
                           TEAM team = {}) {
    constexpr int V = per_16<T>, across = BN / V;
    for (int i = (int)threadIdx.x; i < rows * across; i += team.threads()) {
        const int row = row_of(i / across), column = column0 + i % across * V;
        const int count = smaller(V, e.columns - column);
        if (row < 0 || count <= 0) continue;
        float *const from = d + i / across * LD + i % across * V;
        if (e.wide)
            finish_vector<true, T>(e, from, row, column, count);
        else
            finish_vector<false, T>(e, from, row, column, count);
    }
}

template <int BN, int LD>
TW_DEVICE void finish_statistics(const Epilogue &e, const float *d, int rows, int row0,
                                 int column0) {
    if (!e.partial) return;
    sync_block();
    leave_statistics<BN, LD>(e, d, rows, column0, PartsBelow(e, row0), WholeBlock{});
}

template <typename T, int BN, int LD, typename E>
TW_DEVICE void finish_tile(const E &e, float *d, int rows, int row0, int column0) {
    finish_rows<T, BN, LD>(e, d, rows, column0, RowsBelow{row0, e.rows});
    finish_statistics<BN, LD>(e, d, rows, row0, column0);
}

// The tile as part of slice `split`.
template <int BM, int BN, int LD, typename E, typename ROWS, typename TEAM = WholeBlock>
TW_DEVICE void leave_rows(const E &e, const float *d, int column0, int split, const ROWS &rows,
                          TEAM team = {}) {
    for (int i = (int)threadIdx.x; i < BM * BN; i += team.threads()) {
        const int row = rows(i / BN), column = column0 + i % BN;
        if (row < 0 || column >= e.columns) continue;
        e.slices[((int64_t)split * e.rows + row) * e.columns + column] = d[i / BN * LD + i % BN];
    }
}
template <int BM, int BN, int LD, typename E>
TW_DEVICE void leave_slice(const E &e, const float *d, int row0, int column0, int split) {
    leave_rows<BM, BN, LD>(e, d, column0, split, RowsBelow{row0, e.rows});
}

// The sum of all slices, first to last, laid down like a tile.
template <int BM, int BN, int LD, typename E>
TW_DEVICE void gather_slices(const E &e, float *d, int row0, int column0, int splits) {
    const int64_t slice = (int64_t)e.rows * e.columns;
    for (int i = (int)threadIdx.x; i < BM * BN; i += (int)blockDim.x) {
        const int row = row0 + i / BN, column = column0 + i % BN;
        float sum = 0.0f;
        if (row < e.rows && column < e.columns) {
            const float *const from = e.slices + (int64_t)row * e.columns + column;
            for (int s = 0; s < splits; s++) sum += from[s * slice];
        }
        d[i / BN * LD + i % BN] = sum;
    }
    sync_block();
}

} // namespace tw
