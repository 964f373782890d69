/* One row of float32 per sampling step, formed in float64: all that a step needs to know besides
 * its tensors. A device reads the row that its step counter names. */
#ifndef TW_DIFFUSION_COEFFICIENTS_H
#define TW_DIFFUSION_COEFFICIENTS_H

#include <tweedie/sampler.h>

/* A is alphas_cumprod; t is the current entry, p the next one of the time-step list. */
enum tw_coef {
    TW_COEF_TIME = 0,        /* the time given to the network */
    TW_COEF_A = 1,           /* A_t */
    TW_COEF_1MA = 2,         /* 1 - A_t */
    TW_COEF_AP = 3,          /* A_p */
    TW_COEF_1MAP = 4,        /* 1 - A_p */
    TW_COEF_1MRATIO = 5,     /* 1 - A_t / A_p */
    TW_COEF_X0 = 6,          /* factor of x0 (TW_UPDATE_LINEAR) */
    TW_COEF_X = 7,           /* factor of x */
    TW_COEF_Z = 8,           /* factor of the noise */
    TW_COEF_LOGVAR_MIN = 9,  /* TW_UPDATE_LEARNED_RANGE: ln of the small variance */
    TW_COEF_LOGVAR_MAX = 10, /* ln of the large variance */
    TW_COEF_NOISE = 11,      /* 1 where the step adds noise, 0 in the last one */
    TW_COEF_WIDTH = 12
};

/* The rows of a run over a falling list of `steps` time steps, into rows[steps * TW_COEF_WIDTH].
 * Past the last entry A_p is 1, or A_0 without options->set_alpha_to_one. TW_ERROR_UNSUPPORTED
 * where the schedule has no signal and the network predicts epsilon. */
tw_status tw_coefficients_make(tw_context *ctx, const tw_schedule *schedule,
                               const tw_sampler_options *options, tw_prediction prediction,
                               const int64_t *timesteps, int64_t steps, float *rows);

#endif
