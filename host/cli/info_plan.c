/* tweedie info --plan: what a batch takes, without taking it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "cli/choices.h"
#include "cli/head.h"
#include "cli/info.h"
#include "cli/machine.h"
#include "cli/output.h"
#include "cli/presets.h"
#include "core/context.h"
#include "data/dataset.h"
#include "diffusion/sampler.h"
#include "models/model.h"
#include "train/internal.h"

typedef struct planner {
    const cli_args *args;
    tw_context *ctx;
    const cli_preset *preset; /* null: --model */
    tw_model *model;
    tw_model_info info;
    tw_dataset *data; /* null without --data */
    bool sampling;
    bool gathers;       /* a GPU, which keeps small data sets */
    double memory;      /* what a batch must fit */
    tw_choices choices; /* for the batch that was asked for */
} planner;

typedef struct budget {
    int64_t batch;
    tw_trainer_budget parts; /* of sampling: weights and plans */
    size_t resident;         /* the data set on the device */
    double total;
} budget;

/* "8G", "1.5GiB", "500M" or a number of bytes. */
static bool parse_size(const char *text, double *out) {
    static const char units[] = "KMGT";
    char number[32];
    const size_t digits = strspn(text, "0123456789.");
    const char *rest = text + digits, *unit = *rest ? strchr(units, *rest) : NULL;
    if (digits >= sizeof number) return false;
    memcpy(number, text, digits);
    number[digits] = '\0';
    if (!cli_parse_real(number, out) || (*rest && !unit)) return false;
    for (int i = 0; unit && i <= unit - units; i++) *out *= 1024.0;
    if (unit) rest++;
    return *out >= 1.0 && (!*rest || (unit && (!strcmp(rest, "B") || !strcmp(rest, "iB"))));
}

static int find_memory(planner *p) {
    tw_backend *b = p->ctx->backend;
    double available;
    const char *text = cli_text(p->args, "memory");
    if (text && !parse_size(text, &p->memory))
        return cli_usage("--memory: expected a size such as 8G or 500M, got \"%s\"", text);
    if (!text && b->memory) {
        size_t total = 0, left;
        const tw_status s = b->memory(b, &total, &left);
        if (s != TW_OK) return cli_fail_status(p->ctx, s);
        p->memory = (double)total;
    } else if (!text) {
        cli_memory(&p->memory, &available);
    }
    if (!(p->memory > 0.0))
        return cli_usage("--memory: what the device has is not known; give a size such as 8G");
    return CLI_OK;
}

static int open_model(planner *p) {
    const char *path = cli_text(p->args, "model");
    p->info.size = sizeof p->info;
    p->preset = path ? NULL : cli_preset_find(cli_text(p->args, "preset"));
    tw_status s = path
                      ? tw_model_load(p->ctx, path, cli_text(p->args, "variant"), &p->model)
                      : tw_model_describe(p->ctx, p->preset->model, "config.json",
                                          p->preset->scheduler, "scheduler_config.json", &p->model);
    if (s == TW_OK) s = tw_model_get_info(p->model, &p->info);
    return s == TW_OK ? CLI_OK : cli_fail_status(p->ctx, s);
}

/* As `tweedie train` opens it, for this network. */
static int open_data(planner *p) {
    const char *source = cli_text(p->args, "data");
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    if (!source) return CLI_OK;
    if (p->info.rank == 3) {
        o.height = p->info.shape[0];
        o.width = p->info.shape[1];
        if (p->info.shape[2] == 1 || p->info.shape[2] == 3) o.channels = (int)p->info.shape[2];
    }
    const tw_status s = tw_dataset_open(p->ctx, source, &o, &p->data);
    if (s != TW_OK) return cli_fail_status(p->ctx, s);
    if (p->data->rank != p->info.rank || p->data->elements != cli_shape_of(&p->info).count)
        return cli_usage("--data: %s: its samples have another shape than the network's", source);
    return CLI_OK;
}

/* A number that the preset gives to an option of `train`. */
static double preset_value(const planner *p, const char *name, double fallback) {
    for (const cli_preset_option *o = p->preset ? p->preset->options : NULL; o && o->name; o++)
        if (strcmp(o->name, name) == 0) return strtod(o->text, NULL);
    return fallback;
}

static int64_t first_batch(const planner *p) {
    if (cli_given(p->args, "batch-size")) return cli_int(p->args, "batch-size");
    return p->sampling ? 64 : (int64_t)preset_value(p, "batch-size", 64.0);
}

static tw_status plan_sampling(const planner *p, int64_t batch, budget *out) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    tw_sampler *sampler = NULL;
    o.max_batch = batch;
    o.precision = (tw_precision)cli_choice(p->args, "precision");
    if (o.steps > p->info.training_steps) o.steps = p->info.training_steps;
    TW_TRY(tw_sampler_create(p->model, &o, &sampler));
    const tw_status s = tw_sampler_batch_budget(sampler, batch, &out->parts.plans);
    out->parts.rounded = sampler->rounded.bytes;
    tw_sampler_free(sampler);
    out->parts.weights = (size_t)p->model->weights.total * sizeof(float);
    return s;
}

/* With what a preset has the plan do. */
static tw_status plan_training(const planner *p, int64_t batch, budget *out) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.batch_size = batch;
    o.recompute = (tw_recompute)cli_choice(p->args, "recompute");
    o.precision = (tw_precision)cli_choice(p->args, "precision");
    o.ema_decay = preset_value(p, "ema", o.ema_decay);
    o.flip = preset_value(p, "flip", o.flip);
    o.cond_dropout = preset_value(p, "cond-dropout", o.cond_dropout);
    return tw_trainer_plan_budget(p->model, &o, &out->parts);
}

static tw_status plan_batch(const planner *p, int64_t batch, budget *out) {
    *out = (budget){.batch = batch};
    TW_TRY(p->sampling ? plan_sampling(p, batch, out) : plan_training(p, batch, out));
    const tw_trainer_budget *b = &out->parts;
    out->total = (double)(b->weights + b->rounded + b->gradients + b->optimizer + b->ema +
                          tw_plan_budget_total(&b->plans));
    if (p->gathers && p->data && out->total < p->memory) {
        const tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
        out->resident =
            tw_dataset_resident_bytes(p->data, o.resident_limit, (size_t)(p->memory - out->total));
        out->total += (double)out->resident;
    }
    return TW_OK;
}

/* Bytes that one sample more takes, between two batches. */
static double slope(const budget *a, const budget *b) {
    const double bytes = (b->total - a->total) / (double)(b->batch - a->batch);
    return bytes > 1.0 ? bytes : 1.0;
}

/* The largest batch that fits, with batch 0 for none. What a batch takes is nearly a line, so that
 * few are tried. `other` is any batch but 1. */
static tw_status find_largest(const planner *p, const budget *other, budget *out) {
    budget low = {0}, high = {.batch = CLI_PLAN_BATCHES + 1}, now;
    TW_TRY(plan_batch(p, 1, &now));
    const double each = slope(&now, other);
    for (;;) {
        if (now.total <= p->memory)
            low = now;
        else
            high = now;
        if (high.batch - low.batch <= 1) break;
        double guess = (double)now.batch + (p->memory - now.total) / each;
        if (guess < (double)low.batch + 1.0) guess = (double)low.batch + 1.0;
        if (guess > (double)high.batch - 1.0) guess = (double)high.batch - 1.0;
        TW_TRY(plan_batch(p, (int64_t)guess, &now));
    }
    *out = low;
    return TW_OK;
}

/* --- Output --- */

typedef struct row {
    const char *name, *key;
    size_t bytes;
} row;
#define ROWS 11

static int rows_of(const planner *p, const budget *b, row *rows) {
    const tw_trainer_budget *t = &b->parts;
    const row all[ROWS] = {{"weights", "weights", t->weights},
                           {"rounded weights", "rounded", t->rounded},
                           {"gradients", "gradients", t->gradients},
                           {"optimizer state", "optimizer", t->optimizer},
                           {"average", "average", t->ema},
                           {"activations kept", "kept", t->plans.kept},
                           {"passing tensors", "passing", t->plans.passing},
                           {"workspace", "workspace", t->plans.workspace + t->plans.held},
                           {"gaps", "gaps", t->plans.gaps},
                           {"inputs", "inputs", t->plans.inputs},
                           {"data", "data", b->resident}};
    int n = 0;
    for (int i = 0; i < ROWS; i++) {
        const bool is_any = (i != 1 && i != ROWS - 1) || all[i].bytes > 0;
        if (is_any && (!p->sampling || i < 2 || i > 5)) rows[n++] = all[i];
    }
    return n;
}

static int print_plan_json(const planner *p, const budget *b, const budget *largest) {
    row rows[ROWS];
    json_t *bytes = json_object();
    for (int i = 0, n = rows_of(p, b, rows); i < n; i++)
        json_object_set_new(bytes, rows[i].key, json_integer((json_int_t)rows[i].bytes));
    return cli_print_json(
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:s, s:I, s:o, s:f, s:I, s:I, s:f, s:I, s:f, s:o}",
                  "device", tw_context_device_name(p->ctx), "kind", p->info.kind, "parameters",
                  (json_int_t)p->info.parameters, "for", p->sampling ? "sample" : "train",
                  "precision", cli_text(p->args, "precision"), "recompute",
                  cli_text(p->args, "recompute"), "batch_size", (json_int_t)b->batch, "bytes",
                  bytes, "total", b->total, "host_save", (json_int_t)b->parts.snapshot, "host_data",
                  (json_int_t)(p->data ? tw_dataset_held_bytes(p->data) : 0), "memory", p->memory,
                  "largest_batch", (json_int_t)largest->batch, "largest_total", largest->total,
                  "providers", cli_choices_json(p->ctx, &p->choices)));
}

static void print_plan(const planner *p, const budget *b, const budget *largest) {
    row rows[ROWS];
    cli_print_head(p->ctx, &p->info, cli_text(p->args, "precision"), "");
    printf("%s with a batch of %s", p->sampling ? "sampling" : "training",
           cli_grouped(b->batch).text);
    if (cli_choice(p->args, "recompute"))
        printf(", making %s again", cli_text(p->args, "recompute"));
    putchar('\n');
    for (int i = 0, n = rows_of(p, b, rows); i < n; i++)
        printf("  %-17s %10s\n", rows[i].name, cli_bytes((double)rows[i].bytes).text);
    printf("  %-17s %10s\n", "in all", cli_bytes(b->total).text);
    if (!p->sampling)
        printf("  %-17s %10s more of the host's memory while one is written\n", "a save",
               cli_bytes((double)b->parts.snapshot).text);
    if (p->data)
        printf("  %-17s %10s more of the host's memory\n", "the data",
               cli_bytes((double)tw_dataset_held_bytes(p->data)).text);
    cli_print_choices(p->ctx, &p->choices, 17);
    printf("%s: ", cli_bytes(p->memory).text);
    if (largest->batch == 0)
        printf("not even a batch of 1 fits\n");
    else if (largest->batch == CLI_PLAN_BATCHES)
        printf("a batch of %s and perhaps more fits\n", cli_grouped(CLI_PLAN_BATCHES).text);
    else
        printf("the largest batch that fits is %s, which takes %s\n",
               cli_grouped(largest->batch).text, cli_bytes(largest->total).text);
}

static int plan(planner *p) {
    budget asked, other, largest;
    const int64_t batch = first_batch(p);
    tw_status s = plan_batch(p, batch, &asked);
    p->choices = p->ctx->backend->choices;
    if (s == TW_OK && batch == 1) s = plan_batch(p, 2, &other);
    if (s == TW_OK) s = find_largest(p, batch == 1 ? &other : &asked, &largest);
    if (s != TW_OK) return cli_fail_status(p->ctx, s);
    if (cli_flag(p->args, "json")) return print_plan_json(p, &asked, &largest);
    print_plan(p, &asked, &largest);
    return CLI_OK;
}

int cli_info_plan(const cli_args *args, tw_context *ctx) {
    planner p = {.args = args, .ctx = ctx, .sampling = cli_choice(args, "for") == 1};
    int rc = find_memory(&p);
    if (rc) return rc;
    p.gathers = ctx->backend->gather != NULL;
    tw_backend_plan_only(ctx->backend);
    rc = open_model(&p);
    if (!rc) rc = open_data(&p);
    if (!rc) rc = plan(&p);
    tw_dataset_free(p.data);
    tw_model_free(p.model);
    return rc;
}
