#include "diffusion/coefficients.h"

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "core/context.h"
#include "diffusion/samplers/method.h"
#include "diffusion/schedule.h"

/* By tw_sampler_kind. */
static const tw_sampler_method *const methods[] = {
    [TW_SAMPLER_DDIM] = &tw_sampler_method_ddim,
    [TW_SAMPLER_DDPM] = &tw_sampler_method_ddpm,
};

const tw_sampler_method *tw_sampler_method_of(tw_sampler_kind kind) {
    const size_t n = sizeof methods / sizeof *methods;
    return (size_t)kind < n ? methods[kind] : NULL;
}

static tw_status check_step(tw_context *ctx, tw_prediction prediction, int64_t t,
                            const tw_sampler_step *step) {
    if (prediction == TW_PREDICT_EPSILON && step->A < FLT_MIN)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "sampler: no signal is left at step %lld (zero terminal SNR), so epsilon "
                       "prediction says nothing about x0 there; a v_prediction or sample model, or "
                       "a time-step list that starts lower, is needed",
                       (long long)t);
    /* Cannot happen with a checked schedule and a falling list. */
    if (!(step->A < 1.0 && step->A_next > 0.0 && step->A_next <= 1.0))
        return tw_fail(ctx, TW_ERROR_INTERNAL, "sampler: step %lld goes from A = %g to %g",
                       (long long)t, step->A, step->A_next);
    return TW_OK;
}

/* x0 from x and the predictions. */
static void set_x0(const tw_sampler_options *options, tw_prediction prediction,
                   const tw_sampler_step *step, double *row) {
    const double w = options->guidance, signal = sqrt(step->A), noise = sqrt(1.0 - step->A);
    double of_m = 1.0;
    switch (prediction) {
    case TW_PREDICT_EPSILON:
        row[TW_COEF_X0_X] = 1.0 / signal;
        of_m = -noise / signal;
        break;
    case TW_PREDICT_V:
        row[TW_COEF_X0_X] = signal;
        of_m = -noise;
        break;
    case TW_PREDICT_SAMPLE:
        break;
    }
    row[TW_COEF_X0_M] = of_m * w;
    row[TW_COEF_X0_U] = of_m * (1.0 - w);
}

static void set_common(const tw_sampler_options *options, tw_prediction prediction, int64_t t,
                       const tw_sampler_step *step, double *row) {
    row[TW_COEF_TIME] = (double)t;
    row[TW_COEF_A] = step->A;
    row[TW_COEF_1MA] = 1.0 - step->A;
    row[TW_COEF_AP] = step->A_next;
    row[TW_COEF_1MAP] = 1.0 - step->A_next;
    row[TW_COEF_1MRATIO] = 1.0 - step->A / step->A_next;
    if (options->clipping == TW_CLIPPING_RANGE) row[TW_COEF_CLIP] = options->clip_range;
    set_x0(options, prediction, step, row);
}

tw_status tw_coefficients_make(tw_context *ctx, const tw_schedule *schedule,
                               const tw_sampler_options *options, tw_prediction prediction,
                               const int64_t *timesteps, int64_t steps, float *rows) {
    const tw_sampler_method *method = tw_sampler_method_of(options->kind);
    if (!method)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "sampler: kind %d is not a tw_sampler_kind",
                       (int)options->kind);
    TW_TRY(method->check(ctx, options));
    const double *A = schedule->alphas_cumprod;
    for (int64_t i = 0; i < steps; i++) {
        const int64_t t = timesteps[i];
        const bool last = i == steps - 1;
        const double end = options->set_alpha_to_one ? 1.0 : A[0];
        const tw_sampler_step step = {A[t], last ? end : A[timesteps[i + 1]], last};
        TW_TRY(check_step(ctx, prediction, t, &step));
        double row[TW_COEF_WIDTH] = {0};
        set_common(options, prediction, t, &step, row);
        method->coefficients(options, &step, row);
        float *out = rows + i * TW_COEF_WIDTH;
        for (int c = 0; c < TW_COEF_WIDTH; c++) out[c] = (float)row[c];
        const uint32_t number = (uint32_t)i;
        memcpy(&out[TW_COEF_STEP], &number, sizeof number);
        memcpy(&out[TW_COEF_GENERAL_STEP], &number, sizeof number);
    }
    return TW_OK;
}
