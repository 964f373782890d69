/* Models to diffusers directories. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/scheduler_config.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "models/path.h"
#include "models/save.h"
#include "models/weights.h"

static tw_status write_weights(const tw_model_files *f, const char *path) {
    const tw_weights *weights = f->weights;
    const tw_safetensors_pair metadata = {"format", "pt"};
    tw_safetensors_item *items = tw_allocate(f->ctx, (size_t)weights->count, sizeof *items);
    if (!items) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < weights->count; i++) {
        items[i].name = weights->items[i].name;
        items[i].dtype = TW_F32;
        items[i].rank = tw_weight_file_shape(&weights->items[i], items[i].shape);
    }
    tw_status s =
        tw_safetensors_write(f->ctx, path, items, weights->count, &metadata, 1, f->fetch, f->user);
    tw_free(f->ctx, items);
    return s;
}

/* The object as text, written to `path`; the reference is taken. */
static tw_status write_json(tw_context *ctx, const char *path, json_t *object) {
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    if (!text) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    tw_status s = tw_file_write(ctx, path, text, strlen(text));
    free(text);
    return s;
}

/* What DiffusionPipeline.from_pretrained begins with. */
static tw_status write_index(const tw_model_files *f, const char *path) {
    tw_scheduler_config config;
    TW_TRY(
        tw_scheduler_config_parse(f->ctx, f->scheduler_config, "scheduler_config.json", &config));
    json_t *index = json_pack("{s:s, s:[s,s], s:[s,s]}", "_class_name", "DDPMPipeline", "scheduler",
                              "diffusers", config.class_name, "unet", "diffusers", f->kind);
    tw_scheduler_config_free(f->ctx, &config);
    return write_json(f->ctx, path, index);
}

static tw_status make_directories(tw_context *ctx, const char *directory) {
    tw_path path;
    TW_TRY(tw_path_join(ctx, directory, "unet", &path));
    TW_TRY(tw_directory_make(ctx, path.text));
    TW_TRY(tw_path_join(ctx, directory, "scheduler", &path));
    return tw_directory_make(ctx, path.text);
}

/* A text file of the directory. */
static tw_status write_text(tw_context *ctx, const char *directory, const char *name,
                            const char *text) {
    tw_path path;
    TW_TRY(tw_path_join(ctx, directory, name, &path));
    return tw_file_write(ctx, path.text, text, strlen(text));
}

tw_status tw_model_files_write(const tw_model_files *f, const char *directory) {
    tw_context *ctx = f->ctx;
    tw_path weights, index;
    if (!directory || !*directory)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "model: no directory to save to");
    TW_TRY(tw_path_join(ctx, directory, "unet/diffusion_pytorch_model.safetensors", &weights));
    TW_TRY(tw_path_join(ctx, directory, "model_index.json", &index));
    TW_TRY(make_directories(ctx, directory));
    TW_TRY(write_text(ctx, directory, "unet/config.json", f->config));
    TW_TRY(write_weights(f, weights.text));
    TW_TRY(write_text(ctx, directory, "scheduler/scheduler_config.json", f->scheduler_config));
    return write_index(f, index.text);
}

static tw_status fetch(void *user, int64_t index, void *out) {
    tw_model *model = user;
    const tw_weight *w = &model->weights.items[index];
    return tw_model_get_weight(model, w->name, out, w->count);
}

tw_status tw_model_save(tw_model *model, const char *directory) {
    if (!model) return tw_fail(NULL, TW_ERROR_ARGUMENT, "model: null");
    const tw_model_files files = {.ctx = model->ctx,
                                  .kind = model->info.kind,
                                  .config = model->config,
                                  .scheduler_config = model->scheduler_config,
                                  .weights = &model->weights,
                                  .fetch = fetch,
                                  .user = model};
    return tw_model_files_write(&files, directory);
}
