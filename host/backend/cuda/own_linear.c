/* Products: y = x w^T + b, and its gradients. */
#include "backend/cuda/own.h"

/* Of matrices whose rows lie side by side. */
static twk_gemm_args product(const tw_own_call *c, int64_t m, int64_t n, int64_t k) {
    return (twk_gemm_args){.batch = 1,
                           .m = m,
                           .n = n,
                           .k = k,
                           .format = tw_own_format(c->op.real),
                           .tf32 = c->tf32,
                           .a_row = k,
                           .b_row = k};
}

static twk_gemm_args forward(const tw_own_call *c) {
    twk_gemm_args a = product(c, c->op.dim['.'], c->op.dim['O'], c->op.dim['K']);
    a.a = c->op.in[0];
    a.b = c->op.in[1];
    a.bias = c->op.n_in > 2 ? c->op.in[2] : NULL;
    a.residual = c->residual;
    a.scale = c->scale;
    a.silu = c->silu;
    a.d = c->op.out[0];
    return a;
}

/* dx[m,k] = sum over o of dy[m,o] w[o,k] */
static twk_gemm_args data_gradient(const tw_own_call *c) {
    twk_gemm_args a = product(c, c->op.dim['.'], c->op.dim['K'], c->op.dim['O']);
    a.a = c->op.in[0];
    a.b = c->op.in[1];
    a.b_columns = 1;
    a.b_row = a.n;
    a.residual = c->residual;
    a.d = c->op.out[0];
    return a;
}

/* dw[o,k] += sum over m of dy[m,o] x[m,k] */
static twk_gemm_args weight_gradient(const tw_own_call *c) {
    twk_gemm_args a = product(c, c->op.dim['O'], c->op.dim['K'], c->op.dim['.']);
    a.a = c->op.in[1];
    a.a_columns = 1;
    a.a_row = a.m;
    a.b = c->op.in[0];
    a.b_columns = 1;
    a.b_row = a.n;
    a.add_f32 = 1;
    a.d = c->op.out[0];
    return a;
}

twk_gemm_args tw_own_linear_args(const tw_own_call *c) {
    return c->op.kind == TW_OP_LINEAR            ? forward(c)
           : c->op.kind == TW_OP_LINEAR_BWD_DATA ? data_gradient(c)
                                                 : weight_gradient(c);
}

static tw_status run(const tw_own_call *c, twk_gemm_args a) {
    a.workspace = c->workspace;
    a.workspace_bytes = c->workspace_bytes;
    return tw_own_done(c, twk_gemm(&a, c->stream));
}

tw_status tw_own_linear(const tw_own_call *c) {
    return run(c, forward(c));
}

tw_status tw_own_linear_bwd_data(const tw_own_call *c) {
    return run(c, data_gradient(c));
}

size_t tw_own_linear_workspace(const tw_own_call *c) {
    const twk_gemm_args a = forward(c);
    return twk_gemm_workspace(&a);
}

size_t tw_own_linear_bwd_data_workspace(const tw_own_call *c) {
    const twk_gemm_args a = data_gradient(c);
    return twk_gemm_workspace(&a);
}

size_t tw_own_linear_sums_workspace(const tw_own_call *c) {
    return twk_column_sums_workspace(1, c->op.dim['.'], c->op.dim['O']);
}

size_t tw_own_linear_bwd_weight_workspace(const tw_own_call *c) {
    const twk_gemm_args a = weight_gradient(c);
    const size_t product_bytes = twk_gemm_workspace(&a), sums = tw_own_linear_sums_workspace(c);
    return product_bytes > sums ? product_bytes : sums;
}

tw_status tw_own_linear_bwd_weight(const tw_own_call *c) {
    TW_TRY(run(c, weight_gradient(c)));
    return tw_own_linear_sums(c);
}

tw_status tw_own_linear_sums(const tw_own_call *c) {
    if (c->op.n_out < 2 || !c->op.out[1]) return TW_OK;
    const twk_column_sums_args sums = {.batch = 1,
                                       .pixels = c->op.dim['.'],
                                       .channels = c->op.dim['O'],
                                       .format = tw_own_format(c->op.real),
                                       .x = c->op.in[1],
                                       .out = c->op.out[1],
                                       .accumulate = 1,
                                       .workspace = c->workspace,
                                       .workspace_bytes = c->workspace_bytes};
    return tw_own_done(c, twk_column_sums(&sums, c->stream));
}
