/* Opening the parts of a training run: the data first, since a preset's network adapts to it. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/presets.h"
#include "cli/train.h"
#include "cli/tuning.h"

/* What the network's configuration says of its pictures; zeros where it takes none. */
typedef struct wanted {
    int64_t height, width;
    int channels;
} wanted;

static wanted wanted_of(const char *model) {
    wanted w = {0, 0, 0};
    json_t *config = json_loads(model, 0, NULL);
    const json_t *size = json_object_get(config, "sample_size");
    const json_t *channels = json_object_get(config, "in_channels");
    if (json_is_integer(size)) w.height = w.width = json_integer_value(size);
    if (json_is_array(size) && json_array_size(size) == 2) {
        w.height = json_integer_value(json_array_get(size, 0));
        w.width = json_integer_value(json_array_get(size, 1));
    }
    const json_int_t c = json_integer_value(channels);
    if (c == 1 || c == 3) w.channels = (int)c;
    if (w.height < 1 || w.width < 1) w.height = w.width = 0;
    json_decref(config);
    return w;
}

/* 0: none. */
static int asked_channels(const cli_args *args) {
    static const int channels[] = {0, 1, 3};
    return channels[cli_choice(args, "channels")];
}

static void say_adapted(cli_session *s, const char *format, ...) TW_PRINTF(2, 3);
static void say_adapted(cli_session *s, const char *format, ...) {
    const size_t used = strlen(s->adapted);
    char text[128];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(s->adapted + used, sizeof s->adapted - used, "%s%s", used ? ", " : "", text);
}

/* Whether a field is what the preset has: --set goes before what the data says. */
static bool is_presets_own(const cli_run *run, const json_t *config, const char *key) {
    json_t *preset = json_loads(cli_preset_find(run->preset)->model, 0, NULL);
    const json_t *a = json_object_get(config, key), *b = json_object_get(preset, key);
    const bool same = a == b || (a && b && json_equal(a, b));
    json_decref(preset);
    return same;
}

static int replace_model(cli_run *run, const json_t *config) {
    char *text = json_dumps(config, 0);
    if (!text) return cli_fail("out of memory");
    free(run->model);
    run->model = text;
    return CLI_OK;
}

/* --image-size and --channels change the network of a preset. */
static int adapt_size(cli_session *s, cli_run *run) {
    const int64_t side = cli_int(s->args, "image-size");
    const int channels = asked_channels(s->args);
    const wanted have = wanted_of(run->model);
    json_t *config = json_loads(run->model, 0, NULL);
    if (side && have.height && (have.height != side || have.width != side)) {
        json_object_set_new(config, "sample_size", json_integer(side));
        say_adapted(s, "%lldx%lld pixels", (long long)side, (long long)side);
    }
    if (channels && have.channels && have.channels != channels) {
        json_object_set_new(config, "in_channels", json_integer(channels));
        json_object_set_new(config, "out_channels", json_integer(channels));
        say_adapted(s, channels == 1 ? "grey" : "RGB");
    }
    const int rc = replace_model(run, config);
    json_decref(config);
    return rc;
}

/* A preset that takes labels has room for those of the data and the empty one, or takes none. */
static int adapt_classes(cli_session *s, cli_args *args, cli_run *run) {
    tw_dataset_info data = {.size = sizeof data};
    const tw_status status = tw_dataset_get_info(s->dataset, &data);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    json_t *config = json_loads(run->model, 0, NULL);
    const json_t *rows = json_object_get(config, "num_class_embeds");
    int rc = CLI_OK;
    if (json_is_integer(rows) && is_presets_own(run, config, "num_class_embeds") &&
        json_integer_value(rows) != data.classes + 1) {
        if (data.classes) {
            json_object_set_new(config, "num_class_embeds", json_integer(data.classes + 1));
            say_adapted(s, "%lld classes and the empty one", (long long)data.classes);
        } else {
            json_object_set_new(config, "num_class_embeds", json_null());
            say_adapted(s, "no classes");
            /* Weaker than what was given, which then is refused. */
            rc = cli_set(args, "cond-dropout", "0", CLI_FROM_RUN, "the data has no classes");
            s->options.cond_dropout = cli_real(args, "cond-dropout");
        }
        if (!rc) rc = replace_model(run, config);
    }
    json_decref(config);
    return rc;
}

static tw_status open_data(cli_session *s, const cli_run *run) {
    static const tw_crop crops[] = {TW_CROP_CENTER, TW_CROP_RANDOM, TW_CROP_STRETCH, TW_CROP_PAD};
    const wanted w = wanted_of(run->model);
    const int64_t side = cli_int(s->args, "image-size");
    const int asked = asked_channels(s->args);
    tw_dataset_options data = TW_DATASET_OPTIONS_INIT;
    data.labels = cli_text(s->args, "labels");
    data.limit = cli_int(s->args, "limit");
    data.seed = s->options.seed;
    data.height = side ? side : w.height;
    data.width = side ? side : w.width;
    data.channels = asked ? asked : w.channels;
    data.crop = crops[cli_choice(s->args, "crop")];
    /* A configuration of the user's own is taken at its word. */
    data.keep_own = !run->preset && !side && !asked;
    return tw_dataset_open(s->ctx, cli_text(s->args, "data"), &data, &s->dataset);
}

int cli_train_open(cli_session *s, cli_args *args, cli_run *run) {
    char choices[4096];
    int rc = cli_context(s->args, &s->ctx);
    if (!rc)
        rc = cli_tune(s->args, s->ctx,
                      run->out && cli_run_path(run, CLI_TUNING_FILE, choices, sizeof choices)
                          ? choices
                          : NULL);
    if (rc) return rc;
    const bool adapts = !run->resume && cli_text(args, "preset") && cli_preset_find(run->preset);
    if (adapts) rc = adapt_size(s, run);
    if (rc) return rc;
    tw_status status = open_data(s, run);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    if (adapts) rc = adapt_classes(s, args, run);
    if (rc) return rc;
    s->info.size = sizeof s->info;
    status =
        tw_model_create(s->ctx, run->model, run->scheduler, NULL, 0, s->options.seed, &s->model);
    if (status == TW_OK) status = tw_model_get_info(s->model, &s->info);
    if (status == TW_OK) status = tw_trainer_create(s->model, s->dataset, &s->options, &s->trainer);
    if (status != TW_OK)
        return cli_fail_memory(s->ctx, status,
                               "a smaller --batch-size takes less, as does --recompute; `tweedie "
                               "info --plan` says how much");
    s->shape = cli_shape_of(&s->info);
    return CLI_OK;
}
