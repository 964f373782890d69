/* Element by element: activations, sums, fills and conversions. */
#include "backend/cpu/ref_math.h"

#define BLOCK 4096 /* elements of one thread's turn */

TW_HOT static void silu_block(real *y, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = tw_ref_silu(x[i]);
}

TW_HOT static void silu_slope_block(real *dx, const real *dy, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * tw_ref_silu_slope(x[i]);
}

/* NaN passes through. */
static void relu_block(real *y, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

static void relu_slope_block(real *dx, const real *dy, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) dx[i] = x[i] > 0 ? dy[i] : 0;
}

/* x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2 */
static void gelu_block(real *y, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)x[i];
        y[i] = (real)(0.5 * v * erfc(-v * M_SQRT1_2));
    }
}

/* Phi(x) + x phi(x) */
static void gelu_slope_block(real *dx, const real *dy, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double v = (double)x[i];
        const double density = 0.398942280401432677940 * exp(-0.5 * v * v);
        dx[i] = (real)((double)dy[i] * (0.5 * erfc(-v * M_SQRT1_2) + v * density));
    }
}

void TW_REF(act)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    const real *x = c->in[0];
    real *y = c->out[0];
    void (*const block[])(real *, const real *, int64_t) = {silu_block, relu_block, gelu_block};
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i += BLOCK)
        block[c->attr.act.kind](y + i, x + i, tw_min_i64(BLOCK, count - i));
}

void TW_REF(act_bwd)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    const real *dy = c->in[0], *x = c->in[1];
    real *dx = c->out[0];
    void (*const block[])(real *, const real *, const real *,
                          int64_t) = {silu_slope_block, relu_slope_block, gelu_slope_block};
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i += BLOCK)
        block[c->attr.act.kind](dx + i, dy + i, x + i, tw_min_i64(BLOCK, count - i));
}

TW_HOT static void axpby_block(real *y, const real *a, const real *b, real alpha, real beta,
                               int64_t n) {
    if (b) {
        for (int64_t i = 0; i < n; i++) y[i] = alpha * a[i] + beta * b[i];
    } else {
        for (int64_t i = 0; i < n; i++) y[i] = alpha * a[i] + beta;
    }
}

void TW_REF(axpby)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    const real *a = c->in[0], *b = c->n_in > 1 ? c->in[1] : NULL;
    real *y = c->out[0];
    const real alpha = (real)c->attr.axpby.alpha, beta = (real)c->attr.axpby.beta;
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i += BLOCK)
        axpby_block(y + i, a + i, b ? b + i : NULL, alpha, beta, tw_min_i64(BLOCK, count - i));
}

TW_HOT static void add_vec_rows(real *y, const real *x, const real *v, int64_t rows, int64_t n) {
    for (int64_t p = 0; p < rows; p++)
        for (int64_t c = 0; c < n; c++) y[p * n + c] = x[p * n + c] + v[c];
}

void TW_REF(add_vec)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], pixels = c->dim['.'], channels = c->dim['C'];
    const real *x = c->in[0], *v = (const real *)c->in[1] + c->attr.vector.column;
    real *y = c->out[0];
    TW_PARALLEL(c, samples * pixels * channels)
    for (int64_t n = 0; n < samples; n++)
        add_vec_rows(y + n * pixels * channels, x + n * pixels * channels, v + n * c->dim['V'],
                     pixels, channels);
}

void TW_REF(sum_spatial)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], pixels = c->dim['.'], channels = c->dim['C'];
    const real *x = c->in[0];
    real *v = (real *)c->out[0] + c->attr.vector.column;
    TW_PARALLEL(c, samples * pixels * channels)
    for (int64_t n = 0; n < samples; n++)
        for (int64_t c0 = 0; c0 < channels; c0 += TW_TILE) {
            const int64_t cn = tw_min_i64(TW_TILE, channels - c0);
            double acc[TW_TILE] = {0};
            for (int64_t p = 0; p < pixels; p++)
                TW_REF(accumulate)(acc, 1.0, x + (n * pixels + p) * channels + c0, cn);
            for (int64_t k = 0; k < cn; k++) v[n * c->dim['V'] + c0 + k] = (real)acc[k];
        }
}

void TW_REF(per_sample_scale)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'];
    const real *x = c->in[0], *s = c->in[1];
    real *y = c->out[0];
    TW_PARALLEL(c, samples * count)
    for (int64_t i = 0; i < samples * count; i++)
        y[i] = c->attr.per_sample.divide ? x[i] / s[i / count] : x[i] * s[i / count];
}
