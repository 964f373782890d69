/* Multi-head attention (Vaswani et al. 2017) and its gradient. Nothing of size Tq x Tk is kept:
 * the gradient makes the probabilities again from lse, once by rows and once by columns. */
#include "backend/cpu/ref.h"

typedef struct attention {
    int64_t n, heads, queries, keys, c, d;
    double scale;
    const int32_t *length;
    int threads;
} attention;

static attention attention_of(const tw_ref_call *c, const int32_t *length) {
    return (attention){.n = c->dim['N'],
                       .heads = c->dim['H'],
                       .queries = c->dim['.'],
                       .keys = c->dim['~'],
                       .c = c->dim['C'],
                       .d = c->dim['C'] / c->dim['H'],
                       .scale = c->attr.attention.scale,
                       .length = length,
                       .threads = c->threads};
}

static int64_t keys_of(const attention *s, int64_t n) {
    if (!s->length) return s->keys;
    return s->length[n] < 0 ? 0 : tw_min_i64(s->length[n], s->keys);
}

static int64_t work_of(const attention *s) {
    return s->n * s->queries * s->keys * s->c;
}

/* Offsets of head h of query i and of key j, of sample n. */
static int64_t query_at(const attention *s, int64_t n, int64_t h, int64_t i) {
    return (n * s->queries + i) * s->c + h * s->d;
}

static int64_t key_at(const attention *s, int64_t n, int64_t h, int64_t j) {
    return (n * s->keys + j) * s->c + h * s->d;
}

/* out[d] = scale * sum over i of weight[i] x[i * stride + d] */
static void weighted_sum(const double *weight, double scale, const real *x, int64_t rows,
                         int64_t stride, int64_t width, real *out) {
    for (int64_t d0 = 0; d0 < width; d0 += TW_TILE) {
        const int64_t dn = tw_min_i64(TW_TILE, width - d0);
        double acc[TW_TILE] = {0};
        for (int64_t i = 0; i < rows; i++)
            TW_REF(accumulate)(acc, weight[i], x + i * stride + d0, dn);
        for (int64_t d = 0; d < dn; d++) out[d0 + d] = (real)(scale * acc[d]);
    }
}

/* One query of one head: returns the log of the sum of exponentials. */
static double attend(const attention *s, const real *q, const real *k, const real *v, int64_t keys,
                     double *p, real *y) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = s->scale * TW_REF(dot)(q, k + j * s->c, s->d);
        if (p[j] > top || p[j] != p[j]) top = p[j];
    }
    for (int64_t j = 0; j < keys; j++) {
        p[j] = exp(p[j] - top);
        sum += p[j];
    }
    weighted_sum(p, keys ? 1 / sum : 0, v, keys, s->c, s->d, y);
    return keys ? top + log(sum) : -INFINITY;
}

void TW_REF(attention)(const tw_ref_call *c) {
    const attention s = attention_of(c, c->n_in > 3 ? c->in[3] : NULL);
    const real *q = c->in[0], *k = c->in[1], *v = c->in[2];
    real *y = c->out[0], *lse = c->out[1];
    double *scratch = c->workspace;
    TW_PARALLEL(&s, work_of(&s))
    for (int64_t r = 0; r < s.n * s.heads * s.queries; r++) {
        const int64_t n = r / (s.heads * s.queries), h = r / s.queries % s.heads;
        const int64_t at = query_at(&s, n, h, r % s.queries), key = key_at(&s, n, h, 0);
        lse[r] = (real)attend(&s, q + at, k + key, v + key, keys_of(&s, n),
                              scratch + omp_get_thread_num() * s.keys, y + at);
    }
}

typedef struct attention_operands {
    const real *dy, *q, *k, *v, *y, *lse;
    const double *delta; /* sum of dy y by row */
} attention_operands;

/* Probability of key j for row r (query at `qi`), and the gradient of its score. */
static double probability(const attention *s, const attention_operands *o, int64_t r, int64_t qi,
                          int64_t kj, double *score_gradient) {
    const double p = exp(s->scale * TW_REF(dot)(o->q + qi, o->k + kj, s->d) - (double)o->lse[r]);
    *score_gradient = p * (TW_REF(dot)(o->dy + qi, o->v + kj, s->d) - o->delta[r]);
    return p;
}

static void query_gradients(const attention *s, const attention_operands *o, double *scratch,
                            real *dq) {
    TW_PARALLEL(s, work_of(s))
    for (int64_t r = 0; r < s->n * s->heads * s->queries; r++) {
        const int64_t n = r / (s->heads * s->queries), h = r / s->queries % s->heads;
        const int64_t keys = keys_of(s, n), at = query_at(s, n, h, r % s->queries);
        double *gradient = scratch + omp_get_thread_num() * s->keys;
        for (int64_t j = 0; j < keys; j++)
            probability(s, o, r, at, key_at(s, n, h, j), &gradient[j]);
        weighted_sum(gradient, s->scale, o->k + key_at(s, n, h, 0), keys, s->c, s->d, dq + at);
    }
}

static void key_gradients(const attention *s, const attention_operands *o, double *scratch,
                          real *dk, real *dv) {
    TW_PARALLEL(s, work_of(s))
    for (int64_t r = 0; r < s->n * s->heads * s->keys; r++) {
        const int64_t n = r / (s->heads * s->keys), h = r / s->keys % s->heads, j = r % s->keys;
        const int64_t at = key_at(s, n, h, j), first = query_at(s, n, h, 0);
        const int64_t queries = j < keys_of(s, n) ? s->queries : 0;
        double *p = scratch + omp_get_thread_num() * 2 * s->queries, *gradient = p + s->queries;
        for (int64_t i = 0; i < queries; i++)
            p[i] = probability(s, o, (n * s->heads + h) * s->queries + i, first + i * s->c, at,
                               &gradient[i]);
        weighted_sum(p, 1, o->dy + first, queries, s->c, s->d, dv + at);
        weighted_sum(gradient, s->scale, o->q + first, queries, s->c, s->d, dk + at);
    }
}

void TW_REF(attention_bwd)(const tw_ref_call *c) {
    const attention s = attention_of(c, c->n_in > 6 ? c->in[6] : NULL);
    double *delta = c->workspace, *scratch = delta + s.n * s.heads * s.queries;
    const attention_operands o = {c->in[0], c->in[1], c->in[2], c->in[3],
                                  c->in[4], c->in[5], delta};
    for (int64_t r = 0; r < s.n * s.heads * s.queries; r++) {
        const int64_t at =
            query_at(&s, r / (s.heads * s.queries), r / s.queries % s.heads, r % s.queries);
        delta[r] = TW_REF(dot)(o.dy + at, o.y + at, s.d);
    }
    query_gradients(&s, &o, scratch, c->out[0]);
    key_gradients(&s, &o, scratch, c->out[1], c->out[2]);
}
