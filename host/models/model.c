#include "models/model.h"

#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "core/options.h"
#include "diffusion/scheduler_config.h"
#include "graph/internal.h"
#include "models/architecture.h"
#include "models/layers.h"
#include "models/weights.h"

static int64_t label_width(const tw_model *model) {
    const tw_architecture *a = model->architecture;
    return a->label_width ? a->label_width(model->arch_config) : 0;
}

/* The values of a network of its own in `plan`, for a batch of n. */
static tw_network_inputs example_inputs(const tw_model *model, tw_plan *plan, int64_t n) {
    int64_t shape[TW_MAX_RANK] = {n};
    memcpy(shape + 1, model->info.shape, (size_t)model->info.rank * sizeof *shape);
    tw_network_inputs in = {
        .x = tw_plan_input(plan, "x", plan->precision, model->info.rank + 1, shape),
        .t = tw_plan_input(plan, "t", plan->wide, 1, &n),
        .labels = TW_NONE,
        .rng = TW_NONE};
    if (label_width(model) > 0)
        in.labels =
            tw_plan_input(plan, "labels", plan->precision, 2, (int64_t[]){n, label_width(model)});
    else if (model->info.classes > 0)
        in.labels = tw_plan_input(plan, "labels", TW_I32, 1, &n);
    return in;
}

tw_status tw_model_build(tw_model *model, tw_plan *plan, const tw_network_inputs *in,
                         tw_network *out) {
    const bool conditional = model->info.classes > 0 || label_width(model) > 0;
    *out = (tw_network){TW_NONE, NULL};
    if (plan->status != TW_OK) return tw_plan_compile(plan); /* an input of it is TW_NONE by that */
    if (conditional != (in->labels != TW_NONE))
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT,
                       conditional ? "the model needs class labels, got none"
                                   : "the model takes no class labels, got some");
    tw_builder b = {.model = model, .plan = plan};
    tw_value y = model->architecture->build(&b, model->arch_config, in);
    if (y == TW_NONE) {
        tw_free(model->ctx, b.values);
        tw_status s = tw_plan_compile(plan); /* reports what went wrong */
        return s != TW_OK ? s : tw_fail(model->ctx, TW_ERROR_INTERNAL, "the network has no output");
    }
    *out = (tw_network){y, b.values};
    return TW_OK;
}

tw_status tw_model_bind(tw_model *model, tw_plan *plan, const tw_network *network, void *base,
                        void *rounded, void *gradients) {
    for (int64_t i = 0; i < model->weights.count; i++) {
        const tw_weight *w = &model->weights.items[i];
        const tw_value p = network->parameters[i];
        if (p == TW_NONE) continue;
        const size_t size = tw_dtype_size(tw_plan_desc(plan, p)->dtype);
        const size_t wide = tw_dtype_size(plan->wide);
        void *from = size == wide ? base : rounded;
        TW_TRY(tw_plan_bind(plan, p, (char *)from + (size_t)w->offset * size));
        const tw_value g = gradients ? tw_plan_gradient(plan, p) : TW_NONE;
        if (g != TW_NONE)
            TW_TRY(tw_plan_bind(plan, g, (char *)gradients + (size_t)w->offset * wide));
    }
    return TW_OK;
}

/* Builds the network once, so that its weights declare themselves. */
static tw_status declare(tw_model *model) {
    tw_plan *plan = NULL;
    tw_network network;
    TW_TRY(tw_plan_create(model->ctx, NULL, &plan));
    const tw_network_inputs in = example_inputs(model, plan, 1);
    tw_status s = tw_model_build(model, plan, &in, &network);
    tw_free(model->ctx, network.parameters);
    tw_plan_free(plan);
    if (s == TW_OK) s = tw_weights_place(model->ctx, &model->weights);
    if (s != TW_OK) return s;
    model->info.tensors = model->weights.count;
    for (int64_t i = 0; i < model->weights.count; i++)
        model->info.parameters += model->weights.items[i].count;
    return TW_OK;
}

static tw_status read_config(tw_model *model, const char *text, const char *name) {
    json_t *root = NULL;
    TW_TRY(tw_json_parse(model->ctx, text, strlen(text), name, &root));
    const tw_json json = {model->ctx, name, root};
    tw_status s = tw_architecture_find(&json, &model->architecture);
    if (s == TW_OK) s = model->architecture->parse(&json, &model->arch_config);
    json_decref(root);
    if (s != TW_OK) return s;
    snprintf(model->info.kind, sizeof model->info.kind, "%s", model->architecture->name);
    model->architecture->describe(model->arch_config, &model->info);
    model->config = tw_strdup(model->ctx, text);
    return model->config ? TW_OK : TW_ERROR_MEMORY;
}

static tw_status read_scheduler(tw_model *model, const char *text, const char *name) {
    tw_scheduler_config config;
    TW_TRY(tw_scheduler_config_parse(model->ctx, text, name, &config));
    model->info.prediction = config.prediction;
    model->info.training_steps = config.schedule.steps;
    tw_status s = tw_schedule_create(model->ctx, &config.schedule, &model->schedule);
    if (s != TW_OK)
        s = tw_fail_prefix(model->ctx, s, "%s", name);
    else if (!text)
        s = tw_scheduler_config_write(model->ctx, &config, &model->scheduler_config);
    else if (!(model->scheduler_config = tw_strdup(model->ctx, text)))
        s = TW_ERROR_MEMORY;
    tw_scheduler_config_free(model->ctx, &config);
    return s;
}

static tw_status describe(tw_model *model, const char *config, const char *config_name,
                          const char *scheduler, const char *scheduler_name) {
    TW_TRY(read_config(model, config, config_name));
    TW_TRY(read_scheduler(model, scheduler, scheduler_name));
    tw_status s = declare(model);
    if (s != TW_OK) return tw_fail_prefix(model->ctx, s, "%s", config_name);
    tw_backend *backend = model->ctx->backend;
    const size_t bytes = (size_t)model->weights.total * sizeof(float);
    TW_TRY(backend->allocate(backend, bytes, &model->storage));
    return backend->fill(backend, model->storage, 0, bytes);
}

tw_status tw_model_describe(tw_context *ctx, const char *config, const char *config_name,
                            const char *scheduler, const char *scheduler_name, tw_model **out) {
    *out = NULL;
    tw_model *model = tw_allocate(ctx, 1, sizeof *model);
    if (!model) return TW_ERROR_MEMORY;
    model->ctx = ctx;
    model->references = 1;
    model->info.size = sizeof model->info;
    tw_status s = describe(model, config, config_name, scheduler, scheduler_name);
    if (s == TW_OK)
        *out = model;
    else
        tw_model_free(model);
    return s;
}

void tw_model_retain(tw_model *model) {
    if (model) model->references++;
}

void tw_model_free(tw_model *model) {
    if (!model || --model->references > 0) return;
    tw_context *ctx = model->ctx;
    tw_model_forget_evaluation(model);
    if (model->storage) ctx->backend->release(ctx->backend, model->storage);
    tw_weights_free(ctx, &model->weights);
    tw_schedule_free(model->schedule);
    tw_free(ctx, model->arch_config);
    tw_free(ctx, model->config);
    tw_free(ctx, model->scheduler_config);
    tw_free(ctx, model);
}

/* Largest number of elements of one weight. */
static int64_t largest(const tw_model *model) {
    int64_t most = 1;
    for (int64_t i = 0; i < model->weights.count; i++)
        if (model->weights.items[i].count > most) most = model->weights.items[i].count;
    return most;
}

static void *address(const tw_model *model, const tw_weight *w) {
    return (char *)model->storage + (size_t)w->offset * sizeof(float);
}

static tw_status upload(tw_model *model, const tw_weight *w, const float *file, float *plan) {
    tw_backend *backend = model->ctx->backend;
    model->version++;
    tw_weight_from_file(w, file, plan);
    return backend->upload(backend, address(model, w), plan, (size_t)w->count * sizeof *plan);
}

tw_status tw_model_initialize(tw_model *model, uint64_t seed) {
    const size_t n = (size_t)largest(model);
    float *file = tw_allocate(model->ctx, 2 * n, sizeof *file);
    if (!file) return TW_ERROR_MEMORY;
    tw_status s = TW_OK;
    for (int64_t i = 0; i < model->weights.count && s == TW_OK; i++) {
        tw_weight_init(&model->weights.items[i], seed, file);
        s = upload(model, &model->weights.items[i], file, file + n);
    }
    tw_free(model->ctx, file);
    return s;
}

static tw_status find(tw_model *model, const char *name, const void *array, int64_t count,
                      const tw_weight **out) {
    if (!model) return tw_fail(NULL, TW_ERROR_ARGUMENT, "model: null");
    if (!name || !array)
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT, "weight: no name or no array");
    int64_t i = tw_weights_find(&model->weights, name);
    if (i < 0)
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT, "the model has no weight \"%s\"", name);
    *out = &model->weights.items[i];
    if (count == (*out)->count) return TW_OK;
    return tw_fail(model->ctx, TW_ERROR_ARGUMENT, "weight %s: expected %lld numbers, got %lld",
                   name, (long long)(*out)->count, (long long)count);
}

tw_status tw_model_get_weight(tw_model *model, const char *name, float *out, int64_t count) {
    const tw_weight *w = NULL;
    TW_TRY(find(model, name, out, count, &w));
    tw_backend *backend = model->ctx->backend;
    float *plan = tw_allocate(model->ctx, (size_t)count, sizeof *plan);
    if (!plan) return TW_ERROR_MEMORY;
    tw_status s = backend->download(backend, plan, address(model, w), (size_t)count * sizeof *plan);
    if (s == TW_OK) tw_weight_to_file(w, plan, out);
    tw_free(model->ctx, plan);
    return s;
}

tw_status tw_model_set_weight(tw_model *model, const char *name, const float *in, int64_t count) {
    const tw_weight *w = NULL;
    TW_TRY(find(model, name, in, count, &w));
    float *plan = tw_allocate(model->ctx, (size_t)count, sizeof *plan);
    if (!plan) return TW_ERROR_MEMORY;
    tw_status s = upload(model, w, in, plan);
    tw_free(model->ctx, plan);
    return s;
}

tw_status tw_model_get_info(const tw_model *model, tw_model_info *out) {
    if (!model) return tw_fail(NULL, TW_ERROR_ARGUMENT, "model: null");
    return tw_options_write(model->ctx, "model info", out, &model->info, sizeof model->info);
}

const tw_schedule *tw_model_schedule(const tw_model *model) {
    return model ? model->schedule : NULL;
}

const char *tw_model_config(const tw_model *model) {
    return model ? model->config : "";
}

const char *tw_model_scheduler_config(const tw_model *model) {
    return model ? model->scheduler_config : "";
}
