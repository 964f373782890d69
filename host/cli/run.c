#include "cli/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/fields.h"
#include "cli/presets.h"
#include "cli/progress.h"
#include "core/context.h"
#include "io/file.h"
#include "io/json.h"

bool cli_run_path(const cli_run *run, const char *name, char *out, size_t size) {
    const size_t n = strlen(run->out);
    const char *slash = n && run->out[n - 1] == '/' ? "" : "/";
    const int used = snprintf(out, size, "%s%s%s", run->out, slash, name);
    return used >= 0 && (size_t)used < size;
}

void cli_run_close(cli_run *run) {
    free(run->model);
    free(run->scheduler);
    json_decref(run->document);
    json_decref(run->texts);
    *run = (cli_run){0};
}

bool cli_run_is_of_the_call(const char *name) {
    static const char *const names[] = {"out", "resume",  "preset",  "config",
                                        "set", "dry-run", "log-json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

/* What may differ when a run goes on, because it does not touch its numbers. */
static bool may_change(const char *name) {
    static const char *const names[] = {
        "steps",       "data",           "labels",        "threads",       "save-every",
        "keep-last",   "keep-best",      "preview-every", "preview-steps", "preview-guidance",
        "tensorboard", "validate-every", "device",        "max-skipped",   "check-finite",
        "recompute",   "provider",       "tune",          "no-fusion"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

static bool same_value(const cli_option *o, const char *a, const char *b) {
    double x, y;
    if (o->type == CLI_REAL || o->type == CLI_INT)
        return cli_parse_real(a, &x) && cli_parse_real(b, &y) && x == y;
    return strcmp(a, b) == 0;
}

/* The option text of a JSON value, kept by run->texts; null for an array, object or null. */
static const char *text_of(cli_run *run, const char *name, const json_t *value) {
    char number[64];
    const char *text = number;
    if (json_is_string(value))
        text = json_string_value(value);
    else if (json_is_integer(value))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    else if (json_is_boolean(value))
        text = json_is_true(value) ? "true" : "false";
    else
        return NULL;
    if (!run->texts) run->texts = json_object();
    if (json_object_set_new(run->texts, name, json_string(text)) != 0) return NULL;
    return json_string_value(json_object_get(run->texts, name));
}

static int take_options(cli_args *args, cli_run *run, const json_t *options, const char *path,
                        cli_source source) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)options, name, value) {
        if (cli_run_is_of_the_call(name))
            return cli_fail("%s: options: \"%s\" belongs on the command line", path, name);
        const char *text = text_of(run, name, value);
        if (!text)
            return cli_fail("%s: options: %s: expected a text, a number, true or false", path,
                            name);
        if (cli_set(args, name, text, source, path)) return CLI_FAILED;
    }
    return CLI_OK;
}

/* What was given again on the command line must be what the run has. */
static int check_unchanged(const cli_args *args, const cli_run *run) {
    for (const cli_option *o = args->command->options; o->name; o++) {
        if (o->type == CLI_HEADING || cli_run_is_of_the_call(o->name) || may_change(o->name))
            continue;
        if (cli_source_of(args, o->name) != CLI_FROM_USER) continue;
        const char *old = json_string_value(json_object_get(run->texts, o->name));
        if (!old || !same_value(o, cli_text(args, o->name), old))
            return cli_usage("--%s: cannot change when a run is resumed: it has %s, got \"%s\"",
                             o->name, old ? old : "none", cli_text(args, o->name));
    }
    return CLI_OK;
}

/* Reads a description. */
static int take_file(cli_args *args, cli_run *run, const char *path, cli_source source) {
    static const char *const keys[] = {"model",  "scheduler", "options",   "tweedie",
                                       "preset", "device",    "providers", "id",
                                       "commit", "data",      "history"};
    const tw_status s = tw_json_load(NULL, path, &run->document);
    if (s != TW_OK) return cli_fail_status(NULL, s);
    const char *key;
    json_t *value;
    json_object_foreach(run->document, key, value) {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) known |= strcmp(keys[i], key) == 0;
        if (!known)
            return cli_fail("%s: unknown key \"%s\"; expected model, scheduler and options", path,
                            key);
    }
    const json_t *model = json_object_get(run->document, "model");
    const json_t *scheduler = json_object_get(run->document, "scheduler");
    const json_t *options = json_object_get(run->document, "options");
    if (!json_is_object(model))
        return cli_fail("%s: model: expected an object, the network's config.json", path);
    if (scheduler && !json_is_object(scheduler))
        return cli_fail("%s: scheduler: expected an object, a scheduler_config.json", path);
    if (options && !json_is_object(options))
        return cli_fail("%s: options: expected an object", path);
    const json_t *preset = json_object_get(run->document, "preset");
    if (json_is_string(preset)) run->preset = json_string_value(preset);
    run->model = json_dumps(model, 0);
    run->scheduler = scheduler ? json_dumps(scheduler, 0) : NULL;
    if (!run->model || (scheduler && !run->scheduler)) return cli_fail("out of memory");
    return options ? take_options(args, run, options, path, source) : CLI_OK;
}

static int take_preset(cli_args *args, cli_run *run, const char *name) {
    const cli_preset *preset = cli_preset_find(name);
    if (!preset) return cli_usage("--preset: there is no preset \"%s\"", name);
    run->preset = preset->name;
    run->model = strdup(preset->model);
    run->scheduler = strdup(preset->scheduler);
    if (!run->model || !run->scheduler) return cli_fail("out of memory");
    for (const cli_preset_option *o = preset->options; o->name; o++) {
        const int rc = cli_set(args, o->name, o->text, CLI_FROM_PRESET, preset->name);
        if (rc) return rc;
    }
    return CLI_OK;
}

static bool same_json(const char *a, const char *b) {
    if (!a || !b) return a == b;
    json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL);
    const bool same = x && y && json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

static int open_fresh(cli_args *args, cli_run *run) {
    const char *preset = cli_text(args, "preset"), *config = cli_text(args, "config");
    if (preset && config) return cli_usage("--preset and --config: expected one of them, got both");
    if (!preset && !config)
        return cli_usage("train: expected --preset NAME or --config FILE.json, got neither");
    int rc =
        preset ? take_preset(args, run, preset) : take_file(args, run, config, CLI_FROM_PRESET);
    if (!rc) rc = cli_fields_set_config(args, "model", false, &run->model);
    if (!rc) rc = cli_fields_set_config(args, "scheduler", false, &run->scheduler);
    return rc;
}

/* A resumed run is what its run.json says; a preset or configuration given again must agree. */
static int open_resumed(cli_args *args, cli_run *run, const char *path) {
    int rc = take_file(args, run, path, CLI_FROM_RUN);
    if (!rc) rc = check_unchanged(args, run);
    if (!rc) rc = cli_fields_set_config(args, "model", true, &run->model);
    if (!rc) rc = cli_fields_set_config(args, "scheduler", true, &run->scheduler);
    const char *id = json_string_value(json_object_get(run->document, "id"));
    if (id && strlen(id) < sizeof run->id) snprintf(run->id, sizeof run->id, "%s", id);
    if (rc || (!cli_text(args, "preset") && !cli_text(args, "config"))) return rc;
    /* The preset's network may have been adapted to the data. */
    if (cli_text(args, "preset") && run->preset && !cli_text(args, "config") &&
        strcmp(cli_text(args, "preset"), run->preset) == 0)
        return CLI_OK;
    cli_run again = {0};
    cli_args scratch = *args;
    rc = open_fresh(&scratch, &again);
    if (!rc && (!same_json(again.model, run->model) || !same_json(again.scheduler, run->scheduler)))
        rc = cli_usage("--%s: describes another model than %s; leave it out to resume",
                       cli_text(args, "preset") ? "preset" : "config", path);
    cli_run_close(&again);
    return rc;
}

/* Random: two runs never have the same. */
static void make_id(cli_run *run) {
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        bits = (uint64_t)(1e9 * cli_seconds()) ^ (uint64_t)getpid() << 32;
    snprintf(run->id, sizeof run->id, "%016" PRIx64, bits);
}

int cli_run_open(cli_args *args, cli_run *run) {
    char path[4096];
    *run = (cli_run){0};
    make_id(run);
    run->out = cli_text(args, "out");
    run->resume = cli_flag(args, "resume");
    if (!run->out && !run->resume && cli_flag(args, "dry-run")) {
        const int failed = cli_fields_set_options(args);
        return failed ? failed : open_fresh(args, run);
    }
    if (!run->out) return cli_usage("train: --out DIR is missing");
    if (!cli_run_path(run, "run.json", path, sizeof path - 64))
        return cli_fail("--out: the path is too long");
    if (tw_file_exists(run->out))
        return cli_fail("--out: %s is a file; expected a folder or a new name", run->out);
    const bool exists = tw_file_exists(path);
    const int rc = cli_fields_set_options(args);
    if (rc) return rc;
    if (run->resume && !exists)
        return cli_fail("--resume: %s holds no run: there is no %s", run->out, path);
    if (run->resume) return open_resumed(args, run, path);
    if (exists)
        return cli_fail("--out: %s already holds a run; add --resume to continue it, or choose "
                        "another folder",
                        run->out);
    if (cli_run_path(run, "model_index.json", path, sizeof path) && tw_file_exists(path))
        return cli_fail("--out: %s already holds a model; choose another folder", run->out);
    return open_fresh(args, run);
}
