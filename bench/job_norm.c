/* GroupNorm with SiLU, forward and backward, of one tensor or of two side by side. */
#include <math.h>

#include "job.h"

static void norm_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r), second = r->n * r->h * r->w * r->second;
    call->u.norm = (twk_group_norm_args){.batch = r->n,
                                         .pixels = r->h * r->w,
                                         .channels = (int)r->c,
                                         .channels2 = r->second,
                                         .groups = r->groups,
                                         .epsilon = 1e-5f,
                                         .silu = 1,
                                         .format = r->format,
                                         .x = bench_normals(m, r->format, total - second, 0.5f),
                                         .gamma = bench_floats(m, r->c, 0.5f),
                                         .beta = bench_floats(m, r->c, 0.5f),
                                         .mean = bench_zeros(m, (size_t)(r->n * r->groups) * 4),
                                         .rstd = bench_zeros(m, (size_t)(r->n * r->groups) * 4)};
    twk_group_norm_args *a = &call->u.norm;
    if (second) a->x2 = bench_normals(m, r->format, second, 0.5f);
    a->y = bench_raw(m, (size_t)total * bench_format_bytes(r->format));
    a->workspace_bytes = twk_group_norm_workspace(a);
    a->workspace = bench_raw(m, a->workspace_bytes);
}

/* As it is when mean and rstd are there: those of the forward pass. */
static void forward_make(const bench_row *r, bench_memory *m, bench_call *call) {
    norm_make(r, m, call);
    if (!r->given || m->failed) return;
    m->failed = twk_group_norm_forward(&call->u.norm, NULL) != TWK_OK;
    call->u.norm.given = 1;
}

static twk_status forward_run(const bench_call *call, twk_stream s) {
    return twk_group_norm_forward(&call->u.norm, s);
}

/* What the forward pass leaves for it comes from the forward pass. */
static void backward_make(const bench_row *r, bench_memory *m, bench_call *call) {
    norm_make(r, m, call);
    twk_group_norm_args *a = &call->u.norm;
    if (m->failed || twk_group_norm_forward(a, NULL) != TWK_OK) {
        m->failed = true;
        return;
    }
    const int64_t first = r->n * r->h * r->w * (r->c - r->second);
    a->dx = a->y;
    if (r->second) a->dx2 = (char *)a->y + (size_t)first * bench_format_bytes(r->format);
    a->dy = bench_normals(m, r->format, bench_elements(r), 0.5f);
    a->dgamma = bench_zeros(m, (size_t)r->c * 4);
    a->dbeta = bench_zeros(m, (size_t)r->c * 4);
    a->workspace_bytes = twk_group_norm_backward_workspace(a);
    a->workspace = bench_raw(m, a->workspace_bytes);
}

static twk_status backward_run(const bench_call *call, twk_stream s) {
    return twk_group_norm_backward(&call->u.norm, s);
}

/* One sample on the host. */
typedef struct sample {
    const double *x, *gamma, *beta;
    const double *dy;              /* backward */
    const double *mean, *rstd;     /* of the groups */
    int64_t pixels, channels, per; /* per: channels of a group */
} sample;

/* Sample `at` of a tensor, or of two side by side. */
static const double *fetch_sample(bench_check *k, const twk_group_norm_args *a, const void *one,
                                  const void *two, int64_t at) {
    const int64_t last = two ? a->channels2 : 0, first = a->channels - last, n = a->pixels;
    const double *x = bench_fetch(k, a->format, one, at * n * first, n * first);
    if (!two) return x;
    const double *x2 = bench_fetch(k, a->format, two, at * n * last, n * last);
    double *both = bench_hold(k, n * a->channels);
    for (int64_t i = 0; !k->failed && i < n * a->channels; i++) {
        const int64_t p = i / a->channels, c = i % a->channels;
        both[i] = c < first ? x[p * first + c] : x2[p * last + c - first];
    }
    return both;
}

static void moments_of(const sample *s, double epsilon, double *mean, double *rstd) {
    const int64_t n = s->pixels * s->channels;
    const double size = (double)(s->per * s->pixels);
    for (int64_t i = 0; i < n; i++) mean[i % s->channels / s->per] += s->x[i] / size;
    for (int64_t i = 0; i < n; i++) {
        const int64_t g = i % s->channels / s->per;
        rstd[g] += (s->x[i] - mean[g]) * (s->x[i] - mean[g]) / size;
    }
    for (int64_t g = 0; g < s->channels / s->per; g++) rstd[g] = 1 / sqrt(rstd[g] + epsilon);
}

static bool fetch_parameters(const twk_group_norm_args *a, bench_check *k, sample *s) {
    s->pixels = a->pixels;
    s->channels = a->channels;
    s->per = a->channels / a->groups;
    s->gamma = bench_fetch(k, TWK_F32, a->gamma, 0, a->channels);
    s->beta = bench_fetch(k, TWK_F32, a->beta, 0, a->channels);
    return !k->failed;
}

static void forward_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_group_norm_args *a = &call->u.norm;
    const int64_t n = a->pixels * a->channels;
    for (int part = 0; part < 2; part++) {
        const int64_t at = part ? r->n - 1 : 0;
        sample s = {.x = fetch_sample(k, a, a->x, a->x2, at)};
        const double *y = bench_fetch(k, a->format, a->y, at * n, n);
        double *mean = bench_hold(k, a->groups), *rstd = bench_hold(k, a->groups);
        if (!fetch_parameters(a, k, &s)) return;
        moments_of(&s, (double)a->epsilon, mean, rstd);
        for (int64_t i = 0; i < n; i++) {
            const int64_t c = i % s.channels, g = c / s.per;
            const double h = (s.x[i] - mean[g]) * rstd[g], u = h * s.gamma[c] + s.beta[c];
            const double size = (fabs(s.x[i]) + fabs(mean[g])) * rstd[g] * fabs(s.gamma[c]) +
                                fabs(h * s.gamma[c]) + fabs(s.gamma[c]) + fabs(s.beta[c]);
            /* The slope of SiLU is at most 1.1. */
            bench_compare(k, a->format, y[i],
                          (bench_value){u / (1 + exp(-u)), 1.1 * size + fabs(u)}, 16);
        }
        bench_drop(k);
    }
    k->of = "first and last sample";
}

const bench_family bench_norm_forward = {forward_make, forward_run, forward_check, NULL, "none"};

/* The gradient before SiLU at x[i] of channel c, and h = (x - mean) rstd. */
static bench_value before_silu(const sample *s, int64_t i, int64_t c, double mean, double rstd,
                               bench_value *h) {
    *h = (bench_value){(s->x[i] - mean) * rstd, 0};
    h->terms = fabs(h->value) + fabs(mean) * rstd;
    const double u = h->value * s->gamma[c] + s->beta[c], sig = 1 / (1 + exp(-u));
    const double size = 1 + fabs(u) + h->terms * fabs(s->gamma[c]);
    return (bench_value){s->dy[i] * sig * (1 + u * (1 - sig)), fabs(s->dy[i]) * size};
}

static void check_dx(const twk_group_norm_args *a, int64_t at, bench_check *k) {
    const int64_t n = a->pixels * a->channels;
    sample s = {.x = fetch_sample(k, a, a->x, a->x2, at),
                .dy = bench_fetch(k, a->format, a->dy, at * n, n),
                .mean = bench_fetch(k, TWK_F32, a->mean, at * a->groups, a->groups),
                .rstd = bench_fetch(k, TWK_F32, a->rstd, at * a->groups, a->groups)};
    const double *dx = fetch_sample(k, a, a->dx, a->dx2, at);
    double *sums = bench_hold(k, 4 * a->groups); /* of f d and f d h: value, terms */
    if (!fetch_parameters(a, k, &s)) return;
    const double size = (double)(s.per * s.pixels);
    for (int64_t i = 0; i < n; i++) {
        const int64_t c = i % s.channels, g = c / s.per;
        bench_value h;
        const bench_value e = before_silu(&s, i, c, s.mean[g], s.rstd[g], &h);
        const double f = s.gamma[c] / size;
        sums[4 * g] += f * e.value;
        sums[4 * g + 1] += fabs(f) * e.terms;
        sums[4 * g + 2] += f * e.value * h.value;
        sums[4 * g + 3] += fabs(f) * e.terms * h.terms;
    }
    for (int64_t i = 0; i < n; i++) {
        const int64_t c = i % s.channels, g = c / s.per;
        const double *sum = sums + 4 * g;
        bench_value h;
        const bench_value e = before_silu(&s, i, c, s.mean[g], s.rstd[g], &h);
        const double f = s.gamma[c];
        const bench_value want = {s.rstd[g] * (f * e.value - sum[0] - h.value * sum[2]),
                                  s.rstd[g] * (fabs(f) * e.terms + sum[1] + h.terms * sum[3])};
        bench_compare(k, a->format, dx[i], want, 16);
    }
    bench_drop(k);
}

/* The parameters' gradients are sums over the batch: a few channels, all of their elements. */
static void check_parameters(const twk_group_norm_args *a, bench_check *k) {
    const int64_t width = a->channels2 ? a->channels2 : a->channels; /* of the tensor with them */
    const int64_t few = width < 8 ? width : 8, first = a->channels - few;
    const int64_t rows = a->batch * a->pixels;
    sample s = {.x = bench_fetch_columns(k, a->format, a->channels2 ? a->x2 : a->x, rows, width,
                                         width - few, few),
                .dy = bench_fetch_columns(k, a->format, a->dy, rows, a->channels, first, few),
                .mean = bench_fetch(k, TWK_F32, a->mean, 0, a->batch * a->groups),
                .rstd = bench_fetch(k, TWK_F32, a->rstd, 0, a->batch * a->groups)};
    const double *dgamma = bench_fetch(k, TWK_F32, a->dgamma, first, few);
    const double *dbeta = bench_fetch(k, TWK_F32, a->dbeta, first, few);
    if (!fetch_parameters(a, k, &s)) return;
    for (int64_t j = 0; j < few; j++) {
        const int64_t c = first + j;
        bench_value gamma = {0, 0}, beta = {0, 0};
        for (int64_t p = 0; p < rows; p++) {
            const int64_t g = p / a->pixels * a->groups + c / s.per;
            bench_value h;
            const bench_value e = before_silu(&s, p * few + j, c, s.mean[g], s.rstd[g], &h);
            beta.value += e.value;
            beta.terms += e.terms;
            gamma.value += e.value * h.value;
            gamma.terms += e.terms * h.terms;
        }
        bench_compare(k, TWK_F32, dgamma[j], gamma, 16);
        bench_compare(k, TWK_F32, dbeta[j], beta, 16);
    }
    bench_drop(k);
}

static void backward_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_group_norm_args *a = &call->u.norm;
    check_dx(a, 0, k);
    if (!k->failed) check_dx(a, r->n - 1, k);
    if (!k->failed) check_parameters(a, k);
    k->of = "dx of the first and last sample, gradients of the last 8 channels";
}

const bench_family bench_norm_backward = {backward_make, backward_run, backward_check, NULL,
                                          "none"};
