/* A copy of a trainer's state, which another thread may write. It has a context of its own without
 * a device: the text of a failure there is nobody else's. */
#include <stdio.h>
#include <string.h>

#include "models/save.h"
#include "models/weights.h"
#include "train/state.h"

struct tw_snapshot {
    tw_context ctx; /* an allocator and an error's text */
    int64_t step;
    char kind[32];
    char *model, *scheduler; /* JSON texts */
    char options[TW_STATE_OPTIONS];
    tw_weights weights;
    int count;
    tw_state_item items[TW_STATE_ITEMS]; /* in the host's memory */
};

static tw_status copy_items(tw_snapshot *s, const tw_trainer *t) {
    tw_state_item from[TW_STATE_ITEMS];
    const int n = tw_state_items(t, from);
    for (int i = 0; i < n; i++) {
        s->items[i] = from[i];
        s->items[i].address =
            tw_allocate(t->ctx, (size_t)from[i].count, tw_dtype_size(from[i].dtype));
        s->count = i + 1; /* what is allocated is freed */
        if (!s->items[i].address) return TW_ERROR_MEMORY;
        TW_TRY(tw_state_read(t, &from[i], s->items[i].address));
    }
    return TW_OK;
}

/* Names, shapes and places, without which the flat vectors are no model. */
static tw_status copy_weights(tw_snapshot *s, const tw_trainer *t) {
    const tw_weights *from = &t->model->weights;
    for (int64_t i = 0; i < from->count; i++)
        TW_TRY(tw_weights_add(t->ctx, &s->weights, &from->items[i]));
    return TW_OK;
}

static tw_status fill(tw_snapshot *s, const tw_trainer *t) {
    s->ctx.allocator = t->ctx->allocator;
    s->step = t->step;
    snprintf(s->kind, sizeof s->kind, "%s", t->model->info.kind);
    tw_state_options(t, s->options, sizeof s->options);
    s->model = tw_strdup(t->ctx, tw_model_config(t->model));
    s->scheduler = tw_strdup(t->ctx, tw_model_scheduler_config(t->model));
    if (!s->model || !s->scheduler) return TW_ERROR_MEMORY;
    TW_TRY(copy_weights(s, t));
    return copy_items(s, t);
}

tw_status tw_trainer_snapshot(tw_trainer *t, tw_snapshot **out) {
    if (out) *out = NULL;
    if (!t || !out)
        return tw_fail(t ? t->ctx : NULL, TW_ERROR_ARGUMENT, "trainer: snapshot: a null pointer");
    tw_snapshot *s = tw_allocate(t->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    const tw_status status = fill(s, t);
    if (status == TW_OK)
        *out = s;
    else
        tw_snapshot_free(s);
    return status;
}

void tw_snapshot_free(tw_snapshot *s) {
    if (!s) return;
    for (int i = 0; i < s->count; i++) tw_free(&s->ctx, s->items[i].address);
    tw_weights_free(&s->ctx, &s->weights);
    tw_free(&s->ctx, s->model);
    tw_free(&s->ctx, s->scheduler);
    const tw_allocator a = s->ctx.allocator;
    a.release(a.user, s);
}

int64_t tw_snapshot_step(const tw_snapshot *s) {
    return s ? s->step : 0;
}

/* The failure's text where the calling thread finds it. */
static tw_status report(const tw_context *ctx, tw_status status) {
    return status == TW_OK ? TW_OK : tw_fail(NULL, status, "%s", ctx->error);
}

tw_status tw_snapshot_save_state(const tw_snapshot *s, const char *directory) {
    if (!s || !directory || !*directory)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "snapshot: save: no snapshot or no directory");
    tw_context ctx = s->ctx;
    const tw_state_labels labels = {s->step, s->options, s->model, s->scheduler};
    return report(&ctx, tw_state_write(&ctx, directory, s->items, s->count, &labels, NULL, NULL));
}

typedef struct tw_snapshot_weights {
    const tw_snapshot *snapshot;
    const float *values;
} tw_snapshot_weights;

static tw_status fetch(void *user, int64_t index, void *out) {
    const tw_snapshot_weights *f = user;
    const tw_weight *w = &f->snapshot->weights.items[index];
    tw_weight_to_file(w, f->values + w->saved, out);
    return TW_OK;
}

tw_status tw_snapshot_save_model(const tw_snapshot *s, int ema, const char *directory) {
    if (!s) return tw_fail(NULL, TW_ERROR_ARGUMENT, "snapshot: save: no snapshot");
    const char *wanted = ema ? "ema" : "weights";
    tw_snapshot_weights values = {s, NULL};
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->items[i].name, wanted) == 0) values.values = s->items[i].address;
    if (!values.values) return tw_fail(NULL, TW_ERROR_ARGUMENT, "snapshot: save: there is no EMA");
    tw_context ctx = s->ctx;
    const tw_model_files files = {.ctx = &ctx,
                                  .kind = s->kind,
                                  .config = s->model,
                                  .scheduler_config = s->scheduler,
                                  .weights = &s->weights,
                                  .fetch = fetch,
                                  .user = &values};
    return report(&ctx, tw_model_files_write(&files, directory));
}
