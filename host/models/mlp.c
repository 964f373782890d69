/* A denoiser for points: hidden layers with an embedding of the time (and of a class) added to each
 * before its activation.
 *
 * config.json: {"_class_name": "TweedieMLP", "in_features": 2, "out_features": null (as in),
 * "hidden": 128, "layers": 3, "act_fn": "relu" | "silu" | "gelu", "num_class_embeds": null}.
 * Weights: time_embedding.<i> [hidden, hidden] of the sinusoidal features of t ([sin, cos], Ho et
 * al. 2020), layers.<i> [hidden, in or hidden], class_embedding [classes, hidden], output. */
#include <string.h>

#include "graph/builder.h"
#include "models/architecture.h"
#include "models/layers.h"

enum { MAX_WIDTH = 65536, MAX_LAYERS = 64, MAX_CLASSES = 1 << 24 };

typedef struct mlp_config {
    int64_t in, out, hidden, layers, classes;
    tw_activation_kind act;
} mlp_config;

static tw_value build(tw_builder *b, const void *config, const tw_network_inputs *in) {
    const mlp_config *c = config;
    const tw_time_options options = {.scale = 1.0, .max_period = 10000.0};
    tw_value time = tw_plan_time_embedding(b->plan, in->t, c->hidden, options), h = in->x;
    if (c->classes)
        time = tw_plan_add(
            b->plan, time,
            tw_layer_embedding(b, "", "class_embedding", in->labels, c->classes, c->hidden), 1.0,
            1.0);
    for (int i = 0; i < c->layers; i++) {
        tw_scope layer = tw_scope_in("", "layers.%d", i);
        tw_scope embedding = tw_scope_in("", "time_embedding.%d", i);
        tw_plan_begin_block(b->plan);
        h = tw_layer_linear(b, "", layer.text, h, c->hidden, TW_INIT_UNIFORM);
        tw_value e = tw_layer_linear(b, "", embedding.text, time, c->hidden, TW_INIT_UNIFORM);
        h = tw_plan_activation(b->plan, tw_plan_add(b->plan, h, e, 1.0, 1.0), c->act);
        tw_plan_end_block(b->plan);
    }
    return tw_layer_linear(b, "", "output", h, c->out, TW_INIT_UNIFORM);
}

static tw_status read(const tw_json *json, mlp_config *c) {
    static const char *const acts[] = {"silu", "relu", "gelu"}; /* as tw_activation_kind counts */
    const char *act = "relu";
    *c = (mlp_config){.in = 2, .hidden = 128, .layers = 3};
    TW_TRY(tw_json_get_int(json, "in_features", 1, MAX_WIDTH, &c->in));
    c->out = c->in;
    if (!tw_json_is_null(json, "out_features"))
        TW_TRY(tw_json_get_int(json, "out_features", 1, MAX_WIDTH, &c->out));
    TW_TRY(tw_json_get_int(json, "hidden", 2, MAX_WIDTH, &c->hidden));
    TW_TRY(tw_json_get_int(json, "layers", 1, MAX_LAYERS, &c->layers));
    if (!tw_json_is_null(json, "num_class_embeds"))
        TW_TRY(tw_json_get_int(json, "num_class_embeds", 1, MAX_CLASSES, &c->classes));
    TW_TRY(tw_json_get_string(json, "act_fn", &act));
    for (int i = 0; i < 3; i++)
        if (strcmp(act, acts[i]) == 0) {
            c->act = (tw_activation_kind)i;
            return TW_OK;
        }
    return tw_fail(
        json->ctx, TW_ERROR_UNSUPPORTED,
        "%s: act_fn: \"%.64s\" is not supported; expected \"silu\", \"relu\" or \"gelu\"",
        json->name, act);
}

static tw_status parse(const tw_json *json, void **config) {
    *config = tw_allocate(json->ctx, 1, sizeof(mlp_config));
    if (!*config) return TW_ERROR_MEMORY;
    tw_status s = read(json, *config);
    if (s == TW_OK) return TW_OK;
    tw_free(json->ctx, *config);
    *config = NULL;
    return s;
}

static void describe(const void *config, tw_model_info *info) {
    const mlp_config *c = config;
    info->rank = 1;
    info->shape[0] = c->in;
    info->out_channels = c->out;
    info->classes = c->classes;
}

const tw_architecture tw_architecture_mlp = {"TweedieMLP", parse, describe, NULL, build};
