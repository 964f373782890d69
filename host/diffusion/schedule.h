/* The inside of a schedule. */
#ifndef TW_DIFFUSION_SCHEDULE_H
#define TW_DIFFUSION_SCHEDULE_H

#include <tweedie/schedule.h>

#define TW_SCHEDULE_MAX_STEPS 1000000

struct tw_schedule {
    tw_context *ctx;
    int64_t steps;
    double *betas;          /* [steps], each in (0, 1); the last may be 1 */
    double *alphas_cumprod; /* [steps], falling; only the last may be 0 (zero terminal SNR) */
};

/* A schedule of its own with the same tables, made from `ctx`. */
tw_status tw_schedule_copy(tw_context *ctx, const tw_schedule *schedule, tw_schedule **out);

#endif
