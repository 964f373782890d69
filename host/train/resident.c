/* Small data sets on the device: the samples are uploaded once, and a kernel makes a batch of them
 * by number. They come after everything else that training takes. */
#include "data/dataset.h"
#include "train/internal.h"

size_t tw_dataset_resident_bytes(const tw_dataset *d, int64_t limit, size_t available) {
    const size_t bytes = tw_dataset_held_bytes(d);
    if (limit < 0 || (d->values && d->count > INT32_MAX)) return 0; /* for the kernel's numbers */
    return bytes <= (uint64_t)limit && bytes <= available / 4 ? bytes : 0;
}

size_t tw_trainer_resident_bytes(const tw_trainer *t) {
    return t->resident.samples ? tw_dataset_held_bytes(t->dataset) : 0;
}

static bool may_be_resident(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    size_t total = 0, available = SIZE_MAX;
    if (!b->gather || (b->memory && b->memory(b, &total, &available) != TW_OK)) return false;
    return tw_dataset_resident_bytes(t->dataset, t->options.resident_limit, available) > 0;
}

tw_status tw_trainer_make_resident(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    tw_resident *r = &t->resident;
    const tw_dataset *d = t->dataset;
    const size_t bytes = tw_dataset_held_bytes(d), batch = (size_t)t->options.batch_size;
    if (!may_be_resident(t)) return TW_OK;
    if (d->values && !(r->narrow = tw_allocate(t->ctx, batch, sizeof *r->narrow)))
        return TW_ERROR_MEMORY;
    tw_status s = b->allocate(b, batch * sizeof(int64_t), &r->index);
    if (s == TW_OK) s = b->allocate(b, bytes, &r->samples);
    if (s == TW_ERROR_MEMORY) {
        tw_log(t->ctx, TW_LOG_WARNING, "the data set is read from the host's memory: %s",
               tw_context_error(t->ctx));
        tw_trainer_free_resident(t);
        return TW_OK;
    }
    const void *samples = d->values ? (const void *)d->values : d->bytes;
    return s == TW_OK ? b->upload(b, r->samples, samples, bytes) : s;
}

void tw_trainer_free_resident(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    b->release(b, t->resident.samples);
    b->release(b, t->resident.index);
    tw_free(t->ctx, t->resident.narrow);
    t->resident = (tw_resident){0};
}

static tw_status upload_index(tw_trainer *t, const int64_t *index) {
    tw_backend *b = t->ctx->backend;
    const tw_resident *r = &t->resident;
    const size_t batch = (size_t)t->options.batch_size;
    if (!r->narrow) return b->upload(b, r->index, index, batch * sizeof *index);
    for (size_t i = 0; i < batch; i++) r->narrow[i] = (int32_t)index[i];
    return b->upload(b, r->index, r->narrow, batch * sizeof *r->narrow);
}

tw_status tw_trainer_feed_resident(tw_trainer *t, tw_loader *loader, tw_loss_plan *p) {
    tw_backend *b = t->ctx->backend;
    const tw_dataset *d = t->dataset;
    const int64_t *index;
    const int32_t *labels;
    const int64_t batch = t->options.batch_size;
    const tw_samples_on_device samples = {.are_bytes = !d->values,
                                          .samples = t->resident.samples,
                                          .count = d->count,
                                          .elements = d->elements,
                                          .index = t->resident.index,
                                          .batch = batch};
    TW_TRY(tw_loader_next_indices(loader, &index, &labels));
    TW_TRY(upload_index(t, index));
    TW_TRY(b->gather(b, &samples, tw_plan_address(p->plan, p->x)));
    if (p->labels == TW_NONE) return TW_OK;
    return tw_plan_write(p->plan, p->labels, labels, (size_t)batch * sizeof *labels);
}
