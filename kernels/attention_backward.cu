// Attention backward. dq in one kernel, dk and dv in another (wide heads: in two), so that every
// gradient is summed by one block in one order.
#include "attention_wide.cuh"

#include <initializer_list>

namespace tw {
namespace {

constexpr int stats_threads = 256, stats_elements = 8;

// Work: `lanes` threads a query of a head, 8 elements of its row of o and do each at a time.
// Limit: memory, do and o once.
template <typename T, bool WIDE>
__global__ void __launch_bounds__(stats_threads)
    attention_stats_kernel(const AttentionForward in, const AttentionMatrix d_o, int64_t count,
                           int stats_count, int lanes, QueryStats *stats) {
    const int64_t index = (int64_t)blockIdx.x * stats_threads + threadIdx.x;
    const int64_t row = index / lanes, pair = quotient(row, stats_count);
    const int lane = (int)(index % lanes), query = (int)(row - pair * stats_count);
    const bool there = row < count && query < in.q_tokens;
    float sum = 0.0f;
    if (there) {
        const int64_t sample = quotient(pair, in.heads);
        const int64_t offset = (pair - sample * in.heads) * in.head_size;
        const HeadRows<T> o(in.o, sample, offset), d(d_o, sample, offset);
        for (int c = lane * stats_elements; c < in.head_size; c += lanes * stats_elements) {
            float a[stats_elements], b[stats_elements];
            const int left = smaller(stats_elements, in.head_size - c);
            load<WIDE>(o.data + query * o.row + c, left, a);
            load<WIDE>(d.data + query * d.row + c, left, b);
#pragma unroll
            for (int i = 0; i < stats_elements; i++) sum = fma_rn(a[i], b[i], sum);
        }
    }
    for (unsigned s = (unsigned)lanes / 2; s > 0; s /= 2) sum += shuffle_xor(full_warp, sum, s);
    if (row < count && lane == 0)
        stats[row] = there ? QueryStats{in.lse[pair * in.q_tokens + query] * log2_e, sum}
                           : QueryStats{INFINITY, 0.0f};
}

// Four warps with 16 M rows each.
constexpr int narrow_threads = 128;
template <typename T, int D> constexpr int narrow_columns = is_tf32<T> &&D == 128 ? 16 : 32;
template <int D, bool KEYS> constexpr int narrow_m = D == 32 || (D == 64 && !KEYS) ? 2 : 1;
template <int D, bool KEYS> constexpr int narrow_rows = 64 * narrow_m<D, KEYS>;

// Writes a warp's rows of a gradient, where it is wanted, through its part of a tile of ROWS.
template <typename T, int D, int ROWS, int M>
TW_DEVICE void leave_gradient(const AttentionMatrix &out, const BlockPlace &place, int warp_row,
                              unsigned char *tile, const TokenSums<T, D, M> &sums, float scale,
                              const AttentionGradient &in) {
    if (!out.data) return;
    float factor[M][2];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) factor[i / 2][i % 2] = scale;
    leave_sums<T, D, ROWS>(place.output<Stored<T>>(out) + warp_row * out.row, out.row, tile, sums,
                           factor, in.x_tokens - place.row0 - warp_row, in.head_size);
}

// Work: a block of four warps owns 128 (64) rows of one head, queries for dq or keys for dk and dv,
// and walks over tiles of 32 of the others, the next of which is copied meanwhile. Probabilities
// and gradients of the scores stay in registers. Limit: the tensor cores through mma.sync and
// shared memory alike (a warp reads 2 KB for 16384 multiply-adds of the scores).
template <typename T, int D, bool KEYS>
__global__ void __launch_bounds__(narrow_threads, 2)
    attention_narrow_gradient_kernel(const AttentionGradient in) {
    constexpr int M = narrow_m<D, KEYS>, BM = narrow_rows<D, KEYS>, BN = narrow_columns<T, D>,
                  N = BN / 8;
    constexpr int bytes = TokenTile<T, D>::row_bytes, tile_bytes = TokenTile<T, D>::bytes(BN);
    TW_SHARED(arena);
    unsigned char *const x1 = arena.take<unsigned char>(TokenTile<T, D>::bytes(BM));
    unsigned char *const x2 = arena.take<unsigned char>(TokenTile<T, D>::bytes(BM));
    unsigned char *const y1_tiles = arena.take<unsigned char>(2 * tile_bytes);
    unsigned char *const y2_tiles = arena.take<unsigned char>(2 * tile_bytes);
    QueryStats *const stats = arena.take<QueryStats>(KEYS ? 2 * BN : BM);
    const BlockPlace place(in, (int)blockIdx.x, BM);
    const int warp_row = (int)threadIdx.x / 32 * 16 * M, first_row = place.row0 + warp_row;
    const HeadRows<Stored<T>> y1 = place.rows<Stored<T>>(in.y1), y2 = place.rows<Stored<T>>(in.y2);
    const QueryStats *const of_queries = in.stats + place.pair * in.stats_count;
    const auto fetch = [&](int j) {
        const int at = j % 2 * tile_bytes;
        fetch_tokens<T, D, BN, narrow_threads>(y1_tiles + at, y1, j * BN, in.y_tokens,
                                               in.head_size);
        fetch_tokens<T, D, BN, narrow_threads>(y2_tiles + at, y2, j * BN, in.y_tokens,
                                               in.head_size);
        if (KEYS && threadIdx.x < BN)
            copy_async_8(stats + j % 2 * BN + threadIdx.x, of_queries + j * BN + threadIdx.x);
        copy_async_commit();
    };
    fetch_tokens<T, D, BM, narrow_threads>(x1, place.rows<Stored<T>>(in.x1), place.row0,
                                           in.x_tokens, in.head_size);
    fetch_tokens<T, D, BM, narrow_threads>(x2, place.rows<Stored<T>>(in.x2), place.row0,
                                           in.x_tokens, in.head_size);
    if (!KEYS && threadIdx.x < BM)
        copy_async_8(stats + threadIdx.x, of_queries + place.row0 + threadIdx.x);
    fetch(0);
    const LaneRows<bytes> at;
    TokenSums<T, D, M> sums = {}, sums2 = {};
    const int tiles = ceil_div(in.y_tokens, BN);
#pragma unroll 1
    for (int j = 0; j < tiles; j++) {
        copy_async_wait<0>();
        sync_block(); // tile j is there, and everyone is done with the one before it
        if (j + 1 < tiles) fetch(j + 1);
        if (first_row >= in.x_tokens) continue;
        const unsigned char *const one = y1_tiles + j % 2 * tile_bytes;
        const unsigned char *const two = y2_tiles + j % 2 * tile_bytes;
        const QueryStats *const of = stats + (KEYS ? j % 2 * BN : warp_row);
        FragmentC p[M][N] = {}, dp[M][N] = {};
        add_scores<T, D, BM, BN>(p, x1 + warp_row * bytes, one, at);
        if (!KEYS && in.y_tokens - j * BN < BN) mask_columns(p, in.y_tokens - j * BN);
        probabilities<KEYS>(p, of, in.c);
        constexpr int steps = BN / step_elements<T>;
        FragmentA w[steps][M];
        if (KEYS) {
#pragma unroll
            for (int b = 0; b < steps; b++) {
                pack_weights<T>(w[b], p, b);
                add_weighted<T, D, BN>(sums2, w[b], two + b * step_elements<T> * bytes, at);
            }
        }
        add_scores<T, D, BM, BN>(dp, x2 + warp_row * bytes, two, at);
        score_gradients<KEYS>(p, dp, of);
#pragma unroll
        for (int b = 0; b < steps; b++) {
            pack_weights<T>(w[b], p, b);
            add_weighted<T, D, BN>(sums, w[b], one + b * step_elements<T> * bytes, at);
        }
    }
    if (first_row >= in.x_tokens) return;
    leave_gradient<T, D, BM>(in.out, place, warp_row, x1 + warp_row * bytes, sums, in.factor, in);
    if constexpr (KEYS)
        leave_gradient<T, D, BM>(in.out2, place, warp_row, x2 + warp_row * bytes, sums2, 1.0f, in);
}

// Work: a block of four warps owns 64 (32) rows of one head and one of its gradients; SECOND: of q
// or k, else of v. See attention_wide.cuh. Limit: the tensor cores through mma.sync, and L2, which
// gives a block 32 (16) multiply-adds a byte.
template <typename T, typename WIDE, bool BY_COLUMN, bool SECOND>
__global__ void __launch_bounds__(WIDE::threads, WIDE::blocks)
    attention_wide_gradient_kernel(const AttentionGradient in) {
    constexpr int SM = WIDE::s_m, SN = WIDE::s_n;
    TW_SHARED(arena);
    unsigned char *const x1 = arena.take<unsigned char>(WIDE::tile_bytes);
    unsigned char *const x2 = arena.take<unsigned char>(SECOND ? WIDE::tile_bytes : 0);
    unsigned char *const stages = arena.take<unsigned char>(WIDE::stages * WIDE::stage_bytes);
    unsigned char *const slices = arena.take<unsigned char>(2 * WIDE::slice_bytes);
    QueryStats *const stats = arena.take<QueryStats>(BY_COLUMN ? WIDE::bn : WIDE::bm);
    const BlockPlace place(in, (int)blockIdx.x, WIDE::bm);
    const QueryStats *const of_queries = in.stats + place.pair * in.stats_count;
    WideRing<T, WIDE> ring(stages, place.rows<Stored<T>>(in.y1), place.rows<Stored<T>>(in.y2),
                           place.rows<Stored<T>>(in.z), SECOND, in.y_tokens, in.head_size);
    fetch_tokens<T, WIDE::d, WIDE::bm, WIDE::threads>(x1, place.rows<Stored<T>>(in.x1), place.row0,
                                                      in.x_tokens, in.head_size);
    if (SECOND)
        fetch_tokens<T, WIDE::d, WIDE::bm, WIDE::threads>(x2, place.rows<Stored<T>>(in.x2),
                                                          place.row0, in.x_tokens, in.head_size);
    if (!BY_COLUMN && threadIdx.x < WIDE::bm)
        copy_async_8(stats + threadIdx.x, of_queries + place.row0 + threadIdx.x);
    ring.start();
    const LaneRows<128> at;
    const QueryStats *const of = stats + (BY_COLUMN ? WIDE::s_column() : WIDE::s_row());
    WideSums<WIDE> sums = {};
#pragma unroll 1
    for (int first = 0; first < in.y_tokens; first += WIDE::bn) {
        // They come with a stage that is fetched now and used two stages on, before the last panel.
        if (BY_COLUMN && threadIdx.x < WIDE::bn)
            copy_async_8(stats + threadIdx.x, of_queries + first + threadIdx.x);
        FragmentC p[SM][SN] = {};
        add_wide_scores(p, x1, ring, at);
        if (!BY_COLUMN && in.y_tokens - first < WIDE::bn)
            mask_columns(p, in.y_tokens - first - WIDE::s_column());
        probabilities<BY_COLUMN>(p, of, in.c);
        if (SECOND) {
            FragmentC dp[SM][SN] = {};
            add_wide_scores(dp, x2, ring, at);
            score_gradients<BY_COLUMN>(p, dp, of);
        }
        add_wide_weighted(sums, p, first, slices, ring, at);
    }
    float factor[WIDE::o_m][2];
#pragma unroll
    for (int i = 0; i < 2 * WIDE::o_m; i++) factor[i / 2][i % 2] = in.factor;
    leave_wide<T, WIDE>(place.output<Stored<T>>(in.out), in.out.row, x1, sums, factor,
                        in.x_tokens - place.row0, in.head_size);
}

template <typename T, int D, bool KEYS>
twk_status launch_narrow(AttentionGradient in, int64_t pairs, twk_stream stream) {
    constexpr int rows = narrow_rows<D, KEYS>;
    LaunchConfig config;
    const size_t shared = TokenTile<T, D>::bytes(2 * rows + 4 * narrow_columns<T, D>) +
                          shared_bytes<QueryStats>(KEYS ? 2 * narrow_columns<T, D> : rows);
    const twk_status status =
        attention_config(&in, pairs, in.x_tokens, rows, narrow_threads, shared, stream, &config);
    if (status != TWK_OK) return status;
    return TW_LAUNCH((attention_narrow_gradient_kernel<T, D, KEYS>), config, in);
}
template <typename T, int D>
twk_status launch_narrow(const AttentionGradient &in, int64_t pairs, twk_stream stream) {
    return in.by_column ? launch_narrow<T, D, true>(in, pairs, stream)
                        : launch_narrow<T, D, false>(in, pairs, stream);
}

template <typename T, typename WIDE>
twk_status launch_wide(AttentionGradient in, int64_t pairs, twk_stream stream) {
    LaunchConfig config;
    const size_t shared = (in.second ? 2 : 1) * (size_t)WIDE::tile_bytes +
                          WIDE::stages * WIDE::stage_bytes + 2 * WIDE::slice_bytes +
                          shared_bytes<QueryStats>(in.by_column ? WIDE::bn : WIDE::bm);
    const twk_status status =
        attention_config(&in, pairs, in.x_tokens, WIDE::bm, WIDE::threads, shared, stream, &config);
    if (status != TWK_OK) return status;
    if (!in.by_column)
        return TW_LAUNCH((attention_wide_gradient_kernel<T, WIDE, false, true>), config, in);
    return in.second ? TW_LAUNCH((attention_wide_gradient_kernel<T, WIDE, true, true>), config, in)
                     : TW_LAUNCH((attention_wide_gradient_kernel<T, WIDE, true, false>), config, in);
}

template <typename T>
twk_status launch_tensor(const AttentionGradient &in, int64_t pairs, twk_stream stream) {
    if (in.head_size <= 32) return launch_narrow<T, 32>(in, pairs, stream);
    if (in.head_size <= 64) return launch_narrow<T, 64>(in, pairs, stream);
    if (in.head_size <= 128) return launch_narrow<T, 128>(in, pairs, stream);
    constexpr int halves = is_tf32<T> ? 2 : 1; // twice the bytes
    return in.head_size <= 256 ? launch_wide<T, Wide<T, 256, 64 / halves>>(in, pairs, stream)
                               : launch_wide<T, Wide<T, 512, 32 / halves>>(in, pairs, stream);
}

int padded_queries(const twk_attention_args &a) {
    return ceil_div((int)a.q_tokens, stats_rows) * stats_rows;
}

twk_status check_gradients(const twk_attention_args &a) {
    const int64_t width = (int64_t)a.heads * a.head_size;
    TW_REQUIRE(a.d_o && a.lse, "attention: backward needs d_o and lse");
    TW_REQUIRE(!a.dq || rows_apart(a.batch, a.q_tokens, width, a.q_row, a.q_batch),
               "attention: rows of dq overlap");
    TW_REQUIRE(!a.dk || rows_apart(a.batch, a.k_tokens, width, a.k_row, a.k_batch),
               "attention: rows of dk overlap");
    TW_REQUIRE(!a.dv || rows_apart(a.batch, a.k_tokens, width, a.v_row, a.v_batch),
               "attention: rows of dv overlap");
    TW_REQUIRE(a.workspace && aligned_16(a.workspace) &&
                   a.workspace_bytes >= twk_attention_backward_workspace(&a),
               "attention: needs more workspace");
    return TWK_OK;
}

// One gradient, or those of k and v.
struct Gradients {
    const twk_attention_args &a;
    int64_t pairs;
    bool tensor; // on the tensor cores
    twk_stream stream;

    AttentionGradient common() const {
        AttentionGradient in = {};
        in.heads = a.heads;
        in.head_size = a.head_size;
        in.stats = static_cast<const QueryStats *>(a.workspace);
        in.stats_count = padded_queries(a);
        in.c = scale_of(a) * log2_e;
        in.factor = scale_of(a);
        in.second = true;
        return in;
    }
    AttentionMatrix q() const { return {a.q, a.q_row, a.q_batch}; }
    AttentionMatrix k() const { return {a.k, a.k_row, a.k_batch}; }
    AttentionMatrix v() const { return {a.v, a.v_row, a.v_batch}; }
    AttentionMatrix o() const { return {a.o, a.o_row, a.o_batch}; }
    AttentionMatrix d_o() const { return {a.d_o, a.o_row, a.o_batch}; }

    twk_status stats() const {
        AttentionForward in = {};
        in.o = o();
        in.q_tokens = (int)a.q_tokens;
        in.heads = a.heads;
        in.head_size = a.head_size;
        in.lse = a.lse;
        int lanes = 1;
        while (lanes < 32 && lanes * stats_elements < a.head_size) lanes *= 2;
        const int64_t count = pairs * padded_queries(a);
        LaunchConfig config;
        if (count > INT64_MAX / lanes || !grid_for(count * lanes, stats_threads, &config.grid))
            return fail(TWK_UNSUPPORTED, "attention: more queries than a grid can hold");
        config.block = dim3(stats_threads);
        config.stream = stream;
        QueryStats *const out = static_cast<QueryStats *>(a.workspace);
        const bool wide =
            aligned_attention(a) && aligned_16(a.d_o) && a.head_size % stats_elements == 0;
        return with_format(a.format, [&](auto t) {
            return with_flag(wide, [&](auto w) {
                return TW_LAUNCH((attention_stats_kernel<decltype(t), decltype(w)::value>), config,
                                 in, d_o(), count, padded_queries(a), lanes, out);
            });
        });
    }
    twk_status launch(const AttentionGradient &in) const {
        if (!tensor) return launch_plain_gradient(in, a.format, pairs, stream);
        if (a.tf32) return launch_tensor<tf32>(in, pairs, stream);
        return a.format == TWK_BF16 ? launch_tensor<bf16>(in, pairs, stream)
                                    : launch_tensor<f16>(in, pairs, stream);
    }
    twk_status of_queries() const {
        AttentionGradient in = common();
        in.x1 = q(), in.x2 = d_o();
        in.y1 = in.z = k(), in.y2 = v();
        in.out = {a.dq, a.q_row, a.q_batch};
        in.x_tokens = (int)a.q_tokens;
        in.y_tokens = (int)a.k_tokens;
        return launch(in);
    }
    twk_status of_keys_and_values() const {
        AttentionGradient in = common();
        in.by_column = true;
        in.x1 = k(), in.x2 = v();
        in.y1 = in.z = q(), in.y2 = d_o();
        in.out = {a.dk, a.k_row, a.k_batch};
        in.out2 = {a.dv, a.v_row, a.v_batch};
        in.x_tokens = (int)a.k_tokens;
        in.y_tokens = (int)a.q_tokens;
        if (tensor && a.head_size <= 128) return launch(in); // both at once
        const twk_status status = a.dk ? launch(in) : TWK_OK;
        if (status != TWK_OK || !a.dv) return status;
        in.second = false;
        in.z = d_o();
        in.out = in.out2;
        in.factor = 1.0f;
        return launch(in);
    }
};

} // namespace
} // namespace tw

using namespace tw;

extern "C" size_t twk_attention_backward_workspace(const twk_attention_args *args) {
    if (!args || check_attention(*args) != TWK_OK) return 0;
    return (size_t)(args->batch * args->heads) * (size_t)padded_queries(*args) * sizeof(QueryStats);
}

extern "C" twk_status twk_attention_backward(const twk_attention_args *args, twk_stream stream) {
    TW_REQUIRE(args, "attention: no arguments");
    const twk_attention_args &a = *args;
    twk_status status = check_attention(a);
    if (status == TWK_OK) status = check_gradients(a);
    if (status != TWK_OK) return status;
    const bool tensor = (a.format != TWK_F32 || a.tf32) && aligned_attention(a) &&
                        aligned_16(a.d_o) && aligned_16(a.dq) && aligned_16(a.dk) &&
                        aligned_16(a.dv);
    const Gradients gradients = {a, a.batch * a.heads, tensor, stream};
    status = gradients.stats();
    if (status == TWK_OK && a.dq) status = gradients.of_queries();
    if (status == TWK_OK && (a.dk || a.dv)) status = gradients.of_keys_and_values();
    return status;
}
