#include "diffusion/scheduler_config.h"

#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "diffusion/schedule.h"
#include "io/json.h"

/* diffusers' schedulers of the discrete variance-preserving kind, with the defaults that matter
 * here. A network trained under any of them can be sampled by any other. */
typedef struct class_defaults {
    const char *name;
    bool clip, alpha_one;
    tw_spacing spacing;
    double beta_start, beta_end;
} class_defaults;

static const class_defaults classes[] = {
    {"DDPMScheduler", true, true, TW_SPACING_LEADING, 1e-4, 0.02},
    {"DDIMScheduler", true, true, TW_SPACING_LEADING, 1e-4, 0.02},
    {"DDPMParallelScheduler", true, true, TW_SPACING_LEADING, 1e-4, 0.02},
    {"DDIMParallelScheduler", true, true, TW_SPACING_LEADING, 1e-4, 0.02},
    {"PNDMScheduler", false, false, TW_SPACING_LEADING, 1e-4, 0.02},
    {"LMSDiscreteScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"EulerDiscreteScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"EulerAncestralDiscreteScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"HeunDiscreteScheduler", false, true, TW_SPACING_LINSPACE, 0.00085, 0.012},
    {"KDPM2DiscreteScheduler", false, true, TW_SPACING_LINSPACE, 0.00085, 0.012},
    {"KDPM2AncestralDiscreteScheduler", false, true, TW_SPACING_LINSPACE, 0.00085, 0.012},
    {"DPMSolverMultistepScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"DPMSolverSinglestepScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"UniPCMultistepScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
    {"DEISMultistepScheduler", false, true, TW_SPACING_LINSPACE, 1e-4, 0.02},
};

static void set_class(tw_scheduler_config *c, const class_defaults *class) {
    memset(c->class_name, 0, sizeof c->class_name);
    strncpy(c->class_name, class->name, sizeof c->class_name - 1);
    c->schedule.beta_start = class->beta_start;
    c->schedule.beta_end = class->beta_end;
    c->clipping = class->clip ? TW_CLIPPING_RANGE : TW_CLIPPING_NONE;
    c->spacing = class->spacing;
    c->set_alpha_to_one = class->alpha_one;
}

void tw_scheduler_config_init(tw_scheduler_config *config) {
    const tw_schedule_options schedule = TW_SCHEDULE_OPTIONS_INIT;
    memset(config, 0, sizeof *config);
    config->schedule = schedule;
    config->prediction = TW_PREDICT_EPSILON;
    config->variance = TW_VARIANCE_FIXED_SMALL;
    config->clip_range = 1.0;
    config->dynamic_ratio = 0.995;
    config->dynamic_max = 1.0;
    set_class(config, &classes[0]);
}

void tw_scheduler_config_free(tw_context *ctx, tw_scheduler_config *config) {
    tw_free(ctx, config->betas);
    config->betas = NULL;
    config->schedule.betas = NULL;
}

/* A string's meaning by table; null entries end it. */
typedef struct word {
    const char *text;
    int value;
} word;

static tw_status read_word(const tw_json *json, const char *key, const word *words, int *out) {
    if (!tw_json_has(json, key) || tw_json_is_null(json, key)) return TW_OK;
    const char *text = "";
    TW_TRY(tw_json_get_string(json, key, &text));
    char known[256] = "";
    for (const word *w = words; w->text; w++) {
        if (strcmp(text, w->text) == 0) {
            *out = w->value;
            return TW_OK;
        }
        if (w != words) strncat(known, ", ", sizeof known - strlen(known) - 1);
        strncat(known, w->text, sizeof known - strlen(known) - 1);
    }
    return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: %s \"%s\" is not supported, expected one of %s", json->name, key, text,
                   known);
}

static tw_status read_class(const tw_json *json, tw_scheduler_config *c) {
    const char *name = classes[0].name;
    TW_TRY(tw_json_get_string(json, "_class_name", &name));
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(name, classes[i].name) == 0) {
            set_class(c, &classes[i]);
            return TW_OK;
        }
    return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: _class_name \"%s\" is not supported, expected a discrete "
                   "variance-preserving scheduler such as DDPMScheduler or DDIMScheduler",
                   json->name, name);
}

static tw_status read_betas(const tw_json *json, tw_scheduler_config *c) {
    const json_t *array = json_object_get(json->object, "trained_betas");
    if (!array || json_is_null(array)) return TW_OK;
    const size_t n = json_array_size(array);
    if (!json_is_array(array) || n < 1 || n > TW_SCHEDULE_MAX_STEPS)
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: trained_betas, expected null or a list of 1 to %d numbers", json->name,
                       TW_SCHEDULE_MAX_STEPS);
    if (tw_json_has(json, "num_train_timesteps") && (size_t)c->schedule.steps != n)
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: %zu trained_betas for %lld num_train_timesteps, expected as many",
                       json->name, n, (long long)c->schedule.steps);
    double *betas = tw_allocate(json->ctx, n, sizeof *betas);
    if (!betas) return TW_ERROR_MEMORY;
    int count = 0;
    const tw_status status = tw_json_get_doubles(json, "trained_betas", (int)n, betas, &count);
    if (status != TW_OK) {
        tw_free(json->ctx, betas);
        return status;
    }
    c->betas = betas;
    c->schedule.betas = betas;
    c->schedule.kind = TW_BETA_CUSTOM;
    c->schedule.steps = (int64_t)n;
    return TW_OK;
}

static tw_status read_schedule(const tw_json *json, tw_scheduler_config *c) {
    static const word kinds[] = {{"linear", TW_BETA_LINEAR},
                                 {"scaled_linear", TW_BETA_SCALED_LINEAR},
                                 {"squaredcos_cap_v2", TW_BETA_COSINE},
                                 {"cosine", TW_BETA_COSINE},
                                 {"sigmoid", TW_BETA_SIGMOID},
                                 {NULL, 0}};
    int kind = TW_BETA_LINEAR;
    bool zero_snr = false;
    TW_TRY(read_word(json, "beta_schedule", kinds, &kind));
    c->schedule.kind = (tw_beta_schedule)kind;
    TW_TRY(
        tw_json_get_int(json, "num_train_timesteps", 1, TW_SCHEDULE_MAX_STEPS, &c->schedule.steps));
    TW_TRY(tw_json_get_double(json, "beta_start", &c->schedule.beta_start));
    TW_TRY(tw_json_get_double(json, "beta_end", &c->schedule.beta_end));
    TW_TRY(tw_json_get_bool(json, "rescale_betas_zero_snr", &zero_snr));
    c->schedule.zero_terminal_snr = zero_snr;
    return TW_OK;
}

static tw_status read_clipping(const tw_json *json, tw_scheduler_config *c) {
    bool clip = c->clipping == TW_CLIPPING_RANGE, threshold = false;
    TW_TRY(tw_json_get_bool(json, "clip_sample", &clip));
    TW_TRY(tw_json_get_bool(json, "thresholding", &threshold));
    TW_TRY(tw_json_get_double(json, "clip_sample_range", &c->clip_range));
    TW_TRY(tw_json_get_double(json, "dynamic_thresholding_ratio", &c->dynamic_ratio));
    TW_TRY(tw_json_get_double(json, "sample_max_value", &c->dynamic_max));
    c->clipping = threshold ? TW_CLIPPING_DYNAMIC : clip ? TW_CLIPPING_RANGE : TW_CLIPPING_NONE;
    if (clip && !(c->clip_range > 0))
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: clip_sample_range %g, expected a positive number", json->name,
                       c->clip_range);
    if (threshold && !(c->dynamic_ratio >= 0 && c->dynamic_ratio <= 1))
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: dynamic_thresholding_ratio %g, expected 0 to 1", json->name,
                       c->dynamic_ratio);
    if (threshold && !(c->dynamic_max >= 1))
        return tw_fail(json->ctx, TW_ERROR_FORMAT, "%s: sample_max_value %g, expected 1 or more",
                       json->name, c->dynamic_max);
    return TW_OK;
}

static tw_status read_sampling(const tw_json *json, tw_scheduler_config *c) {
    static const word predictions[] = {{"epsilon", TW_PREDICT_EPSILON},
                                       {"sample", TW_PREDICT_SAMPLE},
                                       {"v_prediction", TW_PREDICT_V},
                                       {NULL, 0}};
    static const word spacings[] = {{"leading", TW_SPACING_LEADING},
                                    {"trailing", TW_SPACING_TRAILING},
                                    {"linspace", TW_SPACING_LINSPACE},
                                    {NULL, 0}};
    /* The "log" form of the small variance is the same number taken another way. */
    static const word variances[] = {{"fixed_small", TW_VARIANCE_FIXED_SMALL},
                                     {"fixed_small_log", TW_VARIANCE_FIXED_SMALL},
                                     {"fixed_large", TW_VARIANCE_FIXED_LARGE},
                                     {"learned_range", TW_VARIANCE_LEARNED_RANGE},
                                     {NULL, 0}};
    int prediction = c->prediction, spacing = c->spacing, variance = c->variance;
    bool alpha_one = c->set_alpha_to_one != 0;
    TW_TRY(read_word(json, "prediction_type", predictions, &prediction));
    TW_TRY(read_word(json, "timestep_spacing", spacings, &spacing));
    TW_TRY(read_word(json, "variance_type", variances, &variance));
    TW_TRY(tw_json_get_bool(json, "set_alpha_to_one", &alpha_one));
    TW_TRY(tw_json_get_int(json, "steps_offset", 0, TW_SCHEDULE_MAX_STEPS, &c->steps_offset));
    c->prediction = (tw_prediction)prediction;
    c->spacing = (tw_spacing)spacing;
    c->variance = (tw_variance)variance;
    c->set_alpha_to_one = alpha_one;
    return TW_OK;
}

static tw_status read_all(const tw_json *json, tw_scheduler_config *c) {
    TW_TRY(read_class(json, c));
    TW_TRY(read_schedule(json, c));
    TW_TRY(read_clipping(json, c));
    TW_TRY(read_sampling(json, c));
    return read_betas(json, c); /* last: it allocates */
}

tw_status tw_scheduler_config_parse(tw_context *ctx, const char *text, const char *where,
                                    tw_scheduler_config *out) {
    tw_scheduler_config_init(out);
    if (!text) return TW_OK;
    json_t *object = NULL;
    TW_TRY(tw_json_parse(ctx, text, strlen(text), where, &object));
    const tw_json json = {ctx, where, object};
    const tw_status status = read_all(&json, out);
    json_decref(object);
    if (status != TW_OK) tw_scheduler_config_init(out);
    return status;
}

static int set(json_t *object, const char *key, json_t *value) {
    return json_object_set_new(object, key, value); /* -1 also for a null value */
}

static int write_all(json_t *o, const tw_scheduler_config *c, bool ddim) {
    static const char *const variances[] = {"fixed_small", "fixed_large", "learned_range"};
    const tw_schedule_options *s = &c->schedule;
    const bool custom = s->kind == TW_BETA_CUSTOM;
    const char *kind = s->kind == TW_BETA_COSINE ? "squaredcos_cap_v2"
                       : custom                  ? "linear"
                                                 : tw_beta_schedule_name(s->kind);
    json_t *betas = custom ? json_array() : json_null();
    int bad = 0;
    for (int64_t t = 0; custom && t < s->steps; t++)
        bad |= json_array_append_new(betas, json_real(s->betas[t]));
    bad |= set(o, "trained_betas", betas);
    bad |= set(o, "_class_name", json_string(ddim ? "DDIMScheduler" : "DDPMScheduler"));
    bad |= set(o, "num_train_timesteps", json_integer(s->steps));
    bad |= set(o, "beta_schedule", json_string(kind));
    bad |= set(o, "beta_start", json_real(s->beta_start));
    bad |= set(o, "beta_end", json_real(s->beta_end));
    bad |= set(o, "rescale_betas_zero_snr", json_boolean(s->zero_terminal_snr));
    bad |= set(o, "prediction_type", json_string(tw_prediction_name(c->prediction)));
    bad |= set(o, "clip_sample", json_boolean(c->clipping == TW_CLIPPING_RANGE));
    bad |= set(o, "clip_sample_range", json_real(c->clip_range));
    bad |= set(o, "thresholding", json_boolean(c->clipping == TW_CLIPPING_DYNAMIC));
    bad |= set(o, "dynamic_thresholding_ratio", json_real(c->dynamic_ratio));
    bad |= set(o, "sample_max_value", json_real(c->dynamic_max));
    bad |= set(o, "timestep_spacing", json_string(tw_spacing_name(c->spacing)));
    bad |= set(o, "steps_offset", json_integer(c->steps_offset));
    if (ddim)
        bad |= set(o, "set_alpha_to_one", json_boolean(c->set_alpha_to_one));
    else
        bad |= set(o, "variance_type", json_string(variances[c->variance]));
    return bad;
}

tw_status tw_scheduler_config_write(tw_context *ctx, const tw_scheduler_config *config,
                                    char **text) {
    *text = NULL;
    if (config->spacing > TW_SPACING_LINSPACE)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "scheduler_config.json: no diffusers scheduler has the spacing \"%s\"",
                       tw_spacing_name(config->spacing));
    if (config->schedule.kind == TW_BETA_CUSTOM && !config->schedule.betas)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "scheduler_config.json: a custom schedule needs "
                       "its betas");
    json_t *object = json_object();
    const bool ddim = strcmp(config->class_name, "DDIMScheduler") == 0;
    char *dumped = object && write_all(object, config, ddim) == 0
                       ? json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS)
                       : NULL;
    json_decref(object);
    if (!dumped) return tw_fail(ctx, TW_ERROR_MEMORY, "scheduler_config.json: out of memory");
    *text = tw_strdup(ctx, dumped);
    free(dumped);
    return *text ? TW_OK : TW_ERROR_MEMORY;
}
