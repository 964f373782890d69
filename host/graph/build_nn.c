/* Builder calls of network layers: they check operands, infer shapes and append nodes. */
#include <math.h>

#include "graph/builder.h"
#include "graph/internal.h"

static bool have(tw_plan *plan, const char *what, const tw_value *v, int n) {
    for (int i = 0; i < n; i++)
        if (!tw_plan_usable(plan, what, v[i])) return false;
    return true;
}

/* True if `v` is a tensor of one of these formats and of this rank (-1: any). */
static bool tensor_of(tw_plan *plan, const char *what, const char *operand, tw_value v,
                      tw_dtype dtype, tw_dtype or_dtype, int rank) {
    const tw_desc *d = tw_plan_desc(plan, v);
    if (d->dtype != dtype && d->dtype != or_dtype) {
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: %s is %s, expected %s", what, operand,
                     tw_dtype_name(d->dtype), tw_dtype_name(dtype));
        return false;
    }
    if (rank >= 0 && d->rank != rank) {
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: %s has rank %d, expected %d", what, operand,
                     d->rank, rank);
        return false;
    }
    return true;
}

/* Of the plan's precision. */
static bool real_rank(tw_plan *plan, const char *what, const char *operand, tw_value v, int rank) {
    return tensor_of(plan, what, operand, v, plan->precision, plan->precision, rank);
}

/* Of the wide format. */
static bool wide_rank(tw_plan *plan, const char *what, const char *operand, tw_value v, int rank) {
    return tensor_of(plan, what, operand, v, plan->wide, plan->wide, rank);
}

/* Of either. */
static bool any_rank(tw_plan *plan, const char *what, const char *operand, tw_value v, int rank) {
    return tensor_of(plan, what, operand, v, plan->precision, plan->wide, rank);
}

static bool extent(tw_plan *plan, const char *what, const char *operand, int64_t got,
                   int64_t want) {
    if (got == want) return true;
    tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: %s is %lld, expected %lld", what, operand,
                 (long long)got, (long long)want);
    return false;
}

static bool same_extents(tw_plan *plan, const char *what, tw_value a, tw_value b) {
    const tw_desc *x = tw_plan_desc(plan, a), *y = tw_plan_desc(plan, b);
    bool same = x->rank == y->rank;
    for (int i = 0; same && i < x->rank; i++) same = x->dim[i] == y->dim[i];
    if (!same) tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: the operands' shapes differ", what);
    return same;
}

static bool same_shape(tw_plan *plan, const char *what, tw_value a, tw_value b) {
    if (!same_extents(plan, what, a, b)) return false;
    if (tw_plan_desc(plan, a)->dtype == tw_plan_desc(plan, b)->dtype) return true;
    tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: the operands' formats differ", what);
    return false;
}

static int64_t last_dim(const tw_desc *d) {
    return d->rank ? d->dim[d->rank - 1] : 1;
}

/* Whether `n` reads columns `from` to `to` of `v`, or some of them. */
static bool reads_columns(const tw_plan *plan, const tw_node *n, tw_value v, int64_t from,
                          int64_t to) {
    const bool add = n->kind == TW_OP_ADD_VEC, norm = n->kind == TW_OP_GROUP_NORM;
    if ((!add && !norm) || n->in[add ? 1 : 3] != v) return false;
    const int64_t first = add ? n->attr.vector.column : n->attr.norm.column;
    const int64_t channels = last_dim(tw_plan_desc(plan, n->in[0]));
    return first < to && from < first + (add ? channels : 2 * channels);
}

/* Whether `v` has the columns, and nobody reads them yet. */
static bool has_columns(tw_plan *plan, const char *what, tw_columns v, int64_t count) {
    const int64_t all = tw_plan_desc(plan, v.of)->dim[1];
    bool has = v.first >= 0 && v.first <= all && count <= all - v.first;
    for (int i = 0; i < plan->n_nodes && has; i++)
        has = !reads_columns(plan, &plan->nodes[i], v.of, v.first, v.first + count);
    if (!has)
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: columns %lld to %lld of %lld: not free", what,
                     (long long)v.first, (long long)v.first + (long long)count, (long long)all);
    return has;
}

static tw_desc vector(tw_dtype dtype, int64_t n) {
    return (tw_desc){dtype, 1, {n, 0, 0, 0}};
}

tw_value tw_plan_linear(tw_plan *plan, tw_value x, tw_value w, tw_value b) {
    const char *what = "linear";
    if (!have(plan, what, (tw_value[]){x, w}, 2) || (b != TW_NONE && !have(plan, what, &b, 1)))
        return TW_NONE;
    if (!real_rank(plan, what, "x", x, -1) || !real_rank(plan, what, "w", w, 2)) return TW_NONE;
    tw_desc y = *tw_plan_desc(plan, x), dw = *tw_plan_desc(plan, w);
    if (y.rank < 1) return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "linear: x has rank 0");
    if (!extent(plan, what, "x's last extent", last_dim(&y), dw.dim[1])) return TW_NONE;
    if (b != TW_NONE &&
        (!wide_rank(plan, what, "b", b, 1) ||
         !extent(plan, what, "b's extent", tw_plan_desc(plan, b)->dim[0], dw.dim[0])))
        return TW_NONE;
    y.dim[y.rank - 1] = dw.dim[0];
    tw_value out = tw_plan_new(plan, y);
    tw_plan_emit(plan, TW_OP_LINEAR, NULL, 3, (tw_value[]){x, w, b}, 1, &out);
    return out;
}

tw_value tw_plan_conv2d(tw_plan *plan, tw_value x, tw_value w, tw_value b, tw_conv_options o) {
    const char *what = "conv2d";
    if (!have(plan, what, (tw_value[]){x, w}, 2) || (b != TW_NONE && !have(plan, what, &b, 1)))
        return TW_NONE;
    if (!real_rank(plan, what, "x", x, 4) || !real_rank(plan, what, "w", w, 4)) return TW_NONE;
    tw_desc y = *tw_plan_desc(plan, x), k = *tw_plan_desc(plan, w);
    if (!extent(plan, what, "x's channel count", y.dim[3], k.dim[3])) return TW_NONE;
    if (b != TW_NONE &&
        (!wide_rank(plan, what, "b", b, 1) ||
         !extent(plan, what, "b's extent", tw_plan_desc(plan, b)->dim[0], k.dim[0])))
        return TW_NONE;
    if (o.stride < 1 || o.pad_top < 0 || o.pad_left < 0 || o.pad_bottom < 0 || o.pad_right < 0)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "conv2d: stride and padding: expected a stride "
                            "of 1 or more and paddings of 0 or more");
    int64_t h = y.dim[1] + o.pad_top + o.pad_bottom - k.dim[1];
    int64_t wd = y.dim[2] + o.pad_left + o.pad_right - k.dim[2];
    if (h < 0 || wd < 0)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "conv2d: a %lldx%lld kernel does not fit the padded input",
                            (long long)k.dim[1], (long long)k.dim[2]);
    y.dim[1] = h / o.stride + 1;
    y.dim[2] = wd / o.stride + 1;
    y.dim[3] = k.dim[0];
    tw_op_attr attr = {.conv = {o.stride, o.pad_top, o.pad_left, o.pad_bottom, o.pad_right}};
    tw_value out = tw_plan_new(plan, y);
    tw_plan_emit(plan, TW_OP_CONV2D, &attr, 3, (tw_value[]){x, w, b}, 1, &out);
    return out;
}

/* `whole`: scale_shift has no other columns. */
static tw_value group_norm(tw_plan *plan, tw_value x, tw_value gamma, tw_value beta,
                           tw_columns scale_shift, bool whole, tw_norm_options o) {
    const char *what = "group_norm";
    const tw_value ss = scale_shift.of;
    if (!have(plan, what, (tw_value[]){x, gamma, beta}, 3) ||
        (ss != TW_NONE && !have(plan, what, &ss, 1)))
        return TW_NONE;
    if (!real_rank(plan, what, "x", x, -1) || !wide_rank(plan, what, "gamma", gamma, 1) ||
        !wide_rank(plan, what, "beta", beta, 1))
        return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x);
    int64_t c = last_dim(&d);
    if (d.rank < 2 || o.groups < 1 || c % o.groups != 0 || !(o.eps >= 0))
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "group_norm: %lld channels cannot be split into %d groups",
                            (long long)c, o.groups);
    if (!extent(plan, what, "gamma's extent", tw_plan_desc(plan, gamma)->dim[0], c) ||
        !extent(plan, what, "beta's extent", tw_plan_desc(plan, beta)->dim[0], c))
        return TW_NONE;
    if (ss != TW_NONE) {
        if (!real_rank(plan, what, "scale_shift", ss, 2)) return TW_NONE;
        const tw_desc *s = tw_plan_desc(plan, ss);
        if (!extent(plan, what, "scale_shift's batch", s->dim[0], d.dim[0]) ||
            !(whole ? extent(plan, what, "scale_shift's width", s->dim[1], 2 * c)
                    : has_columns(plan, what, scale_shift, 2 * c)))
            return TW_NONE;
    }
    const bool apart = o.silu && !tw_plan_fuses(plan, TW_FUSION_NORM_SILU);
    tw_op_attr attr = {.norm = {o.groups, o.silu && !apart, o.eps, scale_shift.first}};
    tw_desc stats = {plan->wide, 2, {d.dim[0], o.groups, 0, 0}};
    tw_value out[3] = {tw_plan_new(plan, d), tw_plan_new(plan, stats), tw_plan_new(plan, stats)};
    tw_plan_emit(plan, TW_OP_GROUP_NORM, &attr, 4, (tw_value[]){x, gamma, beta, ss}, 3, out);
    return apart ? tw_plan_activation(plan, out[0], TW_SILU) : out[0];
}

tw_value tw_plan_group_norm(tw_plan *plan, tw_value x, tw_value gamma, tw_value beta,
                            tw_value scale_shift, tw_norm_options o) {
    return group_norm(plan, x, gamma, beta, (tw_columns){scale_shift, 0}, true, o);
}

tw_value tw_build_group_norm(tw_plan *plan, tw_value x, tw_value gamma, tw_value beta,
                             tw_columns scale_shift, tw_norm_options o) {
    return group_norm(plan, x, gamma, beta, scale_shift, false, o);
}

/* A one-operand node whose output has the operand's shape. */
static tw_value unary(tw_plan *plan, tw_op_kind kind, const tw_op_attr *attr, tw_value x) {
    if (!have(plan, tw_op_name(kind), &x, 1) || !any_rank(plan, tw_op_name(kind), "x", x, -1))
        return TW_NONE;
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, kind, attr, 1, &x, 1, &out);
    return out;
}

tw_value tw_plan_activation(tw_plan *plan, tw_value x, tw_activation_kind kind) {
    if (!plan) return TW_NONE;
    if ((int)kind != TW_SILU && kind != TW_RELU && kind != TW_GELU)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "activation: unknown kind %d", (int)kind);
    tw_op_attr attr = {.act = {(int)kind}};
    return unary(plan, TW_OP_ACT, &attr, x);
}

tw_value tw_plan_add(tw_plan *plan, tw_value a, tw_value b, double alpha, double beta) {
    if (!have(plan, "add", (tw_value[]){a, b}, 2) || !any_rank(plan, "add", "a", a, -1) ||
        !same_shape(plan, "add", a, b))
        return TW_NONE;
    tw_op_attr attr = {.axpby = {alpha, beta}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, a));
    tw_plan_emit(plan, TW_OP_AXPBY, &attr, 2, (tw_value[]){a, b}, 1, &out);
    return out;
}

tw_value tw_plan_scale(tw_plan *plan, tw_value x, double alpha, double beta) {
    if (!have(plan, "scale", &x, 1) || !any_rank(plan, "scale", "x", x, -1)) return TW_NONE;
    tw_op_attr attr = {.axpby = {alpha, beta}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, TW_OP_AXPBY, &attr, 2, (tw_value[]){x, TW_NONE}, 1, &out);
    return out;
}

/* `whole`: v has no other columns. */
static tw_value add_columns(tw_plan *plan, tw_value x, tw_columns v, bool whole) {
    const char *what = "add_vector";
    if (!have(plan, what, (tw_value[]){x, v.of}, 2) || !any_rank(plan, what, "x", x, -1) ||
        !any_rank(plan, what, "v", v.of, 2))
        return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x), s = *tw_plan_desc(plan, v.of);
    if (d.rank < 2)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "add_vector: x has rank %d", d.rank);
    if (!tensor_of(plan, what, "v", v.of, d.dtype, d.dtype, 2)) return TW_NONE;
    if (!extent(plan, what, "v's batch", s.dim[0], d.dim[0]) ||
        !(whole ? extent(plan, what, "v's width", s.dim[1], last_dim(&d))
                : has_columns(plan, what, v, last_dim(&d))))
        return TW_NONE;
    tw_op_attr attr = {.vector = {v.first}};
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_ADD_VEC, &attr, 2, (tw_value[]){x, v.of}, 1, &out);
    return out;
}

tw_value tw_plan_add_vector(tw_plan *plan, tw_value x, tw_value v) {
    return add_columns(plan, x, (tw_columns){v, 0}, true);
}

tw_value tw_build_add_columns(tw_plan *plan, tw_value x, tw_columns v) {
    return add_columns(plan, x, v, false);
}

tw_value tw_plan_scale_samples(tw_plan *plan, tw_value x, tw_value s, int divide) {
    const char *what = "scale_samples";
    if (!have(plan, what, (tw_value[]){x, s}, 2) || !any_rank(plan, what, "x", x, -1) ||
        !wide_rank(plan, what, "s", s, 1) ||
        !extent(plan, what, "s's extent", tw_plan_desc(plan, s)->dim[0],
                tw_plan_desc(plan, x)->dim[0]))
        return TW_NONE;
    tw_op_attr attr = {.per_sample = {divide != 0}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, TW_OP_PER_SAMPLE_SCALE, &attr, 2, (tw_value[]){x, s}, 1, &out);
    return out;
}

tw_value tw_plan_concat(tw_plan *plan, const tw_value *x, int count) {
    if (!plan) return TW_NONE;
    if (!x || count < 2 || count > 8)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "concat: expected 2 to 8 operands, got %d",
                            count);
    if (!have(plan, "concat", x, count)) return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x[0]);
    if (d.rank < 1) return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "concat: rank 0");
    for (int i = 0; i < count; i++) {
        const tw_desc *e = tw_plan_desc(plan, x[i]);
        if (!real_rank(plan, "concat", "an operand", x[i], d.rank)) return TW_NONE;
        for (int k = 0; k + 1 < d.rank; k++)
            if (!extent(plan, "concat", "an operand's extent", e->dim[k], d.dim[k])) return TW_NONE;
        if (i > 0) d.dim[d.rank - 1] += e->dim[d.rank - 1];
    }
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_CONCAT, NULL, count, x, 1, &out);
    return out;
}

tw_status tw_plan_split(tw_plan *plan, tw_value x, const int64_t *extents, int count,
                        tw_value *out) {
    if (!plan || !extents || !out || count < 1 || count > 8)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: split: expected 1 to 8 extents and room for the result");
    for (int i = 0; i < count; i++) out[i] = TW_NONE;
    if (!tw_plan_usable(plan, "split", x) || !real_rank(plan, "split", "x", x, -1))
        return plan->status;
    tw_desc d = *tw_plan_desc(plan, x);
    int64_t sum = 0;
    for (int i = 0; i < count; i++) {
        if (extents[i] < 1 || extents[i] > last_dim(&d)) sum = -1;
        if (sum >= 0) sum += extents[i];
    }
    if (!extent(plan, "split", "the sum of the extents", sum, last_dim(&d))) return plan->status;
    for (int i = 0; i < count; i++) {
        d.dim[d.rank - 1] = extents[i];
        out[i] = tw_plan_new(plan, d);
    }
    tw_plan_emit(plan, TW_OP_SPLIT, NULL, 1, &x, count, out);
    return plan->status;
}

static tw_value resample(tw_plan *plan, tw_op_kind kind, tw_value x, int k, double scale) {
    const char *what = tw_op_name(kind);
    if (!have(plan, what, &x, 1) || !real_rank(plan, what, "x", x, 4)) return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x);
    bool pool = kind == TW_OP_POOL;
    if (k < 1 || k > 4096 || (pool && (d.dim[1] < k || d.dim[2] < k)))
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: a factor of %d does not fit", what, k);
    for (int i = 1; i <= 2; i++) d.dim[i] = pool ? d.dim[i] / k : d.dim[i] * k;
    tw_op_attr attr = {.resample = {k, scale}};
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, kind, &attr, 1, &x, 1, &out);
    return out;
}

tw_value tw_plan_upsample_nearest(tw_plan *plan, tw_value x, int k) {
    return resample(plan, TW_OP_UPSAMPLE_NEAREST, x, k, 1.0);
}

tw_value tw_plan_average_pool(tw_plan *plan, tw_value x, int k) {
    return resample(plan, TW_OP_POOL, x, k, 1.0 / ((double)k * k));
}

/* True if `v` has this format and extent. */
static bool vector_of(tw_plan *plan, const char *what, const char *operand, tw_value v,
                      tw_dtype dtype, int64_t n) {
    const tw_desc *d = tw_plan_desc(plan, v);
    if (d->dtype == dtype && d->rank == 1 && (n < 0 || d->dim[0] == n)) return true;
    tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: %s: expected %s[%lld]", what, operand,
                 tw_dtype_name(dtype), (long long)n);
    return false;
}

tw_value tw_plan_dropout(tw_plan *plan, tw_value x, tw_value rng, double p, uint32_t layer) {
    const char *what = "dropout";
    if (!have(plan, what, (tw_value[]){x, rng}, 2) || !real_rank(plan, what, "x", x, -1) ||
        !vector_of(plan, what, "rng", rng, TW_I64, 4))
        return TW_NONE;
    if (!(p >= 0 && p < 1) || layer >= 0x8000)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "dropout: p: expected 0 up to 1, got %g", p);
    tw_op_attr attr = {.dropout = {p, layer}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, TW_OP_DROPOUT, &attr, 2, (tw_value[]){x, rng}, 1, &out);
    return out;
}

tw_value tw_plan_embedding(tw_plan *plan, tw_value table, tw_value index) {
    const char *what = "embedding";
    if (!have(plan, what, (tw_value[]){table, index}, 2) ||
        !any_rank(plan, what, "table", table, 2) ||
        !vector_of(plan, what, "index", index, TW_I32, -1))
        return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, table);
    d.dim[0] = tw_plan_desc(plan, index)->dim[0];
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_EMBEDDING, NULL, 2, (tw_value[]){table, index}, 1, &out);
    return out;
}

tw_value tw_plan_time_embedding(tw_plan *plan, tw_value t, int64_t dim, tw_time_options o) {
    const char *what = "time_embedding";
    if (!have(plan, what, &t, 1) || !wide_rank(plan, what, "t", t, 1)) return TW_NONE;
    const int64_t half = dim / 2;
    if (dim < 2 || dim > 1 << 20 || !(o.max_period > 0) || o.freq_shift >= (double)half)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "time_embedding: a width of %lld with frequency shift %g",
                            (long long)dim, o.freq_shift);
    tw_op_attr attr = {.time = {o.flip != 0, false, o.freq_shift, o.scale, o.max_period}};
    tw_desc d = {plan->precision, 2, {tw_plan_desc(plan, t)->dim[0], dim, 0, 0}};
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_TIME_EMBED, &attr, 1, &t, 1, &out);
    return out;
}

tw_value tw_plan_fourier_embedding(tw_plan *plan, tw_value t, tw_value w, tw_time_options o) {
    const char *what = "fourier_embedding";
    if (!have(plan, what, (tw_value[]){t, w}, 2) || !wide_rank(plan, what, "t", t, 1) ||
        !wide_rank(plan, what, "w", w, 1))
        return TW_NONE;
    tw_op_attr attr = {.time = {o.flip != 0, o.log != 0, o.freq_shift, o.scale, o.max_period}};
    tw_desc d = {plan->precision,
                 2,
                 {tw_plan_desc(plan, t)->dim[0], 2 * tw_plan_desc(plan, w)->dim[0], 0, 0}};
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_FOURIER_EMBED, &attr, 2, (tw_value[]){t, w}, 1, &out);
    return out;
}

tw_value tw_plan_attention(tw_plan *plan, tw_value q, tw_value k, tw_value v, tw_value length,
                           int heads, double scale) {
    const char *what = "attention";
    if (!have(plan, what, (tw_value[]){q, k, v}, 3) ||
        (length != TW_NONE && !have(plan, what, &length, 1)))
        return TW_NONE;
    if (!real_rank(plan, what, "q", q, 3) || !real_rank(plan, what, "k", k, 3) ||
        !same_shape(plan, what, k, v))
        return TW_NONE;
    tw_desc dq = *tw_plan_desc(plan, q), dk = *tw_plan_desc(plan, k);
    if (!extent(plan, what, "k's batch", dk.dim[0], dq.dim[0]) ||
        !extent(plan, what, "k's width", dk.dim[2], dq.dim[2]) ||
        (length != TW_NONE && !vector_of(plan, what, "length", length, TW_I32, dq.dim[0])))
        return TW_NONE;
    if (heads < 1 || dq.dim[2] % heads != 0)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "attention: %lld channels cannot be split into %d heads",
                            (long long)dq.dim[2], heads);
    const int64_t head_size = dq.dim[2] / heads;
    if (scale == 0) scale = 1.0 / sqrt((double)head_size);
    tw_op_attr attr = {.attention = {heads, scale}};
    tw_desc lse = {plan->wide, 3, {dq.dim[0], heads, dq.dim[1], 0}};
    tw_value out[2] = {tw_plan_new(plan, dq), tw_plan_new(plan, lse)};
    tw_plan_emit(plan, TW_OP_ATTENTION, &attr, 4, (tw_value[]){q, k, v, length}, 2, out);
    return out[0];
}

tw_value tw_plan_mse(tw_plan *plan, tw_value p, tw_value t, tw_value weight, tw_value *per_sample) {
    const char *what = "mse";
    if (per_sample) *per_sample = TW_NONE;
    if (!have(plan, what, (tw_value[]){p, t}, 2) ||
        (weight != TW_NONE && !have(plan, what, &weight, 1)))
        return TW_NONE;
    if (!any_rank(plan, what, "p", p, -1) || !wide_rank(plan, what, "t", t, -1) ||
        !same_extents(plan, what, p, t))
        return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, p);
    if (d.rank < 1) return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "mse: rank 0");
    if (weight != TW_NONE && !vector_of(plan, what, "weight", weight, plan->wide, d.dim[0]))
        return TW_NONE;
    tw_value out[2] = {tw_plan_new(plan, vector(plan->wide, 1)),
                       tw_plan_new(plan, vector(plan->wide, d.dim[0]))};
    tw_plan_emit(plan, TW_OP_MSE, NULL, 3, (tw_value[]){p, t, weight}, 2, out);
    if (per_sample) *per_sample = out[1];
    return out[0];
}

tw_value tw_plan_convert(tw_plan *plan, tw_value x, tw_dtype dtype) {
    if (!have(plan, "convert", &x, 1)) return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x);
    d.dtype = dtype;
    if (!tw_dtype_size(dtype))
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "convert: unknown format %d", (int)dtype);
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_CONVERT, NULL, 1, &x, 1, &out);
    return out;
}

tw_value tw_plan_repeat_batch(tw_plan *plan, tw_value x) {
    if (!have(plan, "repeat_batch", &x, 1)) return TW_NONE;
    tw_desc d = *tw_plan_desc(plan, x);
    if (d.rank < 1) return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "repeat_batch: rank 0");
    d.dim[0] *= 2;
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_REPEAT_BATCH, NULL, 1, &x, 1, &out);
    return out;
}
