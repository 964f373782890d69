/* Group normalisation (Wu & He 2018) with SiLU and scale/shift, and its gradient.
 *
 * Sums run over the pixels of each channel, then over the channels of a group; the variance is
 * taken around the mean in a second pass. */
#include "backend/cpu/ref_math.h"

typedef struct norm {
    int64_t n, pixels, c, groups, per_group;
    int64_t column, row; /* where ss begins, and the columns of its matrix */
    int threads;
    bool silu;
} norm;

static norm norm_of(const tw_ref_call *c) {
    return (norm){.n = c->dim['N'],
                  .pixels = c->dim['.'],
                  .c = c->dim['C'],
                  .groups = c->dim['G'],
                  .per_group = c->dim['C'] / c->dim['G'],
                  .column = c->attr.norm.column,
                  .row = c->dim['D'],
                  .threads = c->threads,
                  .silu = c->attr.norm.silu};
}

/* out[c] = sum over the pixels of (x - shift[c])^power for up to TW_TILE channels. */
TW_HOT static void channel_sums(const real *x, int64_t pixels, int64_t stride, int64_t n,
                                const double *shift, double *out) {
    double acc[TW_TILE] = {0};
    for (int64_t p = 0; p < pixels; p++) {
        const real *row = x + p * stride;
        if (shift) {
            for (int64_t c = 0; c < n; c++) {
                const double d = (double)row[c] - shift[c];
                acc[c] += d * d;
            }
        } else {
            for (int64_t c = 0; c < n; c++) acc[c] += (double)row[c];
        }
    }
    memcpy(out, acc, (size_t)n * sizeof *out);
}

static void all_channel_sums(const norm *s, const real *x, const double *shift, double *out) {
    const int64_t tiles = (s->c + TW_TILE - 1) / TW_TILE;
    TW_PARALLEL(s, s->n * s->pixels * s->c)
    for (int64_t i = 0; i < s->n * tiles; i++) {
        const int64_t n = i / tiles, c0 = i % tiles * TW_TILE, at = n * s->c + c0;
        channel_sums(x + n * s->pixels * s->c + c0, s->pixels, s->c, tw_min_i64(TW_TILE, s->c - c0),
                     shift ? shift + at : NULL, out + at);
    }
}

static double group_sum(const norm *s, const double *channels, int64_t group) {
    double sum = 0;
    for (int64_t c = 0; c < s->per_group; c++) sum += channels[group * s->per_group + c];
    return sum;
}

/* y = (x - mean) a + b by channel, then SiLU. */
TW_HOT static void apply_rows(real *y, const real *x, int64_t rows, int64_t channels,
                              const real *mean, const real *a, const real *b, bool silu) {
    for (int64_t p = 0; p < rows; p++) {
        const real *in = x + p * channels;
        real *out = y + p * channels;
        for (int64_t c = 0; c < channels; c++) out[c] = (in[c] - mean[c]) * a[c] + b[c];
        if (silu)
            for (int64_t c = 0; c < channels; c++) out[c] = tw_ref_silu(out[c]);
    }
}

/* Sample n's scales, of a matrix that may be null; the shifts lie s->c behind them. */
static const real *scales_of(const norm *s, const real *ss, int64_t n) {
    return ss ? ss + n * s->row + s->column : NULL;
}

/* a = gamma rstd (1 + s), b = beta (1 + s) + shift, for one sample. */
static void affine(const norm *s, const real *gamma, const real *beta, const real *ss,
                   const real *rstd, real *a, real *b) {
    for (int64_t c = 0; c < s->c; c++) {
        const double scale = ss ? 1.0 + (double)ss[c] : 1.0;
        a[c] = (real)((double)gamma[c] * (double)rstd[c / s->per_group] * scale);
        b[c] = (real)((double)beta[c] * scale + (ss ? (double)ss[s->c + c] : 0.0));
    }
}

/* mean and rstd, [n, groups]; sums and centre are [n, c]. */
static void measure(const norm *s, const real *x, double eps, double *sums, double *centre,
                    real *mean, real *rstd) {
    const double count = (double)(s->pixels * s->per_group);
    all_channel_sums(s, x, NULL, sums);
    for (int64_t g = 0; g < s->n * s->groups; g++) {
        const double m = group_sum(s, sums, g) / count;
        mean[g] = (real)m;
        for (int64_t c = 0; c < s->per_group; c++) centre[g * s->per_group + c] = m;
    }
    all_channel_sums(s, x, centre, sums);
    for (int64_t g = 0; g < s->n * s->groups; g++)
        rstd[g] = (real)(1.0 / sqrt(group_sum(s, sums, g) / count + eps));
}

void TW_REF(group_norm)(const tw_ref_call *call) {
    const norm s = norm_of(call);
    const int64_t nc = s.n * s.c;
    const real *x = call->in[0], *gamma = call->in[1], *beta = call->in[2];
    const real *ss = call->n_in > 3 ? call->in[3] : NULL;
    const bool given = call->n_in > 5 && call->in[4];
    const real *mean = given ? call->in[4] : call->out[1];
    const real *rstd = given ? call->in[5] : call->out[2];
    real *y = call->out[0];
    double *sums = call->workspace, *centre = sums + nc;
    real *shift = (real *)(sums + 2 * nc), *a = (real *)(sums + 3 * nc), *b = a + nc;

    if (!given) measure(&s, x, call->attr.norm.eps, sums, centre, call->out[1], call->out[2]);
    for (int64_t i = 0; i < nc; i++) shift[i] = mean[i / s.per_group];
    for (int64_t n = 0; n < s.n; n++)
        affine(&s, gamma, beta, scales_of(&s, ss, n), rstd + n * s.groups, a + n * s.c,
               b + n * s.c);

    const int64_t blocks = (s.pixels + TW_TILE - 1) / TW_TILE;
    TW_PARALLEL(&s, nc * s.pixels)
    for (int64_t i = 0; i < s.n * blocks; i++) {
        const int64_t n = i / blocks, p = i % blocks * TW_TILE, at = (n * s.pixels + p) * s.c;
        apply_rows(y + at, x + at, tw_min_i64(TW_TILE, s.pixels - p), s.c, shift + n * s.c,
                   a + n * s.c, b + n * s.c, s.silu);
    }
}

/* What the gradient needs per channel of a sample. */
typedef struct channel_terms {
    const real *mean, *rstd, *a, *b; /* normalised = (x - mean) rstd; before SiLU: times a plus b */
} channel_terms;

/* dv = dy silu'(v) into `dv`; sum_dv = sum of dv, sum_dvx = sum of dv * normalised. */
TW_HOT static void gradient_sums(real *dv, const real *dy, const real *x, int64_t pixels,
                                 int64_t stride, int64_t n, channel_terms t, bool silu,
                                 double *sum_dv, double *sum_dvx) {
    double acc[TW_TILE] = {0}, acc_x[TW_TILE] = {0};
    for (int64_t p = 0; p < pixels; p++) {
        const real *gy = dy + p * stride, *in = x + p * stride;
        real *out = dv + p * stride;
        if (silu) {
            for (int64_t c = 0; c < n; c++)
                out[c] =
                    gy[c] * tw_ref_silu_slope((in[c] - t.mean[c]) * t.rstd[c] * t.a[c] + t.b[c]);
        } else {
            for (int64_t c = 0; c < n; c++) out[c] = gy[c];
        }
        for (int64_t c = 0; c < n; c++) {
            const real normalised = (in[c] - t.mean[c]) * t.rstd[c];
            acc[c] += (double)out[c];
            acc_x[c] += (double)out[c] * (double)normalised;
        }
    }
    memcpy(sum_dv, acc, (size_t)n * sizeof *acc);
    memcpy(sum_dvx, acc_x, (size_t)n * sizeof *acc);
}

/* dx = rstd (a dv - m1 - normalised m2); dx holds dv. */
TW_HOT static void finish_rows(real *dx, const real *x, int64_t rows, int64_t channels,
                               channel_terms t, const real *m1, const real *m2) {
    for (int64_t p = 0; p < rows; p++) {
        const real *in = x + p * channels;
        real *out = dx + p * channels;
        for (int64_t c = 0; c < channels; c++) {
            const real normalised = (in[c] - t.mean[c]) * t.rstd[c];
            out[c] = t.rstd[c] * (t.a[c] * out[c] - m1[c] - normalised * m2[c]);
        }
    }
}

static void parameter_gradients(const norm *s, const real *gamma, const real *beta, const real *ss,
                                const double *sum_dv, const double *sum_dvx, real *dgamma,
                                real *dbeta, real *dss) {
    for (int64_t c = 0; c < s->c; c++) {
        double dg = 0, db = 0;
        for (int64_t n = 0; n < s->n; n++) {
            const double scale = ss ? 1.0 + (double)scales_of(s, ss, n)[c] : 1.0;
            const double dv = sum_dv[n * s->c + c], dvx = sum_dvx[n * s->c + c];
            dg += scale * dvx;
            db += scale * dv;
            if (dss) {
                real *to = dss + n * s->row + s->column;
                to[c] = (real)((double)gamma[c] * dvx + (double)beta[c] * dv);
                to[s->c + c] = (real)dv;
            }
        }
        dgamma[c] += (real)dg;
        dbeta[c] += (real)db;
    }
}

/* Group means of a dv and a dv normalised, spread over the group's channels. */
static void group_means(const norm *s, const real *a, const double *sum_dv, const double *sum_dvx,
                        real *m1, real *m2) {
    const double count = (double)(s->pixels * s->per_group);
    for (int64_t g = 0; g < s->n * s->groups; g++) {
        const int64_t c0 = g * s->per_group;
        double first = 0, second = 0;
        for (int64_t c = c0; c < c0 + s->per_group; c++) {
            first += (double)a[c] * sum_dv[c];
            second += (double)a[c] * sum_dvx[c];
        }
        for (int64_t c = c0; c < c0 + s->per_group; c++) {
            m1[c] = (real)(first / count);
            m2[c] = (real)(second / count);
        }
    }
}

static channel_terms terms_at(channel_terms t, int64_t at) {
    return (channel_terms){t.mean + at, t.rstd + at, t.a + at, t.b + at};
}

void TW_REF(group_norm_bwd)(const tw_ref_call *call) {
    const norm s = norm_of(call);
    const int64_t nc = s.n * s.c, tiles = (s.c + TW_TILE - 1) / TW_TILE;
    const real *dy = call->in[0], *x = call->in[1], *gamma = call->in[2], *beta = call->in[3];
    const real *ss = call->in[4], *mean = call->in[5], *rstd = call->in[6];
    real *dx = call->out[0], *dss = call->n_out > 3 ? call->out[3] : NULL;
    double *sum_dv = call->workspace, *sum_dvx = sum_dv + nc;
    real *spread_mean = (real *)(sum_dvx + nc), *spread_rstd = spread_mean + nc;
    real *a = spread_rstd + nc, *b = a + nc, *m1 = b + nc, *m2 = m1 + nc;
    const channel_terms terms = {spread_mean, spread_rstd, a, b};

    for (int64_t i = 0; i < nc; i++) {
        const int64_t n = i / s.c, c = i % s.c, g = i / s.per_group;
        const real *scales = scales_of(&s, ss, n);
        const double scale = ss ? 1.0 + (double)scales[c] : 1.0;
        spread_mean[i] = mean[g];
        spread_rstd[i] = rstd[g];
        a[i] = (real)((double)gamma[c] * scale);
        b[i] = (real)((double)beta[c] * scale + (ss ? (double)scales[s.c + c] : 0.0));
    }
    TW_PARALLEL(&s, nc * s.pixels)
    for (int64_t i = 0; i < s.n * tiles; i++) {
        const int64_t n = i / tiles, c0 = i % tiles * TW_TILE, at = n * s.pixels * s.c + c0;
        const int64_t channel = n * s.c + c0;
        gradient_sums(dx + at, dy + at, x + at, s.pixels, s.c, tw_min_i64(TW_TILE, s.c - c0),
                      terms_at(terms, channel), s.silu, sum_dv + channel, sum_dvx + channel);
    }
    parameter_gradients(&s, gamma, beta, ss, sum_dv, sum_dvx, call->out[1], call->out[2], dss);
    group_means(&s, a, sum_dv, sum_dvx, m1, m2);
    const int64_t blocks = (s.pixels + TW_TILE - 1) / TW_TILE;
    TW_PARALLEL(&s, nc * s.pixels)
    for (int64_t i = 0; i < s.n * blocks; i++) {
        const int64_t n = i / blocks, p = i % blocks * TW_TILE, at = (n * s.pixels + p) * s.c;
        finish_rows(dx + at, x + at, tw_min_i64(TW_TILE, s.pixels - p), s.c,
                    terms_at(terms, n * s.c), m1 + n * s.c, m2 + n * s.c);
    }
}
