#include "backend/op.h"

int64_t tw_desc_count(const tw_desc *d) {
    int64_t n = 1;
    for (int i = 0; i < d->rank; i++) n *= d->dim[i];
    return n;
}

size_t tw_desc_bytes(const tw_desc *d) {
    return (size_t)tw_desc_count(d) * tw_dtype_size(d->dtype);
}

static const char *const op_names[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = "linear",
    [TW_OP_LINEAR_BWD_DATA] = "linear_bwd_data",
    [TW_OP_LINEAR_BWD_WEIGHT] = "linear_bwd_weight",
    [TW_OP_CONV2D] = "conv2d",
    [TW_OP_CONV2D_BWD_DATA] = "conv2d_bwd_data",
    [TW_OP_CONV2D_BWD_WEIGHT] = "conv2d_bwd_weight",
    [TW_OP_GROUP_NORM] = "group_norm",
    [TW_OP_GROUP_NORM_BWD] = "group_norm_bwd",
    [TW_OP_ACT] = "act",
    [TW_OP_ACT_BWD] = "act_bwd",
    [TW_OP_AXPBY] = "axpby",
    [TW_OP_ADD_VEC] = "add_vec",
    [TW_OP_SUM_SPATIAL] = "sum_spatial",
    [TW_OP_PER_SAMPLE_SCALE] = "per_sample_scale",
    [TW_OP_CONCAT] = "concat",
    [TW_OP_SPLIT] = "split",
    [TW_OP_UPSAMPLE_NEAREST] = "upsample_nearest",
    [TW_OP_POOL] = "pool",
    [TW_OP_DROPOUT] = "dropout",
    [TW_OP_EMBEDDING] = "embedding",
    [TW_OP_EMBEDDING_BWD] = "embedding_bwd",
    [TW_OP_TIME_EMBED] = "time_embed",
    [TW_OP_FOURIER_EMBED] = "fourier_embed",
    [TW_OP_ATTENTION] = "attention",
    [TW_OP_ATTENTION_BWD] = "attention_bwd",
    [TW_OP_MSE] = "mse",
    [TW_OP_MSE_BWD] = "mse_bwd",
    [TW_OP_FILL] = "fill",
    [TW_OP_CONVERT] = "convert",
    [TW_OP_REPEAT_BATCH] = "repeat_batch",
    [TW_OP_NOISE] = "noise",
    [TW_OP_SAMPLE_T] = "sample_t",
    [TW_OP_COND_DROP] = "cond_drop",
    [TW_OP_FLIP] = "flip",
    [TW_OP_FORWARD_NOISE] = "forward_noise",
    [TW_OP_SAMPLER_UPDATE] = "sampler_update",
    [TW_OP_THRESHOLD] = "threshold",
    [TW_OP_STEP_TIME] = "step_time",
    [TW_OP_NEXT_STEP] = "next_step",
    [TW_OP_GLOBAL_NORM] = "global_norm",
    [TW_OP_ADAMW] = "adamw",
};

const char *tw_op_name(tw_op_kind kind) {
    if ((unsigned)kind >= TW_OP_COUNT || !op_names[kind]) return "unknown";
    return op_names[kind];
}
