/* Attention and its gradient by products of matrices: a block of queries against all keys of one
 * head. As in the reference, the gradient makes the probabilities again from lse. */
#include "backend/cpu/fast.h"

#define BLOCK 64 /* queries */

typedef struct attention {
    int64_t n, heads, queries, keys, c, d, padded_keys, padded_d;
    float scale;
    const int32_t *length;
    int threads;
} attention;

/* `length_at`: index of the lengths among the inputs, or -1 where they are not asked for. */
static attention attention_of(const tw_ref_call *c, int length_at) {
    const int64_t d = c->dim['C'] / c->dim['H'];
    return (attention){.n = c->dim['N'],
                       .heads = c->dim['H'],
                       .queries = c->dim['.'],
                       .keys = c->dim['~'],
                       .c = c->dim['C'],
                       .d = d,
                       .padded_keys = tw_fast_padded(c->dim['~']),
                       .padded_d = tw_fast_padded(d),
                       .scale = (float)c->attr.attention.scale,
                       .length = length_at >= 0 && c->n_in > length_at ? c->in[length_at] : NULL,
                       .threads = c->threads};
}

static int64_t keys_of(const attention *s, int64_t n) {
    if (!s->length) return s->keys;
    return s->length[n] < 0 ? 0 : tw_min_i64(s->length[n], s->keys);
}

/* Floats of one thread's scratch memory. */
static int64_t forward_floats(const attention *s) {
    return s->padded_keys * s->d + s->keys * s->padded_d + BLOCK * s->padded_keys;
}

static int64_t backward_floats(const attention *s) {
    return 2 * s->padded_keys * s->d + s->keys * s->padded_d + 2 * BLOCK * s->padded_keys +
           2 * BLOCK * s->padded_d;
}

/* A multiple of a cache line, so that threads do not share one. */
static int64_t whole_lines(int64_t floats) {
    return (floats + 15) / 16 * 16;
}

size_t tw_fast_attention_workspace(const tw_ref_call *call) {
    const attention s = attention_of(call, -1);
    return (size_t)(s.threads * whole_lines(forward_floats(&s))) * sizeof(float);
}

size_t tw_fast_attention_bwd_workspace(const tw_ref_call *call) {
    const attention s = attention_of(call, -1);
    return (size_t)(s.threads * whole_lines(backward_floats(&s))) * sizeof(float);
}

/* Scores to probabilities in place; the log of the sum of exponentials. */
TW_HOT static float softmax(float *p, int64_t keys, float scale) {
    float top = -INFINITY;
    double sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < keys; j++) {
        p[j] *= scale;
        top = p[j] > top ? p[j] : top;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < keys; j++) {
        p[j] = tw_ref_exp(p[j] - top);
        sum += (double)p[j];
    }
    const float part = (float)(1 / sum);
#pragma omp simd
    for (int64_t j = 0; j < keys; j++) p[j] *= part;
    return (float)((double)top + log(sum));
}

typedef struct operands {
    const float *q, *k, *v;
    float *y, *lse;
} operands;

/* Queries `first` .. of one head. */
static void attend(const attention *s, const operands *o, int64_t n, int64_t h, int64_t first,
                   float *scratch) {
    const int64_t rows = tw_min_i64(BLOCK, s->queries - first), keys = keys_of(s, n);
    const int64_t query = (n * s->queries + first) * s->c + h * s->d;
    const int64_t key = n * s->keys * s->c + h * s->d;
    float *k = scratch, *v = k + s->padded_keys * s->d, *p = v + s->keys * s->padded_d;
    float *lse = o->lse + (n * s->heads + h) * s->queries + first;
    if (keys == 0) {
        for (int64_t i = 0; i < rows; i++) {
            memset(o->y + query + i * s->c, 0, (size_t)s->d * sizeof(float));
            lse[i] = -INFINITY;
        }
        return;
    }
    tw_fast_pack(o->k + key, 1, s->c, s->d, keys, k);
    tw_fast_pack(o->v + key, s->c, 1, keys, s->d, v);
    tw_fast_product(rows, keys, s->d, o->q + query, s->c, 1, k, p, s->padded_keys, false);
    for (int64_t i = 0; i < rows; i++) lse[i] = softmax(p + i * s->padded_keys, keys, s->scale);
    tw_fast_product(rows, s->d, keys, p, s->padded_keys, 1, v, o->y + query, s->c, false);
}

void tw_fast_attention(const tw_ref_call *call) {
    const attention s = attention_of(call, 3);
    const operands o = {call->in[0], call->in[1], call->in[2], call->out[0], call->out[1]};
    const int64_t blocks = (s.queries + BLOCK - 1) / BLOCK;
    const int64_t floats = whole_lines(forward_floats(&s));
    float *scratch = call->workspace;
    TW_PARALLEL(&s, s.n * s.queries * s.keys * s.c)
    for (int64_t i = 0; i < s.n * s.heads * blocks; i++)
        attend(&s, &o, i / blocks / s.heads, i / blocks % s.heads, i % blocks * BLOCK,
               scratch + omp_get_thread_num() * floats);
}

typedef struct gradients {
    const float *dy, *q, *k, *v, *y, *lse;
    float *dq, *dk, *dv;
} gradients;

/* p: scores to probabilities; g: their gradients to those of the scores, the scale included. */
TW_HOT static void score_gradients(float *p, float *g, int64_t keys, float scale, float lse,
                                   float delta) {
    for (int64_t j = 0; j < keys; j++) {
        p[j] = tw_ref_exp(scale * p[j] - lse);
        g[j] = scale * p[j] * (g[j] - delta);
    }
}

/* sum of dy y of one query */
TW_HOT static float row_delta(const float *dy, const float *y, int64_t d) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t e = 0; e < d; e++) sum += (double)dy[e] * (double)y[e];
    return (float)sum;
}

static void clear_rows(const attention *s, float *x, int64_t rows) {
    for (int64_t i = 0; i < rows; i++) memset(x + i * s->c, 0, (size_t)s->d * sizeof *x);
}

/* One block of queries: its dq, and what it adds to dk and dv (which it starts when `first` is
 * zero). `packs` are k and v transposed, and k. */
static void attend_backwards(const attention *s, const gradients *o, int64_t n, int64_t h,
                             int64_t first, const float *const packs[3], float *scratch) {
    const int64_t rows = tw_min_i64(BLOCK, s->queries - first), keys = keys_of(s, n);
    const int64_t query = (n * s->queries + first) * s->c + h * s->d;
    const int64_t key = n * s->keys * s->c + h * s->d, ld = s->padded_keys;
    const float *lse = o->lse + (n * s->heads + h) * s->queries + first;
    float *p = scratch, *g = p + BLOCK * ld, *q = g + BLOCK * ld, *dy = q + BLOCK * s->padded_d;
    tw_fast_product(rows, keys, s->d, o->q + query, s->c, 1, packs[0], p, ld, false);
    tw_fast_product(rows, keys, s->d, o->dy + query, s->c, 1, packs[1], g, ld, false);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = query + i * s->c;
        score_gradients(p + i * ld, g + i * ld, keys, s->scale, lse[i],
                        row_delta(o->dy + at, o->y + at, s->d));
    }
    tw_fast_product(rows, s->d, keys, g, ld, 1, packs[2], o->dq + query, s->c, false);
    tw_fast_pack(o->q + query, s->c, 1, rows, s->d, q);
    tw_fast_pack(o->dy + query, s->c, 1, rows, s->d, dy);
    tw_fast_product(keys, s->d, rows, g, 1, ld, q, o->dk + key, s->c, first > 0);
    tw_fast_product(keys, s->d, rows, p, 1, ld, dy, o->dv + key, s->c, first > 0);
}

void tw_fast_attention_bwd(const tw_ref_call *call) {
    const attention s = attention_of(call, 6);
    const gradients o = {call->in[0], call->in[1],  call->in[2],  call->in[3], call->in[4],
                         call->in[5], call->out[0], call->out[1], call->out[2]};
    const int64_t floats = whole_lines(backward_floats(&s));
    float *all_scratch = call->workspace;
    TW_PARALLEL(&s, s.n * s.queries * s.keys * s.c)
    for (int64_t i = 0; i < s.n * s.heads; i++) {
        const int64_t n = i / s.heads, h = i % s.heads, keys = keys_of(&s, n);
        const int64_t key = n * s.keys * s.c + h * s.d;
        float *kt = all_scratch + omp_get_thread_num() * floats, *vt = kt + s.padded_keys * s.d;
        float *k = vt + s.padded_keys * s.d, *scratch = k + s.keys * s.padded_d;
        clear_rows(&s, o.dk + key + keys * s.c, s.keys - keys);
        clear_rows(&s, o.dv + key + keys * s.c, s.keys - keys);
        if (keys == 0) {
            clear_rows(&s, o.dq + n * s.queries * s.c + h * s.d, s.queries);
            continue;
        }
        tw_fast_pack(o.k + key, 1, s.c, s.d, keys, kt);
        tw_fast_pack(o.v + key, 1, s.c, s.d, keys, vt);
        tw_fast_pack(o.k + key, s.c, 1, keys, s.d, k);
        for (int64_t first = 0; first < s.queries; first += BLOCK)
            attend_backwards(&s, &o, n, h, first, (const float *const[]){kt, vt, k}, scratch);
    }
}
