/* Training a model on a data set. */
#ifndef TWEEDIE_TRAINER_H
#define TWEEDIE_TRAINER_H

#include "dataset.h"
#include "model.h"
#include "plan.h"

TW_BEGIN_DECLS

typedef struct tw_trainer tw_trainer;

typedef enum tw_lr_schedule {
    TW_LR_CONSTANT = 0,
    TW_LR_COSINE = 1,
    TW_LR_LINEAR = 2
} tw_lr_schedule;

/* How a time step's loss is weighted, on the epsilon loss (Hang et al. 2023 for MIN_SNR). */
typedef enum tw_loss_weight { TW_WEIGHT_SIMPLE = 0, TW_WEIGHT_MIN_SNR = 1 } tw_loss_weight;

typedef struct tw_trainer_options {
    size_t size;
    int64_t steps;      /* optimizer steps of the whole run */
    int64_t batch_size; /* samples of one micro-step */
    int64_t accumulate; /* micro-steps of one optimizer step */
    double lr;
    tw_lr_schedule lr_schedule; /* after the warm-up, to 0 at `steps` unless constant */
    int64_t lr_warmup;          /* steps of linear warm-up */
    double beta1, beta2, eps, weight_decay;
    double clip_norm; /* 0: none */
    double ema_decay; /* 0: no EMA */
    int ema_warmup; /* nonzero: decay = min(ema_decay, (1 + k) / (10 + k)) at update k = 0, 1 ... */
    int antithetic; /* nonzero: pairs t, T-1-t */
    double cond_dropout; /* probability of the null label */
    double flip;         /* probability of mirroring */
    double holdout;      /* part of the data kept for validation, 0..0.5 */
    tw_loss_weight weight;
    double snr_gamma;
    uint64_t seed;
    tw_recompute recompute;
    tw_precision precision;
    /* A GPU keeps a data set that is in the host's memory, pictures as bytes and numbers as
     * float32, where these are at most so many bytes and at most a quarter of the memory that is
     * free: then only the samples' places travel. The batches are the same to the bit. */
    int64_t resident_limit;
} tw_trainer_options;

#define TW_TRAINER_OPTIONS_INIT                                                                    \
    {                                                                                              \
        sizeof(tw_trainer_options), 1000, 64, 1, 1e-3, TW_LR_CONSTANT, 100, 0.9, 0.999, 1e-8, 0.0, \
            1.0, 0.999, 1, 0, 0.0, 0.0, 0.0, TW_WEIGHT_SIMPLE, 5.0, 0, TW_RECOMPUTE_NONE,          \
            TW_PRECISION_F32, (int64_t)1 << 29                                                     \
    }

/* A trainer of `model`'s weights. It holds the model; the data set must outlive it. A model with
 * classes needs a labelled set; with cond_dropout its last label is the null label. */
TW_API tw_status tw_trainer_create(tw_model *model, const tw_dataset *dataset,
                                   const tw_trainer_options *options, tw_trainer **out);
TW_API void tw_trainer_free(tw_trainer *trainer);

typedef struct tw_train_metrics {
    size_t size;
    int64_t step;     /* optimizer steps done */
    double loss;      /* of the last step */
    double grad_norm; /* before clipping */
    double lr;
    int64_t skipped; /* steps so far whose loss or gradient was not finite: they changed nothing */
} tw_train_metrics;

/* One optimizer step. TW_ERROR_ARGUMENT after the last step. With `out` it is waited for; with null
 * a GPU's step is queued only, and its metrics are there for the call below. */
TW_API tw_status tw_trainer_step(tw_trainer *trainer, tw_train_metrics *out);

/* Metrics of steps that were made without asking for them, in their order: those of the oldest one,
 * which are then forgotten. out->step is 0 where there is none, or, unless `wait` is nonzero, where
 * that step is not done yet. No step waits for them to be asked for: more than TW_METRICS_KEPT, and
 * the oldest are lost. */
#define TW_METRICS_KEPT 8
TW_API tw_status tw_trainer_metrics(tw_trainer *trainer, int wait, tw_train_metrics *out);
TW_API int64_t tw_trainer_step_count(const tw_trainer *trainer);

/* Mean loss over the held-out part with the same noise every time; `ema` picks the weights. At most
 * `limit` samples (0: all). TW_ERROR_ARGUMENT without a held-out part. */
TW_API tw_status tw_trainer_validate(tw_trainer *trainer, int ema, int64_t limit, double *loss);

/* The averaged weights as a model of their own (a copy at this moment; free it). */
TW_API tw_status tw_trainer_ema_model(tw_trainer *trainer, tw_model **out);

/* Writes everything that resuming needs (weights, moments, EMA, counters, random state, options)
 * into `directory`, replacing an earlier state only once the new one is complete. */
TW_API tw_status tw_trainer_save(tw_trainer *trainer, const char *directory);
/* Takes up such a state: later steps give the same numbers to the bit as an unbroken run. The
 * trainer must have been created with the same model configuration, data and options (`steps` may
 * grow; in another precision the run goes on from the same weights to other numbers). */
TW_API tw_status tw_trainer_resume(tw_trainer *trainer, const char *directory);

/* A copy of what a trainer would save at this moment, in the host's memory, so that training can go
 * on while another thread writes it. A snapshot stands alone: it needs neither the trainer nor its
 * context afterwards, only the allocator that the context was given. One thread at a time may use
 * it, which need not be the one that made it; the text of its failures is tw_context_error(NULL)'s
 * in that thread. */
typedef struct tw_snapshot tw_snapshot;
TW_API tw_status tw_trainer_snapshot(tw_trainer *trainer, tw_snapshot **out);
TW_API void tw_snapshot_free(tw_snapshot *snapshot);
TW_API int64_t tw_snapshot_step(const tw_snapshot *snapshot);
/* The files of tw_trainer_save, to the byte. */
TW_API tw_status tw_snapshot_save_state(const tw_snapshot *snapshot, const char *directory);
/* The files that tw_model_save would write of the weights, or with `ema` of the averaged ones. */
TW_API tw_status tw_snapshot_save_model(const tw_snapshot *snapshot, int ema,
                                        const char *directory);

typedef struct tw_trainer_memory {
    size_t size;
    size_t weights, gradients, optimizer, ema, arena, staging; /* bytes */
    size_t snapshot;                                           /* of one, while there is one */
    size_t rounded;  /* the weights in the network's format */
    size_t resident; /* the data set on the device */
} tw_trainer_memory;
TW_API tw_status tw_trainer_get_memory(const tw_trainer *trainer, tw_trainer_memory *out);

/* The plans that a step runs, for tw_plan_get_stats and its kin: 0 a micro-step (loss and
 * gradients), 1 the optimizer's; null past the last. They live as long as the trainer. */
TW_API const tw_plan *tw_trainer_plan(const tw_trainer *trainer, int index);

TW_END_DECLS

#endif
