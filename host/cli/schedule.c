/* tweedie schedule: noise schedules side by side, as a plot or as numbers. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gnuplot.h"
#include "cli/output.h"
#include "cli/schedules.h"
#include "cli/signals.h"
#include "core/context.h"
#include "io/file.h"

#define DEFAULT_SCHEDULES "linear,scaled_linear,squaredcos_cap_v2,sigmoid"
#define CURVES_MAX 8
/* A curve is drawn through at most so many points. */
#define DRAWN 2000

static const cli_option options[] = {
    CLI_GROUP("Schedules"),
    {"schedules", CLI_TEXT, "A,B,...", 0, 0, NULL,
     "named schedules: linear, scaled_linear, squaredcos_cap_v2, sigmoid [all; none with --model "
     "or --scheduler]"},
    CLI_SCHEDULE_OPTIONS,
    CLI_GROUP("Output"),
    {"out", CLI_TEXT, "PATH", 0, 0, NULL, "x.png, x.svg or x.pdf: a plot; x.csv, x.json: numbers"},
    {"json", CLI_FLAG, NULL, 0, 0, NULL, "print the numbers as JSON"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

typedef struct curve {
    char name[64];
    tw_schedule *schedule;
} curve;

typedef struct curves {
    const cli_args *args;
    tw_context *ctx;
    int count;
    curve items[CURVES_MAX];
} curves;

/* What is shown of a schedule at one t. */
enum { QUANTITIES = 4 };
static const char *const quantity_names[QUANTITIES] = {"beta", "alphas_cumprod",
                                                       "sqrt_one_minus_alphas_cumprod", "log_snr"};

static void quantities(const tw_schedule *s, int64_t t, double out[QUANTITIES]) {
    const double kept = tw_schedule_alphas_cumprod(s)[t];
    out[0] = tw_schedule_betas(s)[t];
    out[1] = kept;
    out[2] = sqrt(1.0 - kept);
    out[3] = log(kept) - log1p(-kept); /* -infinity where no signal is left */
}

/* --- Which schedules --- */

static void set_name(curve *c, const char *text) {
    size_t n = strlen(text);
    while (n > 1 && text[n - 1] == '/') n--;
    const char *from = text;
    for (const char *p = text; p < text + n; p++)
        if (*p == '/' && p + 1 < text + n) from = p + 1;
    const int length = (int)(text + n - from);
    snprintf(c->name, sizeof c->name, "%.*s", length, from);
}

/* "A,B,...", each once. */
static int take_list(curves *all, const char *list) {
    for (const char *p = list; p;) {
        const char *comma = strchr(p, ',');
        const size_t length = comma ? (size_t)(comma - p) : strlen(p);
        curve *c = &all->items[all->count];
        snprintf(c->name, sizeof c->name, "%.*s", length < 60 ? (int)length : 60, p);
        for (int i = 0; i < all->count; i++)
            if (strcmp(all->items[i].name, c->name) == 0)
                return cli_usage("--schedules: \"%s\" is there twice", c->name);
        const int rc = cli_schedule_named(all->ctx, all->args, "schedules", c->name, &c->schedule);
        if (rc) return rc;
        all->count++;
        p = comma ? comma + 1 : NULL;
    }
    return CLI_OK;
}

/* Options for the named schedules say nothing if there is none that heeds them. */
static int check_unused(const cli_args *a, const char *list) {
    static const char *const shared[] = {"training-steps", "rescale-zero-snr"};
    static const char *const linear[] = {"beta-start", "beta-end"};
    for (int i = 0; i < 2; i++) {
        if (!list && cli_source_of(a, shared[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to --schedules, of which there are none", shared[i]);
        const bool heeded = list && (strstr(list, "linear") || strstr(list, "sigmoid"));
        if (!heeded && cli_source_of(a, linear[i]) == CLI_FROM_USER)
            return cli_usage("--%s: belongs to linear, scaled_linear and sigmoid, of which there "
                             "are none",
                             linear[i]);
    }
    return CLI_OK;
}

static int collect(curves *all) {
    const cli_args *a = all->args;
    const char *model = cli_text(a, "model"), *file = cli_text(a, "scheduler");
    const char *list = cli_text(a, "schedules");
    if (!list && !model && !file) list = DEFAULT_SCHEDULES;
    int rc = check_unused(a, list);
    if (!rc && list) rc = take_list(all, list);
    if (!rc && model) {
        curve *c = &all->items[all->count++];
        set_name(c, model);
        rc = cli_schedule_of_model(all->ctx, a, &c->schedule);
    }
    if (!rc && file) {
        curve *c = &all->items[all->count++];
        set_name(c, file);
        rc = cli_schedule_of_file(all->ctx, a, &c->schedule);
    }
    return rc;
}

/* --- Numbers --- */

static void print_table(const curves *all) {
    printf("%-20s %8s %12s %16s %24s %9s\n", "schedule", "t", "beta", "alphas_cumprod",
           "sqrt(1-alphas_cumprod)", "log-SNR");
    for (int i = 0; i < all->count; i++) {
        const int64_t T = tw_schedule_steps(all->items[i].schedule);
        for (int64_t k = 0; k <= 4; k++) {
            double q[QUANTITIES];
            const int64_t t = k * (T - 1) / 4;
            quantities(all->items[i].schedule, t, q);
            printf("%-20s %8" PRId64 " %12.4e %16.6g %24.6f %9.3f\n",
                   k == 0 ? all->items[i].name : "", t, q[0], q[1], q[2], q[3]);
        }
    }
}

static json_t *real_or_null(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *curve_json(const curve *c) {
    json_t *lists[QUANTITIES], *object = json_object();
    const int64_t T = tw_schedule_steps(c->schedule);
    int bad = object ? 0 : -1;
    bad |= json_object_set_new(object, "name", json_string(c->name));
    bad |= json_object_set_new(object, "training_steps", json_integer(T));
    for (int k = 0; k < QUANTITIES; k++) {
        lists[k] = json_array();
        bad |= json_object_set_new(object, quantity_names[k], lists[k]);
    }
    for (int64_t t = 0; !bad && t < T; t++) {
        double q[QUANTITIES];
        quantities(c->schedule, t, q);
        for (int k = 0; k < QUANTITIES; k++)
            bad |= json_array_append_new(lists[k], real_or_null(q[k]));
    }
    if (!bad) return object;
    json_decref(object);
    return NULL;
}

/* The text ends with a newline; freed with free. Null without memory. */
static char *as_json(const curves *all) {
    json_t *list = json_array(), *object = json_object();
    int bad = json_object_set_new(object, "schedules", list);
    for (int i = 0; !bad && i < all->count; i++)
        bad = json_array_append_new(list, curve_json(&all->items[i]));
    char *text = bad ? NULL : json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(object);
    const size_t n = text ? strlen(text) : 0;
    char *longer = text ? realloc(text, n + 2) : NULL;
    if (!longer) {
        free(text);
        return NULL;
    }
    memcpy(longer + n, "\n", 2);
    return longer;
}

static char *as_csv(const curves *all) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return NULL;
    fprintf(f, "schedule,t");
    for (int k = 0; k < QUANTITIES; k++) fprintf(f, ",%s", quantity_names[k]);
    fprintf(f, "\n");
    for (int i = 0; i < all->count; i++)
        for (int64_t t = 0; t < tw_schedule_steps(all->items[i].schedule); t++) {
            double q[QUANTITIES];
            quantities(all->items[i].schedule, t, q);
            cli_plot_csv_field(f, all->items[i].name);
            fprintf(f, ",%" PRId64, t);
            for (int k = 0; k < QUANTITIES; k++) fprintf(f, ",%.17g", q[k]);
            fprintf(f, "\n");
        }
    const bool bad = ferror(f) != 0;
    if (fclose(f) == 0 && !bad) return text;
    free(text);
    return NULL;
}

/* --- The plot --- */

static void write_data(FILE *f, const curves *all) {
    for (int i = 0; i < all->count; i++) {
        const tw_schedule *s = all->items[i].schedule;
        const int64_t T = tw_schedule_steps(s), stride = (T - 1) / DRAWN + 1;
        fprintf(f, "$curve%d << EOD\n", i);
        for (int64_t t = 0; t < T; t = t < T - 1 && t + stride >= T ? T - 1 : t + stride) {
            double q[QUANTITIES];
            quantities(s, t, q);
            fprintf(f, "%" PRId64, t);
            for (int k = 0; k < QUANTITIES; k++)
                if (isfinite(q[k]))
                    fprintf(f, " %.9g", q[k]);
                else
                    fprintf(f, " NaN");
            fprintf(f, "\n");
        }
        fprintf(f, "EOD\n");
    }
}

static void write_panel(cli_plot *plot, const curves *all, int quantity, const char *title) {
    FILE *f = plot->script;
    /* The corner over these curves is empty. */
    fprintf(f, quantity == 1 ? "set key top right\n" : "unset key\n");
    fprintf(f, "set title '%s' noenhanced\n", title);
    fprintf(f, quantity == 0 ? "set logscale y\nset format y '10^{%%T}'\n"
                             : "unset logscale y\nset format y '%%g'\n");
    fprintf(f, quantity == 1 || quantity == 2 ? "set yrange [0:1]\n" : "set yrange [*:*]\n");
    fprintf(f, "plot ");
    for (int i = 0; i < all->count; i++) {
        fprintf(f, "%s$curve%d using 1:%d with lines linewidth 2 dashtype %d linecolor '%s' title ",
                i ? ", " : "", i, quantity + 2, i % 5 + 1, cli_plot_colour(i));
        cli_plot_quote(plot, all->items[i].name);
    }
    fputc('\n', f);
}

static tw_status draw(const curves *all, const char *path) {
    static const char *const titles[QUANTITIES] = {
        "beta: noise that step t adds", "alphas_cumprod: signal variance left at t",
        "sqrt(1 − alphas_cumprod): noise level at t",
        "log-SNR: ln(alphas_cumprod / (1 − alphas_cumprod))"};
    cli_plot plot;
    tw_status s = cli_plot_begin(all->ctx, &plot, path, 760, 560);
    if (s == TW_OK) {
        FILE *f = plot.script;
        write_data(f, all);
        fprintf(f, "set multiplot layout 2,2 margins 0.065,0.97,0.085,0.945 spacing 0.085,0.15\n"
                   "set xlabel 't' offset 0,0.4\nset xrange [0:*]\n");
        for (int k = 0; k < QUANTITIES; k++) write_panel(&plot, all, k, titles[k]);
        fprintf(f, "unset multiplot\n");
        cli_signals_catch();
        s = cli_plot_write(all->ctx, &plot, path);
    }
    cli_plot_close(&plot);
    return s;
}

/* --- The command --- */

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

static int check_out(const cli_args *a) {
    const char *out = cli_text(a, "out");
    if (!out) return CLI_OK;
    if (cli_flag(a, "json"))
        return cli_usage("--json and --out: expected one of them; --out x.json writes a file");
    if (!cli_plot_takes(out) && !ends_with(out, ".csv") && !ends_with(out, ".json"))
        return cli_usage("--out: expected a path ending in .png, .svg, .pdf, .csv or .json, got "
                         "\"%s\"",
                         out);
    return cli_output_check_file("--out", out);
}

static int write_out(const curves *all, const char *out) {
    if (cli_plot_takes(out)) {
        const tw_status s = draw(all, out);
        if (s == TW_ERROR_CANCELLED) cli_fail("interrupted; nothing was written");
        return s == TW_OK ? CLI_OK : cli_fail_status(all->ctx, s);
    }
    char *text = ends_with(out, ".csv") ? as_csv(all) : as_json(all);
    if (!text) return cli_fail("%s: out of memory", out);
    const tw_status s = tw_file_write(all->ctx, out, text, strlen(text));
    free(text);
    return s == TW_OK ? CLI_OK : cli_fail_status(all->ctx, s);
}

static int show(const curves *all) {
    const char *out = cli_text(all->args, "out");
    if (out) {
        const int rc = write_out(all, out);
        if (!rc) printf("%s\n", out);
        return rc;
    }
    if (!cli_flag(all->args, "json")) {
        print_table(all);
        return CLI_OK;
    }
    char *text = as_json(all);
    if (!text) return cli_fail("out of memory");
    fputs(text, stdout);
    free(text);
    return CLI_OK;
}

static int run(const cli_args *args) {
    curves all = {.args = args};
    tw_context_options options_of_context = TW_CONTEXT_OPTIONS_INIT;
    options_of_context.device = TW_DEVICE_CPU;
    options_of_context.threads = 1;
    int rc = check_out(args);
    if (rc) return rc;
    const tw_status s = tw_context_create(&options_of_context, &all.ctx);
    if (s != TW_OK) return cli_fail_status(NULL, s);
    rc = collect(&all);
    if (!rc) rc = show(&all);
    for (int i = 0; i < CURVES_MAX; i++) tw_schedule_free(all.items[i].schedule);
    tw_context_free(all.ctx);
    return rc;
}

static const cli_example examples[] = {
    {"four schedules side by side", "tweedie schedule --out schedule.png"},
    {"a model's beside the linear one, as numbers",
     "tweedie schedule --model run --schedules linear --out schedule.csv"},
    {NULL, NULL}};

const cli_command cli_schedule_command = {
    .name = "schedule",
    .summary = "shows noise schedules side by side",
    .usage = "tweedie schedule [--out PATH] [--option VALUE ...]",
    .options = options,
    .notes = "Without --out a few rows of the numbers are printed. Plots are drawn by gnuplot.",
    .examples = examples,
    .run = run};
