/* A training run in progress: its parts, what it shows and what it writes. */
#ifndef TW_CLI_TRAIN_H
#define TW_CLI_TRAIN_H

#include <stdio.h>

#include "cli/output.h"
#include "cli/run.h"
#include "cli/writer.h"
#include "io/tfevents.h"

typedef struct cli_session {
    const cli_args *args;
    const cli_run *run;
    tw_context *ctx;
    tw_model *model;
    tw_dataset *dataset;
    tw_trainer *trainer;
    tw_model_info info;
    cli_shape shape;
    tw_trainer_options options;
    FILE *metrics;       /* metrics.jsonl, appended to */
    tw_tfevents *events; /* for TensorBoard; null: none */
    bool log_json;       /* the same lines on stdout in place of progress */
    bool dry_run;        /* nothing is written */
    double begun;        /* cli_seconds() before the first step of this command */
    double lap;          /* seconds of a step, smoothed */
    double loss;         /* smoothed; its weight so far is in loss_weight */
    double loss_weight;
    double shown;    /* when a plain line was last printed */
    double metered;  /* when the next two were last looked at */
    double held;     /* bytes of a GPU's memory that are taken, by whomever; 0: not known */
    double busy;     /* part of the time in which the device is at work; NAN: not known */
    int64_t skipped; /* updates that were, in the whole run */
    int64_t skipped_in_a_row;
    int64_t first;     /* steps done before this command */
    int64_t read;      /* the step whose metrics were read last */
    double last;       /* when that was */
    int64_t saved;     /* the step of the last save that was begun; -1: none */
    double measured;   /* loss on held-out data of the last validation; NAN: none yet */
    int64_t validated; /* its step */
    double best;       /* the lowest so far, which DIR/best has; INFINITY: none */
    cli_writer writer;
    bool unpictured;   /* a picture could not be made, which was said */
    char adapted[200]; /* what of a preset's network the data changed */
    int lock;          /* DIR, locked against a second training; -1: not open */
} cli_session;

/* --- train_open.c --- */

/* Opens the data, then makes model and trainer. A preset's network is adapted to the data in `run`,
 * and its condition dropout in `args`. Nothing is written. */
int cli_train_open(cli_session *s, cli_args *args, cli_run *run);

/* --- train_files.c --- */

/* Takes DIR for this process, if it is there. */
int cli_train_lock(cli_session *s);
/* Makes DIR, writes run.json, cuts metrics.jsonl back to the steps done and opens it. */
int cli_train_begin_files(cli_session *s);
/* Keeps the choices of --tune in DIR, if there are new ones. */
int cli_train_keep_tuning(cli_session *s);
/* Removes what the process left that was killed in the last save of a run. */
int cli_train_tidy(cli_session *s);
/* Begins to write what is due after this step: state and model, or the best model so far. */
int cli_train_save(cli_session *s, int64_t step, bool as_run, bool as_best);
/* Appends a finished line (without its newline) to metrics.jsonl. */
int cli_train_log(cli_session *s, const char *line);

/* --- train_preview.c --- */

/* Whether the model's samples can be drawn as the options want. 0, or 2 after the error line. */
int cli_train_check_preview(const cli_session *s);
/* A picture of samples of the averaged weights in DIR/previews. One that cannot be made is said the
 * first time, and no failure of the run; but a device that fails is. */
int cli_train_preview(cli_session *s, int64_t step);
/* Bytes that making one takes; 0 if none will be made. */
tw_status cli_train_preview_memory(const cli_session *s, size_t *bytes);

/* --- train_dry.c --- */

/* Says what the run would be, after the table, and times some steps. Writes nothing. */
int cli_train_dry_run(cli_session *s);

/* --- train_report.c --- */

/* The table of what was decided. */
int cli_train_show_table(cli_session *s);
/* Logs and shows one step that took `seconds`. */
int cli_train_show_step(cli_session *s, const tw_train_metrics *m, double seconds);
int cli_train_show_validation(cli_session *s, int64_t step);
void cli_train_show_end(cli_session *s, int64_t step);

#endif
