/* Matrix products. */
#include "backend/cpu/ref.h"

/* Sixteen partial sums, so that the loop vectorises in a fixed order. */
/* Clones for several processors must be static: their resolvers would be exported otherwise. */
TW_HOT static double dot(const real *a, const real *b, int64_t n) {
    double lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 16; k++) lane[k] += (double)a[i + k] * (double)b[i + k];
    for (int k = 0; i + k < n; k++) lane[k] += (double)a[i + k] * (double)b[i + k];
    for (int half = 8; half; half /= 2)
        for (int k = 0; k < half; k++) lane[k] += lane[k + half];
    return lane[0];
}

TW_HOT static void accumulate(double *acc, double s, const real *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) acc[i] += s * (double)x[i];
}

double TW_REF(dot)(const real *a, const real *b, int64_t n) {
    return dot(a, b, n);
}

void TW_REF(accumulate)(double *acc, double s, const real *x, int64_t n) {
    accumulate(acc, s, x, n);
}

void TW_REF(linear)(const tw_ref_call *c) {
    const int64_t rows = c->dim['.'], k = c->dim['K'], outputs = c->dim['O'];
    const real *x = c->in[0], *w = c->in[1], *b = c->n_in > 2 ? c->in[2] : NULL;
    real *y = c->out[0];
    TW_PARALLEL(c, rows * k * outputs)
    for (int64_t i = 0; i < rows * outputs; i++) {
        const int64_t m = i / outputs, o = i % outputs;
        y[i] = (real)(TW_REF(dot)(x + m * k, w + o * k, k) + (b ? (double)b[o] : 0.0));
    }
}

/* dx[m,k] = sum over o of dy[m,o] w[o,k] */
void TW_REF(linear_bwd_data)(const tw_ref_call *c) {
    const int64_t rows = c->dim['.'], width = c->dim['K'], outputs = c->dim['O'];
    const int64_t tiles = (width + TW_TILE - 1) / TW_TILE;
    const real *dy = c->in[0], *w = c->in[1];
    real *dx = c->out[0];
    TW_PARALLEL(c, rows * width * outputs)
    for (int64_t i = 0; i < rows * tiles; i++) {
        const int64_t m = i / tiles, k0 = i % tiles * TW_TILE, n = tw_min_i64(TW_TILE, width - k0);
        double acc[TW_TILE] = {0};
        for (int64_t o = 0; o < outputs; o++)
            TW_REF(accumulate)(acc, (double)dy[m * outputs + o], w + o * width + k0, n);
        for (int64_t k = 0; k < n; k++) dx[m * width + k0 + k] = (real)acc[k];
    }
}

/* dw[o,k] += sum over m of dy[m,o] x[m,k]; db[o] += sum over m of dy[m,o] */
void TW_REF(linear_bwd_weight)(const tw_ref_call *c) {
    const int64_t rows = c->dim['.'], width = c->dim['K'], outputs = c->dim['O'];
    const int64_t tiles = (width + TW_TILE - 1) / TW_TILE;
    const real *x = c->in[0], *dy = c->in[1];
    real *dw = c->out[0], *db = c->n_out > 1 ? c->out[1] : NULL;
    TW_PARALLEL(c, rows * width * outputs)
    for (int64_t i = 0; i < outputs * tiles; i++) {
        const int64_t o = i / tiles, k0 = i % tiles * TW_TILE, n = tw_min_i64(TW_TILE, width - k0);
        double acc[TW_TILE] = {0};
        for (int64_t m = 0; m < rows; m++)
            TW_REF(accumulate)(acc, (double)dy[m * outputs + o], x + m * width + k0, n);
        for (int64_t k = 0; k < n; k++) dw[o * width + k0 + k] += (real)acc[k];
    }
    if (!db) return;
    for (int64_t o = 0; o < outputs; o++) {
        double sum = 0;
        for (int64_t m = 0; m < rows; m++) sum += (double)dy[m * outputs + o];
        db[o] += (real)sum;
    }
}
