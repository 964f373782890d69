/* Running a sampler: chunks of samples, steps of a chunk. */
#include "diffusion/sampler.h"

#include <string.h>

#include "backend/backend.h"
#include "core/checked.h"
#include "core/context.h"
#include "diffusion/coefficients.h"
#include "graph/builder.h"

/* One more than the last index of a sample that has noise of its own. */
#define MAX_SAMPLES ((uint64_t)1 << 48)

static tw_status check_labels(const tw_sampler *s, int64_t n, const int32_t *labels) {
    if (s->guided && !labels)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: guidance needs a label per sample");
    if (!s->model) return TW_OK;
    if (s->classes > 0 && !labels)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: the model is class-conditional and needs a label per sample, 0 "
                       "to %lld",
                       (long long)s->classes - 1);
    if (s->classes == 0 && labels)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: labels were given, but the model has no classes");
    for (int64_t i = 0; labels && i < n; i++)
        if (labels[i] < 0 || labels[i] >= s->classes)
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: label %d of sample %lld, expected 0 to %lld", (int)labels[i],
                           (long long)i, (long long)s->classes - 1);
    return TW_OK;
}

tw_status tw_sampler_check(const tw_sampler *s, int64_t n, const int32_t *labels) {
    int64_t bytes;
    if (n < 1 || !tw_mul_i64(n, s->elements, &bytes) ||
        !tw_mul_i64(bytes, (int64_t)sizeof(float), &bytes))
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: %lld samples, expected 1 or more that fit an address",
                       (long long)n);
    if ((uint64_t)n > MAX_SAMPLES || s->options.first_sample > MAX_SAMPLES - (uint64_t)n)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: %lld samples from index %llu on, expected indices below 2^48",
                       (long long)n, (unsigned long long)s->options.first_sample);
    return check_labels(s, n, labels);
}

/* Starting noise, labels, and the counter at the first step. */
static tw_status begin(tw_sampler *s, tw_sampler_chunk *c, const tw_draw *p) {
    tw_backend *b = s->ctx->backend;
    const int64_t rng[4] = {(int64_t)s->options.seed,
                            (int64_t)(s->options.first_sample + (uint64_t)p->first), 0, 0};
    TW_TRY(b->upload(b, c->rng, rng, sizeof rng));
    if (p->labels) {
        memcpy(c->host_labels, p->labels, (size_t)p->count * sizeof *p->labels);
        for (int64_t i = 0; i < p->count; i++) c->host_labels[p->count + i] = s->null_label;
    }
    if (c->labels != TW_NONE)
        TW_TRY(tw_plan_write(c->step, c->labels, c->host_labels,
                             (size_t)(s->guided ? 2 * c->n : c->n) * sizeof *c->host_labels));
    if (!p->noise) return tw_plan_run(c->start);
    return (p->device_noise ? b->copy : b->upload)(b, c->x, p->noise,
                                                   (size_t)(c->n * s->elements) * sizeof *p->noise);
}

static tw_tensor view(const tw_sampler *s, void *data, int64_t n, int64_t channels, bool read) {
    tw_tensor t = {.data = data, .device = s->ctx->backend->device, .dtype = TW_F32};
    t.read_only = read;
    t.rank = channels > 0 ? s->rank + 1 : 1;
    t.shape[0] = n;
    for (int i = 1; i < t.rank; i++) t.shape[i] = i == s->rank ? channels : s->shape[i - 1];
    t.strides[t.rank - 1] = 1;
    for (int i = t.rank - 1; i > 0; i--) t.strides[i - 1] = t.strides[i] * t.shape[i];
    return t;
}

/* Asks the caller's denoiser. */
static tw_status ask(tw_sampler *s, tw_sampler_chunk *c, const int32_t *labels, void *answer,
                     int64_t step) {
    const tw_tensor x = view(s, c->x, c->n, s->shape[s->rank - 1], true);
    const tw_tensor t = view(s, c->t, c->n, 0, true);
    tw_tensor out = view(s, answer, c->n, s->out_channels, false);
    s->ctx->error[0] = 0;
    const tw_status status =
        s->denoiser.evaluate(s->denoiser.user, &x, &t, labels, &out, s->ctx->backend->stream);
    if (status == TW_OK) return TW_OK;
    if (!s->ctx->error[0]) tw_fail(s->ctx, status, "%s", tw_status_name(status));
    return tw_fail_prefix(s->ctx, status, "sampler: the denoiser at step %lld of %lld",
                          (long long)step + 1, (long long)s->steps);
}

static tw_status evaluate_callback(tw_sampler *s, tw_sampler_chunk *c, const tw_draw *p,
                                   int64_t step) {
    TW_TRY(tw_plan_run(c->time));
    TW_TRY(ask(s, c, p->labels ? c->host_labels : NULL, c->m, step));
    return s->guided ? ask(s, c, c->host_labels + c->n, c->m_uncond, step) : TW_OK;
}

static tw_status show(tw_sampler *s, tw_sampler_chunk *c, const tw_draw *p, int64_t step) {
    if (!s->options.hook) return TW_OK;
    tw_backend *b = s->ctx->backend;
    const size_t bytes = (size_t)(c->n * s->elements) * sizeof(float);
    if (c->host_x) TW_TRY(b->download(b, c->host_x, c->x, bytes));
    if (c->host_x0) TW_TRY(tw_plan_read(c->step, c->x0, c->host_x0, bytes));
    const tw_step_info info = {.size = sizeof info,
                               .step = step,
                               .steps = s->steps,
                               .timestep = s->timesteps[step],
                               .first = p->first,
                               .count = p->count,
                               .x = c->host_x,
                               .x0 = c->host_x0};
    if (s->options.hook(s->options.hook_user, &info) == 0) return TW_OK;
    return tw_fail(s->ctx, TW_ERROR_CANCELLED, "sampling was cancelled after step %lld of %lld",
                   (long long)step + 1, (long long)s->steps);
}

static tw_status run_part(tw_sampler *s, const tw_draw *p) {
    tw_backend *b = s->ctx->backend;
    tw_sampler_chunk *c;
    TW_TRY(tw_sampler_chunk_get(s, p->count, &c));
    tw_plan_parameters_changed(c->step); /* perhaps, since the last run */
    TW_TRY(begin(s, c, p));
    for (int64_t i = 0; i < s->steps; i++) {
        if (!s->model) TW_TRY(evaluate_callback(s, c, p, i));
        TW_TRY(tw_plan_run(c->step));
        TW_TRY(show(s, c, p, i));
    }
    return (p->device_out ? b->copy
            : p->later && b->send
                ? b->send
                : b->download)(b, p->out, c->x, (size_t)(c->n * s->elements) * sizeof *p->out);
}

tw_status tw_sampler_draw(tw_sampler *s, const tw_draw *all) {
    const int64_t most = s->options.max_batch;
    TW_TRY(tw_rounded_refresh(&s->rounded));
    for (int64_t first = 0; first < all->count; first += most) {
        tw_draw p = *all;
        p.first = first;
        p.count = all->count - first < most ? all->count - first : most;
        if (p.labels) p.labels += first;
        if (p.noise) p.noise += first * s->elements;
        p.out += first * s->elements;
        TW_TRY(run_part(s, &p));
    }
    return TW_OK;
}

tw_status tw_sampler_run(tw_sampler *sampler, int64_t n, const int32_t *labels, const float *noise,
                         float *out) {
    if (!sampler || !out)
        return tw_fail(sampler ? sampler->ctx : NULL, TW_ERROR_ARGUMENT,
                       "tw_sampler_run: a sampler and a place for the samples are needed");
    TW_TRY(tw_sampler_check(sampler, n, labels));
    const tw_draw all = {.count = n, .labels = labels, .noise = noise, .out = out};
    return tw_sampler_draw(sampler, &all);
}

tw_status tw_sampler_memory(tw_sampler *sampler, int64_t n, size_t *bytes) {
    if (!sampler || !bytes)
        return tw_fail(sampler ? sampler->ctx : NULL, TW_ERROR_ARGUMENT,
                       "tw_sampler_memory: a sampler and a place for the number are needed");
    if (n < 1)
        return tw_fail(sampler->ctx, TW_ERROR_ARGUMENT, "sampler: %lld samples, expected 1 or more",
                       (long long)n);
    const int64_t most = sampler->options.max_batch;
    const int64_t sizes[2] = {n < most ? n : most, n > most ? n % most : 0};
    *bytes = (size_t)sampler->steps * TW_COEF_WIDTH * sizeof(float) + sampler->rounded.bytes;
    for (int i = 0; i < 2; i++) {
        if (sizes[i] == 0) continue;
        tw_sampler_chunk *c;
        TW_TRY(tw_sampler_chunk_get(sampler, sizes[i], &c));
        *bytes += c->bytes;
    }
    return TW_OK;
}

tw_status tw_sampler_batch_budget(tw_sampler *s, int64_t n, tw_plan_budget *out) {
    tw_sampler_chunk *c;
    *out = (tw_plan_budget){0};
    TW_TRY(tw_sampler_chunk_get(s, n, &c));
    TW_TRY(tw_plan_add_budget(c->start, out));
    TW_TRY(tw_plan_add_budget(c->step, out));
    if (c->time) TW_TRY(tw_plan_add_budget(c->time, out));
    /* The buffers that the plans share, and the table. */
    out->inputs += c->bytes - tw_plan_budget_total(out);
    out->inputs += (size_t)s->steps * TW_COEF_WIDTH * sizeof(float);
    return TW_OK;
}
