/* Moving elements: joining, cutting, resampling, repeating, filling, converting. */
#include <math.h>

#include "backend/cuda/own.h"

/* A format whose elements are as large; moving looks at nothing else. */
static twk_format moved(tw_dtype dtype) {
    return tw_dtype_size(dtype) == 2 ? TWK_BF16 : TWK_F32;
}

const char *tw_own_joined_refuse(const tw_own_call *c) {
    const bool split = c->op.kind == TW_OP_SPLIT;
    const size_t size = tw_dtype_size((split ? c->op.in_desc : c->op.out_desc)[0].dtype);
    if (size != 2 && size != 4) return "elements that have neither 2 nor 4 bytes";
    return (split ? c->op.n_out : c->op.n_in) == 2 ? NULL : "more or fewer than two parts";
}

tw_status tw_own_concat(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return tw_own_done(c, twk_concat(moved(c->op.out_desc[0].dtype), d['.'], d['A'], d['B'],
                                     c->op.in[0], c->op.in[1], c->op.out[0], c->stream));
}

tw_status tw_own_split(const tw_own_call *c) {
    const int64_t *d = c->op.dim;
    return tw_own_done(c, twk_split(moved(c->op.in_desc[0].dtype), d['.'], d['A'], d['B'],
                                    c->op.in[0], c->op.out[0], c->op.out[1], c->stream));
}

static twk_blocks_args blocks(const tw_own_call *c, int64_t h, int64_t w) {
    return (twk_blocks_args){.batch = c->op.dim['N'],
                             .h = h,
                             .w = w,
                             .channels = c->op.dim['C'],
                             .k = c->op.attr.resample.k,
                             .scale = (float)c->op.attr.resample.scale,
                             .format = tw_own_format(c->op.real),
                             .in = c->op.in[0],
                             .out = c->op.out[0]};
}

tw_status tw_own_upsample_nearest(const tw_own_call *c) {
    const twk_blocks_args a = blocks(c, c->op.dim['P'], c->op.dim['Q']);
    return tw_own_done(c, twk_spread(&a, c->stream));
}

tw_status tw_own_pool(const tw_own_call *c) {
    const twk_blocks_args a = blocks(c, c->op.dim['H'], c->op.dim['W']);
    return tw_own_done(c, twk_pool(&a, c->stream));
}

static bool is_zero(double value) {
    return value == 0 && !signbit(value);
}

const char *tw_own_fill_refuse(const tw_own_call *c) {
    const bool plain = is_zero(c->op.attr.fill.value) || c->op.out_desc[0].dtype == TW_F32;
    return plain ? NULL : "a value other than 0 in another format than float32";
}

tw_status tw_own_fill(const tw_own_call *c) {
    if (is_zero(c->op.attr.fill.value)) /* all bits, in every format */
        return c->backend->fill(c->backend, c->op.out[0], 0, tw_desc_bytes(&c->op.out_desc[0]));
    return tw_own_done(c, twk_constant(TWK_F32, c->op.dim['.'], (float)c->op.attr.fill.value,
                                       c->op.out[0], c->stream));
}

static bool is_real(tw_dtype dtype) {
    return dtype == TW_F32 || dtype == TW_BF16 || dtype == TW_F16;
}

const char *tw_own_convert_refuse(const tw_own_call *c) {
    const tw_dtype from = c->op.in_desc[0].dtype, to = c->op.out_desc[0].dtype;
    const bool known = from == to || (is_real(from) && is_real(to)) ||
                       (from == TW_I32 && to == TW_F32) || (from == TW_F32 && to == TW_I32);
    return known ? NULL : "between these formats";
}

tw_status tw_own_convert(const tw_own_call *c) {
    const tw_dtype from = c->op.in_desc[0].dtype, to = c->op.out_desc[0].dtype;
    const int64_t n = c->op.dim['.'];
    if (from == to)
        return c->backend->copy(c->backend, c->op.out[0], c->op.in[0],
                                tw_desc_bytes(&c->op.out_desc[0]));
    if (from == TW_I32)
        return tw_own_done(c, twk_int_to_real(n, c->op.in[0], c->op.out[0], c->stream));
    if (to == TW_I32)
        return tw_own_done(c, twk_real_to_int(n, c->op.in[0], c->op.out[0], c->stream));
    const twk_convert_args a = {.batch = 1,
                                .pixels = n,
                                .channels = 1,
                                .in_format = tw_own_format(from),
                                .out_format = tw_own_format(to),
                                .in = c->op.in[0],
                                .out = c->op.out[0]};
    return tw_own_done(c, twk_convert(&a, c->stream));
}

tw_status tw_own_repeat_batch(const tw_own_call *c) {
    const size_t bytes = tw_desc_bytes(&c->op.in_desc[0]);
    TW_TRY(c->backend->copy(c->backend, c->op.out[0], c->op.in[0], bytes));
    return c->backend->copy(c->backend, (char *)c->op.out[0] + bytes, c->op.in[0], bytes);
}
