/* The trainer: a micro-step plan run `accumulate` times, then an optimizer plan. */
#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "core/options.h"
#include "graph/precision.h"
#include "train/internal.h"
#include "train/state.h"

static tw_status bad(tw_context *ctx, const char *option, const char *expected, double got) {
    return tw_fail(ctx, TW_ERROR_ARGUMENT, "trainer: %s: expected %s, got %g", option, expected,
                   got);
}

/* Samples are counted over the whole run. */
static bool countable(const tw_trainer_options *o) {
    int64_t samples;
    return tw_mul_i64(o->steps, o->accumulate, &samples) &&
           tw_mul_i64(samples, o->batch_size, &samples) && samples <= INT64_MAX / 2;
}

static tw_status check_numbers(tw_context *ctx, const tw_trainer_options *o) {
    if (o->steps < 1) return bad(ctx, "steps", "1 or more", (double)o->steps);
    if (o->batch_size < 1 || o->batch_size > 1 << 20)
        return bad(ctx, "batch size", "1 to 1048576", (double)o->batch_size);
    if (o->accumulate < 1 || o->accumulate > 1 << 20)
        return bad(ctx, "accumulate", "1 to 1048576", (double)o->accumulate);
    if (!countable(o)) return bad(ctx, "steps", "fewer than 2^62 samples in all", (double)o->steps);
    if (!(o->lr >= 0 && o->lr < 1e6)) return bad(ctx, "learning rate", "0 or more", o->lr);
    if (o->lr_warmup < 0) return bad(ctx, "warm-up", "0 or more steps", (double)o->lr_warmup);
    if (!(o->beta1 >= 0 && o->beta1 < 1)) return bad(ctx, "beta1", "0 up to 1", o->beta1);
    if (!(o->beta2 >= 0 && o->beta2 < 1)) return bad(ctx, "beta2", "0 up to 1", o->beta2);
    if (!(o->eps > 0)) return bad(ctx, "eps", "more than 0", o->eps);
    if (!(o->weight_decay >= 0)) return bad(ctx, "weight decay", "0 or more", o->weight_decay);
    if (!(o->clip_norm >= 0)) return bad(ctx, "clip norm", "0 (none) or more", o->clip_norm);
    if (!(o->ema_decay >= 0 && o->ema_decay < 1))
        return bad(ctx, "EMA decay", "0 (none) up to 1", o->ema_decay);
    if (!(o->cond_dropout >= 0 && o->cond_dropout <= 1))
        return bad(ctx, "condition dropout", "0 to 1", o->cond_dropout);
    if (!(o->flip >= 0 && o->flip <= 1)) return bad(ctx, "flip", "0 to 1", o->flip);
    if (!(o->holdout >= 0 && o->holdout <= 0.5)) return bad(ctx, "holdout", "0 to 0.5", o->holdout);
    if (o->antithetic && o->batch_size % 2)
        return bad(ctx, "batch size", "an even number with antithetic time steps",
                   (double)o->batch_size);
    if (o->weight == TW_WEIGHT_MIN_SNR && !(o->snr_gamma > 0))
        return bad(ctx, "SNR gamma", "more than 0", o->snr_gamma);
    return TW_OK;
}

static tw_status check_fit(const tw_trainer *t) {
    const tw_model_info *m = &t->model->info;
    const tw_dataset_info *d = &t->data;
    bool same = m->rank == d->rank;
    for (int i = 0; same && i < m->rank; i++) same = m->shape[i] == d->shape[i];
    if (!same)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "trainer: samples of the data are %lldx%lldx%lld, the model takes "
                       "%lldx%lldx%lld",
                       (long long)d->shape[0], (long long)(d->rank == 3 ? d->shape[1] : 1),
                       (long long)(d->rank == 3 ? d->shape[2] : 1), (long long)m->shape[0],
                       (long long)(m->rank == 3 ? m->shape[1] : 1),
                       (long long)(m->rank == 3 ? m->shape[2] : 1));
    if (m->out_channels != m->shape[m->rank - 1])
        return tw_fail(t->ctx, TW_ERROR_UNSUPPORTED,
                       "trainer: the model has %lld output channels for %lld: a learned variance "
                       "cannot be trained",
                       (long long)m->out_channels, (long long)m->shape[m->rank - 1]);
    if (m->classes > 0 && d->classes == 0)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "trainer: the model takes class labels, but the data has none");
    int64_t room = m->classes - (t->options.cond_dropout > 0 ? 1 : 0);
    if (m->classes > 0 && d->classes > room)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "trainer: the data has %lld classes, the model room for %lld%s",
                       (long long)d->classes, (long long)room,
                       t->options.cond_dropout > 0 ? " beside the null label" : "");
    if (m->classes == 0 && t->options.cond_dropout > 0)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "trainer: condition dropout: the model takes no class labels");
    if (t->options.flip > 0 && m->rank != 3)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT, "trainer: flip: only images can be mirrored");
    return TW_OK;
}

static tw_status make_vectors(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    size_t bytes = (size_t)t->model->weights.total * sizeof(float);
    struct {
        void **address;
        size_t bytes;
    } vectors[] = {
        {&t->gradients, bytes},           {&t->first_moment, bytes},
        {&t->second_moment, bytes},       {&t->ema, t->options.ema_decay > 0 ? bytes : 0},
        {&t->count, sizeof(tw_measured)}, {&t->loss, sizeof(float)}};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        if (!vectors[i].bytes) continue;
        TW_TRY(b->allocate(b, vectors[i].bytes, vectors[i].address));
        TW_TRY(b->fill(b, *vectors[i].address, 0, vectors[i].bytes));
    }
    return t->ema ? b->copy(b, t->ema, t->model->storage, bytes) : TW_OK;
}

tw_status tw_trainer_build(tw_trainer *t) {
    TW_TRY(make_vectors(t));
    TW_TRY(tw_trainer_metrics_make(t));
    TW_TRY(tw_rounded_make(t->model, tw_precision_format(t->options.precision), t->model->storage,
                           &t->rounded));
    t->version = t->model->version - 1;
    TW_TRY(tw_trainer_build_micro(t));
    return tw_trainer_build_update(t);
}

static tw_status make_loaders(tw_trainer *t) {
    tw_loader_options o = {.batch = t->options.batch_size,
                           .seed = t->options.seed,
                           .holdout = t->options.holdout,
                           .indices = t->resident.samples != NULL};
    TW_TRY(tw_loader_create(t->ctx, t->dataset, &o, &t->loader));
    if (t->options.holdout <= 0) return TW_OK;
    o.validation = true;
    return tw_loader_create(t->ctx, t->dataset, &o, &t->held_out);
}

static tw_status write_rng(tw_loss_plan *p, uint64_t seed, int64_t sample, int64_t step) {
    int64_t rng[4] = {(int64_t)seed, sample, step, 0};
    return tw_plan_write(p->plan, p->rng, rng, sizeof rng);
}

tw_status tw_trainer_rewind(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    const int64_t micro_steps = t->step * t->options.accumulate;
    TW_TRY(b->fill(b, t->gradients, 0, (size_t)t->model->weights.total * sizeof(float)));
    TW_TRY(b->fill(b, t->loss, 0, sizeof(float)));
    TW_TRY(write_rng(&t->micro, t->options.seed, 0, micro_steps));
    return tw_loader_seek(t->loader, micro_steps * t->options.batch_size);
}

tw_status tw_trainer_create(tw_model *model, const tw_dataset *dataset,
                            const tw_trainer_options *options, tw_trainer **out) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    if (!model || !dataset || !out)
        return tw_fail(model ? model->ctx : NULL, TW_ERROR_ARGUMENT,
                       "trainer: a model, a data set and a place for the result are needed");
    *out = NULL;
    tw_context *ctx = model->ctx;
    TW_TRY(tw_options_read(ctx, "trainer", &o, sizeof o, options));
    TW_TRY(check_numbers(ctx, &o));
    TW_TRY(tw_precision_check(ctx, "trainer", o.precision));
    if (o.precision == TW_PRECISION_F16)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "trainer: precision fp16 is for sampling: small gradients would vanish; "
                       "expected fp32, tf32 or bf16");
    tw_trainer *t = tw_allocate(ctx, 1, sizeof *t);
    if (!t) return TW_ERROR_MEMORY;
    t->ctx = ctx;
    t->model = model;
    tw_model_retain(model);
    t->dataset = dataset;
    t->options = o;
    t->data.size = sizeof t->data;
    tw_status s = tw_dataset_get_info(dataset, &t->data);
    if (s == TW_OK) s = check_fit(t);
    if (s == TW_OK) s = tw_trainer_build(t);
    if (s == TW_OK) s = tw_trainer_make_resident(t);
    if (s == TW_OK) s = make_loaders(t);
    if (s == TW_OK) s = write_rng(&t->micro, o.seed, 0, 0);
    if (s != TW_OK) {
        tw_trainer_free(t);
        return s;
    }
    *out = t;
    return TW_OK;
}

void tw_trainer_free(tw_trainer *t) {
    if (!t) return;
    tw_backend *b = t->ctx->backend;
    tw_plan_free(t->micro.plan);
    tw_plan_free(t->update);
    tw_plan_free(t->validate[0].plan);
    tw_plan_free(t->validate[1].plan);
    tw_loader_free(t->loader);
    tw_loader_free(t->held_out);
    void *vectors[] = {t->gradients, t->first_moment, t->second_moment, t->ema, t->count, t->loss};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) b->release(b, vectors[i]);
    tw_trainer_free_resident(t);
    tw_trainer_metrics_free(t);
    tw_model_free(t->model);
    tw_rounded_free(t->ctx, &t->rounded);
    tw_rounded_free(t->ctx, &t->rounded_ema);
    tw_free(t->ctx, t);
}

size_t tw_trainer_batch_bytes(const tw_trainer *t) {
    size_t bytes = (size_t)t->options.batch_size * sizeof(float);
    for (int i = 0; i < t->model->info.rank; i++) bytes *= (size_t)t->model->info.shape[i];
    return bytes;
}

size_t tw_trainer_feed_bytes(const tw_trainer *t) {
    const tw_backend *b = t->ctx->backend;
    if (t->resident.samples) return (size_t)t->options.batch_size * sizeof(int64_t);
    return b->feed_bytes ? b->feed_bytes(b, tw_trainer_batch_bytes(t)) : 0;
}

tw_status tw_trainer_feed(tw_trainer *t, tw_loader *loader, tw_loss_plan *p) {
    const float *x;
    const int32_t *labels;
    if (t->resident.samples) return tw_trainer_feed_resident(t, loader, p);
    TW_TRY(tw_loader_next(loader, &x, &labels));
    TW_TRY(tw_plan_feed(p->plan, p->x, x, tw_trainer_batch_bytes(t)));
    if (p->labels == TW_NONE) return TW_OK;
    return tw_plan_write(p->plan, p->labels, labels,
                         (size_t)t->options.batch_size * sizeof *labels);
}

/* The network's copy of the weights, after anyone but the optimizer changed them. */
static tw_status follow_model(tw_trainer *t) {
    if (t->version == t->model->version) return TW_OK;
    TW_TRY(tw_rounded_refresh(&t->rounded));
    t->version = t->model->version;
    return TW_OK;
}

tw_status tw_trainer_step(tw_trainer *t, tw_train_metrics *out) {
    if (!t) return tw_fail(NULL, TW_ERROR_ARGUMENT, "trainer: step: no trainer");
    const tw_trainer_options *o = &t->options;
    if (t->step >= o->steps)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT, "trainer: step: all %lld steps are done",
                       (long long)o->steps);
    TW_TRY(follow_model(t));
    for (int64_t i = 0; i < o->accumulate; i++) {
        tw_status s = tw_trainer_feed(t, t->loader, &t->micro);
        if (s == TW_OK) s = tw_plan_run(t->micro.plan);
        if (s != TW_OK) {
            tw_trainer_rewind(t); /* the step can be asked for again */
            return s;
        }
    }
    double lr = tw_learning_rate(o, t->step);
    const float hyper[TW_HYPER_COUNT] = {
        [TW_HYPER_LR] = (float)lr,
        [TW_HYPER_BETA1] = (float)o->beta1,
        [TW_HYPER_BETA2] = (float)o->beta2,
        [TW_HYPER_EPS] = (float)o->eps,
        [TW_HYPER_DECAY] = (float)o->weight_decay,
        [TW_HYPER_CLIP] = (float)o->clip_norm,
        [TW_HYPER_EMA_DECAY] = (float)o->ema_decay,
        [TW_HYPER_EMA_WARMUP] = o->ema_warmup ? 1.0f : 0.0f,
    };
    TW_TRY(tw_plan_write(t->update, t->hyper, hyper, sizeof hyper));
    TW_TRY(tw_plan_run(t->update));
    t->version = ++t->model->version;
    t->step++;
    TW_TRY(tw_trainer_metrics_queue(t, lr));
    return out ? tw_trainer_metrics_newest(t, out) : TW_OK;
}

int64_t tw_trainer_step_count(const tw_trainer *t) {
    return t ? t->step : 0;
}

/* Sets held-out noise apart from that of training. */
#define TW_VALIDATION_SEED UINT64_C(0x76616c6964617465)

tw_status tw_trainer_validate(tw_trainer *t, int ema, int64_t limit, double *loss) {
    if (!t || !loss) return tw_fail(NULL, TW_ERROR_ARGUMENT, "trainer: validate: a null pointer");
    if (!t->held_out)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "trainer: validate: no data is held out (option holdout)");
    if (ema && !t->ema)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT, "trainer: validate: there is no EMA");
    tw_loss_plan *p = &t->validate[ema ? 1 : 0];
    if (!p->plan) TW_TRY(tw_trainer_build_validation(t, ema != 0, p));
    TW_TRY(ema ? tw_rounded_refresh(&t->rounded_ema) : follow_model(t));
    int64_t total = tw_loader_size(t->held_out), batch = t->options.batch_size;
    if (limit > 0 && limit < total) total = limit;
    TW_TRY(tw_loader_seek(t->held_out, 0));
    float *terms = tw_allocate(t->ctx, (size_t)batch, sizeof *terms);
    if (!terms) return TW_ERROR_MEMORY;
    double sum = 0;
    tw_status s = TW_OK;
    for (int64_t first = 0; first < total && s == TW_OK; first += batch) {
        s = tw_trainer_feed(t, t->held_out, p);
        if (s == TW_OK) s = write_rng(p, t->options.seed ^ TW_VALIDATION_SEED, first, 0);
        if (s == TW_OK) s = tw_plan_run(p->plan);
        if (s == TW_OK)
            s = tw_plan_read(p->plan, p->per_sample, terms, (size_t)batch * sizeof *terms);
        for (int64_t i = 0; i < batch && first + i < total && s == TW_OK; i++) sum += terms[i];
    }
    tw_free(t->ctx, terms);
    *loss = sum / (double)total;
    return s;
}

tw_status tw_trainer_ema_model(tw_trainer *t, tw_model **out) {
    if (!t || !out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "trainer: EMA model: a null pointer");
    TW_TRY(tw_model_create(t->ctx, tw_model_config(t->model), tw_model_scheduler_config(t->model),
                           NULL, 0, 0, out));
    tw_backend *b = t->ctx->backend;
    tw_status s = b->copy(b, (*out)->storage, t->ema ? t->ema : t->model->storage,
                          (size_t)t->model->weights.total * sizeof(float));
    if (s != TW_OK) {
        tw_model_free(*out);
        *out = NULL;
    }
    return s;
}

tw_status tw_trainer_get_memory(const tw_trainer *t, tw_trainer_memory *out) {
    if (!t) return tw_fail(NULL, TW_ERROR_ARGUMENT, "trainer: memory: no trainer");
    size_t vector = (size_t)t->model->weights.total * sizeof(float);
    tw_plan_stats micro = {.size = sizeof micro}, update = {.size = sizeof update};
    TW_TRY(tw_plan_get_stats(t->micro.plan, &micro));
    TW_TRY(tw_plan_get_stats(t->update, &update));
    tw_trainer_memory m = {.size = sizeof m,
                           .weights = vector,
                           .rounded = t->rounded.bytes,
                           .resident = tw_trainer_resident_bytes(t),
                           .gradients = vector,
                           .optimizer = 2 * vector,
                           .ema = t->ema ? vector : 0,
                           .arena = micro.arena_bytes + update.arena_bytes,
                           .staging = micro.owned_bytes + update.owned_bytes +
                                      tw_trainer_batch_bytes(t) + tw_trainer_feed_bytes(t),
                           .snapshot = tw_state_save_bytes(t)};
    return tw_options_write(t->ctx, "trainer memory", out, &m, sizeof m);
}

const tw_plan *tw_trainer_plan(const tw_trainer *t, int index) {
    return !t ? NULL : index == 0 ? t->micro.plan : index == 1 ? t->update : NULL;
}
