/* tweedie train --dry-run: what would be done, by which providers, in how much memory and time. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "cli/choices.h"
#include "cli/machine.h"
#include "cli/progress.h"
#include "cli/quantile.h"
#include "cli/train.h"

#define TIMED 9       /* steps at most */
#define ENOUGH 4.0    /* seconds of them */
#define SLOW_STEP 5.0 /* seconds: the first one need not be repeated */

typedef struct timing {
    int steps;      /* that were timed; 0: none was left to do */
    double seconds; /* of a step, the median */
} timing;

/* The trainer is thrown away afterwards, so its steps change nothing. */
static int time_steps(cli_session *s, timing *out) {
    double times[TIMED], sum = 0.0;
    int64_t left = s->options.steps - s->first;
    *out = (timing){0, 0.0};
    for (bool first = true; left > 0 && out->steps < TIMED && sum < ENOUGH; left--) {
        const double begun = cli_seconds();
        tw_train_metrics m = {.size = sizeof m}; /* waits */
        const tw_status status = tw_trainer_step(s->trainer, &m);
        if (status != TW_OK) return cli_fail_status(s->ctx, status);
        const double took = cli_seconds() - begun;
        /* The first one also makes what the later ones reuse. */
        const bool counts = !first || left == 1 || took > SLOW_STEP;
        first = false;
        if (!counts) continue;
        times[out->steps++] = took;
        sum += took;
    }
    out->seconds = cli_quantile(times, out->steps, 0.5);
    return CLI_OK;
}

static const char *const plan_names[] = {"micro-step", "optimizer"};

static json_t *plan_json(const cli_session *s, const tw_plan *plan, const tw_plan_stats *stats) {
    json_t *providers = json_object();
    for (int i = 0; tw_context_provider(s->ctx, i); i++) {
        const char *name = tw_context_provider(s->ctx, i);
        json_object_set_new(providers, name, json_integer(tw_plan_provider_launches(plan, name)));
    }
    return json_pack("{s:i, s:i, s:o, s:f}", "operations", stats->operations, "launches",
                     stats->launches, "providers", providers, "flops", stats->flops);
}

static void show_plan(const cli_session *s, const tw_plan *plan, const tw_plan_stats *stats,
                      const char *name) {
    printf("  %-10s %s: %d operations in %d launches", "plan", name, stats->operations,
           stats->launches);
    const char *between = ": ";
    for (int i = 0; tw_context_provider(s->ctx, i); i++) {
        const int n = tw_plan_provider_launches(plan, tw_context_provider(s->ctx, i));
        if (n) printf("%s%s %d", between, tw_context_provider(s->ctx, i), n);
        if (n) between = ", ";
    }
    if (stats->flops > 0.0) printf("%s%sFLOP", cli_separator(), cli_magnitude(stats->flops).text);
    putchar('\n');
}

/* Rows, or with a document entries of it. */
static int say_plans(const cli_session *s, json_t *document) {
    json_t *plans = json_object();
    for (int i = 0; tw_trainer_plan(s->trainer, i); i++) {
        const tw_plan *plan = tw_trainer_plan(s->trainer, i);
        tw_plan_stats stats = {.size = sizeof stats};
        const tw_status status = tw_plan_get_stats(plan, &stats);
        if (status != TW_OK) {
            json_decref(plans);
            return cli_fail_status(s->ctx, status);
        }
        if (document)
            json_object_set_new(plans, plan_names[i], plan_json(s, plan, &stats));
        else
            show_plan(s, plan, &stats, plan_names[i]);
    }
    if (document) {
        json_object_set(document, "plan", plans);
        json_object_set_new(document, "providers",
                            cli_choices_json(s->ctx, &s->ctx->backend->choices));
    }
    json_decref(plans);
    return CLI_OK;
}

/* The table has said what the training itself takes. */
static int say_memory(cli_session *s, json_t *document) {
    tw_trainer_memory m = {.size = sizeof m};
    double total, available;
    size_t preview = 0;
    tw_status status = tw_trainer_get_memory(s->trainer, &m);
    if (status == TW_OK) status = cli_train_preview_memory(s, &preview);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    cli_memory(&total, &available);
    const double peak = cli_peak_memory();
    const double most = peak + (double)m.snapshot;
    if (document) {
        json_object_set_new(
            document, "memory",
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                      "weights", (json_int_t)m.weights, "rounded", (json_int_t)m.rounded,
                      "gradients", (json_int_t)m.gradients, "optimizer", (json_int_t)m.optimizer,
                      "average", (json_int_t)m.ema, "arena", (json_int_t)m.arena, "staging",
                      (json_int_t)m.staging, "data", (json_int_t)m.resident, "save",
                      (json_int_t)m.snapshot, "preview", (json_int_t)preview, "process",
                      (json_int_t)peak, "machine", (json_int_t)total, "free",
                      (json_int_t)available));
        return CLI_OK;
    }
    printf("  %-10s %s more while a save is written", "room", cli_bytes((double)m.snapshot).text);
    if (preview) printf(", %s more for a picture", cli_bytes((double)preview).text);
    printf("\n  %-10s the process has held %s so far; the machine has %s, %s of them free%s\n", "",
           cli_bytes(peak).text, cli_bytes(total).text, cli_bytes(available).text,
           available > 0.0 && most > available + peak ? ": that will not do" : "");
    return CLI_OK;
}

static void say_time(const cli_session *s, const timing *t, json_t *document) {
    const int64_t left = s->options.steps - s->first;
    const double samples = (double)(s->options.batch_size * s->options.accumulate);
    const double all = t->seconds * (double)left;
    const double rate = t->seconds > 0.0 ? samples / t->seconds : 0.0;
    if (document) {
        json_object_set_new(document, "time",
                            json_pack("{s:i, s:f, s:f, s:I, s:f}", "timed_steps", t->steps,
                                      "seconds_per_step", t->seconds, "samples_per_s", rate,
                                      "steps_left", (json_int_t)left, "seconds_left", all));
        return;
    }
    if (left == 0) {
        printf("  %-10s all steps are done\n", "time");
        return;
    }
    const bool quick = t->seconds < 1.0;
    printf("  %-10s about %s for %s steps: %.3g %s each, the median of %d timed, %s %s/s\n", "time",
           cli_duration(all).text, cli_grouped(left).text, quick ? 1000.0 * t->seconds : t->seconds,
           quick ? "ms" : "s", t->steps, cli_rate(rate).text, cli_shape_noun(&s->shape, false));
    printf("  %-10s validations, pictures and saves come on top\n", "");
}

static json_t *open_document(const cli_session *s) {
    tw_dataset_info data = {.size = sizeof data};
    if (tw_dataset_get_info(s->dataset, &data) != TW_OK) return NULL;
    return json_pack("{s:b, s:s, s:s, s:{s:s, s:I, s:I}, s:{s:s, s:I, s:I}, s:I, s:I}", "dry_run",
                     1, "device", tw_context_device_name(s->ctx), "commit", cli_commit(), "model",
                     "kind", s->info.kind, "parameters", (json_int_t)s->info.parameters, "tensors",
                     (json_int_t)s->info.tensors, "data", "source", cli_text(s->args, "data"),
                     "count", (json_int_t)data.count, "classes", (json_int_t)data.classes, "steps",
                     (json_int_t)s->options.steps, "done", (json_int_t)s->first);
}

int cli_train_dry_run(cli_session *s) {
    timing t;
    json_t *document = s->log_json ? open_document(s) : NULL;
    if (s->log_json && !document) return cli_fail("out of memory");
    int rc = say_plans(s, document);
    if (!rc) rc = time_steps(s, &t);
    if (!rc) rc = say_memory(s, document);
    if (!rc) say_time(s, &t, document);
    char *text = document && !rc ? json_dumps(document, JSON_REAL_PRECISION(9)) : NULL;
    if (text) printf("%s\n", text);
    free(text);
    json_decref(document);
    return rc;
}
