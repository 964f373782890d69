#include "cli/writer.h"

#include <signal.h>
#include <string.h>

#include "core/context.h"
#include "io/file.h"

/* --- In the writer's thread: no context, nothing of the session but the snapshot --- */

static tw_status write_checkpoint(const cli_save *s, const char *folder) {
    char name[32];
    const cli_checkpoint c = {s->run->id, s->snapshot, s->averaged, true, s->loss};
    cli_checkpoint_name(tw_snapshot_step(s->snapshot), name);
    TW_TRY(tw_directory_make(NULL, folder));
    return cli_checkpoint_write(&c, folder, name);
}

static tw_status write_all(const cli_save *s) {
    char state[4096], checkpoints[4096];
    const cli_checkpoint best = {s->run->id, s->snapshot, s->averaged, false, s->loss};
    if (s->as_best) TW_TRY(cli_checkpoint_write(&best, s->run->out, "best"));
    if (!s->as_run) return TW_OK;
    if (!cli_run_path(s->run, "state", state, sizeof state) ||
        !cli_run_path(s->run, "checkpoints", checkpoints, sizeof checkpoints))
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "--out: the path is too long");
    if (s->keep) TW_TRY(write_checkpoint(s, checkpoints));
    TW_TRY(tw_snapshot_save_model(s->snapshot, s->averaged, s->run->out));
    TW_TRY(tw_snapshot_save_state(s->snapshot, state));
    if (!s->keep) return TW_OK;
    return cli_checkpoint_prune(checkpoints, s->run->id, tw_snapshot_step(s->snapshot), s->keep);
}

static void *work(void *user) {
    cli_writer *w = user;
    w->status = write_all(&w->save);
    if (w->status != TW_OK) snprintf(w->error, sizeof w->error, "%s", tw_context_error(NULL));
    tw_snapshot_free(w->save.snapshot);
    atomic_store(&w->finished, true);
    return NULL;
}

/* --- In the session's thread --- */

void cli_writer_close(cli_writer *w) {
    if (w->busy) pthread_join(w->thread, NULL);
    w->busy = false;
}

int cli_writer_wait(cli_writer *w) {
    cli_writer_close(w);
    if (w->status == TW_OK) return CLI_OK;
    w->status = TW_OK; /* said once */
    return cli_fail("%s", w->error);
}

int cli_writer_check(cli_writer *w) {
    return w->busy && !atomic_load(&w->finished) ? CLI_OK : cli_writer_wait(w);
}

int cli_writer_start(cli_writer *w, const cli_save *save) {
    const int rc = cli_writer_wait(w);
    if (rc) {
        tw_snapshot_free(save->snapshot);
        return rc;
    }
    w->save = *save;
    atomic_store(&w->finished, false);
    /* Signals are the session's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    w->busy = pthread_create(&w->thread, NULL, work, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (w->busy) return CLI_OK;
    work(w); /* without a thread it is written here */
    return cli_writer_wait(w);
}
