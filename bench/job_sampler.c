/* Sampler steps, forward noising and noise. */
#include <math.h>
#include <stdlib.h>

#include "job.h"

static double larger(double a, double b) {
    return a < b ? b : a;
}

static twk_ddim_args ddim_args(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.ddim.row = (twk_ddim_row){0.6f, 0.4f, 0.25f, 0.8f, 0.2f, r->noisy ? 1.0f : 0.0f, 1, 0};
    twk_ddim_args a = {.batch = r->n,
                       .elements = total / r->n,
                       .x = bench_floats(m, total, 0.5f),
                       .m = bench_normals(m, r->format, total, 0.5f),
                       .m_format = r->format,
                       .rows = bench_copy(m, &call->u.ddim.row, sizeof call->u.ddim.row),
                       .n_rows = 1};
    return a;
}

/* x0 of a prediction of epsilon. */
static bench_value x0_of(const twk_ddim_row *row, double x, double e) {
    const double b = sqrt((double)row->one_minus_a_t), a = sqrt((double)row->a_t);
    return (bench_value){(x - b * e) / a, (fabs(x) + b * fabs(e)) / a};
}

static void ddim_make(const bench_row *r, bench_memory *m, bench_call *call) {
    call->u.ddim.args = ddim_args(r, m, call);
    call->u.ddim.args.x_out = bench_raw(m, (size_t)bench_elements(r) * 4);
}

static twk_status ddim_run(const bench_call *call, twk_stream s) {
    return twk_ddim_update(&call->u.ddim.args, s);
}

static void ddim_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_ddim_args *a = &call->u.ddim.args;
    const twk_ddim_row *row = &call->u.ddim.row;
    const double a_p = row->a_p, ratio = (double)row->one_minus_ratio;
    const double share = (double)row->one_minus_a_p / (double)row->one_minus_a_t;
    const double sigma = (double)row->eta * sqrt(share) * sqrt(ratio);
    const double direction = sqrt((double)row->one_minus_a_p - sigma * sigma);
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first;
        const double *x = bench_fetch(k, TWK_F32, a->x, first, range[part].count);
        const double *e = bench_fetch(k, a->m_format, a->m, first, range[part].count);
        const double *got = bench_fetch(k, TWK_F32, a->x_out, first, range[part].count);
        if (k->failed) return;
        for (int64_t i = 0; i < range[part].count; i++) {
            const int64_t at = first + i;
            const bench_value x0 = x0_of(row, x[i], e[i]);
            bench_value want = {sqrt(a_p) * x0.value + direction * e[i],
                                sqrt(a_p) * x0.terms + direction * fabs(e[i])};
            if (sigma > 0) {
                const double z = bench_noise_normal((uint64_t)(at / a->elements), TWK_NOISE_SAMPLER,
                                                    row->noise_step, at % a->elements);
                want.value += sigma * z;
                want.terms += sigma * larger(1, fabs(z));
            }
            bench_compare(k, TWK_F32, got[i], want, 32);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_ddim = {ddim_make, ddim_run, ddim_check, NULL, "none"};

static void threshold_make(const bench_row *r, bench_memory *m, bench_call *call) {
    call->u.ddim.args = ddim_args(r, m, call);
    call->u.ddim.threshold = bench_floats(m, r->n, 1);
}

static twk_status threshold_run(const bench_call *call, twk_stream s) {
    return twk_dynamic_threshold(&call->u.ddim.args, 0.995f, 10, call->u.ddim.threshold, s);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void threshold_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_ddim_args *a = &call->u.ddim.args;
    const int64_t e = a->elements;
    const double position = (double)0.995f * (double)(e - 1);
    const int64_t low = (int64_t)position;
    for (int part = 0; part < 2; part++) {
        const int64_t sample = part ? r->n - 1 : 0;
        const double *x = bench_fetch(k, TWK_F32, a->x, sample * e, e);
        double *m = bench_fetch(k, a->m_format, a->m, sample * e, e);
        const double *got = bench_fetch(k, TWK_F32, call->u.ddim.threshold, sample, 1);
        if (k->failed) return;
        double most = 0;
        for (int64_t i = 0; i < e; i++) {
            const bench_value x0 = x0_of(&call->u.ddim.row, x[i], m[i]);
            most = larger(most, x0.terms);
            m[i] = fabs(x0.value);
        }
        qsort(m, (size_t)e, sizeof *m, by_value);
        const double high = m[low + 1 < e ? low + 1 : low];
        const double value = m[low] + (position - (double)low) * (high - m[low]);
        bench_compare(k, TWK_F32, got[0],
                      (bench_value){value < 1    ? 1
                                    : value > 10 ? 10
                                                 : value,
                                    most},
                      8);
        bench_drop(k);
    }
    k->of = "first and last sample";
}

const bench_family bench_threshold = {threshold_make, threshold_run, threshold_check, NULL, "none"};

static void update_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    twk_update_row *row = &call->u.update.row;
    row->dx = row->cx = row->cy = 0.5f;
    row->dp[0] = row->cp[0] = row->ch[0] = row->ch[1] = 0.25f;
    call->u.update.args =
        (twk_update_args){.batch = r->n,
                          .elements = total / r->n,
                          .x = bench_floats(m, total, 0.5f),
                          .x_out = bench_raw(m, (size_t)total * 4),
                          .p_format = r->format,
                          .p = {bench_normals(m, r->format, total, 0.5f)},
                          .h = {bench_floats(m, total, 0.5f), bench_floats(m, total, 0.5f)},
                          .rows = bench_copy(m, row, sizeof *row),
                          .n_rows = 1};
}

static twk_status update_run(const bench_call *call, twk_stream s) {
    return twk_sampler_update(&call->u.update.args, s);
}

static void update_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_update_args *a = &call->u.update.args;
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first, count = range[part].count;
        const double *x = bench_fetch(k, TWK_F32, a->x, first, count);
        const double *p = bench_fetch(k, a->p_format, a->p[0], first, count);
        const double *h0 = bench_fetch(k, TWK_F32, a->h[0], first, count);
        const double *h1 = bench_fetch(k, TWK_F32, a->h[1], first, count);
        const double *got = bench_fetch(k, TWK_F32, a->x_out, first, count);
        if (k->failed) return;
        for (int64_t i = 0; i < count; i++) {
            const double y = 0.5 * x[i] + 0.25 * p[i];
            const double size = fabs(x[i]) + fabs(p[i]) + fabs(h0[i]) + fabs(h1[i]);
            const double want = 0.5 * x[i] + 0.25 * p[i] + 0.5 * y + 0.25 * h0[i] + 0.25 * h1[i];
            bench_compare(k, TWK_F32, got[i], (bench_value){want, size}, 8);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_update = {update_make, update_run, update_check, NULL, "none"};

static void noising_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.noising.a = 0.6f;
    call->u.noising.one_minus_a = 0.4f;
    call->u.noising.args =
        (twk_noising_args){.batch = r->n,
                           .elements = total / r->n,
                           .xt_format = r->format,
                           .x0 = bench_floats(m, total, 0.5f),
                           .x_t = bench_raw(m, (size_t)total * bench_format_bytes(r->format)),
                           .target = bench_raw(m, (size_t)total * 4),
                           .time = bench_zeros(m, (size_t)r->n * 4),
                           .a = bench_copy(m, &call->u.noising.a, 4),
                           .one_minus_a = bench_copy(m, &call->u.noising.one_minus_a, 4),
                           .n_times = 1,
                           .purpose = TWK_NOISE_TRAIN_NOISE};
}

static twk_status noising_run(const bench_call *call, twk_stream s) {
    return twk_forward_noising(&call->u.noising.args, s);
}

static void noising_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_noising_args *a = &call->u.noising.args;
    const double ca = sqrt((double)call->u.noising.a);
    const double cb = sqrt((double)call->u.noising.one_minus_a);
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first, count = range[part].count;
        const double *x = bench_fetch(k, TWK_F32, a->x0, first, count);
        const double *got = bench_fetch(k, a->xt_format, a->x_t, first, count);
        const double *target = bench_fetch(k, TWK_F32, a->target, first, count);
        if (k->failed) return;
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = first + i;
            const double z = bench_noise_normal((uint64_t)(at / a->elements), TWK_NOISE_TRAIN_NOISE,
                                                0, at % a->elements);
            const double size = larger(1, fabs(z));
            bench_compare(k, a->xt_format, got[i],
                          (bench_value){ca * x[i] + cb * z, ca * fabs(x[i]) + cb * size}, 32);
            bench_compare(k, TWK_F32, target[i], (bench_value){z, size}, 32);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_noising = {noising_make, noising_run, noising_check, NULL, "none"};

static void noise_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.noise =
        (twk_noise_fill_args){.batch = r->n,
                              .elements = total / r->n,
                              .out = bench_raw(m, (size_t)total * bench_format_bytes(r->format)),
                              .format = r->format,
                              .scale = 1};
}

static twk_status noise_run(const bench_call *call, twk_stream s) {
    return twk_noise_fill(&call->u.noise, s);
}

static void noise_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_noise_fill_args *a = &call->u.noise;
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first;
        const double *got = bench_fetch(k, a->format, a->out, first, range[part].count);
        if (k->failed) return;
        for (int64_t i = 0; i < range[part].count; i++) {
            const int64_t at = first + i;
            const double z = bench_noise_normal((uint64_t)(at / a->elements), TWK_NOISE_INITIAL, 0,
                                                at % a->elements);
            bench_compare(k, a->format, got[i], (bench_value){z, larger(1, fabs(z))}, 32);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_noise = {noise_make, noise_run, noise_check, NULL, "none"};
