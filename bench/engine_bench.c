/* Measures training and sampling, taking turns with another program.
 *
 *   engine_bench train  --model DIR [--data SOURCE] [--batch 64]
 *   engine_bench sample --model DIR [--batch 64] [--steps 4]
 *   engine_bench device              [--device auto|cpu|cuda] [--format fp32] [--threads 1]
 *
 * Reads from standard input how often to run (one number a line) and answers each line with one of
 * JSON: seconds by the clock and of processor time for each optimizer step or DDIM step; to the
 * line "info" it answers with the device, the time of creation and the memory. The samples are on
 * the host, and a step's loss is known, when the answer comes. With --dump DIR the first run leaves
 * what a comparison needs there: a training step's batch as x0.npy and labels.npy, or the samples
 * as x.npy. Without --data the training samples are random. The mode "device" says what would be
 * used, and ends. `tweedie bench` measures on its own. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <tweedie/tweedie.h>

#include "core/context.h"
#include "io/npy.h"
#include "train/internal.h"

enum { TRAIN, SAMPLE, DEVICE };
static const char *const modes[] = {"train", "sample", "device", NULL};
static const char *const devices[] = {"auto", "cpu", "cuda", NULL};          /* by tw_device */
static const char *const formats[] = {"fp32", "tf32", "bf16", "fp16", NULL}; /* by tw_precision */

typedef struct bench {
    int mode;
    int device, format;
    const char *model_path, *data, *dump;
    int64_t batch, threads, steps;
    tw_context *ctx;
    tw_model *model;
    tw_model_info info;
    size_t sample; /* numbers of one */
    tw_dataset *dataset;
    tw_trainer *trainer;
    tw_sampler *sampler;
    tw_train_metrics metrics;
    double created; /* seconds from the start of the program until it could begin */
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
            "engine_bench: %s\n"
            "usage: engine_bench train|sample --model DIR [--data SOURCE] [--batch N] [--steps N]\n"
            "                    [--device auto|cpu|cuda] [--format fp32|tf32|bf16|fp16]\n"
            "                    [--threads N] [--dump DIR]\n"
            "       engine_bench device [--device D] [--format F] [--threads N]\n",
            why);
    return 2;
}

/* -1: none of them. */
static int find(const char *const *names, const char *name) {
    for (int i = 0; name && names[i]; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

static const char *check(const bench *b) {
    if (b->device < 0) return "--device: expected auto, cpu or cuda";
    if (b->format < 0) return "--format: expected fp32, tf32, bf16 or fp16";
    if (b->batch < 1 || b->threads < 1 || b->steps < 1) return "expected numbers of 1 or more";
    return b->mode != DEVICE && !b->model_path ? "--model is missing" : NULL;
}

static const char *parse(int argc, char **argv, bench *b) {
    static const struct option known[] = {{"model", required_argument, NULL, 'm'},
                                          {"data", required_argument, NULL, 'd'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"steps", required_argument, NULL, 's'},
                                          {"dump", required_argument, NULL, 'o'},
                                          {"device", required_argument, NULL, 'D'},
                                          {"format", required_argument, NULL, 'f'},
                                          {NULL, 0, NULL, 0}};
    const int mode = find(modes, argc > 1 ? argv[1] : NULL);
    *b = (bench){.batch = 64, .threads = 1, .steps = 4};
    if (mode < 0) return "expected train, sample or device";
    b->mode = mode;
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
        case 'D':
            b->device = find(devices, optarg);
            break;
        case 'f':
            b->format = find(formats, optarg);
            break;
        default:
            return "unknown option";
        }
    }
    return check(b);
}

static void fill_labels(const bench *b, int64_t n, int32_t *labels) {
    for (int64_t i = 0; b->info.classes > 0 && i < n; i++)
        labels[i] = (int32_t)(i % b->info.classes);
}

/* Two batches of noise, so that there is something to shuffle. */
static tw_status make_data(bench *b) {
    const int64_t n = 2 * b->batch;
    float *values = tw_allocate(b->ctx, (size_t)n * b->sample, sizeof *values);
    int32_t *labels = tw_allocate(b->ctx, (size_t)n, sizeof *labels);
    tw_status s = values && labels ? TW_OK : TW_ERROR_MEMORY;
    for (int64_t i = 0; i < n && s == TW_OK; i++)
        s = tw_noise_initial(1, (uint64_t)i, (int64_t)b->sample, values + (size_t)i * b->sample);
    if (s == TW_OK) {
        fill_labels(b, n, labels);
        s = tw_dataset_from_memory(b->ctx, n, b->info.rank, b->info.shape, values,
                                   b->info.classes > 0 ? labels : NULL, &b->dataset);
    }
    tw_free(b->ctx, values);
    tw_free(b->ctx, labels);
    return s;
}

static tw_status start_training(bench *b) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    TW_TRY(b->data ? tw_dataset_open(b->ctx, b->data, NULL, &b->dataset) : make_data(b));
    o.steps = 1 << 30;
    o.batch_size = b->batch;
    o.precision = (tw_precision)b->format;
    return tw_trainer_create(b->model, b->dataset, &o, &b->trainer);
}

static tw_status start_sampling(bench *b) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    b->out = tw_allocate(b->ctx, (size_t)b->batch * b->sample, sizeof *b->out);
    b->labels = tw_allocate(b->ctx, (size_t)b->batch, sizeof *b->labels);
    if (!b->out || !b->labels) return TW_ERROR_MEMORY;
    fill_labels(b, b->batch, b->labels);
    o.steps = b->steps;
    o.max_batch = b->batch;
    o.precision = (tw_precision)b->format;
    return tw_sampler_create(b->model, &o, &b->sampler);
}

static tw_status open_context(bench *b) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.device = (tw_device)b->device;
    o.threads = (int)b->threads;
    return tw_context_create(&o, &b->ctx);
}

static tw_status start(bench *b) {
    const double begun = clock_seconds();
    b->info.size = sizeof b->info;
    b->metrics.size = sizeof b->metrics;
    TW_TRY(open_context(b));
    if (b->mode == DEVICE) return TW_OK;
    TW_TRY(tw_model_load(b->ctx, b->model_path, NULL, &b->model));
    TW_TRY(tw_model_get_info(b->model, &b->info));
    b->sample = 1;
    for (int i = 0; i < b->info.rank; i++) b->sample *= (size_t)b->info.shape[i];
    TW_TRY(b->mode == TRAIN ? start_training(b) : start_sampling(b));
    b->created = clock_seconds() - begun;
    return TW_OK;
}

/* Asks for a step's loss where it is `wanted`. */
static tw_status run_once(bench *b, bool wanted) {
    if (b->mode == TRAIN) return tw_trainer_step(b->trainer, wanted ? &b->metrics : NULL);
    return tw_sampler_run(b->sampler, b->batch, b->info.classes > 0 ? b->labels : NULL, NULL,
                          b->out);
}

/* Runs so often, and answers. */
static tw_status measure(bench *b, int64_t runs) {
    const double wall = clock_seconds(), cpu = processor_seconds();
    for (int64_t i = 0; i < runs; i++) TW_TRY(run_once(b, i + 1 == runs));
    const double steps = (double)runs * (b->mode == TRAIN ? 1.0 : (double)b->steps);
    printf("{\"seconds\": %.6f, \"processor_seconds\": %.6f", (clock_seconds() - wall) / steps,
           (processor_seconds() - cpu) / steps);
    if (b->mode == TRAIN)
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
    size_t bytes = (size_t)b->batch * b->sample * sizeof(float);
    if (b->mode == SAMPLE) return write_array(b, "x", TW_F32, b->info.rank + 1, shape, b->out);
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

/* Bytes that the work takes on the device, weights and all. */
static tw_status planned(const bench *b, size_t *bytes) {
    tw_trainer_memory m = {.size = sizeof m};
    *bytes = 0;
    if (b->mode == SAMPLE) {
        TW_TRY(tw_sampler_memory(b->sampler, b->batch, bytes));
        *bytes += (size_t)b->model->weights.total * sizeof(float);
    } else if (b->mode == TRAIN) {
        TW_TRY(tw_trainer_get_memory(b->trainer, &m));
        *bytes = m.weights + m.rounded + m.gradients + m.optimizer + m.ema + m.arena + m.staging;
    }
    return TW_OK;
}

static tw_status tell(const bench *b) {
    struct rusage used;
    size_t bytes;
    TW_TRY(planned(b, &bytes));
    getrusage(RUSAGE_SELF, &used);
    printf("{\"device\": \"%s\", \"name\": \"%s\", \"format\": \"%s\", \"create_seconds\": %.6f, "
           "\"memory\": %zu, \"process_memory\": %lld}\n",
           devices[tw_context_device(b->ctx)], tw_context_device_name(b->ctx), formats[b->format],
           b->created, bytes, 1024LL * used.ru_maxrss);
    fflush(stdout);
    return TW_OK;
}

static tw_status serve(bench *b) {
    char line[64];
    bool dumped = !b->dump;
    if (b->mode == DEVICE) return tell(b);
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "info\n") == 0) {
            TW_TRY(tell(b));
            continue;
        }
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
    if (s != TW_OK) fprintf(stderr, "engine_bench: %s\n", tw_context_error(b.ctx));
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
