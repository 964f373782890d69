/* The provider "cpu-onednn": convolutions and matrix products in float32, with what follows them
 * (an activation, a sum) in the same pass. The only file that knows oneDNN.
 *
 * Activations stay N,H,W,C. Weights are O,KH,KW,C in the plan; oneDNN chooses its own layout and
 * they are reordered into the workspace in every run, since training changes them. */
#include <dnnl.h>
#include <omp.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/ref.h"
#include "core/context.h"

#define MAX_ARGS 8
#define MAX_JOBS 4
#define IN_WORKSPACE (-1)

/* Less than this many multiplications are left to the reference: a call would cost more. */
#define SMALLEST_WORK 8192
/* Less than this many are done by one thread: waking others costs as much, and far more on a busy
 * machine. */
#define SHARED_WORK 1.5e7

/* An argument of a primitive: an operand of the region, or a place in the workspace. */
typedef struct binding {
    int name, slot;
    size_t offset;
    dnnl_memory_t memory;
} binding;

typedef struct job {
    dnnl_primitive_t primitive;
    int n;
    binding args[MAX_ARGS];
} job;

typedef struct onednn_state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int n_jobs;
    job jobs[MAX_JOBS];
    size_t workspace;
    /* The bias' gradient of a matrix product: sums over the rows of `sum_from`; -1: none. */
    int sum_from, sum_to;
    int64_t rows, columns;
    int threads;
} onednn_state;

/* What prepare knows while it builds. */
typedef struct builder {
    tw_backend *backend;
    const tw_region *region;
    const tw_region_op *op;
    const int64_t *dim;
    onednn_state *state;
    int claimed; /* operations, the fused ones included */
} builder;

#define DNNL_TRY(call)                                                                             \
    do {                                                                                           \
        dnnl_status_t dnnl_try_status_ = (call);                                                   \
        if (dnnl_try_status_ != dnnl_success) return dnnl_try_status_;                             \
    } while (0)

static dnnl_status_t plain(dnnl_memory_desc_t *md, int rank, const dnnl_dims_t dims,
                           const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(md, rank, dims, dnnl_f32, strides);
}

static dnnl_status_t vector(dnnl_memory_desc_t *md, int64_t n) {
    return plain(md, 1, (dnnl_dims_t){n}, (dnnl_dims_t){1});
}

/* N,C,H,W by name, N,H,W,C in memory. Weights O,C,KH,KW lie the same way. */
static dnnl_status_t image(dnnl_memory_desc_t *md, int64_t n, int64_t c, int64_t h, int64_t w) {
    return plain(md, 4, (dnnl_dims_t){n, c, h, w}, (dnnl_dims_t){h * w * c, 1, w * c, c});
}

static dnnl_status_t add_job(onednn_state *s, const_dnnl_primitive_desc_t pd, job **out) {
    if (s->n_jobs == MAX_JOBS) return dnnl_runtime_error;
    job *j = &s->jobs[s->n_jobs];
    j->n = 0;
    DNNL_TRY(dnnl_primitive_create(&j->primitive, pd));
    s->n_jobs++;
    *out = j;
    return dnnl_success;
}

static dnnl_status_t bind_slot(onednn_state *s, job *j, int name, const dnnl_memory_desc_t *md,
                               int slot) {
    if (j->n == MAX_ARGS) return dnnl_runtime_error;
    binding *b = &j->args[j->n];
    *b = (binding){.name = name, .slot = slot};
    DNNL_TRY(dnnl_memory_create(&b->memory, md, s->engine, DNNL_MEMORY_NONE));
    j->n++;
    return dnnl_success;
}

static dnnl_status_t bind_workspace(onednn_state *s, job *j, int name, const dnnl_memory_desc_t *md,
                                    size_t offset) {
    DNNL_TRY(bind_slot(s, j, name, md, IN_WORKSPACE));
    j->args[j->n - 1].offset = offset;
    return dnnl_success;
}

/* Room in the workspace, aligned to 64 bytes. */
static size_t reserve(onednn_state *s, size_t bytes) {
    const size_t at = s->workspace;
    s->workspace += (bytes + 63) / 64 * 64;
    return at;
}

static dnnl_status_t bind_scratchpad(onednn_state *s, job *j, const_dnnl_primitive_desc_t pd) {
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    const size_t bytes = md ? dnnl_memory_desc_get_size(md) : 0;
    if (!bytes) return dnnl_success;
    return bind_workspace(s, j, DNNL_ARG_SCRATCHPAD, md, reserve(s, bytes));
}

/* Attributes of every primitive: our scratch memory, and no lower precision inside. */
static dnnl_status_t new_attributes(dnnl_primitive_attr_t *attr) {
    DNNL_TRY(dnnl_primitive_attr_create(attr));
    dnnl_status_t s = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success) s = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
    if (s != dnnl_success) dnnl_primitive_attr_destroy(*attr);
    return s;
}

/* A copy between layouts, between an operand and the workspace; `add` accumulates. */
static dnnl_status_t add_reorder(onednn_state *s, const dnnl_memory_desc_t *from, int from_slot,
                                 size_t from_offset, const dnnl_memory_desc_t *to, int to_slot,
                                 size_t to_offset, bool add) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    job *j = NULL;
    dnnl_status_t r = new_attributes(&attr);
    if (r != dnnl_success) return r;
    if (add) {
        r = dnnl_post_ops_create(&ops);
        if (r == dnnl_success) r = dnnl_post_ops_append_sum(ops, 1.0f);
        if (r == dnnl_success) r = dnnl_primitive_attr_set_post_ops(attr, ops);
    }
    if (r == dnnl_success)
        r = dnnl_reorder_primitive_desc_create(&pd, from, s->engine, to, s->engine, attr);
    if (r == dnnl_success) r = add_job(s, pd, &j);
    if (r == dnnl_success) r = bind_slot(s, j, DNNL_ARG_FROM, from, from_slot);
    if (r == dnnl_success) {
        j->args[j->n - 1].offset = from_offset;
        r = bind_slot(s, j, DNNL_ARG_TO, to, to_slot);
    }
    if (r == dnnl_success) {
        j->args[j->n - 1].offset = to_offset;
        r = bind_scratchpad(s, j, pd);
    }
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* ---- what follows in the same pass ---- */

/* The other operand of a plain sum, or -1. */
static int other_summand(const tw_region_op *op, int previous) {
    if (op->kind != TW_OP_AXPBY || op->n_in < 2 || op->in[1] < 0) return -1;
    if (op->attr.axpby.alpha != 1 || op->attr.axpby.beta != 1 || op->in[0] == op->in[1]) return -1;
    if (op->in[0] == previous) return op->in[1];
    return op->in[1] == previous ? op->in[0] : -1;
}

/* Whether operation k can be computed where the one before it is stored. */
static bool fusible(const builder *b, int k) {
    const tw_region_op *op = &b->region->ops[k];
    const int previous = b->region->ops[k - 1].out[0];
    if (previous < 0 || b->region->slots[previous].needed) return false;
    if (b->region->slots[op->out[0]].desc.dtype != TW_F32) return false;
    if (op->kind == TW_OP_ACT)
        return op->in[0] == previous &&
               (op->attr.act.kind == TW_ACT_SILU || op->attr.act.kind == TW_ACT_RELU);
    const int other = other_summand(op, previous);
    return other >= 0 && tw_desc_count(&b->region->slots[other].desc) ==
                             tw_desc_count(&b->region->slots[previous].desc);
}

static int longest_claim(const builder *b) {
    int n = 1;
    while (n < b->region->n_ops && n < 3 && fusible(b, n)) n++;
    return n;
}

/* The fused operations as attributes; `dst` is the result's layout. `sum` accumulates instead. */
static dnnl_status_t fused_attributes(const builder *b, const dnnl_memory_desc_t *dst, bool sum,
                                      dnnl_primitive_attr_t *attr) {
    dnnl_post_ops_t ops = NULL;
    DNNL_TRY(new_attributes(attr));
    dnnl_status_t r = dnnl_post_ops_create(&ops);
    if (r == dnnl_success && sum) r = dnnl_post_ops_append_sum(ops, 1.0f);
    for (int k = 1; k < b->claimed && r == dnnl_success; k++) {
        const tw_region_op *op = &b->region->ops[k];
        if (op->kind == TW_OP_AXPBY)
            r = dnnl_post_ops_append_binary(ops, dnnl_binary_add, dst);
        else if (op->attr.act.kind == TW_ACT_SILU)
            r = dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_swish, 1.0f, 0.0f);
        else
            r = dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f);
    }
    if (r == dnnl_success) r = dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
    if (r != dnnl_success) {
        dnnl_primitive_attr_destroy(*attr);
        *attr = NULL;
    }
    return r;
}

static dnnl_status_t bind_fused(const builder *b, job *j, const dnnl_memory_desc_t *dst) {
    for (int k = 1; k < b->claimed; k++) {
        const tw_region_op *op = &b->region->ops[k];
        if (op->kind != TW_OP_AXPBY) continue;
        const int other = other_summand(op, b->region->ops[k - 1].out[0]);
        DNNL_TRY(bind_slot(b->state, j, DNNL_ARG_ATTR_MULTIPLE_POST_OP(k - 1) | DNNL_ARG_SRC_1, dst,
                           other));
    }
    return dnnl_success;
}

/* Plain loops of oneDNN are no better than ours. */
static dnnl_status_t refuse_slow(const_dnnl_primitive_desc_t pd) {
    const char *name = NULL;
    DNNL_TRY(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name));
    return name && !strncmp(name, "ref", 3) ? dnnl_unimplemented : dnnl_success;
}

/* ---- matrix products ---- */

typedef struct matrix {
    int slot;
    int64_t rows, columns;
    bool transposed; /* lies in memory as columns x rows */
} matrix;

static dnnl_status_t describe(dnnl_memory_desc_t *md, const matrix *m) {
    return plain(md, 2, (dnnl_dims_t){m->rows, m->columns},
                 (dnnl_dims_t){m->transposed ? 1 : m->columns, m->transposed ? m->rows : 1});
}

/* c = a b + bias, then what is fused; or c += a b. */
static dnnl_status_t add_product(const builder *b, matrix a, matrix w, matrix c, int bias,
                                 bool accumulate) {
    onednn_state *s = b->state;
    dnnl_memory_desc_t am, wm, cm, bm;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    job *j = NULL;
    DNNL_TRY(describe(&am, &a));
    DNNL_TRY(describe(&wm, &w));
    DNNL_TRY(describe(&cm, &c));
    DNNL_TRY(plain(&bm, 2, (dnnl_dims_t){1, c.columns}, (dnnl_dims_t){c.columns, 1}));
    DNNL_TRY(dnnl_matmul_desc_init(&desc, &am, &wm, bias >= 0 ? &bm : NULL, &cm));
    DNNL_TRY(fused_attributes(b, &cm, accumulate, &attr));
    dnnl_status_t r = dnnl_primitive_desc_create(&pd, &desc, attr, s->engine, NULL);
    if (r == dnnl_success) r = refuse_slow(pd);
    if (r == dnnl_success) r = add_job(s, pd, &j);
    if (r == dnnl_success) r = bind_slot(s, j, DNNL_ARG_SRC, &am, a.slot);
    if (r == dnnl_success) r = bind_slot(s, j, DNNL_ARG_WEIGHTS, &wm, w.slot);
    if (r == dnnl_success) r = bind_slot(s, j, DNNL_ARG_DST, &cm, c.slot);
    if (r == dnnl_success && bias >= 0) r = bind_slot(s, j, DNNL_ARG_BIAS, &bm, bias);
    if (r == dnnl_success) r = bind_fused(b, j, &cm);
    if (r == dnnl_success) r = bind_scratchpad(s, j, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

static int slot_in(const tw_region_op *op, int i) {
    return i < op->n_in ? op->in[i] : -1;
}

static int slot_out(const tw_region_op *op, int i) {
    return i < op->n_out ? op->out[i] : -1;
}

static int result_of(const builder *b) {
    return b->region->ops[b->claimed - 1].out[0];
}

static dnnl_status_t build_linear(const builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    return add_product(b, (matrix){b->op->in[0], rows, k, false},
                       (matrix){b->op->in[1], k, o, true}, (matrix){result_of(b), rows, o, false},
                       slot_in(b->op, 2), false);
}

static dnnl_status_t build_linear_bwd_data(const builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    return add_product(b, (matrix){b->op->in[0], rows, o, false},
                       (matrix){b->op->in[1], o, k, false}, (matrix){b->op->out[0], rows, k, false},
                       -1, false);
}

static dnnl_status_t build_linear_bwd_weight(const builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    b->state->sum_to = slot_out(b->op, 1);
    b->state->sum_from = b->op->in[1];
    b->state->rows = rows;
    b->state->columns = o;
    return add_product(b, (matrix){b->op->in[1], o, rows, true},
                       (matrix){b->op->in[0], rows, k, false}, (matrix){b->op->out[0], o, k, false},
                       -1, true);
}

/* ---- convolutions ---- */

typedef struct conv_shapes {
    dnnl_memory_desc_t x, y, w_any, w_plain, bias;
    dnnl_dims_t strides, before, after;
} conv_shapes;

static dnnl_status_t conv_shapes_of(const builder *b, conv_shapes *c) {
    const int64_t *d = b->dim;
    const tw_op_attr *a = &b->op->attr;
    const dnnl_dims_t w = {d['O'], d['C'], d['J'], d['K']};
    DNNL_TRY(image(&c->x, d['N'], d['C'], d['H'], d['W']));
    DNNL_TRY(image(&c->y, d['N'], d['O'], d['P'], d['Q']));
    DNNL_TRY(image(&c->w_plain, d['O'], d['C'], d['J'], d['K']));
    DNNL_TRY(dnnl_memory_desc_init_by_tag(&c->w_any, 4, w, dnnl_f32, dnnl_format_tag_any));
    DNNL_TRY(vector(&c->bias, d['O']));
    c->strides[0] = c->strides[1] = a->conv.stride;
    c->before[0] = a->conv.pad_top;
    c->before[1] = a->conv.pad_left;
    c->after[0] = a->conv.pad_bottom;
    c->after[1] = a->conv.pad_right;
    return dnnl_success;
}

static dnnl_status_t forward_description(const builder *b, const conv_shapes *c, bool bias,
                                         const_dnnl_primitive_attr_t attr,
                                         dnnl_primitive_desc_t *pd) {
    dnnl_convolution_desc_t desc;
    DNNL_TRY(dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_training, dnnl_convolution_direct, &c->x, &c->w_any,
        bias ? &c->bias : NULL, &c->y, c->strides, c->before, c->after));
    return dnnl_primitive_desc_create(pd, &desc, attr, b->state->engine, NULL);
}

/* The weights for a primitive that wants them as `wanted`: the operand itself, or reordered. */
static dnnl_status_t bring_weights(const builder *b, const conv_shapes *c,
                                   const dnnl_memory_desc_t *wanted, int slot, int *from,
                                   size_t *offset) {
    *from = slot;
    *offset = 0;
    if (dnnl_memory_desc_equal(wanted, &c->w_plain)) return dnnl_success;
    *from = IN_WORKSPACE;
    *offset = reserve(b->state, dnnl_memory_desc_get_size(wanted));
    return add_reorder(b->state, &c->w_plain, slot, 0, wanted, IN_WORKSPACE, *offset, false);
}

/* The primitive `pd` with the weights as its second argument. */
static dnnl_status_t add_convolution(const builder *b, const conv_shapes *c,
                                     const_dnnl_primitive_desc_t pd, int x_name, int x_slot,
                                     const dnnl_memory_desc_t *x, int y_name, int y_slot,
                                     const dnnl_memory_desc_t *y, int bias) {
    onednn_state *s = b->state;
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    int from;
    size_t offset;
    job *j = NULL;
    DNNL_TRY(refuse_slow(pd));
    DNNL_TRY(bring_weights(b, c, w, b->op->in[1], &from, &offset));
    DNNL_TRY(add_job(s, pd, &j));
    DNNL_TRY(bind_slot(s, j, x_name, x, x_slot));
    DNNL_TRY(bind_slot(s, j, DNNL_ARG_WEIGHTS, w, from));
    j->args[j->n - 1].offset = offset;
    DNNL_TRY(bind_slot(s, j, y_name, y, y_slot));
    if (bias >= 0) DNNL_TRY(bind_slot(s, j, DNNL_ARG_BIAS, &c->bias, bias));
    DNNL_TRY(bind_fused(b, j, y));
    return bind_scratchpad(s, j, pd);
}

static dnnl_status_t build_conv(const builder *b) {
    conv_shapes c;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const int bias = slot_in(b->op, 2);
    DNNL_TRY(conv_shapes_of(b, &c));
    DNNL_TRY(fused_attributes(b, &c.y, false, &attr));
    dnnl_status_t r = forward_description(b, &c, bias >= 0, attr, &pd);
    if (r == dnnl_success)
        r = add_convolution(b, &c, pd, DNNL_ARG_SRC, b->op->in[0], &c.x, DNNL_ARG_DST, result_of(b),
                            &c.y, bias);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

static dnnl_status_t build_conv_bwd_data(const builder *b) {
    conv_shapes c;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    DNNL_TRY(conv_shapes_of(b, &c));
    DNNL_TRY(dnnl_convolution_backward_data_desc_init(
        &desc, dnnl_convolution_direct, &c.x, &c.w_any, &c.y, c.strides, c.before, c.after));
    DNNL_TRY(new_attributes(&attr));
    dnnl_status_t r = forward_description(b, &c, false, attr, &hint);
    if (r == dnnl_success) r = dnnl_primitive_desc_create(&pd, &desc, attr, b->state->engine, hint);
    if (r == dnnl_success)
        r = add_convolution(b, &c, pd, DNNL_ARG_DIFF_DST, b->op->in[0], &c.y, DNNL_ARG_DIFF_SRC,
                            b->op->out[0], &c.x, -1);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* The gradient goes to the workspace in oneDNN's layout and is added to the operand from there. */
static dnnl_status_t add_weight_gradient(const builder *b, const conv_shapes *c,
                                         const_dnnl_primitive_desc_t pd) {
    onednn_state *s = b->state;
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_weights_md, 0);
    const size_t w_at = reserve(s, dnnl_memory_desc_get_size(w));
    const int bias = slot_out(b->op, 1);
    const size_t bias_at = bias >= 0 ? reserve(s, dnnl_memory_desc_get_size(&c->bias)) : 0;
    job *j = NULL;
    DNNL_TRY(refuse_slow(pd));
    DNNL_TRY(add_job(s, pd, &j));
    DNNL_TRY(bind_slot(s, j, DNNL_ARG_SRC, &c->x, b->op->in[0]));
    DNNL_TRY(bind_slot(s, j, DNNL_ARG_DIFF_DST, &c->y, b->op->in[1]));
    DNNL_TRY(bind_workspace(s, j, DNNL_ARG_DIFF_WEIGHTS, w, w_at));
    if (bias >= 0) DNNL_TRY(bind_workspace(s, j, DNNL_ARG_DIFF_BIAS, &c->bias, bias_at));
    DNNL_TRY(bind_scratchpad(s, j, pd));
    DNNL_TRY(add_reorder(s, w, IN_WORKSPACE, w_at, &c->w_plain, b->op->out[0], 0, true));
    if (bias < 0) return dnnl_success;
    return add_reorder(s, &c->bias, IN_WORKSPACE, bias_at, &c->bias, bias, 0, true);
}

static dnnl_status_t build_conv_bwd_weight(const builder *b) {
    conv_shapes c;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    const bool bias = slot_out(b->op, 1) >= 0;
    DNNL_TRY(conv_shapes_of(b, &c));
    DNNL_TRY(dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, &c.x,
                                                         &c.w_any, bias ? &c.bias : NULL, &c.y,
                                                         c.strides, c.before, c.after));
    DNNL_TRY(new_attributes(&attr));
    dnnl_status_t r = forward_description(b, &c, bias, attr, &hint);
    if (r == dnnl_success) r = dnnl_primitive_desc_create(&pd, &desc, attr, b->state->engine, hint);
    if (r == dnnl_success) r = add_weight_gradient(b, &c, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* ---- the provider ---- */

/* db[o] += sum over the rows of dy[row, o]. */
static void add_column_sums(const onednn_state *s, const float *dy, float *db, int threads) {
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

static dnnl_status_t run_job(const onednn_state *s, const job *j, void *const *slots,
                             void *workspace) {
    dnnl_exec_arg_t args[MAX_ARGS];
    for (int i = 0; i < j->n; i++) {
        const binding *b = &j->args[i];
        void *at = b->slot == IN_WORKSPACE ? (char *)workspace + b->offset : slots[b->slot];
        DNNL_TRY(dnnl_memory_set_data_handle(b->memory, at));
        args[i] = (dnnl_exec_arg_t){b->name, b->memory};
    }
    return dnnl_primitive_execute(j->primitive, s->stream, j->n, args);
}

static tw_status onednn_run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                            void *workspace) {
    const onednn_state *s = kernel->state;
    dnnl_status_t r = dnnl_success;
    omp_set_num_threads(s->threads);
    for (int i = 0; i < s->n_jobs && r == dnnl_success; i++)
        r = run_job(s, &s->jobs[i], slots, workspace);
    omp_set_num_threads(backend->threads);
    if (r != dnnl_success)
        return tw_fail(backend->ctx, r == dnnl_out_of_memory ? TW_ERROR_MEMORY : TW_ERROR_DEVICE,
                       "oneDNN: status %d", (int)r);
    if (s->sum_to >= 0) add_column_sums(s, slots[s->sum_from], slots[s->sum_to], s->threads);
    return TW_OK;
}

static void clear_jobs(onednn_state *s) {
    for (int i = 0; i < s->n_jobs; i++) {
        for (int k = 0; k < s->jobs[i].n; k++) dnnl_memory_destroy(s->jobs[i].args[k].memory);
        dnnl_primitive_destroy(s->jobs[i].primitive);
    }
    s->n_jobs = 0;
    s->workspace = 0;
    s->sum_to = -1;
}

static void free_state(tw_backend *backend, onednn_state *s) {
    clear_jobs(s);
    dnnl_stream_destroy(s->stream);
    dnnl_engine_destroy(s->engine);
    tw_free(backend->ctx, s);
}

static void onednn_destroy(tw_kernel *kernel, tw_backend *backend) {
    free_state(backend, kernel->state);
    kernel->state = NULL;
}

typedef dnnl_status_t (*build_fn)(const builder *b);

static build_fn build_of(tw_op_kind kind) {
    switch (kind) {
    case TW_OP_LINEAR:
        return build_linear;
    case TW_OP_LINEAR_BWD_DATA:
        return build_linear_bwd_data;
    case TW_OP_LINEAR_BWD_WEIGHT:
        return build_linear_bwd_weight;
    case TW_OP_CONV2D:
        return build_conv;
    case TW_OP_CONV2D_BWD_DATA:
        return build_conv_bwd_data;
    case TW_OP_CONV2D_BWD_WEIGHT:
        return build_conv_bwd_weight;
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
static dnnl_status_t build_longest(builder *b, build_fn build) {
    dnnl_status_t r = dnnl_unimplemented;
    const bool forward = b->op->kind == TW_OP_LINEAR || b->op->kind == TW_OP_CONV2D;
    for (b->claimed = forward ? longest_claim(b) : 1; b->claimed > 0; b->claimed--) {
        clear_jobs(b->state);
        r = build(b);
        if (r == dnnl_success || r == dnnl_out_of_memory) break;
    }
    return r;
}

static tw_status prepare_state(builder *b, build_fn build) {
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
    onednn_state *s = tw_allocate(backend->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    builder b = {backend, region, op, call.dim, s, 1};
    s->sum_to = -1;
    s->threads = work < SHARED_WORK ? 1 : backend->threads;
    tw_status status = prepare_state(&b, build);
    if (status != TW_OK) {
        free_state(backend, s);
        return status;
    }
    kernel->run = onednn_run;
    kernel->destroy = onednn_destroy;
    kernel->state = s;
    kernel->workspace = s->workspace;
    kernel->claimed = b.claimed;
    return TW_OK;
}

const tw_provider tw_provider_cpu_onednn = {"cpu-onednn", onednn_prepare};
