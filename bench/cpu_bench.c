/* Measures training and sampling on the CPU.
 *
 *   cpu_bench train  --model DIR --data SOURCE [--batch 64] [--threads 1]
 *   cpu_bench sample --model DIR [--batch 64] [--threads 1] [--steps 4]
 *
 * Reads from standard input how often to run (one number a line), so that another program can take
 * turns with it, and answers each line with one of JSON: seconds by the clock and of processor time
 * for each optimizer step or DDIM step. With --dump DIR it leaves what a comparison needs there: a
 * training step's batch as x0.npy and labels.npy, or the samples as x.npy. `tweedie bench` measures
 * on its own. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <tweedie/tweedie.h>

#include "core/context.h"
#include "io/npy.h"
#include "train/internal.h"

typedef struct bench {
    bool training;
    const char *model_path, *data, *dump;
    int64_t batch, threads, steps;
    tw_context *ctx;
    tw_model *model;
    tw_model_info info;
    tw_dataset *dataset;
    tw_trainer *trainer;
    tw_sampler *sampler;
    tw_train_metrics metrics;
    float *out;
    int32_t *labels;
} bench;

static double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor time of all threads. */
static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int usage(const char *why) {
    fprintf(stderr,
            "cpu_bench: %s\n"
            "usage: cpu_bench train|sample --model DIR [--data SOURCE] [--batch N] [--threads N]\n"
            "                 [--steps N] [--dump DIR]\n",
            why);
    return 2;
}

static const char *parse(int argc, char **argv, bench *b) {
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"data", required_argument, NULL, 'd'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"steps", required_argument, NULL, 's'},
                                          {"dump", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    *b = (bench){.batch = 64, .threads = 1, .steps = 4};
    if (argc < 2 || (strcmp(argv[1], "train") != 0 && strcmp(argv[1], "sample") != 0))
        return "expected train or sample";
    b->training = argv[1][0] == 't';
    for (int c; (c = getopt_long(argc - 1, argv + 1, "", known, NULL)) != -1;) {
        switch (c) {
        case 'm':
            b->model_path = optarg;
            break;
        case 'd':
            b->data = optarg;
            break;
        case 'o':
            b->dump = optarg;
            break;
        case 'b':
            b->batch = atoll(optarg);
            break;
        case 't':
            b->threads = atoll(optarg);
            break;
        case 's':
            b->steps = atoll(optarg);
            break;
        default:
            return "unknown option";
        }
    }
    if (!b->model_path) return "--model is missing";
    if (b->training && !b->data) return "--data is missing";
    return b->batch < 1 || b->threads < 1 || b->steps < 1 ? "expected numbers of 1 or more" : NULL;
}

static tw_status start_training(bench *b) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    TW_TRY(tw_dataset_open(b->ctx, b->data, NULL, &b->dataset));
    o.steps = 1 << 30;
    o.batch_size = b->batch;
    return tw_trainer_create(b->model, b->dataset, &o, &b->trainer);
}

static tw_status start_sampling(bench *b) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    size_t count = (size_t)b->batch;
    for (int i = 0; i < b->info.rank; i++) count *= (size_t)b->info.shape[i];
    b->out = tw_allocate(b->ctx, count, sizeof *b->out);
    b->labels = tw_allocate(b->ctx, (size_t)b->batch, sizeof *b->labels);
    if (!b->out || !b->labels) return TW_ERROR_MEMORY;
    for (int64_t i = 0; b->info.classes > 0 && i < b->batch; i++)
        b->labels[i] = (int32_t)(i % b->info.classes);
    o.steps = b->steps;
    o.max_batch = b->batch;
    return tw_sampler_create(b->model, &o, &b->sampler);
}

static tw_status start(bench *b) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.device = TW_DEVICE_CPU;
    o.threads = (int)b->threads;
    b->info.size = sizeof b->info;
    b->metrics.size = sizeof b->metrics;
    TW_TRY(tw_context_create(&o, &b->ctx));
    TW_TRY(tw_model_load(b->ctx, b->model_path, NULL, &b->model));
    TW_TRY(tw_model_get_info(b->model, &b->info));
    return b->training ? start_training(b) : start_sampling(b);
}

static tw_status run_once(bench *b) {
    if (b->training) return tw_trainer_step(b->trainer, &b->metrics);
    return tw_sampler_run(b->sampler, b->batch, b->info.classes > 0 ? b->labels : NULL, NULL,
                          b->out);
}

/* Runs so often, and answers. */
static tw_status measure(bench *b, int64_t runs) {
    const double wall = clock_seconds(), cpu = processor_seconds();
    for (int64_t i = 0; i < runs; i++) TW_TRY(run_once(b));
    const double steps = (double)runs * (b->training ? 1.0 : (double)b->steps);
    printf("{\"seconds\": %.6f, \"processor_seconds\": %.6f", (clock_seconds() - wall) / steps,
           (processor_seconds() - cpu) / steps);
    if (b->training)
        printf(", \"loss\": %.9g, \"grad_norm\": %.9g", b->metrics.loss, b->metrics.grad_norm);
    printf("}\n");
    fflush(stdout);
    return TW_OK;
}

static tw_status write_array(const bench *b, const char *name, tw_dtype dtype, int rank,
                             const int64_t *shape, const void *data) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.npy", b->dump, name);
    return tw_npy_write(b->ctx, path, dtype, rank, shape, data);
}

static tw_status dump(bench *b) {
    int64_t shape[4] = {b->batch, b->info.shape[0], b->info.shape[1], b->info.shape[2]};
    size_t bytes = sizeof(float);
    for (int i = 0; i <= b->info.rank; i++) bytes *= (size_t)shape[i];
    if (!b->training) return write_array(b, "x", TW_F32, b->info.rank + 1, shape, b->out);
    tw_loss_plan *p = &b->trainer->micro;
    void *x0 = tw_allocate(b->ctx, bytes, 1);
    if (!x0) return TW_ERROR_MEMORY;
    tw_status s = tw_plan_read(p->plan, p->x, x0, bytes);
    if (s == TW_OK) s = write_array(b, "x0", TW_F32, b->info.rank + 1, shape, x0);
    bytes = (size_t)b->batch * sizeof(int32_t);
    if (s == TW_OK && p->labels != TW_NONE) s = tw_plan_read(p->plan, p->labels, x0, bytes);
    if (s == TW_OK && p->labels != TW_NONE) s = write_array(b, "labels", TW_I32, 1, shape, x0);
    tw_free(b->ctx, x0);
    return s;
}

static tw_status serve(bench *b) {
    char line[64];
    bool dumped = !b->dump;
    while (fgets(line, sizeof line, stdin)) {
        TW_TRY(measure(b, atoll(line)));
        if (!dumped) TW_TRY(dump(b));
        dumped = true;
    }
    return TW_OK;
}

int main(int argc, char **argv) {
    bench b;
    const char *wrong = parse(argc, argv, &b);
    if (wrong) return usage(wrong);
    tw_status s = start(&b);
    if (s == TW_OK) s = serve(&b);
    if (s != TW_OK) fprintf(stderr, "cpu_bench: %s\n", tw_context_error(b.ctx));
    tw_trainer_free(b.trainer);
    tw_sampler_free(b.sampler);
    tw_dataset_free(b.dataset);
    tw_model_free(b.model);
    if (b.ctx) {
        tw_free(b.ctx, b.out);
        tw_free(b.ctx, b.labels);
    }
    tw_context_free(b.ctx);
    return s == TW_OK ? 0 : 1;
}
