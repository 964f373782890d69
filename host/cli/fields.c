#include "cli/fields.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

/* What a field takes; several together. */
enum {
    WHOLE = 1,
    NUMBER = 2,
    SWITCH = 4,
    WORD = 8,
    NOTHING = 16, /* null */
    WHOLES = 32,  /* lists */
    NUMBERS = 64,
    WORDS = 128
};

typedef struct field {
    const char *name;
    int takes;
} field;

/* The keys that the readers of the configurations know. */
static const field unet_fields[] = {{"sample_size", WHOLE | WHOLES},
                                    {"in_channels", WHOLE},
                                    {"out_channels", WHOLE},
                                    {"center_input_sample", SWITCH},
                                    {"time_embedding_type", WORD},
                                    {"time_embedding_dim", WHOLE | NOTHING},
                                    {"freq_shift", NUMBER},
                                    {"flip_sin_to_cos", SWITCH},
                                    {"down_block_types", WORDS},
                                    {"mid_block_type", WORD | NOTHING},
                                    {"up_block_types", WORDS},
                                    {"block_out_channels", WHOLES},
                                    {"layers_per_block", WHOLE},
                                    {"mid_block_scale_factor", NUMBER},
                                    {"downsample_padding", WHOLE},
                                    {"downsample_type", WORD},
                                    {"upsample_type", WORD},
                                    {"dropout", NUMBER},
                                    {"act_fn", WORD},
                                    {"attention_head_dim", WHOLE | NOTHING},
                                    {"norm_num_groups", WHOLE},
                                    {"attn_norm_num_groups", WHOLE | NOTHING},
                                    {"norm_eps", NUMBER},
                                    {"resnet_time_scale_shift", WORD},
                                    {"add_attention", SWITCH},
                                    {"class_embed_type", WORD | NOTHING},
                                    {"num_class_embeds", WHOLE | NOTHING},
                                    {"num_train_timesteps", WHOLE | NOTHING},
                                    {NULL, 0}};

static const field mlp_fields[] = {{"in_features", WHOLE},
                                   {"out_features", WHOLE | NOTHING},
                                   {"hidden", WHOLE},
                                   {"layers", WHOLE},
                                   {"num_class_embeds", WHOLE | NOTHING},
                                   {"act_fn", WORD},
                                   {NULL, 0}};

static const field scheduler_fields[] = {{"_class_name", WORD},
                                         {"num_train_timesteps", WHOLE},
                                         {"beta_schedule", WORD},
                                         {"beta_start", NUMBER},
                                         {"beta_end", NUMBER},
                                         {"trained_betas", NUMBERS | NOTHING},
                                         {"rescale_betas_zero_snr", SWITCH},
                                         {"prediction_type", WORD},
                                         {"variance_type", WORD},
                                         {"clip_sample", SWITCH},
                                         {"clip_sample_range", NUMBER},
                                         {"thresholding", SWITCH},
                                         {"dynamic_thresholding_ratio", NUMBER},
                                         {"sample_max_value", NUMBER},
                                         {"timestep_spacing", WORD},
                                         {"steps_offset", WHOLE},
                                         {"set_alpha_to_one", SWITCH},
                                         {NULL, 0}};

/* The longest KEY. */
#define KEY_SIZE 64

/* One value of --set in its parts. */
typedef struct setting {
    char key[KEY_SIZE]; /* "model.layers_per_block" */
    const char *name;   /* what follows the point, in `key` */
    const char *value;
} setting;

static bool parse(const char *text, setting *out) {
    const char *equals = strchr(text, '=');
    if (!equals || !equals[1] || (size_t)(equals - text) >= sizeof out->key) return false;
    memcpy(out->key, text, (size_t)(equals - text));
    out->key[equals - text] = '\0';
    out->value = equals + 1;
    const char *point = strchr(out->key, '.');
    out->name = point ? point + 1 : out->key;
    return true;
}

static bool is_of(const setting *s, const char *part) {
    const size_t n = strlen(part);
    return strncmp(s->key, part, n) == 0 && s->key[n] == '.';
}

/* Keeps `name` if it is closer to `wanted` than the best so far. */
static void compare(const char *wanted, const char *name, const char **closest, int *best) {
    const int d = cli_distance(wanted, name);
    if (d >= *best || d >= (int)strlen(name)) return;
    *best = d;
    *closest = name;
}

static int unknown(const setting *s, const char *part, const char *owner, const char *closest) {
    if (closest)
        return cli_usage("--set %s: unknown field; did you mean %s.%s?", s->key, part, closest);
    return cli_usage("--set %s: %s has no such field", s->key, owner);
}

static int set_option(cli_args *args, const setting *s) {
    static const char *const not_here[] = {"out", "resume", "preset", "config", "set", NULL};
    const char *closest = NULL;
    int best = 4;
    for (int i = 0; not_here[i]; i++)
        if (strcmp(s->name, not_here[i]) == 0)
            return cli_usage("--set %s: expected as an option of its own, --%s", s->key, s->name);
    for (const cli_option *o = args->command->options; o->name; o++) {
        if (o->type == CLI_HEADING) continue;
        if (strcmp(o->name, s->name) == 0) {
            if (cli_source_of(args, s->name) == CLI_FROM_USER)
                return cli_usage("--set %s: --%s is given too", s->key, s->name);
            return cli_set(args, s->name, s->value, CLI_FROM_USER, "--set options");
        }
        compare(s->name, o->name, &closest, &best);
    }
    return unknown(s, "options", "the command", closest);
}

int cli_fields_set_options(cli_args *args) {
    const char *text;
    for (int i = 0; (text = cli_listed(args, "set", i)); i++) {
        setting s;
        if (!parse(text, &s) ||
            (!is_of(&s, "model") && !is_of(&s, "scheduler") && !is_of(&s, "options")))
            return cli_usage("--set: expected KEY=VALUE with a key such as "
                             "model.layers_per_block, scheduler.beta_schedule or options.lr, got "
                             "\"%s\"",
                             text);
        for (int j = 0; j < i; j++) {
            setting before;
            if (parse(cli_listed(args, "set", j), &before) && strcmp(before.key, s.key) == 0)
                return cli_usage("--set %s: given twice", s.key);
        }
        const int rc = is_of(&s, "options") ? set_option(args, &s) : CLI_OK;
        if (rc) return rc;
    }
    return CLI_OK;
}

/* "text" without quotes around it. */
static json_t *word_of(const char *text, size_t n) {
    if (n >= 2 && (*text == '"' || *text == '\'') && text[n - 1] == *text) {
        text++;
        n -= 2;
    }
    return n ? json_stringn(text, n) : NULL;
}

/* One value that is no list; null where the text is none that the field takes. */
static json_t *scalar_of(int takes, const char *text, size_t n) {
    char copy[KEY_SIZE];
    int64_t whole;
    double real;
    if (n < sizeof copy) {
        memcpy(copy, text, n);
        copy[n] = '\0';
        if ((takes & NOTHING) && strcmp(copy, "null") == 0) return json_null();
        if ((takes & SWITCH) && strcmp(copy, "true") == 0) return json_true();
        if ((takes & SWITCH) && strcmp(copy, "false") == 0) return json_false();
        if ((takes & (WHOLE | NUMBER)) && cli_parse_int(copy, &whole)) return json_integer(whole);
        if ((takes & NUMBER) && cli_parse_real(copy, &real)) return json_real(real);
    }
    return takes & WORD ? word_of(text, n) : NULL;
}

/* "[a, b]", or without the brackets. */
static json_t *list_of(int takes, const char *text) {
    const int each = takes & WHOLES ? WHOLE : takes & NUMBERS ? NUMBER : WORD;
    size_t n = strlen(text);
    if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    json_t *list = json_array();
    for (const char *end = text + n; text <= end;) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma ? comma : end;
        const char *next = stop + 1;
        while (text < stop && *text == ' ') text++;
        while (stop > text && stop[-1] == ' ') stop--;
        if (json_array_append_new(list, scalar_of(each, text, (size_t)(stop - text))) != 0) {
            json_decref(list);
            return NULL;
        }
        text = next;
    }
    return list;
}

static json_t *value_of(int takes, const char *text) {
    json_t *value = scalar_of(takes, text, strlen(text));
    return value || !(takes & (WHOLES | NUMBERS | WORDS)) ? value : list_of(takes, text);
}

static int wrong_type(const setting *s, int takes) {
    static const struct {
        int bit;
        const char *words;
    } kinds[] = {{WHOLE, "a whole number"},
                 {NUMBER, "a number"},
                 {SWITCH, "true or false"},
                 {WORD, "a word"},
                 {WHOLES, "whole numbers such as [32,64]"},
                 {NUMBERS, "numbers such as [0.1,0.2]"},
                 {WORDS, "words such as [DownBlock2D,AttnDownBlock2D]"},
                 {NOTHING, "null"}};
    char expected[160] = "";
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!(takes & kinds[i].bit)) continue;
        const size_t used = strlen(expected);
        snprintf(expected + used, sizeof expected - used, "%s%s", used ? " or " : "",
                 kinds[i].words);
    }
    return cli_usage("--set %s: expected %s, got \"%s\"", s->key, expected, s->value);
}

/* Puts one value into the configuration. */
static int set_field(json_t *config, const setting *s, const char *part, const field *fields,
                     const char *owner, bool keep) {
    const char *closest = NULL;
    int best = 4;
    const field *f = fields;
    for (; f->name && strcmp(f->name, s->name) != 0; f++)
        compare(s->name, f->name, &closest, &best);
    if (!f->name) return unknown(s, part, owner, closest);
    json_t *value = value_of(f->takes, s->value);
    if (!value) return wrong_type(s, f->takes);
    const json_t *old = json_object_get(config, s->name);
    /* 1 and 1.0 are one number. */
    const bool same =
        old && (json_equal(old, value) || (json_is_number(old) && json_is_number(value) &&
                                           json_number_value(old) == json_number_value(value)));
    int rc = CLI_OK;
    if (keep && !same) {
        char *has = old ? json_dumps(old, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        rc = cli_usage("--set %s: cannot change when a run is resumed: it has %s, got \"%s\"",
                       s->key, has ? has : "none", s->value);
        free(has);
    }
    if (rc == CLI_OK && !same && json_object_set(config, s->name, value) != 0)
        rc = cli_fail("out of memory");
    json_decref(value);
    return rc;
}

int cli_fields_set_config(const cli_args *args, const char *part, bool keep, char **text) {
    const bool is_model = strcmp(part, "model") == 0;
    json_t *config = NULL;
    const char *value;
    int rc = CLI_OK;
    for (int i = 0; rc == CLI_OK && (value = cli_listed(args, "set", i)); i++) {
        setting s;
        if (!parse(value, &s) || !is_of(&s, part)) continue;
        if (!config)
            config = *text ? json_loads(*text, 0, NULL)
                           : json_pack("{s:s}", "_class_name", "DDPMScheduler");
        const char *class = json_string_value(json_object_get(config, "_class_name"));
        const bool is_mlp = class && strcmp(class, "TweedieMLP") == 0;
        rc = set_field(config, &s, part,
                       is_mlp     ? mlp_fields
                       : is_model ? unet_fields
                                  : scheduler_fields,
                       class ? class : "the class", keep);
    }
    if (!config) return rc;
    char *changed = rc == CLI_OK ? json_dumps(config, 0) : NULL;
    json_decref(config);
    if (rc) return rc;
    if (!changed) return cli_fail("out of memory");
    free(*text);
    *text = changed;
    return CLI_OK;
}
