/* Batches of a data set, prepared by one background thread while the last one is used.
 *
 * Which sample stands at which place depends on (seed, counter) only: the training part is permuted
 * anew in every epoch by Philox (TW_PURPOSE_SHUFFLE, step = epoch), batches may straddle epochs, and
 * counter c is place c % count of epoch c / count. The held-out part is chosen by TW_PURPOSE_SPLIT
 * and comes in order; its last batch is filled up with repetitions of its last sample. */
#ifndef TW_DATA_LOADER_H
#define TW_DATA_LOADER_H

#include <stdbool.h>

#include <tweedie/dataset.h>

#include "core/context.h"

typedef struct tw_loader tw_loader;

typedef struct tw_loader_options {
    int64_t batch_size;
    uint64_t seed;
    double holdout;  /* part kept for validation, 0 .. 0.5 */
    bool validation; /* load the held-out part instead of the rest */
} tw_loader_options;

/* The data set must outlive the loader. TW_ERROR_ARGUMENT when a part would be empty. */
tw_status tw_loader_create(tw_context *ctx, const tw_dataset *dataset,
                           const tw_loader_options *options, tw_loader **out);
void tw_loader_free(tw_loader *loader);

/* The next batch: x[batch, shape], labels[batch] (-1 where the set has none), valid until the next
 * call. *size gets the number of samples that are no filling (always the batch size in training). */
tw_status tw_loader_next(tw_loader *loader, const float **x, const int32_t **labels,
                         int64_t *size);
/* Goes on at this sample counter (0: from the start). */
tw_status tw_loader_seek(tw_loader *loader, int64_t counter);
/* Samples of the part that it loads. */
int64_t tw_loader_count(const tw_loader *loader);
/* Host bytes that its batches take. */
size_t tw_loader_bytes(const tw_loader *loader);

#endif
