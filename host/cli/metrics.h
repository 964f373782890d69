/* What `tweedie train` logged: metrics.jsonl as columns of numbers. */
#ifndef TW_CLI_METRICS_H
#define TW_CLI_METRICS_H

#include <tweedie/tweedie.h>

/* Columns may hold NaN: a loss that was not finite, a number that a line lacks. */
typedef struct cli_metrics {
    char name[64]; /* the path as it was given, its end if it is long */
    int64_t steps; /* lines of training steps */
    double *step, *loss, *grad_norm, *lr;
    int64_t validations; /* lines of held-out losses */
    double *validation_step, *validation, *validation_average;
    double *memory; /* of all of the above */
} cli_metrics;

/* Reads DIR/metrics.jsonl, or a file of that kind. A last line without its newline is one that is
 * being written, and is left out. A line that is not one of ours: TW_ERROR_FORMAT with its number.
 * TW_ERROR_CANCELLED after a signal. On failure there is nothing to free. */
tw_status cli_metrics_read(tw_context *ctx, const char *path, cli_metrics *out);
void cli_metrics_free(tw_context *ctx, cli_metrics *m);

/* The mean of every `window` neighbours in values[n], without NaN, into out[n]. At the beginning,
 * where a loss falls steeply, it takes as many after as before, and at the end those that there
 * are. NaN where there are none. */
tw_status cli_metrics_smooth(tw_context *ctx, const double *values, int64_t n, int64_t window,
                             double *out);

#endif
