/* One element in, one element out; sums over pixels; the loss. */
#include "backend/cuda/own.h"

_Static_assert((int)TW_ACT_SILU == (int)TWK_SILU && (int)TW_ACT_RELU == (int)TWK_RELU &&
                   (int)TW_ACT_GELU == (int)TWK_GELU,
               "activations are counted alike");

tw_status tw_own_act(const tw_own_call *c) {
    return tw_own_done(c, twk_activation_forward((twk_activation)c->op.attr.act.kind,
                                                 tw_own_format(c->op.real), c->op.dim['.'],
                                                 c->op.in[0], c->op.out[0], c->stream));
}

tw_status tw_own_act_bwd(const tw_own_call *c) {
    return tw_own_done(c, twk_activation_backward(
                              (twk_activation)c->op.attr.act.kind, tw_own_format(c->op.real),
                              c->op.dim['.'], c->op.in[1], c->op.in[0], c->op.out[0], c->stream));
}

tw_status tw_own_axpby(const tw_own_call *c) {
    return tw_own_done(c, twk_add(tw_own_format(c->op.real), c->op.dim['.'],
                                  (float)c->op.attr.axpby.alpha, c->op.in[0],
                                  (float)c->op.attr.axpby.beta, c->op.n_in > 1 ? c->op.in[1] : NULL,
                                  c->op.out[0], c->stream));
}

tw_status tw_own_add_vec(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    const void *v = tw_own_column(c, c->op.in[1], c->op.attr.vector.column);
    return tw_own_done(c, twk_add_vector(tw_own_format(c->op.real), d['N'], d['.'], d['C'],
                                         c->op.in[0], v, d['V'], c->op.out[0], c->stream));
}

tw_status tw_own_sum_spatial(const tw_own_call *c) {
    const twk_format format = tw_own_format(c->op.real);
    const twk_column_sums_args a = {.batch = c->op.dim['N'],
                                    .pixels = c->op.dim['.'],
                                    .channels = c->op.dim['C'],
                                    .format = format,
                                    .x = c->op.in[0],
                                    .out = tw_own_column(c, c->op.out[0], c->op.attr.vector.column),
                                    .out_format = format,
                                    .out_stride = c->op.dim['V'],
                                    .workspace = c->workspace,
                                    .workspace_bytes = c->workspace_bytes};
    return tw_own_done(c, twk_column_sums(&a, c->stream));
}

size_t tw_own_sum_spatial_workspace(const tw_own_call *c) {
    return twk_column_sums_workspace(c->op.dim['N'], c->op.dim['.'], c->op.dim['C']);
}

tw_status tw_own_per_sample_scale(const tw_own_call *c) {
    return tw_own_done(c, twk_scale_samples(tw_own_format(c->op.real), c->op.dim['N'],
                                            c->op.dim['.'], c->op.in[0], c->op.in[1],
                                            c->op.attr.per_sample.divide, c->op.out[0], c->stream));
}

tw_status tw_own_dropout(const tw_own_call *c) {
    const twk_dropout_args a = {.batch = c->op.dim['N'],
                                .elements = c->op.dim['.'],
                                .format = tw_own_format(c->op.real),
                                .x = c->op.in[0],
                                .y = c->op.out[0],
                                .probability = tw_own_probability(c->op.attr.dropout.p),
                                .layer = c->op.attr.dropout.layer,
                                .device_step = tw_own_step(c->op.in[1]),
                                .noise = tw_own_noise(c->op.in[1])};
    return tw_own_done(c, twk_dropout(&a, c->stream));
}

tw_status tw_own_mse(const tw_own_call *c) {
    const twk_mse_args a = {.batch = c->op.dim['N'],
                            .elements = c->op.dim['.'],
                            .format = tw_own_format(c->op.real),
                            .p = c->op.in[0],
                            .target = c->op.in[1],
                            .weight = c->op.n_in > 2 ? c->op.in[2] : NULL,
                            .loss = c->op.out[0],
                            .sample_loss = c->op.out[1],
                            .workspace = c->workspace,
                            .workspace_bytes = c->workspace_bytes};
    return tw_own_done(c, twk_mse(&a, c->stream));
}

size_t tw_own_mse_workspace(const tw_own_call *c) {
    return twk_mse_workspace(c->op.dim['N'], c->op.dim['.']);
}

tw_status tw_own_mse_bwd(const tw_own_call *c) {
    const twk_mse_args a = {.batch = c->op.dim['N'],
                            .elements = c->op.dim['.'],
                            .format = tw_own_format(c->op.real),
                            .p = c->op.in[1],
                            .target = c->op.in[2],
                            .weight = c->op.n_in > 3 ? c->op.in[3] : NULL,
                            .device_gradient_scale = c->op.in[0],
                            .dp = c->op.out[0]};
    return tw_own_done(c, twk_mse(&a, c->stream));
}
