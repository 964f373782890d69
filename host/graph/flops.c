/* The arithmetic of a node, for utilisation: convolutions, matrix products and attention. */
#include "graph/internal.h"

static double count(const tw_plan *plan, tw_value v) {
    return (double)tw_desc_count(tw_plan_desc(plan, v));
}

/* Multiply-adds that one output (or, in a gradient, one element of dy) takes part in. */
static double weights_per_output(const tw_plan *plan, tw_value weights) {
    const tw_desc *w = tw_plan_desc(plan, weights);
    const int64_t n = tw_desc_count(w) / w->dim[0];
    return (double)n;
}

double tw_node_flops(const tw_plan *plan, const tw_node *n) {
    switch (n->kind) {
    case TW_OP_LINEAR:
    case TW_OP_CONV2D:
        return 2.0 * count(plan, n->out[0]) * weights_per_output(plan, n->in[1]);
    case TW_OP_LINEAR_BWD_DATA:
    case TW_OP_CONV2D_BWD_DATA:
        return 2.0 * count(plan, n->in[0]) * weights_per_output(plan, n->in[1]);
    case TW_OP_LINEAR_BWD_WEIGHT:
    case TW_OP_CONV2D_BWD_WEIGHT:
        return 2.0 * count(plan, n->in[1]) * weights_per_output(plan, n->out[0]);
    case TW_OP_ATTENTION:
    case TW_OP_ATTENTION_BWD: { /* two products of Tq x Tk x C forward, five backward */
        int q = n->kind == TW_OP_ATTENTION ? 0 : 1;
        double products = n->kind == TW_OP_ATTENTION ? 2.0 : 5.0;
        return 2.0 * products * count(plan, n->in[q]) *
               (double)tw_plan_desc(plan, n->in[q + 1])->dim[1];
    }
    default:
        return 0.0;
    }
}
