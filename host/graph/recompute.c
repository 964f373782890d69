/* Values that the backward pass makes again. Their makers are copied in groups, in the order of the
 * originals, to where the first of a group's values is read. What no gradient reads of a group is
 * dropped when the plan is compiled. */
#include <string.h>

#include "graph/internal.h"

static tw_value root_of(const tw_plan *plan, tw_value v) {
    return plan->values[v].root;
}

static void find_makers(tw_remake *r) {
    for (int v = 0; v < r->n_values; v++) {
        r->maker[v] = -1;
        r->copy[v] = TW_NONE;
    }
    for (int i = 0; i < r->n_nodes; i++) {
        const tw_node *n = &r->plan->nodes[i];
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != TW_NONE && r->plan->values[n->out[k]].kind == TW_VALUE_INTERMEDIATE)
                r->maker[n->out[k]] = i;
    }
}

/* Whether a node changes nothing but values of its own. */
static bool repeatable(const tw_remake *r, const tw_node *n) {
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] != TW_NONE && r->maker[n->out[k]] < 0) return false;
    return true;
}

static bool reads(const tw_remake *r, const tw_node *n, int maker) {
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] != TW_NONE && r->maker[root_of(r->plan, n->in[k])] == maker) return true;
    return false;
}

static bool is_cheap(tw_op_kind kind) {
    return kind == TW_OP_GROUP_NORM || kind == TW_OP_ACT || kind == TW_OP_DROPOUT;
}

/* Normalisations and activations: a chain of them is a group. */
static void group_norms(tw_remake *r) {
    int groups = 0;
    for (int i = 0; i < r->n_nodes; i++) {
        const tw_node *n = &r->plan->nodes[i];
        if (!is_cheap(n->kind) || !repeatable(r, n)) continue;
        const bool goes_on = i > 0 && r->group[i - 1] && reads(r, n, i - 1);
        r->group[i] = goes_on ? groups : ++groups;
    }
    for (int v = 0; v < r->n_values; v++)
        r->again[v] = r->maker[v] >= 0 && r->group[r->maker[v]] && !r->plan->values[v].kept;
}

/* Blocks: what is read in other places, too, is kept. */
static void group_blocks(tw_remake *r) {
    for (int i = 0; i < r->n_nodes; i++)
        if (repeatable(r, &r->plan->nodes[i])) r->group[i] = r->plan->nodes[i].block;
    for (int v = 0; v < r->n_values; v++)
        r->again[v] = r->maker[v] >= 0 && r->group[r->maker[v]] && !r->plan->values[v].kept;
    for (int i = 0; i < r->n_nodes; i++) {
        const tw_node *n = &r->plan->nodes[i];
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] == TW_NONE) continue;
            const tw_value v = root_of(r->plan, n->in[k]);
            if (r->maker[v] >= 0 && r->group[r->maker[v]] != r->group[i]) r->again[v] = false;
        }
    }
}

/* A normalisation that is made again takes the first one's mean and rstd, which are small: whoever
 * measured them, it has the same bits, and reads its input once. */
static void keep_statistics(tw_remake *r) {
    for (int i = 0; i < r->n_nodes; i++) {
        const tw_node *n = &r->plan->nodes[i];
        for (int k = 1; n->kind == TW_OP_GROUP_NORM && k < n->n_out; k++)
            if (n->out[k] != TW_NONE) r->again[n->out[k]] = false;
    }
}

static void take_statistics(tw_node *norm) {
    memcpy(norm->in + 4, norm->out + 1, 2 * sizeof *norm->in);
    norm->n_in = 6;
    norm->n_out = 1;
}

bool tw_remake_begin(tw_remake *r, tw_plan *plan) {
    *r = (tw_remake){.plan = plan, .n_nodes = plan->n_nodes, .n_values = plan->n_values};
    if (plan->recompute == TW_RECOMPUTE_NONE) return true;
    const size_t nodes = (size_t)plan->n_nodes + 1, values = (size_t)plan->n_values + 1;
    r->group = tw_allocate(plan->ctx, nodes, sizeof *r->group);
    r->done = tw_allocate(plan->ctx, nodes + (size_t)plan->n_blocks, sizeof *r->done);
    r->maker = tw_allocate(plan->ctx, values, sizeof *r->maker);
    r->again = tw_allocate(plan->ctx, values, sizeof *r->again);
    r->copy = tw_allocate(plan->ctx, values, sizeof *r->copy);
    if (!r->group || !r->done || !r->maker || !r->again || !r->copy) {
        tw_plan_fail(plan, TW_ERROR_MEMORY, "backward: out of memory");
        return false;
    }
    find_makers(r);
    if (plan->recompute == TW_RECOMPUTE_NORMS)
        group_norms(r);
    else
        group_blocks(r);
    keep_statistics(r);
    return true;
}

void tw_remake_end(tw_remake *r) {
    if (!r->plan) return;
    void *const arrays[] = {r->group, r->done, r->maker, r->again, r->copy};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) tw_free(r->plan->ctx, arrays[i]);
}

/* The value of the forward pass behind an operand, if it is to be made again; or TW_NONE. */
static tw_value remade(const tw_remake *r, tw_value operand) {
    if (operand == TW_NONE) return TW_NONE;
    const tw_value root = root_of(r->plan, operand);
    return root < r->n_values && r->again[root] ? root : TW_NONE;
}

/* What a gradient reads in place of `operand`. */
static tw_value stand_in(tw_remake *r, tw_value operand) {
    const tw_value root = remade(r, operand), copy = root == TW_NONE ? TW_NONE : r->copy[root];
    if (copy == TW_NONE) return operand;
    if (operand == root) return copy;
    const tw_value view = tw_plan_new(r->plan, r->plan->values[operand].desc);
    if (view == TW_NONE) return TW_NONE;
    tw_value_info *info = &r->plan->values[view];
    info->kind = TW_VALUE_VIEW;
    info->root = copy;
    info->root_offset = r->plan->values[operand].root_offset;
    return view;
}

static void repeat(tw_remake *r, int index) {
    tw_plan *plan = r->plan;
    tw_node n = plan->nodes[index]; /* a copy: emitting moves the array */
    for (int k = 0; k < n.n_in; k++) n.in[k] = stand_in(r, n.in[k]);
    if (n.kind == TW_OP_GROUP_NORM) take_statistics(&n);
    for (int k = 0; k < n.n_out; k++) {
        const tw_value original = n.out[k];
        if (original == TW_NONE) continue;
        n.out[k] = tw_plan_new(plan, plan->values[original].desc);
        if (n.out[k] == TW_NONE) return;
        plan->values[n.out[k]].origin = original;
        r->copy[original] = n.out[k];
    }
    tw_plan_emit(plan, n.kind, &n.attr, n.n_in, n.in, n.n_out, n.out);
    if (plan->status == TW_OK) plan->nodes[plan->n_nodes - 1].origin = index;
}

/* Copies the group of `value`'s maker, after the groups that it reads. */
static void make_again(tw_remake *r, tw_value value) {
    const int group = r->group[r->maker[value]];
    if (r->done[group]) return;
    r->done[group] = true;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < r->n_nodes && r->plan->status == TW_OK; i++) {
            if (r->group[i] != group) continue;
            if (pass) repeat(r, i);
            for (int k = 0; !pass && k < r->plan->nodes[i].n_in; k++) {
                const tw_value read = remade(r, r->plan->nodes[i].in[k]);
                if (read != TW_NONE) make_again(r, read);
            }
        }
}

static void reverse(tw_node *nodes, int first, int last) {
    for (; first < last; first++, last--) {
        const tw_node n = nodes[first];
        nodes[first] = nodes[last];
        nodes[last] = n;
    }
}

void tw_remake_operands(tw_remake *r, int from) {
    tw_plan *plan = r->plan;
    const int end = plan->n_nodes;
    if (!r->group || plan->status != TW_OK) return;
    for (int i = from; i < end; i++)
        for (int k = 0; k < plan->nodes[i].n_in && plan->status == TW_OK; k++) {
            const tw_value read = remade(r, plan->nodes[i].in[k]);
            if (read != TW_NONE) make_again(r, read);
        }
    if (plan->status != TW_OK) return;
    for (int i = from; i < end; i++)
        for (int k = 0; k < plan->nodes[i].n_in; k++) {
            const tw_value operand = stand_in(r, plan->nodes[i].in[k]);
            plan->nodes[i].in[k] = operand;
        }
    /* The readers go behind what they read. */
    if (plan->n_nodes == end) return;
    reverse(plan->nodes, from, end - 1);
    reverse(plan->nodes, end, plan->n_nodes - 1);
    reverse(plan->nodes, from, plan->n_nodes - 1);
}
