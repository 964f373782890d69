/* Convolution, N,H,W,C by O,KH,KW,C. */
#include "backend/cpu/ref.h"

typedef struct conv {
    int64_t n, h, w, c, o, kh, kw, oh, ow, stride, top, left;
} conv;

static conv conv_of(const tw_ref_call *c) {
    const int64_t *d = c->dim;
    return (conv){.n = d['N'],
                  .h = d['H'],
                  .w = d['W'],
                  .c = d['C'],
                  .o = d['O'],
                  .kh = d['J'],
                  .kw = d['K'],
                  .oh = d['P'],
                  .ow = d['Q'],
                  .stride = c->attr.conv.stride,
                  .top = c->attr.conv.pad_top,
                  .left = c->attr.conv.pad_left};
}

static int64_t work_of(const conv *s) {
    return s->n * s->oh * s->ow * s->o * s->c * s->kh * s->kw;
}

/* Address of the input's channels under tap (i, j) of output (y, x), null in the padding. */
static const real *input_at(const conv *s, const real *x, int64_t n, int64_t oy, int64_t ox,
                            int64_t i, int64_t j) {
    const int64_t y = oy * s->stride - s->top + i, xx = ox * s->stride - s->left + j;
    if (y < 0 || y >= s->h || xx < 0 || xx >= s->w) return NULL;
    return x + ((n * s->h + y) * s->w + xx) * s->c;
}

static double conv_one(const conv *s, const real *x, const real *w, int64_t n, int64_t oy,
                       int64_t ox) {
    double sum = 0;
    for (int64_t i = 0; i < s->kh; i++)
        for (int64_t j = 0; j < s->kw; j++) {
            const real *in = input_at(s, x, n, oy, ox, i, j);
            if (in) sum += TW_REF(dot)(in, w + (i * s->kw + j) * s->c, s->c);
        }
    return sum;
}

void TW_REF(conv2d)(const tw_ref_call *c) {
    const conv s = conv_of(c);
    const real *x = c->in[0], *w = c->in[1], *b = c->n_in > 2 ? c->in[2] : NULL;
    real *y = c->out[0];
    TW_PARALLEL(c, work_of(&s))
    for (int64_t p = 0; p < s.n * s.oh * s.ow; p++)
        for (int64_t o = 0; o < s.o; o++)
            y[p * s.o + o] = (real)(conv_one(&s, x, w + o * s.kh * s.kw * s.c, p / (s.oh * s.ow),
                                             p / s.ow % s.oh, p % s.ow) +
                                    (b ? (double)b[o] : 0.0));
}

/* acc[c] += every output that this input pixel contributed to, through its tap. */
static void gather_pixel(const conv *s, const real *dy, const real *w, int64_t pixel, int64_t c0,
                         int64_t cn, double *acc) {
    const int64_t n = pixel / (s->h * s->w), y = pixel / s->w % s->h, x = pixel % s->w;
    for (int64_t i = 0; i < s->kh; i++)
        for (int64_t j = 0; j < s->kw; j++) {
            const int64_t ys = y + s->top - i, xs = x + s->left - j;
            if (ys < 0 || xs < 0 || ys % s->stride || xs % s->stride) continue;
            const int64_t oy = ys / s->stride, ox = xs / s->stride;
            if (oy >= s->oh || ox >= s->ow) continue;
            const real *row = dy + ((n * s->oh + oy) * s->ow + ox) * s->o;
            for (int64_t o = 0; o < s->o; o++) TW_REF(accumulate)
            (acc, (double)row[o], w + ((o * s->kh + i) * s->kw + j) * s->c + c0, cn);
        }
}

void TW_REF(conv2d_bwd_data)(const tw_ref_call *c) {
    const conv s = conv_of(c);
    const real *dy = c->in[0], *w = c->in[1];
    real *dx = c->out[0];
    TW_PARALLEL(c, work_of(&s))
    for (int64_t p = 0; p < s.n * s.h * s.w; p++)
        for (int64_t c0 = 0; c0 < s.c; c0 += TW_TILE) {
            const int64_t cn = tw_min_i64(TW_TILE, s.c - c0);
            double acc[TW_TILE] = {0};
            gather_pixel(&s, dy, w, p, c0, cn, acc);
            for (int64_t k = 0; k < cn; k++) dx[p * s.c + c0 + k] = (real)acc[k];
        }
}

/* One tap of one output channel's weight. */
static void weight_tap(const conv *s, const real *x, const real *dy, int64_t tap, real *dw) {
    const int64_t o = tap / (s->kh * s->kw), i = tap / s->kw % s->kh, j = tap % s->kw;
    for (int64_t c0 = 0; c0 < s->c; c0 += TW_TILE) {
        const int64_t cn = tw_min_i64(TW_TILE, s->c - c0);
        double acc[TW_TILE] = {0};
        for (int64_t p = 0; p < s->n * s->oh * s->ow; p++) {
            const real *in =
                input_at(s, x, p / (s->oh * s->ow), p / s->ow % s->oh, p % s->ow, i, j);
            if (in) TW_REF(accumulate)(acc, (double)dy[p * s->o + o], in + c0, cn);
        }
        for (int64_t k = 0; k < cn; k++) dw[c0 + k] += (real)acc[k];
    }
}

void TW_REF(conv2d_bwd_weight)(const tw_ref_call *c) {
    const conv s = conv_of(c);
    const real *x = c->in[0], *dy = c->in[1];
    real *dw = c->out[0], *db = c->n_out > 1 ? c->out[1] : NULL;
    TW_PARALLEL(c, work_of(&s))
    for (int64_t tap = 0; tap < s.o * s.kh * s.kw; tap++)
        weight_tap(&s, x, dy, tap, dw + tap * s.c);
    if (!db) return;
    for (int64_t o = 0; o < s.o; o++) {
        double sum = 0;
        for (int64_t p = 0; p < s.n * s.oh * s.ow; p++) sum += (double)dy[p * s.o + o];
        db[o] += (real)sum;
    }
}
