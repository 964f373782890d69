/* Embeddings of classes and of time. */
#include "backend/cuda/own.h"

tw_status tw_own_embedding(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return tw_own_done(c, twk_embedding(tw_own_format(c->op.real), d['N'], d['V'], d['D'],
                                        c->op.in[0], c->op.in[1], c->op.out[0], c->stream));
}

tw_status tw_own_embedding_bwd(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return tw_own_done(c,
                       twk_embedding_backward(tw_own_format(c->op.real), d['N'], d['V'], d['D'],
                                              c->op.in[0], c->op.in[1], c->op.out[0], c->stream));
}

const char *tw_own_time_embed_refuse(const tw_own_call *c) {
    const int64_t width = c->op.dim['D'];
    const bool fits = width >= 2 && c->op.attr.time.max_period > 1 &&
                      c->op.attr.time.freq_shift < (double)(width / 2);
    return fits ? NULL : "a width below 2, a period of at most 1, or a shift beyond half the width";
}

static twk_time_embedding_args embedding(const tw_own_call *c, int64_t width) {
    return (twk_time_embedding_args){.batch = c->op.dim['N'],
                                     .width = (int)width,
                                     .t = c->op.in[0],
                                     .cosine_first = c->op.attr.time.flip,
                                     .format = tw_own_format(c->op.real),
                                     .out = c->op.out[0]};
}

tw_status tw_own_time_embed(const tw_own_call *c) {
    twk_time_embedding_args a = embedding(c, c->op.dim['D']);
    a.max_period = (float)c->op.attr.time.max_period;
    a.shift = (float)c->op.attr.time.freq_shift;
    a.scale = (float)c->op.attr.time.scale;
    return tw_own_done(c, twk_time_embedding(&a, c->stream));
}

tw_status tw_own_fourier_embed(const tw_own_call *c) {
    twk_time_embedding_args a = embedding(c, 2 * c->op.dim['D']);
    a.weights = c->op.in[1];
    a.log_time = c->op.attr.time.log;
    return tw_own_done(c, twk_time_embedding(&a, c->stream));
}
