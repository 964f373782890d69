/* Noise schedules and time-step lists. */
#ifndef TWEEDIE_SCHEDULE_H
#define TWEEDIE_SCHEDULE_H

#include "tensor.h"

TW_BEGIN_DECLS

typedef struct tw_schedule tw_schedule;

typedef enum tw_beta_schedule {
    TW_BETA_LINEAR = 0,        /* Ho et al. 2020 */
    TW_BETA_SCALED_LINEAR = 1, /* linear in sqrt(beta), Rombach et al. 2022 */
    TW_BETA_SIGMOID = 2,       /* sigmoid(linspace(-6, 6)) between the ends */
    TW_BETA_COSINE = 3,        /* Nichol & Dhariwal 2021, eq. 17 */
    TW_BETA_CUSTOM = 4         /* given */
} tw_beta_schedule;

/* What the network predicts. */
typedef enum tw_prediction {
    TW_PREDICT_EPSILON = 0,
    TW_PREDICT_SAMPLE = 1, /* x0 */
    TW_PREDICT_V = 2       /* Salimans & Ho 2022: sqrt(A) epsilon - sqrt(1-A) x0 */
} tw_prediction;

/* Which of the T training steps a sampler visits. */
typedef enum tw_spacing {
    TW_SPACING_LEADING = 0,   /* i (T // S), downwards, plus steps_offset */
    TW_SPACING_TRAILING = 1,  /* round(T - i T / S) - 1 */
    TW_SPACING_LINSPACE = 2,  /* round(linspace(0, T - 1, S)) */
    TW_SPACING_UNIFORM = 3,   /* range(0, T, T // S), cut to S */
    TW_SPACING_QUADRATIC = 4, /* linspace(0, sqrt(0.8 T), S)^2, repeated entries removed */
    TW_SPACING_DDPM =
        5, /* linspace(-1, T - 1, S + 1) without its last, as denoising-diffusion-pytorch */
    TW_SPACING_CUSTOM = 6
} tw_spacing;

typedef struct tw_schedule_options {
    size_t size;
    tw_beta_schedule kind;
    int64_t steps; /* T */
    double beta_start, beta_end;
    double cosine_s;       /* offset of the cosine schedule */
    double max_beta;       /* its cap */
    const double *betas;   /* TW_BETA_CUSTOM: `steps` of them; copied */
    int zero_terminal_snr; /* nonzero: rescaled as Lin et al. 2023, algorithm 1 */
} tw_schedule_options;

#define TW_SCHEDULE_OPTIONS_INIT                                                                   \
    { sizeof(tw_schedule_options), TW_BETA_LINEAR, 1000, 1e-4, 0.02, 0.008, 0.999, 0, 0 }

TW_API tw_status tw_schedule_create(tw_context *ctx, const tw_schedule_options *options,
                                    tw_schedule **out);
TW_API void tw_schedule_free(tw_schedule *schedule);

/* T, and tables of T float64 that live as long as the schedule. */
TW_API int64_t tw_schedule_steps(const tw_schedule *schedule);
TW_API const double *tw_schedule_betas(const tw_schedule *schedule);
TW_API const double *tw_schedule_alphas_cumprod(const tw_schedule *schedule);

/* "linear", "scaled_linear", "sigmoid", "cosine" (also diffusers' "squaredcos_cap_v2"). */
TW_API tw_status tw_beta_schedule_parse(const char *name, tw_beta_schedule *out);
TW_API const char *tw_beta_schedule_name(tw_beta_schedule kind);
/* "leading", "trailing", "linspace", "uniform", "quadratic", "ddpm". */
TW_API tw_status tw_spacing_parse(const char *name, tw_spacing *out);
TW_API const char *tw_spacing_name(tw_spacing spacing);
/* "epsilon", "sample", "v_prediction". */
TW_API tw_status tw_prediction_parse(const char *name, tw_prediction *out);
TW_API const char *tw_prediction_name(tw_prediction prediction);

/* The list for S sampling steps, from noise to data (falling), into `out` with room for S entries.
 * *count becomes the number written (fewer than S only for QUADRATIC). TW_ERROR_ARGUMENT unless
 * 1 <= S <= T. `steps_offset` is added by LEADING only. */
TW_API tw_status tw_timesteps(tw_context *ctx, tw_spacing spacing, int64_t training_steps,
                              int64_t sampling_steps, int64_t steps_offset, int64_t *out,
                              int64_t *count);

TW_END_DECLS

#endif
