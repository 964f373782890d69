// What the attention kernels share: tiles of tokens in shared memory, their products on the tensor
// cores, and the softmax over a row of scores that come tile by tile.
//
// All of them have one form. A block owns some rows x (queries, or keys in the gradients of k and
// v) and walks over tiles of columns y (the other tokens). Scores s = x y^T become weights w in
// registers, and the sums of w z grow in registers, z being other rows of the same columns:
//
//      forward    x = q   y = k   w = exp(s - largest)                 z = v
//      dq         x = q   y = k   w = p (do v^T - delta), p = exp(s - lse)   z = k
//      dk         x = k   y = q   the same, transposed                       z = q
//      dv         x = k   y = q   w = p                                      z = do
#pragma once

#include "kernels.h"
#include "device/launch.cuh"
#include "device/warp.cuh"
#include "gemm_core.cuh"

namespace tw {

constexpr float log2_e = 1.44269504f;

// Token i of head h of sample n starts at data + n batch + i row + h head_size.
struct AttentionMatrix {
    const void *data;
    int64_t row, batch;
};

// The tokens of one head of one sample.
template <typename T> struct HeadRows {
    const T *data;
    int64_t row;
    TW_DEVICE HeadRows(const AttentionMatrix &m, int64_t sample, int64_t offset)
        : data(static_cast<const T *>(m.data) + sample * m.batch + offset), row(m.row) {}
};

struct AttentionGrid {
    int heads, head_size;
    int tiles, slabs; // parts of the rows and, on the fp32 units, of the channels
};

struct AttentionForward : AttentionGrid {
    AttentionMatrix q, k, v, o;
    int q_tokens, k_tokens;
    float scale, c; // c = scale log2(e)
    float *lse;
};

// What the gradients need of a query: the logarithm to base 2 of the sum of its exponentials, and
// delta = do o. Queries past the last have infinity, so that no probability comes of them, and 0.
struct alignas(8) QueryStats {
    float lse, delta;
};
constexpr int stats_rows = 128; // a head's are padded to a multiple of it

// One gradient, or those of k and v at once, as above. What lies where is said by the launcher.
struct AttentionGradient : AttentionGrid {
    AttentionMatrix x1, x2, y1, y2, z;
    AttentionMatrix out, out2; // out2: of v, where it comes along
    const QueryStats *stats;   // [pair][stats_count]
    int x_tokens, y_tokens, stats_count;
    bool by_column, second; // the columns are the queries; the scores have a second factor
    float c, factor;        // factor: of the gradient at the end
};

// Which of them a block owns: rows from row0 on.
struct BlockPlace {
    int64_t pair, sample, offset; // offset: of the head
    int row0;
    TW_DEVICE BlockPlace(const AttentionGrid &in, int block, int rows)
        : pair(block / in.tiles), sample(pair / in.heads),
          offset((pair - sample * in.heads) * in.head_size), row0(block % in.tiles * rows) {}
    template <typename T> TW_DEVICE HeadRows<T> rows(const AttentionMatrix &m) const {
        return HeadRows<T>(m, sample, offset);
    }
    template <typename T> TW_DEVICE T *output(const AttentionMatrix &m) const {
        return const_cast<T *>(rows<T>(m).data) + row0 * m.row;
    }
};

template <typename MATH> using Stored = typename StorageOf<MATH>::Type;
// What a product takes at once: 32 bytes of a row, or so many weights.
template <typename MATH> constexpr int step_elements = 32 / (int)sizeof(Stored<MATH>);
template <typename MATH> constexpr bool is_tf32 = std::is_same<MATH, tf32>::value;

// A tile of tokens, D elements each: panels side by side, whose rows are 128 (64) bytes and
// swizzled.
template <typename MATH, int D_> struct TokenTile {
    static constexpr int d = D_, size = (int)sizeof(Stored<MATH>);
    static constexpr int row_bytes = d * size % 128 ? 64 : 128, per_panel = row_bytes / size;
    static constexpr int chunks = row_bytes / 16, panels = d / per_panel;
    static constexpr int steps = row_bytes / 32;
    static constexpr int fragments = per_panel / 8; // of D, that is of eight columns
    static constexpr TW_BOTH int bytes(int rows) { return rows * d * size; }
    static TW_DEVICE unsigned at(int rows, int row, int chunk) {
        return (unsigned)(chunk / chunks * rows * row_bytes) +
               swizzled<row_bytes>((unsigned)row, (unsigned)(chunk % chunks));
    }
};

// Starts copying ROWS tokens from row0 on; those past the last, and channels past the last, are 0.
template <typename T, int D, int ROWS, int THREADS>
TW_DEVICE void fetch_tokens(unsigned char *tile, const HeadRows<Stored<T>> &from, int row0,
                            int rows, int channels) {
    constexpr int per = per_16<Stored<T>>, across = D / per, pass = THREADS / across;
    static_assert(ROWS % pass == 0, "whole passes");
    const int chunk = (int)threadIdx.x % across, row = (int)threadIdx.x / across;
    const Stored<T> *at = from.data + (row0 + row) * from.row + chunk * per;
    const int left = chunk * per < channels ? rows - row0 - row : 0;
#pragma unroll
    for (int i = 0; i < ROWS / pass; i++) {
        copy_async_16(tile + TokenTile<T, D>::at(ROWS, row + i * pass, chunk), at,
                      i * pass < left ? 16 : 0);
        at += pass * from.row;
    }
}

// Where in a panel this lane's row lies for load_matrices, step by step of 32 bytes: as rows of A
// (and, transposed, as B from rows along K), and as columns of B; and its two words of B in rows
// along K, which are neighbours (see pack_weights). A step is two chunks, whose number the swizzle
// only flips bits of.
template <int ROW_BYTES> struct LaneRows {
    unsigned a0, b0, word0;
    TW_DEVICE LaneRows() {
        const unsigned lane = threadIdx.x % 32;
        a0 = swizzled<ROW_BYTES>(lane % 16, lane / 16);
        b0 = swizzled<ROW_BYTES>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
        word0 = swizzled<ROW_BYTES>(lane % 4 * 2, lane / 16) + lane / 4 % 4 * 4;
    }
    TW_DEVICE unsigned a(int step) const { return a0 ^ (unsigned)(32 * step); }
    TW_DEVICE unsigned b(int step) const { return b0 ^ (unsigned)(32 * step); }
    TW_DEVICE unsigned word(int step, int row) const {
        static_assert(ROW_BYTES == 64 || ROW_BYTES == 128, "rows as swizzled");
        return ((word0 ^ (unsigned)(16 * row)) + (unsigned)(ROW_BYTES * row)) ^
               (unsigned)(32 * step);
    }
};

template <typename T, int WORDS> TW_DEVICE void round_words(uint32_t (&words)[WORDS]) {
    if constexpr (is_tf32<T>) {
#pragma unroll
        for (int w = 0; w < WORDS; w++) words[w] = to_tf32(words[w]);
    }
}

// Fragments of A: 16 M rows by one step of elements, from one panel.
template <typename T, int ROW_BYTES, int M>
TW_DEVICE void load_rows(FragmentA (&a)[M], const unsigned char *panel, unsigned at) {
#pragma unroll
    for (int i = 0; i < M; i++) {
        load_matrices(a[i].word, panel + i * 16 * ROW_BYTES + at);
        round_words<T>(a[i].word);
    }
}

// Fragments of B: 8 N rows of the panel are its columns.
template <typename T, int ROW_BYTES, int N>
TW_DEVICE void load_columns(FragmentB (&b)[N], const unsigned char *panel, unsigned at) {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
        uint32_t two[4];
        load_matrices(two, panel + j * 8 * ROW_BYTES + at);
        round_words<T>(two);
        b[j] = FragmentB{{two[0], two[1]}};
        b[j + 1] = FragmentB{{two[2], two[3]}};
    }
}

// Fragments of B: rows of the panel are its rows, 8 N elements of them from element 8 `first` on
// its columns.
template <typename T, int N, int ROW_BYTES>
TW_DEVICE void load_turned(FragmentB (&b)[N], const unsigned char *panel,
                           const LaneRows<ROW_BYTES> &at, int first = 0) {
    if constexpr (is_tf32<T>) {
#pragma unroll
        for (int j = 0; j < N; j++) {
#pragma unroll
            for (int w = 0; w < 2; w++)
                b[j].word[w] = *reinterpret_cast<const uint32_t *>(panel + at.word(first + j, w));
            round_words<T>(b[j].word);
        }
    } else {
#pragma unroll
        for (int j = 0; j < N; j += 2) {
            uint32_t two[4];
            load_matrices_transposed(two, panel + at.a((first + j) / 2));
            b[j] = FragmentB{{two[0], two[1]}};
            b[j + 1] = FragmentB{{two[2], two[3]}};
        }
    }
}

// s += x y^T, M fragments of rows by N of columns, from tiles of X_ROWS and Y_ROWS tokens; x starts
// at the warp's first row.
template <typename T, int D, int X_ROWS, int Y_ROWS, int M, int N>
TW_DEVICE void add_scores(FragmentC (&s)[M][N], const unsigned char *x, const unsigned char *y,
                          const LaneRows<TokenTile<T, D>::row_bytes> &at) {
    using Tile = TokenTile<T, D>;
    constexpr int bytes = Tile::row_bytes;
#pragma unroll
    for (int k = 0; k < D / step_elements<T>; k++) {
        FragmentA a[M];
        FragmentB b[N];
        load_rows<T, bytes>(a, x + k / Tile::steps * X_ROWS * bytes, at.a(k % Tile::steps));
        load_columns<T, bytes>(b, y + k / Tile::steps * Y_ROWS * bytes, at.b(k % Tile::steps));
        multiply_tile<T>(s, a, b);
    }
}

// The sums of a warp over all channels, panel by panel.
template <typename T, int D, int M>
using TokenSums = FragmentC[TokenTile<T, D>::panels][M][TokenTile<T, D>::fragments];

// sums += w z for the weights of a step, which are as many rows of z; it has Z_ROWS.
template <typename T, int D, int Z_ROWS, int M>
TW_DEVICE void add_weighted(TokenSums<T, D, M> &sums, const FragmentA (&w)[M],
                            const unsigned char *z,
                            const LaneRows<TokenTile<T, D>::row_bytes> &at) {
    using Tile = TokenTile<T, D>;
#pragma unroll
    for (int p = 0; p < Tile::panels; p++) {
        FragmentB b[Tile::fragments];
        load_turned<T>(b, z + p * Z_ROWS * Tile::row_bytes, at);
        multiply_tile<T>(sums[p], w, b);
    }
}

// Weights of a step's neighbouring columns, rounded. In 16 bits, what a lane holds of D in two
// neighbouring fragments is what it must bring of A. In tf32 it holds columns 2 t and 2 t + 1 and
// must bring columns t and t + 4: the columns are taken in that order, and so are the rows of z.
template <typename T, int M, int N>
TW_DEVICE void pack_weights(FragmentA (&a)[M], const FragmentC (&w)[M][N], int block) {
#pragma unroll
    for (int i = 0; i < M; i++) {
        if constexpr (is_tf32<T>) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                a[i].word[e % 2 * 2 + e / 2] = float_to_bits(w[i][block].c[e]);
            round_words<T>(a[i].word);
            continue;
        } else {
            const float *const left = w[i][2 * block].c, *const right = w[i][2 * block + 1].c;
            a[i].word[0] = pack_pair(T{}, left[0], left[1]);
            a[i].word[1] = pack_pair(T{}, left[2], left[3]);
            a[i].word[2] = pack_pair(T{}, right[0], right[1]);
            a[i].word[3] = pack_pair(T{}, right[2], right[3]);
        }
    }
}

// Over the four lanes that share a row of D.
TW_DEVICE float quad_max(float v) {
    v = fmaxf(v, shuffle_xor(full_warp, v, 1));
    return fmaxf(v, shuffle_xor(full_warp, v, 2));
}
TW_DEVICE float quad_sum(float v) {
    v += shuffle_xor(full_warp, v, 1);
    return v + shuffle_xor(full_warp, v, 2);
}

// What a row's exponentials are taken relative to follows its largest score only when that has
// grown by a factor of 2^8: sums that are seldom rescaled cost less, and weights of up to 2^8
// instead of 1 hurt no format. The factors of what has been summed; false where all of this warp's
// are 1.
template <int M>
TW_DEVICE bool follow(const float (&largest)[M][2], float c, float (&reference)[M][2],
                      float (&factor)[M][2]) {
    bool moved = false;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float before = reference[i][h];
            const bool far = (largest[i][h] - before) * c > 8.0f;
            factor[i][h] = far ? exp2_fast((before - largest[i][h]) * c) : 1.0f;
            reference[i][h] = far ? largest[i][h] : before;
            moved = moved || far;
        }
    return ballot(full_warp, moved) != 0;
}

// Rows g and g + 8 of neighbouring fragments.
template <int N> TW_DEVICE void scale_rows(FragmentC (&d)[N], const float (&factor)[2]) {
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) d[j].c[e] *= factor[e / 2];
}

// Scores of columns from `count` on do not count.
template <int M, int N> TW_DEVICE void mask_columns(FragmentC (&s)[M][N], int count) {
    const int first = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 2; e++)
            if (8 * j + first + e >= count) {
#pragma unroll
                for (int i = 0; i < M; i++) s[i][j].c[e] = s[i][j].c[2 + e] = -INFINITY;
            }
}

// The largest of this warp's scores in each of a lane's rows: g and g + 8 of every fragment.
template <int M, int N>
TW_DEVICE void largest_scores(const FragmentC (&s)[M][N], float (&largest)[M][2]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v = s[i][0].c[2 * h];
#pragma unroll
            for (int j = 0; j < N; j++) v = fmaxf(v, fmaxf(s[i][j].c[2 * h], s[i][j].c[2 * h + 1]));
            largest[i][h] = quad_max(v);
        }
}

// s = 2^(c (s - reference)), added to this lane's share of the rows' sums.
template <int M, int N>
TW_DEVICE void exponentials(FragmentC (&s)[M][N], const float (&reference)[M][2], float c,
                            float (&sum)[M][2]) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float zero = reference[i][h] * c;
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; e++) {
                    s[i][j].c[e] = exp2_fast(fma_rn(s[i][j].c[e], c, -zero));
                    sum[i][h] += s[i][j].c[e];
                }
        }
}

// Lays rounded sums, each row times its factor, down in a panel: 8 N columns of it from 8 `first`
// on.
template <typename T, int ROW_BYTES, int M, int N>
TW_DEVICE void lay_down(unsigned char *panel, int first, const FragmentC (&d)[M][N],
                        const float (&factor)[M][2]) {
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int j = 0; j < N; j++) {
                const unsigned row = (unsigned)(16 * i + 8 * h + g), column = (unsigned)(first + j);
                const float left = d[i][j].c[2 * h] * factor[i][h];
                const float right = d[i][j].c[2 * h + 1] * factor[i][h];
                if constexpr (is_tf32<T>) {
                    float *const to = reinterpret_cast<float *>(
                        panel + swizzled<ROW_BYTES>(row, 2 * column + (unsigned)t / 2) + t % 2 * 8);
                    to[0] = left;
                    to[1] = right;
                } else {
                    *reinterpret_cast<uint32_t *>(panel + swizzled<ROW_BYTES>(row, column) +
                                                  4 * t) = pack_pair(T{}, left, right);
                }
            }
}

// Writes ROWS tokens of a tile that has TILE_ROWS, by `threads` threads of which this is number
// `thread`; `rows` of them exist.
template <typename T, int D, int ROWS, int TILE_ROWS>
TW_DEVICE void write_tokens(Stored<T> *to, int64_t stride, const unsigned char *tile, int rows,
                            int channels, int thread, int threads) {
    constexpr int per = per_16<Stored<T>>, across = D / per;
    for (int i = thread; i < ROWS * across; i += threads) {
        const int row = i / across, chunk = i % across;
        if (row >= rows || chunk * per >= channels) continue;
        write_16(
            to + row * stride + chunk * per,
            *reinterpret_cast<const Bytes16 *>(tile + TokenTile<T, D>::at(TILE_ROWS, row, chunk)));
    }
}

// Writes a warp's rows, each times its factor, through its part of a tile of TILE_ROWS.
template <typename T, int D, int TILE_ROWS, int M>
TW_DEVICE void leave_sums(Stored<T> *to, int64_t stride, unsigned char *tile,
                          const TokenSums<T, D, M> &sums, const float (&factor)[M][2], int rows,
                          int channels) {
    constexpr int bytes = TokenTile<T, D>::row_bytes;
    sync_warp(full_warp); // the other lanes are done with what was there
#pragma unroll
    for (int p = 0; p < TokenTile<T, D>::panels; p++)
        lay_down<T, bytes>(tile + p * TILE_ROWS * bytes, 0, sums[p], factor);
    sync_warp(full_warp);
    write_tokens<T, D, 16 * M, TILE_ROWS>(to, stride, tile, rows, channels, (int)threadIdx.x % 32,
                                          32);
}

// Calls f(i, j, e, stats) for every score of a warp and its query's stats, those of the warp's
// first row or column being the first.
template <bool BY_COLUMN, int M, int N, typename F>
TW_DEVICE void for_each_score(const QueryStats *stats, const F &f) {
    const int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                f(i, j, e,
                  stats[BY_COLUMN ? 8 * j + lane % 4 * 2 + e % 2 : 16 * i + e / 2 * 8 + lane / 4]);
}

// Scores to probabilities.
template <bool BY_COLUMN, int M, int N>
TW_DEVICE void probabilities(FragmentC (&s)[M][N], const QueryStats *stats, float c) {
    for_each_score<BY_COLUMN, M, N>(stats, [&](int i, int j, int e, const QueryStats &of) {
        s[i][j].c[e] = exp2_fast(fma_rn(s[i][j].c[e], c, -of.lse));
    });
}
// Probabilities to gradients of the scores, dp being do v^T.
template <bool BY_COLUMN, int M, int N>
TW_DEVICE void score_gradients(FragmentC (&p)[M][N], const FragmentC (&dp)[M][N],
                               const QueryStats *stats) {
    for_each_score<BY_COLUMN, M, N>(stats, [&](int i, int j, int e, const QueryStats &of) {
        p[i][j].c[e] *= dp[i][j].c[e] - of.delta;
    });
}

// ---- launchers ----------------------------------------------------------------------------------

// What forward and backward ask of their arguments alike.
twk_status check_attention(const twk_attention_args &a);
// Whether rows may be read and written 16 bytes at a time.
bool aligned_attention(const twk_attention_args &a);
// Attention on the fp32 units, of batch * heads `pairs`.
twk_status launch_plain_attention(const AttentionForward &in, twk_format format, int64_t pairs,
                                  twk_stream stream);
twk_status launch_plain_gradient(const AttentionGradient &in, twk_format format, int64_t pairs,
                                 twk_stream stream);
// Whether the rows of every sample keep clear of each other, `width` elements each.
bool rows_apart(int64_t batch, int64_t tokens, int64_t width, int64_t row, int64_t sample);

// Blocks of `rows` rows each of every head.
template <typename IN>
twk_status attention_config(IN *in, int64_t pairs, int tokens, int rows, int threads, size_t shared,
                            twk_stream stream, LaunchConfig *config) {
    in->tiles = ceil_div(tokens, rows);
    if (!grid_for(pairs * in->tiles, 1, &config->grid) ||
        (in->slabs > 1 && !grid_for(pairs * in->tiles * in->slabs, 1, &config->grid)))
        return fail(TWK_UNSUPPORTED, "attention: more tiles than a grid can hold");
    config->block = dim3((unsigned)threads);
    config->shared = shared;
    config->stream = stream;
    if (shared > device_limits().shared)
        return fail(TWK_UNSUPPORTED, "attention: the device has too little shared memory");
    return TWK_OK;
}

inline float scale_of(const twk_attention_args &a) {
    return a.scale != 0.0f ? a.scale : 1.0f / sqrtf((float)a.head_size);
}

} // namespace tw
