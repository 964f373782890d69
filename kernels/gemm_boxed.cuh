// Matrix products by gemm_specialised.cuh: D's rows are those of b (a linear layer's weights), its
// columns those of a, both brought by TMA, which brings zeros past their edges.
#pragma once

#include "gemm_epilogue.cuh"
#include "gemm_specialised.cuh"
#include "slices.cuh"

namespace tw {

struct BoxedGemm {
    int steps, steps_a_split, splits;
    int down, across;           // tiles along m, along n
    int tiles;                  // of all products and parts
    int a_products, b_products; // 0: one matrix for all
    int64_t d_batch;
    int add;
};

// The epilogue of one product of the batch.
template <typename T>
TW_DEVICE Epilogue epilogue_of_product(Epilogue e, int64_t batch, int64_t d_batch, int add,
                                       int splits) {
    e.y = add ? static_cast<void *>(static_cast<float *>(e.y) + batch * d_batch)
              : static_cast<void *>(static_cast<T *>(e.y) + batch * d_batch);
    if (e.residual) e.residual = static_cast<const T *>(e.residual) + batch * d_batch;
    if (e.slices) e.slices += batch * splits * e.rows * e.columns;
    return e;
}

template <typename TILE, Form A_FORM, Form B_FORM> class MatrixWork {
    using T = typename TILE::Storage;

  public:
    static constexpr bool looks = false, narrows = false;

    TW_DEVICE MatrixWork(const BoxedGemm &in, const TensorMap *a, const TensorMap *b,
                         const Epilogue &e)
        : in_(in), a_(a), b_(b), e_(e) {}

    TW_DEVICE bool take(int i) {
        const int64_t wanted = blockIdx.x + (int64_t)i * gridDim.x;
        if (wanted >= in_.tiles) return false;
        const int tile = (int)wanted, area = in_.down * in_.across;
        const int plane = tile / area, at = tile - plane * area;
        row0_ = at / in_.across * TILE::bn;
        column0_ = at % in_.across * TILE::bm;
        product_ = plane / in_.splits;
        split_ = plane - product_ * in_.splits;
        const int first = split_ * in_.steps_a_split;
        steps_ = smaller(in_.steps_a_split, in_.steps - first);
        k_ = first * TILE::depth;
        return true;
    }
    TW_DEVICE int steps() const { return steps_; }
    TW_DEVICE unsigned bytes() const { return TILE::stage_bytes; }

    TW_DEVICE void fetch(unsigned char *weights, unsigned char *rows, Mbarrier *full) {
        load<B_FORM, TILE::bm>(weights, b_, full, column0_, smaller(product_, in_.b_products));
        load<A_FORM, TILE::bn>(rows, a_, full, row0_, smaller(product_, in_.a_products));
        k_ += TILE::depth;
    }

    TW_DEVICE void prepare() {}
    TW_DEVICE void finish(float *d, int column) {
        const int row0 = row0_ + column;
        const Epilogue e = epilogue_of_product<T>(e_, product_, in_.d_batch, in_.add, in_.splits);
        const RowsBelow rows = {row0, e.rows};
        if (e.slices)
            leave_rows<TILE::chunk, TILE::bm, TILE::ld>(e, d, column0_, split_, rows, Workers{});
        else if (in_.add)
            add_tile<TILE::bm, TILE::ld>(static_cast<float *>(e.y), e.rows, e.columns, e.scale, d,
                                         TILE::chunk, row0, column0_, Workers{});
        else
            finish_rows<T, TILE::bm, TILE::ld>(e, d, TILE::chunk, column0_, rows, Workers{});
    }

  private:
    template <Form FORM, int ROWS>
    TW_DEVICE void load(unsigned char *tile, const TensorMap *map, Mbarrier *full, int row0,
                        int product) const {
        if constexpr (FORM == Form::rows) {
            tma_load_3d(tile, map, full, k_, row0, product);
        } else {
#pragma unroll
            for (int i = 0; i < ROWS / 64; i++)
                tma_load_3d(tile + i * 64 * 128, map, full, row0 + 64 * i, k_, product);
        }
    }

    const BoxedGemm &in_;
    const TensorMap *const a_, *const b_;
    const Epilogue &e_;
    int row0_, column0_, product_, split_, steps_, k_;
};

// Work: a block is alone on its processor and takes every gridDim.x-th tile of 256 rows of a by 128
// of b of one product of the batch and, where the sum is split, a part of it; neighbouring blocks
// share their rows of a. One thread copies, 256 multiply and finish tiles 64 rows at a time while
// it copies ahead. Limit: L2 (48 KB for 2^22 FLOPs, 81 % of the tensor cores' rate), then the
// tensor cores, which stand still while a tile is finished; device memory where k is short.
template <typename TILE, Form A_FORM, Form B_FORM>
__global__ void __launch_bounds__(TILE::threads, 1)
    gemm_boxed_kernel(TW_TENSOR_MAP_PARAM(a), TW_TENSOR_MAP_PARAM(b), const BoxedGemm in,
                      const Epilogue e) {
    if constexpr (TILE::built) {
        TW_SHARED(arena);
        unsigned char *memory = arena.take<unsigned char>(TILE::stages * TILE::stage_bytes);
        float *turned = arena.take<float>(TILE::chunk * TILE::ld);
        Mbarrier *barriers = arena.take<Mbarrier>(2 * TILE::stages);
        MatrixWork<TILE, A_FORM, B_FORM> work(in, &a, &b, e);
        run_specialised<TILE, B_FORM, A_FORM>(memory, turned, barriers, work);
    }
}

// ---- host ---------------------------------------------------------------------------------------

// Why TWK_TILE_128X256_TMA cannot serve a call, or NULL. k and the rows need not be whole chunks.
inline const char *boxes_refused(const twk_gemm_args &a) {
    if (a.format == TWK_F32) return "matrix product: boxes are for bf16 and fp16";
    const int64_t longest = (int64_t)1 << 39; // in elements
    for (int64_t stride : {a.a_row, a.b_row})
        if (!stride || stride % 8 || stride >= longest)
            return "matrix product: boxes need aligned rows that are apart";
    for (int64_t stride : {a.a_batch, a.b_batch})
        if (a.batch > 1 && (stride % 8 || stride >= longest))
            return "matrix product: boxes need aligned matrices";
    if (!aligned_16(a.a) || !aligned_16(a.b)) return "matrix product: boxes need aligned matrices";
    if (!device_limits().tma || device_limits().shared < SpecialisedTile<bf16>::shared)
        return "matrix product: boxes need TMA and wgmma: compute capability 9.0 and its code";
    return nullptr;
}

// The matrices of an operand, `batch` elements apart, or the one that serves all products.
inline twk_status map_matrices(const twk_gemm_args &a, const void *from, bool columns, int64_t rows,
                               int64_t row, int64_t batch, int tile_rows, TensorMap *map) {
    const bool several = batch && a.batch > 1;
    TensorBox box = {};
    box.base = from;
    box.format = a.format;
    box.rank = 3;
    box.size[0] = (uint64_t)(columns ? rows : a.k);
    box.size[1] = (uint64_t)(columns ? a.k : rows);
    box.size[2] = several ? (uint64_t)a.batch : 1;
    box.stride_bytes[1] = (uint64_t)row * 2;
    box.stride_bytes[2] = (uint64_t)(several ? batch : row) * 2;
    box.box[0] = 64;
    box.box[1] = columns ? 64 : (uint32_t)tile_rows;
    box.box[2] = 1;
    for (uint32_t &step : box.step) step = 1;
    box.swizzle = Swizzle::bytes_128;
    return tensor_map(box, map);
}

template <typename TILE, Form A_FORM, Form B_FORM>
twk_status launch_boxes(const twk_gemm_args &a, const BoxedGemm &in, const Epilogue &e,
                        twk_stream stream) {
    TensorMap map_a, map_b;
    twk_status status =
        map_matrices(a, a.a, A_FORM == Form::columns, a.m, a.a_row, a.a_batch, TILE::bn, &map_a);
    if (status == TWK_OK)
        status = map_matrices(a, a.b, B_FORM == Form::columns, a.n, a.b_row, a.b_batch, TILE::bm,
                              &map_b);
    if (status != TWK_OK) return status;
    LaunchConfig config;
    config.grid = dim3((unsigned)smaller<int64_t>(in.tiles, device_limits().processors));
    config.block = dim3(TILE::threads);
    config.shared = TILE::shared;
    config.stream = stream;
    return TW_LAUNCH((gemm_boxed_kernel<TILE, A_FORM, B_FORM>), config, map_a, map_b, in, e);
}

// `steps` along K of 64, in `splits` parts.
template <typename MATH>
twk_status launch_boxes(const twk_gemm_args &a, int steps, int splits, const Epilogue &e,
                        twk_stream stream) {
    using TILE = SpecialisedTile<MATH>;
    constexpr Form rows = Form::rows, columns = Form::columns;
    const char *const refused = boxes_refused(a);
    if (refused) return fail(TWK_UNSUPPORTED, refused);
    BoxedGemm in = {};
    in.steps = steps;
    in.splits = splits;
    in.steps_a_split = ceil_div(steps, splits);
    in.down = (int)ceil_div<int64_t>(a.m, TILE::bn);
    in.across = (int)ceil_div<int64_t>(a.n, TILE::bm);
    in.a_products = a.a_batch ? (int)a.batch : 0;
    in.b_products = a.b_batch ? (int)a.batch : 0;
    in.d_batch = a.d_batch;
    in.add = a.add_f32;
    int64_t tiles = (int64_t)in.down * in.across;
    if (tiles > 0x7fffffff || (tiles *= splits) > 0x7fffffff || (tiles *= a.batch) > 0x7fffffff)
        return fail(TWK_UNSUPPORTED, "matrix product: more tiles than a grid can hold");
    in.tiles = (int)tiles;
    if (a.a_columns)
        return a.b_columns ? launch_boxes<TILE, columns, columns>(a, in, e, stream)
                           : launch_boxes<TILE, columns, rows>(a, in, e, stream);
    return a.b_columns ? launch_boxes<TILE, rows, columns>(a, in, e, stream)
                       : launch_boxes<TILE, rows, rows>(a, in, e, stream);
}

} // namespace tw
