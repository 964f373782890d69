/* Checkpoints: folders with a model of one step of a run, perhaps with the state to go on from, and
 * checkpoint.json, which says whose they are. A checkpoint appears under its name only when it is
 * whole. Nothing but this run's checkpoints is ever replaced or removed, and no folder into which
 * somebody has put something else. The calls need no context, and leave the text of a failure in
 * tw_context_error(NULL). */
#ifndef TW_CLI_CHECKPOINT_H
#define TW_CLI_CHECKPOINT_H

#include <stdbool.h>

#include <tweedie/trainer.h>

#define CLI_RUN_ID_SIZE 17

typedef struct cli_checkpoint {
    const char *run; /* the run's id */
    const tw_snapshot *snapshot;
    bool averaged; /* the model has the averaged weights */
    bool state;    /* with the training state */
    double loss;   /* on held-out data; NAN: not known */
} cli_checkpoint;

/* Writes folder/name, replacing this run's checkpoint of that name. */
tw_status cli_checkpoint_write(const cli_checkpoint *checkpoint, const char *folder,
                               const char *name);

/* "step-000500" */
void cli_checkpoint_name(int64_t step, char out[32]);

/* Removes this run's checkpoints of steps up to `step` in `folder` but the last `keep`. */
tw_status cli_checkpoint_prune(const char *folder, const char *run, int64_t step, int64_t keep);

/* Whether the folder is a checkpoint of the run; its step and loss (NAN: none). */
bool cli_checkpoint_read(const char *path, const char *run, int64_t *step, double *loss);

/* Removes what a killed process left unfinished in `folder`: temporary files, and checkpoints on
 * their way in or out. No other process may be writing there. */
void cli_checkpoint_clean(const char *folder);

#endif
