#include "models/rounded.h"

#include "backend/backend.h"
#include "core/context.h"
#include "graph/builder.h"

static tw_status make(const tw_model *model, tw_dtype format, void *base, tw_rounded *r) {
    tw_backend *b = model->ctx->backend;
    const int64_t total = model->weights.total;
    r->bytes = (size_t)total * tw_dtype_size(format);
    TW_TRY(b->allocate(b, r->bytes, &r->weights));
    TW_TRY(b->fill(b, r->weights, 0, r->bytes));
    TW_TRY(tw_plan_create(model->ctx, NULL, &r->plan));
    const tw_value masters = tw_plan_input(r->plan, "weights", TW_F32, 1, &total);
    const tw_value copy = tw_plan_state(r->plan, "rounded", format, 1, &total);
    tw_build_copy(r->plan, masters, copy);
    TW_TRY(tw_plan_bind(r->plan, masters, base));
    TW_TRY(tw_plan_bind(r->plan, copy, r->weights));
    return tw_plan_compile(r->plan);
}

tw_status tw_rounded_make(const tw_model *model, tw_dtype format, void *base, tw_rounded *out) {
    *out = (tw_rounded){NULL, NULL, 0};
    if (format == TW_F32) return TW_OK;
    const tw_status s = make(model, format, base, out);
    if (s != TW_OK) tw_rounded_free(model->ctx, out);
    return s;
}

tw_status tw_rounded_refresh(tw_rounded *rounded) {
    return rounded->plan ? tw_plan_run(rounded->plan) : TW_OK;
}

void tw_rounded_free(tw_context *ctx, tw_rounded *rounded) {
    tw_plan_free(rounded->plan);
    ctx->backend->release(ctx->backend, rounded->weights);
    *rounded = (tw_rounded){NULL, NULL, 0};
}
