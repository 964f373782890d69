/* tweedie sample: draws samples from a model. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "cli/choices.h"
#include "cli/cli.h"
#include "cli/head.h"
#include "cli/signals.h"
#include "cli/trajectory.h"
#include "cli/tuning.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/npy.h"

#define NO_LIMIT 9e15

static const cli_option options[] = {
    CLI_GROUP("Model and output"),
    {"model", CLI_TEXT, "DIR", 0, 0, NULL, "a diffusers directory, or a run of `tweedie train`"},
    {"variant", CLI_TEXT, "NAME", 0, 0, NULL, "load diffusion_pytorch_model.NAME.safetensors"},
    {"out", CLI_TEXT, "PATH", 0, 0, NULL, "x.png: one picture; x.npy: float32; else a folder"},
    {"n", CLI_INT, "N", 1, 1e9, NULL, "number of samples [64 images, 3000 points]"},
    {"trajectory", CLI_TEXT, "PATH", 0, 0, NULL,
     "the way from noise to data: x.png: a strip; x.svg, x.pdf: one with axes; x.gif: an "
     "animation; "
     "x.npy: all numbers"},
    {"fps", CLI_INT, "N", 1, 50, "20", "frames a second of a .gif trajectory"},
    {"pause", CLI_REAL, "SECONDS", 0, 60, "2", "how long it rests on its last frame"},
    CLI_GROUP("Sampler"),
    {"sampler", CLI_CHOICE, "ddim|ddpm", 0, 0, "ddim", "DDIM, or ancestral DDPM"},
    {"steps", CLI_INT, "S", 0, -1, "50", "sampling steps, at most the model's T"},
    {"eta", CLI_REAL, "X", 0, 1, "0", "noise added by DDIM; 1: as much as DDPM adds"},
    {"variance", CLI_CHOICE, "fixed_small|fixed_large|learned_range", 0, 0, NULL,
     "variance of DDPM's noise [as the model says]"},
    {"spacing", CLI_CHOICE, "leading|trailing|linspace|uniform|quadratic|ddpm", 0, 0, NULL,
     "which of the model's T time steps are taken [as the model says, or leading]"},
    CLI_GROUP("Classes"),
    {"class", CLI_TEXT, "K|A-B|all", 0, 0, NULL,
     "labels, given out in turn: one, a range or every class [all]"},
    {"guidance", CLI_REAL, "W", 0, 1e3, "1", "strength of classifier-free guidance; 1: none"},
    CLI_GROUP("Clipping of the predicted x0"),
    {"clip", CLI_CHOICE, "none|range|dynamic", 0, 0, NULL,
     "how the predicted x0 is kept in bounds [as the model says]"},
    {"clip-range", CLI_REAL, "R", 1e-6, 1e6, "1", "bound of --clip range"},
    {"clip-quantile", CLI_REAL, "Q", 0.5, 1, "0.995",
     "quantile of |x0| that becomes the bound of --clip dynamic"},
    {"clip-max", CLI_REAL, "R", 1, 1e6, "1", "largest bound of --clip dynamic"},
    {"rederive-epsilon", CLI_FLAG, NULL, 0, 0, NULL, "compute epsilon again from the clipped x0"},
    CLI_GROUP("Noise"),
    {"seed", CLI_INT, "N", 0, NO_LIMIT, "0", "seed of the noise"},
    {"first-sample", CLI_INT, "N", 0, NO_LIMIT, "0",
     "index of the first sample: a sample's noise depends on its index"},
    {"noise", CLI_TEXT, "FILE.npy", 0, 0, NULL,
     "start from this x_T, laid out as an .npy of --out is"},
    CLI_GROUP("Machine"),
    {"max-batch", CLI_INT, "N", 1, 1048576, NULL,
     "samples at a time, to save memory; changes no sample [64 images, 4096 points]"},
    CLI_DEVICE_ROWS,
    {"tune", CLI_FLAG, NULL, 0, 0, NULL,
     "let a GPU's clock choose the provider of every product, among those whose results agree; the "
     "choices are kept in ~/.cache/tweedie/providers.json, which makes the next call repeat this "
     "one's bits"},
    {"precision", CLI_CHOICE, CLI_PRECISIONS, 0, 0, "fp32",
     "what the network computes with; the sampler's state is fp32"},
    {"threads", CLI_INT, "N", 0, 1024, "0", "CPU threads; 0: one per core"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

typedef struct drawing {
    const cli_args *args;
    tw_context *ctx;
    tw_model *model;
    tw_sampler *sampler;
    tw_model_info info;
    cli_shape shape;
    cli_output_kind kind;
    tw_sampler_options options;
    cli_trajectory trajectory;
    int64_t n, columns;
    int32_t *labels; /* [n], or null */
    float *noise;    /* [n, shape], or null */
    float *values;   /* [n, shape] */
    double begun;
    char kept[4096]; /* the file of --tune; "": there is no place for it */
} drawing;

/* A text of the model's scheduler config, into out[size]; "" if there is none. */
static void scheduler_text(const drawing *d, const char *key, char *out, size_t size) {
    const char *config = tw_model_scheduler_config(d->model);
    json_t *object = config ? json_loads(config, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(object, key));
    snprintf(out, size, "%s", text ? text : "");
    json_decref(object);
}

static tw_variance variance_named(const char *name) {
    if (strcmp(name, "fixed_large") == 0) return TW_VARIANCE_FIXED_LARGE;
    if (strcmp(name, "learned_range") == 0) return TW_VARIANCE_LEARNED_RANGE;
    return TW_VARIANCE_FIXED_SMALL;
}

static int fill_options(drawing *d) {
    static const tw_clipping clippings[] = {TW_CLIPPING_NONE, TW_CLIPPING_RANGE,
                                            TW_CLIPPING_DYNAMIC};
    const tw_sampler_options defaults = TW_SAMPLER_OPTIONS_INIT;
    const cli_args *a = d->args;
    tw_sampler_options *o = &d->options;
    char said[64];
    *o = defaults;
    const int rc = cli_check_int(a, "steps", 1, d->info.training_steps);
    if (rc) return rc;
    o->kind = cli_choice(a, "sampler") == 1 ? TW_SAMPLER_DDPM : TW_SAMPLER_DDIM;
    o->steps = cli_int(a, "steps");
    o->eta = cli_real(a, "eta");
    scheduler_text(d, "variance_type", said, sizeof said);
    o->variance = variance_named(cli_text(a, "variance") ? cli_text(a, "variance") : said);
    scheduler_text(d, "timestep_spacing", said, sizeof said);
    if (tw_spacing_parse(cli_text(a, "spacing") ? cli_text(a, "spacing") : said, &o->spacing) !=
        TW_OK)
        o->spacing = TW_SPACING_LEADING;
    if (cli_text(a, "clip")) o->clipping = clippings[cli_choice(a, "clip")];
    o->clip_range = cli_real(a, "clip-range");
    o->dynamic_ratio = cli_real(a, "clip-quantile");
    o->dynamic_max = cli_real(a, "clip-max");
    o->rederive_epsilon = cli_flag(a, "rederive-epsilon");
    o->guidance = cli_real(a, "guidance");
    o->precision = (tw_precision)cli_choice(a, "precision");
    o->seed = (uint64_t)cli_int(a, "seed");
    o->first_sample = (uint64_t)cli_int(a, "first-sample");
    o->max_batch = cli_text(a, "max-batch") ? cli_int(a, "max-batch")
                   : d->shape.rank == 3     ? 64
                                            : 4096;
    return CLI_OK;
}

static int check_animation(const cli_args *a) {
    static const char *const names[] = {"fps", "pause"};
    const char *path = cli_text(a, "trajectory");
    const size_t n = path ? strlen(path) : 0;
    const bool gif = n > 4 && strcmp(path + n - 4, ".gif") == 0;
    for (int i = 0; !gif && i < 2; i++)
        if (cli_source_of(a, names[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to a --trajectory that ends in .gif", names[i]);
    return CLI_OK;
}

/* Options that say nothing together with others. */
static int check_options(const cli_args *a) {
    if (!cli_text(a, "model")) return cli_usage("sample: --model DIR is missing");
    if (!cli_text(a, "out")) return cli_usage("sample: --out PATH is missing");
    if (cli_choice(a, "sampler") == 1 && cli_source_of(a, "eta") == CLI_FROM_USER)
        return cli_usage("--eta: belongs to --sampler ddim");
    if (cli_choice(a, "sampler") != 1 && cli_text(a, "variance"))
        return cli_usage("--variance: belongs to --sampler ddpm");
    const char *clip = cli_text(a, "clip") ? cli_text(a, "clip") : "";
    if (cli_source_of(a, "clip-range") == CLI_FROM_USER && strcmp(clip, "range") != 0)
        return cli_usage("--clip-range: belongs to --clip range");
    if ((cli_source_of(a, "clip-quantile") == CLI_FROM_USER ||
         cli_source_of(a, "clip-max") == CLI_FROM_USER) &&
        strcmp(clip, "dynamic") != 0)
        return cli_usage("--clip-quantile and --clip-max: belong to --clip dynamic");
    return check_animation(a);
}

/* "3", "2-5" or "all" of classes 0 .. classes - 1, of which "all" leaves the last, empty one out.
 */
static bool parse_classes(const char *text, int64_t classes, int64_t *low, int64_t *high) {
    char first[32];
    const char *dash = strchr(text, '-');
    if (strcmp(text, "all") == 0) {
        *low = 0;
        *high = classes > 1 ? classes - 2 : 0;
        return true;
    }
    const size_t length = dash ? (size_t)(dash - text) : strlen(text);
    if (length >= sizeof first) return false;
    memcpy(first, text, length);
    first[length] = '\0';
    if (!cli_parse_int(first, low)) return false;
    *high = *low;
    if (dash && !cli_parse_int(dash + 1, high)) return false;
    return *low >= 0 && *low <= *high && *high < classes;
}

static int make_labels(drawing *d) {
    const char *text = cli_text(d->args, "class");
    const int64_t classes = d->info.classes;
    if (classes == 0) {
        if (text) return cli_usage("--class: the model has no classes, got \"%s\"", text);
        if (d->options.guidance != 1.0)
            return cli_usage("--guidance: the model has no classes that could guide; expected 1");
        return CLI_OK;
    }
    int64_t low, high;
    if (!parse_classes(text ? text : "all", classes, &low, &high))
        return cli_usage("--class: expected a label from 0 to %" PRId64
                         ", two with a dash, or all, got \"%s\"",
                         classes - 1, text);
    d->labels = tw_allocate(d->ctx, (size_t)d->n, sizeof *d->labels);
    if (!d->labels) return cli_fail_status(d->ctx, TW_ERROR_MEMORY);
    for (int64_t i = 0; i < d->n; i++) d->labels[i] = (int32_t)(low + i % (high - low + 1));
    /* A column for each label. */
    if (high > low && high - low < 32) d->columns = high - low + 1;
    return CLI_OK;
}

/* Whether an array holds d->n samples; with no --n, how many it holds is taken. */
static int check_noise_shape(drawing *d, const tw_npy *npy, const char *path) {
    bool fits = npy->rank == d->shape.rank + 1 && npy->shape[0] > 0;
    for (int i = 0; fits && i < d->shape.rank; i++) fits = npy->shape[i + 1] == d->shape.extents[i];
    if (fits && !cli_text(d->args, "n")) d->n = npy->shape[0];
    if (fits && npy->shape[0] == d->n) return CLI_OK;
    char want[96], got[160] = "", n[24] = "N";
    const int64_t *e = d->shape.extents;
    if (cli_text(d->args, "n")) snprintf(n, sizeof n, "%" PRId64, d->n);
    if (d->shape.rank == 3)
        snprintf(want, sizeof want, "%s, %" PRId64 ", %" PRId64 ", %" PRId64, n, e[0], e[1], e[2]);
    else
        snprintf(want, sizeof want, "%s, %" PRId64, n, e[0]);
    for (int i = 0; i < npy->rank; i++) {
        const size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s%" PRId64, i ? ", " : "", npy->shape[i]);
    }
    return cli_fail("--noise: %s: expected the shape (%s), got (%s)", path, want, got);
}

/* The first sample from `from` on with a number that is not finite; d->n: none. */
static int64_t next_not_finite(const drawing *d, const float *values, int64_t from) {
    for (int64_t i = from * d->shape.count; i < d->n * d->shape.count; i++)
        if (!isfinite(values[i])) return i / d->shape.count;
    return d->n;
}

static int read_noise(drawing *d) {
    const char *path = cli_text(d->args, "noise");
    if (!path) return CLI_OK;
    tw_npy npy;
    const tw_status s = tw_npy_open(d->ctx, path, &npy);
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    int rc = check_noise_shape(d, &npy, path);
    if (!rc && npy.dtype != TW_F32 && npy.dtype != TW_F64)
        rc = cli_fail("--noise: %s: expected float32 or float64, got %s", path,
                      tw_dtype_name(npy.dtype));
    if (!rc) {
        d->noise = tw_allocate(d->ctx, (size_t)npy.count, sizeof *d->noise);
        if (d->noise)
            tw_npy_to_f32(&npy, 0, npy.count, d->noise);
        else
            rc = cli_fail_status(d->ctx, TW_ERROR_MEMORY);
    }
    tw_npy_close(&npy);
    const int64_t bad = rc ? d->n : next_not_finite(d, d->noise, 0);
    if (bad < d->n)
        rc = cli_fail("--noise: %s: sample %" PRId64 ": a value that is no finite number", path,
                      bad);
    return rc;
}

/* After every step: progress, the trajectory, signals. */
static int on_step(void *user, const tw_step_info *info) {
    drawing *d = user;
    cli_trajectory_step(&d->trajectory, info);
    if (cli_progress_live()) {
        const double all = (double)d->n * (double)info->steps;
        const double done = (double)info->first * (double)info->steps +
                            (double)info->count * (double)(info->step + 1);
        const double spent = cli_seconds() - d->begun;
        cli_progress_show("%s  %" PRId64 "/%" PRId64 "  %s  %s/%s %s  left %s",
                          cli_text(d->args, "sampler"), info->step + 1, info->steps,
                          cli_bar(done / all).text, cli_grouped(info->first).text,
                          cli_grouped(d->n).text, cli_shape_noun(&d->shape, false),
                          cli_duration(spent * (all - done) / done).text);
    }
    return cli_signals_stop();
}

static int open_model(drawing *d) {
    const cli_args *a = d->args;
    d->info.size = sizeof d->info;
    tw_status s = tw_model_load(d->ctx, cli_text(a, "model"), cli_text(a, "variant"), &d->model);
    if (s == TW_OK) s = tw_model_get_info(d->model, &d->info);
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    d->shape = cli_shape_of(&d->info);
    d->n = cli_text(a, "n") ? cli_int(a, "n") : d->shape.rank == 3 ? 64 : 3000;
    int rc = fill_options(d);
    if (!rc)
        rc = cli_output_check("--out", cli_text(a, "out"),
                              CLI_OUTPUT_PNG | CLI_OUTPUT_NPY | CLI_OUTPUT_FOLDER, &d->shape,
                              &d->kind);
    return rc;
}

static int open_run(drawing *d) {
    const char *trajectory = cli_text(d->args, "trajectory");
    cli_output_kind kind = CLI_OUTPUT_PNG;
    size_t count;
    int rc = read_noise(d);
    if (!rc) rc = make_labels(d);
    if (!rc && trajectory)
        rc = cli_output_check("--trajectory", trajectory,
                              CLI_OUTPUT_PNG | CLI_OUTPUT_GIF | CLI_OUTPUT_PLOT | CLI_OUTPUT_NPY,
                              &d->shape, &kind);
    if (rc) return rc;
    if (!tw_mul_size((size_t)d->n, (size_t)d->shape.count, &count))
        return cli_fail("--n: %" PRId64 " samples do not fit the memory", d->n);
    d->options.hook = on_step;
    d->options.hook_user = d;
    d->options.want_x = trajectory != NULL;
    tw_status s = tw_sampler_create(d->model, &d->options, &d->sampler);
    if (s == TW_OK) {
        int64_t steps = d->options.steps;
        tw_sampler_timesteps(d->sampler, &steps);
        s = cli_trajectory_open(d->ctx, &d->trajectory, trajectory, kind, &d->shape, d->n, steps);
        d->trajectory.fps = cli_int(d->args, "fps");
        d->trajectory.pause = cli_real(d->args, "pause");
        d->trajectory.columns = d->columns;
    }
    if (s == TW_OK)
        s = cli_trajectory_start(d->ctx, &d->trajectory, d->options.seed, d->options.first_sample,
                                 d->noise);
    if (s == TW_OK) {
        d->values = tw_allocate(d->ctx, count, sizeof *d->values);
        if (!d->values) s = TW_ERROR_MEMORY;
    }
    return s == TW_OK ? CLI_OK : cli_fail_status(d->ctx, s);
}

static void print_summary(const drawing *d, double seconds) {
    int64_t steps = d->options.steps;
    tw_sampler_timesteps(d->sampler, &steps);
    const char *name = cli_text(d->args, "sampler");
    const char *noun = cli_shape_noun(&d->shape, d->n == 1);
    char tail[512];
    snprintf(tail, sizeof tail, "%s %s  %s  (%s %s/s)", cli_grouped(d->n).text, noun,
             cli_duration(seconds).text,
             cli_rate((double)d->n / (seconds > 1e-9 ? seconds : 1e-9)).text,
             cli_shape_noun(&d->shape, false));
    if (cli_progress_live()) {
        cli_progress_show("%s  %" PRId64 "/%" PRId64 "  %s  %s", name, steps, steps,
                          cli_bar(1.0).text, tail);
        cli_progress_end_line();
    } else {
        printf("%s  %" PRId64 " steps  %s\n", name, steps, tail);
    }
}

static int interrupted(const char *what) {
    cli_fail("interrupted; %s", what);
    return CLI_INTERRUPTED;
}

/* A signal waits until the file that is being written is whole. */
static int write_results(drawing *d) {
    static const char half[] = "the samples were written, the trajectory was not";
    const char *out = cli_text(d->args, "out");
    if (cli_signals_stop()) return interrupted("nothing was written");
    tw_status s = cli_output_write(d->ctx, out, d->kind, &d->shape, d->n, d->values, d->columns);
    if (s == TW_ERROR_CANCELLED) return interrupted("nothing was written");
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    printf("%s\n", out);
    if (cli_signals_stop())
        return interrupted(d->trajectory.path ? half : "the samples were written");
    s = cli_trajectory_write(d->ctx, &d->trajectory);
    if (s == TW_ERROR_CANCELLED) return interrupted(half);
    if (s != TW_OK) return cli_fail_status(d->ctx, s);
    if (d->trajectory.path) printf("%s\n", d->trajectory.path);
    return CLI_OK;
}

/* They are written all the same: what is wrong with them may show. */
static int check_finite(const drawing *d) {
    int64_t count = 0;
    for (int64_t i = 0; (i = next_not_finite(d, d->values, i)) < d->n; i++) count++;
    if (!count) return CLI_OK;
    cli_fail("%s of %s %s hold numbers that are not finite%s", cli_grouped(count).text,
             cli_grouped(d->n).text, cli_shape_noun(&d->shape, d->n == 1),
             cli_choice(d->args, "precision") == TW_PRECISION_F32 ? ""
                                                                  : "; --precision fp32 may help");
    return CLI_NOT_FINITE;
}

static int draw(drawing *d) {
    static const char less[] = "a smaller --max-batch takes less";
    size_t bytes = 0;
    char arena[192] = "";
    tw_status s = tw_sampler_memory(d->sampler, d->n, &bytes);
    if (s != TW_OK) return cli_fail_memory(d->ctx, s, less);
    if (*d->kept) {
        const int rc = cli_keep_tuning(d->args, d->ctx, d->kept);
        if (rc) return rc;
    }
    snprintf(arena, sizeof arena, "arena %s", cli_bytes((double)bytes).text);
    cli_print_head(d->ctx, &d->info, cli_text(d->args, "precision"), arena);
    cli_print_choices(d->ctx, &d->ctx->backend->choices, 10);
    cli_signals_catch();
    d->begun = cli_seconds();
    s = tw_sampler_run(d->sampler, d->n, d->labels, d->noise, d->values);
    if (s == TW_ERROR_CANCELLED) return interrupted("nothing was written");
    if (s != TW_OK) return cli_fail_memory(d->ctx, s, less);
    print_summary(d, cli_seconds() - d->begun);
    const int rc = write_results(d);
    return rc ? rc : check_finite(d);
}

static int run(const cli_args *args) {
    drawing d = {.args = args};
    int rc = check_options(args);
    if (!rc) rc = cli_context(args, &d.ctx);
    const char *kept = cli_tuning_cache(d.kept, sizeof d.kept) ? d.kept : NULL;
    if (!rc) rc = cli_tune(args, d.ctx, kept);
    if (!rc) rc = open_model(&d);
    if (!rc) rc = open_run(&d);
    if (!rc) rc = draw(&d);
    cli_trajectory_close(d.ctx, &d.trajectory);
    tw_free(d.ctx, d.values);
    tw_free(d.ctx, d.noise);
    tw_free(d.ctx, d.labels);
    tw_sampler_free(d.sampler);
    tw_model_free(d.model);
    tw_context_free(d.ctx);
    return rc;
}

static const cli_example examples[] = {
    {"sixty digits in ten columns",
     "tweedie sample --model run --out digits.png --n 60 --class 0-9"},
    {"arrays for another program, twenty steps",
     "tweedie sample --model run --out samples.npy --n 1000 --steps 20"},
    {NULL, NULL}};

const cli_command cli_sample_command = {
    .name = "sample",
    .summary = "draws samples from a model",
    .usage = "tweedie sample --model DIR --out PATH [--option VALUE ...]",
    .options = options,
    .notes = "The noise of a sample depends on the seed and the sample's index alone, not on "
             "--max-batch.",
    .examples = examples,
    .run = run};
