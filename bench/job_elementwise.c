/* SiLU, add and dropout. */
#include <math.h>

#include "job.h"

static void pair_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t n = bench_elements(r);
    call->u.pair.format = r->format;
    call->u.pair.n = n;
    call->u.pair.a = bench_normals(m, r->format, n, 0.5f);
    if (r->kind == BENCH_ADD) call->u.pair.b = bench_normals(m, r->format, n, 0.5f);
    call->u.pair.y = bench_raw(m, (size_t)n * bench_format_bytes(r->format));
}

static twk_status silu_run(const bench_call *call, twk_stream s) {
    return twk_activation_forward(TWK_SILU, call->u.pair.format, call->u.pair.n, call->u.pair.a,
                                  call->u.pair.y, s);
}

static twk_status add_run(const bench_call *call, twk_stream s) {
    return twk_add(call->u.pair.format, call->u.pair.n, 1, call->u.pair.a, 1, call->u.pair.b,
                   call->u.pair.y, s);
}

static void pair_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_format f = call->u.pair.format;
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first, count = range[part].count;
        const double *a = bench_fetch(k, f, call->u.pair.a, first, count), *b = NULL;
        if (call->u.pair.b) b = bench_fetch(k, f, call->u.pair.b, first, count);
        const double *y = bench_fetch(k, f, call->u.pair.y, first, count);
        if (k->failed) return;
        for (int64_t i = 0; i < count; i++) {
            const double u = a[i], silu = u / (1 + exp(-u));
            if (b)
                bench_compare(k, f, y[i], (bench_value){u + b[i], fabs(u) + fabs(b[i])}, 4);
            else
                bench_compare(k, f, y[i], (bench_value){silu, fabs(u) * (1 + fabs(u))}, 8);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_activation = {pair_make, silu_run, pair_check, NULL, "none"};
const bench_family bench_add = {pair_make, add_run, pair_check, NULL, "none"};

static void dropout_make(const bench_row *r, bench_memory *m, bench_call *call) {
    const int64_t total = bench_elements(r);
    call->u.dropout =
        (twk_dropout_args){.batch = r->n,
                           .elements = total / r->n,
                           .format = r->format,
                           .x = bench_normals(m, r->format, total, 0.5f),
                           .y = bench_raw(m, (size_t)total * bench_format_bytes(r->format)),
                           .probability = 0.1f};
}

static twk_status dropout_run(const bench_call *call, twk_stream s) {
    return twk_dropout(&call->u.dropout, s);
}

static void dropout_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_dropout_args *a = &call->u.dropout;
    const double p = (double)a->probability;
    bench_range range[2];
    const int n = bench_ends(bench_elements(r), BENCH_CHECKED, range);
    for (int part = 0; part < n; part++) {
        const int64_t first = range[part].first, count = range[part].count;
        const double *x = bench_fetch(k, a->format, a->x, first, count);
        const double *y = bench_fetch(k, a->format, a->y, first, count);
        if (k->failed) return;
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = first + i;
            const double drawn = bench_noise_uniform((uint64_t)(at / a->elements),
                                                     TWK_NOISE_DROPOUT, 0, at % a->elements);
            const double want = drawn < p ? 0 : x[i] / (1 - p);
            bench_compare(k, a->format, y[i], (bench_value){want, fabs(want)}, 4);
        }
        bench_drop(k);
    }
    if (n == 2) k->of = "first and last 32768";
}

const bench_family bench_dropout = {dropout_make, dropout_run, dropout_check, NULL, "none"};
