/* scheduler_config.json: what is accepted makes a schedule or says why not, and is written in a
 * form that reads and writes as itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/scheduler_config.h"
#include "fuzz.h"

static const char name[] = "scheduler_config.json";

static void check_schedule(const tw_scheduler_config *config) {
    tw_schedule *schedule = NULL;
    const tw_status s = tw_schedule_create(fuzz_context(), &config->schedule, &schedule);
    if (s != TW_OK) {
        fuzz_refused(s, NULL);
        return;
    }
    const double *betas = tw_schedule_betas(schedule), *a = tw_schedule_alphas_cumprod(schedule);
    const int64_t n = tw_schedule_steps(schedule);
    FUZZ_CHECK(n == config->schedule.steps);
    for (int64_t t = 0; t < n; t++) {
        FUZZ_CHECK(betas[t] > 0 && betas[t] <= 1 && a[t] >= 0 && a[t] < 1);
        FUZZ_CHECK(t == 0 || a[t] < a[t - 1]);
        FUZZ_CHECK(a[t] > 0 || t == n - 1);
    }
    tw_schedule_free(schedule);
}

/* Writes the configuration; reads and writes it again to the same text. */
static void check_written(const tw_scheduler_config *config) {
    tw_context *ctx = fuzz_context();
    char *once = NULL, *twice = NULL;
    tw_scheduler_config again;
    const tw_status s = tw_scheduler_config_write(ctx, config, &once);
    if (s != TW_OK) {
        fuzz_refused(s, name);
        return;
    }
    FUZZ_CHECK(tw_scheduler_config_parse(ctx, once, name, &again) == TW_OK);
    FUZZ_CHECK(again.schedule.kind == config->schedule.kind);
    FUZZ_CHECK(again.schedule.steps == config->schedule.steps);
    FUZZ_CHECK(again.prediction == config->prediction);
    FUZZ_CHECK(again.clipping == config->clipping && again.spacing == config->spacing);
    FUZZ_CHECK(tw_scheduler_config_write(ctx, &again, &twice) == TW_OK);
    FUZZ_CHECK(!strcmp(once, twice));
    tw_scheduler_config_free(ctx, &again);
    tw_free(ctx, once);
    tw_free(ctx, twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    char *text = fuzz_text(data, size);
    tw_scheduler_config config;
    const tw_status s = tw_scheduler_config_parse(ctx, text, name, &config);
    if (s == TW_OK) {
        /* A schedule of a million steps is right, but slow. */
        if (config.schedule.steps <= 200) check_schedule(&config);
        check_written(&config);
        tw_scheduler_config_free(ctx, &config);
    } else {
        fuzz_refused(s, name);
    }
    free(text);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
