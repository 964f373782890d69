/* What follows a product in the same pass: an activation, a sum. */
#include "backend/cpu/onednn.h"

/* The other operand of a tw_dnnl_plain sum, or -1. */
static int other_summand(const tw_region_op *op, int previous) {
    if (op->kind != TW_OP_AXPBY || op->n_in < 2 || op->in[1] < 0) return -1;
    if (op->attr.axpby.alpha != 1 || op->attr.axpby.beta != 1 || op->in[0] == op->in[1]) return -1;
    if (op->in[0] == previous) return op->in[1];
    return op->in[1] == previous ? op->in[0] : -1;
}

/* Whether operation k can be computed where the one before it is stored. */
static bool fusible(const tw_dnnl_builder *b, int k) {
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

int tw_dnnl_longest_claim(const tw_dnnl_builder *b) {
    int n = 1;
    while (n < b->region->n_ops && n < 3 && fusible(b, n)) n++;
    return n;
}

/* The fused operations as attributes; `dst` is the result's layout. `sum` accumulates instead. */
dnnl_status_t tw_dnnl_fused_attributes(const tw_dnnl_builder *b, const dnnl_memory_desc_t *dst,
                                       bool sum, dnnl_primitive_attr_t *attr) {
    dnnl_post_ops_t ops = NULL;
    TW_DNNL_TRY(tw_dnnl_attributes(attr));
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

dnnl_status_t tw_dnnl_bind_fused(const tw_dnnl_builder *b, tw_dnnl_job *j,
                                 const dnnl_memory_desc_t *dst) {
    for (int k = 1; k < b->claimed; k++) {
        const tw_region_op *op = &b->region->ops[k];
        if (op->kind != TW_OP_AXPBY) continue;
        const int other = other_summand(op, b->region->ops[k - 1].out[0]);
        TW_DNNL_TRY(tw_dnnl_bind(
            b->state, j, DNNL_ARG_ATTR_MULTIPLE_POST_OP(k - 1) | DNNL_ARG_SRC_1, dst, other));
    }
    return dnnl_success;
}

int tw_dnnl_slot_in(const tw_region_op *op, int i) {
    return i < op->n_in ? op->in[i] : -1;
}

int tw_dnnl_slot_out(const tw_region_op *op, int i) {
    return i < op->n_out ? op->out[i] : -1;
}

int tw_dnnl_result(const tw_dnnl_builder *b) {
    return b->region->ops[b->claimed - 1].out[0];
}
