/* The provider "cpu-fast": operations in float32 that deserve more than the reference. */
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/fast.h"
#include "core/context.h"

typedef struct fast_state {
    tw_ref_call call;
    tw_ref_fn run;
    int in[TW_OP_MAX_IN], out[TW_OP_MAX_OUT];
} fast_state;

static const tw_fast_entry entries[TW_OP_COUNT] = {
    [TW_OP_GROUP_NORM] = {tw_fast_group_norm, tw_fast_group_norm_workspace},
    [TW_OP_GROUP_NORM_BWD] = {tw_fast_group_norm_bwd, tw_fast_group_norm_bwd_workspace},
    [TW_OP_ATTENTION] = {tw_fast_attention, tw_fast_attention_workspace},
    [TW_OP_ATTENTION_BWD] = {tw_fast_attention_bwd, tw_fast_attention_bwd_workspace},
};

/* The gradient of a normalisation whose result is at once added to another: the slot of that other,
 * or -1. */
static int summand_after_norm(const tw_region *region) {
    const tw_region_op *norm = &region->ops[0], *sum = &region->ops[1];
    if (region->n_ops < 2 || norm->kind != TW_OP_GROUP_NORM_BWD || sum->kind != TW_OP_AXPBY)
        return -1;
    const int dx = norm->out[0];
    if (dx < 0 || region->slots[dx].needed || sum->n_in < 2) return -1;
    if (sum->attr.axpby.alpha != 1 || sum->attr.axpby.beta != 1 || sum->in[0] == sum->in[1])
        return -1;
    const int other = sum->in[0] == dx ? sum->in[1] : sum->in[1] == dx ? sum->in[0] : -1;
    if (other < 0) return -1;
    return tw_desc_count(&region->slots[other].desc) == tw_desc_count(&region->slots[dx].desc)
               ? other
               : -1;
}

static tw_status fast_run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                          void *workspace) {
    (void)backend;
    const fast_state *s = kernel->state;
    tw_ref_call call = s->call;
    for (int i = 0; i < call.n_in; i++) call.in[i] = s->in[i] < 0 ? NULL : slots[s->in[i]];
    for (int i = 0; i < call.n_out; i++) call.out[i] = s->out[i] < 0 ? NULL : slots[s->out[i]];
    call.workspace = workspace;
    s->run(&call);
    return TW_OK;
}

static void fast_destroy(tw_kernel *kernel, tw_backend *backend) {
    tw_free(backend->ctx, kernel->state);
    kernel->state = NULL;
}

/* A vector added to what is normalised, where nobody else reads the sum. */
static bool vector_before_norm(const tw_region *region) {
    const tw_region_op *sum = &region->ops[0], *norm = &region->ops[1];
    if (region->n_ops < 2 || sum->kind != TW_OP_ADD_VEC || norm->kind != TW_OP_GROUP_NORM ||
        sum->out[0] < 0 || norm->in[0] != sum->out[0] || region->slots[sum->out[0]].needed)
        return false;
    const tw_desc *x = &region->slots[sum->in[0]].desc, *v = &region->slots[sum->in[1]].desc;
    return v->dim[v->rank - 1] == x->dim[x->rank - 1];
}

static tw_status make_kernel(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[0];
    bool is_double = false;
    tw_ref_call call;
    TW_TRY(tw_ref_describe(backend, region, &call, &is_double));
    if (is_double || call.real != TW_F32) return TW_ERROR_UNSUPPORTED;
    if (call.dim['D'] > 2 * call.dim['C']) return TW_ERROR_UNSUPPORTED; /* among other columns */
    fast_state *s = tw_allocate(backend->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    s->call = call;
    s->run = entries[op->kind].run;
    memcpy(s->in, op->in, sizeof s->in);
    memcpy(s->out, op->out, sizeof s->out);
    kernel->run = fast_run;
    kernel->destroy = fast_destroy;
    kernel->state = s;
    kernel->workspace = entries[op->kind].workspace ? entries[op->kind].workspace(&call) : 0;
    kernel->claimed = 1;
    return TW_OK;
}

/* An operand beside those that the operation has. */
static void add_operand(fast_state *s, int position, int slot) {
    for (int i = s->call.n_in; i < position; i++) s->in[i] = -1;
    s->call.n_in = position + 1;
    s->in[position] = slot;
}

static tw_status fast_prepare(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[0];
    if (region->n_ops < 1 || (unsigned)op->kind >= TW_OP_COUNT) return TW_ERROR_UNSUPPORTED;
    if (vector_before_norm(region)) {
        tw_region norm = *region;
        norm.ops[0] = region->ops[1];
        norm.n_ops = 1;
        TW_TRY(make_kernel(backend, &norm, kernel));
        fast_state *s = kernel->state;
        add_operand(s, TW_FAST_NORM_VECTOR, op->in[1]);
        s->in[0] = op->in[0];
        kernel->claimed = 2;
        return TW_OK;
    }
    if (!entries[op->kind].run) return TW_ERROR_UNSUPPORTED;
    TW_TRY(make_kernel(backend, region, kernel));
    const int summand = summand_after_norm(region);
    if (summand < 0) return TW_OK;
    fast_state *s = kernel->state;
    add_operand(s, TW_FAST_NORM_SUMMAND, summand);
    s->out[0] = region->ops[1].out[0];
    kernel->claimed = 2;
    return TW_OK;
}

const tw_provider tw_provider_cpu_fast = {"cpu-fast", fast_prepare};
