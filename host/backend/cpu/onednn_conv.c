/* Convolutions. The gradient of the input at stride 1 is computed as a convolution of dy with the
 * turned weights where oneDNN's forward kernels are the better ones. */
#include "backend/cpu/onednn.h"

/* N,C,H,W by name, N,H,W,C in memory. Weights O,C,KH,KW lie the same way. */
static dnnl_status_t image(dnnl_memory_desc_t *md, int64_t n, int64_t c, int64_t h, int64_t w) {
    return tw_dnnl_plain(md, 4, (dnnl_dims_t){n, c, h, w}, (dnnl_dims_t){h * w * c, 1, w * c, c});
}

typedef struct conv_shapes {
    dnnl_memory_desc_t x, y, w_any, w_plain, bias;
    dnnl_dims_t strides, before, after;
} conv_shapes;

static dnnl_status_t conv_shapes_of(const tw_dnnl_builder *b, conv_shapes *c) {
    const int64_t *d = b->dim;
    const tw_op_attr *a = &b->op->attr;
    const dnnl_dims_t w = {d['O'], d['C'], d['J'], d['K']};
    TW_DNNL_TRY(image(&c->x, d['N'], d['C'], d['H'], d['W']));
    TW_DNNL_TRY(image(&c->y, d['N'], d['O'], d['P'], d['Q']));
    TW_DNNL_TRY(image(&c->w_plain, d['O'], d['C'], d['J'], d['K']));
    TW_DNNL_TRY(dnnl_memory_desc_init_by_tag(&c->w_any, 4, w, dnnl_f32, dnnl_format_tag_any));
    TW_DNNL_TRY(tw_dnnl_vector(&c->bias, d['O']));
    c->strides[0] = c->strides[1] = a->conv.stride;
    c->before[0] = a->conv.pad_top;
    c->before[1] = a->conv.pad_left;
    c->after[0] = a->conv.pad_bottom;
    c->after[1] = a->conv.pad_right;
    return dnnl_success;
}

static dnnl_status_t forward_description(const tw_dnnl_builder *b, const conv_shapes *c, bool bias,
                                         const_dnnl_primitive_attr_t attr,
                                         dnnl_primitive_desc_t *pd) {
    dnnl_convolution_desc_t desc;
    TW_DNNL_TRY(dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_training, dnnl_convolution_direct, &c->x, &c->w_any,
        bias ? &c->bias : NULL, &c->y, c->strides, c->before, c->after));
    return dnnl_primitive_desc_create(pd, &desc, attr, b->state->engine, NULL);
}

/* The weights for a primitive that wants them as `wanted`: as they lie (`plain`, in `slot` or at
 * `offset` of the workspace), or reordered; once, if they are constant. */
static dnnl_status_t bring_weights(const tw_dnnl_builder *b, const dnnl_memory_desc_t *plain,
                                   const dnnl_memory_desc_t *wanted, int *slot, size_t *offset) {
    tw_dnnl_state *s = b->state;
    if (dnnl_memory_desc_equal(wanted, plain)) return dnnl_success;
    const int from = *slot;
    const size_t from_offset = *offset;
    const bool constant = from >= 0 && b->region->slots[from].constant;
    size_t *bytes = constant ? &s->held_bytes : &s->workspace;
    *slot = constant ? TW_DNNL_HELD : TW_DNNL_WORKSPACE;
    *offset = tw_dnnl_reserve(bytes, dnnl_memory_desc_get_size(wanted));
    TW_DNNL_TRY(tw_dnnl_add_reorder(s, plain, from, from_offset, wanted, *slot, *offset, false));
    s->jobs[s->n_jobs - 1].once = constant;
    return dnnl_success;
}

/* The primitive `pd` with the weights as its second argument. */
static dnnl_status_t add_convolution(const tw_dnnl_builder *b, const conv_shapes *c,
                                     const_dnnl_primitive_desc_t pd, int x_name, int x_slot,
                                     const dnnl_memory_desc_t *x, int y_name, int y_slot,
                                     const dnnl_memory_desc_t *y, int bias) {
    tw_dnnl_state *s = b->state;
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    int from = b->op->in[1];
    size_t offset = 0;
    tw_dnnl_job *j = NULL;
    TW_DNNL_TRY(tw_dnnl_refuse_slow(pd));
    TW_DNNL_TRY(bring_weights(b, &c->w_plain, w, &from, &offset));
    TW_DNNL_TRY(tw_dnnl_add_job(s, pd, &j));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, x_name, x, x_slot));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_WEIGHTS, w, from));
    j->args[j->n - 1].offset = offset;
    TW_DNNL_TRY(tw_dnnl_bind(s, j, y_name, y, y_slot));
    if (bias >= 0) TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_BIAS, &c->bias, bias));
    TW_DNNL_TRY(tw_dnnl_bind_fused(b, j, y));
    return tw_dnnl_bind_scratchpad(s, j, pd);
}

dnnl_status_t tw_dnnl_build_conv(const tw_dnnl_builder *b) {
    conv_shapes c;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const int bias = tw_dnnl_slot_in(b->op, 2);
    TW_DNNL_TRY(conv_shapes_of(b, &c));
    TW_DNNL_TRY(tw_dnnl_fused_attributes(b, &c.y, false, &attr));
    dnnl_status_t r = forward_description(b, &c, bias >= 0, attr, &pd);
    if (r == dnnl_success)
        r = add_convolution(b, &c, pd, DNNL_ARG_SRC, b->op->in[0], &c.x, DNNL_ARG_DST,
                            tw_dnnl_result(b), &c.y, bias);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* The forward primitive from dy to dx; dnnl_unimplemented where it does not pay. */
static dnnl_status_t describe_turned(const tw_dnnl_builder *b, const conv_shapes *c,
                                     dnnl_primitive_desc_t *pd) {
    const int64_t *d = b->dim;
    const dnnl_dims_t w = {d['C'], d['O'], d['J'], d['K']}, strides = {1, 1};
    dnnl_dims_t before, after;
    dnnl_memory_desc_t w_any;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    for (int i = 0; i < 2; i++) {
        before[i] = w[2 + i] - 1 - c->before[i];
        after[i] = w[2 + i] - 1 - c->after[i];
        if (c->strides[i] != 1 || before[i] < 0 || after[i] < 0) return dnnl_unimplemented;
    }
    TW_DNNL_TRY(dnnl_memory_desc_init_by_tag(&w_any, 4, w, dnnl_f32, dnnl_format_tag_any));
    TW_DNNL_TRY(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training,
                                                   dnnl_convolution_direct, &c->y, &w_any, NULL,
                                                   &c->x, strides, before, after));
    TW_DNNL_TRY(tw_dnnl_attributes(&attr));
    const dnnl_status_t r = dnnl_primitive_desc_create(pd, &desc, attr, b->state->engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    if (r != dnnl_success || tw_dnnl_is(*pd, "brg")) return r;
    dnnl_primitive_desc_destroy(*pd);
    *pd = NULL;
    return dnnl_unimplemented;
}

static dnnl_status_t add_turned(const tw_dnnl_builder *b, const conv_shapes *c,
                                const_dnnl_primitive_desc_t pd) {
    const int64_t *d = b->dim;
    tw_dnnl_state *s = b->state;
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_memory_desc_t plain;
    tw_dnnl_job *j = NULL;
    int from = TW_DNNL_WORKSPACE;
    TW_DNNL_TRY(image(&plain, d['C'], d['O'], d['J'], d['K']));
    size_t offset = tw_dnnl_reserve(&s->workspace, dnnl_memory_desc_get_size(&plain));
    s->turned = (tw_dnnl_turned){b->op->in[1], offset, d['O'], d['J'], d['K'], d['C']};
    TW_DNNL_TRY(bring_weights(b, &plain, w, &from, &offset));
    TW_DNNL_TRY(tw_dnnl_add_job(s, pd, &j));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_SRC, &c->y, b->op->in[0]));
    TW_DNNL_TRY(tw_dnnl_bind_workspace(s, j, DNNL_ARG_WEIGHTS, w, offset));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_DST, &c->x, b->op->out[0]));
    return tw_dnnl_bind_scratchpad(s, j, pd);
}

dnnl_status_t tw_dnnl_build_conv_bwd_data(const tw_dnnl_builder *b) {
    conv_shapes c;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    TW_DNNL_TRY(conv_shapes_of(b, &c));
    if (describe_turned(b, &c, &pd) == dnnl_success) {
        const dnnl_status_t turned = add_turned(b, &c, pd);
        dnnl_primitive_desc_destroy(pd);
        return turned;
    }
    TW_DNNL_TRY(dnnl_convolution_backward_data_desc_init(
        &desc, dnnl_convolution_direct, &c.x, &c.w_any, &c.y, c.strides, c.before, c.after));
    TW_DNNL_TRY(tw_dnnl_attributes(&attr));
    dnnl_status_t r = forward_description(b, &c, false, attr, &hint);
    if (r == dnnl_success) r = dnnl_primitive_desc_create(&pd, &desc, attr, b->state->engine, hint);
    if (r == dnnl_success)
        r = add_convolution(b, &c, pd, DNNL_ARG_DIFF_DST, b->op->in[0], &c.y, DNNL_ARG_DIFF_SRC,
                            b->op->out[0], &c.x, -1);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

/* The gradient goes to the workspace in oneDNN's layout and is added to the operand from there. */
static dnnl_status_t add_weight_gradient(const tw_dnnl_builder *b, const conv_shapes *c,
                                         const_dnnl_primitive_desc_t pd) {
    tw_dnnl_state *s = b->state;
    const dnnl_memory_desc_t *w = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_weights_md, 0);
    const size_t w_at = tw_dnnl_reserve(&s->workspace, dnnl_memory_desc_get_size(w));
    const int bias = tw_dnnl_slot_out(b->op, 1);
    const size_t bias_at =
        bias >= 0 ? tw_dnnl_reserve(&s->workspace, dnnl_memory_desc_get_size(&c->bias)) : 0;
    tw_dnnl_job *j = NULL;
    TW_DNNL_TRY(tw_dnnl_refuse_slow(pd));
    TW_DNNL_TRY(tw_dnnl_add_job(s, pd, &j));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_SRC, &c->x, b->op->in[0]));
    TW_DNNL_TRY(tw_dnnl_bind(s, j, DNNL_ARG_DIFF_DST, &c->y, b->op->in[1]));
    TW_DNNL_TRY(tw_dnnl_bind_workspace(s, j, DNNL_ARG_DIFF_WEIGHTS, w, w_at));
    if (bias >= 0) TW_DNNL_TRY(tw_dnnl_bind_workspace(s, j, DNNL_ARG_DIFF_BIAS, &c->bias, bias_at));
    TW_DNNL_TRY(tw_dnnl_bind_scratchpad(s, j, pd));
    TW_DNNL_TRY(
        tw_dnnl_add_reorder(s, w, TW_DNNL_WORKSPACE, w_at, &c->w_plain, b->op->out[0], 0, true));
    if (bias < 0) return dnnl_success;
    return tw_dnnl_add_reorder(s, &c->bias, TW_DNNL_WORKSPACE, bias_at, &c->bias, bias, 0, true);
}

dnnl_status_t tw_dnnl_build_conv_bwd_weight(const tw_dnnl_builder *b) {
    conv_shapes c;
    dnnl_convolution_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t hint = NULL, pd = NULL;
    const bool bias = tw_dnnl_slot_out(b->op, 1) >= 0;
    TW_DNNL_TRY(conv_shapes_of(b, &c));
    TW_DNNL_TRY(dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, &c.x,
                                                            &c.w_any, bias ? &c.bias : NULL, &c.y,
                                                            c.strides, c.before, c.after));
    TW_DNNL_TRY(tw_dnnl_attributes(&attr));
    dnnl_status_t r = forward_description(b, &c, bias, attr, &hint);
    if (r == dnnl_success) r = dnnl_primitive_desc_create(&pd, &desc, attr, b->state->engine, hint);
    if (r == dnnl_success) r = add_weight_gradient(b, &c, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_desc_destroy(hint);
    dnnl_primitive_attr_destroy(attr);
    return r;
}
