/* Rows of `tweedie bench sample`: runs of a sampler over one batch. */
#include <math.h>

#include "cli/bench.h"
#include "cli/signals.h"
#include "core/context.h"
#include "diffusion/sampler.h"
#include "models/model.h"

static int on_step(void *user, const tw_step_info *info) {
    (void)user;
    (void)info;
    return cli_signals_stop();
}

static tw_status create(cli_bench *b, const cli_bench_row *row) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    const size_t count = (size_t)row->batch * (size_t)b->shape.count;
    b->samples = tw_allocate(b->ctx, count, sizeof *b->samples);
    b->labels = tw_allocate(b->ctx, (size_t)row->batch, sizeof *b->labels);
    if (!b->samples || !b->labels) return TW_ERROR_MEMORY;
    for (int64_t i = 0; b->info.classes > 0 && i < row->batch; i++)
        b->labels[i] = (int32_t)(i % b->info.classes);
    o.kind = cli_choice(b->args, "sampler") == 1 ? TW_SAMPLER_DDPM : TW_SAMPLER_DDIM;
    o.steps = row->steps;
    o.eta = cli_real(b->args, "eta");
    o.guidance = cli_real(b->args, "guidance");
    o.max_batch = row->batch;
    o.precision = (tw_precision)cli_choice(b->args, "precision");
    o.hook = on_step;
    return tw_sampler_create(b->model, &o, &b->sampler);
}

static tw_status run(cli_bench *b, cli_bench_row *row) {
    TW_TRY(tw_sampler_run(b->sampler, row->batch, b->info.classes > 0 ? b->labels : NULL, NULL,
                          b->samples));
    row->evaluations = (double)row->batch * (double)b->sampler->steps * (b->guided ? 2.0 : 1.0);
    return TW_OK;
}

/* That of the batch, the only one that there is. */
static int parts(const cli_bench *b, cli_bench_part *out) {
    const tw_sampler_chunk *chunk = b->sampler->chunks[0];
    out[0] = (cli_bench_part){chunk->start, 1, false};
    out[1] = (cli_bench_part){chunk->step, b->sampler->steps, false};
    return 2;
}

static tw_status memory(const cli_bench *b, const cli_bench_row *row, json_t *bytes) {
    const tw_sampler_chunk *chunk = b->sampler->chunks[0];
    tw_plan_stats start = {.size = sizeof start}, step = {.size = sizeof step};
    size_t all;
    TW_TRY(tw_sampler_memory(b->sampler, row->batch, &all));
    TW_TRY(tw_plan_get_stats(chunk->start, &start));
    TW_TRY(tw_plan_get_stats(chunk->step, &step));
    const size_t arena = start.arena_bytes + step.arena_bytes;
    const size_t weights = (size_t)b->model->weights.total * sizeof(float);
    json_object_set_new(bytes, "weights", json_integer((json_int_t)weights));
    const size_t rounded = b->sampler->rounded.bytes;
    json_object_set_new(bytes, "rounded", json_integer((json_int_t)rounded));
    json_object_set_new(bytes, "arena", json_integer((json_int_t)arena));
    json_object_set_new(bytes, "staging", json_integer((json_int_t)(all - arena - rounded)));
    return TW_OK;
}

static bool all_finite(const cli_bench *b, const cli_bench_row *row) {
    for (int64_t i = 0; i < row->batch * b->shape.count; i++)
        if (!isfinite(b->samples[i])) return false;
    return true;
}

static void close_row(cli_bench *b) {
    tw_sampler_free(b->sampler);
    tw_free(b->ctx, b->samples);
    tw_free(b->ctx, b->labels);
    b->sampler = NULL;
    b->samples = NULL;
    b->labels = NULL;
}

const cli_bench_work cli_bench_sampling = {
    .name = "sample",
    .call = "run",
    .included = "starting noise, evaluations, updates, the samples' copy to the host; no PNG",
    .create = create,
    .call_once = run,
    .parts = parts,
    .memory = memory,
    .finite = all_finite,
    .close = close_row};
