/* The provider "cpu-reference": one operation at a time, in float64 or float32 by its operands, of
 * which those of 16 bits are read into float32 and rounded when stored. */
#include "backend/cpu/reference.h"

#include <string.h>

#include "backend/cpu/cpu.h"
#include "core/context.h"

typedef struct reference_state {
    tw_ref_call call;
    tw_ref_fn fn;
    size_t wide; /* bytes of copies, which come first in the workspace */
    int in[TW_OP_MAX_IN], out[TW_OP_MAX_OUT];
} reference_state;

#define ENTRY(kind, name) [kind] = {tw_ref_##name##_f, tw_ref_##name##_d},
static const tw_ref_fn functions[TW_OP_COUNT][2] = {TW_REF_TABLE(ENTRY)};
#undef ENTRY

static tw_status reference_run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                               void *workspace) {
    (void)backend;
    const reference_state *s = kernel->state;
    tw_ref_call call = s->call;
    for (int i = 0; i < call.n_in; i++) call.in[i] = s->in[i] < 0 ? NULL : slots[s->in[i]];
    for (int i = 0; i < call.n_out; i++) call.out[i] = s->out[i] < 0 ? NULL : slots[s->out[i]];
    call.workspace = s->wide ? (char *)workspace + s->wide : workspace;
    if (s->wide)
        tw_ref_run_wide(&call, s->fn, workspace);
    else
        s->fn(&call);
    return TW_OK;
}

static void reference_destroy(tw_kernel *kernel, tw_backend *backend) {
    tw_free(backend->ctx, kernel->state);
    kernel->state = NULL;
}

tw_status tw_ref_describe(tw_backend *backend, const tw_region *region, tw_ref_call *call,
                          bool *is_double) {
    const tw_region_op *op = &region->ops[0];
    if (region->n_ops < 1 || (unsigned)op->kind >= TW_OP_COUNT)
        return tw_fail(backend->ctx, TW_ERROR_INTERNAL, "region: no operation of a known kind");
    if (op->n_in < 0 || op->n_in > TW_OP_MAX_IN || op->n_out < 0 || op->n_out > TW_OP_MAX_OUT)
        return tw_fail(backend->ctx, TW_ERROR_INTERNAL, "%s: %d operands in, %d out",
                       tw_op_name(op->kind), op->n_in, op->n_out);
    *call = (tw_ref_call){.kind = op->kind,
                          .attr = op->attr,
                          .n_in = op->n_in,
                          .n_out = op->n_out,
                          .threads = backend->threads};
    for (int i = 0; i < op->n_in; i++)
        if (op->in[i] >= 0) call->in_desc[i] = region->slots[op->in[i]].desc;
    for (int i = 0; i < op->n_out; i++)
        if (op->out[i] >= 0) call->out_desc[i] = region->slots[op->out[i]].desc;
    TW_TRY(tw_ref_check(backend->ctx, op, call, is_double));
    return tw_ref_check_attributes(backend->ctx, call);
}

static tw_status reference_prepare(tw_backend *backend, const tw_region *region,
                                   tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[0];
    bool is_double = false;
    reference_state *s = tw_allocate(backend->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    tw_status status = tw_ref_describe(backend, region, &s->call, &is_double);
    if (status != TW_OK) {
        tw_free(backend->ctx, s);
        return status;
    }
    memcpy(s->in, op->in, sizeof s->in);
    memcpy(s->out, op->out, sizeof s->out);
    s->fn = functions[op->kind][is_double];
    kernel->run = reference_run;
    kernel->destroy = reference_destroy;
    kernel->state = s;
    s->wide = tw_ref_wide_bytes(&s->call);
    kernel->workspace = s->wide + tw_ref_workspace(&s->call);
    kernel->claimed = 1;
    return TW_OK;
}

const tw_provider tw_provider_cpu_reference = {"cpu-reference", reference_prepare};
