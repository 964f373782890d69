/* Measuring one row of a benchmark: creation, the first call, the steady state, and in a second
 * pass where the time goes. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "cli/bench.h"
#include "cli/progress.h"
#include "cli/quantile.h"
#include "cli/signals.h"
#include "core/context.h"

#define PLAIN_CALLS 5

/* Processor time of all threads. */
static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

tw_status cli_bench_wait(const cli_bench *b) {
    return b->ctx->backend->synchronize(b->ctx->backend);
}

/* NAN where nothing is counted. */
static void meter(const cli_bench *b, double *joules, double *busy) {
    *joules = *busy = (double)NAN;
    if (b->ctx->backend->meter) b->ctx->backend->meter(b->ctx->backend, joules, busy);
}

/* Of the device's memory, since the last call. */
static void read_peak(const cli_bench *b, cli_bench_row *row) {
    row->peak = row->held = (double)NAN;
    if (b->ctx->backend->peak) b->ctx->backend->peak(b->ctx->backend, true, &row->peak, &row->held);
}

static tw_status call(cli_bench *b, cli_bench_row *row, double *seconds) {
    if (cli_signals_stop()) return TW_ERROR_CANCELLED;
    const double begun = cli_seconds();
    TW_TRY(b->work->call_once(b, row));
    TW_TRY(cli_bench_wait(b));
    *seconds = cli_seconds() - begun;
    return TW_OK;
}

/* --- What a call consists of --- */

static json_t *count_launches(const cli_bench *b) {
    cli_bench_part parts[CLI_BENCH_PARTS];
    const int n = b->work->parts(b, parts);
    json_t *launches = json_object();
    const char *name;
    for (int i = 0; (name = tw_context_provider(b->ctx, i)); i++) {
        int64_t sum = 0;
        for (int k = 0; k < n; k++)
            sum += parts[k].runs * tw_plan_provider_launches(parts[k].plan, name);
        if (sum) json_object_set_new(launches, name, json_integer(sum));
    }
    return launches;
}

/* `calls`: how many were timed; 0: none. */
static tw_status add_classes(const cli_bench *b, cli_bench_row *row, int64_t calls) {
    cli_bench_part parts[CLI_BENCH_PARTS];
    const int n = b->work->parts(b, parts);
    memset(row->classes, 0, sizeof row->classes);
    for (int i = 0; i < n; i++) {
        tw_class_cost costs[TW_CLASS_COUNT];
        TW_TRY(tw_plan_get_classes(parts[i].plan, costs));
        for (int k = 0; k < TW_CLASS_COUNT; k++) {
            tw_class_cost *to = &row->classes[parts[i].optimizer ? TW_CLASS_OPTIMIZER : k];
            to->calls += (int)parts[i].runs * costs[k].calls;
            to->flops += (double)parts[i].runs * costs[k].flops;
            if (calls > 0) to->seconds += costs[k].seconds / (double)calls;
        }
    }
    return TW_OK;
}

static tw_status look(cli_bench *b, cli_bench_row *row) {
    row->launches = count_launches(b);
    row->memory = json_object();
    TW_TRY(add_classes(b, row, 0));
    return b->work->memory(b, row, row->memory);
}

/* --- The passes --- */

static tw_status begin(cli_bench *b, cli_bench_row *row) {
    const double begun = cli_seconds();
    TW_TRY(b->work->create(b, row));
    TW_TRY(cli_bench_wait(b));
    row->create = cli_seconds() - begun;
    TW_TRY(call(b, row, &row->first));
    return look(b, row);
}

static void show_progress(const cli_bench *b, const cli_bench_row *row, const char *what,
                          int64_t done, int64_t of) {
    if (!cli_progress_live()) return;
    cli_progress_show("row %" PRId64 " of %" PRId64 "  batch %" PRId64 "  %s %" PRId64 "/%" PRId64,
                      row->number, b->rows, row->batch, what, done, of);
}

static bool keep(cli_bench_row *row, double seconds) {
    if (row->count == row->capacity) {
        const int64_t capacity = row->capacity ? 2 * row->capacity : 64;
        double *more = realloc(row->seconds, (size_t)capacity * sizeof *more);
        if (!more) return false;
        row->seconds = more;
        row->capacity = capacity;
    }
    row->seconds[row->count++] = seconds;
    row->total += seconds;
    return true;
}

static tw_status time_calls(cli_bench *b, cli_bench_row *row) {
    const int64_t warmup = cli_int(b->args, "warmup"), repeats = cli_int(b->args, "repeats");
    const double least = cli_real(b->args, "seconds");
    double seconds;
    for (int64_t i = 0; i < warmup; i++) {
        show_progress(b, row, "warm-up", i, warmup);
        TW_TRY(call(b, row, &seconds));
    }
    double joules, joules_then, busy;
    TW_TRY(cli_bench_wait(b));
    meter(b, &joules_then, &busy);
    const double before = processor_seconds();
    tw_status s = TW_OK;
    while (s == TW_OK && (row->count < repeats || row->total < least)) {
        show_progress(b, row, b->work->call, row->count, repeats);
        s = call(b, row, &seconds);
        if (s == TW_OK && !keep(row, seconds))
            s = tw_fail(b->ctx, TW_ERROR_MEMORY, "out of memory");
    }
    row->processor = processor_seconds() - before;
    meter(b, &joules, &row->busy);
    if (row->total >= CLI_BENCH_METERED) row->joules = joules - joules_then;
    return s;
}

/* The same calls, one kernel at a time. */
static tw_status time_plain(cli_bench *b, cli_bench_row *row) {
    tw_backend *backend = b->ctx->backend;
    double seconds[PLAIN_CALLS];
    tw_status s = TW_OK;
    if (!backend->record) return TW_OK;
    backend->plain = true;
    for (int i = 0; i < PLAIN_CALLS && s == TW_OK; i++) {
        show_progress(b, row, "call by call", i, PLAIN_CALLS);
        s = call(b, row, &seconds[i]);
    }
    backend->plain = false;
    if (s == TW_OK) row->plain = cli_quantile(seconds, PLAIN_CALLS, 0.5);
    return s;
}

/* As a training run goes, which reads what a step gave only later. */
static tw_status time_queued(cli_bench *b, cli_bench_row *row) {
    if (!b->ctx->backend->record || !b->work->queue_once) return TW_OK;
    TW_TRY(cli_bench_wait(b));
    const double begun = cli_seconds();
    for (int64_t i = 0; i < row->count; i++) {
        show_progress(b, row, "queued", i, row->count);
        if (cli_signals_stop()) return TW_ERROR_CANCELLED;
        TW_TRY(b->work->queue_once(b));
    }
    TW_TRY(cli_bench_wait(b));
    row->queued = (cli_seconds() - begun) / (double)row->count;
    return TW_OK;
}

static tw_status split(cli_bench *b, cli_bench_row *row) {
    cli_bench_part parts[CLI_BENCH_PARTS];
    const int n = b->work->parts(b, parts);
    double seconds;
    for (int k = 0; k < n; k++) TW_TRY(tw_plan_start_times(parts[k].plan));
    const double before = tw_times_clock(b->ctx);
    for (int64_t i = 0; i < CLI_BENCH_SPLIT; i++) {
        show_progress(b, row, "second pass", i, CLI_BENCH_SPLIT);
        TW_TRY(call(b, row, &seconds));
        row->split_wall += seconds / CLI_BENCH_SPLIT;
    }
    row->split = (tw_times_clock(b->ctx) - before) / CLI_BENCH_SPLIT;
    TW_TRY(add_classes(b, row, CLI_BENCH_SPLIT));
    row->split_calls = CLI_BENCH_SPLIT;
    return TW_OK;
}

int cli_bench_measure(cli_bench *b, cli_bench_row *row) {
    row->joules = row->busy = row->plain = row->queued = (double)NAN;
    read_peak(b, row); /* of what was before */
    tw_status s = begin(b, row);
    if (s == TW_OK) s = time_calls(b, row);
    if (s == TW_OK) s = time_queued(b, row);
    if (s == TW_OK) s = time_plain(b, row);
    if (row->count > 0) row->finite = b->work->finite(b, row);
    if (s == TW_OK) s = split(b, row);
    row->complete = s == TW_OK;
    row->process = cli_peak_memory();
    read_peak(b, row);
    cli_quantile(row->seconds, row->count, 0.5); /* sorts them */
    return s == TW_OK ? CLI_OK : cli_fail_status(b->ctx, s);
}

void cli_bench_row_free(cli_bench_row *row) {
    free(row->seconds);
    json_decref(row->launches);
    json_decref(row->memory);
}
