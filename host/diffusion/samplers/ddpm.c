/* Ho et al. 2020, algorithm 2, on any subsequence: the posterior q(x_p | x_t, x0) with
 * a = A_t / A_p in place of alpha_t. Variances: Ho et al. 2020, section 3.2; Nichol & Dhariwal
 * 2021, eq. 15. */
#include "diffusion/samplers/method.h"

#include <math.h>

#include "core/context.h"
#include "diffusion/coefficients.h"

/* Keeps the logarithm finite where the small variance is zero. */
#define VARIANCE_FLOOR 1e-20

static tw_status check(tw_context *ctx, const tw_sampler_options *options) {
    if (options->variance < TW_VARIANCE_FIXED_SMALL ||
        options->variance > TW_VARIANCE_LEARNED_RANGE)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "sampler: variance %d is not a tw_variance",
                       (int)options->variance);
    return TW_OK;
}

static void coefficients(const tw_sampler_options *options, const tw_sampler_step *step,
                         double *row) {
    const double a = step->A / step->A_next, b = 1.0 - a;
    const double share = (1.0 - step->A_next) / (1.0 - step->A);
    const double small = fmax(b * share, VARIANCE_FLOOR), large = fmax(b, VARIANCE_FLOOR);
    row[TW_COEF_X0] = sqrt(step->A_next) * b / (1.0 - step->A);
    row[TW_COEF_X] = sqrt(a) * share;
    row[TW_COEF_LOGVAR_MIN] = log(small);
    row[TW_COEF_LOGVAR_MAX] = log(large);
    if (step->last) return;
    if (options->variance == TW_VARIANCE_LEARNED_RANGE) row[TW_COEF_Z] = 1.0;
    if (options->variance == TW_VARIANCE_FIXED_SMALL) row[TW_COEF_Z] = sqrt(small);
    if (options->variance == TW_VARIANCE_FIXED_LARGE) row[TW_COEF_Z] = sqrt(large);
}

static void attributes(const tw_sampler_options *options, tw_op_attr *attr) {
    attr->update.rule =
        options->variance == TW_VARIANCE_LEARNED_RANGE ? TW_UPDATE_LEARNED_RANGE : TW_UPDATE_LINEAR;
}

const tw_sampler_method tw_sampler_method_ddpm = {"ddpm", check, coefficients, attributes};
