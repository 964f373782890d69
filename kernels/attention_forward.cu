// Attention forward.
#include "attention_wide.cuh"
#include "device/launch.cuh"

#include <initializer_list>

namespace tw {
namespace {

template <int M> TW_DEVICE void nothing_seen(float (&reference)[M][2]) {
#pragma unroll
    for (int i = 0; i < M; i++) reference[i][0] = reference[i][1] = -INFINITY;
}

// Four warps with 32 rows each. Columns of a tile: as many as the registers have room for.
constexpr int narrow_threads = 128, narrow_m = 2, narrow_rows = 128;
template <typename T, int D> constexpr int narrow_columns = D <= 64 ? 64 : is_tf32<T> ? 16 : 32;

// A warp's rows, finished: o = sums / sum through the warp's part of the tile of q.
template <typename T, int D, int M>
TW_DEVICE void leave_rows(const AttentionForward &in, const BlockPlace &place, int warp_row,
                          unsigned char *tile, const TokenSums<T, D, M> &o,
                          const float (&reference)[M][2], const float (&sum)[M][2]) {
    const int lane = (int)threadIdx.x % 32, first = place.row0 + warp_row;
    float factor[M][2];
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float all = quad_sum(sum[i][h]);
            const int row = first + 16 * i + 8 * h + lane / 4;
            factor[i][h] = 1.0f / all;
            if (in.lse && lane % 4 == 0 && row < in.q_tokens)
                in.lse[place.pair * in.q_tokens + row] = reference[i][h] * in.scale + logf(all);
        }
    leave_sums<T, D, narrow_rows>(place.output<Stored<T>>(in.o) + warp_row * in.o.row, in.o.row,
                                  tile, o, factor, in.q_tokens - first, in.head_size);
}

// Work: a block of four warps owns 128 queries of one head, a warp 32 of them with their sums in
// registers, and walks over tiles of 64 (32) keys, the next of which is copied meanwhile. The
// scores stay in the registers of the warp that made them: they are the first operand of the second
// product. Limit: the tensor cores through mma.sync (a warp reads 6 (8) KB of shared memory for
// 65536 multiply-adds in the first product and 4 KB in the second); the exponentials below 64
// channels.
template <typename T, int D>
__global__ void __launch_bounds__(narrow_threads, D == 32 && !is_tf32<T> ? 3 : 2)
    attention_narrow_kernel(const AttentionForward in) {
    constexpr int M = narrow_m, BM = narrow_rows, BN = narrow_columns<T, D>, N = BN / 8;
    constexpr int bytes = TokenTile<T, D>::row_bytes, tile_bytes = TokenTile<T, D>::bytes(BN);
    TW_SHARED(arena);
    unsigned char *const q_tile = arena.take<unsigned char>(TokenTile<T, D>::bytes(BM));
    unsigned char *const k_tiles = arena.take<unsigned char>(2 * tile_bytes);
    unsigned char *const v_tiles = arena.take<unsigned char>(2 * tile_bytes);
    const BlockPlace place(in, (int)blockIdx.x, BM);
    const int warp_row = (int)threadIdx.x / 32 * 16 * M;
    const bool there = place.row0 + warp_row < in.q_tokens; // has this warp any rows
    const HeadRows<Stored<T>> k = place.rows<Stored<T>>(in.k), v = place.rows<Stored<T>>(in.v);
    const auto fetch = [&](int j) {
        const int at = j % 2 * tile_bytes;
        fetch_tokens<T, D, BN, narrow_threads>(k_tiles + at, k, j * BN, in.k_tokens, in.head_size);
        fetch_tokens<T, D, BN, narrow_threads>(v_tiles + at, v, j * BN, in.k_tokens, in.head_size);
        copy_async_commit();
    };
    fetch_tokens<T, D, BM, narrow_threads>(q_tile, place.rows<Stored<T>>(in.q), place.row0,
                                           in.q_tokens, in.head_size);
    fetch(0);
    const LaneRows<bytes> at;
    unsigned char *const mine = q_tile + warp_row * bytes;
    TokenSums<T, D, M> o = {};
    float reference[M][2], sum[M][2] = {};
    nothing_seen(reference);
    const int tiles = ceil_div(in.k_tokens, BN);
#pragma unroll 1
    for (int j = 0; j < tiles; j++) {
        copy_async_wait<0>();
        sync_block(); // tile j is there, and everyone is done with the one before it
        if (j + 1 < tiles) fetch(j + 1);
        if (!there) continue;
        FragmentC s[M][N] = {};
        add_scores<T, D, BM, BN>(s, mine, k_tiles + j % 2 * tile_bytes, at);
        if (in.k_tokens - j * BN < BN) mask_columns(s, in.k_tokens - j * BN);
        float largest[M][2], factor[M][2];
        largest_scores(s, largest);
        if (follow(largest, in.c, reference, factor)) {
#pragma unroll
            for (int i = 0; i < M; i++) {
#pragma unroll
                for (int p = 0; p < TokenTile<T, D>::panels; p++) scale_rows(o[p][i], factor[i]);
                sum[i][0] *= factor[i][0];
                sum[i][1] *= factor[i][1];
            }
        }
        exponentials(s, reference, in.c, sum);
#pragma unroll
        for (int block = 0; block < BN / step_elements<T>; block++) {
            FragmentA w[M];
            pack_weights<T>(w, s, block);
            add_weighted<T, D, BN>(
                o, w, v_tiles + j % 2 * tile_bytes + block * step_elements<T> * bytes, at);
        }
    }
    if (there) leave_rows<T, D>(in, place, warp_row, mine, o, reference, sum);
}

// What all warps that share a row found there, one beside the other in `parts`.
template <typename WIDE, int M, typename MERGE>
TW_DEVICE void merge_parts(const float *parts, int row, float (&out)[M][2], const MERGE &merge) {
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float *const mine = parts + row + 16 * i + 8 * h + (int)threadIdx.x % 32 / 4;
            float v = mine[0];
#pragma unroll
            for (int w = 1; w < WIDE::s_across; w++) v = merge(v, mine[w * WIDE::bm]);
            out[i][h] = v;
        }
}
template <typename WIDE, int M> TW_DEVICE void leave_part(float *parts, const float (&v)[M][2]) {
    const int lane = (int)threadIdx.x % 32;
    if (lane % 4) return;
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            parts[WIDE::warp() % WIDE::s_across * WIDE::bm + WIDE::s_row() + 16 * i + 8 * h +
                  lane / 4] = v[i][h];
}

// o = sums / sum. `parts` is free for the rows' sums.
template <typename T, typename WIDE>
TW_DEVICE void finish_wide(const AttentionForward &in, const BlockPlace &place, unsigned char *tile,
                           float *parts, const WideSums<WIDE> &o,
                           const float (&reference)[WIDE::s_m][2],
                           const float (&sum)[WIDE::s_m][2]) {
    const auto total = [](float a, float b) { return a + b; };
    float all[WIDE::s_m][2], factor[WIDE::o_m][2];
#pragma unroll
    for (int i = 0; i < 2 * WIDE::s_m; i++) all[i / 2][i % 2] = quad_sum(sum[i / 2][i % 2]);
    leave_part<WIDE>(parts, all);
    sync_block();
    if (in.lse && WIDE::s_column() == 0 && threadIdx.x % 4 == 0) {
        merge_parts<WIDE>(parts, WIDE::s_row(), all, total);
#pragma unroll
        for (int i = 0; i < 2 * WIDE::s_m; i++) {
            const int row = place.row0 + WIDE::s_row() + 8 * i + (int)threadIdx.x % 32 / 4;
            if (row < in.q_tokens)
                in.lse[place.pair * in.q_tokens + row] =
                    reference[i / 2][i % 2] * in.scale + logf(all[i / 2][i % 2]);
        }
    }
    merge_parts<WIDE>(parts, WIDE::o_row(), factor, total);
#pragma unroll
    for (int i = 0; i < 2 * WIDE::o_m; i++) factor[i / 2][i % 2] = 1.0f / factor[i / 2][i % 2];
    leave_wide<T, WIDE>(place.output<Stored<T>>(in.o), in.o.row, tile, o, factor,
                        in.q_tokens - place.row0, in.head_size);
}

// Work: a block of eight warps owns BM queries of one head: 128 x 256 or 64 x 512 sums, or half
// of them, in registers; see attention_wide.cuh. Limit: the tensor cores through mma.sync and L2,
// which gives a block 64 (BM 128: 32) multiply-adds a byte of k and v.
template <typename T, typename WIDE>
__global__ void __launch_bounds__(WIDE::threads, WIDE::blocks)
    attention_wide_kernel(const AttentionForward in) {
    constexpr int SM = WIDE::s_m, OM = WIDE::o_m;
    TW_SHARED(arena);
    unsigned char *const q_tile = arena.take<unsigned char>(WIDE::tile_bytes);
    unsigned char *const stages = arena.take<unsigned char>(WIDE::stages * WIDE::stage_bytes);
    unsigned char *const slices = arena.take<unsigned char>(2 * WIDE::slice_bytes);
    float *const parts = arena.take<float>(WIDE::s_across * WIDE::bm);
    const BlockPlace place(in, (int)blockIdx.x, WIDE::bm);
    const HeadRows<Stored<T>> k = place.rows<Stored<T>>(in.k), v = place.rows<Stored<T>>(in.v);
    WideRing<T, WIDE> ring(stages, k, v, v, false, in.k_tokens, in.head_size);
    fetch_tokens<T, WIDE::d, WIDE::bm, WIDE::threads>(q_tile, place.rows<Stored<T>>(in.q),
                                                      place.row0, in.q_tokens, in.head_size);
    ring.start();
    const LaneRows<128> at;
    WideSums<WIDE> o = {};
    // Of the rows that this warp has scores of, and of those that it has sums of.
    float reference[SM][2], sum[SM][2] = {}, sums_reference[OM][1][2];
    nothing_seen(reference);
#pragma unroll
    for (int i = 0; i < OM; i++) nothing_seen(sums_reference[i]);
#pragma unroll 1
    for (int first = 0; first < in.k_tokens; first += WIDE::bn) {
        FragmentC s[SM][WIDE::s_n] = {};
        add_wide_scores(s, q_tile, ring, at);
        if (in.k_tokens - first < WIDE::bn) mask_columns(s, in.k_tokens - first - WIDE::s_column());
        const auto larger_of = [](float a, float b) { return fmaxf(a, b); };
        float largest[SM][2], factor[SM][2];
        largest_scores(s, largest);
        leave_part<WIDE>(parts, largest);
        sync_block();
        merge_parts<WIDE>(parts, WIDE::s_row(), largest, larger_of);
        if (follow(largest, in.c, reference, factor)) {
#pragma unroll
            for (int i = 0; i < 2 * SM; i++) sum[i / 2][i % 2] *= factor[i / 2][i % 2];
        }
        exponentials(s, reference, in.c, sum);
#pragma unroll
        for (int i = 0; i < OM; i++) {
            float seen[1][2], shrink[1][2];
            merge_parts<WIDE>(parts, WIDE::o_row() + 16 * i, seen, larger_of);
            if (!follow(seen, in.c, sums_reference[i], shrink)) continue;
#pragma unroll
            for (int part = 0; part < WIDE::slabs * WIDE::parts; part++)
                scale_rows(o[part][i], shrink[0]);
        }
        add_wide_weighted(o, s, first, slices, ring, at);
    }
    finish_wide<T, WIDE>(in, place, q_tile, parts, o, reference, sum);
}

template <typename KERNEL>
twk_status launch(KERNEL launch_it, AttentionForward in, int64_t pairs, int rows, int threads,
                  size_t shared, twk_stream stream) {
    LaunchConfig config;
    const twk_status status =
        attention_config(&in, pairs, in.q_tokens, rows, threads, shared, stream, &config);
    return status == TWK_OK ? launch_it(config, in) : status;
}

template <typename T, int D>
twk_status launch_narrow(const AttentionForward &in, int64_t pairs, twk_stream stream) {
    const size_t shared = TokenTile<T, D>::bytes(narrow_rows + 4 * narrow_columns<T, D>);
    return launch(
        [](const LaunchConfig &config, const AttentionForward &a) {
            return TW_LAUNCH((attention_narrow_kernel<T, D>), config, a);
        },
        in, pairs, narrow_rows, narrow_threads, shared, stream);
}

template <typename T, typename WIDE>
twk_status launch_wide(const AttentionForward &in, int64_t pairs, twk_stream stream) {
    const size_t shared = WIDE::tile_bytes + WIDE::stages * WIDE::stage_bytes +
                          2 * WIDE::slice_bytes + shared_bytes<float>(WIDE::s_across * WIDE::bm);
    return launch(
        [](const LaunchConfig &config, const AttentionForward &a) {
            return TW_LAUNCH((attention_wide_kernel<T, WIDE>), config, a);
        },
        in, pairs, WIDE::bm, WIDE::threads, shared, stream);
}

template <typename T>
twk_status launch_wide_16(const AttentionForward &in, int64_t pairs, twk_stream stream) {
    if (in.head_size > 256) return launch_wide<T, Wide<T, 512, 64>>(in, pairs, stream);
    // Rows 128 at a time halve what L2 has to give, where that leaves a block for every processor.
    const bool many = pairs * ceil_div(in.q_tokens, 128) >= (int64_t)device_limits().processors;
    return in.q_tokens > 64 && many ? launch_wide<T, Wide<T, 256, 128>>(in, pairs, stream)
                                    : launch_wide<T, Wide<T, 256, 64>>(in, pairs, stream);
}

template <typename T>
twk_status launch_tensor(const AttentionForward &in, int64_t pairs, twk_stream stream) {
    if (in.head_size <= 32) return launch_narrow<T, 32>(in, pairs, stream);
    if (in.head_size <= 64) return launch_narrow<T, 64>(in, pairs, stream);
    if (in.head_size <= 128) return launch_narrow<T, 128>(in, pairs, stream);
    if constexpr (is_tf32<T>) // twice the bytes
        return in.head_size > 256 ? launch_wide<T, Wide<T, 512, 32>>(in, pairs, stream)
                                  : launch_wide<T, Wide<T, 256, 64>>(in, pairs, stream);
    else
        return launch_wide_16<T>(in, pairs, stream);
}

} // namespace

bool rows_apart(int64_t batch, int64_t tokens, int64_t width, int64_t row, int64_t sample) {
    int64_t last;
    if ((tokens > 1 && row < width) || __builtin_mul_overflow(tokens - 1, row, &last) ||
        __builtin_add_overflow(last, width, &last))
        return false;
    return batch == 1 || sample >= last;
}

twk_status check_attention(const twk_attention_args &a) {
    const int64_t most = 0x3fffffff;
    TW_REQUIRE(is_format(a.format), "attention: format: expected fp32, bf16 or fp16");
    TW_REQUIRE(!a.tf32 || a.format == TWK_F32, "attention: tf32 is a way to multiply fp32");
    TW_REQUIRE(a.batch > 0 && a.heads > 0 && a.head_size > 0 && a.q_tokens > 0 && a.k_tokens > 0,
               "attention: sizes must be positive");
    TW_REQUIRE(a.scale >= 0.0f && a.scale < INFINITY, "attention: scale: expected 0 or more");
    TW_REQUIRE(a.q && a.k && a.v && a.o, "attention: q, k, v and o are needed");
    TW_REQUIRE(a.q_row >= 0 && a.k_row >= 0 && a.v_row >= 0 && a.q_batch >= 0 && a.k_batch >= 0 &&
                   a.v_batch >= 0,
               "attention: strides are not negative");
    if (a.head_size > 512) return fail(TWK_UNSUPPORTED, "attention: heads of more than 512");
    if (a.q_tokens > most || a.k_tokens > most || a.batch > most)
        return fail(TWK_UNSUPPORTED, "attention: more than 2^30 tokens or samples");
    if (a.batch * a.heads > 0x7fffffff)
        return fail(TWK_UNSUPPORTED, "attention: more heads than a grid can hold");
    TW_REQUIRE(rows_apart(a.batch, a.q_tokens, (int64_t)a.heads * a.head_size, a.o_row, a.o_batch),
               "attention: rows of o overlap");
    return TWK_OK;
}

bool aligned_attention(const twk_attention_args &a) {
    const int per = 16 / (int)format_bytes(a.format);
    for (int64_t n : {(int64_t)a.head_size, a.q_row, a.k_row, a.v_row, a.o_row, a.q_batch,
                      a.k_batch, a.v_batch, a.o_batch})
        if (n % per) return false;
    return aligned_16(a.q) && aligned_16(a.k) && aligned_16(a.v) && aligned_16(a.o);
}

} // namespace tw

using namespace tw;

extern "C" twk_status twk_attention_forward(const twk_attention_args *args, twk_stream stream) {
    TW_REQUIRE(args, "attention: no arguments");
    const twk_attention_args &a = *args;
    const twk_status status = check_attention(a);
    if (status != TWK_OK) return status;
    AttentionForward in = {};
    in.q = {a.q, a.q_row, a.q_batch};
    in.k = {a.k, a.k_row, a.k_batch};
    in.v = {a.v, a.v_row, a.v_batch};
    in.o = {a.o, a.o_row, a.o_batch};
    in.q_tokens = (int)a.q_tokens;
    in.k_tokens = (int)a.k_tokens;
    in.heads = a.heads;
    in.head_size = a.head_size;
    in.scale = scale_of(a);
    in.c = in.scale * log2_e;
    in.lse = a.lse;
    const int64_t pairs = a.batch * a.heads;
    if ((a.format == TWK_F32 && !a.tf32) || !aligned_attention(a))
        return launch_plain_attention(in, a.format, pairs, stream);
    if (a.tf32) return launch_tensor<tf32>(in, pairs, stream);
    return a.format == TWK_BF16 ? launch_tensor<bf16>(in, pairs, stream)
                                : launch_tensor<f16>(in, pairs, stream);
}
