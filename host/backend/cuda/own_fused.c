/* What the products' kernels do besides the product, claimed with it:
 *
 *     [upsampling by 2] convolution [+ vector per sample] [(x + y) factor] [SiLU]
 *     linear [(x + y) factor] [SiLU]
 *     [upsampling by 2] a weight's gradient
 *     a data gradient [pooled by 2, as upsampling's gradient is] [+ another gradient]
 *     GroupNorm's gradient [+ another gradient] [split in two]
 *     GroupNorm's gradient [and its sums over the pixels]
 *
 *     [split in three] attention
 *     [split in three] attention's gradient, joined again
 *
 * and in the place of upsampling a concatenation of two, before GroupNorm and its gradient, too; as
 * long as nobody else reads what lies between. */
#include <limits.h>

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
    f->column = op->attr.vector.column;
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

int tw_own_image(tw_op_kind kind) {
    switch (kind) {
    case TW_OP_CONV2D:
    case TW_OP_CONV2D_BWD_WEIGHT:
    case TW_OP_GROUP_NORM:
    case TW_OP_ATTENTION:
        return 0;
    case TW_OP_GROUP_NORM_BWD:
    case TW_OP_ATTENTION_BWD:
        return 1;
    default:
        return -1;
    }
}

/* The first operation, whose result is nothing but the image of the second, is done by that. */
static void take_first(const tw_region *region, tw_own_fused *f) {
    f->product = 1;
    f->claimed = 2;
    f->result = region->ops[1].out[0];
}

static bool is_image_of_next(const tw_region *region) {
    const tw_region_op *first = &region->ops[0], *op = &region->ops[1];
    if (region->n_ops < 2 || !is_hidden(region, first->out[0])) return false;
    const int image = tw_own_image(op->kind);
    return image >= 0 && op->in[image] == first->out[0];
}

static bool is_attention(tw_op_kind kind) {
    return kind == TW_OP_ATTENTION || kind == TW_OP_ATTENTION_BWD;
}

static bool is_norm(tw_op_kind kind) {
    return kind == TW_OP_GROUP_NORM || kind == TW_OP_GROUP_NORM_BWD;
}

static void take_upsampling(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *up = &region->ops[0];
    if (up->attr.resample.k != 2 || up->attr.resample.scale != 1 || !is_image_of_next(region) ||
        is_norm(region->ops[1].kind) || is_attention(region->ops[1].kind) ||
        !doubles(&region->slots[up->in[0]].desc, &region->slots[up->out[0]].desc))
        return;
    take_first(region, f);
    f->upsampled = up->in[0];
}

/* What GroupNorm's kernels ask of each part. */
static bool is_of_vectors(const tw_desc *d) {
    return (size_t)d->dim[d->rank - 1] * tw_dtype_size(d->dtype) % 16 == 0;
}

static void take_concat(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *concat = &region->ops[0];
    if (concat->n_in != 2 || !is_image_of_next(region) || is_attention(region->ops[1].kind)) return;
    for (int k = 0; k < 2; k++) {
        const tw_desc *part = &region->slots[concat->in[k]].desc;
        if (part->rank != 4 || part->dim[3] > INT_MAX / 2 ||
            (is_norm(region->ops[1].kind) && !is_of_vectors(part)))
            return;
    }
    take_first(region, f);
    f->first = concat->in[0];
    f->second = concat->in[1];
}

/* Whether three hidden slots are those of another operation's operands or results. */
static bool are_three(const tw_region *region, const int *slots, const int *others) {
    for (int k = 0; k < 3; k++)
        if (slots[k] != others[k] || !is_hidden(region, slots[k])) return false;
    return true;
}

/* q, k and v, which are parts of one tensor; the gradients must become one, too. */
static void take_qkv(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *split = &region->ops[0], *op = &region->ops[1], *joint = &region->ops[2];
    if (region->n_ops < 2 || !is_attention(op->kind) || split->n_out != 3 ||
        !are_three(region, split->out, op->in + tw_own_image(op->kind)))
        return;
    const bool gradient = op->kind == TW_OP_ATTENTION_BWD;
    if (gradient && (region->n_ops < 3 || joint->kind != TW_OP_CONCAT || joint->n_in != 3 ||
                     !are_three(region, joint->in, op->out)))
        return;
    take_first(region, f);
    f->packed = split->in[0];
    if (gradient) take(f, joint);
}

/* The gradient stays, and others read it. */
static void take_sums(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = &region->ops[f->claimed];
    if (f->claimed >= region->n_ops || op->kind != TW_OP_SUM_SPATIAL || op->in[0] != f->result ||
        is_hidden(region, f->result) || f->residual >= 0)
        return;
    f->sums = op->out[0];
    f->column = op->attr.vector.column;
    f->claimed++;
}

/* Into the parts that the input has. */
static void take_split(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_SPLIT);
    if (!op || f->second < 0 || op->n_out != 2 || op->out[0] < 0 || op->out[1] < 0) return;
    const tw_desc *d = &region->slots[op->out[0]].desc, *first = &region->slots[f->first].desc;
    if (d->dim[d->rank - 1] != first->dim[first->rank - 1]) return;
    f->second_result = op->out[1];
    take(f, op);
}

static void take_pooling(const tw_region *region, tw_own_fused *f) {
    const tw_region_op *op = next(region, f, TW_OP_POOL);
    if (!op || op->attr.resample.k != 2 || op->attr.resample.scale != 1 ||
        !doubles(&region->slots[op->out[0]].desc, &region->slots[f->result].desc))
        return;
    f->upsampled = op->out[0];
    take(f, op);
}

tw_own_fused tw_own_alone(const tw_region *region, int product) {
    const tw_region_op *op = &region->ops[product];
    return (tw_own_fused){.claimed = 1,
                          .product = product,
                          .result = op->n_out > 0 ? op->out[0] : -1,
                          .vector = -1,
                          .residual = -1,
                          .sums = -1,
                          .upsampled = -1,
                          .first = -1,
                          .second = -1,
                          .packed = -1,
                          .second_result = -1,
                          .scale = 1};
}

tw_own_fused tw_own_fuse(const tw_region *region) {
    const tw_region_op *op = &region->ops[0];
    tw_own_fused f = tw_own_alone(region, 0);
    if (op->kind == TW_OP_UPSAMPLE_NEAREST) take_upsampling(region, &f);
    if (op->kind == TW_OP_CONCAT) take_concat(region, &f);
    if (op->kind == TW_OP_SPLIT) take_qkv(region, &f);
    const tw_op_kind kind = region->ops[f.product].kind;
    f.data_gradient = kind == TW_OP_CONV2D_BWD_DATA || kind == TW_OP_LINEAR_BWD_DATA ||
                      kind == TW_OP_GROUP_NORM_BWD;
    if (kind == TW_OP_CONV2D_BWD_DATA) take_pooling(region, &f);
    if (kind == TW_OP_CONV2D) take_vector(region, &f);
    if (kind == TW_OP_CONV2D || kind == TW_OP_LINEAR || f.data_gradient) take_sum(region, &f);
    if (kind == TW_OP_CONV2D || kind == TW_OP_LINEAR) take_silu(region, &f);
    if (kind == TW_OP_GROUP_NORM_BWD) {
        take_split(region, &f);
        take_sums(region, &f);
    }
    return f;
}
