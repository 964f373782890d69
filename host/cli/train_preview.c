/* Pictures of samples during a training run: the same noise and labels every time, so that they
 * compare. */
#include <inttypes.h>
#include <string.h>

#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/train.h"
#include "core/context.h"
#include "io/file.h"

#define IMAGES 64
#define POINTS 2000
#define MOST_COLUMNS 16 /* with one class each */

#define PNG_MAX ((size_t)1 << 30)

typedef struct preview {
    int64_t n, columns;
    int32_t *labels; /* [n], or null */
    float *values;   /* [n, shape] */
} preview;

int cli_train_check_preview(const cli_session *s) {
    const bool drawable = s->shape.rank == 3 ? s->shape.extents[2] == 1 || s->shape.extents[2] == 3
                                             : s->shape.extents[0] == 2;
    if (cli_int(s->args, "preview-every") > 0 && !drawable)
        return cli_usage("--preview-every: samples are neither grey or RGB images nor points of "
                         "the plane and cannot be drawn; expected 0");
    if (cli_real(s->args, "preview-guidance") != 1.0 &&
        (s->info.classes == 0 || !(s->options.cond_dropout > 0.0)))
        return cli_usage("--preview-guidance: only a model with classes that is trained with "
                         "--cond-dropout can be guided; expected 1");
    return CLI_OK;
}

/* How many samples, and in how many columns: one class a column where they fit. */
static void lay_out(const cli_session *s, int64_t classes, preview *p) {
    p->n = s->shape.rank == 3 ? IMAGES : POINTS;
    p->columns = 0;
    if (s->shape.rank != 3 || classes < 2 || classes > MOST_COLUMNS) return;
    p->columns = classes < 8 ? 8 / classes * classes : classes;
    p->n = IMAGES / p->columns * p->columns;
}

/* The classes that the data has, in turn; of very many some, evenly spread. */
static tw_status make_labels(const cli_session *s, int64_t classes, preview *p) {
    if (s->info.classes == 0) return TW_OK;
    p->labels = tw_allocate(s->ctx, (size_t)p->n, sizeof *p->labels);
    if (!p->labels) return TW_ERROR_MEMORY;
    for (int64_t i = 0; i < p->n; i++)
        p->labels[i] = (int32_t)(classes > p->n ? i * classes / p->n : i % classes);
    return TW_OK;
}

static tw_status open_preview(const cli_session *s, preview *p) {
    tw_dataset_info data = {.size = sizeof data};
    TW_TRY(tw_dataset_get_info(s->dataset, &data));
    lay_out(s, data.classes, p);
    TW_TRY(make_labels(s, data.classes, p));
    p->values = tw_allocate(s->ctx, (size_t)(p->n * s->shape.count), sizeof *p->values);
    return p->values ? TW_OK : TW_ERROR_MEMORY;
}

static int after_step(void *user, const tw_step_info *info) {
    (void)user;
    cli_progress_show("picture  %" PRId64 "/%" PRId64 "  %s", info->step + 1, info->steps,
                      cli_bar((double)(info->step + 1) / (double)info->steps).text);
    return cli_signals_stop();
}

static tw_status open_sampler(const cli_session *s, tw_model *model, tw_sampler **out) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = cli_int(s->args, "preview-steps");
    if (o.steps > s->info.training_steps) o.steps = s->info.training_steps;
    o.guidance = cli_real(s->args, "preview-guidance");
    o.seed = s->options.seed;
    o.precision = s->options.precision;
    o.hook = after_step;
    return tw_sampler_create(model, &o, out);
}

tw_status cli_train_preview_memory(const cli_session *s, size_t *bytes) {
    tw_sampler *sampler = NULL;
    tw_dataset_info data = {.size = sizeof data};
    preview p = {0};
    *bytes = 0;
    if (cli_int(s->args, "preview-every") == 0) return TW_OK;
    TW_TRY(tw_dataset_get_info(s->dataset, &data));
    lay_out(s, data.classes, &p);
    TW_TRY(open_sampler(s, s->model, &sampler));
    const tw_status status = tw_sampler_memory(sampler, p.n, bytes);
    tw_sampler_free(sampler);
    return status;
}

/* With the averaged weights, if there are any. */
static tw_status draw(cli_session *s, preview *p) {
    tw_sampler *sampler = NULL;
    tw_model *averaged = NULL;
    tw_status status = TW_OK;
    if (s->options.ema_decay > 0.0) status = tw_trainer_ema_model(s->trainer, &averaged);
    if (status == TW_OK) status = open_sampler(s, averaged ? averaged : s->model, &sampler);
    if (status == TW_OK) status = tw_sampler_run(sampler, p->n, p->labels, NULL, p->values);
    tw_sampler_free(sampler);
    tw_model_free(averaged);
    return status;
}

/* previews/step-....png, the same as previews/latest.png, and an event. */
static tw_status write_picture(cli_session *s, const preview *p, int64_t step) {
    char folder[4096], path[4096], latest[4096], name[64], *bytes = NULL;
    size_t size = 0;
    snprintf(name, sizeof name, "previews/step-%06" PRId64 ".png", step);
    if (!cli_run_path(s->run, "previews", folder, sizeof folder) ||
        !cli_run_path(s->run, name, path, sizeof path) ||
        !cli_run_path(s->run, "previews/latest.png", latest, sizeof latest))
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "--out: the path is too long");
    TW_TRY(tw_directory_make(s->ctx, folder));
    TW_TRY(cli_output_write(s->ctx, path, CLI_OUTPUT_PNG, &s->shape, p->n, p->values, p->columns));
    TW_TRY(tw_file_read(s->ctx, path, PNG_MAX, &bytes, &size));
    tw_status status = tw_file_write(s->ctx, latest, bytes, size);
    if (status == TW_OK && s->events)
        status = tw_tfevents_png(s->events, step, "samples", bytes, size);
    tw_free(s->ctx, bytes);
    return status;
}

int cli_train_preview(cli_session *s, int64_t step) {
    preview p = {0};
    tw_status status = open_preview(s, &p);
    cli_progress_end_line(); /* drawing takes a while, which has a line of its own */
    if (status == TW_OK) status = draw(s, &p);
    cli_progress_clear();
    if (status == TW_OK) status = write_picture(s, &p, step);
    tw_free(s->ctx, p.labels);
    tw_free(s->ctx, p.values);
    if (status == TW_ERROR_DEVICE) return cli_fail_status(s->ctx, status);
    const bool failed = status != TW_OK && status != TW_ERROR_CANCELLED; /* which the loop sees */
    if (failed && !s->unpictured)
        cli_fail("step %s: there is no picture: %s; the run goes on", cli_grouped(step).text,
                 tw_context_error(s->ctx));
    s->unpictured |= failed;
    return CLI_OK;
}
