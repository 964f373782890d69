#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "cli/choices.h"
#include "cli/head.h"
#include "cli/train.h"
#include "train/internal.h"

/* Seconds between plain lines where there is no terminal. */
#define PLAIN_EVERY 10.0

#define VALIDATION_SAMPLES 1024

static size_t planned(const tw_trainer_memory *m) {
    return m->weights + m->rounded + m->gradients + m->optimizer + m->ema + m->arena + m->staging +
           m->resident;
}

static void row(const char *name) {
    printf("  %-10s ", name);
}

static void show_data(const cli_session *s, const tw_dataset_info *data) {
    const int64_t held = (int64_t)((double)data->count * s->options.holdout);
    row("data");
    printf("%s: %s %s", cli_text(s->args, "data"), cli_grouped(data->count).text,
           cli_shape_noun(&s->shape, false));
    if (data->classes) printf(", %" PRId64 " classes", data->classes);
    if (data->skipped) printf(", %s unreadable left out", cli_grouped(data->skipped).text);
    if (held) printf(", about %s of them held out", cli_grouped(held).text);
    putchar('\n');
}

static void show_memory(const cli_session *s, const tw_trainer_memory *m) {
    row("memory");
    printf("%s: weights %s", cli_bytes((double)planned(m)).text,
           cli_bytes((double)m->weights).text);
    if (m->rounded)
        printf(", in %s %s", cli_text(s->args, "precision"), cli_bytes((double)m->rounded).text);
    printf(", gradients %s, optimizer %s", cli_bytes((double)m->gradients).text,
           cli_bytes((double)m->optimizer).text);
    if (m->ema) printf(", average %s", cli_bytes((double)m->ema).text);
    printf(", arena %s, staging %s", cli_bytes((double)m->arena).text,
           cli_bytes((double)m->staging).text);
    if (m->resident) printf(", data %s", cli_bytes((double)m->resident).text);
    printf("%s%s%s\n", s->options.recompute ? "; " : "",
           s->options.recompute ? cli_text(s->args, "recompute") : "",
           s->options.recompute ? " are made again" : "");
}

static void show_steps(const cli_session *s) {
    const tw_trainer_options *o = &s->options;
    row("steps");
    printf("%s of %s %s", cli_grouped(o->steps).text,
           cli_grouped(o->batch_size * o->accumulate).text, cli_shape_noun(&s->shape, false));
    if (o->accumulate > 1)
        printf(" (%" PRId64 " micro-steps of %" PRId64 ")", o->accumulate, o->batch_size);
    if (s->first)
        printf(", %s done", cli_grouped(s->first).text);
    else if (s->run->resume)
        printf(", none done: no state was saved");
    printf("\n");
    row("optimizer");
    printf("AdamW, lr %g %s after %" PRId64 " steps, weight decay %g, clip %g, average %g\n", o->lr,
           cli_text(s->args, "lr-schedule"), o->lr_warmup, o->weight_decay, o->clip_norm,
           o->ema_decay);
}

int cli_train_show_table(cli_session *s) {
    tw_dataset_info data = {.size = sizeof data};
    tw_trainer_memory memory = {.size = sizeof memory};
    tw_status status = tw_dataset_get_info(s->dataset, &data);
    if (status == TW_OK) status = tw_trainer_get_memory(s->trainer, &memory);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    if (s->log_json) return CLI_OK;
    cli_print_head(s->ctx, &s->info, cli_text(s->args, "precision"), "");
    row("model");
    printf("%s, %s parameters in %" PRId64 " tensors, T = %" PRId64 "\n", s->info.kind,
           cli_grouped(s->info.parameters).text, s->info.tensors, s->info.training_steps);
    show_data(s, &data);
    if (*s->adapted) {
        row("adapted");
        printf("the preset's network to %s\n", s->adapted);
    }
    show_steps(s);
    row("seed");
    printf("%" PRIu64 "\n", s->options.seed);
    show_memory(s, &memory);
    cli_print_choices(s->ctx, &s->ctx->backend->choices, 10);
    row("output");
    printf("%s\n", s->dry_run ? "none: nothing is written" : s->run->out);
    fflush(stdout);
    return CLI_OK;
}

/* A JSON number; null where JSON has none. */
static cli_words json_number(double v) {
    cli_words w;
    snprintf(w.text, sizeof w.text, isfinite(v) ? "%.17g" : "null", v);
    return w;
}

/* Exponential means of loss and step time, without the first values' weight. */
static void smooth(cli_session *s, double loss, double seconds) {
    if (isfinite(loss)) {
        s->loss_weight = 0.98 * s->loss_weight + 0.02;
        s->loss += 0.02 / s->loss_weight * (loss - s->loss);
    }
    s->lap = s->lap > 0.0 ? 0.9 * s->lap + 0.1 * seconds : seconds;
}

/* Looks once a second, for looking takes time. */
static void look_at_device(cli_session *s) {
    tw_backend *b = s->ctx->backend;
    const double now = cli_seconds();
    double joules;
    if (s->metered > 0.0 && now - s->metered < 1.0) return;
    size_t total = 0, left = 0;
    s->busy = (double)NAN;
    if (b->meter) b->meter(b, &joules, &s->busy);
    s->held = b->memory && b->memory(b, &total, &left) == TW_OK ? (double)(total - left) : 0.0;
    s->metered = now;
}

/* The line of a step. A narrow terminal gets it without the first `dropped` of the bar, the
 * learning rate, the gradient's norm, the memory and the GPU's load. */
static void compose(const cli_session *s, const tw_train_metrics *m, double per_second, int dropped,
                    char *line, size_t size) {
    const double done = (double)m->step / (double)s->options.steps;
    const double each = (cli_seconds() - s->begun) / (double)(m->step - s->first);
    char bar[CLI_TEXT_SIZE + 2] = "", lr[32] = "", norm[32] = "", memory[48] = "", busy[32] = "";
    if (dropped < 1) snprintf(bar, sizeof bar, "  %s", cli_bar(done).text);
    if (dropped < 2) snprintf(lr, sizeof lr, "  lr %.2e", m->lr);
    if (dropped < 3) snprintf(norm, sizeof norm, "  grad %.3g", m->grad_norm);
    if (dropped < 4)
        snprintf(memory, sizeof memory, "  memory %.24s",
                 cli_bytes(s->held > 0.0 ? s->held : cli_peak_memory()).text);
    if (dropped < 5 && isfinite(s->busy))
        snprintf(busy, sizeof busy, "  GPU %.0f%%", 100.0 * s->busy);
    snprintf(line, size, "step %s/%s%s  loss %.4f%s%s  %s %s/s%s%s  left %s",
             cli_grouped(m->step).text, cli_grouped(s->options.steps).text, bar, s->loss, norm, lr,
             cli_rate(per_second).text, cli_shape_noun(&s->shape, false), busy, memory,
             cli_duration((double)(s->options.steps - m->step) * each).text);
}

static void show_line(cli_session *s, const tw_train_metrics *m, double per_second) {
    const double now = cli_seconds();
    char line[1024];
    if (cli_progress_live()) {
        if (now - s->shown < 0.1 && m->step != s->options.steps) return;
        for (int dropped = 0; dropped <= 5; dropped++) {
            compose(s, m, per_second, dropped, line, sizeof line);
            if (cli_progress_fits(line)) break;
        }
        cli_progress_show("%s", line);
    } else {
        const bool edge = m->step == s->first + 1 || m->step == s->options.steps;
        if (now - s->shown < PLAIN_EVERY && !edge) return;
        compose(s, m, per_second, 1, line, sizeof line);
        printf("%s\n", line);
        fflush(stdout);
    }
    s->shown = now;
}

static int log_scalars(cli_session *s, int64_t step, const tw_tfevents_scalar *scalars, int count) {
    const tw_status status =
        s->events ? tw_tfevents_scalars(s->events, step, scalars, count) : TW_OK;
    return status == TW_OK ? CLI_OK : cli_fail_status(s->ctx, status);
}

/* Whether the update was skipped; `bad` gets what was not finite. */
static tw_status look_at_skip(cli_session *s, const tw_train_metrics *m, char *bad, size_t size) {
    *bad = '\0';
    s->skipped = m->skipped;
    if (isfinite(m->loss) && isfinite(m->grad_norm)) {
        s->skipped_in_a_row = 0;
        return TW_OK;
    }
    s->skipped_in_a_row++;
    if (!cli_flag(s->args, "check-finite")) return TW_OK;
    return tw_trainer_find_not_finite(s->trainer, bad, size);
}

static void show_skip(const tw_train_metrics *m, const char *bad) {
    cli_progress_end_line();
    printf("step %s: the %s is not finite: its update is skipped, %s in all",
           cli_grouped(m->step).text, isfinite(m->loss) ? "gradient" : "loss",
           cli_grouped(m->skipped).text);
    if (*bad) printf("; first not finite: %s", bad);
    putchar('\n');
    fflush(stdout);
}

int cli_train_show_step(cli_session *s, const tw_train_metrics *m, double seconds) {
    smooth(s, m->loss, seconds);
    const double per_step = (double)(s->options.batch_size * s->options.accumulate);
    const double per_second = s->lap > 0.0 ? per_step / s->lap : 0.0;
    char line[640], bad[256], busy[48] = "";
    look_at_device(s);
    if (isfinite(s->busy)) snprintf(busy, sizeof busy, ", \"device_busy\": %.2f", s->busy);
    const tw_status status = look_at_skip(s, m, bad, sizeof bad);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    snprintf(line, sizeof line,
             "{\"step\": %" PRId64 ", \"loss\": %s, \"grad_norm\": %s, \"lr\": %s, "
             "\"skipped\": %" PRId64 "%s%s%s, \"samples_per_s\": %.6g%s, \"time\": %.6f}",
             m->step, json_number(m->loss).text, json_number(m->grad_norm).text,
             json_number(m->lr).text, m->skipped, *bad ? ", \"not_finite\": \"" : "", bad,
             *bad ? "\"" : "", per_second, busy, cli_seconds() - s->begun);
    int rc = cli_train_log(s, line);
    if (!rc)
        rc = log_scalars(s, m->step,
                         (tw_tfevents_scalar[]){{"train/loss", m->loss},
                                                {"train/grad_norm", m->grad_norm},
                                                {"train/lr", m->lr},
                                                {"train/samples_per_s", per_second}},
                         4);
    if (rc || s->log_json) return rc;
    if (s->skipped_in_a_row)
        show_skip(m, bad);
    else
        show_line(s, m, per_second);
    return CLI_OK;
}

int cli_train_show_validation(cli_session *s, int64_t step) {
    double loss = 0.0, averaged = 0.0;
    const bool ema = s->options.ema_decay > 0.0;
    tw_status status = tw_trainer_validate(s->trainer, 0, VALIDATION_SAMPLES, &loss);
    if (status == TW_OK && ema)
        status = tw_trainer_validate(s->trainer, 1, VALIDATION_SAMPLES, &averaged);
    if (status != TW_OK) return cli_fail_status(s->ctx, status);
    s->measured = ema ? averaged : loss;
    s->validated = step;
    char line[640];
    snprintf(line, sizeof line, "{\"step\": %" PRId64 ", \"validation_loss\": %s%s%s}", step,
             json_number(loss).text, ema ? ", \"validation_loss_average\": " : "",
             ema ? json_number(averaged).text : "");
    int rc = cli_train_log(s, line);
    if (!rc)
        rc = log_scalars(s, step,
                         (tw_tfevents_scalar[]){{"validation/loss", loss},
                                                {"validation/loss_average", averaged}},
                         ema ? 2 : 1);
    if (rc || s->log_json) return rc;
    cli_progress_end_line();
    printf("step %s: loss on held-out data %.4f", cli_grouped(step).text, loss);
    if (ema) printf(", with averaged weights %.4f", averaged);
    putchar('\n');
    fflush(stdout);
    return CLI_OK;
}

void cli_train_show_end(cli_session *s, int64_t step) {
    if (s->log_json) return;
    tw_trainer_memory memory = {.size = sizeof memory};
    const size_t bytes = tw_trainer_get_memory(s->trainer, &memory) == TW_OK ? planned(&memory) : 0;
    cli_progress_end_line();
    printf("%s steps in %s%sloss %.4f%smemory planned %s, peak of the process %s\n",
           cli_grouped(step - s->first).text, cli_duration(cli_seconds() - s->begun).text,
           cli_separator(), s->loss, cli_separator(), cli_bytes((double)bytes).text,
           cli_bytes(cli_peak_memory()).text);
    if (s->skipped)
        printf("%s updates were skipped: loss or gradient was not finite\n",
               cli_grouped(s->skipped).text);
    printf("%s\n", s->run->out);
}
