/* Saving a run while it goes on: a snapshot is taken at the step, and a thread of its own writes
 * it. There is one such thread at most; a save that comes while it works waits for it. */
#ifndef TW_CLI_WRITER_H
#define TW_CLI_WRITER_H

#include <pthread.h>
#include <stdatomic.h>

#include "cli/run.h"

/* What is to be written. The model and the state of one step; the state last, so that whoever finds
 * a state finds all the rest of its step. */
typedef struct cli_save {
    const cli_run *run;
    tw_snapshot *snapshot; /* taken over */
    bool averaged;         /* models have the averaged weights */
    bool as_best;          /* DIR/best */
    bool as_run;           /* DIR itself, and with `keep` DIR/checkpoints */
    int64_t keep;          /* the last checkpoints that stay; 0: none is made */
    double loss;           /* on held-out data; NAN: not known */
} cli_save;

typedef struct cli_writer {
    pthread_t thread;
    bool busy; /* the thread is there */
    atomic_bool finished;
    cli_save save;
    tw_status status;
    char error[1024];
} cli_writer;

/* Begins a save after the one before it, whose failure is then reported. 0, or 1 after the error
 * line. */
int cli_writer_start(cli_writer *writer, const cli_save *save);
/* Reports the failure of a save that is over, without waiting. */
int cli_writer_check(cli_writer *writer);
/* Waits for the save that is under way. */
int cli_writer_wait(cli_writer *writer);
/* The same without an error line: another one has been printed. */
void cli_writer_close(cli_writer *writer);

#endif
