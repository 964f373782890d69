/* Matrix products. */
#include "backend/cpu/onednn.h"

typedef struct matrix {
    int slot;
    int64_t rows, columns;
    bool transposed; /* lies in memory as columns x rows */
} matrix;

static dnnl_status_t describe(dnnl_memory_desc_t *md, const matrix *m) {
    return tw_dnnl_plain(
        md, 2, (dnnl_dims_t){m->rows, m->columns},
        (dnnl_dims_t){m->transposed ? 1 : m->columns, m->transposed ? m->rows : 1});
}

/* c = a b + bias, then what is fused; or c += a b. */
static dnnl_status_t add_product(const tw_dnnl_builder *b, matrix a, matrix w, matrix c, int bias,
                                 bool accumulate) {
    tw_dnnl_state *s = b->state;
    dnnl_memory_desc_t am, wm, cm, bm;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    tw_dnnl_job *j = NULL;
    TW_DNNL_TRY(describe(&am, &a));
    TW_DNNL_TRY(describe(&wm, &w));
    TW_DNNL_TRY(describe(&cm, &c));
    TW_DNNL_TRY(tw_dnnl_plain(&bm, 2, (dnnl_dims_t){1, c.columns}, (dnnl_dims_t){c.columns, 1}));
    TW_DNNL_TRY(dnnl_matmul_desc_init(&desc, &am, &wm, bias >= 0 ? &bm : NULL, &cm));
    TW_DNNL_TRY(tw_dnnl_fused_attributes(b, &cm, accumulate, &attr));
    dnnl_status_t r = dnnl_primitive_desc_create(&pd, &desc, attr, s->engine, NULL);
    if (r == dnnl_success) r = tw_dnnl_refuse_slow(pd);
    if (r == dnnl_success) r = tw_dnnl_add_job(s, pd, &j);
    if (r == dnnl_success) r = tw_dnnl_bind(s, j, DNNL_ARG_SRC, &am, a.slot);
    if (r == dnnl_success) r = tw_dnnl_bind(s, j, DNNL_ARG_WEIGHTS, &wm, w.slot);
    if (r == dnnl_success) r = tw_dnnl_bind(s, j, DNNL_ARG_DST, &cm, c.slot);
    if (r == dnnl_success && bias >= 0) r = tw_dnnl_bind(s, j, DNNL_ARG_BIAS, &bm, bias);
    if (r == dnnl_success) r = tw_dnnl_bind_fused(b, j, &cm);
    if (r == dnnl_success) r = tw_dnnl_bind_scratchpad(s, j, pd);
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

dnnl_status_t tw_dnnl_build_linear(const tw_dnnl_builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    return add_product(
        b, (matrix){b->op->in[0], rows, k, false}, (matrix){b->op->in[1], k, o, true},
        (matrix){tw_dnnl_result(b), rows, o, false}, tw_dnnl_slot_in(b->op, 2), false);
}

dnnl_status_t tw_dnnl_build_linear_bwd_data(const tw_dnnl_builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    return add_product(b, (matrix){b->op->in[0], rows, o, false},
                       (matrix){b->op->in[1], o, k, false}, (matrix){b->op->out[0], rows, k, false},
                       -1, false);
}

dnnl_status_t tw_dnnl_build_linear_bwd_weight(const tw_dnnl_builder *b) {
    const int64_t rows = b->dim['.'], k = b->dim['K'], o = b->dim['O'];
    b->state->sum_to = tw_dnnl_slot_out(b->op, 1);
    b->state->sum_from = b->op->in[1];
    b->state->rows = rows;
    b->state->columns = o;
    return add_product(b, (matrix){b->op->in[1], o, rows, true},
                       (matrix){b->op->in[0], rows, k, false}, (matrix){b->op->out[0], o, k, false},
                       -1, true);
}
