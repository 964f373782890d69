/* The way from noise to data of some samples: kept during a run, written as a strip, an animation
 * or an array. */
#ifndef TW_CLI_TRAJECTORY_H
#define TW_CLI_TRAJECTORY_H

#include "cli/frames.h"

typedef struct cli_trajectory {
    const char *path; /* null: nothing is kept */
    cli_output_kind kind;
    cli_shape shape;
    int64_t samples; /* the first ones, that are kept */
    int64_t steps;   /* of the run */
    int64_t frames;  /* states kept: the start and `frames` - 1 steps' results */
    float *values;   /* [frames, samples, shape] */
    int64_t fps;     /* of an animation, which the user of this sets, as the next two */
    double pause;
    int64_t columns;
} cli_trajectory;

/* Plans what to keep of a run of n samples: everything for an .npy, else what is shown.
 * `path` may be null. */
tw_status cli_trajectory_open(tw_context *ctx, cli_trajectory *t, const char *path,
                              cli_output_kind kind, const cli_shape *shape, int64_t n,
                              int64_t steps);
void cli_trajectory_close(tw_context *ctx, cli_trajectory *t);

/* The starting noise: noise[n, shape], or null for what the seed gives. */
tw_status cli_trajectory_start(tw_context *ctx, cli_trajectory *t, uint64_t seed, uint64_t first,
                               const float *noise);
/* x of a chunk after a step. */
void cli_trajectory_step(cli_trajectory *t, const tw_step_info *info);

tw_status cli_trajectory_write(tw_context *ctx, const cli_trajectory *t);

#endif
