/* Song, Meng & Ermon 2020, eq. 12. */
#include "diffusion/samplers/method.h"

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
    (void)step;
    row[TW_COEF_ETA] = options->eta;
}

static void attributes(const tw_sampler_options *options, tw_op_attr *attr) {
    (void)options;
    attr->update.rule = TW_UPDATE_DDIM;
}

const tw_sampler_method tw_sampler_method_ddim = {"ddim", check, coefficients, attributes};
