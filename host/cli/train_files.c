#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "cli/train.h"
#include "cli/tuning.h"
#include "core/context.h"
#include "io/file.h"

/* A run of a million steps has a log of this order. */
#define METRICS_MAX ((size_t)4 << 30)

/* The step of a line of metrics.jsonl, or -1. */
static int64_t step_of(const char *line) {
    static const char begin[] = "{\"step\": ";
    if (strncmp(line, begin, sizeof begin - 1) != 0) return -1;
    return strtoll(line + sizeof begin - 1, NULL, 10);
}

/* Keeps the lines of the steps that the saved state has: a run that was killed logged more. */
static tw_status cut_metrics(cli_session *s, const char *path) {
    char *text = NULL;
    size_t size = 0, kept = 0;
    struct stat st;
    if (stat(path, &st) != 0 || st.st_size == 0) return TW_OK; /* ended before its first step */
    tw_status status = tw_file_read(s->ctx, path, METRICS_MAX, &text, &size);
    if (status != TW_OK) return status;
    for (size_t at = 0; at < size;) {
        const char *newline = memchr(text + at, '\n', size - at);
        if (!newline) break;
        const size_t length = (size_t)(newline - text) + 1 - at;
        const int64_t step = step_of(text + at);
        if (step >= 0 && step <= s->first) {
            memmove(text + kept, text + at, length);
            kept += length;
        }
        at += length;
    }
    if (kept != size) status = tw_file_write(s->ctx, path, text, kept);
    tw_free(s->ctx, text);
    return status;
}

int cli_train_lock(cli_session *s) {
    if (s->lock >= 0 || !tw_directory_exists(s->run->out)) return CLI_OK;
    s->lock = open(s->run->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Not every file system has locks; then nothing guards against a second process. */
    if (s->lock >= 0 && flock(s->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return cli_fail("--out: another process is training in %s", s->run->out);
    return CLI_OK;
}

/* Removes what a killed process left half done. */
static void clean(cli_session *s) {
    static const char *const folders[] = {"",          "state",    "unet",
                                          "scheduler", "previews", "checkpoints"};
    char path[4096];
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (cli_run_path(s->run, folders[i], path, sizeof path)) cli_checkpoint_clean(path);
}

int cli_train_keep_tuning(cli_session *s) {
    char path[4096];
    if (s->dry_run || !cli_run_path(s->run, CLI_TUNING_FILE, path, sizeof path)) return CLI_OK;
    return cli_keep_tuning(s->args, s->ctx, path);
}

int cli_train_tidy(cli_session *s) {
    char checkpoints[4096];
    const int64_t keep = cli_int(s->args, "keep-last");
    clean(s);
    if (!keep || !cli_run_path(s->run, "checkpoints", checkpoints, sizeof checkpoints))
        return CLI_OK;
    const tw_status status = cli_checkpoint_prune(checkpoints, s->run->id, s->first, keep);
    return status == TW_OK ? CLI_OK : cli_fail_status(NULL, status);
}

/* What DIR/best has, if it is this run's. */
static int find_best(cli_session *s) {
    char path[4096];
    int64_t step;
    double loss;
    if (!cli_flag(s->args, "keep-best") || !cli_run_path(s->run, "best", path, sizeof path) ||
        (!tw_directory_exists(path) && !tw_file_exists(path)))
        return CLI_OK;
    if (!cli_checkpoint_read(path, s->run->id, &step, &loss))
        return cli_fail("--keep-best: %s is there already and not this run's; move it away", path);
    if (isfinite(loss)) s->best = loss;
    return CLI_OK;
}

int cli_train_begin_files(cli_session *s) {
    char path[4096];
    if (!cli_run_path(s->run, "metrics.jsonl", path, sizeof path))
        return cli_fail("--out: the path is too long");
    tw_status status = tw_directory_make(s->ctx, s->run->out);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    int rc = cli_train_lock(s);
    if (!rc) rc = find_best(s);
    if (rc) return rc;
    clean(s);
    status = cli_run_write(s->ctx, s->run, s->args, s->first);
    if (status == TW_OK && s->run->resume) status = cut_metrics(s, path);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    s->metrics = fopen(path, s->run->resume ? "a" : "w");
    if (!s->metrics) return cli_fail("%s: cannot be opened: %s", path, strerror(errno));
    if (cli_choice(s->args, "tensorboard") != 0) return CLI_OK;
    /* Of steps after the saved state, which are done again, the earlier files speak too soon. */
    status = tw_tfevents_open(s->ctx, s->run->out, s->run->resume ? s->first + 1 : -1, &s->events);
    return status == TW_OK ? CLI_OK : cli_fail_status(s->ctx, status);
}

int cli_train_log(cli_session *s, const char *line) {
    if (s->log_json) {
        printf("%s\n", line);
        fflush(stdout);
    }
    if (fprintf(s->metrics, "%s\n", line) < 0 || fflush(s->metrics) != 0)
        return cli_fail("%s/metrics.jsonl: cannot be written: %s", s->run->out, strerror(errno));
    return CLI_OK;
}

int cli_train_save(cli_session *s, int64_t step, bool as_run, bool as_best) {
    cli_save save = {.run = s->run,
                     .averaged = s->options.ema_decay > 0.0,
                     .as_best = as_best,
                     .as_run = as_run,
                     .keep = cli_int(s->args, "keep-last"),
                     .loss = s->validated == step ? s->measured : (double)NAN};
    /* Not before the last one is over: two snapshots would take twice the memory. */
    const int rc = cli_writer_wait(&s->writer);
    if (rc) return rc;
    const tw_status status = tw_trainer_snapshot(s->trainer, &save.snapshot);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    if (as_run) s->saved = step;
    return cli_writer_start(&s->writer, &save);
}
