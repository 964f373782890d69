/* tweedie info: what this build is and runs on, what a model is, or what memory it takes. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "cli/cli.h"
#include "cli/head.h"
#include "cli/info.h"
#include "cli/machine.h"
#include "cli/presets.h"
#include "core/context.h"

static const cli_option options[] = {
    CLI_GROUP("Options"),
    {"model", CLI_TEXT, "DIR", 0, 0, NULL, "describe this model instead of the build"},
    {"variant", CLI_TEXT, "NAME", 0, 0, NULL, "load diffusion_pytorch_model.NAME.safetensors"},
    {"json", CLI_FLAG, NULL, 0, 0, NULL, "print JSON"},
    CLI_GROUP("Memory"),
    {"plan", CLI_FLAG, NULL, 0, 0, NULL,
     "say what --preset's or --model's network takes, and the largest batch that fits"},
    {"preset", CLI_CHOICE, CLI_PRESET_NAMES, 0, 0, NULL, "the network of a preset"},
    {"for", CLI_CHOICE, "train|sample", 0, 0, "train",
     "what is planned for; guided sampling takes as much as twice the batch"},
    {"batch-size", CLI_INT, "N", 1, CLI_PLAN_BATCHES, NULL,
     "samples that the network sees at once [the preset's, or 64]"},
    {"precision", CLI_CHOICE, CLI_PRECISIONS, 0, 0, "fp32",
     "what the network computes with; fp16 only for sampling"},
    {"recompute", CLI_CHOICE, "none|norms|blocks", 0, 0, "none",
     "train: what is made again rather than kept"},
    {"data", CLI_TEXT, "scurve|shapes|PATH", 0, 0, NULL,
     "train: count the memory of this data set too, which `tweedie train` takes"},
    {"memory", CLI_TEXT, "SIZE", 0, 0, NULL,
     "what the batch must fit, such as 8G or 500M [the memory that the device has]"},
    CLI_GROUP("Machine"),
    CLI_DEVICE_ROWS,
    {"threads", CLI_INT, "N", 0, 1024, "0", "CPU threads; 0: one per core"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

static bool has_provider(const tw_context *ctx, const char *name) {
    for (int i = 0; tw_context_provider(ctx, i); i++)
        if (strcmp(tw_context_provider(ctx, i), name) == 0) return true;
    return false;
}

int cli_print_json(json_t *document) {
    char *text = document ? json_dumps(document, JSON_INDENT(2)) : NULL;
    json_decref(document);
    if (!text) return cli_fail("out of memory");
    printf("%s\n", text);
    free(text);
    return CLI_OK;
}

static int build_info(const cli_args *args, const tw_context *ctx) {
    const bool onednn = has_provider(ctx, "cpu-onednn");
    const bool cuda = tw_backend_has_cuda;
    char libraries[512] = ""; /* of a GPU */
    if (ctx->backend->libraries) ctx->backend->libraries(ctx->backend, libraries, sizeof libraries);
    if (cli_flag(args, "json")) {
        return cli_print_json(json_pack(
            "{s:s, s:s, s:i, s:o, s:s*, s:{s:s, s:s, s:b, s:b}}", "version", tw_version(), "device",
            tw_context_device_name(ctx), "threads", tw_context_threads(ctx), "providers",
            cli_providers_json(ctx), "libraries", *libraries ? libraries : NULL, "build",
            "compiler", __VERSION__, "type", cli_build_type(), "onednn", onednn, "cuda", cuda));
    }
    printf("tweedie %s\n", tw_version());
    printf("  %-10s %s\n", "device", tw_context_device_name(ctx));
    printf("  %-10s %d\n", "threads", tw_context_threads(ctx));
    printf("  %-10s %s\n", "providers", cli_providers(ctx).text);
    if (*libraries) printf("  %-10s %s\n", "libraries", libraries);
    printf("  %-10s %s, compiler %s, oneDNN %s, CUDA %s\n", "build", cli_build_type(), __VERSION__,
           onednn ? "yes" : "no", cuda ? "yes" : "no");
    return CLI_OK;
}

static json_t *shape_json(const tw_model_info *info) {
    json_t *shape = json_array();
    for (int i = 0; i < info->rank; i++) json_array_append_new(shape, json_integer(info->shape[i]));
    return shape;
}

static int print_model(const cli_args *args, const tw_model *model, const tw_model_info *info) {
    const tw_schedule *schedule = tw_model_schedule(model);
    const int64_t steps = tw_schedule_steps(schedule);
    const double first = tw_schedule_betas(schedule)[0],
                 last = tw_schedule_betas(schedule)[steps - 1];
    const double final = tw_schedule_alphas_cumprod(schedule)[steps - 1];
    if (cli_flag(args, "json"))
        return cli_print_json(json_pack(
            "{s:s, s:I, s:I, s:o, s:I, s:I, s:s, s:{s:I, s:f, s:f, s:f}, s:o*, s:o*}", "kind",
            info->kind, "parameters", (json_int_t)info->parameters, "tensors",
            (json_int_t)info->tensors, "shape", shape_json(info), "out_channels",
            (json_int_t)info->out_channels, "classes", (json_int_t)info->classes, "prediction",
            tw_prediction_name(info->prediction), "schedule", "steps", (json_int_t)steps,
            "first_beta", first, "last_beta", last, "last_alpha_cumprod", final, "config",
            json_loads(tw_model_config(model), 0, NULL), "scheduler_config",
            json_loads(tw_model_scheduler_config(model), 0, NULL)));
    printf("%s\n", info->kind);
    printf("  %-11s %s in %" PRId64 " tensors\n", "parameters", cli_grouped(info->parameters).text,
           info->tensors);
    printf("  %-11s", "shape");
    for (int i = 0; i < info->rank; i++) printf("%s%" PRId64, i ? " x " : " ", info->shape[i]);
    printf("%s\n", info->rank == 3 ? " (height, width, channels)" : "");
    if (info->classes)
        printf("  %-11s %" PRId64 "\n", "classes", info->classes);
    else
        printf("  %-11s none\n", "classes");
    printf("  %-11s %s\n", "prediction", tw_prediction_name(info->prediction));
    printf("  %-11s %s steps, beta %.6g to %.6g, signal left at the end %.3g\n", "schedule",
           cli_grouped(steps).text, first, last, final);
    return CLI_OK;
}

static int model_info(const cli_args *args, tw_context *ctx) {
    tw_model *model = NULL;
    tw_model_info info = {.size = sizeof info};
    tw_status s = tw_model_load(ctx, cli_text(args, "model"), cli_text(args, "variant"), &model);
    if (s == TW_OK) s = tw_model_get_info(model, &info);
    const int rc = s == TW_OK ? print_model(args, model, &info) : cli_fail_status(ctx, s);
    tw_model_free(model);
    return rc;
}

static int check_options(const cli_args *args) {
    static const char *const of_plan[] = {"preset",    "for",  "batch-size", "precision",
                                          "recompute", "data", "memory"};
    const bool plan = cli_flag(args, "plan");
    if (cli_text(args, "variant") && !cli_text(args, "model"))
        return cli_usage("--variant: there is no --model that it could belong to");
    for (size_t i = 0; !plan && i < sizeof of_plan / sizeof *of_plan; i++)
        if (cli_source_of(args, of_plan[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to --plan, which is missing", of_plan[i]);
    if (cli_choice(args, "for") == 1 && cli_source_of(args, "recompute") == CLI_FROM_USER)
        return cli_usage("--recompute: belongs to --for train");
    if (cli_choice(args, "for") == 1 && cli_text(args, "data"))
        return cli_usage("--data: belongs to --for train");
    if (cli_choice(args, "for") == 0 && cli_choice(args, "precision") == TW_PRECISION_F16)
        return cli_usage("--precision fp16: belongs to --for sample");
    if (plan && !cli_text(args, "preset") == !cli_text(args, "model"))
        return cli_usage("--plan: expected the network of --preset NAME or of --model DIR");
    return CLI_OK;
}

static int run(const cli_args *args) {
    tw_context *ctx = NULL;
    int rc = check_options(args);
    if (!rc) rc = cli_context(args, &ctx);
    if (rc) return rc;
    if (cli_flag(args, "plan"))
        rc = cli_info_plan(args, ctx);
    else
        rc = cli_text(args, "model") ? model_info(args, ctx) : build_info(args, ctx);
    tw_context_free(ctx);
    return rc;
}

static const cli_example examples[] = {
    {"what this build runs on", "tweedie info"},
    {"what a model is, for a script", "tweedie info --model run --json"},
    {"what training takes, and the largest batch for 8 GiB",
     "tweedie info --plan --preset cifar10 --memory 8G"},
    {NULL, NULL}};

const cli_command cli_info_command = {.name = "info",
                                      .summary = "says what this build or a model is, or takes",
                                      .usage =
                                          "tweedie info [--model DIR] [--json]\n"
                                          "tweedie info --plan --preset NAME [--for train|sample] "
                                          "[--memory SIZE]",
                                      .options = options,
                                      .examples = examples,
                                      .run = run};
