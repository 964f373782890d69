/* Matrix products by cuBLASLt. It counts columns first: what is [m, n] by rows in memory is n x m
 * to it. So it is asked for d^T = b a^T, where b, stored [n, k], is k x n to it and is turned, and
 * a, stored [m, k], is k x m and stays. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/vendor/cublaslt.h"

typedef struct plan {
    tw_vendor_plan base;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* as the library has them: c is of residual and d */
    cublasLtMatmulAlgo_t algo;
} plan;

#define REQUIRE(condition, text)                                                                   \
    if (!(condition)) return tw_vendor_fail(TWK_BAD_ARGUMENT, "matrix product: " text)
#define CANNOT(condition, text)                                                                    \
    if (condition) return tw_vendor_fail(TWK_UNSUPPORTED, "cuBLASLt: matrix product: " text)

static float scale_of(const twk_gemm_args *g) {
    return g->scale == 0.0f ? 1.0f : g->scale;
}
static twk_format d_format(const twk_gemm_args *g) {
    return g->add_f32 ? TWK_F32 : g->format;
}
/* A bias has d's format for it, and starts at a multiple of 16 bytes. */
static bool rounds_bias(const twk_gemm_args *g) {
    return g->bias && (g->format != TWK_F32 || tw_vendor_alignment(g->bias) < 16);
}
static int64_t a_width(const twk_gemm_args *g) {
    return g->a_columns ? g->m : g->k;
}
static int64_t b_width(const twk_gemm_args *g) {
    return g->b_columns ? g->n : g->k;
}

static twk_status check(const tw_vendor_call *call) {
    const twk_gemm_args *g = call->args.gemm;
    const int64_t most = 0x7fffffff;
    REQUIRE((unsigned)g->format <= TWK_F16, "format: expected fp32, bf16 or fp16");
    REQUIRE(!g->tf32 || g->format == TWK_F32, "tf32 is a way to multiply fp32");
    REQUIRE(g->batch > 0 && g->m > 0 && g->n > 0 && g->k > 0, "sizes must be positive");
    REQUIRE(g->a_row >= 0 && g->b_row >= 0 && g->a_batch >= 0 && g->b_batch >= 0 &&
                (g->batch == 1 || g->d_batch >= g->m * g->n),
            "strides are not negative, and products do not overlap");
    REQUIRE(!g->add_f32 || (!g->bias && !g->residual && !g->silu),
            "what is added to d comes without bias, residual and silu");
    CANNOT(g->batch > most || g->m > most || g->n > most || g->k > most, "more than 2^31 rows");
    CANNOT(g->a_row < a_width(g) || g->b_row < b_width(g), "rows that overlap");
    CANNOT(g->silu, "silu");
    CANNOT(g->bias && scale_of(g) != 1.0f, "a bias that is scaled");
    return TWK_OK;
}

static twk_status addresses(const tw_vendor_call *call) {
    const twk_gemm_args *g = call->args.gemm;
    REQUIRE(g->a && g->b && g->d, "an operand's address is NULL");
    return TWK_OK;
}

static void key_of(const tw_vendor_call *call, tw_vendor_key *key) {
    const twk_gemm_args *g = call->args.gemm;
    const int64_t values[] = {g->batch,
                              g->m,
                              g->n,
                              g->k,
                              g->format,
                              g->tf32 != 0,
                              g->a_row,
                              g->b_row,
                              g->a_batch,
                              g->b_batch,
                              g->d_batch,
                              g->a_columns != 0,
                              g->b_columns != 0,
                              g->add_f32 != 0,
                              g->bias != NULL,
                              g->residual != NULL,
                              tw_vendor_alignment(g->a),
                              tw_vendor_alignment(g->b),
                              tw_vendor_alignment(g->d),
                              tw_vendor_alignment(g->residual)};
    tw_vendor_key_add(key, sizeof values / sizeof *values, values);
}

/* --- plans ------------------------------------------------------------------------------------ */

#define TRY(call)                                                                                  \
    do {                                                                                           \
        const cublasStatus_t try_status_ = (call);                                                 \
        if (try_status_ != CUBLAS_STATUS_SUCCESS) return try_status_;                              \
    } while (0)

static cudaDataType type_of(twk_format format) {
    return format == TWK_F32 ? CUDA_R_32F : format == TWK_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static cublasStatus_t layout(const tw_cublaslt_api *api, twk_format format, int64_t rows,
                             int64_t columns, int64_t ld, int64_t batch, int64_t apart,
                             cublasLtMatrixLayout_t *out) {
    const int32_t count = (int32_t)batch;
    TRY(api->MatrixLayoutCreate(out, type_of(format), (uint64_t)rows, (uint64_t)columns, ld));
    if (batch == 1) return CUBLAS_STATUS_SUCCESS;
    TRY(api->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                      sizeof count));
    return api->MatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &apart,
                                         sizeof apart);
}

static cublasStatus_t describe(const tw_cublaslt_api *api, const twk_gemm_args *g, plan *p) {
    const cublasOperation_t turn = CUBLAS_OP_T;
    const cublasLtEpilogue_t add_bias = CUBLASLT_EPILOGUE_BIAS;
    TRY(api->MatmulDescCreate(&p->desc, g->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                              CUDA_R_32F));
    if (!g->b_columns)
        TRY(api->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turn, sizeof turn));
    if (g->a_columns)
        TRY(api->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &turn, sizeof turn));
    if (g->bias) {
        const void *const some = (const void *)(uintptr_t)256; /* stands in until the call */
        TRY(api->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &add_bias,
                                        sizeof add_bias));
        TRY(api->MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &some,
                                        sizeof some));
    }
    TRY(layout(api, g->format, b_width(g), g->b_columns ? g->k : g->n, g->b_row, g->batch,
               g->b_batch, &p->a));
    TRY(layout(api, g->format, a_width(g), g->a_columns ? g->k : g->m, g->a_row, g->batch,
               g->a_batch, &p->b));
    return layout(api, d_format(g), g->n, g->m, g->n, g->batch, g->d_batch, &p->c);
}

static cublasStatus_t prefer(const tw_vendor *v, const twk_gemm_args *g,
                             cublasLtMatmulPreference_t wish) {
    const tw_cublaslt_api *api = &v->cublaslt->api;
    const uint64_t bytes = v->options.workspace_limit;
    /* Parts of a split sum are kept in fp32, and added in one order. */
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t a = (uint32_t)tw_vendor_alignment(g->b);
    const uint32_t b = (uint32_t)tw_vendor_alignment(g->a);
    const uint32_t d = (uint32_t)tw_vendor_alignment(g->d);
    const uint32_t c = g->residual ? (uint32_t)tw_vendor_alignment(g->residual) : d;
    TRY(api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes,
                                          sizeof bytes));
    TRY(api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums,
                                          sizeof sums));
    TRY(api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a,
                                          sizeof a));
    TRY(api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b,
                                          sizeof b));
    TRY(api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c,
                                          sizeof c));
    return api->MatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d,
                                             sizeof d);
}

static cublasStatus_t propose(const tw_vendor *v, const twk_gemm_args *g, const plan *p,
                              cublasLtMatmulHeuristicResult_t *results, int *n) {
    const tw_cublaslt *l = v->cublaslt;
    cublasLtMatmulPreference_t wish = NULL;
    TRY(l->api.MatmulPreferenceCreate(&wish));
    cublasStatus_t status = prefer(v, g, wish);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = l->api.MatmulAlgoGetHeuristic(l->handle, p->desc, p->a, p->b, p->c, p->c, wish,
                                               TW_VENDOR_CANDIDATES, results, n);
    l->api.MatmulPreferenceDestroy(wish);
    return status;
}

static void free_plan(tw_vendor *v, tw_vendor_plan *base) {
    const tw_cublaslt_api *api = &v->cublaslt->api;
    plan *p = (plan *)base;
    if (p->desc) api->MatmulDescDestroy(p->desc);
    if (p->a) api->MatrixLayoutDestroy(p->a);
    if (p->b) api->MatrixLayoutDestroy(p->b);
    if (p->c) api->MatrixLayoutDestroy(p->c);
    free(p);
}

static twk_status refuse(const tw_vendor *v, cublasStatus_t status) {
    return tw_vendor_fail(TWK_UNSUPPORTED, "%s: matrix product: %s", v->cublaslt->name,
                          v->cublaslt->api.GetStatusString(status));
}

/* A plan of its own, without an algorithm yet; NULL and why, where there is none. */
static plan *make_plan(tw_vendor *v, const twk_gemm_args *g) {
    plan *p = calloc(1, sizeof *p);
    if (!p) {
        tw_vendor_fail(TWK_UNSUPPORTED, "cuBLASLt: out of memory");
        return NULL;
    }
    const cublasStatus_t status = describe(&v->cublaslt->api, g, p);
    if (status == CUBLAS_STATUS_SUCCESS) return p;
    free_plan(v, &p->base);
    refuse(v, status);
    return NULL;
}

static void settle(tw_vendor *v, plan *p, const cublasLtMatmulHeuristicResult_t *result, int rank) {
    const tw_cublaslt *l = v->cublaslt;
    int32_t engine = -1;
    size_t written = 0;
    l->api.MatmulAlgoConfigGetAttribute(&result->algo, CUBLASLT_ALGO_CONFIG_ID, &engine,
                                        sizeof engine, &written);
    p->algo = result->algo;
    p->base.bytes = result->workspaceSize;
    p->base.choice.plan = ++v->plans_made;
    p->base.choice.engine = engine;
    p->base.choice.rank = rank;
    snprintf(p->base.choice.text, sizeof p->base.choice.text, "%s: algorithm %d", l->name, engine);
}

static twk_status plans(tw_vendor *v, const tw_vendor_call *call, int most, tw_vendor_plan **found,
                        int *n) {
    const twk_gemm_args *g = call->args.gemm;
    cublasLtMatmulHeuristicResult_t results[TW_VENDOR_CANDIDATES];
    int proposed = 0;
    plan *p = make_plan(v, g);
    *n = 0;
    if (!p) return TWK_UNSUPPORTED;
    const cublasStatus_t asked = propose(v, g, p, results, &proposed);
    for (int i = 0; asked == CUBLAS_STATUS_SUCCESS && i < proposed && *n < most; i++) {
        if (results[i].state != CUBLAS_STATUS_SUCCESS ||
            results[i].workspaceSize > v->options.workspace_limit)
            continue;
        if (!p && !(p = make_plan(v, g))) break;
        settle(v, p, &results[i], i);
        found[(*n)++] = &p->base;
        p = NULL;
    }
    if (p) free_plan(v, &p->base);
    if (*n > 0) return TWK_OK;
    return refuse(v, asked == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : asked);
}

/* --- calls ------------------------------------------------------------------------------------ */

static twk_status needs(const tw_vendor *v, const tw_vendor_call *call, tw_vendor_needs *needs) {
    const twk_gemm_args *g = call->args.gemm;
    if (!rounds_bias(g)) return TWK_OK;
    CANNOT(!v->options.kernels.convert, "a bias that nobody rounds to the format");
    needs->bias = (size_t)g->n * tw_vendor_format_bytes(g->format);
    return TWK_OK;
}

static twk_status before(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                         twk_stream stream) {
    const twk_gemm_args *g = call->args.gemm;
    if (!rounds_bias(g)) return TWK_OK;
    return tw_vendor_round(v, g->bias, g->n, g->format, room->bias, stream);
}

static twk_status enqueue(tw_vendor *v, const tw_vendor_call *call, const tw_vendor_plan *base,
                          const tw_vendor_room *room, twk_stream stream) {
    const tw_cublaslt *l = v->cublaslt;
    const twk_gemm_args *g = call->args.gemm;
    const plan *p = (const plan *)base;
    void *const d = room->output ? room->output : g->d;
    const void *const c = g->residual ? g->residual : d;
    const void *const bias = rounds_bias(g) ? room->bias : (const void *)g->bias;
    const float alpha = scale_of(g), beta = g->add_f32 ? 1.0f : g->residual ? alpha : 0.0f;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (bias)
        status = l->api.MatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                               sizeof bias);
    if (status == CUBLAS_STATUS_SUCCESS)
        status = l->api.Matmul(l->handle, p->desc, &alpha, g->b, p->a, g->a, p->b, &beta, c, p->c,
                               d, p->c, &p->algo, room->plan, p->base.bytes, stream);
    if (status == CUBLAS_STATUS_SUCCESS) return TWK_OK;
    refuse(v, status);
    return TWK_LAUNCH_FAILED;
}

static twk_status after(const tw_vendor *v, const tw_vendor_call *call, const tw_vendor_room *room,
                        twk_stream stream) {
    (void)v, (void)call, (void)room, (void)stream;
    return TWK_OK;
}

/* With the gaps between products, which stay as they are. */
static tw_vendor_output output(const tw_vendor_call *call) {
    const twk_gemm_args *g = call->args.gemm;
    const twk_format format = d_format(g);
    const double products = tw_vendor_tolerance(g->format, g->tf32);
    return (tw_vendor_output){(g->batch - 1) * g->d_batch + g->m * g->n, format,
                              g->add_f32 ? 0x1p-16 : products};
}

const tw_vendor_family tw_cublaslt_gemm = {
    .check = check,
    .addresses = addresses,
    .key = key_of,
    .open = tw_cublaslt_open,
    .name = tw_cublaslt_name,
    .plans = plans,
    .free = free_plan,
    .needs = needs,
    .before = before,
    .enqueue = enqueue,
    .after = after,
    .output = output,
};
