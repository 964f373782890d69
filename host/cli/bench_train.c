/* Rows of `tweedie bench train`: optimizer steps. */
#include <math.h>

#include "cli/bench.h"
#include "train/internal.h"

static tw_status create(cli_bench *b, const cli_bench_row *row) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.steps = (int64_t)1 << 40;
    o.batch_size = row->batch;
    o.lr = 1e-4;
    o.precision = (tw_precision)cli_choice(b->args, "precision");
    o.recompute = (tw_recompute)cli_choice(b->args, "recompute");
    return tw_trainer_create(b->model, b->dataset, &o, &b->trainer);
}

/* With its metrics, as `tweedie train` asks for them. */
static tw_status step(cli_bench *b, cli_bench_row *row) {
    tw_train_metrics m = {.size = sizeof m};
    TW_TRY(tw_trainer_step(b->trainer, &m));
    row->evaluations = (double)row->batch;
    b->loss = m.loss;
    return TW_OK;
}

static tw_status queue_step(cli_bench *b) {
    return tw_trainer_step(b->trainer, NULL);
}

static int parts(const cli_bench *b, cli_bench_part *out) {
    out[0] = (cli_bench_part){b->trainer->micro.plan, 1, false};
    out[1] = (cli_bench_part){b->trainer->update, 1, true};
    return 2;
}

static tw_status memory(const cli_bench *b, const cli_bench_row *row, json_t *bytes) {
    tw_trainer_memory m = {.size = sizeof m};
    (void)row;
    TW_TRY(tw_trainer_get_memory(b->trainer, &m));
    json_object_set_new(bytes, "weights", json_integer((json_int_t)m.weights));
    json_object_set_new(bytes, "rounded", json_integer((json_int_t)m.rounded));
    json_object_set_new(bytes, "gradients", json_integer((json_int_t)m.gradients));
    json_object_set_new(bytes, "optimizer", json_integer((json_int_t)m.optimizer));
    json_object_set_new(bytes, "average", json_integer((json_int_t)m.ema));
    json_object_set_new(bytes, "arena", json_integer((json_int_t)m.arena));
    json_object_set_new(bytes, "staging", json_integer((json_int_t)m.staging));
    json_object_set_new(bytes, "data", json_integer((json_int_t)m.resident));
    return TW_OK;
}

static bool all_finite(const cli_bench *b, const cli_bench_row *row) {
    (void)row;
    return isfinite(b->loss);
}

static void close_row(cli_bench *b) {
    tw_trainer_free(b->trainer);
    b->trainer = NULL;
}

const cli_bench_work cli_bench_training = {
    .name = "train",
    .call = "step",
    .included = "loader's batch, copies to and from the device, noising, network, gradients, "
                "clipping, AdamW, average",
    .create = create,
    .call_once = step,
    .queue_once = queue_step,
    .parts = parts,
    .memory = memory,
    .finite = all_finite,
    .close = close_row};
