/* The training state on disk: one safetensors file, replaced as a whole. The vectors are stored
 * flat, in the order of the model's weights whatever the device's, so that any device can take them
 * up. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "io/file.h"
#include "models/weights.h"
#include "train/internal.h"
#include "train/state.h"

#define FORMAT "1"

int tw_state_items(const tw_trainer *t, tw_state_item *items) {
    int64_t total = t->model->weights.saved;
    int n = 0;
    items[n++] = (tw_state_item){"weights", t->model->storage, TW_F32, total};
    items[n++] = (tw_state_item){"first_moment", t->first_moment, TW_F32, total};
    items[n++] = (tw_state_item){"second_moment", t->second_moment, TW_F32, total};
    if (t->ema) items[n++] = (tw_state_item){"ema", t->ema, TW_F32, total};
    items[n++] = (tw_state_item){"count", t->count, TW_I64, 2};
    return n;
}

/* A 64-bit FNV-1a hash of the weights' names and places: vectors of another order must not be taken
 * up. */
static uint64_t layout(const tw_weights *weights) {
    uint64_t h = UINT64_C(14695981039346656037);
    for (int64_t i = 0; i < weights->count; i++) {
        const tw_weight *w = &weights->items[i];
        for (const char *c = w->name; *c; c++) h = (h ^ (uint8_t)*c) * UINT64_C(1099511628211);
        for (int k = 0; k < 64; k += 8)
            h = (h ^ (uint8_t)(w->saved >> k)) * UINT64_C(1099511628211);
    }
    return h;
}

/* Equal as JSON, however it is written. */
static bool same_json(const char *a, const char *b) {
    json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL);
    const bool same = x && y && json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

void tw_state_options(const tw_trainer *t, char *out, size_t size) {
    const tw_trainer_options *o = &t->options;
    snprintf(out, size,
             "batch_size=%" PRId64 " accumulate=%" PRId64 " seed=%" PRIu64
             " holdout=%.17g samples=%" PRId64 " antithetic=%d cond_dropout=%.17g flip=%.17g"
             " weight=%d ema=%d layout=%016" PRIx64,
             o->batch_size, o->accumulate, o->seed, o->holdout, t->data.count, o->antithetic != 0,
             o->cond_dropout, o->flip, (int)o->weight, t->ema != NULL, layout(&t->model->weights));
}

static tw_status state_path(tw_context *ctx, const char *directory, char *out, size_t size) {
    int n = snprintf(out, size, "%s/trainer.safetensors", directory);
    if (n < 0 || (size_t)n >= size)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "trainer: the path \"%.64s...\" is too long",
                       directory);
    return TW_OK;
}

tw_status tw_state_write(tw_context *ctx, const char *directory, const tw_state_item *items, int n,
                         const tw_state_labels *labels, tw_safetensors_fetch fetch, void *user) {
    char path[4096], step[32];
    TW_TRY(state_path(ctx, directory, path, sizeof path));
    TW_TRY(tw_directory_make(ctx, directory));
    tw_safetensors_item out[TW_STATE_ITEMS];
    memset(out, 0, sizeof out);
    for (int i = 0; i < n; i++) {
        out[i].name = items[i].name;
        out[i].dtype = items[i].dtype;
        out[i].rank = 1;
        out[i].shape[0] = items[i].count;
        out[i].data = items[i].address;
    }
    snprintf(step, sizeof step, "%" PRId64, labels->step);
    const tw_safetensors_pair metadata[] = {{"format", FORMAT},
                                            {"step", step},
                                            {"options", labels->options},
                                            {"model", labels->model},
                                            {"scheduler", labels->scheduler}};
    return tw_safetensors_write(ctx, path, out, n, metadata, 5, fetch, user);
}

/* Whether the vectors have another order in memory. */
static bool are_moved(const tw_weights *weights) {
    for (int64_t i = 0; i < weights->count; i++)
        if (weights->items[i].offset != weights->items[i].saved) return true;
    return false;
}

static bool is_moved(const tw_weights *weights, const tw_state_item *item) {
    return item->dtype == TW_F32 && are_moved(weights);
}

size_t tw_state_save_bytes(const tw_trainer *t) {
    const tw_weights *weights = &t->model->weights;
    tw_state_item items[TW_STATE_ITEMS];
    size_t sum = are_moved(weights) ? (size_t)weights->total * sizeof(float) : 0;
    for (int i = tw_state_items(t, items) - 1; i >= 0; i--) sum += tw_state_bytes(&items[i]);
    return sum;
}

tw_status tw_state_read(const tw_trainer *t, const tw_state_item *item, void *out) {
    tw_backend *b = t->ctx->backend;
    const tw_weights *weights = &t->model->weights;
    if (!is_moved(weights, item)) return b->download(b, out, item->address, tw_state_bytes(item));
    const size_t count = (size_t)weights->total;
    float *flat = tw_allocate(t->ctx, count, sizeof *flat);
    if (!flat) return TW_ERROR_MEMORY;
    const tw_status s = b->download(b, flat, item->address, count * sizeof *flat);
    if (s == TW_OK) tw_weights_to_state(weights, flat, out);
    tw_free(t->ctx, flat);
    return s;
}

static tw_status take_up(const tw_trainer *t, const tw_state_item *item, const void *data) {
    tw_backend *b = t->ctx->backend;
    const tw_weights *weights = &t->model->weights;
    if (!is_moved(weights, item)) return b->upload(b, item->address, data, tw_state_bytes(item));
    const size_t count = (size_t)weights->total;
    float *flat = tw_allocate(t->ctx, count, sizeof *flat);
    if (!flat) return TW_ERROR_MEMORY;
    tw_weights_from_state(weights, data, flat);
    const tw_status s = b->upload(b, item->address, flat, count * sizeof *flat);
    tw_free(t->ctx, flat);
    return s;
}

typedef struct tw_fetch {
    const tw_trainer *trainer;
    const tw_state_item *items;
} tw_fetch;

static tw_status fetch(void *user, int64_t index, void *out) {
    const tw_fetch *f = user;
    return tw_state_read(f->trainer, &f->items[index], out);
}

tw_status tw_trainer_save(tw_trainer *t, const char *directory) {
    if (!t || !directory)
        return tw_fail(t ? t->ctx : NULL, TW_ERROR_ARGUMENT, "trainer: save: a null pointer");
    char options[TW_STATE_OPTIONS];
    tw_state_item items[TW_STATE_ITEMS];
    const int n = tw_state_items(t, items);
    tw_state_options(t, options, sizeof options);
    const tw_state_labels labels = {t->step, options, tw_model_config(t->model),
                                    tw_model_scheduler_config(t->model)};
    tw_fetch f = {t, items};
    return tw_state_write(t->ctx, directory, items, n, &labels, fetch, &f);
}

static tw_status check_metadata(tw_trainer *t, const tw_safetensors *st, const char *path,
                                int64_t *step) {
    char options[TW_STATE_OPTIONS];
    tw_state_options(t, options, sizeof options);
    const char *text = tw_safetensors_metadata(st, "format");
    if (!text || strcmp(text, FORMAT) != 0)
        return tw_fail(t->ctx, TW_ERROR_FORMAT, "%s: it is no training state of format " FORMAT,
                       path);
    text = tw_safetensors_metadata(st, "options");
    if (!text || strcmp(text, options) != 0)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "%s: the state was saved with other options: \"%s\", now \"%s\"", path,
                       text ? text : "", options);
    const char *keys[] = {"model", "scheduler"};
    const char *wanted[] = {tw_model_config(t->model), tw_model_scheduler_config(t->model)};
    for (int i = 0; i < 2; i++) {
        text = tw_safetensors_metadata(st, keys[i]);
        if (!text || !same_json(text, wanted[i]))
            return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                           "%s: the state was saved with another %s configuration", path, keys[i]);
    }
    text = tw_safetensors_metadata(st, "step");
    char *end = NULL;
    long long value = text ? strtoll(text, &end, 10) : -1;
    if (!text || end == text || *end || value < 0)
        return tw_fail(t->ctx, TW_ERROR_FORMAT, "%s: step: expected a whole number", path);
    if (value > t->options.steps)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT,
                       "%s: it stands at step %lld, beyond the %lld that are wanted", path, value,
                       (long long)t->options.steps);
    *step = value;
    return TW_OK;
}

static tw_status load_items(tw_trainer *t, const tw_safetensors *st, const char *path) {
    tw_state_item items[TW_STATE_ITEMS];
    int n = tw_state_items(t, items);
    const tw_safetensors_entry *found[TW_STATE_ITEMS];
    /* All are checked before the first is taken up: a bad file changes nothing. */
    for (int i = 0; i < n; i++) {
        found[i] = tw_safetensors_find(st, items[i].name);
        if (!found[i] || !found[i]->known || found[i]->dtype != items[i].dtype ||
            found[i]->count != items[i].count)
            return tw_fail(t->ctx, TW_ERROR_FORMAT, "%s: %s: expected %lld numbers of %s", path,
                           items[i].name, (long long)items[i].count, tw_dtype_name(items[i].dtype));
    }
    t->model->version++;
    for (int i = 0; i < n; i++) TW_TRY(take_up(t, &items[i], found[i]->data));
    return TW_OK;
}

tw_status tw_trainer_resume(tw_trainer *t, const char *directory) {
    if (!t || !directory)
        return tw_fail(t ? t->ctx : NULL, TW_ERROR_ARGUMENT, "trainer: resume: a null pointer");
    char path[4096];
    tw_safetensors *st = NULL;
    int64_t step = 0;
    TW_TRY(state_path(t->ctx, directory, path, sizeof path));
    TW_TRY(tw_safetensors_open(t->ctx, path, &st));
    tw_status s = check_metadata(t, st, path, &step);
    if (s == TW_OK) s = load_items(t, st, path);
    tw_safetensors_close(st);
    if (s != TW_OK) return s;
    /* The rest follows from the step: the batches and the noise are addressed by number. */
    t->step = step;
    t->metrics.count = 0;
    return tw_trainer_rewind(t);
}
