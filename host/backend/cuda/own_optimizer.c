/* The gradient's norm and AdamW. */
#include "backend/cuda/own.h"

#define AT(member, column)                                                                         \
    _Static_assert(offsetof(twk_adamw_hyper, member) == (column) * sizeof(float),                  \
                   "the column of " #member)
AT(lr, TW_HYPER_LR);
AT(beta1, TW_HYPER_BETA1);
AT(beta2, TW_HYPER_BETA2);
AT(epsilon, TW_HYPER_EPS);
AT(decay, TW_HYPER_DECAY);
AT(max_norm, TW_HYPER_CLIP);
AT(ema_decay, TW_HYPER_EMA_DECAY);
AT(ema_warmup, TW_HYPER_EMA_WARMUP);

/* Parameters are flat vectors: a table of one. */
static twk_adamw_args table(const tw_own_call *c) {
    return (twk_adamw_args){.one = {.n = c->op.dim['.'], .gradient = c->op.in[0]},
                            .gradient_format = TWK_F32,
                            .copy_format = TWK_F32,
                            .workspace = c->workspace,
                            .workspace_bytes = c->workspace_bytes};
}

size_t tw_own_optimizer_workspace(const tw_own_call *c) {
    twk_parameter one = table(c).one;
    return twk_adamw_workspace(twk_adamw_plan(&one, 1));
}

tw_status tw_own_global_norm(const tw_own_call *c) {
    twk_adamw_args a = table(c);
    a.norm = c->op.out[0];
    return tw_own_done(c, twk_gradient_norm(&a, c->stream));
}

const char *tw_own_adamw_refuse(const tw_own_call *c) {
    return c->op.in_desc[2].dtype == TW_F32 ? NULL
                                            : "hyperparameters in another format than float32";
}

tw_status tw_own_adamw(const tw_own_call *c) {
    twk_adamw_args a = table(c);
    a.one.master = c->op.out[0];
    a.one.m = c->op.out[1];
    a.one.v = c->op.out[2];
    a.one.ema = c->op.n_out > 4 ? c->op.out[4] : NULL;
    if (c->op.n_out > 5 && c->op.out[5]) {
        a.one.copy = c->op.out[5];
        a.copy_format = tw_own_format(c->op.out_desc[5].dtype);
    }
    a.hyper = c->op.in[2];
    a.norm = (float *)(uintptr_t)c->op.in[1]; /* only read */
    a.count = c->op.out[3];
    return tw_own_done(c, twk_adamw(&a, c->stream));
}
