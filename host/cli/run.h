/* What a training run is made of: network, schedule and options, from a preset, a configuration
 * file or the run.json of the run that is resumed. The two files have one format:
 *
 *     {"model": {config.json}, "scheduler": {scheduler_config.json}, "options": {"steps": 1000}}
 */
#ifndef TW_CLI_RUN_H
#define TW_CLI_RUN_H

#include <jansson.h>
#include <stdbool.h>

#include "cli/checkpoint.h"
#include "cli/cli.h"

typedef struct cli_run {
    const char *out; /* the run's directory */
    bool resume;
    char id[CLI_RUN_ID_SIZE]; /* what is this run's alone carries it */
    const char *preset;       /* its name, or null */
    char *model, *scheduler;  /* JSON texts; `scheduler` may be null */
    json_t *document;         /* of run.json or the configuration file, or null */
    json_t *texts;            /* keeps the option texts that `args` points to */
} cli_run;

/* Completes `args` from where the run is described, checks that a fresh run's directory holds none
 * and that a resumed one's options are unchanged. 0, or an exit status after the error line. Closed
 * in either case. */
int cli_run_open(cli_args *args, cli_run *run);
void cli_run_close(cli_run *run);

/* Options that run.json does not keep: they say how this command was called. */
bool cli_run_is_of_the_call(const char *name);

/* "DIR/name" into out[size]; false if it does not fit. */
bool cli_run_path(const cli_run *run, const char *name, char *out, size_t size);

/* --- record.c --- */

/* Writes run.json: all that it takes to train the same again, and when, where and how the run was
 * begun and gone on with. `step` is the number of steps done. */
tw_status cli_run_write(tw_context *ctx, const cli_run *run, const cli_args *args, int64_t step);

/* Compares the data with what run.json or the configuration file knows it by: a run that goes on is
 * refused other data (1 after the error line), a new one says so. */
int cli_run_check_data(const cli_run *run, const cli_args *args);

#endif
