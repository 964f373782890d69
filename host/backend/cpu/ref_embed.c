/* Embeddings of classes and of time. */
#include "backend/cpu/ref.h"

void TW_REF(embedding)(const tw_ref_call *c) {
    const int64_t rows = c->dim['V'], width = c->dim['D'];
    const real *table = c->in[0];
    const int32_t *index = c->in[1];
    real *y = c->out[0];
    for (int64_t n = 0; n < c->dim['N']; n++)
        for (int64_t d = 0; d < width; d++)
            y[n * width + d] =
                index[n] >= 0 && index[n] < rows ? table[index[n] * width + d] : (real)NAN;
}

/* Samples of one class are added one after the other, in double. */
void TW_REF(embedding_bwd)(const tw_ref_call *c) {
    const int64_t rows = c->dim['V'], width = c->dim['D'], samples = c->dim['N'];
    const real *dy = c->in[0];
    const int32_t *index = c->in[1];
    real *dtable = c->out[0];
    TW_PARALLEL(c, rows * samples)
    for (int64_t v = 0; v < rows; v++)
        for (int64_t d0 = 0; d0 < width; d0 += TW_TILE) {
            const int64_t dn = tw_min_i64(TW_TILE, width - d0);
            double acc[TW_TILE] = {0};
            for (int64_t n = 0; n < samples; n++)
                if (index[n] == v) TW_REF(accumulate)(acc, 1.0, dy + n * width + d0, dn);
            for (int64_t d = 0; d < dn; d++) dtable[v * width + d0 + d] += (real)acc[d];
        }
}

void TW_REF(time_embed)(const tw_ref_call *c) {
    const int64_t width = c->dim['D'], half = width / 2;
    const real *t = c->in[0];
    real *y = c->out[0];
    const bool flip = c->attr.time.flip;
    for (int64_t n = 0; n < c->dim['N']; n++) {
        real *row = y + n * width;
        for (int64_t i = 0; i < half; i++) {
            const double rate =
                log(c->attr.time.max_period) / ((double)half - c->attr.time.freq_shift);
            const double angle = c->attr.time.scale * (double)t[n] * exp(-rate * (double)i);
            row[i] = (real)(flip ? cos(angle) : sin(angle));
            row[half + i] = (real)(flip ? sin(angle) : cos(angle));
        }
        if (width % 2) row[width - 1] = 0;
    }
}

void TW_REF(fourier_embed)(const tw_ref_call *c) {
    const int64_t width = c->dim['D'];
    const real *t = c->in[0], *w = c->in[1];
    real *y = c->out[0];
    const bool flip = c->attr.time.flip;
    for (int64_t n = 0; n < c->dim['N']; n++)
        for (int64_t i = 0; i < width; i++) {
            const double time = c->attr.time.log ? log((double)t[n]) : (double)t[n];
            const double angle = 6.283185307179586476925 * time * (double)w[i];
            real *row = y + 2 * n * width;
            row[i] = (real)(flip ? cos(angle) : sin(angle));
            row[width + i] = (real)(flip ? sin(angle) : cos(angle));
        }
}
