<<<<<<< HEAD
/* Batches of a data set, prepared by a thread while the previous ones are used.
 *
 * The training part is an endless stream of samples: epoch after epoch, each in an order of its own
 * that is drawn from (seed, epoch). A batch is a piece of that stream and may straddle epochs; what
 * it holds depends on nothing but the seed, the split and the stream's position, so that a run that
 * resumes at a position sees what an unbroken run would. The validation part comes in the order of
 * the data set, over and over. */
=======
/* Batches of a data set, prepared by one background thread while the last one is used.
 *
 * Which sample stands at which place depends on (seed, counter) only: the training part is permuted
 * anew in every epoch by Philox (TW_PURPOSE_SHUFFLE, step = epoch), batches may straddle epochs, and
 * counter c is place c % count of epoch c / count. The held-out part is chosen by TW_PURPOSE_SPLIT
 * and comes in order; its last batch is filled up with repetitions of its last sample. */
>>>>>>> d069a04 (Train models: micro-steps, AdamW with EMA, validation, resumable state)
#ifndef TW_DATA_LOADER_H
#define TW_DATA_LOADER_H

#include <stdbool.h>

<<<<<<< HEAD
#include "data/dataset.h"
=======
#include <tweedie/dataset.h>

#include "core/context.h"
>>>>>>> d069a04 (Train models: micro-steps, AdamW with EMA, validation, resumable state)

typedef struct tw_loader tw_loader;

typedef struct tw_loader_options {
<<<<<<< HEAD
    int64_t batch;   /* samples, at least 1 */
    uint64_t seed;   /* of the order, the split and the flips */
    double holdout;  /* part of the data kept for validation, 0 to 0.5 */
    bool validation; /* the validation part; the training part otherwise */
    double flip;     /* probability of mirroring a picture left to right (training part only) */
} tw_loader_options;

/* The data set must outlive the loader. A holdout above 0 keeps at least one sample in each part;
 * the validation part of a holdout of 0 is refused. */
tw_status tw_loader_create(tw_context *ctx, const tw_dataset *dataset,
                           const tw_loader_options *options, tw_loader **out);
/* Waits for the thread; null is allowed. */
void tw_loader_free(tw_loader *loader);

/* The next batch: x[batch, shape], labels[batch] (-1 without labels), valid until the next call on
 * this loader. Both may be null. A sample that could not be read fails here, and goes on failing
 * until a seek. */
tw_status tw_loader_next(tw_loader *loader, const float **x, const int32_t **labels);

/* The position, in samples, of the batch that next returns. */
int64_t tw_loader_position(const tw_loader *loader);
tw_status tw_loader_seek(tw_loader *loader, int64_t position);

/* Samples of this part. */
int64_t tw_loader_size(const tw_loader *loader);
=======
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
>>>>>>> d069a04 (Train models: micro-steps, AdamW with EMA, validation, resumable state)

#endif
