/* tweedie diffuse: data on its way into noise, q(x_t | x_0), at several t. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cli/frames.h"
#include "cli/schedules.h"
#include "cli/signals.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/npy.h"

/* Defaults: samples, and frames of a strip and of an animation. */
#define IMAGES 6
#define ANIMATED_IMAGES 16
#define POINTS 3000
#define STRIP_IMAGES 11
#define STRIP_POINTS 7
#define ANIMATED 40

static const cli_option options[] = {
    CLI_GROUP("Data and output"),
    {"data", CLI_TEXT, "scurve|shapes|PATH", 0, 0, NULL, "what `tweedie train` takes as data"},
    {"image-size", CLI_INT, "N", 0, 4096, "0", "bring pictures to NxN pixels; 0: as they come"},
    {"crop", CLI_CHOICE, "center|random|stretch|pad", 0, 0, "center",
     "how pictures of another shape fit, as in `tweedie train`"},
    {"out", CLI_TEXT, "PATH", 0, 0, NULL,
     "x.png, x.svg or x.pdf: a strip with axes; x.gif: an animation; x.npy: all numbers"},
    {"n", CLI_INT, "N", 1, 1e9, NULL, "number of samples [6 images, 16 in a GIF, 3000 points]"},
    {"first-sample", CLI_INT, "N", 0, 9e15, "0", "index of the first sample in data and noise"},
    {"seed", CLI_INT, "N", 0, 9e15, "0", "seed of the noise, and of data made on the spot"},
    {"frames", CLI_INT, "F", 2, 100000, NULL,
     "number of frames: the data, then x_t at values of t spread evenly [7 of points, 11 of "
     "images, 40 in a GIF]"},
    {"fps", CLI_INT, "N", 1, 50, "20", "frames a second of a GIF"},
    {"pause", CLI_REAL, "SECONDS", 0, 60, "2", "how long a GIF rests on its last frame"},
    CLI_GROUP("Schedule"),
    {"schedule", CLI_CHOICE, CLI_SCHEDULE_NAMES, 0, 0, NULL, "a named noise schedule [linear]"},
    CLI_SCHEDULE_OPTIONS,
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

typedef struct diffusion {
    const cli_args *args;
    tw_context *ctx;
    tw_dataset *dataset;
    tw_schedule *schedule;
    cli_output_kind kind;
    cli_frames frames;
    float *values; /* those of the frames */
    int64_t *at;
} diffusion;

/* --- What was asked for --- */

static int open_data(diffusion *d) {
    static const tw_crop crops[] = {TW_CROP_CENTER, TW_CROP_RANDOM, TW_CROP_STRETCH, TW_CROP_PAD};
    const cli_args *a = d->args;
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    tw_dataset_info info = {.size = sizeof info};
    o.seed = (uint64_t)cli_int(a, "seed");
    o.height = cli_int(a, "image-size");
    o.width = o.height;
    o.crop = crops[cli_choice(a, "crop")];
    tw_status s = tw_dataset_open(d->ctx, cli_text(a, "data"), &o, &d->dataset);
    if (s == TW_OK) s = tw_dataset_get_info(d->dataset, &info);
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    cli_shape *shape = &d->frames.shape;
    *shape = (cli_shape){info.rank, {info.shape[0], info.shape[1], info.shape[2]}, 1};
    for (int i = 0; i < info.rank; i++) shape->count *= info.shape[i];
    const int rc = cli_output_check(
        "--out", cli_text(a, "out"),
        CLI_OUTPUT_PNG | CLI_OUTPUT_GIF | CLI_OUTPUT_PLOT | CLI_OUTPUT_NPY, shape, &d->kind);
    if (rc) return rc;
    const bool animated = d->kind == CLI_OUTPUT_GIF;
    const int64_t first = cli_int(a, "first-sample");
    int64_t n = shape->rank == 1 ? POINTS : animated ? ANIMATED_IMAGES : IMAGES;
    if (first >= info.count)
        return cli_usage("--first-sample: %s has the samples 0 to %" PRId64 ", got %" PRId64,
                         cli_text(a, "data"), info.count - 1, first);
    if (cli_text(a, "n")) n = cli_int(a, "n");
    if (n > info.count - first && cli_text(a, "n"))
        return cli_usage("--n: %s has %" PRId64 " samples from %" PRId64 " on, got %" PRId64,
                         cli_text(a, "data"), info.count - first, first, n);
    d->frames.n = n < info.count - first ? n : info.count - first;
    return CLI_OK;
}

static int open_schedule(diffusion *d) {
    const cli_args *a = d->args;
    static const char *const named[] = {"schedule", "training-steps", "beta-start", "beta-end",
                                        "rescale-zero-snr"};
    const char *model = cli_text(a, "model"), *file = cli_text(a, "scheduler");
    const char *name = cli_text(a, "schedule") ? cli_text(a, "schedule") : "linear";
    if (model && file) return cli_usage("--model and --scheduler: expected one of them, got both");
    for (size_t i = 0; (model || file) && i < sizeof named / sizeof *named; i++)
        if (cli_source_of(a, named[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to a named schedule, not to --%s", named[i],
                             model ? "model" : "scheduler");
    for (size_t i = 2; i < 4; i++)
        if (cli_source_of(a, named[i]) == CLI_FROM_USER &&
            (strcmp(name, "cosine") == 0 || strcmp(name, "squaredcos_cap_v2") == 0))
            return cli_usage("--%s: belongs to linear, scaled_linear and sigmoid, not to %s",
                             named[i], name);
    return model  ? cli_schedule_of_model(d->ctx, a, &d->schedule)
           : file ? cli_schedule_of_file(d->ctx, a, &d->schedule)
                  : cli_schedule_named(d->ctx, a, "schedule", name, &d->schedule);
}

/* The data, and F - 1 values of t that divide its range evenly, the last T - 1. */
static int choose_times(diffusion *d) {
    const int64_t T = tw_schedule_steps(d->schedule);
    int64_t count = d->kind == CLI_OUTPUT_GIF   ? ANIMATED
                    : d->frames.shape.rank == 1 ? STRIP_POINTS
                                                : STRIP_IMAGES;
    if (count > T + 1) count = T + 1;
    if (cli_text(d->args, "frames")) {
        const int rc = cli_check_int(d->args, "frames", 2, T + 1);
        if (rc) return rc;
        count = cli_int(d->args, "frames");
    }
    d->at = tw_allocate(d->ctx, (size_t)count, sizeof *d->at);
    if (!d->at) return cli_fail_status(d->ctx, TW_ERROR_MEMORY);
    for (int64_t i = 0; i < count; i++) d->at[i] = (i * T + (count - 1) / 2) / (count - 1) - 1;
    d->frames.count = count;
    d->frames.axis = "t";
    d->frames.at = d->at;
    return CLI_OK;
}

/* --- The numbers --- */

/* Every frame of one sample, with one noise for all of them: x_t = sqrt(A_t) x_0 + sqrt(1 - A_t) e.
 */
static tw_status diffuse_sample(diffusion *d, int64_t i, float *data, float *noise) {
    const cli_frames *f = &d->frames;
    const int64_t size = f->shape.count, first = cli_int(d->args, "first-sample");
    const double *kept = tw_schedule_alphas_cumprod(d->schedule);
    tw_status s = tw_dataset_get(d->dataset, first + i, data, NULL);
    if (s == TW_OK)
        s = tw_noise_initial((uint64_t)cli_int(d->args, "seed"), (uint64_t)(first + i), size,
                             noise);
    if (s != TW_OK) return tw_fail(d->ctx, s, "%s", tw_context_error(NULL));
    for (int64_t k = 0; k < f->count; k++) {
        float *to = d->values + (k * f->n + i) * size;
        const double a = f->at[k] < 0 ? 1.0 : kept[f->at[k]];
        const double signal = sqrt(a), spread = sqrt(1.0 - a);
        for (int64_t j = 0; j < size; j++)
            to[j] = (float)(signal * (double)data[j] + spread * (double)noise[j]);
    }
    return TW_OK;
}

static tw_status diffuse(diffusion *d) {
    cli_frames *f = &d->frames;
    size_t count;
    if (!tw_mul_size((size_t)f->count, (size_t)f->n, &count) ||
        !tw_mul_size(count, (size_t)f->shape.count, &count))
        return tw_fail(d->ctx, TW_ERROR_MEMORY, "--n and --frames: too many numbers");
    d->values = tw_allocate(d->ctx, count, sizeof *d->values);
    if (!d->values) return TW_ERROR_MEMORY;
    f->values = d->values;
    float *scratch = tw_allocate(d->ctx, (size_t)f->shape.count, 2 * sizeof *scratch);
    if (!scratch) return TW_ERROR_MEMORY;
    tw_status s = TW_OK;
    for (int64_t i = 0; s == TW_OK && i < f->n; i++)
        s = cli_signals_stop() ? TW_ERROR_CANCELLED
                               : diffuse_sample(d, i, scratch, scratch + f->shape.count);
    tw_free(d->ctx, scratch);
    return s;
}

/* --- The command --- */

static tw_status write_out(const diffusion *d, const char *path) {
    const cli_frames *f = &d->frames;
    const int64_t *e = f->shape.extents;
    if (d->kind == CLI_OUTPUT_GIF)
        return cli_frames_animate(d->ctx, path, f, cli_int(d->args, "fps"),
                                  cli_real(d->args, "pause"), 0);
    if (d->kind != CLI_OUTPUT_NPY) return cli_frames_plot(d->ctx, path, f);
    const int64_t extents[5] = {f->count, f->n, e[0], e[1], e[2]};
    return tw_npy_write(d->ctx, path, TW_F32, f->shape.rank + 2, extents, f->values);
}

static int check_options(const cli_args *a) {
    static const char *const of_gif[] = {"fps", "pause"};
    const char *out = cli_text(a, "out");
    if (!cli_text(a, "data")) return cli_usage("diffuse: --data SOURCE is missing");
    if (!out) return cli_usage("diffuse: --out PATH is missing");
    if (cli_source_of(a, "crop") == CLI_FROM_USER && cli_int(a, "image-size") == 0)
        return cli_usage("--crop: belongs to an --image-size above 0");
    const size_t n = strlen(out);
    const bool gif = n > 4 && strcmp(out + n - 4, ".gif") == 0;
    for (int i = 0; !gif && i < 2; i++)
        if (cli_source_of(a, of_gif[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to an --out that ends in .gif", of_gif[i]);
    return CLI_OK;
}

static int show(diffusion *d) {
    const char *out = cli_text(d->args, "out");
    cli_signals_catch();
    tw_status s = diffuse(d);
    if (s == TW_OK) s = write_out(d, out);
    if (s == TW_ERROR_CANCELLED) cli_fail("interrupted; nothing was written");
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    printf("%s\n", out);
    return CLI_OK;
}

static int run(const cli_args *args) {
    diffusion d = {.args = args};
    tw_context_options context = TW_CONTEXT_OPTIONS_INIT;
    context.device = TW_DEVICE_CPU;
    int rc = check_options(args);
    if (rc) return rc;
    const tw_status s = tw_context_create(&context, &d.ctx);
    if (s != TW_OK) return cli_fail_status(NULL, s);
    rc = open_schedule(&d);
    if (!rc) rc = open_data(&d);
    if (!rc) rc = choose_times(&d);
    if (!rc) rc = show(&d);
    tw_free(d.ctx, d.values);
    tw_free(d.ctx, d.at);
    tw_schedule_free(d.schedule);
    tw_dataset_free(d.dataset);
    tw_context_free(d.ctx);
    return rc;
}

static const cli_example examples[] = {
    {"points of a curve turning into noise", "tweedie diffuse --data scurve --out forward.png"},
    {"images, animated, under a model's schedule",
     "tweedie diffuse --data photos --image-size 64 --model run --out forward.gif"},
    {NULL, NULL}};

const cli_command cli_diffuse_command = {
    .name = "diffuse",
    .summary = "shows data turning into noise",
    .usage = "tweedie diffuse --data SOURCE --out PATH [--option VALUE ...]",
    .options = options,
    .notes = "A frame at t shows sqrt(A) x_0 + sqrt(1 - A) e, where A is alphas_cumprod at t and e "
             "the sample's noise,\nthe same at every t: each frame is distributed as q(x_t | x_0). "
             "Strips are drawn by gnuplot.",
    .examples = examples,
    .run = run};
