/* tweedie bench: how quickly the engine trains and samples on this device. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/presets.h"
#include "cli/progress.h"
#include "cli/signals.h"

static const cli_option options[] = {
    CLI_GROUP("Network"),
    {"preset", CLI_CHOICE, CLI_PRESET_NAMES, 0, 0, NULL,
     "a preset's network with fresh weights [shapes; on a GPU cifar10]"},
    {"model", CLI_TEXT, "DIR", 0, 0, NULL,
     "in its place a diffusers directory, or a run of `tweedie train`"},
    {"set", CLI_LIST, "KEY=VALUE", 0, 0, NULL,
     "set one field of the preset's network or scheduler, such as model.sample_size=64"},
    CLI_GROUP("Work"),
    {"batch-size", CLI_TEXT, "N,N...", 0, 0, NULL,
     "samples that the network sees at once, a row for each [train 16, sample 1,8; on a GPU train "
     "128, sample 1,64,512]"},
    {"data", CLI_TEXT, "random|scurve|shapes|PATH", 0, 0, "random",
     "train: random samples as the network takes them, or what `tweedie train` takes as data"},
    {"steps", CLI_TEXT, "S,S...", 0, 0, NULL,
     "sample: sampling steps, a row for each [10; on a GPU 50]"},
    {"sampler", CLI_CHOICE, "ddim|ddpm", 0, 0, "ddim", "sample: DDIM, or ancestral DDPM"},
    {"eta", CLI_REAL, "X", 0, 1, "0", "sample: noise added by DDIM"},
    {"guidance", CLI_REAL, "W", 0, 1e3, "1",
     "sample: strength of classifier-free guidance, which evaluates twice; 1: none"},
    {"precision", CLI_CHOICE, CLI_PRECISIONS, 0, 0, "fp32",
     "what the network computes with; fp16 only for sampling"},
    {"recompute", CLI_CHOICE, "none|norms|blocks", 0, 0, "none",
     "train: what the backward pass makes again rather than keep"},
    CLI_GROUP("Measurement"),
    {"repeats", CLI_INT, "N", 1, 1e6, "10", "timed training steps, or sampler runs, of a row"},
    {"seconds", CLI_REAL, "X", 0, 1e6, "0",
     "go on timing until they have taken so long, with --repeats of them at least"},
    {"warmup", CLI_INT, "N", 0, 1e6, "2", "more of them before, beside the first, not counted"},
    {"peak-tflops", CLI_REAL, "X", 1e-6, 1e9, NULL,
     "the most that the device can do, in TFLOP/s; utilisation is a part of it"},
    {"operations", CLI_INT, "N", 0, 1e4, "0", "list the N operations that take longest"},
    CLI_GROUP("Output"),
    {"json", CLI_TEXT, "FILE", 0, 0, NULL, "write lines of JSON: a header, then the rows"},
    {"replay", CLI_TEXT, "FILE:ROW", 0, 0, NULL,
     "measure this row of such a file again; options given stand over the row's"},
    CLI_GROUP("Machine"),
    CLI_DEVICE_ROWS,
    {"threads", CLI_INT, "N", 0, 1024, "0", "CPU threads; 0: one per core"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

/* --- What was asked for --- */

bool cli_bench_takes(const cli_bench_work *work, const char *option) {
    static const char *const of_sample[] = {"steps", "sampler", "eta", "guidance"};
    if (work == &cli_bench_sampling)
        return strcmp(option, "data") != 0 && strcmp(option, "recompute") != 0;
    for (size_t i = 0; i < sizeof of_sample / sizeof *of_sample; i++)
        if (strcmp(of_sample[i], option) == 0) return false;
    return true;
}

static int check_options(const cli_bench *b) {
    const cli_args *a = b->args;
    const char *other = b->work == &cli_bench_training ? "sample" : "train";
    for (const cli_option *o = a->command->options; o->name; o++)
        if (o->type != CLI_HEADING && cli_source_of(a, o->name) == CLI_FROM_USER &&
            !cli_bench_takes(b->work, o->name))
            return cli_usage("--%s: belongs to `tweedie bench %s`", o->name, other);
    if (cli_choice(a, "sampler") == 1 && cli_source_of(a, "eta") == CLI_FROM_USER)
        return cli_usage("--eta: belongs to --sampler ddim");
    if (b->work == &cli_bench_training && cli_choice(a, "precision") == TW_PRECISION_F16)
        return cli_usage("--precision fp16: belongs to `tweedie bench sample`");
    if (cli_text(a, "preset") && cli_text(a, "model"))
        return cli_usage("--preset and --model: expected one of them, got both");
    if (cli_text(a, "model") && cli_listed(a, "set", 0))
        return cli_usage("--set: belongs to a preset, not to --model");
    return cli_text(a, "json") ? cli_output_check_file("--json", cli_text(a, "json")) : CLI_OK;
}

/* "16,32"; `fallback` where the option is not given. */
static int read_list(const cli_args *a, const char *name, const char *fallback, int64_t high,
                     cli_bench_list *out) {
    const char *text = cli_text(a, name) ? cli_text(a, name) : fallback;
    out->count = 0;
    for (const char *at = text; at;) {
        char one[24];
        const size_t length = strcspn(at, ",");
        snprintf(one, sizeof one, "%.*s", (int)(length < 23 ? length : 23), at);
        int64_t *value = &out->values[out->count];
        if (out->count == CLI_BENCH_LIST || !cli_parse_int(one, value) || *value < 1 ||
            *value > high)
            return cli_usage("--%s: expected up to %d whole numbers from 1 to %" PRId64
                             ", commas between them, got \"%s\"",
                             name, CLI_BENCH_LIST, high, text);
        out->count++;
        at = at[length] ? at + length + 1 : NULL;
    }
    return CLI_OK;
}

/* What is left open is small enough for a CPU, and large enough for a GPU. */
static int choose_rows(cli_bench *b) {
    const bool gpu = tw_context_device(b->ctx) == TW_DEVICE_CUDA;
    const bool training = b->work == &cli_bench_training;
    const char *batches = training ? (gpu ? "128" : "16") : (gpu ? "1,64,512" : "1,8");
    int rc = read_list(b->args, "batch-size", batches, 65536, &b->batches);
    if (!rc && !training)
        rc = read_list(b->args, "steps", gpu ? "50" : "10", b->info.training_steps, &b->steps);
    if (training) b->steps = (cli_bench_list){1, {0}};
    b->rows = (int64_t)b->batches.count * b->steps.count;
    return rc;
}

/* --- The rows --- */

static int run_row(cli_bench *b, int64_t index) {
    cli_bench_row row = {.number = index + 1,
                         .batch = b->batches.values[index / b->steps.count],
                         .steps = b->steps.values[index % b->steps.count]};
    int rc = cli_bench_measure(b, &row);
    if (row.count > 0) {
        cli_bench_show_row(b, &row);
        if (!rc) rc = cli_bench_show_operations(b, &row);
        if (json_array_append_new(b->done, cli_bench_row_json(b, &row)) != 0 && !rc)
            rc = cli_fail("out of memory");
    }
    b->work->close(b);
    cli_bench_row_free(&row);
    return rc;
}

static int run_rows(cli_bench *b) {
    int rc = CLI_OK;
    for (int64_t i = 0; i < b->rows && !rc; i++)
        rc = cli_signals_stop() ? CLI_INTERRUPTED : run_row(b, i);
    const size_t done = json_array_size(b->done);
    /* What was measured is worth keeping, whatever came then. */
    const int written = cli_text(b->args, "json") && done > 0 ? cli_bench_write(b, !rc) : CLI_OK;
    if (rc == CLI_INTERRUPTED)
        printf("interrupted; %zu of %" PRId64 " rows measured, the last perhaps in part\n", done,
               b->rows);
    return rc ? rc : written;
}

static int open_parts(cli_bench *b) {
    int rc = cli_context(b->args, &b->ctx);
    if (!rc) rc = cli_bench_open_model(b);
    if (!rc) rc = choose_rows(b);
    if (!rc) rc = cli_bench_open_data(b);
    return rc;
}

static int run_bench(const cli_args *given) {
    cli_args args = *given;
    cli_bench_replay replay;
    cli_bench b = {.args = &args, .done = json_array()};
    int rc = cli_bench_replay_open(&args, &replay);
    if (!rc && !args.operand)
        rc = cli_usage("bench: what is measured is missing: expected train or sample");
    if (!rc) {
        b.work = strcmp(args.operand, "train") == 0 ? &cli_bench_training : &cli_bench_sampling;
        b.guided = cli_real(&args, "guidance") != 1.0;
        rc = check_options(&b);
    }
    if (!rc) rc = open_parts(&b);
    if (!rc) {
        cli_signals_catch();
        cli_bench_show_head(&b);
        rc = run_rows(&b);
    }
    if (!rc) cli_bench_replay_compare(&replay, &b);
    cli_bench_close(&b);
    cli_bench_replay_close(&replay);
    return rc;
}

static const cli_example examples[] = {
    {"training steps on this machine", "tweedie bench train"},
    {"a larger network, two batch sizes, for a program",
     "tweedie bench train --preset cifar10 --batch-size 1,4 --json train.jsonl"},
    {"the second row of that again", "tweedie bench --replay train.jsonl:2"},
    {"how long samples take",
     "tweedie bench sample --model run --batch-size 1,16 --steps 10,50 --repeats 100"},
    {NULL, NULL}};

const cli_command cli_bench_command = {
    .name = "bench",
    .summary = "measures how quickly the engine trains and samples",
    .usage = "tweedie bench train|sample [--option VALUE ...]\n"
             "tweedie bench --replay FILE:ROW",
    .options = options,
    .notes =
        "A row gives rate and time of a training step, or of a sampler's run, and its FLOP/s: "
        "those of convolutions, attention and linear layers. The time of creating the trainer "
        "or the sampler, and that of its first call, stand apart.\n"
        "The split by class of operation comes from a second pass, timed operation by "
        "operation, which may be slower than the first.\n"
        "On a GPU a row also says how much quicker a recorded graph is than the same calls one "
        "by one, the rate of training steps that are queued without a wait, as in a run, how "
        "busy the device was, after a second of timed calls its joules, and the most memory of its "
        "own that the row took, which is without what the libraries take for themselves.\n"
        "Ctrl-C ends with what was measured; a second one ends at once.",
    .examples = examples,
    .operand = "train|sample",
    .run = run_bench};
