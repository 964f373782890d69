/* Builder calls of noise, sampling steps, training batches and the optimizer. */
#include "graph/builder.h"
#include "graph/internal.h"

/* True if every operand that is present can be used. */
static bool have(tw_plan *plan, tw_op_kind kind, const tw_value *v, int n) {
    for (int i = 0; i < n; i++)
        if (v[i] != TW_NONE && !tw_plan_usable(plan, tw_op_name(kind), v[i])) return false;
    return plan && plan->status == TW_OK;
}

static bool require(tw_plan *plan, tw_op_kind kind, bool holds, const char *wanted) {
    if (!holds) tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: expected %s", tw_op_name(kind), wanted);
    return holds;
}

static bool is_rng(const tw_plan *plan, tw_value rng) {
    const tw_desc *d = tw_plan_desc(plan, rng);
    return d->dtype == TW_I64 && d->rank == 1 && d->dim[0] == 4;
}

static bool writable(const tw_plan *plan, tw_value v) {
    return plan->values[plan->values[v].root].writable;
}

tw_value tw_build_noise(tw_plan *plan, tw_value rng, int rank, const int64_t *shape,
                        uint32_t purpose, double scale) {
    tw_desc d;
    if (!have(plan, TW_OP_NOISE, &rng, 1) ||
        !require(plan, TW_OP_NOISE,
                 is_rng(plan, rng) && rank >= 1 && tw_desc_make(plan->precision, rank, shape, &d),
                 "rng int64[4] and a shape"))
        return TW_NONE;
    tw_op_attr attr = {.noise = {purpose, scale}};
    tw_value out = tw_plan_new(plan, d);
    tw_plan_emit(plan, TW_OP_NOISE, &attr, 1, &rng, 1, &out);
    return out;
}

tw_value tw_build_step_time(tw_plan *plan, tw_value table, tw_value rng, int64_t n, int column) {
    if (!have(plan, TW_OP_STEP_TIME, (tw_value[]){table, rng}, 2) ||
        !require(plan, TW_OP_STEP_TIME,
                 is_rng(plan, rng) && n >= 1 && tw_plan_desc(plan, table)->rank == 2 &&
                     column >= 0 && column < tw_plan_desc(plan, table)->dim[1],
                 "a table of rows and rng int64[4]"))
        return TW_NONE;
    tw_op_attr attr = {.row = {column}};
    tw_value out = tw_plan_new(plan, (tw_desc){plan->wide, 1, {n, 0, 0, 0}});
    tw_plan_emit(plan, TW_OP_STEP_TIME, &attr, 2, (tw_value[]){table, rng}, 1, &out);
    return out;
}

/* The operands of an update fit each other. */
static bool update_fits(tw_plan *plan, tw_op_kind kind, tw_value x, tw_value m, tw_value m_uncond,
                        tw_value table, tw_value rng, const tw_op_attr *attr) {
    const tw_desc *dx = tw_plan_desc(plan, x), *dm = tw_plan_desc(plan, m);
    bool fits = dx->rank == dm->rank && dx->rank >= 2 && is_rng(plan, rng) &&
                tw_plan_desc(plan, table)->rank == 2 && tw_plan_desc(plan, table)->dtype == TW_F32;
    for (int i = 0; fits && i + 1 < dx->rank; i++) fits = dx->dim[i] == dm->dim[i];
    int factor = attr->update.rule == TW_UPDATE_LEARNED_RANGE ? 2 : 1;
    fits = fits && dm->dim[dm->rank - 1] == factor * dx->dim[dx->rank - 1];
    fits = fits && attr->update.guided == (m_uncond != TW_NONE);
    return require(plan, kind, fits, "predictions of x's shape, a float32 table and rng int64[4]");
}

void tw_build_sampler_update(tw_plan *plan, tw_value x, tw_value m, tw_value m_uncond,
                             tw_value table, tw_value rng, tw_value limit, const tw_op_attr *attr,
                             tw_value *x0) {
    const tw_op_kind kind = TW_OP_SAMPLER_UPDATE;
    tw_value in[] = {m, m_uncond, table, rng, limit};
    if (x0) *x0 = TW_NONE;
    if (!have(plan, kind, in, 5) || !have(plan, kind, &x, 1) ||
        !require(plan, kind, writable(plan, x), "a state to update") ||
        !require(plan, kind, (attr->update.clip == TW_CLIP_DYNAMIC) == (limit != TW_NONE),
                 "a limit with dynamic clipping only") ||
        !update_fits(plan, kind, x, m, m_uncond, table, rng, attr))
        return;
    tw_value out[2] = {x, TW_NONE};
    if (x0) *x0 = out[1] = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, kind, attr, 5, in, 2, out);
}

tw_value tw_build_threshold(tw_plan *plan, tw_value x, tw_value m, tw_value m_uncond,
                            tw_value table, tw_value rng, const tw_op_attr *attr) {
    const tw_op_kind kind = TW_OP_THRESHOLD;
    tw_value in[] = {x, m, m_uncond, table, rng};
    if (!have(plan, kind, in, 5) || !update_fits(plan, kind, x, m, m_uncond, table, rng, attr))
        return TW_NONE;
    const tw_desc *d = tw_plan_desc(plan, x);
    tw_value out = tw_plan_new(plan, (tw_desc){d->dtype, 1, {d->dim[0], 0, 0, 0}});
    tw_plan_emit(plan, kind, attr, 5, in, 1, &out);
    return out;
}

void tw_build_next_step(tw_plan *plan, tw_value rng) {
    if (have(plan, TW_OP_NEXT_STEP, &rng, 1) &&
        require(plan, TW_OP_NEXT_STEP, is_rng(plan, rng) && writable(plan, rng),
                "a state int64[4]"))
        tw_plan_emit(plan, TW_OP_NEXT_STEP, NULL, 0, NULL, 1, &rng);
}

void tw_build_copy(tw_plan *plan, tw_value source, tw_value state) {
    if (have(plan, TW_OP_CONVERT, (tw_value[]){source, state}, 2) &&
        require(plan, TW_OP_CONVERT,
                writable(plan, state) && tw_desc_count(tw_plan_desc(plan, source)) ==
                                             tw_desc_count(tw_plan_desc(plan, state)),
                "a state of as many elements"))
        tw_plan_emit(plan, TW_OP_CONVERT, NULL, 1, &source, 1, &state);
}

void tw_build_fill(tw_plan *plan, tw_value state, double value) {
    tw_op_attr attr = {.fill = {value}};
    if (have(plan, TW_OP_FILL, &state, 1) &&
        require(plan, TW_OP_FILL, writable(plan, state), "a state"))
        tw_plan_emit(plan, TW_OP_FILL, &attr, 0, NULL, 1, &state);
}

tw_value tw_build_sample_t(tw_plan *plan, tw_value rng, int64_t n, int64_t steps, bool antithetic) {
    if (!have(plan, TW_OP_SAMPLE_T, &rng, 1) ||
        !require(plan, TW_OP_SAMPLE_T,
                 is_rng(plan, rng) && n >= 1 && steps >= 1 && steps <= INT32_MAX,
                 "rng int64[4], a batch and a number of steps"))
        return TW_NONE;
    tw_op_attr attr = {.sample_t = {steps, antithetic}};
    tw_value out = tw_plan_new(plan, (tw_desc){TW_I32, 1, {n, 0, 0, 0}});
    tw_plan_emit(plan, TW_OP_SAMPLE_T, &attr, 1, &rng, 1, &out);
    return out;
}

tw_value tw_build_cond_drop(tw_plan *plan, tw_value labels, tw_value rng, double p,
                            int32_t null_label) {
    if (!have(plan, TW_OP_COND_DROP, (tw_value[]){labels, rng}, 2) ||
        !require(plan, TW_OP_COND_DROP,
                 is_rng(plan, rng) && tw_plan_desc(plan, labels)->dtype == TW_I32,
                 "labels int32[N] and rng int64[4]"))
        return TW_NONE;
    tw_op_attr attr = {.cond_drop = {p, null_label}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, labels));
    tw_plan_emit(plan, TW_OP_COND_DROP, &attr, 2, (tw_value[]){labels, rng}, 1, &out);
    return out;
}

tw_value tw_build_flip(tw_plan *plan, tw_value x, tw_value rng, double p) {
    if (!have(plan, TW_OP_FLIP, (tw_value[]){x, rng}, 2) ||
        !require(plan, TW_OP_FLIP, is_rng(plan, rng) && tw_plan_desc(plan, x)->rank == 4,
                 "x N,H,W,C and rng int64[4]"))
        return TW_NONE;
    tw_op_attr attr = {.flip = {p}};
    tw_value out = tw_plan_new(plan, *tw_plan_desc(plan, x));
    tw_plan_emit(plan, TW_OP_FLIP, &attr, 2, (tw_value[]){x, rng}, 1, &out);
    return out;
}

void tw_build_forward_noise(tw_plan *plan, tw_value x0, tw_value t, tw_value table, tw_value rng,
                            int prediction, tw_value *x_t, tw_value *target) {
    tw_value in[] = {x0, t, table, rng};
    *x_t = *target = TW_NONE;
    if (!have(plan, TW_OP_FORWARD_NOISE, in, 4)) return;
    const tw_desc *d = tw_plan_desc(plan, x0), *dt = tw_plan_desc(plan, t),
                  *table_desc = tw_plan_desc(plan, table);
    if (!require(plan, TW_OP_FORWARD_NOISE,
                 is_rng(plan, rng) && d->rank >= 2 && dt->dtype == TW_I32 && dt->rank == 1 &&
                     dt->dim[0] == d->dim[0] && table_desc->rank == 2 && table_desc->dim[1] == 2 &&
                     d->dtype == plan->wide && table_desc->dtype == plan->wide,
                 "x0 and a table [T,2] in full, t int32[N] and rng int64[4]"))
        return;
    tw_desc noisy = *d, wide = *d; /* tw_plan_new may move the values */
    noisy.dtype = plan->precision;
    tw_op_attr attr = {.diffusion = {prediction}};
    tw_value out[2] = {tw_plan_new(plan, noisy), tw_plan_new(plan, wide)};
    tw_plan_emit(plan, TW_OP_FORWARD_NOISE, &attr, 4, in, 2, out);
    *x_t = out[0];
    *target = out[1];
}

tw_value tw_build_global_norm(tw_plan *plan, tw_value g) {
    if (!have(plan, TW_OP_GLOBAL_NORM, &g, 1)) return TW_NONE;
    tw_value out = tw_plan_new(plan, (tw_desc){plan->wide, 1, {1, 0, 0, 0}});
    tw_plan_emit(plan, TW_OP_GLOBAL_NORM, NULL, 1, &g, 1, &out);
    return out;
}

void tw_build_adamw(tw_plan *plan, tw_value g, tw_value norm, tw_value hyper, tw_value p,
                    tw_value m, tw_value v, tw_value count, tw_value ema, tw_value copy) {
    tw_value in[] = {g, norm, hyper}, out[] = {p, m, v, count, ema, copy};
    if (!have(plan, TW_OP_ADAMW, in, 3) || !have(plan, TW_OP_ADAMW, out, 6)) return;
    bool fits = tw_plan_desc(plan, hyper)->dim[0] == TW_HYPER_COUNT &&
                tw_plan_desc(plan, count)->dtype == TW_I64;
    int64_t n = tw_desc_count(tw_plan_desc(plan, g));
    for (int i = 0; i < 6; i++) {
        if (out[i] == TW_NONE) continue;
        fits = fits && writable(plan, out[i]);
        if (i != 3) fits = fits && tw_desc_count(tw_plan_desc(plan, out[i])) == n;
    }
    if (require(plan, TW_OP_ADAMW, fits, "states of the gradient's length"))
        tw_plan_emit(plan, TW_OP_ADAMW, NULL, 3, in, 6, out);
}
