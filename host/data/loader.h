/* Batches of a data set, prepared by a thread while the previous ones are used.
 *
 * The training part is an endless stream of samples: epoch after epoch, each in an order of its own
 * that is drawn from (seed, epoch). A batch is a piece of that stream and may straddle epochs; what
 * it holds depends on nothing but the seed, the split and the stream's position, so that a run that
 * resumes at a position sees what an unbroken run would. The validation part comes in the order of
 * the data set, over and over. */
#ifndef TW_DATA_LOADER_H
#define TW_DATA_LOADER_H

#include <stdbool.h>

#include "data/dataset.h"

typedef struct tw_loader tw_loader;

typedef struct tw_loader_options {
    int64_t batch;   /* samples, at least 1 */
    uint64_t seed;   /* of the order and the split */
    double holdout;  /* part of the data kept for validation, 0 to 0.5 */
    bool validation; /* the validation part; the training part otherwise */
    bool indices;    /* which samples, not what is in them */
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

/* The same of a loader of indices: index[batch] into the data set. */
tw_status tw_loader_next_indices(tw_loader *loader, const int64_t **index, const int32_t **labels);

/* The position, in samples, of the batch that next returns. */
int64_t tw_loader_position(const tw_loader *loader);
tw_status tw_loader_seek(tw_loader *loader, int64_t position);

/* Samples of this part. */
int64_t tw_loader_size(const tw_loader *loader);

#endif
