/* Operations that draw random numbers. Which numbers is a matter of seed, sample, purpose, step
 * and element alone (core/philox.h). */
#include <tweedie/schedule.h>

#include "backend/cpu/ref.h"
#include "backend/cpu/ref_table.h"
#include "core/philox.h"

void TW_REF(noise)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'];
    const int64_t *rng = c->in[0];
    const double scale = c->attr.noise.scale;
    real *y = c->out[0];
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, c->attr.noise.purpose);
        for (int64_t i = 0; i < count; i += 4) {
            double z[4];
            tw_philox_normals(&key, (uint32_t)(i / 4), z);
            for (int64_t k = 0; k < 4 && i + k < count; k++)
                y[n * count + i + k] = (real)(scale * z[k]);
        }
    }
}

void TW_REF(dropout)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'];
    const real *x = c->in[0];
    const int64_t *rng = c->in[1];
    const double p = c->attr.dropout.p;
    const real scale = (real)(1.0 / (1.0 - p));
    real *y = c->out[0];
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_DROPOUT + c->attr.dropout.layer);
        for (int64_t i = 0; i < count; i += 4) {
            uint32_t word[4];
            tw_philox_words(&key, (uint32_t)(i / 4), word);
            for (int64_t k = 0; k < 4 && i + k < count; k++) {
                const bool keep = (double)tw_philox_uniform(word[k]) >= p;
                y[n * count + i + k] = keep ? x[n * count + i + k] * scale : 0;
            }
        }
    }
}

/* Both samples of an antithetic pair draw for the even one, whatever the batch holds. */
void TW_REF(sample_t)(const tw_ref_call *c) {
    const int64_t *rng = c->in[0], steps = c->attr.sample_t.count;
    int32_t *t = c->out[0];
    for (int64_t n = 0; n < c->dim['N']; n++) {
        tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_TRAIN_T);
        const bool mirrored = c->attr.sample_t.antithetic && key.sample % 2;
        if (mirrored) key.sample--;
        const int64_t drawn =
            (int64_t)(((uint64_t)tw_philox_word(&key, 0) * (uint64_t)steps) >> 32);
        t[n] = (int32_t)(mirrored ? steps - 1 - drawn : drawn);
    }
}

void TW_REF(cond_drop)(const tw_ref_call *c) {
    const int32_t *label = c->in[0];
    const int64_t *rng = c->in[1];
    int32_t *y = c->out[0];
    for (int64_t n = 0; n < c->dim['N']; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_COND_DROP);
        const bool drop = (double)tw_philox_uniform(tw_philox_word(&key, 0)) < c->attr.cond_drop.p;
        y[n] = drop ? c->attr.cond_drop.null_label : label[n];
    }
}

void TW_REF(flip)(const tw_ref_call *c) {
    const int64_t h = c->dim['H'], w = c->dim['W'], channels = c->dim['C'];
    const real *x = c->in[0];
    const int64_t *rng = c->in[1];
    real *y = c->out[0];
    TW_PARALLEL(c, c->dim['N'] * h * w * channels)
    for (int64_t n = 0; n < c->dim['N']; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_FLIP);
        const bool flip = (double)tw_philox_uniform(tw_philox_word(&key, 0)) < c->attr.flip.p;
        for (int64_t p = 0; p < h * w; p++) {
            const int64_t from = flip ? p - p % w + (w - 1 - p % w) : p;
            memcpy(y + (n * h * w + p) * channels, x + (n * h * w + from) * channels,
                   (size_t)channels * sizeof *y);
        }
    }
}

/* A time step outside of the table gives NaN. */
void TW_REF(forward_noise)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'], steps = c->dim['T'];
    const real *x0 = c->in[0];
    const int32_t *t = c->in[1];
    const int64_t *rng = c->in[3];
    real *x_t = c->out[0], *target = c->out[1];
    const int prediction = c->attr.diffusion.prediction;
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_TRAIN_NOISE);
        const bool known = t[n] >= 0 && t[n] < steps;
        const double a = known ? sqrt(tw_ref_table_at(c, 2, 2 * (int64_t)t[n])) : NAN;
        const double s = known ? sqrt(tw_ref_table_at(c, 2, 2 * (int64_t)t[n] + 1)) : NAN;
        for (int64_t i = 0; i < count; i += 4) {
            double z[4];
            tw_philox_normals(&key, (uint32_t)(i / 4), z);
            for (int64_t k = 0; k < 4 && i + k < count; k++) {
                const int64_t at = n * count + i + k;
                const double x = (double)x0[at], e = z[k];
                x_t[at] = (real)(a * x + s * e);
                target[at] = (real)(prediction == TW_PREDICT_EPSILON  ? e
                                    : prediction == TW_PREDICT_SAMPLE ? x
                                                                      : a * e - s * x);
            }
        }
    }
}
