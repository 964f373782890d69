/* Attention forward and backward. A row's shape is samples, heads, queries, columns of a head. */
#include <cuda_runtime_api.h>
#include <math.h>

#include "job.h"

static void forward_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_attention_args *a = &call->u.attention;
    const int64_t width = r->h * r->c, queries = r->n * r->w * width;
    const int64_t keys = r->n * r->keys * width;
    *a = (twk_attention_args){.batch = r->n,
                              .q_tokens = r->w,
                              .k_tokens = r->keys,
                              .heads = (int)r->h,
                              .head_size = (int)r->c,
                              .format = r->format,
                              .tf32 = r->tf32,
                              .q_row = width,
                              .k_row = width,
                              .v_row = width,
                              .o_row = width,
                              .q_batch = r->w * width,
                              .k_batch = r->keys * width,
                              .v_batch = r->keys * width,
                              .o_batch = r->w * width};
    a->q = bench_normals(m, r->format, queries, 1.0f);
    a->k = bench_normals(m, r->format, keys, 1.0f);
    a->v = bench_normals(m, r->format, keys, 1.0f);
    a->o = bench_raw(m, (size_t)queries * bench_format_bytes(r->format));
    a->lse = bench_raw(m, (size_t)(r->n * r->h * r->w) * sizeof(float));
}

static void backward_make(const bench_row *r, bench_memory *m, bench_call *call) {
    twk_attention_args *a = &call->u.attention;
    forward_make(r, m, call);
    const int64_t queries = r->n * a->q_batch, keys = r->n * a->k_batch;
    const size_t b = bench_format_bytes(r->format);
    a->d_o = bench_normals(m, r->format, queries, 1.0f);
    a->dq = bench_raw(m, (size_t)queries * b);
    a->dk = bench_raw(m, (size_t)keys * b);
    a->dv = bench_raw(m, (size_t)keys * b);
    a->workspace_bytes = twk_attention_backward_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
    if (m->failed) return;
    m->failed = twk_attention_forward(a, NULL) != TWK_OK || cudaDeviceSynchronize() != cudaSuccess;
}

static twk_status forward_run(const bench_call *call, twk_stream s) {
    return twk_attention_forward(&call->u.attention, s);
}
static twk_status backward_run(const bench_call *call, twk_stream s) {
    return twk_attention_backward(&call->u.attention, s);
}

/* The first or last head of the first or last sample, in double. */
typedef struct head {
    int64_t t, u, d; /* queries, keys, columns */
    double scale;
    const double *q, *k, *v, *o, *d_o, *lse;
} head;

static const double *part(bench_check *k, const twk_attention_args *a, const void *from,
                          int64_t tokens, int last) {
    const int64_t width = (int64_t)a->heads * a->head_size;
    const size_t skip = last ? (size_t)((a->batch - 1) * tokens * width) : 0;
    return bench_fetch_columns(k, a->format,
                               (const char *)from + skip * bench_format_bytes(a->format), tokens,
                               width, last ? width - a->head_size : 0, a->head_size);
}

static head head_of(bench_check *k, const twk_attention_args *a, int last) {
    head h = {.t = a->q_tokens, .u = a->k_tokens, .d = a->head_size};
    h.scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)h.d);
    h.q = part(k, a, a->q, h.t, last);
    h.k = part(k, a, a->k, h.u, last);
    h.v = part(k, a, a->v, h.u, last);
    h.o = part(k, a, a->o, h.t, last);
    h.lse = bench_fetch(k, TWK_F32, a->lse, last ? (a->batch * a->heads - 1) * h.t : 0, h.t);
    if (a->d_o) h.d_o = part(k, a, a->d_o, h.t, last);
    return h;
}

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Probabilities and the gradients of scores are rounded to the format between two products. */
static double bound_of(twk_format f) {
    return f == TWK_F32 ? 512 : f == TWK_BF16 ? 0x1p18 : 0x1p15;
}

static void check_output(bench_check *k, const twk_attention_args *a, const head *h, int64_t i) {
    double *p = bench_hold(k, h->u), most = -INFINITY, sum = 0;
    if (k->failed) return;
    for (int64_t j = 0; j < h->u; j++) {
        p[j] = h->scale * dot(h->q + i * h->d, h->k + j * h->d, h->d);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < h->u; j++) sum += p[j] = exp(p[j] - most);
    const double lse = most + log(sum);
    bench_compare(k, TWK_F32, h->lse[i], (bench_value){lse, 64 + fabs(lse)}, 64);
    for (int64_t c = 0; c < h->d; c++) {
        bench_value o = {0, 0};
        for (int64_t j = 0; j < h->u; j++) {
            o.value += p[j] / sum * h->v[j * h->d + c];
            o.terms += p[j] / sum * fabs(h->v[j * h->d + c]);
        }
        bench_compare(k, a->format, h->o[i * h->d + c], o, bound_of(a->format));
    }
}

static void forward_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_attention_args *a = &call->u.attention;
    (void)r;
    for (int last = 0; last < 2; last++) {
        const head h = head_of(k, a, last);
        if (k->failed) return;
        check_output(k, a, &h, last ? h.t - 1 : 0);
        bench_drop(k);
    }
    k->of = "the first query of the first head and the last of the last";
}

/* Probability and gradient of the score of query i and key j; lse and o are the forward pass's. */
static void score_gradient(const head *h, int64_t i, int64_t j, double *p, bench_value *ds) {
    const double *d_o = h->d_o + i * h->d;
    *p = exp(h->scale * dot(h->q + i * h->d, h->k + j * h->d, h->d) - h->lse[i]);
    const double dp = dot(d_o, h->v + j * h->d, h->d), delta = dot(d_o, h->o + i * h->d, h->d);
    *ds = (bench_value){h->scale * *p * (dp - delta), h->scale * *p * (fabs(dp) + fabs(delta))};
}

static void add_scaled(bench_value *sum, bench_value by, const double *row, int64_t n) {
    for (int64_t c = 0; c < n; c++) {
        sum[c].value += by.value * row[c];
        sum[c].terms += by.terms * fabs(row[c]);
    }
}

static void compare_row(bench_check *k, twk_format f, const double *got, const bench_value *want,
                        int64_t n) {
    for (int64_t c = 0; c < n; c++) bench_compare(k, f, got[c], want[c], bound_of(f));
}

static void check_gradients(bench_check *k, const twk_attention_args *a, const head *h, int last) {
    const int64_t i = last ? h->t - 1 : 0, j = last ? h->u - 1 : 0;
    const double *dq = part(k, a, a->dq, h->t, last), *dk = part(k, a, a->dk, h->u, last);
    const double *dv = part(k, a, a->dv, h->u, last);
    bench_value *sum = (bench_value *)bench_hold(k, 6 * h->d), ds;
    if (k->failed) return;
    bench_value *const q = sum, *const key = sum + h->d, *const v = sum + 2 * h->d;
    double p;
    for (int64_t other = 0; other < h->u; other++) {
        score_gradient(h, i, other, &p, &ds);
        add_scaled(q, ds, h->k + other * h->d, h->d);
    }
    for (int64_t other = 0; other < h->t; other++) {
        score_gradient(h, other, j, &p, &ds);
        add_scaled(key, ds, h->q + other * h->d, h->d);
        add_scaled(v, (bench_value){p, p}, h->d_o + other * h->d, h->d);
    }
    compare_row(k, a->format, dq + i * h->d, q, h->d);
    compare_row(k, a->format, dk + j * h->d, key, h->d);
    compare_row(k, a->format, dv + j * h->d, v, h->d);
}

static void backward_check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_attention_args *a = &call->u.attention;
    (void)r;
    for (int last = 0; last < 2; last++) {
        const head h = head_of(k, a, last);
        if (k->failed) return;
        check_gradients(k, a, &h, last);
        bench_drop(k);
    }
    k->of = "the first token of the first head and the last of the last";
}

const bench_family bench_attention = {forward_make, forward_run, forward_check, NULL, "none"};
const bench_family bench_attention_backward = {backward_make, backward_run, backward_check, NULL,
                                               "none"};
