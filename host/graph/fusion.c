/* Fusions: which operations may be one region. */
#include "graph/internal.h"

const char *tw_fusion_name(int index) {
    static const char *const names[] = {"norm-silu", "epilogue", "norm-statistics", "concat",
                                        "upsample",  "qkv",      "gradients",       "time"};
    const int count = (int)(sizeof names / sizeof *names);
    return index >= 0 && index < count ? names[index] : NULL;
}

static bool is_gradient(tw_op_kind kind) {
    return kind == TW_OP_CONV2D_BWD_DATA || kind == TW_OP_LINEAR_BWD_DATA ||
           kind == TW_OP_GROUP_NORM_BWD || kind == TW_OP_POOL;
}

/* What it is called when the two are one. */
static tw_fusion fusion_of(tw_op_kind first, tw_op_kind second) {
    if (first == TW_OP_SPLIT || second == TW_OP_CONCAT) return TW_FUSION_QKV;
    if (first == TW_OP_CONCAT || second == TW_OP_SPLIT) return TW_FUSION_CONCAT;
    if (first == TW_OP_UPSAMPLE_NEAREST || second == TW_OP_POOL) return TW_FUSION_UPSAMPLE;
    if (second == TW_OP_GROUP_NORM) return TW_FUSION_NORM_STATISTICS;
    if (second == TW_OP_SUM_SPATIAL) return TW_FUSION_TIME;
    return is_gradient(first) && second == TW_OP_AXPBY ? TW_FUSION_GRADIENTS : TW_FUSION_EPILOGUE;
}

bool tw_plan_links(const tw_plan *plan, tw_op_kind first, tw_op_kind second) {
    return tw_plan_fuses(plan, fusion_of(first, second));
}

/* --- Tensors that every reader makes for itself ---------------------------------------------- */

typedef struct spread {
    tw_plan *plan;
    tw_reads_through reads;
    int *of;    /* by node: the node that is done again for it; -1: none */
    bool *gone; /* by node: done again for each of its readers */
    int *place; /* by node: its index afterwards, that of what is done for it being one less */
} spread;

static tw_fusion spread_by(tw_op_kind kind) {
    switch (kind) {
    case TW_OP_CONCAT:
        return TW_FUSION_CONCAT;
    case TW_OP_UPSAMPLE_NEAREST:
        return TW_FUSION_UPSAMPLE;
    case TW_OP_SPLIT:
        return TW_FUSION_QKV;
    default:
        return 0;
    }
}

/* Whether the node's results are intermediates of operands that stay as they are. */
static bool can_spread(const tw_plan *plan, const tw_node *n) {
    if (!n->live || !tw_plan_fuses(plan, spread_by(n->kind))) return false;
    for (int k = 0; k < n->n_in; k++)
        if (plan->values[plan->values[n->in[k]].root].kind == TW_VALUE_OUTSIDE) return false;
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k] == TW_NONE) return false;
        const tw_value_info *v = &plan->values[n->out[k]];
        if (v->kind != TW_VALUE_INTERMEDIATE || v->kept) return false;
    }
    return true;
}

/* Whether `n` reads a result of `maker`; `whole` becomes false where it reads a view of one. */
static bool reads_of(const tw_plan *plan, const tw_node *n, const tw_node *maker, bool *whole) {
    bool any = false;
    for (int k = 0; n->live && k < n->n_in; k++)
        for (int o = 0; n->in[k] != TW_NONE && o < maker->n_out; o++) {
            if (plan->values[n->in[k]].root != maker->out[o]) continue;
            any = true;
            if (n->in[k] != maker->out[o]) *whole = false;
        }
    return any;
}

/* Marks the readers of node `i` if all of them read through it. */
static tw_status mark_readers(spread *s, int i) {
    tw_plan *plan = s->plan;
    bool all = true;
    int readers = 0;
    for (int j = i + 1; j < plan->n_nodes && all; j++) {
        if (!reads_of(plan, &plan->nodes[j], &plan->nodes[i], &all)) continue;
        readers++;
        all = all && s->of[j] < 0;
        if (all) TW_TRY(s->reads(plan, i, j, &all));
    }
    if (!all || !readers) return TW_OK;
    s->gone[i] = true;
    for (int j = i + 1; j < plan->n_nodes; j++)
        if (reads_of(plan, &plan->nodes[j], &plan->nodes[i], &all)) s->of[j] = i;
    return TW_OK;
}

/* The node again, for the reader that stands behind it. */
static tw_status do_again(const spread *s, tw_node *again, int reader) {
    tw_plan *plan = s->plan;
    tw_node *for_it = again + 1;
    *again = plan->nodes[s->of[reader]];
    again->block = for_it->block;
    /* What is done again in the backward pass is joined as it was in the forward one. */
    const int origin = plan->nodes[reader].origin;
    again->origin = origin >= 0 && s->of[origin] >= 0 ? s->place[origin] - 1 : -1;
    for (int o = 0; o < again->n_out; o++) {
        const tw_value v = again->out[o], own = tw_plan_new(plan, plan->values[v].desc);
        if (own == TW_NONE) return plan->status;
        again->out[o] = own;
        for (int k = 0; k < for_it->n_in; k++)
            if (for_it->in[k] == v) for_it->in[k] = own;
    }
    return TW_OK;
}

static tw_status rebuild(spread *s, tw_node *nodes) {
    tw_plan *plan = s->plan;
    int at = 0, forward = 0;
    for (int i = 0; i < plan->n_nodes; i++) {
        if (i == plan->forward_nodes) forward = at;
        s->place[i] = -1;
        if (s->gone[i]) continue;
        if (s->of[i] >= 0) at++;
        nodes[at] = plan->nodes[i];
        if (nodes[at].origin >= 0) nodes[at].origin = s->place[nodes[at].origin];
        if (s->of[i] >= 0) TW_TRY(do_again(s, &nodes[at - 1], i));
        s->place[i] = at++;
    }
    if (plan->forward_nodes) plan->forward_nodes = forward;
    tw_free(plan->ctx, plan->nodes);
    plan->nodes = nodes;
    plan->n_nodes = at;
    return TW_OK;
}

/* A tensor of the backward pass that stands for one that is gone is one of its own. */
static void forget_origins(const spread *s) {
    tw_plan *plan = s->plan;
    for (int i = 0; i < plan->n_nodes; i++) {
        tw_node *n = &plan->nodes[i];
        if (n->origin < 0 || !s->gone[n->origin]) continue;
        n->origin = -1;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != TW_NONE) plan->values[n->out[k]].origin = TW_NONE;
    }
}

tw_status tw_plan_spread(tw_plan *plan, tw_reads_through reads) {
    const size_t n = (size_t)plan->n_nodes + 1;
    spread s = {.plan = plan, .reads = reads};
    s.of = tw_allocate(plan->ctx, n, sizeof *s.of);
    s.gone = tw_allocate(plan->ctx, n, sizeof *s.gone);
    s.place = tw_allocate(plan->ctx, n, sizeof *s.place);
    tw_node *nodes = tw_allocate(plan->ctx, 2 * n, sizeof *nodes);
    tw_status status = s.of && s.gone && s.place && nodes ? TW_OK : TW_ERROR_MEMORY;
    bool any = false;
    for (int i = 0; i < plan->n_nodes && status == TW_OK; i++) s.of[i] = -1;
    for (int i = 0; i < plan->n_nodes && status == TW_OK; i++) {
        if (!can_spread(plan, &plan->nodes[i])) continue;
        status = mark_readers(&s, i);
        any = any || s.gone[i];
    }
    if (status == TW_OK && any) {
        forget_origins(&s);
        status = rebuild(&s, nodes);
        if (status == TW_OK) nodes = NULL; /* the plan's */
    }
    void *const arrays[] = {s.of, s.gone, s.place, nodes};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) tw_free(plan->ctx, arrays[i]);
    return status;
}
