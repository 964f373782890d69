/* Models from diffusers directories and from memory. */
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "models/path.h"
#include "models/weights.h"

enum { MAX_SHARDS = 1024 };

/* "<directory>/<part>" if that is a directory, else the directory itself. */
static tw_status find_part(tw_context *ctx, const char *directory, const char *part, tw_path *out) {
    TW_TRY(tw_path_join(ctx, directory, part, out));
    return tw_directory_exists(out->text) ? TW_OK : tw_path_join(ctx, directory, "", out);
}

/* --- The tensors of open files --- */

/* The name that today's diffusers gives to a tensor: the attention's used to be query, key, value
 * and proj_attn. */
static bool current_name(const char *name, char *out, size_t size) {
    static const char *const renamed[][2] = {{".query.", ".to_q."},
                                             {".key.", ".to_k."},
                                             {".value.", ".to_v."},
                                             {".proj_attn.", ".to_out.0."}};
    int n = -1;
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed && strstr(name, ".attentions."); i++) {
        const char *at = strstr(name, renamed[i][0]);
        if (at)
            n = snprintf(out, size, "%.*s%s%s", (int)(at - name), name, renamed[i][1],
                         at + strlen(renamed[i][0]));
    }
    if (n < 0) n = snprintf(out, size, "%s", name);
    return n >= 0 && (size_t)n < size;
}

static void shape_text(int rank, const int64_t *shape, char *out, size_t size) {
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used +=
            (size_t)snprintf(out + used, size - used, "%s%lld", i ? "," : "", (long long)shape[i]);
    if (used < size) snprintf(out + used, size - used, "]");
}

/* A linear layer of an attention was once a 1x1 convolution: [N,K,1,1] is taken for [N,K]. */
static bool same_shape(const tw_weight *w, const tw_safetensors_entry *e) {
    int64_t want[TW_MAX_RANK];
    const int rank = tw_weight_file_shape(w, want);
    const bool old = rank == 2 && e->rank == 4 && e->shape[2] == 1 && e->shape[3] == 1 &&
                     strstr(w->name, ".attentions.");
    if (e->rank != rank && !old) return false;
    return memcmp(want, e->shape, (size_t)rank * sizeof *want) == 0;
}

static tw_status check_shape(tw_context *ctx, const char *where, const tw_weight *w,
                             const tw_safetensors_entry *e) {
    if (same_shape(w, e)) return TW_OK;
    int64_t want[TW_MAX_RANK];
    char wanted[128], found[256];
    shape_text(tw_weight_file_shape(w, want), want, wanted, sizeof wanted);
    shape_text(e->rank, e->shape, found, sizeof found);
    return tw_fail(ctx, TW_ERROR_FORMAT,
                   "%s: %s: the config asks for the shape %s, the file has %s", where, e->name,
                   wanted, found);
}

typedef struct match {
    const tw_safetensors *file;
    const tw_safetensors_entry *entry;
} match;

/* Gives every tensor of one file to its weight. */
static tw_status match_file(tw_model *model, const tw_safetensors *file, const char *where,
                            match *matches, const char **unexpected, int64_t *n_unexpected) {
    char name[160];
    for (int64_t i = 0; i < tw_safetensors_count(file); i++) {
        const tw_safetensors_entry *e = tw_safetensors_entry_at(file, i);
        int64_t k =
            current_name(e->name, name, sizeof name) ? tw_weights_find(&model->weights, name) : -1;
        if (k < 0) {
            if ((*n_unexpected)++ == 0) *unexpected = e->name;
            continue;
        }
        if (matches[k].entry)
            return tw_fail(model->ctx, TW_ERROR_FORMAT, "%s: %s: there are two of it", where, name);
        TW_TRY(check_shape(model->ctx, where, &model->weights.items[k], e));
        matches[k] = (match){file, e};
    }
    return TW_OK;
}

/* One line about what is not there and what should not be. */
static tw_status check_names(tw_model *model, const char *where, const match *matches,
                             const char *unexpected, int64_t n_unexpected) {
    const char *missing = NULL;
    int64_t n_missing = 0;
    for (int64_t k = 0; k < model->weights.count; k++)
        if (!matches[k].entry && n_missing++ == 0) missing = model->weights.items[k].name;
    if (!missing && !unexpected) return TW_OK;
    char text[2][192] = {"", ""};
    if (missing)
        snprintf(text[0], sizeof text[0], "%.96s is missing (%lld of %lld tensors are)", missing,
                 (long long)n_missing, (long long)model->weights.count);
    if (unexpected)
        snprintf(text[1], sizeof text[1], "%s%.96s is none of the config's (%lld such)",
                 missing ? "; " : "", unexpected, (long long)n_unexpected);
    return tw_fail(model->ctx, TW_ERROR_FORMAT, "%s: %s%s", where, text[0], text[1]);
}

static tw_status read_matches(tw_model *model, const match *matches) {
    tw_status s = TW_OK;
    for (int64_t k = 0; k < model->weights.count && s == TW_OK; k++) {
        const tw_weight *w = &model->weights.items[k];
        float *values = tw_allocate(model->ctx, (size_t)w->count, sizeof *values);
        if (!values) return TW_ERROR_MEMORY;
        s = tw_safetensors_read_f32(matches[k].file, matches[k].entry, values);
        if (s == TW_OK) s = tw_model_set_weight(model, w->name, values, w->count);
        tw_free(model->ctx, values);
    }
    return s;
}

tw_status tw_model_read_weights(tw_model *model, struct tw_safetensors *const *files, int count,
                                const char *where) {
    const char *unexpected = NULL;
    int64_t n_unexpected = 0;
    match *matches = tw_allocate(model->ctx, (size_t)model->weights.count, sizeof *matches);
    if (!matches) return TW_ERROR_MEMORY;
    tw_status s = TW_OK;
    for (int i = 0; i < count && s == TW_OK; i++)
        s = match_file(model, files[i], where, matches, &unexpected, &n_unexpected);
    if (s == TW_OK) s = check_names(model, where, matches, unexpected, n_unexpected);
    if (s == TW_OK) s = read_matches(model, matches);
    tw_free(model->ctx, matches);
    return s;
}

/* --- The files of a directory --- */

typedef struct shards {
    tw_safetensors *files[MAX_SHARDS];
    const char *names[MAX_SHARDS];
    int count;
} shards;

/* Opens a shard unless it is open already. */
static tw_status open_shard(tw_context *ctx, const char *directory, const char *index,
                            const char *name, shards *open) {
    tw_path path;
    for (int i = 0; i < open->count; i++)
        if (strcmp(open->names[i], name) == 0) return TW_OK;
    if (!*name || strchr(name, '/') || strlen(name) > 255)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: weight_map: expected file names, got \"%.64s\"",
                       index, name);
    if (open->count == MAX_SHARDS)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: weight_map: more than %d files", index,
                       MAX_SHARDS);
    TW_TRY(tw_path_join(ctx, directory, name, &path));
    TW_TRY(tw_safetensors_open(ctx, path.text, &open->files[open->count]));
    open->names[open->count++] = name;
    return TW_OK;
}

static tw_status open_shards(tw_context *ctx, const char *directory, const char *index,
                             const tw_json *map, shards *open) {
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map->object, tensor, file) {
        if (!json_is_string(file))
            return tw_fail(ctx, TW_ERROR_FORMAT, "%s: weight_map: %.64s: expected a file name",
                           index, tensor);
        TW_TRY(open_shard(ctx, directory, index, json_string_value(file), open));
    }
    return TW_OK;
}

static void close_shards(shards *open) {
    for (int i = 0; i < open->count; i++) tw_safetensors_close(open->files[i]);
}

static tw_status read_sharded(tw_model *model, const char *directory, const char *index) {
    tw_context *ctx = model->ctx;
    json_t *root = NULL;
    shards *open = tw_allocate(ctx, 1, sizeof *open);
    if (!open) return TW_ERROR_MEMORY;
    tw_status s = tw_json_load(ctx, index, &root);
    const tw_json json = {ctx, index, root};
    tw_json map = json;
    if (s == TW_OK) s = tw_json_require(&json, "weight_map");
    if (s == TW_OK) s = tw_json_get_object(&json, "weight_map", &map);
    if (s == TW_OK) s = open_shards(ctx, directory, index, &map, open);
    if (s == TW_OK) s = tw_model_read_weights(model, open->files, open->count, index);
    close_shards(open);
    tw_free(ctx, open);
    json_decref(root);
    return s;
}

static tw_status read_single(tw_model *model, const char *path) {
    tw_safetensors *file = NULL;
    TW_TRY(tw_safetensors_open(model->ctx, path, &file));
    tw_status s = tw_model_read_weights(model, &file, 1, path);
    tw_safetensors_close(file);
    return s;
}

/* Reads diffusion_pytorch_model[.<variant>].safetensors or, by their index, its shards. */
static tw_status read_directory(tw_model *model, const char *directory, const char *variant) {
    tw_context *ctx = model->ctx;
    tw_path single, index, pickle;
    char dot[80] = "", name[160];
    if (variant) snprintf(dot, sizeof dot, ".%s", variant);
    snprintf(name, sizeof name, "diffusion_pytorch_model%s.safetensors", dot);
    TW_TRY(tw_path_join(ctx, directory, name, &single));
    snprintf(name, sizeof name, "diffusion_pytorch_model.safetensors.index%s.json", dot);
    TW_TRY(tw_path_join(ctx, directory, name, &index));
    snprintf(name, sizeof name, "diffusion_pytorch_model%s.bin", dot);
    TW_TRY(tw_path_join(ctx, directory, name, &pickle));
    if (tw_file_exists(single.text)) return read_single(model, single.text);
    if (tw_file_exists(index.text)) return read_sharded(model, directory, index.text);
    if (tw_file_exists(pickle.text))
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: a pickle file can run programs and is not read; convert it in Python: "
                       "diffusers.UNet2DModel.from_pretrained(DIR).save_pretrained(DIR)",
                       pickle.text);
    return tw_fail(ctx, TW_ERROR_IO, "%s: no such file, and no shards of it", single.text);
}

/* The scheduler's text, freed with tw_free; null where there is none. */
static tw_status read_scheduler(tw_context *ctx, const char *directory, tw_path *path,
                                char **text) {
    tw_path part;
    TW_TRY(find_part(ctx, directory, "scheduler", &part));
    TW_TRY(tw_path_join(ctx, part.text, "scheduler_config.json", path));
    if (tw_file_exists(path->text))
        return tw_file_read(ctx, path->text, TW_JSON_TEXT_MAX, text, NULL);
    tw_log(ctx, TW_LOG_WARNING, "%s: no such file; the schedule is DDPM's default", path->text);
    return TW_OK;
}

static tw_status load(tw_context *ctx, const char *directory, const char *variant, char **config,
                      char **scheduler, tw_model **out) {
    tw_path unet, config_path, scheduler_path;
    TW_TRY(find_part(ctx, directory, "unet", &unet));
    TW_TRY(tw_path_join(ctx, unet.text, "config.json", &config_path));
    if (!tw_file_exists(config_path.text))
        return tw_fail(ctx, TW_ERROR_IO,
                       "%s: no such file; expected the directory of a model, as "
                       "diffusers writes it",
                       config_path.text);
    TW_TRY(tw_file_read(ctx, config_path.text, TW_JSON_TEXT_MAX, config, NULL));
    TW_TRY(read_scheduler(ctx, directory, &scheduler_path, scheduler));
    TW_TRY(tw_model_describe(ctx, *config, config_path.text, *scheduler, scheduler_path.text, out));
    return read_directory(*out, unet.text, variant);
}

tw_status tw_model_load(tw_context *ctx, const char *directory, const char *variant,
                        tw_model **out) {
    if (!out) return tw_fail(ctx, TW_ERROR_ARGUMENT, "model: no place for the result");
    *out = NULL;
    if (!ctx || !directory || !*directory)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "model: no context or no directory");
    if (!tw_directory_exists(directory))
        return tw_fail(ctx, TW_ERROR_IO, "%s: no such directory", directory);
    if (variant && (!*variant || strchr(variant, '/') || strlen(variant) > 64))
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "model: variant: expected a word such as \"fp16\", got \"%.64s\"", variant);
    char *config = NULL, *scheduler = NULL;
    tw_model *model = NULL;
    tw_status s = load(ctx, directory, variant, &config, &scheduler, &model);
    tw_free(ctx, config);
    tw_free(ctx, scheduler);
    if (s == TW_OK)
        *out = model;
    else
        tw_model_free(model);
    return s;
}

tw_status tw_model_create(tw_context *ctx, const char *config_json, const char *scheduler_json,
                          const void *weights, size_t weights_bytes, uint64_t seed,
                          tw_model **out) {
    if (!out) return tw_fail(ctx, TW_ERROR_ARGUMENT, "model: no place for the result");
    *out = NULL;
    if (!ctx || !config_json)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "model: no context or no config");
    tw_model *model = NULL;
    tw_safetensors *file = NULL;
    TW_TRY(tw_model_describe(ctx, config_json, "config.json", scheduler_json,
                             "scheduler_config.json", &model));
    tw_status s = TW_OK;
    if (weights)
        s = tw_safetensors_parse(ctx, weights, weights_bytes, "the weights", &file);
    else
        s = tw_model_initialize(model, seed);
    if (s == TW_OK && weights) s = tw_model_read_weights(model, &file, 1, "the weights");
    tw_safetensors_close(file);
    if (s == TW_OK)
        *out = model;
    else
        tw_model_free(model);
    return s;
}
