/* The noise schedules that a command line names: by kind, or from a model's files. */
#ifndef TW_CLI_SCHEDULES_H
#define TW_CLI_SCHEDULES_H

#include "cli/cli.h"

/* Rows of a command's option table, which the functions below read. */
#define CLI_SCHEDULE_OPTIONS                                                                       \
    {"training-steps", CLI_INT, "T", 2, 1e6, "1000", "steps of the named schedules"},              \
        {"beta-start", CLI_REAL, "B", 1e-12, 0.999999, "0.0001", "first beta; not for cosine"},    \
        {"beta-end", CLI_REAL, "B", 1e-12, 0.999999, "0.02", "last beta; not for cosine"},         \
        {"rescale-zero-snr",                                                                       \
         CLI_FLAG,                                                                                 \
         NULL,                                                                                     \
         0,                                                                                        \
         0,                                                                                        \
         NULL,                                                                                     \
         "rescale the named schedules to end without signal"},                                     \
        {"model", CLI_TEXT, "DIR", 0, 0, NULL, "the schedule of a model or a run"}, {              \
        "scheduler", CLI_TEXT, "FILE.json", 0, 0, NULL, "the schedule of a scheduler_config.json"  \
    }

#define CLI_SCHEDULE_NAMES "linear|scaled_linear|squaredcos_cap_v2|cosine|sigmoid"

/* The schedule of this kind (of the names above) with the options' numbers. `option` begins the
 * error line. 0, or an exit status after the error line. */
int cli_schedule_named(tw_context *ctx, const cli_args *args, const char *option, const char *name,
                       tw_schedule **out);
/* Those of --model and --scheduler, which must be given. */
int cli_schedule_of_model(tw_context *ctx, const cli_args *args, tw_schedule **out);
int cli_schedule_of_file(tw_context *ctx, const cli_args *args, tw_schedule **out);

#endif
