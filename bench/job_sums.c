/* Sums: the loss and a bias's gradient. */
#include <math.h>

#include "job.h"

static void mse_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.mse = (twk_mse_args){.batch = r->n,
                                 .elements = total / r->n,
                                 .format = r->format,
                                 .p = bench_normals(m, r->format, total, 0.5f),
                                 .target = bench_floats(m, total, 0.5f),
                                 .gradient_scale = 1024,
                                 .dp = bench_raw(m, (size_t)total * bench_format_bytes(r->format)),
                                 .sample_loss = bench_floats(m, r->n, 1),
                                 .loss = bench_floats(m, 1, 1)};
    call->u.mse.workspace_bytes = twk_mse_workspace(r->n, total / r->n);
    call->u.mse.workspace = bench_raw(m, call->u.mse.workspace_bytes);
}

static twk_status mse_run(const bench_call *call, twk_stream s) {
    return twk_mse(&call->u.mse, s);
}

static void mse_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_mse_args *a = &call->u.mse;
    const int64_t total = bench_elements(r), e = a->elements;
    const double *p = bench_fetch(k, a->format, a->p, 0, total);
    const double *target = bench_fetch(k, TWK_F32, a->target, 0, total);
    const double *dp = bench_fetch(k, a->format, a->dp, 0, total);
    const double *losses = bench_fetch(k, TWK_F32, a->sample_loss, 0, r->n);
    const double *loss = bench_fetch(k, TWK_F32, a->loss, 0, 1);
    if (k->failed) return;
    const double slope = 2 * (double)a->gradient_scale / (double)total;
    bench_value mean = {0, 0};
    for (int64_t n = 0; n < r->n; n++) {
        bench_value one = {0, 0};
        for (int64_t i = n * e; i < (n + 1) * e; i++) {
            const double d = p[i] - target[i], size = fabs(p[i]) + fabs(target[i]);
            one.value += d * d / (double)e;
            one.terms += fabs(d) * size / (double)e;
            bench_compare(k, a->format, dp[i], (bench_value){slope * d, slope * size}, 8);
        }
        bench_compare(k, TWK_F32, losses[n], one, 16);
        mean.value += one.value / (double)r->n;
        mean.terms += one.terms / (double)r->n;
    }
    bench_compare(k, TWK_F32, loss[0], mean, 16);
    bench_drop(k);
}

const bench_family bench_mse = {mse_make, mse_run, mse_check, NULL, "none"};

static void sums_make(const bench_row *r, bench_memory *m, bench_call *call) {
    call->u.sums = (twk_column_sums_args){.batch = 1,
                                          .pixels = r->n * r->h * r->w,
                                          .channels = r->c,
                                          .format = r->format,
                                          .x = bench_normals(m, r->format, bench_elements(r), 0.5f),
                                          .out = bench_floats(m, r->c, 1)};
    twk_column_sums_args *a = &call->u.sums;
    a->workspace_bytes = twk_column_sums_workspace(a->batch, a->pixels, a->channels);
    a->workspace = bench_raw(m, a->workspace_bytes);
}

static twk_status sums_run(const bench_call *call, twk_stream s) {
    return twk_column_sums(&call->u.sums, s);
}

static void sums_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_column_sums_args *a = &call->u.sums;
    const int64_t few = r->c < 8 ? r->c : 8, first = r->c - few;
    const double *x = bench_fetch_columns(k, a->format, a->x, a->pixels, r->c, first, few);
    const double *got = bench_fetch(k, TWK_F32, a->out, first, few);
    if (k->failed) return;
    for (int64_t c = 0; c < few; c++) {
        bench_value want = {0, 0};
        for (int64_t i = 0; i < a->pixels; i++) {
            want.value += x[i * few + c];
            want.terms += fabs(x[i * few + c]);
        }
        bench_compare(k, TWK_F32, got[c], want, 16);
    }
    bench_drop(k);
    k->of = "last 8 channels";
}

const bench_family bench_column_sums = {sums_make, sums_run, sums_check, NULL, "none"};
