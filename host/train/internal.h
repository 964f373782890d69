/* The inside of a trainer, shared by the files of train/. */
#ifndef TW_TRAIN_INTERNAL_H
#define TW_TRAIN_INTERNAL_H

#include <tweedie/trainer.h>

#include "backend/backend.h"
#include "core/context.h"
#include "data/loader.h"
#include "graph/budget.h"
#include "graph/builder.h"
#include "models/model.h"
#include "models/rounded.h"

/* Values of a plan that runs the network on a batch and takes its loss. */
typedef struct tw_loss_plan {
    tw_plan *plan;
    tw_value x, labels, rng; /* labels TW_NONE for an unconditional model */
    tw_value per_sample;     /* [B], kept */
} tw_loss_plan;

/* What a step measured, as it lies on the device and, copied, in the host's memory. The numbers are
 * apart so that each is aligned for vectors. */
typedef struct tw_measured {
    int64_t count[2]; /* updates, skipped */
    float norm[4], loss[4];
} tw_measured;

/* Metrics of the last steps, on their way or arrived; see metrics.c. */
typedef struct tw_metrics_ring {
    tw_measured *measured;        /* [TW_METRICS_KEPT], pinned where the backend can */
    void *marks[TW_METRICS_KEPT]; /* behind the copy; null where there is no way */
    int64_t steps[TW_METRICS_KEPT];
    double lr[TW_METRICS_KEPT];
    int64_t first, count; /* of those nobody has asked for; slots by their number, modulo */
} tw_metrics_ring;

/* A data set that lies on the device; see resident.c. */
typedef struct tw_resident {
    void *samples, *index; /* of the set, and of a batch, on the device; null: batches are fed */
    int32_t *narrow;       /* [batch_size], for the index of floats; null: as the loader has it */
} tw_resident;

struct tw_trainer {
    tw_context *ctx;
    tw_model *model;
    const tw_dataset *dataset;
    tw_trainer_options options;
    tw_dataset_info data;
    int64_t step; /* optimizer steps done */
    tw_loader *loader;
    tw_loader *held_out; /* null without a held-out part */

    /* Flat float32 vectors of model->weights.total elements on the device, beside the weights; the
     * optimizer works on the leading weights.trainable of them. */
    void *gradients, *first_moment, *second_moment, *ema;
    tw_resident resident;
    void *count; /* tw_measured, which begins with the counters */
    tw_metrics_ring metrics;
    void *loss;                      /* float32[1]: sum over the micro-steps of one step */
    tw_rounded rounded, rounded_ema; /* weights and ema as the network reads them; the second is
                                        made when first needed */
    int64_t version;                 /* of the model's weights that `rounded` has */

    tw_loss_plan micro; /* forward, backward, += gradients */
    tw_plan *update;    /* norm, AdamW, EMA, gradients cleared */
    tw_value hyper;
    tw_loss_plan validate[2]; /* by the weights: 0 the model's, 1 EMA; made when first needed */
};

/* Vectors and plans, of a model and options that are in place. */
tw_status tw_trainer_build(tw_trainer *trainer);
/* Bytes of one batch of samples, and of the device's memory through which batches travel. */
size_t tw_trainer_batch_bytes(const tw_trainer *trainer);
size_t tw_trainer_feed_bytes(const tw_trainer *trainer);

/* Plans; see plans.c. */
tw_status tw_trainer_build_micro(tw_trainer *trainer);
tw_status tw_trainer_build_update(tw_trainer *trainer);
tw_status tw_trainer_build_validation(tw_trainer *trainer, bool ema, tw_loss_plan *out);

/* What training takes on the device, and of the host while a save is written, in bytes. */
typedef struct tw_trainer_budget {
    size_t weights, rounded, gradients, optimizer, ema;
    tw_plan_budget plans;
    size_t snapshot;
} tw_trainer_budget;

/* That of a trainer with these options, of which none is made. */
tw_status tw_trainer_plan_budget(tw_model *model, const tw_trainer_options *options,
                                 tw_trainer_budget *out);

/* The ring of metrics; queueing those of the update that was queued last; the newest, waited for.
 */
tw_status tw_trainer_metrics_make(tw_trainer *trainer);
void tw_trainer_metrics_free(tw_trainer *trainer);
tw_status tw_trainer_metrics_queue(tw_trainer *trainer, double lr);
tw_status tw_trainer_metrics_newest(tw_trainer *trainer, tw_train_metrics *out);

/* Goes to the start of step `trainer->step`: no gradient so far, its first batch and noise next. */
tw_status tw_trainer_rewind(tw_trainer *trainer);

/* Bytes of a data set that a GPU keeps, where so many of its own are free beside all else that
 * training takes; 0: its batches are fed. */
size_t tw_dataset_resident_bytes(const tw_dataset *dataset, int64_t limit, size_t available);
/* Puts the data set on the device, if it may be there. */
tw_status tw_trainer_make_resident(tw_trainer *trainer);
void tw_trainer_free_resident(tw_trainer *trainer);
size_t tw_trainer_resident_bytes(const tw_trainer *trainer);
tw_status tw_trainer_feed_resident(tw_trainer *trainer, tw_loader *loader, tw_loss_plan *plan);

/* The next batch of `loader` into the plan's inputs. */
tw_status tw_trainer_feed(tw_trainer *trainer, tw_loader *loader, tw_loss_plan *plan);

/* After a step whose update was skipped, names in out[size] the first tensor of it that was not
 * finite. The step is done again for this; everything is then as it was. */
tw_status tw_trainer_find_not_finite(tw_trainer *trainer, char *out, size_t size);

/* The learning rate of step `step` (0 is the first). */
double tw_learning_rate(const tw_trainer_options *options, int64_t step);

/* Weight of time step with alphas_cumprod `a` on the loss of this prediction (math: SNR = a/(1-a);
 * min-SNR of Hang et al. 2023). */
double tw_loss_weight_at(const tw_trainer_options *options, tw_prediction prediction, double a);

#endif
