/* Group normalisation and its gradient, one sample after the other so that the second pass over it
 * finds it in the cache.
 *
 * Moments are taken around the mean of each channel's first pixels, in float over a few pixels and
 * in double over those sums; the first pixels are part of the data, so the variance is never small
 * beside what is subtracted from it. */
#include "backend/cpu/fast.h"
#include "backend/cpu/fast_math.h"

#define PANEL 32  /* channels at once */
#define STRETCH 8 /* pixels whose sum is made in float */
#define BLOCK 64  /* pixels of one thread's turn */

typedef struct norm {
    int64_t n, pixels, c, groups, per_group;
    int threads;
    bool silu;
    double eps;
} norm;

static norm norm_of(const tw_ref_call *c) {
    return (norm){.n = c->dim['N'],
                  .pixels = c->dim['.'],
                  .c = c->dim['C'],
                  .groups = c->dim['G'],
                  .per_group = c->dim['C'] / c->dim['G'],
                  .threads = c->threads,
                  .silu = c->attr.norm.silu,
                  .eps = c->attr.norm.eps};
}

/* Both passes of sample n divided among threads, or whole samples when there are enough of them. */
typedef void (*panel_fn)(const void *self, int64_t n, int64_t first, int64_t width);
typedef void (*sample_fn)(const void *self, int64_t n);
typedef void (*block_fn)(const void *self, int64_t n, int64_t first, int64_t rows);

typedef struct passes {
    panel_fn sums;   /* channels first .. first + width - 1 */
    sample_fn terms; /* from the sums, what the second pass needs */
    block_fn finish; /* pixels first .. first + rows - 1 */
} passes;

static void run_passes(const norm *s, const void *self, passes f) {
    const int64_t panels = (s->c + PANEL - 1) / PANEL, blocks = (s->pixels + BLOCK - 1) / BLOCK;
    const int64_t work = s->n * s->pixels * s->c;
    if (s->n >= s->threads) {
        TW_PARALLEL(s, work)
        for (int64_t n = 0; n < s->n; n++) {
            for (int64_t c = 0; c < s->c; c += PANEL)
                f.sums(self, n, c, tw_min_i64(PANEL, s->c - c));
            f.terms(self, n);
            f.finish(self, n, 0, s->pixels);
        }
        return;
    }
    for (int64_t n = 0; n < s->n; n++) {
        TW_PARALLEL(s, work)
        for (int64_t i = 0; i < panels; i++)
            f.sums(self, n, i * PANEL, tw_min_i64(PANEL, s->c - i * PANEL));
        f.terms(self, n);
        TW_PARALLEL(s, work)
        for (int64_t i = 0; i < blocks; i++)
            f.finish(self, n, i * BLOCK, tw_min_i64(BLOCK, s->pixels - i * BLOCK));
    }
}

typedef struct forward {
    norm s;
    const float *x, *gamma, *beta, *ss, *v, *mean, *rstd;
    float *y, *made_mean, *made_rstd; /* null where mean and rstd are given */
    double *sum, *square;             /* of x - shift and its square, by sample and channel */
    float *shift, *a, *b;             /* y = (x - shift) a + b; shift becomes the mean */
} forward;

/* sum and square of x - shift over the pixels, for `width` (at most PANEL) channels. */
static inline __attribute__((always_inline)) void
moments_of(const float *restrict x, int64_t pixels, int64_t stride, int64_t width,
           const float *restrict shift, double *restrict sum, double *restrict square) {
    double all[PANEL] = {0}, all_squares[PANEL] = {0};
    for (int64_t p = 0; p < pixels; p += STRETCH) {
        const int64_t end = tw_min_i64(p + STRETCH, pixels);
        float part[PANEL] = {0}, squares[PANEL] = {0};
        for (int64_t i = p; i < end; i++)
            for (int64_t c = 0; c < width; c++) {
                const float d = x[i * stride + c] - shift[c];
                part[c] += d;
                squares[c] += d * d;
            }
        for (int64_t c = 0; c < width; c++) {
            all[c] += (double)part[c];
            all_squares[c] += (double)squares[c];
        }
    }
    memcpy(sum, all, (size_t)width * sizeof *sum);
    memcpy(square, all_squares, (size_t)width * sizeof *square);
}

TW_HOT static void moments(const float *x, int64_t pixels, int64_t stride, int64_t width,
                           float *shift, double *sum, double *square) {
    const int64_t few = tw_min_i64(STRETCH, pixels);
    for (int64_t c = 0; c < width; c++) {
        float first = 0;
        for (int64_t p = 0; p < few; p++) first += x[p * stride + c];
        shift[c] = first / (float)few;
    }
    if (width == PANEL)
        moments_of(x, pixels, stride, PANEL, shift, sum, square);
    else
        moments_of(x, pixels, stride, width, shift, sum, square);
}

static void forward_sums(const void *self, int64_t n, int64_t first, int64_t width) {
    const forward *f = self;
    if (!f->made_mean) return;
    const int64_t at = n * f->s.c + first;
    moments(f->x + n * f->s.pixels * f->s.c + first, f->s.pixels, f->s.c, width, f->shift + at,
            f->sum + at, f->square + at);
}

/* mean and rstd of group g of all samples' groups. */
static void measure(const forward *f, int64_t g) {
    const norm *s = &f->s;
    const double pixels = (double)s->pixels, count = pixels * (double)s->per_group;
    const int64_t first = g * s->per_group, end = first + s->per_group;
    double mean = 0, variance = 0;
    for (int64_t c = first; c < end; c++)
        mean += f->sum[c] + pixels * ((double)f->shift[c] + (f->v ? (double)f->v[c] : 0.0));
    mean /= count;
    for (int64_t c = first; c < end; c++) {
        const double off = mean - (double)f->shift[c] - (f->v ? (double)f->v[c] : 0.0);
        variance += f->square[c] - 2 * off * f->sum[c] + pixels * off * off;
    }
    variance = variance > 0 ? variance / count : variance * 0;
    f->made_mean[g] = (float)mean;
    f->made_rstd[g] = (float)(1 / sqrt(variance + s->eps));
}

static void forward_terms(const void *self, int64_t n) {
    const forward *f = self;
    const norm *s = &f->s;
    for (int64_t g = n * s->groups; g < (n + 1) * s->groups; g++) {
        const int64_t first = g * s->per_group, end = first + s->per_group;
        if (f->made_mean) measure(f, g);
        for (int64_t c = first; c < end; c++) {
            const int64_t k = c - n * s->c;
            const float *ss = f->ss ? f->ss + 2 * n * s->c : NULL;
            const double scale = ss ? 1.0 + (double)ss[k] : 1.0;
            f->shift[c] = f->v ? f->mean[g] - f->v[c] : f->mean[g];
            f->a[c] = (float)((double)f->gamma[k] * (double)f->rstd[g] * scale);
            f->b[c] = (float)((double)f->beta[k] * scale + (ss ? (double)ss[s->c + k] : 0.0));
        }
    }
}

static inline __attribute__((always_inline)) void
apply_to(const float *restrict x, float *restrict y, int64_t rows, int64_t stride, int64_t width,
         const float *restrict mean, const float *restrict a, const float *restrict b, bool silu) {
    for (int64_t p = 0; p < rows; p++)
        for (int64_t c = 0; c < width; c++) {
            const float u = (x[p * stride + c] - mean[c]) * a[c] + b[c];
            y[p * stride + c] = silu ? tw_fast_silu(u) : u;
        }
}

TW_HOT static void apply(const float *x, float *y, int64_t rows, int64_t stride, int64_t width,
                         const float *mean, const float *a, const float *b, bool silu) {
    if (width == PANEL && silu)
        apply_to(x, y, rows, stride, PANEL, mean, a, b, true);
    else if (width == PANEL)
        apply_to(x, y, rows, stride, PANEL, mean, a, b, false);
    else
        apply_to(x, y, rows, stride, width, mean, a, b, silu);
}

static void forward_finish(const void *self, int64_t n, int64_t first, int64_t rows) {
    const forward *f = self;
    const int64_t channels = f->s.c, at = (n * f->s.pixels + first) * channels;
    for (int64_t c = 0; c < channels; c += PANEL) {
        const int64_t k = n * channels + c;
        apply(f->x + at + c, f->y + at + c, rows, channels, tw_min_i64(PANEL, channels - c),
              f->shift + k, f->a + k, f->b + k, f->s.silu);
    }
}

size_t tw_fast_group_norm_workspace(const tw_ref_call *call) {
    const size_t nc = (size_t)(call->dim['N'] * call->dim['C']);
    return nc * (2 * sizeof(double) + 3 * sizeof(float));
}

void tw_fast_group_norm(const tw_ref_call *call) {
    forward f = {.s = norm_of(call),
                 .x = call->in[0],
                 .gamma = call->in[1],
                 .beta = call->in[2],
                 .ss = call->n_in > 3 ? call->in[3] : NULL,
                 .v = call->n_in > TW_FAST_NORM_VECTOR ? call->in[TW_FAST_NORM_VECTOR] : NULL,
                 .y = call->out[0],
                 .sum = call->workspace};
    const bool given = call->n_in > 5 && call->in[4];
    f.made_mean = given ? NULL : call->out[1];
    f.made_rstd = given ? NULL : call->out[2];
    f.mean = given ? call->in[4] : f.made_mean;
    f.rstd = given ? call->in[5] : f.made_rstd;
    const int64_t nc = f.s.n * f.s.c;
    f.square = f.sum + nc;
    f.shift = (float *)(f.square + nc);
    f.a = f.shift + nc;
    f.b = f.a + nc;
    run_passes(&f.s, &f, (passes){forward_sums, forward_terms, forward_finish});
}

typedef struct backward {
    norm s;
    const float *dy, *x, *gamma, *beta, *ss, *mean, *rstd, *summand;
    float *dx, *dss;
    double *sum, *sum_x;                   /* of dv and of dv times the normalised x */
    float *centre, *scale, *a, *b, *m, *k; /* see backward_terms */
} backward;

/* dv = dy silu'(v), v = normalised a + b, to dx (or dv = dy, not stored); its sums. */
static inline __attribute__((always_inline)) void
gradient_sums_of(const float *restrict dy, const float *restrict x, float *restrict dx,
                 int64_t pixels, int64_t stride, int64_t width, const float *restrict centre,
                 const float *restrict scale, const float *restrict a, const float *restrict b,
                 bool silu, double *restrict sum, double *restrict sum_x) {
    double all[PANEL] = {0}, all_x[PANEL] = {0};
    for (int64_t p = 0; p < pixels; p += STRETCH) {
        const int64_t end = tw_min_i64(p + STRETCH, pixels);
        float part[PANEL] = {0}, part_x[PANEL] = {0};
        for (int64_t i = p; i < end; i++)
            for (int64_t c = 0; c < width; c++) {
                const int64_t at = i * stride + c;
                const float normalised = (x[at] - centre[c]) * scale[c];
                float dv = dy[at];
                if (silu) dx[at] = dv = dv * tw_fast_silu_slope(normalised * a[c] + b[c]);
                part[c] += dv;
                part_x[c] += dv * normalised;
            }
        for (int64_t c = 0; c < width; c++) {
            all[c] += (double)part[c];
            all_x[c] += (double)part_x[c];
        }
    }
    memcpy(sum, all, (size_t)width * sizeof *sum);
    memcpy(sum_x, all_x, (size_t)width * sizeof *sum_x);
}

TW_HOT static void gradient_sums(const backward *f, int64_t at, int64_t k, int64_t width) {
    const float *dy = f->dy + at, *x = f->x + at, *centre = f->centre + k, *scale = f->scale + k;
    const float *a = f->a + k, *b = f->b + k;
    const int64_t pixels = f->s.pixels, stride = f->s.c;
    double *sum = f->sum + k, *sum_x = f->sum_x + k;
    if (width == PANEL && f->s.silu)
        gradient_sums_of(dy, x, f->dx + at, pixels, stride, PANEL, centre, scale, a, b, true, sum,
                         sum_x);
    else if (width == PANEL)
        gradient_sums_of(dy, x, NULL, pixels, stride, PANEL, centre, scale, a, b, false, sum,
                         sum_x);
    else
        gradient_sums_of(dy, x, f->dx + at, pixels, stride, width, centre, scale, a, b, f->s.silu,
                         sum, sum_x);
}

static void backward_sums(const void *self, int64_t n, int64_t first, int64_t width) {
    const backward *f = self;
    const norm *s = &f->s;
    const float *ss = f->ss ? f->ss + 2 * n * s->c : NULL;
    for (int64_t c = first; c < first + width; c++) {
        const int64_t k = n * s->c + c, g = k / s->per_group;
        const double scale = ss ? 1.0 + (double)ss[c] : 1.0;
        f->centre[k] = f->mean[g];
        f->scale[k] = f->rstd[g];
        f->a[k] = (float)((double)f->gamma[c] * scale);
        f->b[k] = (float)((double)f->beta[c] * scale + (ss ? (double)ss[s->c + c] : 0.0));
    }
    gradient_sums(f, n * s->pixels * s->c + first, n * s->c + first, width);
}

/* m and k: the group's means of a dv and of a dv times the normalised x. */
static void backward_terms(const void *self, int64_t n) {
    const backward *f = self;
    const norm *s = &f->s;
    const double count = (double)(s->pixels * s->per_group);
    for (int64_t g = n * s->groups; g < (n + 1) * s->groups; g++) {
        const int64_t first = g * s->per_group, end = first + s->per_group;
        double mean = 0, mean_x = 0;
        for (int64_t c = first; c < end; c++) {
            mean += (double)f->a[c] * f->sum[c];
            mean_x += (double)f->a[c] * f->sum_x[c];
        }
        for (int64_t c = first; c < end; c++) {
            f->m[c] = (float)(mean / count);
            f->k[c] = (float)(mean_x / count);
        }
    }
}

/* dx = rstd (a dv - m - normalised k) + summand, for `width` channels from `k` on. */
static inline __attribute__((always_inline)) void finish_to(const backward *f, const float *dv,
                                                            int64_t at, int64_t k, int64_t rows,
                                                            int64_t width, bool sum) {
    const float *restrict x = f->x + at, *restrict other = sum ? f->summand + at : NULL;
    const float *restrict centre = f->centre + k, *restrict scale = f->scale + k;
    const float *restrict a = f->a + k, *restrict m = f->m + k, *restrict slope = f->k + k;
    float *dx = f->dx + at;
    const int64_t stride = f->s.c;
    for (int64_t p = 0; p < rows; p++)
#pragma omp simd
        for (int64_t c = 0; c < width; c++) {
            const int64_t i = p * stride + c;
            const float normalised = (x[i] - centre[c]) * scale[c];
            const float d = scale[c] * (a[c] * dv[i] - m[c] - normalised * slope[c]);
            dx[i] = sum ? d + other[i] : d;
        }
}

TW_HOT static void finish(const backward *f, const float *dv, int64_t at, int64_t k, int64_t rows,
                          int64_t width) {
    if (width == PANEL && f->summand)
        finish_to(f, dv + at, at, k, rows, PANEL, true);
    else if (width == PANEL)
        finish_to(f, dv + at, at, k, rows, PANEL, false);
    else
        finish_to(f, dv + at, at, k, rows, width, f->summand != NULL);
}

static void backward_finish(const void *self, int64_t n, int64_t first, int64_t rows) {
    const backward *f = self;
    const int64_t channels = f->s.c;
    for (int64_t c = 0; c < channels; c += PANEL)
        finish(f, f->s.silu ? f->dx : f->dy, (n * f->s.pixels + first) * channels + c,
               n * channels + c, rows, tw_min_i64(PANEL, channels - c));
}

/* dgamma += and dbeta +=, over the samples in their order; dss. */
static void parameter_gradients(const backward *f, float *dgamma, float *dbeta) {
    const norm *s = &f->s;
    for (int64_t c = 0; c < s->c; c++) {
        double dg = 0, db = 0;
        for (int64_t n = 0; n < s->n; n++) {
            const double scale = f->ss ? 1.0 + (double)f->ss[2 * n * s->c + c] : 1.0;
            const double sum = f->sum[n * s->c + c], sum_x = f->sum_x[n * s->c + c];
            dg += scale * sum_x;
            db += scale * sum;
            if (!f->dss) continue;
            f->dss[2 * n * s->c + c] =
                (float)((double)f->gamma[c] * sum_x + (double)f->beta[c] * sum);
            f->dss[(2 * n + 1) * s->c + c] = (float)sum;
        }
        dgamma[c] += (float)dg;
        dbeta[c] += (float)db;
    }
}

size_t tw_fast_group_norm_bwd_workspace(const tw_ref_call *call) {
    const size_t nc = (size_t)(call->dim['N'] * call->dim['C']);
    return nc * (2 * sizeof(double) + 6 * sizeof(float));
}

void tw_fast_group_norm_bwd(const tw_ref_call *call) {
    backward f = {.s = norm_of(call),
                  .dy = call->in[0],
                  .x = call->in[1],
                  .gamma = call->in[2],
                  .beta = call->in[3],
                  .ss = call->in[4],
                  .mean = call->in[5],
                  .rstd = call->in[6],
                  .summand =
                      call->n_in > TW_FAST_NORM_SUMMAND ? call->in[TW_FAST_NORM_SUMMAND] : NULL,
                  .dx = call->out[0],
                  .dss = call->n_out > 3 ? call->out[3] : NULL,
                  .sum = call->workspace};
    const int64_t nc = f.s.n * f.s.c;
    f.sum_x = f.sum + nc;
    f.centre = (float *)(f.sum_x + nc);
    f.scale = f.centre + nc;
    f.a = f.scale + nc;
    f.b = f.a + nc;
    f.m = f.b + nc;
    f.k = f.m + nc;
    run_passes(&f.s, &f, (passes){backward_sums, backward_terms, backward_finish});
    parameter_gradients(&f, call->out[1], call->out[2]);
}
