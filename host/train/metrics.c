/* What steps measured, read without stopping the device: each update is followed by a copy into a
 * ring of the host's, and a mark behind it. */
#include "core/options.h"
#include "train/internal.h"

tw_status tw_trainer_metrics_make(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    tw_metrics_ring *r = &t->metrics;
    void *memory = NULL;
    if (b->pin)
        TW_TRY(b->pin(b, TW_METRICS_KEPT * sizeof *r->measured, &memory));
    else if (!(memory = tw_allocate(t->ctx, TW_METRICS_KEPT, sizeof *r->measured)))
        return TW_ERROR_MEMORY;
    r->measured = memory;
    for (int i = 0; b->mark && i < TW_METRICS_KEPT; i++) TW_TRY(b->mark(b, &r->marks[i]));
    return TW_OK;
}

void tw_trainer_metrics_free(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    tw_metrics_ring *r = &t->metrics;
    if (!r->measured) return;
    (void)b->synchronize(b); /* copies into it may be under way */
    for (int i = 0; b->unmark && i < TW_METRICS_KEPT; i++) b->unmark(b, r->marks[i]);
    if (b->unpin)
        b->unpin(b, r->measured);
    else
        tw_free(t->ctx, r->measured);
}

tw_status tw_trainer_metrics_queue(tw_trainer *t, double lr) {
    tw_backend *b = t->ctx->backend;
    tw_metrics_ring *r = &t->metrics;
    if (r->count == TW_METRICS_KEPT) { /* a copy that is under way comes before the new one */
        r->first++;
        r->count--;
    }
    const int64_t i = (r->first + r->count) % TW_METRICS_KEPT;
    TW_TRY((b->send ? b->send : b->download)(b, &r->measured[i], t->count, sizeof *r->measured));
    if (b->mark) TW_TRY(b->mark(b, &r->marks[i]));
    r->steps[i] = t->step;
    r->lr[i] = lr;
    r->count++;
    return TW_OK;
}

/* Those of slot i, or step 0 where they are not there and not waited for. */
static tw_status read(tw_trainer *t, int64_t i, bool wait, tw_train_metrics *out) {
    tw_backend *b = t->ctx->backend;
    const tw_metrics_ring *r = &t->metrics;
    bool there = true;
    if (r->marks[i]) TW_TRY(b->reached(b, r->marks[i], wait, &there));
    if (!there) return TW_OK;
    const tw_measured *m = &r->measured[i];
    out->step = r->steps[i];
    out->lr = r->lr[i];
    out->loss = m->loss[0];
    out->grad_norm = m->norm[0];
    out->skipped = m->count[1];
    return TW_OK;
}

tw_status tw_trainer_metrics_newest(tw_trainer *t, tw_train_metrics *out) {
    tw_metrics_ring *r = &t->metrics;
    tw_train_metrics m = {.size = sizeof m};
    r->count--;
    TW_TRY(read(t, (r->first + r->count) % TW_METRICS_KEPT, true, &m));
    return tw_options_write(t->ctx, "train metrics", out, &m, sizeof m);
}

tw_status tw_trainer_metrics(tw_trainer *t, int wait, tw_train_metrics *out) {
    if (!t) return tw_fail(NULL, TW_ERROR_ARGUMENT, "trainer: metrics: no trainer");
    tw_metrics_ring *r = &t->metrics;
    tw_train_metrics m = {.size = sizeof m};
    if (r->count) TW_TRY(read(t, r->first % TW_METRICS_KEPT, wait != 0, &m));
    TW_TRY(tw_options_write(t->ctx, "train metrics", out, &m, sizeof m));
    if (!m.step) return TW_OK;
    r->first++;
    r->count--;
    return TW_OK;
}
