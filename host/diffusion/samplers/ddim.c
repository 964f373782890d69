/* Song, Meng & Ermon 2020, eq. 12. */
#include "diffusion/samplers/method.h"

#include <math.h>

#include "core/context.h"
#include "diffusion/coefficients.h"

static tw_status check(tw_context *ctx, const tw_sampler_options *options) {
    if (!(options->eta >= 0.0 && options->eta <= 1.0))
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "sampler: eta %g, expected a number from 0 to 1",
                       options->eta);
    return TW_OK;
}

static void coefficients(const tw_sampler_options *options, const tw_sampler_step *step,
                         double *row) {
    const double variance = (1.0 - step->A_next) / (1.0 - step->A) * (1.0 - step->A / step->A_next);
    row[TW_COEF_NOISE] = options->eta > 0.0 && variance > 0.0;
}

static void attributes(const tw_sampler_options *options, tw_op_attr *attr) {
    attr->update.rule = TW_UPDATE_DDIM;
    attr->update.eta = options->eta;
}

const tw_sampler_method tw_sampler_method_ddim = {"ddim", check, coefficients, attributes};
