/* Fusions: which operations may be one region. */
#include "graph/internal.h"

const char *tw_fusion_name(int index) {
    static const char *const names[] = {"norm-silu", "epilogue", "norm-statistics", "concat",
                                        "upsample",  "qkv",      "gradients"};
    const int count = (int)(sizeof names / sizeof *names);
    return index >= 0 && index < count ? names[index] : NULL;
}

static bool is_gradient(tw_op_kind kind) {
    return kind == TW_OP_CONV2D_BWD_DATA || kind == TW_OP_LINEAR_BWD_DATA ||
           kind == TW_OP_GROUP_NORM_BWD || kind == TW_OP_POOL;
}

/* What it is called when the two are one. */
static tw_fusion fusion_of(tw_op_kind first, tw_op_kind second) {
    if (first == TW_OP_CONCAT || second == TW_OP_SPLIT) return TW_FUSION_CONCAT;
    if (first == TW_OP_UPSAMPLE_NEAREST || second == TW_OP_POOL) return TW_FUSION_UPSAMPLE;
    if (second == TW_OP_GROUP_NORM) return TW_FUSION_NORM_STATISTICS;
    return is_gradient(first) && second == TW_OP_AXPBY ? TW_FUSION_GRADIENTS : TW_FUSION_EPILOGUE;
}

bool tw_plan_links(const tw_plan *plan, tw_op_kind first, tw_op_kind second) {
    return tw_plan_fuses(plan, fusion_of(first, second));
}
