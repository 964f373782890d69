/* The inside of a sampler: checked options, the table of coefficients on the device, and the plans
 * of the batch sizes that it has met. */
#ifndef TW_DIFFUSION_SAMPLER_H
#define TW_DIFFUSION_SAMPLER_H

#include <stdbool.h>

#include <tweedie/plan.h>
#include <tweedie/sampler.h>

#include "backend/op.h"
#include "graph/budget.h"
#include "models/rounded.h"

/* The plans and buffers of one batch size. All buffers are the device's. */
typedef struct tw_sampler_chunk {
    int64_t n;
    uint64_t last_used;
    size_t bytes;    /* of the device, everything below */
    void *x;         /* float32[n, shape]: the state */
    void *rng;       /* int64[4] */
    tw_plan *start;  /* x from the noise that rng names */
    tw_plan *step;   /* one step of x and rng */
    tw_value x0;     /* of `step`, TW_NONE unless wanted */
    tw_value labels; /* int32[n], or [2n] under guidance; TW_NONE for a model without classes */
    int32_t *host_labels;    /* [2n]: the caller's, then the null label */
    float *host_x, *host_x0; /* for the hook; null unless wanted */
    /* With a callback: its time, and its answers. */
    tw_plan *time; /* t from the step's row */
    void *t, *m, *m_uncond;
} tw_sampler_chunk;

/* Those of a run: full chunks and the rest. */
#define TW_SAMPLER_CHUNKS 2

struct tw_sampler {
    tw_context *ctx;
    tw_model *model; /* held; null with a callback */
    tw_denoiser denoiser;
    tw_sampler_options options; /* clipping resolved; `timesteps` is ours */
    tw_prediction prediction;
    int rank;
    int64_t shape[3];
    int64_t elements;     /* of one sample */
    int64_t out_channels; /* of the denoiser's last axis */
    int64_t classes;      /* of the model */
    int32_t null_label;
    bool guided, learned; /* learned: the update reads a variance from the second half */
    tw_op_attr update;
    int64_t *timesteps, steps;
    void *table;        /* float32[steps, TW_COEF_WIDTH] on the device */
    tw_rounded rounded; /* the model's weights, refreshed by every run */
    uint64_t clock;
    tw_sampler_chunk *chunks[TW_SAMPLER_CHUNKS];
};

/* What a run draws, or a part of it. */
typedef struct tw_draw {
    int64_t first, count;
    const int32_t *labels;
    const float *noise;
    float *out;
    bool device_noise, device_out; /* where these lie */
    bool later;                    /* `out` may be written after the call */
} tw_draw;

/* Draws what was checked, in chunks. */
tw_status tw_sampler_draw(tw_sampler *sampler, const tw_draw *all);
/* Whether n samples with these labels can be drawn. */
tw_status tw_sampler_check(const tw_sampler *sampler, int64_t n, const int32_t *labels);

/* The chunk for n samples, made or found; the least recently used one makes room. */
tw_status tw_sampler_chunk_get(tw_sampler *sampler, int64_t n, tw_sampler_chunk **out);
/* What a batch of n takes beside the weights. */
tw_status tw_sampler_batch_budget(tw_sampler *sampler, int64_t n, tw_plan_budget *out);
void tw_sampler_chunk_free(tw_sampler *sampler, tw_sampler_chunk *chunk);

#endif
