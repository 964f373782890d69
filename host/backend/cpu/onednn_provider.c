/* The provider "cpu-onednn": convolutions and matrix products in float32, with what follows them
 * (an activation, a sum) in the same pass. The engine, the
 * products and what is fused are in the other onednn_*.c.
 *
 * Activations stay N,H,W,C. Weights are O,KH,KW,C in the plan; oneDNN chooses its own layout. They
 * are reordered into the workspace in every run, or once into memory that lasts where they are
 * constant. */
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/ref.h"
#include "core/context.h"

/* Less than this many multiplications are left to the reference: a call would cost more. */
#define SMALLEST_WORK 8192
/* Less than this many are done by one thread: waking others costs as much, and far more on a busy
 * machine. */
#define SHARED_WORK 1.5e7

/* db[o] += sum over the rows of dy[row, o]. */
static void add_column_sums(const tw_dnnl_state *s, const float *dy, float *db, int threads) {
    const int64_t tiles = (s->columns + TW_TILE - 1) / TW_TILE;
#pragma omp parallel for schedule(static) num_threads(threads) if (s->rows * s->columns > 16384)
    for (int64_t t = 0; t < tiles; t++) {
        const int64_t o = t * TW_TILE, n = tw_min_i64(TW_TILE, s->columns - o);
        double sum[TW_TILE] = {0};
        for (int64_t r = 0; r < s->rows; r++)
            tw_ref_accumulate_f(sum, 1.0, dy + r * s->columns + o, n);
        for (int64_t i = 0; i < n; i++) db[o + i] += (float)sum[i];
    }
}

static tw_status onednn_run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                            void *workspace) {
    const tw_dnnl_state *s = kernel->state;
    omp_set_num_threads(s->threads);
    const dnnl_status_t r = tw_dnnl_run(s, slots, workspace, backend->parameters_changed);
    omp_set_num_threads(backend->threads);
    if (r != dnnl_success)
        return tw_fail(backend->ctx, r == dnnl_out_of_memory ? TW_ERROR_MEMORY : TW_ERROR_DEVICE,
                       "oneDNN: status %d", (int)r);
    if (s->sum_to >= 0) add_column_sums(s, slots[s->sum_from], slots[s->sum_to], s->threads);
    return TW_OK;
}

static void free_state(tw_backend *backend, tw_dnnl_state *s) {
    tw_dnnl_clear(s);
    backend->release(backend, s->held);
    dnnl_stream_destroy(s->stream);
    dnnl_engine_destroy(s->engine);
    tw_free(backend->ctx, s);
}

static void onednn_destroy(tw_kernel *kernel, tw_backend *backend) {
    free_state(backend, kernel->state);
    kernel->state = NULL;
}

typedef dnnl_status_t (*build_fn)(const tw_dnnl_builder *b);

static build_fn build_of(tw_op_kind kind) {
    switch (kind) {
    case TW_OP_LINEAR:
        return tw_dnnl_build_linear;
    case TW_OP_LINEAR_BWD_DATA:
        return tw_dnnl_build_linear_bwd_data;
    case TW_OP_LINEAR_BWD_WEIGHT:
        return tw_dnnl_build_linear_bwd_weight;
    case TW_OP_CONV2D:
        return tw_dnnl_build_conv;
    case TW_OP_CONV2D_BWD_DATA:
        return tw_dnnl_build_conv_bwd_data;
    case TW_OP_CONV2D_BWD_WEIGHT:
        return tw_dnnl_build_conv_bwd_weight;
    default:
        return NULL;
    }
}

static double work_of(tw_op_kind kind, const int64_t *d) {
    if (kind == TW_OP_LINEAR || kind == TW_OP_LINEAR_BWD_DATA || kind == TW_OP_LINEAR_BWD_WEIGHT)
        return (double)d['.'] * (double)d['K'] * (double)d['O'];
    return (double)d['N'] * (double)d['P'] * (double)d['Q'] * (double)d['O'] * (double)d['C'] *
           (double)d['J'] * (double)d['K'];
}

/* The longest claim that oneDNN accepts. */
static dnnl_status_t build_longest(tw_dnnl_builder *b, build_fn build) {
    dnnl_status_t r = dnnl_unimplemented;
    const bool forward = b->op->kind == TW_OP_LINEAR || b->op->kind == TW_OP_CONV2D;
    for (b->claimed = forward ? tw_dnnl_longest_claim(b) : 1; b->claimed > 0; b->claimed--) {
        tw_dnnl_clear(b->state);
        r = build(b);
        if (r == dnnl_success || r == dnnl_out_of_memory) break;
    }
    return r;
}

static tw_status prepare_state(tw_dnnl_builder *b, build_fn build) {
    const int outer = omp_get_max_threads(); /* oneDNN plans for the threads it sees here */
    omp_set_num_threads(b->state->threads);
    dnnl_status_t r = dnnl_engine_create(&b->state->engine, dnnl_cpu, 0);
    if (r == dnnl_success)
        r = dnnl_stream_create(&b->state->stream, b->state->engine, dnnl_stream_default_flags);
    if (r == dnnl_success) r = build_longest(b, build);
    omp_set_num_threads(outer);
    if (r == dnnl_out_of_memory)
        return tw_fail(b->backend->ctx, TW_ERROR_MEMORY, "oneDNN: out of memory");
    return r == dnnl_success ? TW_OK : TW_ERROR_UNSUPPORTED;
}

static tw_status onednn_prepare(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[0];
    const build_fn build = region->n_ops > 0 ? build_of(op->kind) : NULL;
    if (!build || op->in[0] < 0 || region->slots[op->in[0]].desc.dtype != TW_F32)
        return TW_ERROR_UNSUPPORTED;
    tw_ref_call call;
    bool is_double;
    TW_TRY(tw_ref_describe(backend, region, &call, &is_double));
    const double work = work_of(op->kind, call.dim);
    if (work < SMALLEST_WORK) return TW_ERROR_UNSUPPORTED;
    tw_dnnl_state *s = tw_allocate(backend->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    tw_dnnl_builder b = {backend, region, op, call.dim, s, 1};
    s->sum_to = -1;
    s->threads = work < SHARED_WORK ? 1 : backend->threads;
    tw_status status = prepare_state(&b, build);
    if (status == TW_OK) status = backend->allocate(backend, s->held_bytes, &s->held);
    if (status != TW_OK) {
        free_state(backend, s);
        return status;
    }
    kernel->run = onednn_run;
    kernel->destroy = onednn_destroy;
    kernel->state = s;
    kernel->workspace = s->workspace;
    kernel->held = s->held_bytes;
    kernel->claimed = b.claimed;
    return TW_OK;
}

const tw_provider tw_provider_cpu_onednn = {"cpu-onednn", onednn_prepare};
