/* Measuring a row again: what it was made with, as words of a command line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/fingerprint.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "core/context.h"
#include "io/file.h"

/* Files of results are small. */
#define MOST_BYTES ((size_t)64 << 20)

/* --- Writing --- */

static void add(json_t *words, const char *name, const char *text) {
    char option[80];
    snprintf(option, sizeof option, "--%s", name);
    json_array_append_new(words, json_string(option));
    json_array_append_new(words, cli_text_json(text));
}

static void add_number(json_t *words, const char *name, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, value);
    add(words, name, text);
}

/* So that it is found from any folder. */
static void add_path(json_t *words, const char *name, const char *text) {
    char *absolute = realpath(text, NULL);
    add(words, name, absolute ? absolute : text);
    free(absolute);
}

static bool is(const char *name, const char *one, const char *other) {
    return strcmp(name, one) == 0 || strcmp(name, other) == 0;
}

/* What was decided stands in place of what was left open. */
static void add_option(json_t *words, const cli_bench *b, const cli_bench_row *row,
                       const cli_option *o) {
    const char *text = cli_text(b->args, o->name), *item;
    const bool ddpm = cli_choice(b->args, "sampler") == 1;
    if (strcmp(o->name, "batch-size") == 0)
        add_number(words, o->name, row->batch);
    else if (strcmp(o->name, "steps") == 0)
        add_number(words, o->name, row->steps);
    else if (strcmp(o->name, "threads") == 0)
        add_number(words, o->name, tw_context_threads(b->ctx));
    else if (strcmp(o->name, "device") == 0)
        add(words, o->name, tw_context_device(b->ctx) == TW_DEVICE_CUDA ? "cuda" : "cpu");
    else if (strcmp(o->name, "preset") == 0 && cli_bench_preset(b))
        add(words, o->name, cli_bench_preset(b));
    else if (o->type == CLI_LIST)
        for (int i = 0; (item = cli_listed(b->args, o->name, i)); i++) add(words, o->name, item);
    else if (text && is(o->name, "model", "data") && !cli_bench_makes(text))
        add_path(words, o->name, text);
    else if (text && !(ddpm && strcmp(o->name, "eta") == 0))
        add(words, o->name, text);
}

json_t *cli_bench_arguments(const cli_bench *b, const cli_bench_row *row) {
    json_t *words = json_array();
    json_array_append_new(words, json_string(b->work->name));
    for (const cli_option *o = b->args->command->options; o->name; o++)
        if (o->type != CLI_HEADING && !is(o->name, "json", "replay") &&
            strcmp(o->name, "operations") != 0 && cli_bench_takes(b->work, o->name))
            add_option(words, b, row, o);
    return words;
}

/* --- Reading --- */

/* "FILE:ROW" */
static int parse(const char *text, cli_bench_replay *replay) {
    const char *colon = strrchr(text, ':');
    int64_t row = 0;
    if (!colon || colon == text || !cli_parse_int(colon + 1, &row) || row < 1)
        return cli_usage("--replay: expected FILE:ROW, such as bench.jsonl:2, got \"%s\"", text);
    snprintf(replay->file, sizeof replay->file, "%.*s", (int)(colon - text), text);
    replay->number = row;
    return CLI_OK;
}

static int find_row(cli_bench_replay *r, const char *text) {
    int64_t line = 0;
    for (const char *at = text; *at; line++) {
        const size_t length = strcspn(at, "\n");
        json_t *object = json_loadb(at, length, 0, NULL);
        if (!json_is_object(object)) {
            json_decref(object);
            return cli_fail("--replay: %s: line %" PRId64 " is no object of JSON", r->file,
                            line + 1);
        }
        if (json_object_get(object, "bench") && !r->header)
            r->header = object;
        else if (json_integer_value(json_object_get(object, "row")) == r->number && !r->row)
            r->row = object;
        else
            json_decref(object);
        at += length + (at[length] == '\n');
    }
    if (!r->header)
        return cli_fail("--replay: %s: expected a file of `tweedie bench --json`", r->file);
    if (r->row) return CLI_OK;
    return cli_fail("--replay: %s has no row %" PRId64, r->file, r->number);
}

/* The row's words, read as a command line. */
static int parse_row(cli_bench_replay *r, const cli_command *command, cli_args *out) {
    const json_t *list = json_object_get(r->row, "arguments");
    const size_t n = json_array_size(list);
    r->words = calloc(n + 1, sizeof *r->words);
    if (!r->words) return cli_fail("out of memory");
    for (size_t i = 0; i < n; i++) {
        /* Only read. */
        r->words[i] = (char *)json_string_value(json_array_get(list, i));
        if (!r->words[i])
            return cli_fail("--replay: %s: row %" PRId64 ": arguments: expected texts", r->file,
                            r->number);
    }
    const int rc = cli_parse(command, (int)n, r->words, out);
    if (rc) return CLI_FAILED;
    if (!out->operand || out->help || cli_text(out, "json") || cli_text(out, "replay"))
        return cli_fail("--replay: %s: row %" PRId64 ": arguments: expected those of a row",
                        r->file, r->number);
    return CLI_OK;
}

static int take(cli_args *args, const cli_args *row, const cli_bench_replay *r) {
    if (args->operand && strcmp(args->operand, row->operand) != 0)
        return cli_usage("--replay: row %" PRId64 " of %s is of `bench %s`, not of `bench %s`",
                         r->number, r->file, row->operand, args->operand);
    args->operand = row->operand;
    for (int i = 0; args->command->options[i].name; i++) {
        const cli_option *o = &args->command->options[i];
        if (row->sources[i] != CLI_FROM_USER || o->type == CLI_LIST) continue;
        const int rc = cli_set(args, o->name, row->values[i], CLI_FROM_RUN, r->file);
        if (rc) return rc;
    }
    for (int i = 0; i < row->listed_count; i++) {
        if (args->listed_count == CLI_MAX_LISTED)
            return cli_usage("--set: given more than %d times", CLI_MAX_LISTED);
        args->listed[args->listed_count++] = row->listed[i];
    }
    return CLI_OK;
}

int cli_bench_replay_open(cli_args *args, cli_bench_replay *replay) {
    char *text = NULL;
    cli_args row;
    *replay = (cli_bench_replay){0};
    if (!cli_text(args, "replay")) return CLI_OK;
    int rc = parse(cli_text(args, "replay"), replay);
    if (rc) return rc;
    const tw_status s = tw_file_read(NULL, replay->file, MOST_BYTES, &text, NULL);
    if (s != TW_OK) return cli_fail("--replay: %s", tw_context_error(NULL));
    rc = find_row(replay, text);
    tw_free(NULL, text);
    if (!rc) rc = parse_row(replay, args->command, &row);
    return rc ? rc : take(args, &row, replay);
}

void cli_bench_replay_compare(const cli_bench_replay *replay, const cli_bench *b) {
    const double then = json_number_value(json_object_get(replay->row, "images_per_s"));
    const double now =
        json_number_value(json_object_get(json_array_get(b->done, 0), "images_per_s"));
    const char *device = json_string_value(json_object_get(replay->header, "device"));
    const char *commit = json_string_value(json_object_get(replay->header, "commit"));
    if (!(then > 0.0)) return;
    printf("%11s row %" PRId64 " of %s had %s %s/s (%s, commit %s): %.2f times as many now\n", "",
           replay->number, replay->file, cli_rate(then).text, cli_shape_noun(&b->shape, false),
           device ? device : "unknown device", commit ? commit : "unknown", now / then);
}

void cli_bench_replay_close(cli_bench_replay *replay) {
    json_decref(replay->header);
    json_decref(replay->row);
    free(replay->words);
}
