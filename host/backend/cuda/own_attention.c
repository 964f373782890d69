/* Attention and its gradient. */
#include "backend/cuda/own.h"

const char *tw_own_attention_refuse(const tw_own_call *c) {
    const int length = c->op.kind == TW_OP_ATTENTION ? 3 : 6;
    if (c->op.n_in > length && c->op.in_desc[length].rank)
        return "keys that are masked by a length";
    return c->op.dim['C'] / c->op.dim['H'] > 512 ? "heads of more than 512 channels" : NULL;
}

/* `part` of q, k and v where they lie side by side in the tensor at `first`. */
static void *part_of(const tw_own_call *c, const void *first, int part) {
    const size_t bytes = (size_t)c->op.dim['C'] * tw_dtype_size(c->op.real);
    return (char *)(uintptr_t)first + (size_t)part * bytes;
}

/* Heads lie side by side in a token. */
static twk_attention_args attention(const tw_own_call *c, int q) {
    const int64_t *d = c->op.dim, channels = d['C'], row = c->packed ? 3 * channels : channels,
                  queries = d['.'], keys = d['~'];
    return (twk_attention_args){.batch = d['N'],
                                .q_tokens = queries,
                                .k_tokens = keys,
                                .heads = (int)d['H'],
                                .head_size = (int)(channels / d['H']),
                                .format = tw_own_format(c->op.real),
                                .tf32 = c->tf32,
                                .scale = (float)c->op.attr.attention.scale,
                                .q = c->op.in[q],
                                .k = c->packed ? part_of(c, c->op.in[q], 1) : c->op.in[q + 1],
                                .v = c->packed ? part_of(c, c->op.in[q], 2) : c->op.in[q + 2],
                                .q_row = row,
                                .k_row = row,
                                .v_row = row,
                                .q_batch = queries * row,
                                .k_batch = keys * row,
                                .v_batch = keys * row,
                                .o_row = channels,
                                .o_batch = queries * channels,
                                .workspace = c->workspace,
                                .workspace_bytes = c->workspace_bytes};
}

static twk_attention_args forward(const tw_own_call *c) {
    twk_attention_args a = attention(c, 0);
    a.o = c->op.out[0];
    a.lse = c->op.out[1];
    return a;
}

static twk_attention_args backward(const tw_own_call *c) {
    twk_attention_args a = attention(c, 1);
    a.d_o = c->op.in[0];
    a.o = (void *)(uintptr_t)c->op.in[4]; /* o and lse are only read */
    a.lse = (float *)(uintptr_t)c->op.in[5];
    a.dq = c->op.out[0];
    a.dk = c->packed ? part_of(c, a.dq, 1) : c->op.out[1];
    a.dv = c->packed ? part_of(c, a.dq, 2) : c->op.out[2];
    return a;
}

twk_attention_args tw_own_attention_args(const tw_own_call *c) {
    return c->op.kind == TW_OP_ATTENTION ? forward(c) : backward(c);
}

tw_status tw_own_attention(const tw_own_call *c) {
    const twk_attention_args a = forward(c);
    return tw_own_done(c, twk_attention_forward(&a, c->stream));
}

tw_status tw_own_attention_bwd(const tw_own_call *c) {
    const twk_attention_args a = backward(c);
    return tw_own_done(c, twk_attention_backward(&a, c->stream));
}

size_t tw_own_attention_bwd_workspace(const tw_own_call *c) {
    const twk_attention_args a = backward(c);
    return twk_attention_backward_workspace(&a);
}
