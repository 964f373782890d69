/* GroupNorm and its gradient. */
#include "backend/cuda/own.h"

/* The scales, or their gradients. */
static void *columns(const tw_own_call *c, const void *matrix) {
    return matrix ? tw_own_column(c, matrix, c->op.attr.norm.column) : NULL;
}

/* What lies behind the scales: the shifts. */
static void *behind(const tw_own_call *c, const void *scales) {
    return scales ? tw_own_column(c, scales, c->op.dim['C']) : NULL;
}

static twk_group_norm_args norm(const tw_own_call *c, const void *scale_shift) {
    const int64_t channels = c->op.dim['C'];
    const void *scales = columns(c, scale_shift);
    return (twk_group_norm_args){.batch = c->op.dim['N'],
                                 .pixels = c->op.dim['.'],
                                 .channels = (int)channels,
                                 .channels2 = c->channels2,
                                 .x2 = c->second,
                                 .groups = c->op.attr.norm.groups,
                                 .epsilon = (float)c->op.attr.norm.eps,
                                 .silu = c->op.attr.norm.silu,
                                 .format = tw_own_format(c->op.real),
                                 .scale = scales,
                                 .shift = behind(c, scales),
                                 .scale_stride = c->op.dim['D'],
                                 .workspace = c->workspace,
                                 .workspace_bytes = c->workspace_bytes};
}

static twk_group_norm_args forward(const tw_own_call *c) {
    twk_group_norm_args a = norm(c, c->op.n_in > 3 ? c->op.in[3] : NULL);
    a.x = c->op.in[0];
    a.gamma = c->op.in[1];
    a.beta = c->op.in[2];
    a.partial = c->partial;
    a.n_partials = c->n_partials;
    a.pixels_per_partial = c->pixels_per_partial;
    a.y = c->op.out[0];
    a.given = c->op.n_in > 5 && c->op.in[4];
    a.mean = a.given ? (float *)(uintptr_t)c->op.in[4] : c->op.out[1]; /* only read if given */
    a.rstd = a.given ? (float *)(uintptr_t)c->op.in[5] : c->op.out[2];
    return a;
}

static twk_group_norm_args backward(const tw_own_call *c) {
    twk_group_norm_args a = norm(c, c->op.in[4]);
    a.dy = c->op.in[0];
    a.x = c->op.in[1];
    a.gamma = c->op.in[2];
    a.beta = c->op.in[3];
    a.mean = (float *)(uintptr_t)c->op.in[5]; /* only read */
    a.rstd = (float *)(uintptr_t)c->op.in[6];
    a.dx = c->op.out[0];
    a.dx2 = c->second_out;
    a.dx_add = c->residual;
    a.dgamma = c->op.out[1];
    a.dbeta = c->op.out[2];
    a.dscale = c->op.n_out > 3 ? columns(c, c->op.out[3]) : NULL;
    a.dshift = behind(c, a.dscale);
    a.dvector = c->sums;
    a.dvector_stride = c->vector_stride;
    return a;
}

tw_status tw_own_group_norm(const tw_own_call *c) {
    const twk_group_norm_args a = forward(c);
    return tw_own_done(c, twk_group_norm_forward(&a, c->stream));
}

tw_status tw_own_group_norm_bwd(const tw_own_call *c) {
    const twk_group_norm_args a = backward(c);
    return tw_own_done(c, twk_group_norm_backward(&a, c->stream));
}

bool tw_own_norm_reads_twice(const tw_own_call *c) {
    const twk_group_norm_args a = forward(c);
    return !a.given && twk_group_norm_reads_twice(&a);
}

size_t tw_own_group_norm_workspace(const tw_own_call *c) {
    const twk_group_norm_args a = forward(c);
    return twk_group_norm_workspace(&a);
}

size_t tw_own_group_norm_bwd_workspace(const tw_own_call *c) {
    const twk_group_norm_args a = backward(c);
    return twk_group_norm_backward_workspace(&a);
}
