/* tweedie train: trains a model on a data set, resumably. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "cli/head.h"
#include "cli/presets.h"
#include "cli/signals.h"
#include "cli/train.h"
#include "io/file.h"

#define NO_LIMIT 9e15

static const cli_option options[] = {
    CLI_GROUP("Network"),
    {"preset", CLI_CHOICE, CLI_PRESET_NAMES, 0, 0, NULL,
     "network, schedule and option values that go together"},
    {"config", CLI_TEXT, "FILE.json", 0, 0, NULL,
     "the same from a file, such as the run.json of another run"},
    {"set", CLI_LIST, "KEY=VALUE", 0, 0, NULL,
     "set one field, such as model.layers_per_block=3, scheduler.beta_end=0.03 or options.lr=1e-4"},
    CLI_GROUP("Data"),
    {"data", CLI_TEXT, "scurve|shapes|PATH", 0, 0, NULL,
     "points or shapes made on the spot; a folder of PNG and JPEG files (sub-folders are classes) "
     "or a tar of them; "
     "CIFAR-10's .bin files; IDX images (.gz too); an .npy"},
    {"labels", CLI_TEXT, "FILE", 0, 0, NULL, "labels, IDX or .npy [found beside an IDX file]"},
    {"limit", CLI_INT, "N", 0, NO_LIMIT, "0",
     "use N samples, the first or, of a folder, spread over it; 0: all"},
    {"image-size", CLI_INT, "N", 0, 4096, "0",
     "bring pictures to NxN pixels, and a preset's network too; 0: the network's size"},
    {"channels", CLI_CHOICE, "auto|grey|rgb", 0, 0, "auto",
     "colours of the pictures, and of a preset's network; auto: the network's"},
    {"crop", CLI_CHOICE, "center|random|stretch|pad", 0, 0, "center",
     "how a picture is made square: its middle or a random part is cut out, it is stretched, or "
     "black is put around it"},
    {"flip", CLI_REAL, "P", 0, 1, "0", "share of the images mirrored"},
    {"holdout", CLI_REAL, "P", 0, 0.5, "0", "share of the data kept for validation"},
    CLI_GROUP("Run"),
    {"out", CLI_TEXT, "DIR", 0, 0, NULL, "the folder of the run: model, state, metrics, pictures"},
    {"resume", CLI_FLAG, NULL, 0, 0, NULL, "continue the run in --out"},
    {"dry-run", CLI_FLAG, NULL, 0, 0, NULL,
     "say what would be done, in how much memory and time; write nothing"},
    {"steps", CLI_INT, "N", 1, 1e9, "1000", "optimizer steps of the whole run"},
    {"seed", CLI_INT, "N", 0, NO_LIMIT, "0", "seed of the weights, the noise and the data's order"},
    CLI_GROUP("Optimizer"),
    {"batch-size", CLI_INT, "N", 1, 65536, "64", "samples that the network sees at once"},
    {"accumulate", CLI_INT, "N", 1, 65536, "1", "batches added up for one optimizer step"},
    {"lr", CLI_REAL, "X", 0, 1e3, "1e-3", "learning rate"},
    {"lr-schedule", CLI_CHOICE, "constant|cosine|linear", 0, 0, "constant",
     "the learning rate after the warm-up"},
    {"lr-warmup", CLI_INT, "N", 0, 1e9, "100", "steps in which the learning rate rises to --lr"},
    {"weight-decay", CLI_REAL, "X", 0, 1e3, "0", "AdamW's decoupled weight decay"},
    {"clip-norm", CLI_REAL, "X", 0, 1e300, "1", "largest norm of the gradient; 0: no bound"},
    {"ema", CLI_REAL, "X", 0, 0.9999999, "0.999",
     "decay of the weights' running average; 0: no average"},
    {"ema-warmup", CLI_CHOICE, "on|off", 0, 0, "on", "a lower decay in the first steps"},
    {"max-skipped", CLI_INT, "N", 0, 1e9, "50",
     "updates in a row that may be skipped, because loss or gradient is not finite, before the run "
     "stops, saved, with exit status 3"},
    CLI_GROUP("Loss"),
    {"loss-weight", CLI_CHOICE, "simple|min-snr", 0, 0, "simple",
     "how the time steps' losses are weighted"},
    {"snr-gamma", CLI_REAL, "X", 1e-6, 1e6, "5", "bound of --loss-weight min-snr"},
    {"antithetic", CLI_FLAG, NULL, 0, 0, NULL, "draw time steps in pairs, t and T-1-t"},
    {"cond-dropout", CLI_REAL, "P", 0, 1, "0",
     "share of the labels replaced by the empty class, so that sampling can be guided"},
    CLI_GROUP("Saves and reports"),
    {"save-every", CLI_INT, "N", 0, 1e9, "500", "steps between saves; 0: only at the end"},
    {"keep-last", CLI_INT, "N", 0, 1e6, "0", "keep the last N saves in DIR/checkpoints; 0: none"},
    {"keep-best", CLI_FLAG, NULL, 0, 0, NULL,
     "keep the model with the lowest loss on held-out data in DIR/best"},
    {"preview-every", CLI_INT, "N", 0, 1e9, "0", "steps between pictures of samples; 0: none"},
    {"preview-steps", CLI_INT, "S", 1, 1e6, "25", "DDIM steps of a picture, at most the model's T"},
    {"preview-guidance", CLI_REAL, "W", 0, 1e3, "1", "classifier-free guidance of a picture"},
    {"validate-every", CLI_INT, "N", 0, 1e9, "0", "steps between validations; 0: none"},
    {"tensorboard", CLI_CHOICE, "on|off", 0, 0, "on", "event files for TensorBoard in --out"},
    {"check-finite", CLI_FLAG, NULL, 0, 0, NULL,
     "of a step whose update is skipped, name the first tensor that is not finite; such a step is "
     "done twice"},
    {"log-json", CLI_FLAG, NULL, 0, 0, NULL, "print the lines of metrics.jsonl, nothing else"},
    CLI_GROUP("Machine"),
    CLI_DEVICE_ROWS,
    {"tune", CLI_FLAG, NULL, 0, 0, NULL,
     "let a GPU's clock choose the provider of every product, among those whose results agree; the "
     "choices are kept in DIR/providers.json, with which --resume, or another run that it is "
     "copied "
     "to beforehand, goes on to the same bits"},
    {"precision", CLI_CHOICE, CLI_TRAIN_PRECISIONS, 0, 0, "fp32",
     "what the network computes with; weights, their gradients, statistics and losses are fp32"},
    {"threads", CLI_INT, "N", 0, 1024, "0", "CPU threads; 0: one per core"},
    {"recompute", CLI_CHOICE, "none|norms|blocks", 0, 0, "none",
     "what the backward pass makes again, to the same bits, rather than keep in memory: normalised "
     "and activated tensors, or all inside a block"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

static void fill_options(const cli_args *args, tw_trainer_options *o) {
    static const tw_lr_schedule schedules[] = {TW_LR_CONSTANT, TW_LR_COSINE, TW_LR_LINEAR};
    static const tw_loss_weight weights[] = {TW_WEIGHT_SIMPLE, TW_WEIGHT_MIN_SNR};
    const tw_trainer_options defaults = TW_TRAINER_OPTIONS_INIT;
    *o = defaults;
    o->steps = cli_int(args, "steps");
    o->batch_size = cli_int(args, "batch-size");
    o->accumulate = cli_int(args, "accumulate");
    o->lr = cli_real(args, "lr");
    o->lr_schedule = schedules[cli_choice(args, "lr-schedule")];
    o->lr_warmup = cli_int(args, "lr-warmup");
    o->weight_decay = cli_real(args, "weight-decay");
    o->clip_norm = cli_real(args, "clip-norm");
    o->ema_decay = cli_real(args, "ema");
    o->ema_warmup = cli_choice(args, "ema-warmup") == 0;
    o->weight = weights[cli_choice(args, "loss-weight")];
    o->snr_gamma = cli_real(args, "snr-gamma");
    o->antithetic = cli_flag(args, "antithetic");
    o->cond_dropout = cli_real(args, "cond-dropout");
    o->flip = cli_real(args, "flip");
    o->holdout = cli_real(args, "holdout");
    o->seed = (uint64_t)cli_int(args, "seed");
    o->recompute = (tw_recompute)cli_choice(args, "recompute");
    o->precision = (tw_precision)cli_choice(args, "precision");
}

static int check_options(const cli_args *args) {
    if (!cli_text(args, "data"))
        return cli_usage(
            "train: --data SOURCE is missing: a folder of pictures, shapes, scurve, an "
            "IDX file, an .npy or others that `tweedie help train` lists");
    if (cli_int(args, "validate-every") > 0 && !(cli_real(args, "holdout") > 0.0))
        return cli_usage("--validate-every: nothing is held out; give --holdout too, such as 0.1");
    if (cli_flag(args, "keep-best") && cli_int(args, "validate-every") == 0)
        return cli_usage("--keep-best: nothing measures the loss on held-out data; give "
                         "--validate-every and --holdout too");
    return CLI_OK;
}

/* Takes up the saved state. A run that was ended before its first save starts again. */
static int take_up(cli_session *s) {
    char state[4096], file[4096];
    if (!s->run->resume || !cli_run_path(s->run, "state", state, sizeof state) ||
        !cli_run_path(s->run, "state/trainer.safetensors", file, sizeof file))
        return CLI_OK;
    if (tw_file_exists(file)) {
        const tw_status status = tw_trainer_resume(s->trainer, state);
        if (status != TW_OK) return cli_fail_status(s->ctx, status);
        s->saved = tw_trainer_step_count(s->trainer);
    }
    s->first = tw_trainer_step_count(s->trainer);
    return CLI_OK;
}

#define MOST_LAG 2

static bool due(const cli_session *s, const char *name, int64_t step) {
    const int64_t every = cli_int(s->args, name);
    return every > 0 && (step % every == 0 || step == s->options.steps);
}

static int stop(cli_session *s, int64_t step) {
    int rc = step == s->saved ? CLI_OK : cli_train_save(s, step, true, false);
    if (!rc) rc = cli_writer_wait(&s->writer);
    cli_progress_end_line();
    if (rc) return rc;
    if (cli_signals_unread())
        cli_fail("standard output is closed; stopped at step %s, `tweedie train --out %s --resume` "
                 "continues",
                 cli_grouped(step).text, s->run->out);
    else if (!s->log_json)
        printf("stopped at step %s; `tweedie train --out %s --resume` continues\n",
               cli_grouped(step).text, s->run->out);
    return CLI_INTERRUPTED;
}

/* Saves what the last finite update left. */
static int give_up(cli_session *s, int64_t step) {
    int rc = step == s->saved ? CLI_OK : cli_train_save(s, step, true, false);
    if (!rc) rc = cli_writer_wait(&s->writer);
    if (rc) return rc;
    cli_fail("--max-skipped: step %s: loss or gradient has not been finite for %s steps; the state "
             "before them is saved in %s; a lower --lr or --clip-norm may help",
             cli_grouped(step).text, cli_grouped(s->skipped_in_a_row).text, s->run->out);
    return CLI_NOT_FINITE;
}

/* What follows a step: validation, save, picture, so that a signal or a second failure while it is
 * drawn costs no steps. */
static int after_step(cli_session *s, int64_t step) {
    int rc = cli_writer_check(&s->writer);
    bool is_best = false;
    if (!rc && due(s, "validate-every", step)) {
        rc = cli_train_show_validation(s, step);
        is_best = !rc && cli_flag(s->args, "keep-best") && s->measured < s->best;
        if (is_best) s->best = s->measured;
    }
    const bool is_due = due(s, "save-every", step) || step == s->options.steps;
    const bool as_run = is_due && !cli_signals_stop();
    if (!rc) rc = cli_train_keep_tuning(s);
    if (!rc && (as_run || is_best)) rc = cli_train_save(s, step, as_run, is_best);
    if (rc || cli_signals_stop() || !due(s, "preview-every", step)) return rc;
    rc = cli_train_preview(s, step);
    return rc ? rc : cli_train_keep_tuning(s); /* pictures have plans of their own */
}

/* Steps that may be queued before the metrics of one are read, so that a GPU need not wait for the
 * host: none where something follows from these at once. A run gives up exactly where it would
 * without: the steps after a skipped one are read one by one. */
static int64_t lag(const cli_session *s, int64_t step) {
    const bool now = step == s->options.steps || due(s, "validate-every", step) ||
                     due(s, "preview-every", step) || due(s, "save-every", step) ||
                     cli_signals_stop() || s->skipped_in_a_row ||
                     cli_flag(s->args, "check-finite") ||
                     cli_int(s->args, "max-skipped") < MOST_LAG;
    return now || tw_context_device(s->ctx) == TW_DEVICE_CPU ? 0 : MOST_LAG;
}

/* Reads and shows the metrics of steps up to `step`, but for those that may be read later. */
static int catch_up(cli_session *s, int64_t step) {
    while (step - s->read > lag(s, step)) {
        tw_train_metrics m = {.size = sizeof m};
        const tw_status status = tw_trainer_metrics(s->trainer, 1, &m);
        if (status != TW_OK) return cli_fail_status(s->ctx, status);
        const double now = cli_seconds();
        const int rc = cli_train_show_step(s, &m, now - s->last);
        s->last = now;
        s->read = m.step;
        if (rc) return rc;
        if (s->skipped_in_a_row > cli_int(s->args, "max-skipped")) return give_up(s, m.step);
    }
    return CLI_OK;
}

static int loop(cli_session *s) {
    int64_t step = s->read = s->first;
    s->begun = s->shown = s->last = cli_seconds();
    while (step < s->options.steps) {
        int rc = catch_up(s, step); /* a signal wants all */
        if (rc) return rc;
        if (cli_signals_stop() && step == s->read) return stop(s, step);
        if (s->read == step) s->last = cli_seconds();
        const tw_status status = tw_trainer_step(s->trainer, NULL);
        if (status != TW_OK) return cli_fail_status(s->ctx, status);
        step++;
        rc = catch_up(s, step);
        if (rc) return rc;
        if (s->read < step) continue; /* nothing is due */
        rc = after_step(s, step);
        if (rc) return rc;
    }
    if (cli_signals_stop()) return stop(s, step);
    const int rc = cli_writer_wait(&s->writer);
    if (!rc) cli_train_show_end(s, step);
    return rc;
}

static void close_parts(cli_session *s) {
    cli_writer_close(&s->writer);
    if (s->lock >= 0) close(s->lock);
    if (s->metrics) fclose(s->metrics);
    tw_tfevents_close(s->events);
    tw_trainer_free(s->trainer);
    tw_dataset_free(s->dataset);
    tw_model_free(s->model);
    tw_context_free(s->ctx);
}

/* A run that has all its steps already. */
static int finished(cli_session *s) {
    const int rc = cli_train_tidy(s);
    if (!rc && !s->log_json)
        printf("%s is complete with %s steps; --steps N continues it\n", s->run->out,
               cli_grouped(s->first).text);
    return rc;
}

/* Everything is open and nothing written. */
static int carry_out(cli_session *s) {
    int rc = CLI_OK;
    if (!s->dry_run && s->run->resume && s->first == s->options.steps) return finished(s);
    if (!s->dry_run) cli_signals_catch(); /* it has nothing to save: a signal ends it at once */
    if (!s->dry_run) rc = cli_train_begin_files(s);
    if (!rc) rc = cli_train_keep_tuning(s);
    if (!rc) rc = cli_train_show_table(s);
    if (rc) return rc;
    return s->dry_run ? cli_train_dry_run(s) : loop(s);
}

static int train(cli_args *args, cli_run *run) {
    cli_session s = {.args = args,
                     .run = run,
                     .log_json = cli_flag(args, "log-json"),
                     .dry_run = cli_flag(args, "dry-run"),
                     .saved = -1,
                     .measured = (double)NAN,
                     .validated = -1,
                     .best = (double)INFINITY,
                     .lock = -1};
    int rc = check_options(args);
    if (rc) return rc;
    fill_options(args, &s.options);
    rc = cli_train_open(&s, args, run);
    if (!rc) rc = cli_train_check_preview(&s);
    if (!rc) rc = cli_run_check_data(run, args);
    if (!rc && run->resume && !s.dry_run) rc = cli_train_lock(&s);
    if (!rc) rc = take_up(&s);
    if (!rc) rc = carry_out(&s);
    close_parts(&s);
    return rc;
}

static int run_train(const cli_args *given) {
    cli_args args = *given;
    cli_run run;
    int rc = cli_run_open(&args, &run);
    if (!rc) rc = train(&args, &run);
    cli_run_close(&run);
    return rc;
}

static const cli_example examples[] = {
    {"points on an S-curve, in half a minute", "tweedie train --preset scurve --out run"},
    {"your own pictures, in sub-folders if they have classes",
     "tweedie train --preset images --data photos --out run"},
    {"what that would take", "tweedie train --preset images --data photos --dry-run"},
    {"digits", "tweedie train --preset mnist --data t10k-images-idx3-ubyte.gz --out run"},
    {"go on after Ctrl-C", "tweedie train --out run --resume"},
    {"train the same again", "tweedie train --config run/run.json --out again"},
    {NULL, NULL}};

const cli_command cli_train_command = {
    .name = "train",
    .summary = "trains a model on a data set",
    .usage = "tweedie train --preset NAME --data SOURCE --out DIR [--option VALUE ...]\n"
             "tweedie train --config FILE.json --out DIR [--option VALUE ...]\n"
             "tweedie train --out DIR --resume",
    .options = options,
    .notes = "Presets: scurve (points on a curve), shapes (discs, rings, squares and others, made "
             "on the spot), images (your own pictures, at 32 x 32 unless --image-size says "
             "otherwise), mnist (digits at 28 x 28), cifar10 (the large network of Ho et al. "
             "2020).\n"
             "A preset's values stand in place of the defaults in brackets, and what is given "
             "stands over both; run.json says what was taken.\n"
             "The model (averaged weights) is "
             "written into --out as diffusers writes it. Ctrl-C finishes the step and saves; "
             "--resume goes on to the same numbers.",
    .examples = examples,
    .run = run_train};
