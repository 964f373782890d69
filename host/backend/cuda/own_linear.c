/* Products: y = x w^T + b. */
#include "backend/cuda/own.h"

/* Of matrices whose rows lie side by side. */
static twk_gemm_args product(int64_t m, int64_t n, int64_t k) {
    return (twk_gemm_args){
        .batch = 1, .m = m, .n = n, .k = k, .format = TWK_F32, .a_row = k, .b_row = k};
}

static twk_gemm_args forward(const tw_own_call *c) {
    twk_gemm_args a = product(c->op.dim['.'], c->op.dim['O'], c->op.dim['K']);
    a.a = c->op.in[0];
    a.b = c->op.in[1];
    a.bias = c->op.n_in > 2 ? c->op.in[2] : NULL;
    a.d = c->op.out[0];
    return a;
}

tw_status tw_own_linear(const tw_own_call *c) {
    const twk_gemm_args a = forward(c);
    return tw_own_done(c, twk_gemm(&a, c->stream));
}
