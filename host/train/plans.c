/* The plans of training: a micro-step, an optimizer step, a validation batch. */
#include "train/internal.h"

#include <stddef.h>

#include "core/philox.h"
#include "graph/precision.h"

/* Device tables by time step: {A, 1 - A}, and the loss weight. */
typedef struct tw_tables {
    tw_value noise, weight;
} tw_tables;

static tw_tables declare_tables(const tw_trainer *t, tw_plan *plan) {
    int64_t steps = tw_schedule_steps(t->model->schedule);
    return (tw_tables){tw_plan_input(plan, "alphas_cumprod", TW_F32, 2, (int64_t[]){steps, 2}),
                       t->options.weight == TW_WEIGHT_SIMPLE
                           ? TW_NONE
                           : tw_plan_input(plan, "loss_weight", TW_F32, 2, (int64_t[]){steps, 1})};
}

static tw_status write_tables(const tw_trainer *t, tw_plan *plan, tw_tables tables) {
    const tw_schedule *schedule = t->model->schedule;
    size_t steps = (size_t)tw_schedule_steps(schedule);
    const double *a = tw_schedule_alphas_cumprod(schedule);
    float *rows = tw_allocate(t->ctx, steps, 2 * sizeof *rows);
    if (!rows) return TW_ERROR_MEMORY;
    for (size_t i = 0; i < steps; i++) {
        rows[2 * i] = (float)a[i];
        rows[2 * i + 1] = (float)(1.0 - a[i]);
    }
    tw_status s = tw_plan_write(plan, tables.noise, rows, steps * 2 * sizeof *rows);
    if (s == TW_OK && tables.weight != TW_NONE) {
        for (size_t i = 0; i < steps; i++)
            rows[i] = (float)tw_loss_weight_at(&t->options, t->model->info.prediction, a[i]);
        s = tw_plan_write(plan, tables.weight, rows, steps * sizeof *rows);
    }
    tw_free(t->ctx, rows);
    return s;
}

/* Inputs, noising, network and loss of one batch. `training` adds what only training does: flips,
 * dropped conditions, dropout. */
static tw_status describe_loss(tw_trainer *t, tw_loss_plan *p, tw_tables tables, bool training,
                               tw_network *network, tw_value *loss) {
    const tw_trainer_options *o = &t->options;
    const tw_model_info *info = &t->model->info;
    tw_plan *plan = p->plan;
    int64_t shape[4] = {o->batch_size, info->shape[0], info->shape[1], info->shape[2]};
    p->x = tw_plan_input(plan, "x0", TW_F32, info->rank + 1, shape);
    p->rng = tw_plan_state(plan, "rng", TW_I64, 1, (int64_t[]){4});
    p->labels = TW_NONE;
    tw_value x0 = p->x, labels = TW_NONE, x_t, target;
    if (info->classes > 0) {
        p->labels = labels = tw_plan_input(plan, "labels", TW_I32, 1, shape);
        if (training && o->cond_dropout > 0)
            labels = tw_build_cond_drop(plan, labels, p->rng, o->cond_dropout,
                                        (int32_t)info->classes - 1);
    }
    if (training && o->flip > 0) x0 = tw_build_flip(plan, x0, p->rng, o->flip);
    tw_value step =
        tw_build_sample_t(plan, p->rng, o->batch_size, info->training_steps, o->antithetic != 0);
    tw_build_forward_noise(plan, x0, step, tables.noise, p->rng, (int)info->prediction, &x_t,
                           &target);
    tw_network_inputs in = {.x = x_t,
                            .t = tw_plan_convert(plan, step, TW_F32),
                            .labels = labels,
                            .rng = training ? p->rng : TW_NONE};
    TW_TRY(tw_model_build(t->model, plan, &in, network));
    tw_value weight = TW_NONE;
    if (tables.weight != TW_NONE)
        weight = tw_plan_reshape(plan, tw_plan_embedding(plan, tables.weight, step), 1, shape);
    *loss = tw_plan_mse(plan, network->out, target, weight, &p->per_sample);
    tw_plan_name(plan, x_t, "x_t");
    tw_plan_name(plan, target, "target");
    tw_plan_name(plan, *loss, "loss");
    return TW_OK;
}

tw_status tw_trainer_build_micro(tw_trainer *t) {
    tw_loss_plan *p = &t->micro;
    tw_network network = {TW_NONE, NULL};
    tw_value loss;
    double part = 1.0 / (double)t->options.accumulate;
    tw_plan_options options = TW_PLAN_OPTIONS_INIT;
    options.recompute = t->options.recompute;
    tw_precision_set(&options, t->options.precision);
    TW_TRY(tw_plan_create(t->ctx, &options, &p->plan));
    tw_tables tables = declare_tables(t, p->plan);
    tw_status s = describe_loss(t, p, tables, true, &network, &loss);
    if (s == TW_OK) {
        tw_value sum = tw_plan_state(p->plan, "loss", TW_F32, 1, (int64_t[]){1});
        tw_build_copy(p->plan, tw_plan_add(p->plan, sum, loss, 1.0, part), sum);
        s = tw_plan_backward(p->plan, loss, part);
        tw_build_next_step(p->plan, p->rng);
        if (s == TW_OK) s = tw_plan_bind(p->plan, sum, t->loss);
    }
    if (s == TW_OK)
        s = tw_model_bind(t->model, p->plan, &network, t->model->storage, t->rounded.weights,
                          t->gradients);
    if (s == TW_OK) s = tw_plan_compile(p->plan);
    if (s == TW_OK) s = write_tables(t, p->plan, tables);
    tw_free(t->ctx, network.parameters);
    return s;
}

tw_status tw_trainer_build_validation(tw_trainer *t, bool ema, tw_loss_plan *p) {
    tw_network network = {TW_NONE, NULL};
    tw_value loss;
    tw_plan_options options = TW_PLAN_OPTIONS_INIT;
    void *masters = ema ? t->ema : t->model->storage;
    tw_precision_set(&options, t->options.precision);
    if (ema)
        TW_TRY(tw_rounded_make(t->model, tw_precision_format(t->options.precision), masters,
                               &t->rounded_ema));
    const tw_rounded *rounded = ema ? &t->rounded_ema : &t->rounded;
    TW_TRY(tw_plan_create(t->ctx, &options, &p->plan));
    tw_tables tables = declare_tables(t, p->plan);
    tw_status s = describe_loss(t, p, tables, false, &network, &loss);
    tw_plan_keep(p->plan, p->per_sample);
    if (s == TW_OK) s = tw_model_bind(t->model, p->plan, &network, masters, rounded->weights, NULL);
    if (s == TW_OK) s = tw_plan_compile(p->plan);
    if (s == TW_OK) s = write_tables(t, p->plan, tables);
    tw_free(t->ctx, network.parameters);
    if (s != TW_OK) {
        tw_plan_free(p->plan);
        p->plan = NULL;
        if (ema) tw_rounded_free(t->ctx, &t->rounded_ema);
    }
    return s;
}

tw_status tw_trainer_build_update(tw_trainer *t) {
    TW_TRY(tw_plan_create(t->ctx, NULL, &t->update));
    tw_plan *plan = t->update;
    const int64_t total[] = {t->model->weights.trainable}, one[] = {1}, two[] = {2};
    const int64_t hypers[] = {TW_HYPER_COUNT};
    tw_value g = tw_plan_state(plan, "gradients", TW_F32, 1, total);
    tw_value p = tw_plan_state(plan, "weights", TW_F32, 1, total);
    tw_value m = tw_plan_state(plan, "first_moment", TW_F32, 1, total);
    tw_value v = tw_plan_state(plan, "second_moment", TW_F32, 1, total);
    tw_value ema = t->ema ? tw_plan_state(plan, "ema", TW_F32, 1, total) : TW_NONE;
    tw_value rounded =
        t->rounded.plan
            ? tw_plan_state(plan, "rounded", tw_precision_format(t->options.precision), 1, total)
            : TW_NONE;
    tw_value count = tw_plan_state(plan, "count", TW_I64, 1, two);
    tw_value loss = tw_plan_state(plan, "loss", TW_F32, 1, one);
    t->hyper = tw_plan_input(plan, "hyper", TW_F32, 1, hypers);
    tw_value norm_out = tw_plan_state(plan, "norm", TW_F32, 1, one);
    tw_value loss_out = tw_plan_state(plan, "last_loss", TW_F32, 1, one);
    tw_value norm = tw_build_global_norm(plan, g);
    /* The norm, unless the loss is not finite: then neither is this, and the update is skipped. */
    tw_value guard = tw_plan_add(plan, norm, loss, 1.0, 0.0);
    tw_build_adamw(plan, g, guard, t->hyper, p, m, v, count, ema, rounded);
    tw_build_copy(plan, norm, norm_out);
    tw_build_copy(plan, loss, loss_out);
    tw_build_fill(plan, g, 0.0);
    tw_build_fill(plan, loss, 0.0);
    char *measured = t->count;
    const struct {
        tw_value value;
        void *address;
    } bound[] = {{g, t->gradients},
                 {p, t->model->storage},
                 {m, t->first_moment},
                 {v, t->second_moment},
                 {count, t->count},
                 {loss, t->loss},
                 {norm_out, measured + offsetof(tw_measured, norm)},
                 {loss_out, measured + offsetof(tw_measured, loss)}};
    for (size_t i = 0; i < sizeof bound / sizeof *bound; i++)
        TW_TRY(tw_plan_bind(plan, bound[i].value, bound[i].address));
    if (t->ema) TW_TRY(tw_plan_bind(plan, ema, t->ema));
    if (rounded != TW_NONE) TW_TRY(tw_plan_bind(plan, rounded, t->rounded.weights));
    return tw_plan_compile(plan);
}
