/* run.json, the record of a run. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/fingerprint.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "core/context.h"
#include "io/file.h"

static json_t *option_json(const cli_option *o, const char *text, const tw_context *ctx) {
    int64_t whole;
    double real;
    /* The sums of a step depend on how many share them. */
    if (strcmp(o->name, "threads") == 0) return json_integer(tw_context_threads(ctx));
    if (o->type == CLI_FLAG) return json_boolean(strcmp(text, "true") == 0);
    if (o->type == CLI_INT && cli_parse_int(text, &whole)) return json_integer(whole);
    if (o->type == CLI_REAL && cli_parse_real(text, &real)) return json_real(real);
    /* The run may be resumed from another folder. */
    if (strcmp(o->name, "data") == 0 || strcmp(o->name, "labels") == 0) {
        char *absolute = cli_source_is_made(text) ? NULL : realpath(text, NULL);
        json_t *value = cli_text_json(absolute ? absolute : text);
        free(absolute);
        return value;
    }
    return cli_text_json(text);
}

static json_t *options_json(const cli_args *args, const tw_context *ctx) {
    json_t *options = json_object();
    for (int i = 0; args->command->options[i].name; i++) {
        const cli_option *o = &args->command->options[i];
        if (args->values[i] && !cli_run_is_of_the_call(o->name))
            json_object_set_new(options, o->name, option_json(o, args->values[i], ctx));
    }
    return options;
}

/* Of the data and of the labels, where they are files. */
static json_t *data_json(const cli_args *args) {
    json_t *data = json_object();
    static const char *const names[] = {"data", "labels"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *print = cli_fingerprint(cli_text(args, names[i]));
        if (print) json_object_set_new(data, names[i], print);
    }
    return data;
}

/* This command, and from which step on. */
static json_t *call_json(const cli_run *run, const cli_args *args, int64_t step) {
    json_t *call =
        json_pack("{s:s, s:I}", "what", run->resume ? "resume" : "start", "step", (json_int_t)step);
    json_t *rest = cli_call_json(args);
    json_object_update(call, rest);
    json_decref(rest);
    return call;
}

/* The calls before this one, and this one. */
static json_t *history_json(const cli_run *run, const cli_args *args, int64_t step) {
    json_t *before = run->resume ? json_object_get(run->document, "history") : NULL;
    json_t *history = json_is_array(before) ? json_copy(before) : json_array();
    json_array_append_new(history, call_json(run, args, step));
    return history;
}

tw_status cli_run_write(tw_context *ctx, const cli_run *run, const cli_args *args, int64_t step) {
    char path[4096];
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:s?, s:s, s:o, s:o, s:o*, s:o, s:o, s:o}", "tweedie", tw_version(),
        "commit", cli_commit(), "id", run->id, "preset", run->preset, "device",
        tw_context_device_name(ctx), "providers", cli_providers_json(ctx), "model",
        json_loads(run->model, 0, NULL), "scheduler",
        run->scheduler ? json_loads(run->scheduler, 0, NULL) : NULL, "options",
        options_json(args, ctx), "data", data_json(args), "history", history_json(run, args, step));
    char *text = document ? json_dumps(document, JSON_INDENT(2)) : NULL;
    json_decref(document);
    if (!text || !cli_run_path(run, "run.json", path, sizeof path)) {
        free(text);
        return tw_fail(ctx, TW_ERROR_MEMORY, "run.json: out of memory");
    }
    const size_t length = strlen(text);
    text[length] = '\n'; /* files of text end with one; the NUL is not written */
    const tw_status s = tw_file_write(ctx, path, text, length + 1);
    free(text);
    return s;
}

int cli_run_check_data(const cli_run *run, const cli_args *args) {
    const json_t *known = json_object_get(run->document, "data");
    static const char *const names[] = {"data", "labels"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *before = json_object_get(known, names[i]);
        json_t *now = before ? cli_fingerprint(cli_text(args, names[i])) : NULL;
        const bool differs = before && !json_equal(before, now);
        json_decref(now);
        const char *source = cli_text(args, names[i]) ? cli_text(args, names[i]) : "nothing";
        if (differs && run->resume)
            return cli_fail("--%s: %s is not what the run was trained on, by its size or hash; "
                            "expected the same, or a new run",
                            names[i], source);
        if (differs && cli_source_of(args, names[i]) != CLI_FROM_USER)
            cli_fail("warning: --%s: %s has changed since %s was written", names[i], source,
                     cli_text(args, "config"));
    }
    return CLI_OK;
}
