/* Operations on tensors of 16 bits: read into float32, computed there, rounded when stored. */
#include "backend/cpu/reference.h"
#include "core/halfs.h"

static bool is_half(const tw_desc *d) {
    return d->dtype == TW_BF16 || d->dtype == TW_F16;
}

static size_t wide_bytes(const tw_desc *d) {
    const size_t bytes = (size_t)tw_desc_count(d) * sizeof(float);
    return (bytes + 63) & ~(size_t)63;
}

static void widen(const tw_desc *d, const uint16_t *from, float *to) {
    const int64_t n = tw_desc_count(d);
    if (d->dtype == TW_BF16)
        for (int64_t i = 0; i < n; i++) to[i] = tw_bf16_to_f32(from[i]);
    else
        for (int64_t i = 0; i < n; i++) to[i] = tw_f16_to_f32(from[i]);
}

static void narrow(const tw_desc *d, const float *from, uint16_t *to) {
    const int64_t n = tw_desc_count(d);
    if (d->dtype == TW_BF16)
        for (int64_t i = 0; i < n; i++) to[i] = tw_f32_to_bf16(from[i]);
    else
        for (int64_t i = 0; i < n; i++) to[i] = tw_f32_to_f16(from[i]);
}

/* Whether a part of an output may have to stay as it is. */
static bool keeps_columns(tw_op_kind kind) {
    return kind == TW_OP_SUM_SPATIAL || kind == TW_OP_GROUP_NORM_BWD;
}

size_t tw_ref_wide_bytes(const tw_ref_call *call) {
    size_t sum = 0;
    if (call->real != TW_BF16 && call->real != TW_F16) return 0;
    for (int i = 0; i < call->n_in; i++)
        if (is_half(&call->in_desc[i])) sum += wide_bytes(&call->in_desc[i]);
    for (int i = 0; i < call->n_out; i++)
        if (is_half(&call->out_desc[i])) sum += wide_bytes(&call->out_desc[i]);
    return sum;
}

void tw_ref_run_wide(const tw_ref_call *call, tw_ref_fn fn, void *wide) {
    tw_ref_call c = *call;
    char *at = wide;
    c.real = TW_F32;
    for (int i = 0; i < c.n_in; i++) {
        if (!c.in[i] || !is_half(&call->in_desc[i])) continue;
        widen(&call->in_desc[i], call->in[i], (float *)(void *)at);
        c.in[i] = at;
        c.in_desc[i].dtype = TW_F32;
        at += wide_bytes(&call->in_desc[i]);
    }
    for (int i = 0; i < c.n_out; i++) {
        if (!c.out[i] || !is_half(&call->out_desc[i])) continue;
        if (keeps_columns(c.kind)) widen(&call->out_desc[i], call->out[i], (float *)(void *)at);
        c.out[i] = at;
        c.out_desc[i].dtype = TW_F32;
        at += wide_bytes(&call->out_desc[i]);
    }
    fn(&c);
    for (int i = 0; i < c.n_out; i++)
        if (c.out[i] && is_half(&call->out_desc[i]))
            narrow(&call->out_desc[i], c.out[i], call->out[i]);
}
