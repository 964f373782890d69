/* tw_model_forward: one evaluation on the host's arrays. */
#include <string.h>

#include "graph/internal.h"
#include "models/architecture.h"
#include "models/model.h"

/* The plan of one batch size. */
typedef struct tw_evaluation {
    int64_t n;
    tw_plan *plan;
    tw_network_inputs in;
    tw_value out;
} tw_evaluation;

void tw_model_forget_evaluation(tw_model *model) {
    if (!model->evaluation) return;
    tw_plan_free(model->evaluation->plan);
    tw_free(model->ctx, model->evaluation);
    model->evaluation = NULL;
}

static tw_status prepare(tw_model *model, tw_evaluation *e) {
    int64_t shape[TW_MAX_RANK] = {e->n};
    tw_network network;
    memcpy(shape + 1, model->info.shape, (size_t)model->info.rank * sizeof *shape);
    TW_TRY(tw_plan_create(model->ctx, NULL, &e->plan));
    e->in.x = tw_plan_input(e->plan, "x", TW_F32, model->info.rank + 1, shape);
    e->in.t = tw_plan_input(e->plan, "t", TW_F32, 1, &e->n);
    e->in.labels = e->in.rng = TW_NONE;
    if (model->info.classes > 0) e->in.labels = tw_plan_input(e->plan, "labels", TW_I32, 1, &e->n);
    TW_TRY(tw_model_build(model, e->plan, &e->in, &network));
    e->out = network.out;
    tw_plan_keep(e->plan, e->out);
    tw_status s = tw_model_bind(model, e->plan, &network, model->storage, NULL, NULL);
    tw_free(model->ctx, network.parameters);
    return s == TW_OK ? tw_plan_compile(e->plan) : s;
}

static tw_status evaluation(tw_model *model, int64_t n) {
    if (model->evaluation && model->evaluation->n == n) return TW_OK;
    tw_model_forget_evaluation(model);
    model->evaluation = tw_allocate(model->ctx, 1, sizeof *model->evaluation);
    if (!model->evaluation) return TW_ERROR_MEMORY;
    model->evaluation->n = n;
    tw_status s = prepare(model, model->evaluation);
    if (s != TW_OK) tw_model_forget_evaluation(model);
    return s;
}

static tw_status check(const tw_model *model, int64_t n, const float *x, const float *t,
                       const int32_t *labels, const float *out) {
    if (!x || !t || !out)
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT, "forward: no array for %s",
                       !x ? "x" : (!t ? "t" : "the result"));
    if (n < 1 || n > INT32_MAX)
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT, "forward: n: expected 1 or more, got %lld",
                       (long long)n);
    const tw_architecture *a = model->architecture;
    if (a->label_width && a->label_width(model->arch_config) > 0)
        return tw_fail(model->ctx, TW_ERROR_UNSUPPORTED,
                       "forward: this network's class labels are vectors, not numbers");
    const int64_t classes = model->info.classes;
    if ((classes > 0) != (labels != NULL))
        return tw_fail(model->ctx, TW_ERROR_ARGUMENT,
                       classes > 0 ? "forward: labels: the model needs them"
                                   : "forward: labels: the model takes none");
    for (int64_t i = 0; labels && i < n; i++)
        if (labels[i] < 0 || labels[i] >= classes)
            return tw_fail(model->ctx, TW_ERROR_ARGUMENT,
                           "forward: labels[%lld]: expected 0 to %lld, got %d", (long long)i,
                           (long long)classes - 1, (int)labels[i]);
    return TW_OK;
}

tw_status tw_model_forward(tw_model *model, int64_t n, const float *x, const float *t,
                           const int32_t *labels, float *out) {
    if (!model) return tw_fail(NULL, TW_ERROR_ARGUMENT, "model: null");
    TW_TRY(check(model, n, x, t, labels, out));
    TW_TRY(evaluation(model, n));
    const tw_evaluation *e = model->evaluation;
    size_t pixels = (size_t)n, in_bytes, out_bytes;
    for (int i = 0; i + 1 < model->info.rank; i++) pixels *= (size_t)model->info.shape[i];
    in_bytes = pixels * (size_t)model->info.shape[model->info.rank - 1] * sizeof *x;
    out_bytes = pixels * (size_t)model->info.out_channels * sizeof *out;
    TW_TRY(tw_plan_write(e->plan, e->in.x, x, in_bytes));
    TW_TRY(tw_plan_write(e->plan, e->in.t, t, (size_t)n * sizeof *t));
    if (labels) TW_TRY(tw_plan_write(e->plan, e->in.labels, labels, (size_t)n * sizeof *labels));
    TW_TRY(tw_plan_run(e->plan));
    return tw_plan_read(e->plan, e->out, out, out_bytes);
}
