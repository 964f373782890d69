/* Checking of a sampler's options, its creation and its end. */
#include "diffusion/sampler.h"

#include <string.h>

#include "backend/backend.h"
#include "core/checked.h"
#include "core/context.h"
#include "core/options.h"
#include "diffusion/coefficients.h"
#include "diffusion/samplers/method.h"
#include "diffusion/schedule.h"
#include "diffusion/scheduler_config.h"
#include "graph/precision.h"
#include "models/architecture.h"
#include "models/model.h"

/* Elements of one sample that the noise's counter can tell apart. */
#define MAX_ELEMENTS ((int64_t)1 << 34)

static tw_status set_shape(tw_sampler *s, int rank, const int64_t *shape) {
    if (rank < 1 || rank > 3)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: samples of rank %d, expected 1 to 3",
                       rank);
    s->rank = rank;
    s->elements = 1;
    for (int i = 0; i < rank; i++) {
        s->shape[i] = shape[i];
        if (shape[i] < 1 || !tw_mul_i64(s->elements, shape[i], &s->elements) ||
            s->elements > MAX_ELEMENTS)
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: extent %d of a sample is %lld, expected 1 or more and at most "
                           "2^34 elements in all",
                           i, (long long)shape[i]);
    }
    return TW_OK;
}

static tw_status set_timesteps(tw_sampler *s, int64_t T) {
    tw_sampler_options *o = &s->options;
    const bool custom = o->spacing == TW_SPACING_CUSTOM;
    const int64_t *given = o->timesteps;
    o->timesteps = NULL;
    if (o->steps < 1 || o->steps > T)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: %lld steps, expected 1 to %lld, the training steps",
                       (long long)o->steps, (long long)T);
    if (custom && !given)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: custom spacing needs its time steps");
    s->timesteps = tw_allocate(s->ctx, (size_t)o->steps, sizeof *s->timesteps);
    if (!s->timesteps) return TW_ERROR_MEMORY;
    o->timesteps = s->timesteps;
    if (!custom) {
        const tw_status status =
            tw_timesteps(s->ctx, o->spacing, T, o->steps, o->steps_offset, s->timesteps, &s->steps);
        return status == TW_OK ? TW_OK : tw_fail_prefix(s->ctx, status, "sampler");
    }
    for (int64_t i = 0; i < o->steps; i++) {
        if (given[i] < 0 || given[i] >= (i ? given[i - 1] : T))
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: entry %lld of the time steps is %lld, expected 0 to %lld in "
                           "falling order",
                           (long long)i, (long long)given[i],
                           (long long)(i ? given[i - 1] : T) - 1);
        s->timesteps[i] = given[i];
    }
    s->steps = o->steps;
    return TW_OK;
}

/* What the model's authors clip; nothing for a callback. */
static tw_status default_clipping(tw_sampler *s) {
    tw_sampler_options *o = &s->options;
    o->clipping = TW_CLIPPING_NONE;
    if (!s->model) return TW_OK;
    tw_scheduler_config config;
    TW_TRY(tw_scheduler_config_parse(s->ctx, s->model->scheduler_config, "scheduler_config.json",
                                     &config));
    o->clipping = config.clipping;
    o->clip_range = config.clip_range;
    o->dynamic_ratio = config.dynamic_ratio;
    o->dynamic_max = config.dynamic_max;
    tw_scheduler_config_free(s->ctx, &config);
    return TW_OK;
}

static tw_status set_clipping(tw_sampler *s) {
    tw_sampler_options *o = &s->options;
    if (o->clipping == TW_CLIPPING_DEFAULT) TW_TRY(default_clipping(s));
    switch (o->clipping) {
    case TW_CLIPPING_NONE:
        s->update.update.clip = TW_CLIP_NONE;
        return TW_OK;
    case TW_CLIPPING_RANGE:
        if (!(o->clip_range > 0))
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: clip range %g, expected a positive number", o->clip_range);
        s->update.update.clip = TW_CLIP_RANGE;
        return TW_OK;
    case TW_CLIPPING_DYNAMIC:
        if (!(o->dynamic_ratio >= 0 && o->dynamic_ratio <= 1))
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: dynamic thresholding's quantile %g, expected 0 to 1",
                           o->dynamic_ratio);
        if (!(o->dynamic_max >= 1))
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: dynamic thresholding's maximum %g, expected 1 or more",
                           o->dynamic_max);
        s->update.update.clip = TW_CLIP_DYNAMIC;
        return TW_OK;
    default:
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: clipping %d is not a tw_clipping",
                       (int)o->clipping);
    }
}

static tw_status set_variance(tw_sampler *s) {
    const int64_t channels = s->shape[s->rank - 1];
    s->learned =
        s->options.kind == TW_SAMPLER_DDPM && s->options.variance == TW_VARIANCE_LEARNED_RANGE;
    if (!s->model) s->out_channels = s->learned ? 2 * channels : channels;
    if (s->out_channels != channels && s->out_channels != 2 * channels)
        return tw_fail(s->ctx, TW_ERROR_UNSUPPORTED,
                       "sampler: the network makes %lld channels of %lld, expected as many or, "
                       "with a learned variance, twice as many",
                       (long long)s->out_channels, (long long)channels);
    if (s->learned && s->out_channels != 2 * channels)
        return tw_fail(s->ctx, TW_ERROR_UNSUPPORTED,
                       "sampler: the model has no learned variance: it makes %lld channels, "
                       "expected %lld",
                       (long long)s->out_channels, 2 * (long long)channels);
    return TW_OK;
}

static tw_status set_guidance(tw_sampler *s) {
    const double w = s->options.guidance;
    if (!(w - w == 0))
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: guidance %g, expected a finite number",
                       w);
    s->guided = w != 1.0;
    if (!s->guided || !s->model) return TW_OK;
    /* INT32_MAX: any number is a label, so none means "no condition". */
    if (s->classes < 2 || s->classes == INT32_MAX)
        return tw_fail(s->ctx, TW_ERROR_UNSUPPORTED,
                       "sampler: guidance %g needs a model with classes of which the last is the "
                       "empty one",
                       w);
    s->null_label = (int32_t)(s->classes - 1);
    return TW_OK;
}

static void set_update(tw_sampler *s) {
    const tw_sampler_options *o = &s->options;
    s->update.update.prediction = s->prediction;
    s->update.update.rederive_epsilon = o->rederive_epsilon != 0;
    s->update.update.guided = s->guided;
    s->update.update.guidance = o->guidance;
    s->update.update.clip_range = o->clip_range;
    s->update.update.quantile = o->dynamic_ratio;
    s->update.update.max_limit = o->dynamic_max;
    tw_sampler_method_of(o->kind)->attributes(o, &s->update);
}

static tw_status set_table(tw_sampler *s, const tw_schedule *schedule) {
    tw_backend *b = s->ctx->backend;
    const size_t row = TW_COEF_WIDTH * sizeof(float), bytes = (size_t)s->steps * row;
    float *rows = tw_allocate(s->ctx, (size_t)s->steps, row);
    if (!rows) return TW_ERROR_MEMORY;
    tw_status status = tw_coefficients_make(s->ctx, schedule, &s->options, s->prediction,
                                            s->timesteps, s->steps, rows);
    if (status == TW_OK) status = b->allocate(b, bytes, &s->table);
    if (status == TW_OK) status = b->upload(b, s->table, rows, bytes);
    tw_free(s->ctx, rows);
    return status;
}

/* Everything but the denoiser itself, which is in place. */
static tw_status configure(tw_sampler *s, const tw_schedule *schedule,
                           const tw_sampler_options *options) {
    const tw_sampler_options defaults = TW_SAMPLER_OPTIONS_INIT;
    s->options = defaults;
    TW_TRY(tw_options_read(s->ctx, "tw_sampler_create", &s->options, sizeof s->options, options));
    if (s->options.max_batch < 1 || s->options.max_batch > INT32_MAX)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: max_batch %lld, expected 1 or more",
                       (long long)s->options.max_batch);
    TW_TRY(tw_precision_check(s->ctx, "sampler", s->options.precision));
    TW_TRY(set_timesteps(s, schedule->steps));
    TW_TRY(set_clipping(s));
    TW_TRY(set_guidance(s));
    TW_TRY(set_variance(s));
    TW_TRY(set_table(s, schedule));
    set_update(s);
    if (!s->model) return TW_OK;
    return tw_rounded_make(s->model, tw_precision_format(s->options.precision), s->model->storage,
                           &s->rounded);
}

static tw_status finish(tw_sampler *s, tw_status status, tw_sampler **out) {
    if (status == TW_OK)
        *out = s;
    else
        tw_sampler_free(s);
    return status;
}

tw_status tw_sampler_create(tw_model *model, const tw_sampler_options *options, tw_sampler **out) {
    if (!model || !out)
        return tw_fail(model ? model->ctx : NULL, TW_ERROR_ARGUMENT,
                       "tw_sampler_create: a model and a place for the sampler are needed");
    *out = NULL;
    const tw_architecture *a = model->architecture;
    if (a->label_width && a->label_width(model->arch_config) > 0)
        return tw_fail(model->ctx, TW_ERROR_UNSUPPORTED,
                       "sampler: this network's class labels are vectors, not numbers");
    tw_sampler *s = tw_allocate(model->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    s->ctx = model->ctx;
    s->model = model;
    tw_model_retain(model);
    s->prediction = model->info.prediction;
    s->classes = model->info.classes;
    s->out_channels = model->info.out_channels;
    tw_status status = set_shape(s, model->info.rank, model->info.shape);
    if (status == TW_OK) status = configure(s, model->schedule, options);
    return finish(s, status, out);
}

static tw_status set_denoiser(tw_sampler *s, const tw_denoiser *denoiser) {
    s->denoiser.size = sizeof s->denoiser;
    TW_TRY(tw_options_read(s->ctx, "tw_denoiser", &s->denoiser, sizeof s->denoiser, denoiser));
    if (!s->denoiser.evaluate)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: the denoiser has no function");
    if (s->denoiser.prediction < TW_PREDICT_EPSILON || s->denoiser.prediction > TW_PREDICT_V)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: prediction %d is not a tw_prediction",
                       (int)s->denoiser.prediction);
    s->prediction = s->denoiser.prediction;
    s->null_label = s->denoiser.null_label;
    return set_shape(s, s->denoiser.rank, s->denoiser.shape);
}

tw_status tw_sampler_create_callback(tw_context *ctx, const tw_denoiser *denoiser,
                                     const tw_schedule *schedule, const tw_sampler_options *options,
                                     tw_sampler **out) {
    if (!ctx || !denoiser || !schedule || !out)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "tw_sampler_create_callback: a context, a denoiser, a schedule and a place "
                       "for the sampler are needed");
    *out = NULL;
    tw_sampler *s = tw_allocate(ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    s->ctx = ctx;
    tw_status status = set_denoiser(s, denoiser);
    if (status == TW_OK) status = configure(s, schedule, options);
    return finish(s, status, out);
}

void tw_sampler_free(tw_sampler *sampler) {
    if (!sampler) return;
    tw_context *ctx = sampler->ctx;
    for (int i = 0; i < TW_SAMPLER_CHUNKS; i++) tw_sampler_chunk_free(sampler, sampler->chunks[i]);
    ctx->backend->release(ctx->backend, sampler->table);
    tw_rounded_free(ctx, &sampler->rounded);
    tw_free(ctx, sampler->timesteps);
    tw_model_free(sampler->model);
    tw_free(ctx, sampler);
}

const int64_t *tw_sampler_timesteps(const tw_sampler *sampler, int64_t *count) {
    if (count) *count = sampler ? sampler->steps : 0;
    return sampler ? sampler->timesteps : NULL;
}
