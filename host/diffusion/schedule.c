#include "diffusion/schedule.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/context.h"
#include "core/options.h"

#ifndef M_PI
#define M_PI 3.14159265358979323846
#endif

static const char *const kind_names[] = {"linear", "scaled_linear", "sigmoid", "cosine", "custom"};

tw_status tw_beta_schedule_parse(const char *name, tw_beta_schedule *out) {
    if (name && out) {
        for (int i = TW_BETA_LINEAR; i <= TW_BETA_COSINE; i++)
            if (strcmp(name, kind_names[i]) == 0) {
                *out = (tw_beta_schedule)i;
                return TW_OK;
            }
        if (strcmp(name, "squaredcos_cap_v2") == 0) {
            *out = TW_BETA_COSINE;
            return TW_OK;
        }
    }
    return tw_fail(NULL, TW_ERROR_ARGUMENT,
                   "beta schedule \"%s\" is not known, expected linear, scaled_linear, sigmoid, "
                   "cosine or squaredcos_cap_v2",
                   name ? name : "");
}

const char *tw_beta_schedule_name(tw_beta_schedule kind) {
    return kind >= TW_BETA_LINEAR && kind <= TW_BETA_CUSTOM ? kind_names[kind] : "unknown";
}

static const char *const prediction_names[] = {"epsilon", "sample", "v_prediction"};

tw_status tw_prediction_parse(const char *name, tw_prediction *out) {
    for (int i = TW_PREDICT_EPSILON; name && out && i <= TW_PREDICT_V; i++)
        if (strcmp(name, prediction_names[i]) == 0) {
            *out = (tw_prediction)i;
            return TW_OK;
        }
    return tw_fail(NULL, TW_ERROR_ARGUMENT,
                   "prediction \"%s\" is not known, expected epsilon, sample or v_prediction",
                   name ? name : "");
}

const char *tw_prediction_name(tw_prediction prediction) {
    return prediction >= TW_PREDICT_EPSILON && prediction <= TW_PREDICT_V
               ? prediction_names[prediction]
               : "unknown";
}

/* numpy.linspace: `n` points from `first` to `last`, both included; one point is `first`. */
static double linspace(double first, double last, int64_t n, int64_t i) {
    if (n == 1) return first;
    if (i == n - 1) return last;
    return first + (double)i * ((last - first) / (double)(n - 1));
}

static double cosine_bar(double u, double s) {
    const double c = cos((u + s) / (1.0 + s) * (M_PI / 2));
    return c * c;
}

static double beta_at(const tw_schedule_options *o, int64_t t) {
    const double T = (double)o->steps;
    switch (o->kind) {
    case TW_BETA_LINEAR:
        return linspace(o->beta_start, o->beta_end, o->steps, t);
    case TW_BETA_SCALED_LINEAR: {
        const double root = linspace(sqrt(o->beta_start), sqrt(o->beta_end), o->steps, t);
        return root * root;
    }
    case TW_BETA_SIGMOID: {
        const double u = linspace(-6.0, 6.0, o->steps, t);
        return (o->beta_end - o->beta_start) / (1.0 + exp(-u)) + o->beta_start;
    }
    case TW_BETA_COSINE: {
        const double now = cosine_bar(((double)t + 1) / T, o->cosine_s);
        return fmin(1.0 - now / cosine_bar((double)t / T, o->cosine_s), o->max_beta);
    }
    case TW_BETA_CUSTOM:
        return o->betas[t];
    }
    return NAN;
}

/* Also false for NaN. */
static bool inside(double x, double low, double high) {
    return x > low && x < high;
}

static tw_status check_options(tw_context *ctx, const tw_schedule_options *o) {
    if (o->kind < TW_BETA_LINEAR || o->kind > TW_BETA_CUSTOM)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "schedule: kind %d is not a tw_beta_schedule",
                       (int)o->kind);
    if (o->steps < 1 || o->steps > TW_SCHEDULE_MAX_STEPS)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "schedule: %lld training steps, expected 1 to %d",
                       (long long)o->steps, TW_SCHEDULE_MAX_STEPS);
    if (o->zero_terminal_snr && o->steps < 2)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "schedule: zero terminal SNR needs at least 2 training steps");
    switch (o->kind) {
    case TW_BETA_CUSTOM:
        if (!o->betas)
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "schedule: a custom schedule needs its betas");
        break;
    case TW_BETA_COSINE:
        if (!inside(o->cosine_s, 0.0, 1.0))
            return tw_fail(ctx, TW_ERROR_ARGUMENT,
                           "schedule: cosine offset %g, expected a number between 0 and 1",
                           o->cosine_s);
        if (!inside(o->max_beta, 0.0, 1.0))
            return tw_fail(ctx, TW_ERROR_ARGUMENT,
                           "schedule: largest beta %g, expected a number between 0 and 1",
                           o->max_beta);
        break;
    default:
        if (!inside(o->beta_start, 0.0, 1.0) || !inside(o->beta_end, 0.0, 1.0) ||
            o->beta_start > o->beta_end)
            return tw_fail(ctx, TW_ERROR_ARGUMENT,
                           "schedule: betas from %g to %g, expected 0 < start <= end < 1",
                           o->beta_start, o->beta_end);
    }
    return TW_OK;
}

/* Lin et al. 2023, algorithm 1: sqrt(A) is shifted to end at 0 and scaled to keep its start. */
static void rescale_to_zero_snr(tw_schedule *s) {
    const int64_t T = s->steps;
    double *A = s->alphas_cumprod;
    const double first = sqrt(A[0]), last = sqrt(A[T - 1]);
    for (int64_t t = 0; t < T; t++) {
        const double root = (sqrt(A[t]) - last) * (first / (first - last));
        A[t] = root * root;
    }
    s->betas[0] = 1.0 - A[0];
    for (int64_t t = 1; t < T; t++) s->betas[t] = 1.0 - A[t] / A[t - 1];
}

static tw_status fill(tw_schedule *s, const tw_schedule_options *o) {
    double product = 1.0;
    for (int64_t t = 0; t < s->steps; t++) {
        const double beta = beta_at(o, t);
        const bool last = t == s->steps - 1;
        /* A smaller beta would not change 1 - beta. */
        if (!(inside(beta, DBL_EPSILON, 1.0) || (last && beta == 1.0)))
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "schedule: beta[%lld] is %g, expected a number from %.1g to below 1",
                           (long long)t, beta, DBL_EPSILON);
        product *= 1.0 - beta;
        /* Everything divides by A, and float32 must still hold its root. */
        if (product < 1e-60 && !last)
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "schedule: the signal is gone at step %lld of %lld; smaller betas or "
                           "fewer steps are needed",
                           (long long)t, (long long)s->steps);
        s->betas[t] = beta;
        s->alphas_cumprod[t] = product;
    }
    if (o->zero_terminal_snr && product > 0) rescale_to_zero_snr(s);
    return TW_OK;
}

static tw_status allocate(tw_context *ctx, int64_t steps, tw_schedule **out) {
    tw_schedule *s = tw_allocate(ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    s->ctx = ctx;
    s->steps = steps;
    s->betas = tw_allocate(ctx, (size_t)steps, sizeof *s->betas);
    s->alphas_cumprod = s->betas ? tw_allocate(ctx, (size_t)steps, sizeof *s->betas) : NULL;
    if (!s->alphas_cumprod) {
        tw_schedule_free(s);
        return TW_ERROR_MEMORY;
    }
    *out = s;
    return TW_OK;
}

tw_status tw_schedule_create(tw_context *ctx, const tw_schedule_options *options,
                             tw_schedule **out) {
    if (!ctx || !out)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "tw_schedule_create: a context and a place for the "
                       "schedule are needed");
    *out = NULL;
    tw_schedule_options o = TW_SCHEDULE_OPTIONS_INIT;
    TW_TRY(tw_options_read(ctx, "tw_schedule_create", &o, sizeof o, options));
    TW_TRY(check_options(ctx, &o));
    tw_schedule *s;
    TW_TRY(allocate(ctx, o.steps, &s));
    const tw_status status = fill(s, &o);
    if (status != TW_OK) {
        tw_schedule_free(s);
        return status;
    }
    *out = s;
    return TW_OK;
}

tw_status tw_schedule_copy(tw_context *ctx, const tw_schedule *schedule, tw_schedule **out) {
    TW_TRY(allocate(ctx, schedule->steps, out));
    const size_t bytes = (size_t)schedule->steps * sizeof(double);
    memcpy((*out)->betas, schedule->betas, bytes);
    memcpy((*out)->alphas_cumprod, schedule->alphas_cumprod, bytes);
    return TW_OK;
}

void tw_schedule_free(tw_schedule *schedule) {
    if (!schedule) return;
    tw_context *ctx = schedule->ctx;
    tw_free(ctx, schedule->betas);
    tw_free(ctx, schedule->alphas_cumprod);
    tw_free(ctx, schedule);
}

int64_t tw_schedule_steps(const tw_schedule *schedule) {
    return schedule ? schedule->steps : 0;
}

const double *tw_schedule_betas(const tw_schedule *schedule) {
    return schedule ? schedule->betas : NULL;
}

const double *tw_schedule_alphas_cumprod(const tw_schedule *schedule) {
    return schedule ? schedule->alphas_cumprod : NULL;
}
