/* The forward pass of diffusers' UNet2DModel: the network of Ho et al. 2020 and its relatives. */
#include "models/architecture.h"
#include "models/layers.h"
#include "models/unet_config.h"

#define MAX_SKIPS (TW_UNET_MAX_LEVELS * (TW_UNET_MAX_LAYERS + 1))

/* Larger ones have no attention on a GPU, which is said of it alone. */
#define LARGEST_HEAD 512

typedef enum resample { SAME, DOWN, UP } resample;

typedef struct unet {
    tw_builder *b;
    tw_plan *plan;
    const tw_unet_config *config;
    const tw_network_inputs *in;
    tw_stack time; /* of the activated embedding of the time and the class, [N,T'] */
    tw_value skips[MAX_SKIPS];
    int n_skips;
} unet;

static tw_value conv3x3(unet *u, const char *scope, const char *name, tw_value x, int64_t channels,
                        tw_init init) {
    return tw_layer_conv2d(u->b, scope, name, x, channels, 3, (tw_conv_options){1, 1, 1, 1, 1},
                           init);
}

static tw_value activate(unet *u, tw_value x) {
    return tw_plan_activation(u->plan, x, u->config->act);
}

static const tw_columns none = {TW_NONE, 0};

static tw_value norm_act(unet *u, const char *scope, const char *name, tw_value x,
                         tw_columns scale_shift) {
    bool silu = u->config->act == TW_SILU;
    tw_norm_options options = {u->config->groups, u->config->eps, silu};
    tw_value h = tw_layer_group_norm(u->b, scope, name, x, scale_shift, options);
    return silu ? h : activate(u, h);
}

static tw_value resampled(unet *u, tw_value x, resample how) {
    if (how == UP) return tw_plan_upsample_nearest(u->plan, x, 2);
    return how == DOWN ? tw_plan_average_pool(u->plan, x, 2) : x;
}

/* A block's result, which has its name. */
static tw_value joined(unet *u, const char *scope, tw_value x, tw_value h, double divisor) {
    tw_value y = tw_plan_add(u->plan, x, h, 1.0 / divisor, 1.0 / divisor);
    tw_plan_name(u->plan, y, scope);
    return y;
}

static tw_value resnet(unet *u, const char *scope, tw_value x, int64_t channels, resample how,
                       double divisor) {
    const bool scale_shift = u->config->scale_shift;
    tw_value h = resampled(u, norm_act(u, scope, "norm1", x, none), how);
    x = resampled(u, x, how);
    if (tw_layer_channels(u->b, x) != channels)
        x = tw_layer_conv2d(u->b, scope, "conv_shortcut", x, channels, 1,
                            (tw_conv_options){.stride = 1}, TW_INIT_UNIFORM);
    /* What a convolution is joined with comes before it, so that both can be one region. */
    const tw_columns time = tw_layer_stacked(
        u->b, &u->time, scope, scale_shift ? 2 * channels : channels, TW_INIT_UNIFORM);
    h = conv3x3(u, scope, "conv1", h, channels, TW_INIT_UNIFORM);
    if (!scale_shift) h = tw_build_add_columns(u->plan, h, time);
    h = norm_act(u, scope, "norm2", h, scale_shift ? time : none);
    h = tw_layer_dropout(u->b, h, u->in->rng, u->config->dropout);
    h = conv3x3(u, scope, "conv2", h, channels, TW_INIT_ZERO);
    return joined(u, scope, x, h, divisor);
}

static tw_value attention(unet *u, const char *scope, tw_value x, int groups, double divisor) {
    int64_t s[TW_MAX_RANK] = {0};
    if (tw_plan_shape(u->plan, x, s) != 4) return TW_NONE;
    const int64_t head_dim = u->config->head_dim ? u->config->head_dim : s[3];
    const int64_t heads = s[3] / head_dim, inner = heads * head_dim;
    tw_value h = x;
    if (groups)
        h = tw_layer_group_norm(u->b, scope, "group_norm", x, none,
                                (tw_norm_options){groups, u->config->eps, 0});
    h = tw_plan_reshape(u->plan, h, 3, (int64_t[]){s[0], s[1] * s[2], s[3]});
    tw_value qkv[3] = {TW_NONE, TW_NONE, TW_NONE};
    tw_layer_projections(u->b, scope, h, inner, head_dim <= LARGEST_HEAD, qkv);
    h = tw_plan_attention(u->plan, qkv[0], qkv[1], qkv[2], TW_NONE, (int)heads, 0.0);
    h = tw_layer_linear(u->b, scope, "to_out.0", h, s[3], TW_INIT_ZERO);
    h = tw_plan_reshape(u->plan, h, 4, s);
    return joined(u, scope, x, h, divisor);
}

/* Attention as a block of its own. */
static tw_value attention_block(unet *u, const char *scope, tw_value x, int groups,
                                double divisor) {
    tw_plan_begin_block(u->plan);
    x = attention(u, scope, x, groups, divisor);
    tw_plan_end_block(u->plan);
    return x;
}

static tw_value resnet_block(unet *u, const char *scope, tw_value x, int64_t channels,
                             double divisor) {
    tw_plan_begin_block(u->plan);
    x = resnet(u, scope, x, channels, SAME, divisor);
    tw_plan_end_block(u->plan);
    return x;
}

/* One residual block of a level, of x and perhaps a skip, with attention where the level has it. */
static tw_value layer(unet *u, tw_unet_block kind, const char *level, int j, tw_value x,
                      tw_value skip, int64_t channels) {
    tw_scope r = tw_scope_in(level, "resnets.%d", j), a = tw_scope_in(level, "attentions.%d", j);
    tw_plan_begin_block(u->plan);
    if (skip != TW_NONE) x = tw_plan_concat(u->plan, (tw_value[]){x, skip}, 2);
    x = resnet(u, r.text, x, channels, SAME, 1.0);
    tw_plan_end_block(u->plan);
    return kind == TW_UNET_ATTENTION ? attention_block(u, a.text, x, u->config->groups, 1.0) : x;
}

static tw_value downsample(unet *u, tw_unet_block kind, const char *level, tw_value x) {
    const tw_unet_config *c = u->config;
    tw_scope s = tw_scope_in(level, "downsamplers.0");
    int64_t channels = tw_layer_channels(u->b, x);
    if (kind == TW_UNET_RESNET || (kind == TW_UNET_ATTENTION && c->down_resnet))
        return resnet(u, s.text, x, channels, DOWN, 1.0);
    int before = c->downsample_padding;
    return tw_layer_conv2d(u->b, s.text, "conv", x, channels, 3,
                           (tw_conv_options){2, before, before, 1, 1}, TW_INIT_UNIFORM);
}

static tw_value upsample(unet *u, tw_unet_block kind, const char *level, tw_value x) {
    tw_scope s = tw_scope_in(level, "upsamplers.0");
    int64_t channels = tw_layer_channels(u->b, x);
    if (kind == TW_UNET_RESNET || (kind == TW_UNET_ATTENTION && u->config->up_resnet))
        return resnet(u, s.text, x, channels, UP, 1.0);
    return conv3x3(u, s.text, "conv", resampled(u, x, UP), channels, TW_INIT_UNIFORM);
}

static tw_value down(unet *u, tw_value x) {
    const tw_unet_config *c = u->config;
    for (int i = 0; i < c->levels; i++) {
        tw_scope level = tw_scope_in("", "down_blocks.%d", i);
        for (int j = 0; j < c->layers; j++)
            u->skips[u->n_skips++] = x =
                layer(u, c->down[i], level.text, j, x, TW_NONE, c->channels[i]);
        if (i + 1 == c->levels) break;
        tw_plan_begin_block(u->plan);
        u->skips[u->n_skips++] = x = downsample(u, c->down[i], level.text, x);
        tw_plan_end_block(u->plan);
    }
    return x;
}

static tw_value mid(unet *u, tw_value x) {
    const tw_unet_config *c = u->config;
    if (!c->mid) return x;
    const int64_t channels = c->channels[c->levels - 1];
    x = resnet_block(u, "mid_block.resnets.0", x, channels, c->mid_scale);
    if (c->mid_attention)
        x = attention_block(u, "mid_block.attentions.0", x, c->mid_attention_groups, c->mid_scale);
    return resnet_block(u, "mid_block.resnets.1", x, channels, c->mid_scale);
}

static tw_value up(unet *u, tw_value x) {
    const tw_unet_config *c = u->config;
    for (int i = 0; i < c->levels; i++) {
        tw_scope level = tw_scope_in("", "up_blocks.%d", i);
        for (int j = 0; j <= c->layers; j++)
            x = layer(u, c->up[i], level.text, j, x, u->skips[--u->n_skips],
                      c->channels[c->levels - 1 - i]);
        if (i + 1 == c->levels) break;
        tw_plan_begin_block(u->plan);
        x = upsample(u, c->up[i], level.text, x);
        tw_plan_end_block(u->plan);
    }
    return x;
}

/* Features of a time (or of a label that is one), [N,C0] or [N,2 C0]. */
static tw_value time_features(unet *u, tw_value t) {
    const tw_unet_config *c = u->config;
    tw_time_options o = {.freq_shift = c->freq_shift, .scale = 1.0, .max_period = 10000.0};
    o.flip = c->flip;
    return tw_plan_time_embedding(u->plan, tw_layer_time(u->b, t), c->channels[0], o);
}

static tw_value time_mlp(unet *u, const char *scope, tw_value x) {
    x = tw_layer_linear(u->b, scope, "linear_1", x, u->config->time_dim, TW_INIT_UNIFORM);
    x = tw_plan_activation(u->plan, x, TW_SILU);
    return tw_layer_linear(u->b, scope, "linear_2", x, u->config->time_dim, TW_INIT_UNIFORM);
}

static tw_value time_and_class(unet *u) {
    const tw_unet_config *c = u->config;
    const tw_value labels = u->in->labels;
    tw_value t = u->in->t, features, label_features = TW_NONE;
    const bool as_time = c->class_kind == TW_CLASS_TIMESTEP;
    if (c->time == TW_TIME_FOURIER) {
        tw_value w = tw_layer_constant(u->b, "time_proj", c->channels[0], 16.0);
        tw_time_options o = {.log = 1};
        features = tw_plan_fourier_embedding(u->plan, t, w, o);
        if (as_time)
            label_features = tw_plan_fourier_embedding(u->plan, tw_layer_time(u->b, labels), w, o);
    } else if (c->time == TW_TIME_LEARNED) {
        features = tw_layer_embedding(u->b, "", "time_proj", tw_plan_convert(u->plan, t, TW_I32),
                                      c->time_steps, c->channels[0]);
    } else {
        features = time_features(u, t);
        if (as_time) label_features = time_features(u, labels);
    }
    tw_value e = time_mlp(u, "time_embedding", features), k = TW_NONE;
    if (c->class_kind == TW_CLASS_NONE) return e;
    if (c->class_kind == TW_CLASS_TABLE)
        k = tw_layer_embedding(u->b, "", "class_embedding", labels, c->classes, c->time_dim);
    else
        k = as_time ? time_mlp(u, "class_embedding", label_features) : labels;
    return tw_plan_add(u->plan, e, k, 1.0, 1.0);
}

static tw_value build(tw_builder *b, const void *config, const tw_network_inputs *in) {
    const tw_unet_config *c = config;
    unet u = {.b = b, .plan = b->plan, .config = c, .in = in};
    tw_value x = c->center_input ? tw_plan_scale(b->plan, in->x, 2.0, -1.0) : in->x;
    u.time = tw_layer_stack(b, "time_emb_proj", activate(&u, time_and_class(&u)));
    u.skips[u.n_skips++] = x = conv3x3(&u, "", "conv_in", x, c->channels[0], TW_INIT_UNIFORM);
    x = up(&u, mid(&u, down(&u, x)));
    tw_plan_begin_block(b->plan);
    x = tw_layer_group_norm(b, "", "conv_norm_out", x, none,
                            (tw_norm_options){c->groups, c->eps, 1});
    x = conv3x3(&u, "", "conv_out", x, c->out_channels, TW_INIT_ZERO);
    tw_plan_end_block(b->plan);
    if (c->time == TW_TIME_FOURIER) x = tw_plan_scale_samples(b->plan, x, in->t, 1);
    return x;
}

static tw_status parse(const tw_json *json, void **config) {
    *config = tw_allocate(json->ctx, 1, sizeof(tw_unet_config));
    if (!*config) return TW_ERROR_MEMORY;
    tw_status s = tw_unet_config_parse(json, *config);
    if (s == TW_OK) return TW_OK;
    tw_free(json->ctx, *config);
    *config = NULL;
    return s;
}

static void describe(const void *config, tw_model_info *info) {
    const tw_unet_config *c = config;
    info->rank = 3;
    info->shape[0] = c->height;
    info->shape[1] = c->width;
    info->shape[2] = c->in_channels;
    info->out_channels = c->out_channels;
    if (c->class_kind == TW_CLASS_TABLE) info->classes = c->classes;
    if (c->class_kind == TW_CLASS_TIMESTEP) info->classes = INT32_MAX;
}

static int64_t label_width(const void *config) {
    const tw_unet_config *c = config;
    return c->class_kind == TW_CLASS_IDENTITY ? c->time_dim : 0;
}

const tw_architecture tw_architecture_unet2d = {"UNet2DModel", parse, describe, label_width, build};
