/* Convolutions and their gradients. */
#include <limits.h>

#include "backend/cuda/own.h"

static twk_conv_args shape(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return (twk_conv_args){.batch = d['N'],
                           .h = c->upsample ? d['H'] / 2 : d['H'],
                           .w = c->upsample ? d['W'] / 2 : d['W'],
                           .upsample = c->upsample,
                           .channels = (int)d['C'] - c->channels2,
                           .channels2 = c->channels2,
                           .out_channels = (int)d['O'],
                           .kernel_h = (int)d['J'],
                           .kernel_w = (int)d['K'],
                           .stride = c->op.attr.conv.stride,
                           .pad_top = c->op.attr.conv.pad_top,
                           .pad_left = c->op.attr.conv.pad_left,
                           .pad_bottom = c->op.attr.conv.pad_bottom,
                           .pad_right = c->op.attr.conv.pad_right,
                           .format = tw_own_format(c->op.real),
                           .tf32 = c->tf32,
                           .workspace = c->workspace,
                           .workspace_bytes = c->workspace_bytes};
}

const char *tw_own_conv2d_refuse(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return d['C'] > INT_MAX || d['O'] > INT_MAX ? "more than 2^31 channels" : NULL;
}

static twk_conv_args forward(const tw_own_call *c) {
    twk_conv_args a = shape(c);
    a.fold = c->upsample;
    a.x = c->op.in[0];
    a.x2 = c->second;
    a.weight = c->op.in[1];
    a.bias = c->op.n_in > 2 ? c->op.in[2] : NULL;
    a.vector = c->vector;
    a.vector_stride = c->vector_stride;
    a.residual = c->residual;
    a.scale = c->scale;
    a.silu = c->silu;
    a.y = c->op.out[0];
    a.partial = c->partial;
    a.groups = c->groups;
    return a;
}

int64_t tw_own_conv2d_partials(const tw_own_call *c, int64_t *pixels_per_partial) {
    const twk_conv_args a = forward(c);
    return twk_conv_partials(&a, pixels_per_partial);
}

static twk_conv_args data_gradient(const tw_own_call *c) {
    twk_conv_args a = shape(c);
    a.dy = c->op.in[0];
    a.weight = c->op.in[1];
    a.dx = c->op.out[0];
    a.dx_add = c->residual;
    return a;
}

static twk_conv_args weight_gradient(const tw_own_call *c) {
    twk_conv_args a = shape(c);
    a.x = c->op.in[0];
    a.x2 = c->second;
    a.dy = c->op.in[1];
    a.dweight = c->op.out[0];
    a.dbias = c->op.n_out > 1 ? c->op.out[1] : NULL;
    return a;
}

twk_conv_args tw_own_conv2d_args(const tw_own_call *c) {
    return c->op.kind == TW_OP_CONV2D            ? forward(c)
           : c->op.kind == TW_OP_CONV2D_BWD_DATA ? data_gradient(c)
                                                 : weight_gradient(c);
}

tw_status tw_own_conv2d(const tw_own_call *c) {
    const twk_conv_args a = forward(c);
    return tw_own_done(c, twk_conv_forward(&a, c->stream));
}

tw_status tw_own_conv2d_bwd_data(const tw_own_call *c) {
    const twk_conv_args a = data_gradient(c);
    return tw_own_done(c, twk_conv_input_gradient(&a, c->stream));
}

tw_status tw_own_conv2d_bwd_weight(const tw_own_call *c) {
    const twk_conv_args a = weight_gradient(c);
    return tw_own_done(c, twk_conv_weight_gradient(&a, c->stream));
}

size_t tw_own_conv2d_workspace(const tw_own_call *c) {
    const twk_conv_args a = forward(c);
    return twk_conv_workspace(&a);
}

size_t tw_own_conv2d_bwd_data_workspace(const tw_own_call *c) {
    const twk_conv_args a = data_gradient(c);
    return twk_conv_input_gradient_workspace(&a);
}

size_t tw_own_conv2d_bwd_weight_workspace(const tw_own_call *c) {
    const twk_conv_args a = weight_gradient(c);
    return twk_conv_weight_gradient_workspace(&a);
}
