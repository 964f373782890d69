/* Sampling with a denoiser of one's own. The data are eight points on the unit circle, for which
 * the best denoiser is known: the mean of the points, each weighted by how well it explains x. DDIM
 * then carries noise to the points. Prints the samples; fails if one is not near a point. */
#include <math.h>
#include <stdio.h>

#include <tweedie/tweedie.h>

#define POINTS 8
#define SAMPLES 16

static const double pi = 3.14159265358979323846;

/* x0 = E[data | x_t = x]: the prediction type is TW_PREDICT_SAMPLE. `user` is alphas_cumprod. */
static tw_status denoise(void *user, const tw_tensor *x, const tw_tensor *t, const int32_t *labels,
                         tw_tensor *out, tw_stream stream) {
    const double *alphas_cumprod = user;
    const float *in = x->data, *time = t->data;
    float *x0 = out->data;
    (void)labels, (void)stream;
    for (int64_t n = 0; n < x->shape[0]; n++) {
        const double A = alphas_cumprod[(int)time[n]];
        double total = 0, mean[2] = {0, 0}, distance[POINTS], least = INFINITY;
        for (int k = 0; k < POINTS; k++) {
            const double dx = in[2 * n] - sqrt(A) * cos(2 * pi * k / POINTS);
            const double dy = in[2 * n + 1] - sqrt(A) * sin(2 * pi * k / POINTS);
            distance[k] = (dx * dx + dy * dy) / (2 * (1 - A));
            least = fmin(least, distance[k]);
        }
        for (int k = 0; k < POINTS; k++) {
            const double weight = exp(least - distance[k]);
            mean[0] += weight * cos(2 * pi * k / POINTS);
            mean[1] += weight * sin(2 * pi * k / POINTS);
            total += weight;
        }
        x0[2 * n] = (float)(mean[0] / total);
        x0[2 * n + 1] = (float)(mean[1] / total);
    }
    return TW_OK;
}

static int show(const float *samples) {
    int lost = 0;
    for (int n = 0; n < SAMPLES; n++) {
        const double x = samples[2 * n], y = samples[2 * n + 1];
        const double turn = atan2(y, x) / (2 * pi / POINTS);
        const int near = fabs(hypot(x, y) - 1) < 0.01 && fabs(turn - round(turn)) < 0.01;
        printf("%7.4f %7.4f%s\n", x, y, near ? "" : "  not at a point");
        lost += !near;
    }
    return lost;
}

int main(void) {
    tw_context *ctx = NULL;
    tw_schedule *schedule = NULL;
    tw_sampler *sampler = NULL;
    tw_context_options where = TW_CONTEXT_OPTIONS_INIT;
    where.device = TW_DEVICE_CPU; /* denoise() reads host memory */
    const tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    options.steps = 50;
    options.seed = 7;
    float samples[2 * SAMPLES];
    int lost = 0;

    tw_status status = tw_context_create(&where, &ctx);
    if (status == TW_OK) status = tw_schedule_create(ctx, &linear, &schedule);
    if (status == TW_OK) {
        const tw_denoiser mine = {.size = sizeof mine,
                                  .evaluate = denoise,
                                  .user = (void *)tw_schedule_alphas_cumprod(schedule),
                                  .rank = 1,
                                  .shape = {2},
                                  .prediction = TW_PREDICT_SAMPLE};
        status = tw_sampler_create_callback(ctx, &mine, schedule, &options, &sampler);
    }
    if (status == TW_OK) status = tw_sampler_run(sampler, SAMPLES, NULL, NULL, samples);
    if (status == TW_OK)
        lost = show(samples);
    else
        fprintf(stderr, "callback: %s\n", tw_context_error(ctx));
    tw_sampler_free(sampler);
    tw_schedule_free(schedule);
    tw_context_free(ctx);
    return status != TW_OK || lost > 0;
}
