/* What a benchmark says: a table, and lines of JSON. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/bench.h"
#include "cli/head.h"
#include "cli/machine.h"
#include "cli/quantile.h"
#include "core/context.h"
#include "io/file.h"

/* --- Figures --- */

/* Of the timed calls, which are sorted. */
static double quantile(const cli_bench_row *row, double q) {
    return cli_quantile(row->seconds, row->count, q);
}

static double flops(const cli_bench_row *row) {
    double sum = 0.0;
    for (int i = 0; i < TW_CLASS_COUNT; i++) sum += row->classes[i].flops;
    return sum;
}

/* The split's seconds outside of the plans: copies, the loader, the calls themselves. */
static double outside(const cli_bench_row *row) {
    double rest = row->split;
    for (int i = 0; i < TW_CLASS_COUNT; i++) rest -= row->classes[i].seconds;
    return rest;
}

/* Per second of a median call. */
static double rate(const cli_bench_row *row, double amount) {
    const double median = quantile(row, 0.5);
    return median > 0.0 ? amount / median : 0.0;
}

/* Of a sample; NAN where they were not counted. */
static double joules(const cli_bench_row *row) {
    return row->joules / ((double)row->count * (double)row->batch);
}

/* A part of --peak-tflops; NAN without one. */
static double utilisation(const cli_bench *b, const cli_bench_row *row) {
    if (!cli_text(b->args, "peak-tflops")) return (double)NAN;
    return rate(row, flops(row)) / (1e12 * cli_real(b->args, "peak-tflops"));
}

static json_int_t planned(const cli_bench_row *row) {
    json_int_t sum = 0;
    const char *key;
    json_t *bytes;
    json_object_foreach(row->memory, key, bytes) sum += json_integer_value(bytes);
    return sum;
}

/* --- The table --- */

static void show_work(const cli_bench *b) {
    const int64_t *e = b->shape.extents;
    const char *preset = cli_bench_preset(b), *set;
    printf("  %-12s %s %s", b->work->name, preset ? "preset" : "model",
           preset ? preset : cli_text(b->args, "model"));
    for (int i = 0; (set = cli_listed(b->args, "set", i)); i++) printf(", %s", set);
    if (b->shape.rank == 3)
        printf(", %s of %" PRId64 "x%" PRId64 "x%" PRId64, cli_shape_noun(&b->shape, false), e[0],
               e[1], e[2]);
    else
        printf(", %s of %" PRId64 " numbers", cli_shape_noun(&b->shape, false), e[0]);
    if (b->work == &cli_bench_training)
        printf(", data %s\n", cli_text(b->args, "data"));
    else
        printf(", %s, guidance %g\n", cli_text(b->args, "sampler"), cli_real(b->args, "guidance"));
}

void cli_bench_show_head(const cli_bench *b) {
    const bool sampling = b->work == &cli_bench_sampling;
    const char *call = b->work->call, *noun = cli_shape_noun(&b->shape, false);
    cli_print_head(b->ctx, &b->info, cli_text(b->args, "precision"), "");
    show_work(b);
    printf("  %-12s %s\n", "included", b->work->included);
    printf("  %-12s in a second pass of %d %ss, call by call: %s\n", "split", CLI_BENCH_SPLIT, call,
           tw_times_clock_name(b->ctx));
    printf("\n%4s %6s", "row", "batch");
    if (sampling) printf(" %6s", "steps");
    printf(" %10s", noun);
    if (sampling) printf(" %9s", "evals");
    printf(" %9s %9s %9s", "median", "p10", "p90");
    if (sampling) printf(" %9s", "p99");
    printf(" %6s %8s %7s %9s %9s %9s\n", "n", "GFLOP", "of peak", "memory", "create", "first");
    printf("%4s %6s", "", "");
    if (sampling) printf(" %6s", "");
    printf(" %10s", "/s");
    if (sampling) printf(" %9s", "/s");
    printf(" %9s %9s %9s", "ms", "ms", "ms");
    if (sampling) printf(" %9s", "ms");
    printf(" %6s %8s %7s %9s %9s %9s\n", "", "/s", "", "planned", "ms", "ms");
    fflush(stdout);
}

static void show_split(const cli_bench_row *row) {
    if (row->split_calls == 0) return;
    printf("%11s ", "");
    for (int i = TW_CLASS_OTHER + 1; i <= TW_CLASS_COUNT; i++) {
        const int k = i % TW_CLASS_COUNT; /* "other" comes last */
        const double part = row->classes[k].seconds / row->split;
        if (part >= 0.0005) printf("%s %.1f%%, ", tw_op_class_name((tw_op_class)k), 100.0 * part);
    }
    printf("outside %.1f%% of %.2f ms (%.2f ms by the clock)\n", 100.0 * outside(row) / row->split,
           1e3 * row->split, 1e3 * row->split_wall);
}

static void show_launches(const cli_bench *b, const cli_bench_row *row) {
    const char *name, *between = "";
    json_t *count;
    printf("%11s launches a %s: ", "", b->work->call);
    json_object_foreach(row->launches, name, count) {
        printf("%s%s %lld", between, name, (long long)json_integer_value(count));
        between = ", ";
    }
    printf("; the process held %s at most so far", cli_bytes(row->process).text);
    if (isfinite(row->peak))
        printf(", this row %s of the device (%s with what is kept for later)",
               cli_bytes(row->peak).text, cli_bytes(row->held).text);
    putchar('\n');
}

/* What only a GPU tells. */
static void show_device(const cli_bench *b, const cli_bench_row *row) {
    if (!isfinite(row->plain)) return;
    printf("%11s as a graph %.2f times as quick as call by call (%.2f ms)", "",
           row->plain / quantile(row, 0.5), 1e3 * row->plain);
    if (isfinite(row->queued))
        printf("; queued one behind the other %s %s/s",
               cli_rate((double)row->batch / row->queued).text, cli_shape_noun(&b->shape, false));
    if (isfinite(row->busy)) printf("; at work %.0f%% of the time", 100.0 * row->busy);
    if (isfinite(joules(row)))
        printf("; %.3g joules a sample", joules(row));
    else if (isfinite(row->busy) && row->total < CLI_BENCH_METERED)
        printf("; joules take --seconds %g", CLI_BENCH_METERED);
    putchar('\n');
}

void cli_bench_show_row(const cli_bench *b, const cli_bench_row *row) {
    const bool sampling = b->work == &cli_bench_sampling;
    const double used = utilisation(b, row);
    char part[16] = "-";
    if (isfinite(used)) snprintf(part, sizeof part, "%.1f%%", 100.0 * used);
    cli_progress_clear();
    printf("%4" PRId64 " %6" PRId64, row->number, row->batch);
    if (sampling) printf(" %6" PRId64, row->steps);
    printf(" %10s", cli_rate(rate(row, (double)row->batch)).text);
    if (sampling) printf(" %9s", cli_rate(rate(row, row->evaluations)).text);
    printf(" %9.2f %9.2f %9.2f", 1e3 * quantile(row, 0.5), 1e3 * quantile(row, 0.1),
           1e3 * quantile(row, 0.9));
    if (sampling) printf(" %9.2f", 1e3 * quantile(row, 0.99));
    printf(" %6" PRId64 " %8s %7s %9s %9.2f %9.2f\n", row->count,
           cli_rate(1e-9 * rate(row, flops(row))).text, part, cli_bytes((double)planned(row)).text,
           1e3 * row->create, 1e3 * row->first);
    show_split(row);
    show_launches(b, row);
    show_device(b, row);
    if (!row->finite) printf("%11s not all numbers that came out are finite\n", "");
    if (!row->complete) printf("%11s broken off\n", "");
    fflush(stdout);
}

int cli_bench_show_operations(const cli_bench *b, const cli_bench_row *row) {
    cli_bench_part parts[CLI_BENCH_PARTS];
    const int most = (int)cli_int(b->args, "operations");
    const int n = most > 0 && row->split_calls > 0 ? b->work->parts(b, parts) : 0;
    for (int i = 0; i < n; i++) {
        const tw_status s = tw_plan_write_times(parts[i].plan, most, stdout);
        if (s != TW_OK) return cli_fail_status(b->ctx, s);
    }
    return CLI_OK;
}

/* --- JSON --- */

static json_t *number_json(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *seconds_json(const cli_bench_row *row) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "median", quantile(row, 0.5), "p10",
                     quantile(row, 0.1), "p90", quantile(row, 0.9), "p99", quantile(row, 0.99),
                     "least", quantile(row, 0.0), "most", quantile(row, 1.0), "total", row->total);
}

static json_t *split_json(const cli_bench *b, const cli_bench_row *row) {
    if (row->split_calls == 0) return json_null();
    json_t *classes = json_object();
    for (int i = 0; i < TW_CLASS_COUNT; i++) {
        const tw_class_cost *c = &row->classes[i];
        json_object_set_new(classes, tw_op_class_name((tw_op_class)i),
                            json_pack("{s:f, s:f, s:i}", "seconds", c->seconds, "flops", c->flops,
                                      "launches", c->calls));
    }
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:o}", "clock", tw_times_clock_name(b->ctx),
                     "calls", (json_int_t)row->split_calls, "wall_seconds", row->split_wall,
                     "seconds", row->split, "outside", outside(row), "classes", classes);
}

json_t *cli_bench_row_json(const cli_bench *b, const cli_bench_row *row) {
    const bool sampling = b->work == &cli_bench_sampling;
    const double samples = (double)row->batch;
    json_t *memory = json_copy(row->memory);
    json_object_set_new(memory, "planned", json_integer(planned(row)));
    json_object_set_new(memory, "process", json_integer((json_int_t)row->process));
    if (isfinite(row->peak)) { /* on a GPU */
        json_object_set_new(memory, "device_used", json_integer((json_int_t)row->peak));
        json_object_set_new(memory, "device_held", json_integer((json_int_t)row->held));
    }
    json_t *j = json_pack(
        "{s:I, s:s, s:I, s:o, s:o, s:b, s:b, s:I, s:o, s:f, s:f, s:o, s:f, s:f, s:f, s:o}", "row",
        (json_int_t)row->number, "mode", b->work->name, "batch", (json_int_t)row->batch, "steps",
        sampling ? json_integer(row->steps) : json_null(), "arguments", cli_bench_arguments(b, row),
        "complete", row->complete, "finite", row->finite, "n", (json_int_t)row->count, "seconds",
        seconds_json(row), "processor_seconds", row->processor / (double)row->count, "images_per_s",
        rate(row, samples), "evaluations_per_s",
        sampling ? json_real(rate(row, row->evaluations)) : json_null(), "images_per_s_sustained",
        samples * (double)row->count / row->total, "flops", flops(row), "flops_per_s",
        rate(row, flops(row)), "utilisation", number_json(utilisation(b, row)));
    json_t *more = json_pack("{s:f, s:f, s:O, s:o, s:o, s:o, s:o, s:o, s:o}", "create_seconds",
                             row->create, "first_seconds", row->first, "launches", row->launches,
                             "memory", memory, "split", split_json(b, row), "joules_per_image",
                             number_json(joules(row)), "device_busy", number_json(row->busy),
                             "graph_speedup", number_json(row->plain / quantile(row, 0.5)),
                             "images_per_s_queued", number_json((double)row->batch / row->queued));
    if (j) json_object_update(j, more);
    json_decref(more);
    return j;
}

static json_t *model_json(const cli_bench *b) {
    json_t *shape = json_array(), *set = json_array();
    const char *text, *preset = cli_bench_preset(b);
    for (int i = 0; i < b->shape.rank; i++)
        json_array_append_new(shape, json_integer(b->shape.extents[i]));
    for (int i = 0; (text = cli_listed(b->args, "set", i)); i++)
        json_array_append_new(set, cli_text_json(text));
    return json_pack("{s:s?, s:o, s:o, s:s, s:I, s:o, s:I}", "preset", preset, "path",
                     preset ? json_null() : cli_text_json(cli_text(b->args, "model")), "set", set,
                     "kind", b->info.kind, "parameters", (json_int_t)b->info.parameters, "shape",
                     shape, "classes", (json_int_t)b->info.classes);
}

static json_t *header_json(const cli_bench *b, bool complete) {
    const bool peak = cli_text(b->args, "peak-tflops") != NULL;
    json_t *j = json_pack(
        "{s:i, s:s, s:s, s:i, s:o, s:s, s:s, s:s, s:o, s:f, s:s, s:o, s:I, s:b}", "bench", 1,
        "mode", b->work->name, "device", tw_context_device_name(b->ctx), "threads",
        tw_context_threads(b->ctx), "providers", cli_providers_json(b->ctx), "precision",
        cli_text(b->args, "precision"), "compiler", __VERSION__, "build", cli_build_type(), "model",
        model_json(b), "model_seconds", b->model_seconds, "included", b->work->included,
        "peak_tflops", peak ? json_real(cli_real(b->args, "peak-tflops")) : json_null(), "rows",
        (json_int_t)b->rows, "complete", complete);
    json_t *rest = cli_call_json(b->args);
    if (j) json_object_update(j, rest);
    json_decref(rest);
    return j;
}

static bool print_line(FILE *file, json_t *object) {
    char *text = object ? json_dumps(object, JSON_REAL_PRECISION(9)) : NULL;
    const bool printed = text && fprintf(file, "%s\n", text) > 0;
    free(text);
    return printed;
}

int cli_bench_write(const cli_bench *b, bool complete) {
    char *text = NULL;
    size_t size = 0, i;
    FILE *file = open_memstream(&text, &size);
    json_t *header = header_json(b, complete), *row;
    bool printed = file && print_line(file, header);
    if (file) json_array_foreach(b->done, i, row) printed = printed && print_line(file, row);
    json_decref(header);
    if (file && fclose(file) != 0) printed = false;
    const tw_status s = printed ? tw_file_write(b->ctx, cli_text(b->args, "json"), text, size)
                                : tw_fail(b->ctx, TW_ERROR_MEMORY, "--json: out of memory");
    free(text);
    return s == TW_OK ? CLI_OK : cli_fail_status(b->ctx, s);
}
