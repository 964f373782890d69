/* What a trainer would take. The caller's context may be one that only plans. */
#include "core/options.h"
#include "train/state.h"

static tw_status count(const tw_trainer *t, tw_trainer_budget *out) {
    const size_t vector = (size_t)t->model->weights.total * sizeof(float);
    *out = (tw_trainer_budget){.weights = vector,
                               .rounded = t->rounded.bytes,
                               .gradients = vector,
                               .optimizer = 2 * vector,
                               .ema = t->ema ? vector : 0};
    TW_TRY(tw_plan_add_budget(t->micro.plan, &out->plans));
    TW_TRY(tw_plan_add_budget(t->update, &out->plans));
    out->plans.inputs += tw_trainer_batch_bytes(t) + tw_trainer_feed_bytes(t);
    out->snapshot = tw_state_save_bytes(t);
    return TW_OK;
}

tw_status tw_trainer_plan_budget(tw_model *model, const tw_trainer_options *options,
                                 tw_trainer_budget *out) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    TW_TRY(tw_options_read(model->ctx, "trainer", &o, sizeof o, options));
    tw_trainer *t = tw_allocate(model->ctx, 1, sizeof *t);
    if (!t) return TW_ERROR_MEMORY;
    t->ctx = model->ctx;
    t->model = model;
    tw_model_retain(model);
    t->options = o;
    tw_status s = tw_trainer_build(t);
    if (s == TW_OK) s = count(t, out);
    tw_trainer_free(t);
    return s;
}
