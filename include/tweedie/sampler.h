/* Samplers: from noise to data with a model of ours or with the caller's own denoiser. */
#ifndef TWEEDIE_SAMPLER_H
#define TWEEDIE_SAMPLER_H

#include "model.h"

TW_BEGIN_DECLS

typedef struct tw_sampler tw_sampler;

typedef enum tw_sampler_kind {
    TW_SAMPLER_DDIM = 0, /* Song, Meng & Ermon 2020, eq. 12 */
    TW_SAMPLER_DDPM = 1  /* Ho et al. 2020, algorithm 2, on any subsequence */
} tw_sampler_kind;

typedef enum tw_variance {
    TW_VARIANCE_FIXED_SMALL = 0,
    TW_VARIANCE_FIXED_LARGE = 1,
    TW_VARIANCE_LEARNED_RANGE = 2 /* Nichol & Dhariwal 2021, eq. 15: 2C output channels */
} tw_variance;

/* `DEFAULT` takes what the model's scheduler config says. */
typedef enum tw_clipping {
    TW_CLIPPING_DEFAULT = 0,
    TW_CLIPPING_NONE = 1,
    TW_CLIPPING_RANGE = 2,  /* x0 to [-clip_range, clip_range] */
    TW_CLIPPING_DYNAMIC = 3 /* Saharia et al. 2022: per sample by quantile */
} tw_clipping;

typedef struct tw_step_info {
    size_t size;
    int64_t step, steps;  /* 0 .. steps - 1 */
    int64_t timestep;     /* t of this step */
    int64_t first, count; /* samples of this chunk */
    /* x after the step and the x0 that it predicted, [count, shape] float32 on the host. Null
     * unless the options ask for them (want_x, want_x0). Valid during the call. */
    const float *x, *x0;
} tw_step_info;

/* Called after every step. Nonzero cancels: the run returns TW_ERROR_CANCELLED. */
typedef int (*tw_step_hook)(void *user, const tw_step_info *info);

typedef struct tw_sampler_options {
    size_t size;
    tw_sampler_kind kind;
    int64_t steps;        /* S */
    double eta;           /* DDIM: 0 deterministic, 1 as DDPM with the small variance */
    tw_variance variance; /* DDPM */
    tw_spacing spacing;
    int64_t steps_offset;
    const int64_t *timesteps; /* TW_SPACING_CUSTOM: `steps` falling entries; copied */
    int set_alpha_to_one;     /* A past the last entry: 1, or A_0 if zero */
    tw_clipping clipping;
    double clip_range;
    double dynamic_ratio, dynamic_max;
    int rederive_epsilon; /* nonzero: epsilon again from the clipped x0 */
    double guidance;      /* w of m_u + w (m_c - m_u); 1: none (one evaluation) */
    uint64_t seed;
    uint64_t first_sample; /* index of sample 0 in the noise */
    int64_t max_batch;     /* samples at a time */
    int want_x, want_x0;   /* for the hook */
    tw_step_hook hook;
    void *hook_user;
    tw_precision precision; /* of the model's network; a callback always gets float32 */
} tw_sampler_options;

#define TW_SAMPLER_OPTIONS_INIT                                                                    \
    {                                                                                              \
        sizeof(tw_sampler_options), TW_SAMPLER_DDIM, 50, 0.0, TW_VARIANCE_FIXED_SMALL,             \
            TW_SPACING_LEADING, 0, 0, 1, TW_CLIPPING_DEFAULT, 1.0, 0.995, 1.0, 0, 1.0, 0, 0, 64,   \
            0, 0, 0, 0, TW_PRECISION_F32                                                           \
    }

/* A sampler over a model, which it holds. Options are copied. Step counts, the time-step list and
 * what the schedule allows are checked here. */
TW_API tw_status tw_sampler_create(tw_model *model, const tw_sampler_options *options,
                                   tw_sampler **out);

/* The caller's network: reads x[n, shape] and t[n] (float32, of the context's device) and writes
 * out[n, shape]. `labels` is what tw_sampler_run was given for these samples, or null. Work may be
 * queued on `stream`. A status other than TW_OK ends the run with that status. */
typedef tw_status (*tw_denoiser_fn)(void *user, const tw_tensor *x, const tw_tensor *t,
                                    const int32_t *labels, tw_tensor *out, tw_stream stream);

typedef struct tw_denoiser {
    size_t size;
    tw_denoiser_fn evaluate;
    void *user;
    int rank; /* of one sample, 1..3 */
    int64_t shape[3];
    tw_prediction prediction;
    int32_t null_label; /* what guidance passes as the empty condition */
} tw_denoiser;

/* A sampler over a denoiser. The schedule is copied. */
TW_API tw_status tw_sampler_create_callback(tw_context *ctx, const tw_denoiser *denoiser,
                                            const tw_schedule *schedule,
                                            const tw_sampler_options *options, tw_sampler **out);
TW_API void tw_sampler_free(tw_sampler *sampler);

/* Draws n samples into out[n, shape] (float32, host). labels[n] or null; noise[n, shape] (the
 * starting x_T) or null for our own. The noise of sample i depends on seed and first_sample + i
 * only. After a failure or a cancellation `out` holds the chunks that were finished. */
TW_API tw_status tw_sampler_run(tw_sampler *sampler, int64_t n, const int32_t *labels,
                                const float *noise, float *out);

/* --- Without waiting --- */

typedef struct tw_sampling_request {
    size_t size;
    int64_t n;
    const int32_t *labels; /* as tw_sampler_run's; copied */
    /* x_T, or null for our own; and the place for the samples. Both dense float32[n, shape], on the
     * host or on the context's GPU, and there until the run is done. Where `out` is the host's, it
     * has to be pinned for the call not to wait; noise of the host's is copied by the call. */
    const tw_tensor *noise, *out;
    /* cudaEvent_t or null; null on the CPU. `after`: recorded, and the run begins after it (when
     * noise and out are ready on another stream than tw_context_stream's). `done`: recorded when
     * all samples are in `out`. */
    void *after, *done;
} tw_sampling_request;

#define TW_SAMPLING_REQUEST_INIT                                                                   \
    { sizeof(tw_sampling_request), 0, 0, 0, 0, 0, 0 }

/* A run under way. */
typedef struct tw_sampling tw_sampling;

/* Draws samples as tw_sampler_run does, to the same bits, but returns when all is queued on the
 * context's stream: only making plans for a batch size that is new may wait. Further calls on the
 * context may follow at once, and are ordered after it; the sampler may go. A hook cannot be called
 * and is refused; a denoiser of the caller's is asked during the call. On the CPU all is done when
 * the call returns. `*out` (which may be null, for those who wait for `done`) is the run, to be
 * freed. When the call fails, nothing is under way and `done` is not recorded. */
TW_API tw_status tw_sampler_start(tw_sampler *sampler, const tw_sampling_request *request,
                                  tw_sampling **out);
/* Whether the run is done (*done becomes 0 or 1), without waiting; and waiting for it. What went
 * wrong on the device is said by either. */
TW_API tw_status tw_sampling_query(tw_sampling *sampling, int *done);
TW_API tw_status tw_sampling_wait(tw_sampling *sampling);
/* Does not wait: the run goes on. Before the context is freed. */
TW_API void tw_sampling_free(tw_sampling *sampling);

/* Device bytes that a run of n samples takes beside the weights. */
TW_API tw_status tw_sampler_memory(tw_sampler *sampler, int64_t n, size_t *bytes);
/* The time-step list, falling; *count entries that live as long as the sampler. */
TW_API const int64_t *tw_sampler_timesteps(const tw_sampler *sampler, int64_t *count);

TW_END_DECLS

#endif
