/* One row of float32 per sampling step, formed in float64: all that a step needs to know besides
 * its tensors. A device reads the row that its step counter names. */
#ifndef TW_DIFFUSION_COEFFICIENTS_H
#define TW_DIFFUSION_COEFFICIENTS_H

#include <tweedie/sampler.h>

/* A is alphas_cumprod; t is the current entry, p the next one of the time-step list. A row begins
 * with what the fused DDIM kernel reads (twk_ddim_row) and goes on with what the general update
 * reads (twk_update_row): a device takes it as it is. Columns without a name are 0. */
enum tw_coef {
    TW_COEF_A = 0,       /* A_t */
    TW_COEF_1MA = 1,     /* 1 - A_t */
    TW_COEF_1MRATIO = 2, /* 1 - A_t / A_p */
    TW_COEF_AP = 3,      /* A_p */
    TW_COEF_1MAP = 4,    /* 1 - A_p */
    TW_COEF_ETA = 5,     /* of TW_UPDATE_DDIM */
    TW_COEF_STEP = 6,    /* the row's number, as the bits of a uint32: the step of the noise */

    TW_COEF_GENERAL = 8,       /* here begins the second part */
    TW_COEF_X0_X = 8,          /* x0 before clipping = X0_X x + X0_M m + X0_U m_uncond, */
    TW_COEF_X0_M = 9,          /* with guidance in it */
    TW_COEF_X0_U = 10,         /* */
    TW_COEF_X = 11,            /* factor of x in the next x (TW_UPDATE_LINEAR, LEARNED_RANGE) */
    TW_COEF_X0 = 14,           /* of x0 after clipping */
    TW_COEF_Z = 18,            /* of the noise; with a learned variance 1, or 0 for no noise */
    TW_COEF_CLIP = 26,         /* of x0; 0: none, or not by a constant */
    TW_COEF_GENERAL_STEP = 27, /* as STEP */
    TW_COEF_LOGVAR_MAX = 28,   /* TW_UPDATE_LEARNED_RANGE: ln of the large variance */
    TW_COEF_LOGVAR_MIN = 29,   /* ln of the small variance */
    TW_COEF_TIME = 30,         /* the time given to the network */
    TW_COEF_WIDTH = 32
};

/* The rows of a run over a falling list of `steps` time steps, into rows[steps * TW_COEF_WIDTH].
 * Past the last entry A_p is 1, or A_0 without options->set_alpha_to_one. TW_ERROR_UNSUPPORTED
 * where the schedule has no signal and the network predicts epsilon. */
tw_status tw_coefficients_make(tw_context *ctx, const tw_schedule *schedule,
                               const tw_sampler_options *options, tw_prediction prediction,
                               const int64_t *timesteps, int64_t steps, float *rows);

#endif
