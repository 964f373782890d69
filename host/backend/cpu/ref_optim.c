/* The gradient's norm and AdamW (Loshchilov & Hutter 2019) with an exponential moving average. */
#include "backend/cpu/ref.h"
#include "backend/cpu/ref_table.h"
#include "core/halfs.h"

#define CHUNK 4096 /* elements of one partial sum, whatever the threads; see tw_ref_workspace */

void TW_REF(global_norm)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'], chunks = (count + CHUNK - 1) / CHUNK;
    const real *g = c->in[0];
    real *norm = c->out[0];
    double *partial = c->workspace, sum = 0;
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < chunks; i++)
        partial[i] =
            TW_REF(dot)(g + i * CHUNK, g + i * CHUNK, tw_min_i64(CHUNK, count - i * CHUNK));
    for (int64_t i = 0; i < chunks; i++) sum += partial[i];
    norm[0] = (real)sqrt(sum);
}

typedef struct adamw_factors {
    real lr, decay, eps, b1, b2, one_b1, one_b2, clip, m_scale, v_scale, ema, one_ema;
} adamw_factors;

TW_HOT static void adamw_block(real *p, real *m, real *v, const real *g, int64_t n,
                               adamw_factors f) {
    for (int64_t i = 0; i < n; i++) {
        const real gradient = g[i] * f.clip;
        const real first = f.b1 * m[i] + f.one_b1 * gradient;
        const real second = f.b2 * v[i] + f.one_b2 * gradient * gradient;
        const real root = (real)(sizeof(real) == 8 ? sqrt((double)(second * f.v_scale))
                                                   : (double)sqrtf((float)(second * f.v_scale)));
        m[i] = first;
        v[i] = second;
        p[i] -= f.lr * (f.decay * p[i] + first * f.m_scale / (root + f.eps));
    }
}

TW_HOT static void ema_block(real *ema, const real *p, int64_t n, real keep, real add) {
    for (int64_t i = 0; i < n; i++) ema[i] = keep * ema[i] + add * p[i];
}

static void round_block(uint16_t *copy, const real *p, int64_t n, bool bf16) {
    for (int64_t i = 0; i < n; i++)
        copy[i] = bf16 ? tw_f32_to_bf16((float)p[i]) : tw_f32_to_f16((float)p[i]);
}

static adamw_factors factors_of(const tw_ref_call *c, double norm, double t) {
    double h[TW_HYPER_COUNT];
    for (int i = 0; i < TW_HYPER_COUNT; i++) h[i] = tw_ref_table_at(c, 2, i);
    const double limit = h[TW_HYPER_CLIP], b1 = h[TW_HYPER_BETA1], b2 = h[TW_HYPER_BETA2];
    const double warm = t / (9 + t);
    const double ema =
        h[TW_HYPER_EMA_WARMUP] != 0 && warm < h[TW_HYPER_EMA_DECAY] ? warm : h[TW_HYPER_EMA_DECAY];
    return (adamw_factors){.lr = (real)h[TW_HYPER_LR],
                           .decay = (real)h[TW_HYPER_DECAY],
                           .eps = (real)h[TW_HYPER_EPS],
                           .b1 = (real)b1,
                           .b2 = (real)b2,
                           .one_b1 = (real)(1 - b1),
                           .one_b2 = (real)(1 - b2),
                           .clip = (real)(limit > 0 && norm > limit ? limit / norm : 1),
                           .m_scale = (real)(1 / (1 - pow(b1, t))),
                           .v_scale = (real)(1 / (1 - pow(b2, t))),
                           .ema = (real)ema,
                           .one_ema = (real)(1 - ema)};
}

void TW_REF(adamw)(const tw_ref_call *c) {
    const int64_t count = c->dim['.'];
    const real *g = c->in[0], *norm = c->in[1];
    real *p = c->out[0], *m = c->out[1], *v = c->out[2], *ema = c->n_out > 4 ? c->out[4] : NULL;
    int64_t *counter = c->out[3];
    uint16_t *copy = c->n_out > 5 ? c->out[5] : NULL;
    const bool bf16 = copy && c->out_desc[5].dtype == TW_BF16;
    if (!isfinite((double)norm[0])) {
        counter[1]++;
        return;
    }
    const adamw_factors f = factors_of(c, (double)norm[0], (double)(counter[0] + 1));
    TW_PARALLEL(c, count)
    for (int64_t i = 0; i < count; i += CHUNK) {
        const int64_t n = tw_min_i64(CHUNK, count - i);
        adamw_block(p + i, m + i, v + i, g + i, n, f);
        if (ema) ema_block(ema + i, p + i, n, f.ema, f.one_ema);
        if (copy) round_block(copy + i, p + i, n, bf16);
    }
    counter[0]++;
}
