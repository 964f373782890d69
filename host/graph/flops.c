/* The arithmetic of a node, for utilisation: convolutions, matrix products and attention. */
#include "graph/internal.h"

static double count(const tw_plan *plan, tw_value v) {
    return (double)tw_desc_count(tw_plan_desc(plan, v));
}

double tw_node_flops(const tw_plan *plan, const tw_node *n) {
    switch (n->kind) {
    case TW_OP_LINEAR:
    case TW_OP_CONV2D: { /* outputs times the weights of one output channel */
        const tw_desc *w = tw_plan_desc(plan, n->in[1]);
        return 2.0 * count(plan, n->out[0]) * (double)(tw_desc_count(w) / w->dim[0]);
    }
    case TW_OP_LINEAR_BWD_DATA:
    case TW_OP_CONV2D_BWD_DATA: {
        const tw_desc *w = tw_plan_desc(plan, n->in[1]);
        return 2.0 * count(plan, n->in[0]) * (double)(tw_desc_count(w) / w->dim[0]);
    }
    case TW_OP_LINEAR_BWD_WEIGHT:
    case TW_OP_CONV2D_BWD_WEIGHT: {
        const tw_desc *w = tw_plan_desc(plan, n->out[0]);
        return 2.0 * count(plan, n->in[1]) * (double)(tw_desc_count(w) / w->dim[0]);
    }
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
