/* Weighted mean squared error. */
#include "backend/cpu/ref.h"

TW_HOT static double squared_distance(const real *p, const real *t, int64_t n) {
    double lane[16] = {0};
    for (int64_t i = 0; i < n; i += 16)
        for (int64_t k = 0; k < 16 && i + k < n; k++) {
            const double d = (double)p[i + k] - (double)t[i + k];
            lane[k] += d * d;
        }
    double sum = 0;
    for (int k = 0; k < 16; k++) sum += lane[k];
    return sum;
}

void TW_REF(mse)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'];
    const real *p = c->in[0], *t = c->in[1], *w = c->n_in > 2 ? c->in[2] : NULL;
    real *loss = c->out[0], *per_sample = c->out[1];
    double total = 0;
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++)
        per_sample[n] =
            (real)((w ? (double)w[n] : 1.0) *
                   squared_distance(p + n * count, t + n * count, count) / (double)count);
    for (int64_t n = 0; n < samples; n++) total += (double)per_sample[n];
    loss[0] = (real)(total / (double)samples);
}

TW_HOT static void scaled_difference(real *out, const real *p, const real *t, real s, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = s * (p[i] - t[i]);
}

void TW_REF(mse_bwd)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'];
    const real *dloss = c->in[0], *p = c->in[1], *t = c->in[2];
    const real *w = c->n_in > 3 ? c->in[3] : NULL;
    real *dp = c->out[0];
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        const double s = (double)dloss[0] * 2.0 * (w ? (double)w[n] : 1.0);
        scaled_difference(dp + n * count, p + n * count, t + n * count,
                          (real)(s / ((double)samples * (double)count)), count);
    }
}
