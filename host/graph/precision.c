#include "graph/precision.h"

#include "backend/backend.h"
#include "core/context.h"

tw_status tw_precision_check(tw_context *ctx, const char *what, tw_precision precision) {
    if ((unsigned)precision > TW_PRECISION_F16)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: precision: %d is no tw_precision", what,
                       (int)precision);
    if (precision == TW_PRECISION_TF32 && ctx->backend->device == TW_DEVICE_CPU)
        tw_log(ctx, TW_LOG_WARNING, "precision tf32: the CPU computes in float32");
    return TW_OK;
}

tw_dtype tw_precision_format(tw_precision precision) {
    return precision == TW_PRECISION_BF16  ? TW_BF16
           : precision == TW_PRECISION_F16 ? TW_F16
                                           : TW_F32;
}

void tw_precision_set(tw_plan_options *options, tw_precision precision) {
    options->precision = tw_precision_format(precision);
    options->tf32 = precision == TW_PRECISION_TF32;
}
