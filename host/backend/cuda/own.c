/* The provider "own": one operation at a time, or a few that one kernel does together. */
#include "backend/cuda/own.h"

#include <math.h>
#include <string.h>

static const tw_own_entry own_entries[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = {tw_own_linear, tw_own_linear_workspace, NULL},
    [TW_OP_LINEAR_BWD_DATA] = {tw_own_linear_bwd_data, tw_own_linear_bwd_data_workspace, NULL},
    [TW_OP_LINEAR_BWD_WEIGHT] = {tw_own_linear_bwd_weight, tw_own_linear_bwd_weight_workspace,
                                 NULL},
    [TW_OP_CONV2D] = {tw_own_conv2d, tw_own_conv2d_workspace, tw_own_conv2d_refuse},
    [TW_OP_CONV2D_BWD_DATA] = {tw_own_conv2d_bwd_data, tw_own_conv2d_bwd_data_workspace,
                               tw_own_conv2d_refuse},
    [TW_OP_CONV2D_BWD_WEIGHT] = {tw_own_conv2d_bwd_weight, tw_own_conv2d_bwd_weight_workspace,
                                 tw_own_conv2d_refuse},
    [TW_OP_GROUP_NORM] = {tw_own_group_norm, tw_own_group_norm_workspace, NULL},
    [TW_OP_GROUP_NORM_BWD] = {tw_own_group_norm_bwd, tw_own_group_norm_bwd_workspace, NULL},
    [TW_OP_ACT] = {tw_own_act, NULL, NULL},
    [TW_OP_ACT_BWD] = {tw_own_act_bwd, NULL, NULL},
    [TW_OP_AXPBY] = {tw_own_axpby, NULL, NULL},
    [TW_OP_ADD_VEC] = {tw_own_add_vec, NULL, NULL},
    [TW_OP_SUM_SPATIAL] = {tw_own_sum_spatial, tw_own_sum_spatial_workspace, NULL},
    [TW_OP_PER_SAMPLE_SCALE] = {tw_own_per_sample_scale, NULL, NULL},
    [TW_OP_CONCAT] = {tw_own_concat, NULL, tw_own_joined_refuse},
    [TW_OP_SPLIT] = {tw_own_split, NULL, tw_own_joined_refuse},
    [TW_OP_UPSAMPLE_NEAREST] = {tw_own_upsample_nearest, NULL, NULL},
    [TW_OP_POOL] = {tw_own_pool, NULL, NULL},
    [TW_OP_DROPOUT] = {tw_own_dropout, NULL, NULL},
    [TW_OP_EMBEDDING] = {tw_own_embedding, NULL, NULL},
    [TW_OP_EMBEDDING_BWD] = {tw_own_embedding_bwd, NULL, NULL},
    [TW_OP_TIME_EMBED] = {tw_own_time_embed, NULL, tw_own_time_embed_refuse},
    [TW_OP_FOURIER_EMBED] = {tw_own_fourier_embed, NULL, NULL},
    [TW_OP_ATTENTION] = {tw_own_attention, NULL, tw_own_attention_refuse},
    [TW_OP_ATTENTION_BWD] = {tw_own_attention_bwd, tw_own_attention_bwd_workspace,
                             tw_own_attention_refuse},
    [TW_OP_MSE] = {tw_own_mse, tw_own_mse_workspace, NULL},
    [TW_OP_MSE_BWD] = {tw_own_mse_bwd, NULL, NULL},
    [TW_OP_FILL] = {tw_own_fill, NULL, tw_own_fill_refuse},
    [TW_OP_CONVERT] = {tw_own_convert, NULL, tw_own_convert_refuse},
    [TW_OP_REPEAT_BATCH] = {tw_own_repeat_batch, NULL, NULL},
    [TW_OP_NOISE] = {tw_own_noise_fill, NULL, NULL},
    [TW_OP_SAMPLE_T] = {tw_own_sample_t, NULL, NULL},
    [TW_OP_COND_DROP] = {tw_own_cond_drop, NULL, NULL},
    [TW_OP_FLIP] = {tw_own_flip, NULL, NULL},
    [TW_OP_FORWARD_NOISE] = {tw_own_forward_noise, NULL, tw_own_forward_noise_refuse},
    [TW_OP_SAMPLER_UPDATE] = {tw_own_sampler_update, tw_own_update_workspace, tw_own_table_refuse},
    [TW_OP_THRESHOLD] = {tw_own_threshold, tw_own_update_workspace, tw_own_table_refuse},
    [TW_OP_STEP_TIME] = {tw_own_step_time, NULL, tw_own_table_refuse},
    [TW_OP_NEXT_STEP] = {tw_own_next_step, NULL, NULL},
    [TW_OP_GLOBAL_NORM] = {tw_own_global_norm, tw_own_optimizer_workspace, NULL},
    [TW_OP_ADAMW] = {tw_own_adamw, tw_own_optimizer_workspace, tw_own_adamw_refuse},
};

typedef struct own_state {
    tw_own_call call;
    const tw_own_entry *entry;
    int in[TW_OP_MAX_IN], out[TW_OP_MAX_OUT];
    int vector, residual, sums, second, second_out;
    int64_t column;
} own_state;

tw_status tw_own_result(const tw_own_call *call, twk_status status, const char *text) {
    static const tw_status of[] = {[TWK_OK] = TW_OK,
                                   [TWK_BAD_ARGUMENT] = TW_ERROR_INTERNAL,
                                   [TWK_UNSUPPORTED] = TW_ERROR_UNSUPPORTED,
                                   [TWK_LAUNCH_FAILED] = TW_ERROR_DEVICE};
    if (status == TWK_OK) return TW_OK;
    return tw_fail(call->backend->ctx, of[status], "%s: %s", tw_op_name(call->op.kind), text);
}

tw_status tw_own_done(const tw_own_call *call, twk_status status) {
    return tw_own_result(call, status, status == TWK_OK ? "" : twk_error_text());
}

twk_format tw_own_format(tw_dtype dtype) {
    return dtype == TW_BF16 ? TWK_BF16 : dtype == TW_F16 ? TWK_F16 : TWK_F32;
}

twk_noise tw_own_noise(const void *rng) {
    const uint64_t *words = rng;
    return (twk_noise){.device_seed = words, .device_first_sample = words + 1};
}

const uint32_t *tw_own_step(const void *rng) {
    return (const uint32_t *)rng + 4;
}

float tw_own_probability(double p) {
    return (float)(ceil(p * 0x1p24) * 0x1p-24);
}

static void place(const own_state *s, tw_own_call *call, void *const *slots) {
#define TW_AT(slot) ((slot) < 0 ? NULL : slots[slot])
    for (int i = 0; i < call->op.n_in; i++) call->op.in[i] = TW_AT(s->in[i]);
    for (int i = 0; i < call->op.n_out; i++) call->op.out[i] = TW_AT(s->out[i]);
    call->vector = TW_AT(s->vector);
    call->residual = TW_AT(s->residual);
    call->sums = TW_AT(s->sums);
    if (call->vector) call->vector = tw_own_column(call, call->vector, s->column);
    if (call->sums) call->sums = tw_own_column(call, call->sums, s->column);
    call->second = TW_AT(s->second);
    call->second_out = TW_AT(s->second_out);
#undef TW_AT
}

tw_own_call tw_own_placed(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                          void *workspace) {
    const own_state *s = kernel->state;
    tw_own_call call = s->call;
    place(s, &call, slots);
    call.backend = backend;
    call.stream = tw_cuda_of(backend)->stream;
    call.workspace = workspace;
    return call;
}

static tw_status own_run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                         void *workspace) {
    const own_state *s = kernel->state;
    const tw_own_call call = tw_own_placed(kernel, backend, slots, workspace);
    return s->entry->run(&call);
}

static void own_destroy(tw_kernel *kernel, tw_backend *backend) {
    tw_free(backend->ctx, kernel->state);
    kernel->state = NULL;
}

static tw_status refuse(tw_backend *backend, const tw_region_op *op, const char *why) {
    return tw_fail(backend->ctx, TW_ERROR_UNSUPPORTED, "%s: %s", tw_op_name(op->kind), why);
}

/* In the place of addresses their alignment: launchers make more or less of them by it. */
static void place_alignments(const tw_region *region, own_state *s, int unknown) {
    void *slots[TW_REGION_MAX_SLOTS];
    for (int i = 0; i < region->n_slots; i++) {
        const int known = region->slots[i].alignment;
        slots[i] = (void *)(uintptr_t)(known ? known : unknown);
    }
    place(s, &s->call, slots);
}

/* The product of a claim by its own operands, with those of what is claimed with it. */
static tw_status describe(const tw_own_entry *entries, tw_backend *backend, const tw_region *region,
                          const tw_own_fused *f, own_state *s) {
    const tw_region_op *op = &region->ops[f->product];
    bool is_double = false;
    tw_region alone = *region;
    alone.ops[0] = *op;
    alone.n_ops = 1;
    TW_TRY(tw_ref_describe(backend, &alone, &s->call.op, &is_double));
    if (is_double) return refuse(backend, op, "a GPU calculates in float32, not in float64");
    memcpy(s->in, op->in, sizeof s->in);
    memcpy(s->out, op->out, sizeof s->out);
    if (f->upsampled >= 0 && !f->data_gradient) s->in[0] = f->upsampled;
    if (f->packed >= 0) s->in[tw_own_image(op->kind)] = f->packed;
    s->call.packed = f->packed >= 0;
    if (f->second >= 0) {
        const tw_desc *second = &region->slots[f->second].desc;
        s->in[tw_own_image(op->kind)] = f->first;
        s->call.channels2 = (int)second->dim[second->rank - 1];
    }
    if (f->claimed > 1) s->out[0] = f->result;
    const int vectors = f->vector >= 0 ? f->vector : f->sums;
    if (vectors >= 0) s->call.vector_stride = region->slots[vectors].desc.dim[1];
    s->vector = f->vector;
    s->residual = f->residual;
    s->sums = f->sums;
    s->column = f->column;
    s->second = f->second;
    s->second_out = f->second_result;
    s->call.scale = f->scale;
    s->call.tf32 = region->tf32;
    s->call.silu = f->silu;
    s->call.upsample = f->upsampled >= 0;
    s->call.backend = backend;
    s->entry = &entries[op->kind];
    if (!s->entry->run) return refuse(backend, op, "there is no kernel for it");
    place_alignments(region, s, 256);
    const char *why = s->entry->refuse ? s->entry->refuse(&s->call) : NULL;
    return why ? refuse(backend, op, why) : TW_OK;
}

static size_t workspace_of(const tw_region *region, own_state *s) {
    size_t most = 0;
    if (!s->entry->workspace) return 0;
    for (int unknown = 4; unknown <= 256; unknown *= 64) { /* 4 and 256 */
        place_alignments(region, s, unknown);
        const size_t bytes = s->entry->workspace(&s->call);
        if (bytes > most) most = bytes;
    }
    return most;
}

tw_status tw_own_prepare(const tw_own_entry *entries, tw_backend *backend, const tw_region *region,
                         const tw_own_fused *f, tw_kernel *kernel) {
    TW_TRY(backend->begin(backend)); /* launchers ask which device this is */
    own_state *s = tw_allocate(backend->ctx, 1, sizeof *s);
    if (!s) return TW_ERROR_MEMORY;
    const tw_status status = describe(entries, backend, region, f, s);
    if (status != TW_OK) {
        tw_free(backend->ctx, s);
        return status;
    }
    s->call.workspace_bytes = kernel->workspace = workspace_of(region, s);
    kernel->run = own_run;
    kernel->destroy = own_destroy;
    kernel->state = s;
    kernel->claimed = f->claimed;
    backend->end(backend);
    return TW_OK;
}

static tw_status own_prepare(tw_backend *backend, const tw_region *region, tw_kernel *kernel) {
    const tw_own_fused f = tw_own_fuse(region);
    const tw_status s = tw_own_prepare_measured(own_entries, backend, region, &f, kernel);
    if (s != TW_ERROR_UNSUPPORTED) return s;
    return tw_own_prepare(own_entries, backend, region, &f, kernel);
}

const tw_provider tw_provider_own = {"own", own_prepare};
