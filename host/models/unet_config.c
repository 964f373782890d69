#include "models/unet_config.h"

#include <ctype.h>
#include <string.h>

enum { MAX_CHANNELS = 65536, MAX_SIZE = 65536, MAX_COUNT = 1 << 24 };

typedef struct word {
    const char *text;
    int value;
} word;

static tw_status unsupported(const tw_json *json, const char *key, int index, const char *value,
                             const char *expected) {
    char place[32] = "";
    if (index >= 0) snprintf(place, sizeof place, "[%d]", index);
    return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: %s%s: \"%.64s\" is not supported; expected %s", json->name, key, place,
                   value, expected);
}

/* Looks `text` up in `words`, which ends with a null text. */
static tw_status choose(const tw_json *json, const char *key, int index, const char *text,
                        const word *words, int *out) {
    char expected[256] = "";
    for (const word *w = words; w->text; w++) {
        if (strcmp(text, w->text) == 0) {
            *out = w->value;
            return TW_OK;
        }
        size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s\"%s\"",
                 w == words ? "" : (w[1].text ? ", " : " or "), w->text);
    }
    return unsupported(json, key, index, text, expected);
}

/* A string out of a list; absent leaves *out. */
static tw_status get_word(const tw_json *json, const char *key, const word *words, int *out) {
    const char *text = NULL;
    TW_TRY(tw_json_get_string(json, key, &text));
    return text ? choose(json, key, -1, text, words, out) : TW_OK;
}

/* Null as absent. */
static tw_status get_optional(const tw_json *json, const char *key, int64_t low, int64_t high,
                              int64_t *out) {
    return tw_json_is_null(json, key) ? TW_OK : tw_json_get_int(json, key, low, high, out);
}

static tw_status get_small(const tw_json *json, const char *key, int64_t low, int64_t high,
                           int *out) {
    int64_t wide = *out;
    TW_TRY(tw_json_get_int(json, key, low, high, &wide));
    *out = (int)wide;
    return TW_OK;
}

/* A number above zero. */
static tw_status get_positive(const tw_json *json, const char *key, double *out) {
    TW_TRY(tw_json_get_double(json, key, out));
    if (*out > 0.0) return TW_OK;
    return tw_fail(json->ctx, TW_ERROR_FORMAT, "%s: %s: expected a number above 0, got %g",
                   json->name, key, *out);
}

static tw_status refuse_old_names(const tw_json *json) {
    static const char *const names[][2] = {{"block_channels", "block_out_channels"},
                                           {"down_blocks", "down_block_types"},
                                           {"up_blocks", "up_block_types"},
                                           {"num_res_blocks", "layers_per_block"},
                                           {"resnet_eps", "norm_eps"},
                                           {"resnet_num_groups", "norm_num_groups"},
                                           {"resnet_act_fn", "act_fn"},
                                           {"downscale_freq_shift", "freq_shift"},
                                           {"num_head_channels", "attention_head_dim"},
                                           {"image_size", "sample_size"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (tw_json_has(json, names[i][0]))
            return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                           "%s: \"%s\" is a name of 2022's files, today \"%s\"; convert the model "
                           "with diffusers' scripts/change_naming_configs_and_checkpoints.py",
                           json->name, names[i][0], names[i][1]);
    return TW_OK;
}

static tw_status read_blocks(const tw_json *json, const char *key, const word *words, int *levels,
                             tw_unet_block *out) {
    const char *names[TW_UNET_MAX_LEVELS];
    *levels = 0;
    if (!tw_json_has(json, key)) {
        /* diffusers' default: four levels, attention everywhere but at the full resolution */
        bool up = key[0] == 'u';
        for (int i = 0; i < 4; i++) out[i] = i == (up ? 3 : 0) ? TW_UNET_PLAIN : TW_UNET_ATTENTION;
        *levels = 4;
        return TW_OK;
    }
    TW_TRY(tw_json_get_strings(json, key, TW_UNET_MAX_LEVELS, names, levels));
    for (int i = 0; i < *levels; i++) {
        bool old = strncmp(names[i], "UNetRes", 7) == 0; /* the same block's name in old files */
        int kind = 0;
        TW_TRY(choose(json, key, i, names[i] + (old ? 7 : 0), words, &kind));
        out[i] = (tw_unet_block)kind;
    }
    return TW_OK;
}

static tw_status read_levels(const tw_json *json, tw_unet_config *c) {
    static const word down[] = {{"DownBlock2D", TW_UNET_PLAIN},
                                {"AttnDownBlock2D", TW_UNET_ATTENTION},
                                {"ResnetDownsampleBlock2D", TW_UNET_RESNET},
                                {NULL, 0}};
    static const word up[] = {{"UpBlock2D", TW_UNET_PLAIN},
                              {"AttnUpBlock2D", TW_UNET_ATTENTION},
                              {"ResnetUpsampleBlock2D", TW_UNET_RESNET},
                              {NULL, 0}};
    static const int64_t channels[] = {224, 448, 672, 896};
    int ups = 0, downs = 0, levels = 4;
    memcpy(c->channels, channels, sizeof channels);
    TW_TRY(tw_json_get_ints(json, "block_out_channels", 1, MAX_CHANNELS, TW_UNET_MAX_LEVELS,
                            c->channels, &levels));
    TW_TRY(read_blocks(json, "down_block_types", down, &downs, c->down));
    TW_TRY(read_blocks(json, "up_block_types", up, &ups, c->up));
    if (levels < 1 || downs != levels || ups != levels)
        return tw_fail(
            json->ctx, TW_ERROR_FORMAT,
            "%s: block_out_channels, down_block_types and up_block_types have %d, %d and "
            "%d entries; expected equal numbers from 1 to %d",
            json->name, levels, downs, ups, TW_UNET_MAX_LEVELS);
    c->levels = levels;
    c->layers = 2;
    return get_small(json, "layers_per_block", 1, TW_UNET_MAX_LAYERS, &c->layers);
}

/* sample_size is a number or [height, width], whole numbers of halvings deep. */
static tw_status read_size(const tw_json *json, tw_unet_config *c) {
    int64_t size[2] = {0, 0};
    if (!tw_json_has(json, "sample_size") || tw_json_is_null(json, "sample_size"))
        return tw_fail(json->ctx, TW_ERROR_UNSUPPORTED,
                       "%s: sample_size: missing or null; expected the height and width of the "
                       "images, such as 32 or [32, 48]",
                       json->name);
    if (json_is_array(json_object_get(json->object, "sample_size"))) {
        int count = 0;
        TW_TRY(tw_json_get_ints(json, "sample_size", 1, MAX_SIZE, 2, size, &count));
        if (count != 2)
            return tw_fail(json->ctx, TW_ERROR_FORMAT,
                           "%s: sample_size: expected a number or [height, width]", json->name);
    } else {
        TW_TRY(tw_json_get_int(json, "sample_size", 1, MAX_SIZE, &size[0]));
        size[1] = size[0];
    }
    c->height = size[0];
    c->width = size[1];
    const int64_t unit = INT64_C(1) << (c->levels - 1);
    if (size[0] % unit == 0 && size[1] % unit == 0) return TW_OK;
    return tw_fail(json->ctx, TW_ERROR_FORMAT,
                   "%s: sample_size: %lld x %lld cannot be halved %d times; expected multiples of "
                   "%lld",
                   json->name, (long long)size[0], (long long)size[1], c->levels - 1,
                   (long long)unit);
}

static tw_status read_time(const tw_json *json, tw_unet_config *c) {
    static const word kinds[] = {{"positional", TW_TIME_POSITIONAL},
                                 {"fourier", TW_TIME_FOURIER},
                                 {"learned", TW_TIME_LEARNED},
                                 {NULL, 0}};
    int kind = TW_TIME_POSITIONAL;
    TW_TRY(get_word(json, "time_embedding_type", kinds, &kind));
    c->time = (tw_unet_time)kind;
    TW_TRY(get_optional(json, "time_embedding_dim", 0, 4 * MAX_CHANNELS, &c->time_dim));
    if (c->time_dim == 0) c->time_dim = 4 * c->channels[0];
    c->flip = true;
    TW_TRY(tw_json_get_double(json, "freq_shift", &c->freq_shift));
    TW_TRY(tw_json_get_bool(json, "flip_sin_to_cos", &c->flip));
    const int64_t half = c->channels[0] / 2;
    if (kind == TW_TIME_POSITIONAL && !((double)half > c->freq_shift))
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: freq_shift: %g leaves no frequency for block_out_channels[0] = %lld; "
                       "expected less than %g",
                       json->name, c->freq_shift, (long long)c->channels[0], (double)half);
    if (kind != TW_TIME_LEARNED) return TW_OK;
    TW_TRY(get_optional(json, "num_train_timesteps", 1, MAX_COUNT, &c->time_steps));
    if (c->time_steps > 0) return TW_OK;
    return tw_fail(json->ctx, TW_ERROR_FORMAT,
                   "%s: num_train_timesteps: time_embedding_type \"learned\" needs it", json->name);
}

static tw_status read_classes(const tw_json *json, tw_unet_config *c) {
    static const word kinds[] = {
        {"timestep", TW_CLASS_TIMESTEP}, {"identity", TW_CLASS_IDENTITY}, {NULL, 0}};
    int kind = TW_CLASS_NONE;
    if (!tw_json_is_null(json, "class_embed_type"))
        TW_TRY(get_word(json, "class_embed_type", kinds, &kind));
    TW_TRY(get_optional(json, "num_class_embeds", 1, MAX_COUNT, &c->classes));
    if (kind == TW_CLASS_NONE && c->classes > 0) kind = TW_CLASS_TABLE;
    if (kind != TW_CLASS_TABLE) c->classes = 0;
    c->class_kind = (tw_unet_class)kind;
    if (kind == TW_CLASS_TIMESTEP && c->time == TW_TIME_LEARNED)
        return unsupported(json, "class_embed_type", -1, "timestep",
                           "another one with time_embedding_type \"learned\"");
    return TW_OK;
}

static tw_status read_act(const tw_json *json, tw_unet_config *c) {
    static const word kinds[] = {
        {"silu", TW_SILU}, {"swish", TW_SILU}, {"relu", TW_RELU}, {"gelu", TW_GELU}, {NULL, 0}};
    const char *name = "silu";
    TW_TRY(tw_json_get_string(json, "act_fn", &name));
    char lower[72];
    size_t n = 0;
    for (; name[n] && n + 1 < sizeof lower; n++) lower[n] = (char)tolower((unsigned char)name[n]);
    lower[n] = '\0';
    int kind = TW_SILU;
    TW_TRY(choose(json, "act_fn", -1, lower, kinds, &kind));
    c->act = (tw_activation_kind)kind;
    return TW_OK;
}

/* What the residual blocks and the resampling are made of. */
static tw_status read_layers(const tw_json *json, tw_unet_config *c) {
    static const word resampling[] = {{"conv", 0}, {"resnet", 1}, {NULL, 0}};
    static const word shifts[] = {{"default", 0}, {"scale_shift", 1}, {NULL, 0}};
    int down = 0, up = 0, shift = 0;
    TW_TRY(get_word(json, "downsample_type", resampling, &down));
    TW_TRY(get_word(json, "upsample_type", resampling, &up));
    TW_TRY(get_word(json, "resnet_time_scale_shift", shifts, &shift));
    c->down_resnet = down;
    c->up_resnet = up;
    c->scale_shift = shift;
    c->downsample_padding = 1;
    TW_TRY(get_small(json, "downsample_padding", 0, 1, &c->downsample_padding));
    TW_TRY(tw_json_get_double(json, "dropout", &c->dropout));
    if (!(c->dropout >= 0.0 && c->dropout < 1.0))
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: dropout: expected a number from 0 to below 1, got %g", json->name,
                       c->dropout);
    return read_act(json, c);
}

static tw_status check_groups(const tw_json *json, const tw_unet_config *c) {
    for (int i = 0; i < c->levels; i++)
        if (c->channels[i] % c->groups != 0)
            return tw_fail(json->ctx, TW_ERROR_FORMAT,
                           "%s: block_out_channels[%d]: %lld channels do not divide into "
                           "norm_num_groups = %d",
                           json->name, i, (long long)c->channels[i], c->groups);
    const int64_t last = c->channels[c->levels - 1];
    if (c->mid && c->mid_attention && c->mid_attention_groups &&
        last % c->mid_attention_groups != 0)
        return tw_fail(json->ctx, TW_ERROR_FORMAT,
                       "%s: attn_norm_num_groups: %lld channels do not divide into %d groups",
                       json->name, (long long)last, c->mid_attention_groups);
    return TW_OK;
}

static tw_status check_heads(const tw_json *json, const tw_unet_config *c) {
    for (int i = 0; i < c->levels; i++) {
        const bool last = i == c->levels - 1;
        const bool used = c->down[i] == TW_UNET_ATTENTION ||
                          c->up[c->levels - 1 - i] == TW_UNET_ATTENTION ||
                          (last && c->mid && c->mid_attention);
        if (used && c->head_dim > c->channels[i])
            return tw_fail(json->ctx, TW_ERROR_FORMAT,
                           "%s: attention_head_dim: %lld is more than the %lld channels of "
                           "block_out_channels[%d]",
                           json->name, (long long)c->head_dim, (long long)c->channels[i], i);
    }
    return TW_OK;
}

static tw_status read_norm_and_attention(const tw_json *json, tw_unet_config *c) {
    int64_t mid_groups = 0;
    c->groups = 32;
    c->eps = 1e-5;
    /* null would be min(C/4, 32), which diffusers has for its Skip blocks only */
    TW_TRY(get_small(json, "norm_num_groups", 1, MAX_CHANNELS, &c->groups));
    TW_TRY(get_positive(json, "norm_eps", &c->eps));
    TW_TRY(get_optional(json, "attn_norm_num_groups", 1, MAX_CHANNELS, &mid_groups));
    if (mid_groups == 0 && !c->scale_shift) mid_groups = c->groups;
    c->mid_attention_groups = (int)mid_groups;
    c->head_dim = tw_json_is_null(json, "attention_head_dim") ? 0 : 8;
    if (c->head_dim)
        TW_TRY(tw_json_get_int(json, "attention_head_dim", 1, MAX_CHANNELS, &c->head_dim));
    static const word mids[] = {{"UNetMidBlock2D", 1}, {NULL, 0}};
    int mid = 1;
    c->mid = !tw_json_is_null(json, "mid_block_type");
    if (c->mid) TW_TRY(get_word(json, "mid_block_type", mids, &mid));
    c->mid_attention = true;
    TW_TRY(tw_json_get_bool(json, "add_attention", &c->mid_attention));
    c->mid_scale = 1.0;
    TW_TRY(get_positive(json, "mid_block_scale_factor", &c->mid_scale));
    TW_TRY(check_groups(json, c));
    return check_heads(json, c);
}

tw_status tw_unet_config_parse(const tw_json *json, tw_unet_config *out) {
    memset(out, 0, sizeof *out);
    out->in_channels = out->out_channels = 3;
    TW_TRY(refuse_old_names(json));
    TW_TRY(tw_json_get_int(json, "in_channels", 1, MAX_CHANNELS, &out->in_channels));
    TW_TRY(tw_json_get_int(json, "out_channels", 1, MAX_CHANNELS, &out->out_channels));
    TW_TRY(tw_json_get_bool(json, "center_input_sample", &out->center_input));
    TW_TRY(read_levels(json, out));
    TW_TRY(read_size(json, out));
    TW_TRY(read_time(json, out));
    TW_TRY(read_classes(json, out));
    TW_TRY(read_layers(json, out));
    return read_norm_and_attention(json, out);
}
