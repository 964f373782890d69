/* The sampler's update: DDIM (Song, Meng & Ermon 2020), ancestral DDPM and the learned variance of
 * Nichol & Dhariwal 2021, classifier-free guidance, clipping and dynamic thresholding. Every
 * element is computed in double. */
#include <tweedie/schedule.h>

#include "backend/cpu/ref.h"
#include "backend/cpu/ref_table.h"
#include "diffusion/coefficients.h"

typedef struct update {
    const tw_ref_call *call;
    int64_t channels, outputs; /* outputs: of the network, C or 2C */
    const real *m, *uncond;
    double row[TW_COEF_WIDTH];
    double root_a, root_1ma, root_ap;
    double sigma, direction; /* DDIM */
} update;

/* Reads row rng[2]; a row outside of the table gives NaN. */
static update update_of(const tw_ref_call *c, int m, int table, const int64_t *rng) {
    update u = {.call = c, .channels = c->dim['C'], .outputs = c->dim['M'], .m = c->in[m]};
    u.uncond = c->attr.update.guided ? c->in[m + 1] : NULL;
    for (int i = 0; i < TW_COEF_WIDTH; i++)
        u.row[i] = rng[2] >= 0 && rng[2] < c->dim['S']
                       ? tw_ref_table_at(c, table, rng[2] * TW_COEF_WIDTH + i)
                       : NAN;
    u.root_a = sqrt(u.row[TW_COEF_A]);
    u.root_1ma = sqrt(u.row[TW_COEF_1MA]);
    u.root_ap = sqrt(u.row[TW_COEF_AP]);
    const double eta = u.row[TW_COEF_ETA];
    u.sigma = eta == 0 ? 0
                       : eta * sqrt(u.row[TW_COEF_1MAP] / u.row[TW_COEF_1MA]) *
                             sqrt(u.row[TW_COEF_1MRATIO]);
    const double rest = u.row[TW_COEF_1MAP] - u.sigma * u.sigma;
    u.direction = rest < 0 ? 0 : sqrt(rest);
    return u;
}

/* Element i (of x) of the network's output; the second half of 2C channels is the variance, which
 * guidance leaves alone. */
static double output_at(const update *u, int64_t i, bool variance) {
    const int64_t at =
        i / u->channels * u->outputs + i % u->channels + (variance ? u->channels : 0);
    const double m = (double)u->m[at];
    if (!u->uncond || variance) return m;
    const double base = (double)u->uncond[at];
    return base + u->call->attr.update.guidance * (m - base);
}

static double predict(const update *u, int64_t i, double x, double *epsilon) {
    const double m = output_at(u, i, false);
    switch (u->call->attr.update.prediction) {
    case TW_PREDICT_SAMPLE:
        *epsilon = (x - u->root_a * m) / u->root_1ma;
        return m;
    case TW_PREDICT_V:
        *epsilon = u->root_a * m + u->root_1ma * x;
        return u->root_a * x - u->root_1ma * m;
    default:
        *epsilon = m;
        return (x - u->root_1ma * m) / u->root_a;
    }
}

/* To [-limit, limit]; NaN stays. */
static double clamp(double x, double limit) {
    return x < -limit ? -limit : x > limit ? limit : x;
}

static double clip(const update *u, double x0, double limit) {
    switch (u->call->attr.update.clip) {
    case TW_CLIP_RANGE:
        return clamp(x0, u->call->attr.update.clip_range);
    case TW_CLIP_DYNAMIC:
        return clamp(x0, limit) / limit;
    default:
        return x0;
    }
}

/* The factor of the noise, which may differ by element. */
static double noise_factor(const update *u, int64_t i) {
    if (u->call->attr.update.rule == TW_UPDATE_DDIM) return u->sigma;
    if (u->call->attr.update.rule == TW_UPDATE_LINEAR) return u->row[TW_COEF_Z];
    if (u->row[TW_COEF_Z] == 0) return 0;
    const double f = (output_at(u, i, true) + 1) / 2;
    return u->row[TW_COEF_Z] *
           exp(0.5 * (f * u->row[TW_COEF_LOGVAR_MAX] + (1 - f) * u->row[TW_COEF_LOGVAR_MIN]));
}

/* The new x of element i; z is read only where the noise has a factor. */
static double step(const update *u, int64_t i, double x, double z, double limit, double *x0) {
    double epsilon;
    *x0 = clip(u, predict(u, i, x, &epsilon), limit);
    if (u->call->attr.update.rederive_epsilon) epsilon = (x - u->root_a * *x0) / u->root_1ma;
    const double factor = noise_factor(u, i), noise = factor == 0 ? 0 : factor * z;
    if (u->call->attr.update.rule == TW_UPDATE_DDIM)
        return u->root_ap * *x0 + u->direction * epsilon + noise;
    return u->row[TW_COEF_X0] * *x0 + u->row[TW_COEF_X] * x + noise;
}

void TW_REF(sampler_update)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'] * c->dim['C'];
    const int64_t *rng = c->in[3];
    const update u = update_of(c, 0, 2, rng);
    const real *limits = c->attr.update.clip == TW_CLIP_DYNAMIC ? c->in[4] : NULL;
    real *x = c->out[0], *x0 = c->n_out > 1 ? c->out[1] : NULL;
    const bool quiet = c->attr.update.rule == TW_UPDATE_DDIM ? u.sigma == 0 : u.row[TW_COEF_Z] == 0;
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        const tw_philox_key key = tw_ref_key(rng, n, TW_PURPOSE_SAMPLER);
        const double limit = limits ? (double)limits[n] : 1;
        for (int64_t i = 0; i < count; i += 4) {
            double z[4] = {0};
            if (!quiet) tw_philox_normals(&key, (uint32_t)(i / 4), z);
            for (int64_t k = 0; k < 4 && i + k < count; k++) {
                const int64_t at = n * count + i + k;
                double predicted;
                x[at] = (real)step(&u, at, (double)x[at], z[k], limit, &predicted);
                if (x0) x0[at] = (real)predicted;
            }
        }
    }
}

/* Puts the element of rank k (from 0) at v[k], smaller ones before it (Hoare's selection). */
static void select_rank(double *v, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        const double pivot = v[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i <= j) {
                const double swap = v[i];
                v[i++] = v[j];
                v[j--] = swap;
            }
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            return;
    }
}

/* The quantile with linear interpolation between ranks; v is reordered and holds no NaN. */
static double quantile(double *v, int64_t n, double q) {
    const double rank = q * (double)(n - 1);
    const int64_t k = (int64_t)floor(rank);
    select_rank(v, n, k);
    if (k + 1 >= n) return v[k];
    double next = v[k + 1];
    for (int64_t i = k + 2; i < n; i++)
        if (v[i] < next) next = v[i];
    return v[k] + (rank - (double)k) * (next - v[k]);
}

void TW_REF(threshold)(const tw_ref_call *c) {
    const int64_t samples = c->dim['N'], count = c->dim['.'] * c->dim['C'];
    const real *x = c->in[0];
    const update u = update_of(c, 1, 3, c->in[4]);
    real *limit = c->out[0];
    double *scratch = c->workspace;
    TW_PARALLEL(c, samples * count)
    for (int64_t n = 0; n < samples; n++) {
        double *v = scratch + omp_get_thread_num() * count, epsilon;
        bool whole = true;
        for (int64_t i = 0; i < count; i++) {
            v[i] = fabs(predict(&u, n * count + i, (double)x[n * count + i], &epsilon));
            whole = whole && v[i] == v[i];
        }
        const double s = whole ? quantile(v, count, c->attr.update.quantile) : NAN;
        limit[n] = (real)(s < 1 ? 1 : s > c->attr.update.max_limit ? c->attr.update.max_limit : s);
    }
}

void TW_REF(step_time)(const tw_ref_call *c) {
    const int64_t *rng = c->in[1];
    const bool known = rng[2] >= 0 && rng[2] < c->dim['S'];
    real *y = c->out[0];
    for (int64_t n = 0; n < c->dim['N']; n++)
        y[n] = known ? (real)tw_ref_table_at(c, 0, rng[2] * c->dim['L'] + c->attr.row.column)
                     : (real)NAN;
}

void TW_REF(next_step)(const tw_ref_call *c) {
    int64_t *rng = c->out[0];
    rng[2]++;
}
