/* A linear layer y[m, n] = x[m, k] w[n, k]^T with its bias, and its gradients. */
#include <math.h>

#include "job.h"

typedef enum product { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT } product;

/* x is a row's shape: n matrices of h * w rows by c columns. */
static twk_gemm_args shape_of(const bench_row *r, product which) {
    const int64_t m = r->h * r->w, n = r->out_channels, k = r->c;
    twk_gemm_args a = {.batch = r->n, .format = r->format, .tf32 = r->tf32};
    a.m = which == WEIGHT_GRADIENT ? n : m;
    a.n = which == FORWARD ? n : k;
    a.k = which == FORWARD ? k : which == INPUT_GRADIENT ? n : m;
    a.a_columns = which == WEIGHT_GRADIENT;
    a.b_columns = which != FORWARD;
    a.add_f32 = which == WEIGHT_GRADIENT;
    a.a_row = a.a_columns ? a.m : a.k;
    a.b_row = a.b_columns ? a.n : a.k;
    a.a_batch = a.m * a.k;
    a.b_batch = a.n * a.k;
    a.d_batch = a.m * a.n;
    return a;
}

static void make(const bench_row *r, bench_memory *m, bench_call *call, product which) {
    twk_gemm_args *a = &call->u.gemm;
    *a = shape_of(r, which);
    const float scale = 1.0f / sqrtf((float)a->k);
    const size_t size = (size_t)(a->batch * a->m * a->n);
    a->a = bench_normals(m, r->format, a->batch * a->a_batch, 1.0f);
    a->b = bench_normals(m, r->format, a->batch * a->b_batch, scale);
    if (which == FORWARD) a->bias = bench_floats(m, a->n, 0.5f);
    a->d = a->add_f32 ? bench_zeros(m, size * sizeof(float))
                      : bench_raw(m, size * bench_format_bytes(r->format));
    a->workspace_bytes = twk_gemm_workspace(a);
    if (a->workspace_bytes) a->workspace = bench_raw(m, a->workspace_bytes);
}

static void forward_make(const bench_row *r, bench_memory *m, bench_call *call) {
    make(r, m, call, FORWARD);
}
static void input_gradient_make(const bench_row *r, bench_memory *m, bench_call *call) {
    make(r, m, call, INPUT_GRADIENT);
}
static void weight_gradient_make(const bench_row *r, bench_memory *m, bench_call *call) {
    make(r, m, call, WEIGHT_GRADIENT);
}

static twk_status run(const bench_call *call, twk_stream s) {
    return twk_gemm(&call->u.gemm, s);
}

/* [count, k] of one matrix: its rows from `first` on, however it is stored. */
static const double *rows_of(bench_check *k, const twk_gemm_args *a, bool second, int64_t matrix,
                             int64_t first, int64_t count) {
    const void *from = second ? a->b : a->a;
    const int64_t rows = second ? a->n : a->m, base = matrix * (second ? a->b_batch : a->a_batch);
    const size_t bytes = (size_t)base * bench_format_bytes(a->format);
    if (!(second ? a->b_columns : a->a_columns))
        return bench_fetch(k, a->format, from, base + first * a->k, count * a->k);
    const double *columns =
        bench_fetch_columns(k, a->format, (const char *)from + bytes, a->k, rows, first, count);
    double *out = bench_hold(k, count * a->k);
    if (k->failed) return NULL;
    for (int64_t i = 0; i < count * a->k; i++) out[i] = columns[i % a->k * count + i / a->k];
    return out;
}

static void check(const bench_row *r, const bench_call *call, bench_check *k) {
    const twk_gemm_args *a = &call->u.gemm;
    const twk_format f = a->add_f32 ? TWK_F32 : a->format;
    (void)r;
    bench_range rows[2], columns[2];
    const int row_ends = bench_ends(a->m, 4, rows), column_ends = bench_ends(a->n, 16, columns);
    for (int i = 0; i < row_ends; i++)
        for (int j = 0; j < column_ends; j++) {
            const int64_t matrix = i ? a->batch - 1 : 0, wide = columns[j].count;
            const double *left = rows_of(k, a, false, matrix, rows[i].first, rows[i].count);
            const double *right = rows_of(k, a, true, matrix, columns[j].first, wide);
            const double *d = bench_fetch(k, f, a->d, matrix * a->d_batch + rows[i].first * a->n,
                                          rows[i].count * a->n);
            const double *bias = a->bias ? bench_fetch(k, TWK_F32, a->bias, 0, a->n) : NULL;
            if (k->failed) return;
            for (int64_t at = 0; at < rows[i].count * wide; at++) {
                const int64_t row = at / wide, column = columns[j].first + at % wide;
                bench_value sum = {bias ? bias[column] : 0, bias ? fabs(bias[column]) : 0};
                for (int64_t t = 0; t < a->k; t++) {
                    bench_add_term(&sum, left[row * a->k + t], right[at % wide * a->k + t],
                                   a->tf32);
                }
                bench_compare(k, f, d[row * a->n + column], sum, 8);
            }
            bench_drop(k);
        }
    k->of = "4 rows by 16 columns at the corners";
}

const bench_family bench_gemm = {forward_make, run, check, NULL, "none"};
const bench_family bench_gemm_input_gradient = {input_gradient_make, run, check, NULL, "none"};
const bench_family bench_gemm_weight_gradient = {weight_gradient_make, run, check, NULL, "none"};
