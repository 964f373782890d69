/* What the rows of a benchmark share: the network and the data. */
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/fields.h"
#include "cli/fingerprint.h"
#include "cli/presets.h"
#include "cli/progress.h"
#include "core/context.h"
#include "models/model.h"

/* Fresh networks hold zeros in places, which make devices quicker than trained weights do. */
static tw_status fill_zeros(tw_model *model) {
    for (int64_t i = 0; i < model->weights.count; i++) {
        const tw_weight *w = &model->weights.items[i];
        if (w->init != TW_INIT_ZERO) continue;
        float *values = tw_allocate(model->ctx, (size_t)w->count, sizeof *values);
        if (!values) return TW_ERROR_MEMORY;
        tw_status s = tw_noise_initial(0, (uint64_t)i, w->count, values);
        for (int64_t k = 0; k < w->count; k++) values[k] *= 0.02f;
        if (s == TW_OK) s = tw_model_set_weight(model, w->name, values, w->count);
        tw_free(model->ctx, values);
        TW_TRY(s);
    }
    return TW_OK;
}

static int set_fields(const cli_args *args, char **model, char **scheduler) {
    const char *text;
    for (int i = 0; (text = cli_listed(args, "set", i)); i++)
        if (strncmp(text, "options.", 8) == 0)
            return cli_usage("--set: expected a field of model or scheduler, got \"%s\"", text);
    cli_args scratch = *args;
    int rc = cli_fields_set_options(&scratch); /* checks their form */
    if (!rc) rc = cli_fields_set_config(args, "model", false, model);
    if (!rc) rc = cli_fields_set_config(args, "scheduler", false, scheduler);
    return rc;
}

static int open_preset(cli_bench *b) {
    const cli_preset *preset = cli_preset_find(cli_bench_preset(b));
    char *model = strdup(preset->model), *scheduler = strdup(preset->scheduler);
    int rc =
        model && scheduler ? set_fields(b->args, &model, &scheduler) : cli_fail("out of memory");
    if (!rc) {
        tw_status s = tw_model_create(b->ctx, model, scheduler, NULL, 0, 0, &b->model);
        if (s == TW_OK) s = fill_zeros(b->model);
        if (s != TW_OK) rc = cli_fail_status(b->ctx, s);
    }
    free(model);
    free(scheduler);
    return rc;
}

const char *cli_bench_preset(const cli_bench *b) {
    if (cli_text(b->args, "model")) return NULL;
    if (cli_text(b->args, "preset")) return cli_text(b->args, "preset");
    return tw_context_device(b->ctx) == TW_DEVICE_CUDA ? "cifar10" : "shapes";
}

int cli_bench_open_model(cli_bench *b) {
    const char *path = cli_text(b->args, "model");
    const double begun = cli_seconds();
    int rc = CLI_OK;
    b->info.size = sizeof b->info;
    if (!path) rc = open_preset(b);
    if (rc) return rc;
    tw_status s = path ? tw_model_load(b->ctx, path, NULL, &b->model) : TW_OK;
    if (s == TW_OK) s = cli_bench_wait(b);
    if (s == TW_OK) s = tw_model_get_info(b->model, &b->info);
    if (s != TW_OK) return cli_fail_status(b->ctx, s);
    b->model_seconds = cli_seconds() - begun;
    b->shape = cli_shape_of(&b->info);
    if (b->guided && b->info.classes == 0)
        return cli_usage("--guidance: the model has no classes that could guide; expected 1");
    return CLI_OK;
}

/* Twice the largest batch, so that there is something to shuffle. */
static tw_status make_random(cli_bench *b) {
    int64_t n = 0;
    for (int i = 0; i < b->batches.count; i++)
        if (2 * b->batches.values[i] > n) n = 2 * b->batches.values[i];
    float *values = tw_allocate(b->ctx, (size_t)n, (size_t)b->shape.count * sizeof *values);
    int32_t *labels = tw_allocate(b->ctx, (size_t)n, sizeof *labels);
    tw_status s = values && labels ? TW_OK : TW_ERROR_MEMORY;
    for (int64_t i = 0; i < n && s == TW_OK; i++) {
        s = tw_noise_initial(1, (uint64_t)i, b->shape.count, values + i * b->shape.count);
        if (b->info.classes > 0) labels[i] = (int32_t)(i % b->info.classes);
    }
    if (s == TW_OK)
        s = tw_dataset_from_memory(b->ctx, n, b->shape.rank, b->shape.extents, values,
                                   b->info.classes > 0 ? labels : NULL, &b->dataset);
    tw_free(b->ctx, values);
    tw_free(b->ctx, labels);
    return s;
}

static tw_status open_source(cli_bench *b, const char *source) {
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    if (b->shape.rank == 3) {
        o.height = b->shape.extents[0];
        o.width = b->shape.extents[1];
        if (b->shape.extents[2] == 1 || b->shape.extents[2] == 3)
            o.channels = (int)b->shape.extents[2];
    }
    o.keep_own = b->shape.rank != 3;
    return tw_dataset_open(b->ctx, source, &o, &b->dataset);
}

bool cli_bench_makes(const char *source) {
    return strcmp(source, "random") == 0 || cli_source_is_made(source);
}

int cli_bench_open_data(cli_bench *b) {
    const char *source = cli_text(b->args, "data");
    if (b->work != &cli_bench_training) return CLI_OK;
    const tw_status s = strcmp(source, "random") == 0 ? make_random(b) : open_source(b, source);
    return s == TW_OK ? CLI_OK : cli_fail_status(b->ctx, s);
}

void cli_bench_close(cli_bench *b) {
    tw_dataset_free(b->dataset);
    tw_model_free(b->model);
    tw_context_free(b->ctx);
    json_decref(b->done);
}
