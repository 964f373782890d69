/* What the products' kernels do besides the product, claimed with it:
 *
 *     [upsampling by 2] convolution [+ vector per sample] [(x + y) factor] [SiLU]
 *     linear [(x + y) factor] [SiLU]
 *     a data gradient [pooled by 2, as upsampling's gradient is] [+ another gradient]
 *
 * as long as nobody else reads what lies between. */
#include "backend/cuda/own.h"

static bool is_hidden(const tw_region *region, int slot) {
    return slot >= 0 && !region->slots[slot].needed;
}

/* The next operation, if it takes `slot` and is of this kind. */
static const tw_region_op *next(const tw_region *region, const tw_own_fused *f, tw_op_kind kind) {
    if (f->claimed >= region->n_ops || !is_hidden(region, f->result)) return NULL;
    const tw_region_op *op = &region->ops[f->claimed];
    return op->kind == kind ? op : NULL;
}

static void take(tw_own_fused *f, const tw_region_op *op) {
    f->result = op->out[0];
    f->claimed++;
}

/* (x + y) factor, y like x. */
static bool take_sum(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_AXPBY);
    if (!op || op->n_in < 2 || op->in[1] < 0 || op->in[0] == op->in[1]) return false;
    const double factor = op->attr.axpby.alpha;
    if (factor != op->attr.axpby.beta || factor == 0) return false;
    const int other = op->in[op->in[0] == f->result ? 1 : 0];
    if (f->data_gradient && factor != 1) return false;
    f->residual = other;
    f->scale = (float)factor;
    take(f, op);
    return true;
}

static void take_vector(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_ADD_VEC);
    if (!op || op->in[0] != f->result) return;
    f->vector = op->in[1];
    take(f, op);
}

static void take_silu(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_ACT);
    if (!op || op->attr.act.kind != TW_ACT_SILU) return;
    f->silu = true;
    take(f, op);
}

/* Whether the large image is the small one with every pixel twice along both axes. */
static bool doubles(const tw_desc *small, const tw_desc *large) {
    return large->dim[1] == 2 * small->dim[1] && large->dim[2] == 2 * small->dim[2];
}

static void take_upsampling(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *up = &region->ops[0], *conv = &region->ops[1];
    if (up->attr.resample.k != 2 || up->attr.resample.scale != 1 || region->n_ops < 2 ||
        conv->kind != TW_OP_CONV2D || conv->in[0] != up->out[0] || !is_hidden(region, up->out[0]) ||
        !doubles(&region->slots[up->in[0]].desc, &region->slots[up->out[0]].desc))
        return;
    f->product = 1;
    f->claimed = 2;
    f->upsampled = up->in[0];
    f->result = conv->out[0];
}

static void take_pooling(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_POOL);
    if (!op || op->attr.resample.k != 2 || op->attr.resample.scale != 1 ||
        !doubles(&region->slots[op->out[0]].desc, &region->slots[f->result].desc))
        return;
    f->upsampled = op->out[0];
    take(f, op);
}

tw_own_fused tw_own_fuse(const tw_region *region) {
    const tw_region_op *op = &region->ops[0];
    tw_own_fused f = {.claimed = 1,
                      .result = op->n_out > 0 ? op->out[0] : -1,
                      .vector = -1,
                      .residual = -1,
                      .upsampled = -1,
                      .scale = 1};
    if (op->kind == TW_OP_UPSAMPLE_NEAREST) take_upsampling(region, &f);
    const tw_op_kind kind = region->ops[f.product].kind;
    f.data_gradient = kind == TW_OP_CONV2D_BWD_DATA || kind == TW_OP_LINEAR_BWD_DATA;
    if (kind == TW_OP_CONV2D_BWD_DATA) take_pooling(region, &f);
    if (kind == TW_OP_CONV2D) take_vector(region, &f);
    if (kind == TW_OP_CONV2D || kind == TW_OP_LINEAR || f.data_gradient) take_sum(region, &f);
    if (kind == TW_OP_CONV2D || kind == TW_OP_LINEAR) take_silu(region, &f);
    return f;
}
