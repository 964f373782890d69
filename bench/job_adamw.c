/* The optimizer over as many tensors as a UNet has, of uneven sizes. */
#include <math.h>

#include "job.h"

enum { TENSORS = 300 };

static void tensor_make(bench_memory *m, int64_t n, twk_parameter *p) {
    *p = (twk_parameter){.n = n,
                         .master = bench_floats(m, n, 0.5f),
                         .m = bench_floats(m, n, 0.01f),
                         .v = bench_uniforms(m, n, 1e-3f),
                         .ema = bench_floats(m, n, 0.5f),
                         .copy = bench_raw(m, (size_t)n * 2),
                         .gradient = bench_floats(m, n, 0.01f),
                         .decay = 0.01f};
}

static void keep(bench_memory *m, const twk_parameter *p, struct bench_tensor *t) {
    const size_t bytes = (size_t)p->n * sizeof(float);
    t->p = *p;
    t->master = bench_copy(m, p->master, bytes);
    t->m = bench_copy(m, p->m, bytes);
    t->v = bench_copy(m, p->v, bytes);
    t->ema = bench_copy(m, p->ema, bytes);
}

static void adamw_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_parameter table[TENSORS];
    int64_t left = r->c;
    for (int i = 0; i < TENSORS; i++) {
        const int64_t share = left / (TENSORS - i) * (1 + i % 3) / 2;
        const int64_t n = i + 1 == TENSORS ? left : share < 1 ? 1 : share;
        left -= n;
        tensor_make(m, n, &table[i]);
    }
    twk_adamw_args *a = &call->u.adamw.args;
    *a = (twk_adamw_args){.n_parameters = TENSORS, .copy_format = TWK_BF16};
    a->n_chunks = twk_adamw_plan(table, TENSORS);
    if (m->failed || a->n_chunks < 1) {
        m->failed = true;
        return;
    }
    call->u.adamw.hyper = (twk_adamw_hyper){1e-4f, 0.9f, 0.999f, 1e-8f, 0, 1, 0.999f, 0};
    a->parameters = bench_copy(m, table, sizeof table);
    a->hyper = bench_copy(m, &call->u.adamw.hyper, sizeof call->u.adamw.hyper);
    a->norm = bench_zeros(m, sizeof *a->norm);
    a->count = bench_zeros(m, 2 * sizeof *a->count);
    a->workspace_bytes = twk_adamw_workspace(a->n_chunks);
    a->workspace = bench_raw(m, a->workspace_bytes);
    keep(m, &table[0], &call->u.adamw.end[0]);
    keep(m, &table[TENSORS - 1], &call->u.adamw.end[1]);
}

static twk_status adamw_run(const bench_call *call, twk_stream s) {
    const twk_status status = twk_gradient_norm(&call->u.adamw.args, s);
    return status == TWK_OK ? twk_adamw(&call->u.adamw.args, s) : status;
}

/* Of all tensors' gradients. */
static double norm_of(const twk_adamw_args *a, bench_check *k) {
    double sum = 0;
    for (int32_t i = 0; i < a->n_parameters; i++) {
        const twk_parameter *p = bench_fetch_bytes(k, a->parameters + i, sizeof *p);
        const double *g = p ? bench_fetch(k, TWK_F32, p->gradient, 0, p->n) : NULL;
        if (!g) return NAN;
        for (int64_t j = 0; j < p->n; j++) sum += g[j] * g[j];
        bench_drop(k);
    }
    return sqrt(sum);
}

/* The first step of one tensor. */
static void check_tensor(const twk_adamw_hyper *h, const struct bench_tensor *t, double factor,
                         bench_check *k) {
    const int64_t n = t->p.n < BENCH_CHECKED ? t->p.n : BENCH_CHECKED, at = t->p.n - n;
    const double *w = bench_fetch(k, TWK_F32, t->master, at, n);
    const double *m = bench_fetch(k, TWK_F32, t->m, at, n);
    const double *v = bench_fetch(k, TWK_F32, t->v, at, n);
    const double *e = bench_fetch(k, TWK_F32, t->ema, at, n);
    const double *g = bench_fetch(k, TWK_F32, t->p.gradient, at, n);
    const double *got_w = bench_fetch(k, TWK_F32, t->p.master, at, n);
    const double *got_m = bench_fetch(k, TWK_F32, t->p.m, at, n);
    const double *got_v = bench_fetch(k, TWK_F32, t->p.v, at, n);
    const double *got_e = bench_fetch(k, TWK_F32, t->p.ema, at, n);
    const double *got_copy = bench_fetch(k, TWK_BF16, t->p.copy, at, n);
    if (k->failed) return;
    const double lr = (double)h->lr, b1 = (double)h->beta1, b2 = (double)h->beta2;
    const double d = (double)h->ema_decay, c1 = 1 / (1 - b1), c2 = 1 / (1 - b2);
    for (int64_t i = 0; i < n; i++) {
        const double x = g[i] * factor;
        const bench_value nm = {b1 * m[i] + (1 - b1) * x, fabs(m[i]) + fabs(x)};
        const double nv = b2 * v[i] + (1 - b2) * x * x;
        const double size = sqrt(nv * c2) + (double)h->epsilon, step = lr * nm.value * c1 / size;
        const bench_value nw = {w[i] * (1 - lr * (double)t->p.decay) - step,
                                fabs(w[i]) + fabs(step) + lr * nm.terms * c1 / size};
        const bench_value ne = {e[i] + (1 - d) * (nw.value - e[i]), fabs(e[i]) + nw.terms};
        bench_compare(k, TWK_F32, got_m[i], nm, 32);
        bench_compare(k, TWK_F32, got_v[i], (bench_value){nv, nv}, 64);
        bench_compare(k, TWK_F32, got_w[i], nw, 32);
        bench_compare(k, TWK_F32, got_e[i], ne, 32);
        bench_compare(k, TWK_BF16, got_copy[i], nw, 32);
    }
    bench_drop(k);
}

static void adamw_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_adamw_args *a = &call->u.adamw.args;
    const twk_adamw_hyper *h = &call->u.adamw.hyper;
    const double norm = norm_of(a, k);
    const double *got = bench_fetch(k, TWK_F32, a->norm, 0, 1);
    (void)r;
    if (k->failed) return;
    bench_compare(k, TWK_F32, got[0], (bench_value){norm, norm}, 64);
    bench_drop(k);
    const double factor = norm > (double)h->max_norm ? (double)h->max_norm / norm : 1;
    check_tensor(h, &call->u.adamw.end[0], factor, k);
    if (!k->failed) check_tensor(h, &call->u.adamw.end[1], factor, k);
    k->of = "the norm; the last 32768 of the first and last tensor";
}

const bench_family bench_adamw = {adamw_make, adamw_run, adamw_check, NULL, "none"};
