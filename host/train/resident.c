/* Small data sets on the device: the pictures' bytes are uploaded once, and a kernel makes a batch
 * of them by number. They come after everything else that training takes. */
#include "data/dataset.h"
#include "train/internal.h"

static size_t bytes_of(const tw_dataset *d) {
    return (size_t)d->count * (size_t)d->elements;
}

size_t tw_dataset_resident_bytes(const tw_dataset *d, int64_t limit, size_t available) {
    if (!d->bytes || d->values || d->rank != 3 || limit < 0) return 0;
    return bytes_of(d) <= (uint64_t)limit && bytes_of(d) <= available / 4 ? bytes_of(d) : 0;
}

size_t tw_trainer_resident_bytes(const tw_trainer *t) {
    return t->pictures ? bytes_of(t->dataset) : 0;
}

static bool may_be_resident(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    size_t total = 0, available = SIZE_MAX;
    if (!b->gather || (b->memory && b->memory(b, &total, &available) != TW_OK)) return false;
    return tw_dataset_resident_bytes(t->dataset, t->options.resident_limit, available) > 0;
}

tw_status tw_trainer_make_resident(tw_trainer *t) {
    tw_backend *b = t->ctx->backend;
    const size_t bytes = bytes_of(t->dataset);
    if (!may_be_resident(t)) return TW_OK;
    tw_status s = b->allocate(b, (size_t)t->options.batch_size * sizeof(int64_t), &t->index);
    if (s == TW_OK) s = b->allocate(b, bytes, &t->pictures);
    if (s == TW_ERROR_MEMORY) { /* then they are fed */
        b->release(b, t->index);
        t->index = NULL;
        return TW_OK;
    }
    return s == TW_OK ? b->upload(b, t->pictures, t->dataset->bytes, bytes) : s;
}

tw_status tw_trainer_feed_resident(tw_trainer *t, tw_loader *loader, tw_loss_plan *p) {
    tw_backend *b = t->ctx->backend;
    const tw_dataset *d = t->dataset;
    const int64_t *index;
    const int32_t *labels;
    const int64_t batch = t->options.batch_size;
    const tw_pictures_on_device pictures = {
        t->pictures, d->count, {d->shape[0], d->shape[1], d->shape[2]}, t->index, batch};
    TW_TRY(tw_loader_next_indices(loader, &index, &labels));
    TW_TRY(b->upload(b, t->index, index, (size_t)batch * sizeof *index));
    TW_TRY(b->gather(b, &pictures, tw_plan_address(p->plan, p->x)));
    if (p->labels == TW_NONE) return TW_OK;
    return tw_plan_write(p->plan, p->labels, labels, (size_t)batch * sizeof *labels);
}
