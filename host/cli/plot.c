/* tweedie plot: losses, gradient norms and learning rates of training runs. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/gnuplot.h"
#include "cli/metrics.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "core/context.h"
#include "io/file.h"

#define RUNS_MAX 16
/* A curve is drawn through at most about so many points. */
#define DRAWN 2000
/* A loss that falls by more than this is shown on a logarithmic axis. */
#define LOG_FROM 4.0

static const cli_option options[] = {
    CLI_GROUP("Runs and output"),
    {"run", CLI_LIST, "DIR|FILE.jsonl", 0, 0, NULL,
     "a run of `tweedie train`, or its metrics.jsonl"},
    {"out", CLI_TEXT, "PATH", 0, 0, NULL, "x.png, x.svg or x.pdf: a plot; x.csv: the numbers"},
    CLI_GROUP("Curves"),
    {"smooth", CLI_INT, "N", 1, 1e9, NULL,
     "steps that the thick line is the mean of; 1: no such line [a fiftieth of the run]"},
    {"loss-axis", CLI_CHOICE, "auto|linear|log", 0, 0, "auto",
     "scale of the loss; auto: by how far it falls"},
    {NULL, CLI_FLAG, NULL, 0, 0, NULL, NULL}};

typedef struct run_curves {
    cli_metrics metrics;
    int64_t window;
    double *loss, *grad_norm; /* smoothed, [steps] */
} run_curves;

typedef struct plotting {
    const cli_args *args;
    tw_context *ctx;
    int count;
    run_curves runs[RUNS_MAX];
} plotting;

/* --- The runs --- */

static tw_status smooth(plotting *p, run_curves *r) {
    const int64_t n = r->metrics.steps;
    r->window = cli_text(p->args, "smooth") ? cli_int(p->args, "smooth") : n / 50 + 1;
    if (r->window > n) r->window = n > 0 ? n : 1;
    r->loss = tw_allocate(p->ctx, (size_t)n + 1, 2 * sizeof *r->loss);
    if (!r->loss) return TW_ERROR_MEMORY;
    r->grad_norm = r->loss + n + 1;
    TW_TRY(cli_metrics_smooth(p->ctx, r->metrics.loss, n, r->window, r->loss));
    return cli_metrics_smooth(p->ctx, r->metrics.grad_norm, n, r->window, r->grad_norm);
}

static int add_run(plotting *p, const char *path) {
    if (p->count == RUNS_MAX)
        return cli_usage("--run: expected at most %d runs, got more", RUNS_MAX);
    run_curves *r = &p->runs[p->count++];
    if (!tw_directory_exists(path) && !tw_file_exists(path))
        return cli_fail("--run: there is no run %s", path);
    tw_status s = cli_metrics_read(p->ctx, path, &r->metrics);
    if (s == TW_OK) s = smooth(p, r);
    if (s == TW_ERROR_CANCELLED) cli_fail("interrupted; nothing was written");
    return s == TW_OK ? CLI_OK : cli_fail_status(p->ctx, s);
}

static int add_runs(plotting *p) {
    int rc = CLI_OK;
    for (int i = 0; !rc && cli_listed(p->args, "run", i); i++)
        rc = add_run(p, cli_listed(p->args, "run", i));
    return rc;
}

/* --- Numbers --- */

static void print_cell(FILE *f, double v) {
    if (isfinite(v))
        fprintf(f, ",%.17g", v);
    else
        fputc(',', f);
}

static tw_status write_csv(const plotting *p, const char *path) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return tw_fail(p->ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    fprintf(f, "run,step,loss,loss_mean,grad_norm,lr,validation_loss,validation_loss_average\n");
    for (int i = 0; i < p->count; i++) {
        const run_curves *r = &p->runs[i];
        const cli_metrics *m = &r->metrics;
        for (int64_t k = 0; k < m->steps; k++) {
            const double cells[] = {m->loss[k], r->loss[k], m->grad_norm[k], m->lr[k]};
            cli_plot_csv_field(f, m->name);
            fprintf(f, ",%.0f", m->step[k]);
            for (int c = 0; c < 4; c++) print_cell(f, cells[c]);
            fprintf(f, ",,\n");
        }
        for (int64_t k = 0; k < m->validations; k++) {
            cli_plot_csv_field(f, m->name);
            fprintf(f, ",%.0f,,,,", m->validation_step[k]);
            print_cell(f, m->validation[k]);
            print_cell(f, m->validation_average[k]);
            fputc('\n', f);
        }
    }
    const bool bad = ferror(f) != 0;
    tw_status s = fclose(f) == 0 && !bad
                      ? tw_file_write(p->ctx, path, text, size)
                      : tw_fail(p->ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    free(text);
    return s;
}

/* --- The plot --- */

/* The columns that a panel shows of each run. */
enum { LOSS, GRAD_NORM, RATE, PANELS };

static const double *raw_column(const run_curves *r, int panel) {
    return panel == LOSS        ? r->metrics.loss
           : panel == GRAD_NORM ? r->metrics.grad_norm
                                : r->metrics.lr;
}

/* The smoothed column; null: it needs none. */
static const double *smooth_column(const run_curves *r, int panel) {
    if (r->window < 2) return NULL;
    return panel == LOSS ? r->loss : panel == GRAD_NORM ? r->grad_norm : NULL;
}

static void print_point(FILE *f, double step, double value) {
    if (isfinite(value))
        fprintf(f, "%.0f %.9g\n", step, value);
    else
        fprintf(f, "%.0f NaN\n", step);
}

/* The lowest and the highest of every stretch of a long column, so that its extent still shows. */
static void write_extremes(FILE *f, const double *step, const double *values, int64_t n) {
    const int64_t stride = n / DRAWN + 1;
    for (int64_t i = 0; i < n; i += stride) {
        int64_t low = i, high = i;
        for (int64_t k = i; k < n && k < i + stride; k++) {
            if (!(values[low] <= values[k])) low = k;
            if (!(values[high] >= values[k])) high = k;
        }
        print_point(f, step[low < high ? low : high], values[low < high ? low : high]);
        if (low != high)
            print_point(f, step[low < high ? high : low], values[low < high ? high : low]);
    }
}

static void write_thinned(FILE *f, const double *step, const double *values, int64_t n) {
    const int64_t stride = n / DRAWN + 1;
    for (int64_t i = 0; i < n; i += stride) print_point(f, step[i], values[i]);
    if (n && (n - 1) % stride) print_point(f, step[n - 1], values[n - 1]);
}

static bool any_finite(const double *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (isfinite(values[i])) return true;
    return false;
}

static void write_data(FILE *f, const plotting *p) {
    for (int i = 0; i < p->count; i++) {
        const run_curves *r = &p->runs[i];
        const cli_metrics *m = &r->metrics;
        for (int panel = 0; panel < PANELS; panel++) {
            fprintf(f, "$raw%d_%d << EOD\n", i, panel);
            write_extremes(f, m->step, raw_column(r, panel), m->steps);
            fprintf(f, "EOD\n");
            if (!smooth_column(r, panel)) continue;
            fprintf(f, "$mean%d_%d << EOD\n", i, panel);
            write_thinned(f, m->step, smooth_column(r, panel), m->steps);
            fprintf(f, "EOD\n");
        }
        fprintf(f, "$held%d << EOD\n", i);
        write_thinned(f, m->validation_step, m->validation, m->validations);
        fprintf(f, "EOD\n$average%d << EOD\n", i);
        write_thinned(f, m->validation_step, m->validation_average, m->validations);
        fprintf(f, "EOD\n");
    }
}

/* The least and the greatest positive number. */
typedef struct extent {
    double low, high;
} extent;

static void include(extent *e, const double *values, int64_t n) {
    for (int64_t k = 0; k < n; k++)
        if (values[k] > 0 && isfinite(values[k])) {
            e->low = fmin(e->low, values[k]);
            e->high = fmax(e->high, values[k]);
        }
}

/* Of a panel's main curves, or of all that it shows. */
static extent extent_of(const plotting *p, int panel, bool all) {
    extent e = {INFINITY, 0.0};
    for (int i = 0; i < p->count; i++) {
        const run_curves *r = &p->runs[i];
        const cli_metrics *m = &r->metrics;
        const double *mean = smooth_column(r, panel);
        include(&e, mean && !all ? mean : raw_column(r, panel), m->steps);
        if (panel != LOSS) continue;
        include(&e, m->validation, m->validations);
        include(&e, m->validation_average, m->validations);
    }
    return e;
}

static bool has_panel(const plotting *p, int panel) {
    for (int i = 0; i < p->count; i++) {
        const cli_metrics *m = &p->runs[i].metrics;
        if (any_finite(raw_column(&p->runs[i], panel), m->steps)) return true;
        if (panel == LOSS && (any_finite(m->validation, m->validations) ||
                              any_finite(m->validation_average, m->validations)))
            return true;
    }
    return false;
}

static bool wants_log(const plotting *p, int panel) {
    const extent e = extent_of(p, panel, false);
    if (panel == RATE || e.high <= 0.0) return false;
    const int axis = panel == LOSS ? cli_choice(p->args, "loss-axis") : 0;
    return axis == 0 ? e.high > LOG_FROM * e.low : axis == 2;
}

/* A logarithmic axis has labels between the powers of ten where those alone would be few. */
static void set_axis(FILE *f, const plotting *p, int panel) {
    fprintf(f, "unset logscale y\nset ytics autofreq\nset format y '%%g'\n");
    fprintf(f, panel == RATE ? "set yrange [0:*]\n" : "set yrange [*:*]\n");
    const extent e = extent_of(p, panel, true);
    if (!wants_log(p, panel)) {
        const double range = panel == RATE ? e.high : e.high - e.low;
        if (range > 0.0 && isfinite(range))
            fprintf(f, "set ytics %.17g\n", cli_plot_step(range, 6));
        return;
    }
    fprintf(f, "set logscale y\nset yrange [%.9g:%.9g]\n", e.low / 1.2, e.high * 1.2);
    if (e.high > 1000.0 * e.low) {
        fprintf(f, "set format y '10^{%%T}'\n");
        return;
    }
    const int first = (int)floor(log10(e.low)) - 1, last = (int)ceil(log10(e.high)) + 1;
    fprintf(f, "set ytics (");
    for (int k = first; k <= last; k++)
        fprintf(f, e.high > 20.0 * e.low ? "%s1e%d, 2e%d, 5e%d" : "%s1e%d, 2e%d, 5e%d, 3e%d, 7e%d",
                k > first ? ", " : "", k, k, k, k, k);
    fprintf(f, ")\n");
}

/* One element of a plot command. */
static void add_curve(cli_plot *plot, bool *begun, const char *block, int index, const char *style,
                      int colour, const char *alpha, const char *name, const char *more) {
    FILE *f = plot->script;
    char title[128];
    fprintf(f, "%s$%s%d", *begun ? ", " : "plot ", block, index);
    *begun = true;
    fprintf(f, " using 1:2 with %s linecolor '#%s%s' ", style, alpha, cli_plot_colour(colour) + 1);
    if (!name) {
        fprintf(f, "notitle");
        return;
    }
    snprintf(title, sizeof title, "%s%s", name, more);
    fprintf(f, "title ");
    cli_plot_quote(plot, title);
}

static void write_panel(cli_plot *plot, const plotting *p, int panel) {
    bool begun = false;
    char block[32];
    set_axis(plot->script, p, panel);
    for (int pass = 0; pass < 2; pass++) /* what is noisy lies under what is not */
        for (int i = 0; i < p->count; i++) {
            const run_curves *r = &p->runs[i];
            const double *mean = smooth_column(r, panel);
            if (!any_finite(raw_column(r, panel), r->metrics.steps)) continue;
            snprintf(block, sizeof block, "%s%d_", pass ? "mean" : "raw", i);
            if (pass == 0)
                add_curve(plot, &begun, block, panel,
                          mean ? "lines linewidth 0.6" : "lines linewidth 1.6", i,
                          mean ? "b0" : "00", mean ? NULL : r->metrics.name, "");
            else if (mean)
                add_curve(plot, &begun, block, panel, "lines linewidth 2", i, "00", r->metrics.name,
                          "");
        }
    for (int i = 0; panel == LOSS && i < p->count; i++) {
        const cli_metrics *m = &p->runs[i].metrics;
        if (any_finite(m->validation, m->validations))
            add_curve(plot, &begun, "held", i,
                      "linespoints linewidth 1 dashtype 2 pointtype 7 pointsize 0.8", i, "00",
                      m->name, ", held out");
        if (any_finite(m->validation_average, m->validations))
            add_curve(plot, &begun, "average", i,
                      "linespoints linewidth 1 dashtype 3 pointtype 9 pointsize 1", i, "00",
                      m->name, ", held out, averaged weights");
    }
    fputc('\n', plot->script);
}

/* gnuplot does not see that its labels run into each other. */
static void set_steps(FILE *f, const plotting *p, int parts) {
    double last = 1.0;
    for (int i = 0; i < p->count; i++) {
        const cli_metrics *m = &p->runs[i].metrics;
        if (m->steps) last = fmax(last, m->step[m->steps - 1]);
        if (m->validations) last = fmax(last, m->validation_step[m->validations - 1]);
    }
    fprintf(f, "set xrange [0:%.0f]\nset xtics 0,%.17g\n", last,
            fmax(cli_plot_step(last, parts), 1.0));
}

static void write_script(cli_plot *plot, const plotting *p) {
    FILE *f = plot->script;
    const bool below[] = {has_panel(p, GRAD_NORM), has_panel(p, RATE)};
    const bool one = !below[0] && !below[1];
    int64_t longest = 1;
    bool differ = false;
    for (int i = 0; i < p->count; i++) {
        differ |= p->runs[i].window != p->runs[0].window;
        if (p->runs[i].window > longest) longest = p->runs[i].window;
    }
    write_data(f, p);
    fprintf(f, "set multiplot\nset format x '%%.0f'\nset xlabel 'step' offset 0,0.4\n");
    fprintf(f,
            "set lmargin at screen 0.085\nset rmargin at screen 0.97\n"
            "set tmargin at screen 0.945\nset bmargin at screen %s\n",
            one ? "0.09" : "0.46");
    if (longest > 1)
        fprintf(f,
                "set title 'training loss (thin: each step, thick: mean of %" PRId64 " steps%s)'\n",
                longest, differ ? " or fewer" : "");
    else
        fprintf(f, "set title 'training loss'\n");
    set_steps(f, p, 10);
    write_panel(plot, p, LOSS);
    set_steps(f, p, 5);
    fprintf(f, "unset key\nset tmargin at screen 0.33\nset bmargin at screen 0.085\n");
    if (below[0]) {
        fprintf(f, "set title 'norm of the gradient'\nset rmargin at screen 0.485\n");
        write_panel(plot, p, GRAD_NORM);
    }
    if (below[1]) {
        fprintf(f,
                "set title 'learning rate'\nset lmargin at screen %s\n"
                "set rmargin at screen 0.97\n",
                below[0] ? "0.59" : "0.085");
        write_panel(plot, p, RATE);
    }
    fprintf(f, "unset multiplot\n");
}

static tw_status draw(const plotting *p, const char *path) {
    cli_plot plot;
    if (!has_panel(p, LOSS))
        return tw_fail(p->ctx, TW_ERROR_FORMAT, "%s: no loss is a number", p->runs[0].metrics.name);
    tw_status s = cli_plot_begin(p->ctx, &plot, path, 760, 560);
    if (s == TW_OK) {
        write_script(&plot, p);
        s = cli_plot_write(p->ctx, &plot, path);
    }
    cli_plot_close(&plot);
    return s;
}

/* --- The command --- */

static int check_options(const cli_args *a, bool *csv) {
    const char *out = cli_text(a, "out");
    if (!cli_text(a, "run")) return cli_usage("plot: --run DIR is missing");
    if (!out) return cli_usage("plot: --out PATH is missing");
    const size_t n = strlen(out);
    *csv = n > 4 && strcmp(out + n - 4, ".csv") == 0;
    if (!*csv && !cli_plot_takes(out))
        return cli_usage("--out: expected a path ending in .png, .svg, .pdf or .csv, got \"%s\"",
                         out);
    return cli_output_check_file("--out", out);
}

static int run(const cli_args *args) {
    plotting p = {.args = args};
    tw_context_options context = TW_CONTEXT_OPTIONS_INIT;
    context.device = TW_DEVICE_CPU;
    context.threads = 1;
    bool csv = false;
    int rc = check_options(args, &csv);
    if (rc) return rc;
    tw_status s = tw_context_create(&context, &p.ctx);
    if (s != TW_OK) return cli_fail_status(NULL, s);
    cli_signals_catch();
    rc = add_runs(&p);
    if (!rc) {
        const char *out = cli_text(args, "out");
        s = csv ? write_csv(&p, out) : draw(&p, out);
        if (s == TW_ERROR_CANCELLED) cli_fail("interrupted; nothing was written");
        rc = s == TW_OK ? CLI_OK : cli_fail_status(p.ctx, s);
        if (!rc) printf("%s\n", out);
    }
    for (int i = 0; i < p.count; i++) {
        tw_free(p.ctx, p.runs[i].loss);
        cli_metrics_free(p.ctx, &p.runs[i].metrics);
    }
    tw_context_free(p.ctx);
    return rc;
}

static const cli_example examples[] = {
    {"a run's curves", "tweedie plot --run run --out loss.png"},
    {"two runs in one picture", "tweedie plot --run small --run large --out losses.pdf"},
    {NULL, NULL}};

const cli_command cli_plot_command = {
    .name = "plot",
    .summary = "draws the loss curves of training runs",
    .usage = "tweedie plot --run DIR [--run DIR ...] --out PATH [--option VALUE ...]",
    .options = options,
    .notes = "Plots are drawn by gnuplot. A run may still be in training.",
    .examples = examples,
    .run = run};
