/* The gradient graph. Each operation's rule reads the gradients of its outputs and adds to those of
 * its inputs; gradients of parameters are accumulated in place by the operations themselves. */
#include <string.h>

#include "graph/internal.h"

typedef struct tw_backward {
    tw_plan *plan;
    bool *requires;    /* by value: a parameter or a wanted value lies behind it */
    tw_value *grad;    /* by root value: the gradient so far */
    tw_value *columns; /* by root value: of one that is read by columns, not yet in grad */
    int count;         /* values of the forward part */
    tw_remake remake;
} tw_backward;

static tw_value root_of(const tw_plan *plan, tw_value v) {
    return plan->values[v].root;
}

static bool needs(const tw_backward *b, tw_value v) {
    return v != TW_NONE && b->requires[root_of(b->plan, v)];
}

/* Views share their root's gradient; only those of the whole root can be differentiated. */
static bool whole(tw_plan *plan, tw_value v) {
    tw_desc root = plan->values[root_of(plan, v)].desc;
    if (tw_desc_count(&root) == tw_desc_count(tw_plan_desc(plan, v))) return true;
    tw_plan_fail(plan, TW_ERROR_UNSUPPORTED, "backward: a part of a batch has no gradient");
    return false;
}

static tw_value like(tw_plan *plan, tw_value x, tw_value shape_of) {
    if (x == TW_NONE || shape_of == TW_NONE) return TW_NONE;
    tw_desc d = plan->values[shape_of].desc, from = plan->values[x].desc;
    if (d.rank == from.rank && memcmp(d.dim, from.dim, sizeof d.dim) == 0) return x;
    return tw_plan_reshape(plan, x, d.rank, d.dim);
}

static tw_value in_format(tw_plan *plan, tw_value x, tw_dtype dtype) {
    if (x == TW_NONE || plan->values[x].desc.dtype == dtype) return x;
    const tw_value y = tw_plan_convert(plan, x, dtype);
    if (y != TW_NONE) plan->values[y].slope_of = plan->values[x].slope_of;
    return y;
}

static void accumulate(tw_backward *b, tw_value v, tw_value dv) {
    tw_plan *plan = b->plan;
    if (!needs(b, v) || dv == TW_NONE || !whole(plan, v)) return;
    tw_value root = root_of(plan, v);
    dv = like(plan, in_format(plan, dv, plan->values[root].desc.dtype), root);
    if (b->grad[root] == TW_NONE) {
        b->grad[root] = dv;
        return;
    }
    b->grad[root] = tw_plan_add(plan, b->grad[root], dv, 1.0, 1.0);
    if (b->grad[root] != TW_NONE) plan->values[b->grad[root]].slope_of = root;
}

/* d loss / d root so far. */
static tw_value so_far(tw_backward *b, tw_value root) {
    const tw_value columns = b->columns[root];
    b->columns[root] = TW_NONE;
    accumulate(b, root, columns);
    return b->grad[root];
}

/* d loss / d v so far, in v's shape; TW_NONE if nothing reached it. */
static tw_value gradient_of(tw_backward *b, tw_value v) {
    tw_value g = so_far(b, root_of(b->plan, v));
    if (g == TW_NONE || !whole(b->plan, v)) return TW_NONE;
    return like(b->plan, g, v);
}

/* A place for d loss / d v. */
static tw_value temp(tw_plan *plan, tw_value v) {
    tw_value t = v == TW_NONE ? TW_NONE : tw_plan_new(plan, plan->values[v].desc);
    if (t != TW_NONE) plan->values[t].slope_of = v;
    return t;
}

static tw_value zeros(tw_plan *plan, tw_value v, tw_dtype dtype) {
    const tw_value t = temp(plan, v);
    const tw_op_attr zero = {.fill = {0.0}};
    if (t != TW_NONE) plan->values[t].desc.dtype = dtype;
    tw_plan_emit(plan, TW_OP_FILL, &zero, 0, NULL, 1, &t);
    return t;
}

/* Where an operation may add the gradient of `v`: a parameter's own storage, or zeroed memory that
 * settle() then passes on. */
static tw_value sink(tw_backward *b, tw_value v) {
    if (v == TW_NONE) return TW_NONE;
    const tw_value_info *info = &b->plan->values[v];
    return info->parameter ? info->gradient : zeros(b->plan, v, b->plan->wide);
}

static void settle(tw_backward *b, tw_value v, tw_value from) {
    if (v != TW_NONE && !b->plan->values[v].parameter) accumulate(b, v, from);
}

/* The operand of which a node reads some columns but not all; TW_NONE without one. */
static tw_value columns_read(const tw_plan *plan, const tw_node *n) {
    const bool norm = n->kind == TW_OP_GROUP_NORM;
    const tw_value v = norm ? n->in[3] : n->kind == TW_OP_ADD_VEC ? n->in[1] : TW_NONE;
    if (v == TW_NONE) return TW_NONE;
    const tw_desc *x = &plan->values[n->in[0]].desc;
    const int64_t channels = x->dim[x->rank - 1];
    return plan->values[v].desc.dim[1] == (norm ? 2 * channels : channels) ? TW_NONE : v;
}

/* Their gradients share a tensor, in which the columns that nobody reads stay zero. */
static void prepare_columns(tw_backward *b, int nodes) {
    tw_plan *plan = b->plan;
    for (int i = 0; i < nodes; i++) {
        const tw_value v = columns_read(plan, &plan->nodes[i]);
        if (v == TW_NONE || !needs(b, v) || b->columns[root_of(plan, v)] != TW_NONE) continue;
        b->columns[root_of(plan, v)] = zeros(plan, v, plan->values[v].desc.dtype);
    }
}

/* Where node `n` puts d loss / d v, v being the vectors or scales that it reads. */
static tw_value vectors_gradient(tw_backward *b, const tw_node *n, tw_value v) {
    const tw_value shared =
        columns_read(b->plan, n) == TW_NONE ? TW_NONE : b->columns[root_of(b->plan, v)];
    return shared != TW_NONE ? shared : temp(b->plan, v);
}

static void settle_vectors(tw_backward *b, tw_value v, tw_value from) {
    if (v != TW_NONE && from != b->columns[root_of(b->plan, v)]) accumulate(b, v, from);
}

typedef void (*tw_rule)(tw_backward *b, const tw_node *n, tw_value dy);

static void linear_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    bool conv = n->kind == TW_OP_CONV2D;
    tw_value x = n->in[0], w = n->in[1], bias = n->in[2];
    if (needs(b, w) || needs(b, bias)) {
        tw_value out[2] = {sink(b, w), needs(b, bias) ? sink(b, bias) : TW_NONE};
        tw_plan_emit(b->plan, conv ? TW_OP_CONV2D_BWD_WEIGHT : TW_OP_LINEAR_BWD_WEIGHT, &n->attr, 2,
                     (tw_value[]){x, dy}, 2, out);
        settle(b, w, out[0]);
        if (out[1] != TW_NONE) settle(b, bias, out[1]);
    }
    if (needs(b, x)) {
        tw_value dx = temp(b->plan, x);
        tw_plan_emit(b->plan, conv ? TW_OP_CONV2D_BWD_DATA : TW_OP_LINEAR_BWD_DATA, &n->attr, 2,
                     (tw_value[]){dy, w}, 1, &dx);
        accumulate(b, x, dx);
    }
}

static void group_norm_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value x = n->in[0], ss = n->in[3];
    tw_value in[] = {dy, x, n->in[1], n->in[2], ss, n->out[1], n->out[2]};
    tw_value out[] = {temp(b->plan, x), sink(b, n->in[1]), sink(b, n->in[2]),
                      vectors_gradient(b, n, ss)};
    tw_plan_emit(b->plan, TW_OP_GROUP_NORM_BWD, &n->attr, 7, in, 4, out);
    accumulate(b, x, out[0]);
    settle(b, n->in[1], out[1]);
    settle(b, n->in[2], out[2]);
    settle_vectors(b, ss, out[3]);
}

static void act_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value dx = temp(b->plan, n->in[0]);
    tw_plan_emit(b->plan, TW_OP_ACT_BWD, &n->attr, 2, (tw_value[]){dy, n->in[0]}, 1, &dx);
    accumulate(b, n->in[0], dx);
}

static void axpby_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    double factor[2] = {n->attr.axpby.alpha, n->attr.axpby.beta};
    for (int i = 0; i < 2; i++) {
        if (!needs(b, n->in[i])) continue;
        accumulate(b, n->in[i], factor[i] == 1.0 ? dy : tw_plan_scale(b->plan, dy, factor[i], 0.0));
    }
}

static void add_vec_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    accumulate(b, n->in[0], dy);
    if (!needs(b, n->in[1])) return;
    tw_value dv = vectors_gradient(b, n, n->in[1]);
    tw_plan_emit(b->plan, TW_OP_SUM_SPATIAL, &n->attr, 1, &dy, 1, &dv);
    settle_vectors(b, n->in[1], dv);
}

/* The same operation on dy, with the other operands as they are. */
static void same_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value dx = temp(b->plan, n->in[0]);
    tw_plan_emit(b->plan, n->kind, &n->attr, 2, (tw_value[]){dy, n->in[1]}, 1, &dx);
    accumulate(b, n->in[0], dx);
}

static void concat_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value out[TW_OP_MAX_OUT];
    for (int i = 0; i < n->n_in; i++) out[i] = temp(b->plan, n->in[i]);
    tw_plan_emit(b->plan, TW_OP_SPLIT, NULL, 1, &dy, n->n_in, out);
    for (int i = 0; i < n->n_in; i++) accumulate(b, n->in[i], out[i]);
}

static void split_rule(tw_backward *b, const tw_node *n, tw_value unused) {
    (void)unused;
    tw_value in[TW_OP_MAX_OUT];
    for (int i = 0; i < n->n_out; i++) {
        in[i] = gradient_of(b, n->out[i]);
        if (in[i] == TW_NONE) /* nobody used this part */
            in[i] = zeros(b->plan, n->out[i], b->plan->values[n->out[i]].desc.dtype);
    }
    tw_value dx = temp(b->plan, n->in[0]);
    if (n->n_out == 1)
        dx = in[0];
    else
        tw_plan_emit(b->plan, TW_OP_CONCAT, NULL, n->n_out, in, 1, &dx);
    accumulate(b, n->in[0], dx);
}

static void resample_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_op_kind other = n->kind == TW_OP_POOL ? TW_OP_UPSAMPLE_NEAREST : TW_OP_POOL;
    tw_value dx = temp(b->plan, n->in[0]);
    tw_plan_emit(b->plan, other, &n->attr, 1, &dy, 1, &dx);
    accumulate(b, n->in[0], dx);
}

static void embedding_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value out = sink(b, n->in[0]);
    tw_plan_emit(b->plan, TW_OP_EMBEDDING_BWD, NULL, 2, (tw_value[]){dy, n->in[1]}, 1, &out);
    settle(b, n->in[0], out);
}

static void attention_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value in[] = {dy, n->in[0], n->in[1], n->in[2], n->out[0], n->out[1], n->in[3]};
    tw_value out[] = {temp(b->plan, n->in[0]), temp(b->plan, n->in[1]), temp(b->plan, n->in[2])};
    tw_plan_emit(b->plan, TW_OP_ATTENTION_BWD, &n->attr, 7, in, 3, out);
    for (int i = 0; i < 3; i++) accumulate(b, n->in[i], out[i]);
}

static void mse_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    tw_value dp = temp(b->plan, n->in[0]);
    tw_plan_emit(b->plan, TW_OP_MSE_BWD, NULL, 4, (tw_value[]){dy, n->in[0], n->in[1], n->in[2]}, 1,
                 &dp);
    accumulate(b, n->in[0], dp);
    if (needs(b, n->in[1])) accumulate(b, n->in[1], tw_plan_scale(b->plan, dp, -1.0, 0.0));
}

static void repeat_rule(tw_backward *b, const tw_node *n, tw_value dy) {
    int64_t half = b->plan->values[n->in[0]].desc.dim[0];
    tw_value lower = tw_plan_slice_batch(b->plan, dy, 0, half),
             upper = tw_plan_slice_batch(b->plan, dy, half, half);
    accumulate(b, n->in[0], tw_plan_add(b->plan, lower, upper, 1.0, 1.0));
}

static const tw_rule rules[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = linear_rule,
    [TW_OP_CONV2D] = linear_rule,
    [TW_OP_GROUP_NORM] = group_norm_rule,
    [TW_OP_ACT] = act_rule,
    [TW_OP_AXPBY] = axpby_rule,
    [TW_OP_ADD_VEC] = add_vec_rule,
    [TW_OP_PER_SAMPLE_SCALE] = same_rule,
    [TW_OP_DROPOUT] = same_rule,
    [TW_OP_CONCAT] = concat_rule,
    [TW_OP_SPLIT] = split_rule,
    [TW_OP_UPSAMPLE_NEAREST] = resample_rule,
    [TW_OP_POOL] = resample_rule,
    [TW_OP_EMBEDDING] = embedding_rule,
    [TW_OP_ATTENTION] = attention_rule,
    [TW_OP_MSE] = mse_rule,
    [TW_OP_REPEAT_BATCH] = repeat_rule,
};

/* Finds what the gradient must reach, and gives every parameter that the plan uses its storage. */
static bool trace(tw_backward *b) {
    tw_plan *plan = b->plan;
    for (int v = 0; v < b->count; v++) {
        b->grad[v] = b->columns[v] = TW_NONE;
        if (plan->values[v].wanted || plan->values[v].parameter)
        b->requires[root_of(plan, v)] = true;
    }
    for (int i = 0; i < plan->n_nodes; i++) {
        const tw_node *n = &plan->nodes[i];
        bool any = false;
        for (int k = 0; k < n->n_in; k++) any = any || needs(b, n->in[k]);
        if (!any || !rules[n->kind]) continue;
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] != TW_NONE) b->requires[root_of(plan, n->out[k])] = true;
    }
    for (int v = 0; v < b->count; v++) {
        if (!plan->values[v].parameter || plan->values[v].gradient != TW_NONE) continue;
        tw_desc wide = plan->values[v].desc;
        wide.dtype = plan->wide;
        tw_value g = tw_plan_outside(plan, plan->values[v].name, wide, true);
        if (g == TW_NONE) return false;
        plan->values[v].gradient = g;
        plan->values[g].slope_of = v;
    }
    return true;
}

static void walk(tw_backward *b, int last_node) {
    tw_plan *plan = b->plan;
    for (int i = last_node; i >= 0 && plan->status == TW_OK; i--) {
        tw_node node = plan->nodes[i]; /* a copy: emitting moves the array */
        bool reached = false;
        for (int k = 0; k < node.n_out; k++)
            if (node.out[k] != TW_NONE)
                reached = reached || so_far(b, root_of(plan, node.out[k])) != TW_NONE;
        if (!reached || !rules[node.kind] || !needs(b, node.out[0])) continue;
        tw_value dy = gradient_of(b, node.out[0]);
        if (dy == TW_NONE && node.kind != TW_OP_SPLIT) continue;
        const int from = plan->n_nodes;
        rules[node.kind](b, &node, dy);
        tw_remake_operands(&b->remake, from);
    }
    for (tw_value v = 0; v < b->count && plan->status == TW_OK; v++) {
        tw_value g = so_far(b, v);
        if (plan->values[v].parameter && g != TW_NONE) {
            /* Reached other than by an operation that accumulates in place. */
            tw_value sum = plan->values[v].gradient;
            tw_op_attr one = {.axpby = {1.0, 1.0}};
            g = like(plan, in_format(plan, g, plan->wide), sum);
            tw_plan_emit(plan, TW_OP_AXPBY, &one, 2, (tw_value[]){sum, g}, 1, &sum);
        } else if (plan->values[v].wanted && g != TW_NONE) {
            plan->values[v].gradient = g;
            tw_plan_keep(plan, g);
        }
    }
}

tw_status tw_plan_backward(tw_plan *plan, tw_value loss, double scale) {
    if (!plan) return tw_fail(NULL, TW_ERROR_ARGUMENT, "plan: backward: no plan");
    if (!tw_plan_usable(plan, "backward", loss))
        return tw_fail(plan->ctx, plan->status ? plan->status : TW_ERROR_ARGUMENT, "plan: %s",
                       plan->error ? plan->error : "backward");
    if (tw_desc_count(tw_plan_desc(plan, loss)) != 1) {
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "backward: the loss has %lld elements, expected 1",
                     (long long)tw_desc_count(tw_plan_desc(plan, loss)));
        return plan->status;
    }
    tw_backward b = {.plan = plan, .count = plan->n_values};
    b.requires = tw_allocate(plan->ctx, (size_t)b.count, sizeof *b.requires);
    b.grad = tw_allocate(plan->ctx, (size_t)b.count, sizeof *b.grad);
    b.columns = tw_allocate(plan->ctx, (size_t)b.count, sizeof *b.columns);
    if (!b.requires || !b.grad || !b.columns) {
        tw_plan_fail(plan, TW_ERROR_MEMORY, "backward: out of memory");
    } else if (tw_remake_begin(&b.remake, plan) && trace(&b)) {
        int last_node = plan->n_nodes - 1;
        plan->forward_nodes = plan->n_nodes;
        tw_value one = temp(plan, loss);
        tw_op_attr attr = {.fill = {scale}};
        tw_plan_emit(plan, TW_OP_FILL, &attr, 0, NULL, 1, &one);
        b.grad[root_of(plan, loss)] = one;
        prepare_columns(&b, last_node + 1);
        walk(&b, last_node);
    }
    tw_remake_end(&b.remake);
    tw_free(plan->ctx, b.requires);
    tw_free(plan->ctx, b.grad);
    tw_free(plan->ctx, b.columns);
    return plan->status;
}
