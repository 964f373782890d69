#include "cli/metrics.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/signals.h"
#include "core/checked.h"
#include "core/context.h"
#include "io/file.h"
#include "models/path.h"

/* Doubles hold every whole number up to here. */
#define STEP_MAX ((json_int_t)1 << 53)

enum { COLUMNS = 7 };

/* Where a line stands, for messages. */
typedef struct place {
    tw_context *ctx;
    const char *path;
    int64_t line;
} place;

static tw_status foreign(const place *at, const char *expected) {
    return tw_fail(at->ctx, TW_ERROR_FORMAT, "%s: line %" PRId64 ": expected %s", at->path,
                   at->line, expected);
}

/* A number; NaN for null and for what is not there. */
static tw_status number(const place *at, const json_t *object, const char *key, double *out) {
    const json_t *value = json_object_get(object, key);
    *out = NAN;
    if (!value || json_is_null(value)) return TW_OK;
    if (!json_is_number(value))
        return tw_fail(at->ctx, TW_ERROR_FORMAT, "%s: line %" PRId64 ": %s: expected a number",
                       at->path, at->line, key);
    *out = json_number_value(value);
    return TW_OK;
}

static tw_status take_training(const place *at, const json_t *object, double step, cli_metrics *m) {
    const int64_t i = m->steps;
    if (i && step <= m->step[i - 1])
        return foreign(at, "a step past that of the lines before; is this one run's file?");
    TW_TRY(number(at, object, "loss", &m->loss[i]));
    TW_TRY(number(at, object, "grad_norm", &m->grad_norm[i]));
    TW_TRY(number(at, object, "lr", &m->lr[i]));
    m->step[i] = step;
    m->steps++;
    return TW_OK;
}

static tw_status take_validation(const place *at, const json_t *object, double step,
                                 cli_metrics *m) {
    const int64_t i = m->validations;
    if (i && step < m->validation_step[i - 1])
        return foreign(at, "a step not before that of the lines above; is this one run's file?");
    TW_TRY(number(at, object, "validation_loss", &m->validation[i]));
    TW_TRY(number(at, object, "validation_loss_average", &m->validation_average[i]));
    m->validation_step[i] = step;
    m->validations++;
    return TW_OK;
}

static tw_status take_object(const place *at, const json_t *object, cli_metrics *m) {
    if (!json_is_object(object)) return foreign(at, "a JSON object");
    const json_t *step = json_object_get(object, "step");
    if (!json_is_integer(step) || json_integer_value(step) < 0 ||
        json_integer_value(step) > STEP_MAX)
        return foreign(at, "\"step\", a whole number");
    const bool training = json_object_get(object, "loss") != NULL;
    const bool held_out = json_object_get(object, "validation_loss") != NULL;
    if (!training && !held_out) return foreign(at, "\"loss\" or \"validation_loss\"");
    const double value = (double)json_integer_value(step);
    if (training) TW_TRY(take_training(at, object, value, m));
    return held_out ? take_validation(at, object, value, m) : TW_OK;
}

static tw_status take_line(const place *at, const char *text, size_t size, cli_metrics *m) {
    json_error_t error;
    json_t *object = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!object)
        return tw_fail(at->ctx, TW_ERROR_FORMAT,
                       "%s: line %" PRId64 ": expected a JSON object as `tweedie train` logs "
                       "them: %s",
                       at->path, at->line, error.text);
    const tw_status s = take_object(at, object, m);
    json_decref(object);
    return s;
}

static tw_status make_columns(tw_context *ctx, const tw_file_mapping *file, cli_metrics *m) {
    size_t lines = 1, count;
    for (size_t i = 0; i < file->size; i++) lines += file->data[i] == '\n';
    if (!tw_mul_size(lines, COLUMNS, &count))
        return tw_fail(ctx, TW_ERROR_MEMORY, "too many lines");
    m->memory = tw_allocate(ctx, count, sizeof *m->memory);
    if (!m->memory) return TW_ERROR_MEMORY;
    double **const columns[COLUMNS] = {&m->step,
                                       &m->loss,
                                       &m->grad_norm,
                                       &m->lr,
                                       &m->validation_step,
                                       &m->validation,
                                       &m->validation_average};
    for (size_t k = 0; k < COLUMNS; k++) *columns[k] = m->memory + k * lines;
    return TW_OK;
}

static tw_status take_lines(tw_context *ctx, const char *path, const tw_file_mapping *file,
                            cli_metrics *m) {
    place at = {ctx, path, 0};
    const char *text = (const char *)file->data;
    for (size_t from = 0; from < file->size;) {
        const char *newline = memchr(text + from, '\n', file->size - from);
        if (!newline) break;
        const size_t size = (size_t)(newline - text) - from;
        at.line++;
        TW_TRY(take_line(&at, text + from, size, m));
        from += size + 1;
        if (at.line % 1024 == 0 && cli_signals_stop()) return TW_ERROR_CANCELLED;
    }
    if (!m->steps && !m->validations)
        return tw_fail(ctx, TW_ERROR_FORMAT,
                       "%s: no whole line; expected those that `tweedie train` logs", path);
    return TW_OK;
}

/* The end of the text, begun at a whole UTF-8 character. */
static void set_name(cli_metrics *m, const char *text) {
    size_t n = strlen(text);
    while (n > 1 && text[n - 1] == '/') n--;
    size_t from = n < sizeof m->name ? 0 : n - sizeof m->name + 4;
    while (from && from < n && ((unsigned char)text[from] & 0xc0u) == 0x80u) from++;
    snprintf(m->name, sizeof m->name, "%s%.*s", from ? "..." : "", (int)(n - from), text + from);
}

tw_status cli_metrics_read(tw_context *ctx, const char *path, cli_metrics *out) {
    *out = (cli_metrics){0};
    tw_path file = {""};
    tw_file_mapping mapping;
    TW_TRY(tw_path_join(ctx, path, tw_directory_exists(path) ? "metrics.jsonl" : "", &file));
    TW_TRY(tw_file_map(ctx, file.text, &mapping));
    tw_status s = make_columns(ctx, &mapping, out);
    if (s == TW_OK) s = take_lines(ctx, file.text, &mapping, out);
    tw_file_unmap(&mapping);
    set_name(out, path);
    if (s != TW_OK) cli_metrics_free(ctx, out);
    return s;
}

void cli_metrics_free(tw_context *ctx, cli_metrics *m) {
    tw_free(ctx, m->memory);
    *m = (cli_metrics){0};
}

tw_status cli_metrics_smooth(tw_context *ctx, const double *values, int64_t n, int64_t window,
                             double *out) {
    /* Sums and counts of the finite values before each. */
    double *sums = tw_allocate(ctx, (size_t)n + 1, 2 * sizeof *sums);
    if (!sums) return TW_ERROR_MEMORY;
    double *counts = sums + n + 1;
    for (int64_t i = 0; i < n; i++) {
        const bool finite = isfinite(values[i]);
        sums[i + 1] = sums[i] + (finite ? values[i] : 0.0);
        counts[i + 1] = counts[i] + finite;
    }
    const int64_t before = (window - 1) / 2, after = window / 2;
    for (int64_t i = 0; i < n; i++) {
        const int64_t reach = i < before ? i : before;
        const int64_t last = i + (reach < before ? reach : after);
        const int64_t end = last < n - 1 ? last : n - 1;
        const double count = counts[end + 1] - counts[i - reach];
        out[i] = count > 0 ? (sums[end + 1] - sums[i - reach]) / count : NAN;
    }
    tw_free(ctx, sums);
    return TW_OK;
}
