/* The plans of one batch size. A step is one plan: the network, the update of x in place, and the
 * counter. Before it runs, a callback's answer lies in a buffer that the plan reads. */
#include "diffusion/sampler.h"

#include <string.h>

#include "backend/backend.h"
#include "core/checked.h"
#include "core/context.h"
#include "core/philox.h"
#include "diffusion/coefficients.h"
#include "graph/builder.h"
#include "graph/precision.h"
#include "models/model.h"

static tw_status device_buffer(tw_sampler *s, tw_sampler_chunk *c, int64_t count, size_t size,
                               void **out) {
    tw_backend *b = s->ctx->backend;
    size_t bytes;
    if (!tw_mul_size((size_t)count, size, &bytes) || bytes > SIZE_MAX / 4)
        return tw_fail(s->ctx, TW_ERROR_MEMORY,
                       "sampler: a batch of %lld samples does not fit an address", (long long)c->n);
    TW_TRY(b->allocate(b, bytes, out));
    c->bytes += bytes;
    return b->fill(b, *out, 0, bytes);
}

/* Shape of n tensors like a sample, with `channels` in the last axis. */
static int batch_shape(const tw_sampler *s, int64_t n, int64_t channels, int64_t *shape) {
    shape[0] = n;
    memcpy(shape + 1, s->shape, (size_t)s->rank * sizeof *shape);
    shape[s->rank] = channels;
    return s->rank + 1;
}

static int64_t channels(const tw_sampler *s) {
    return s->shape[s->rank - 1];
}

/* A value of the plan over a buffer of ours. */
static tw_status outside(tw_plan *plan, const char *name, bool writable, tw_dtype dtype, int rank,
                         const int64_t *shape, void *address, tw_value *out) {
    *out = writable ? tw_plan_state(plan, name, dtype, rank, shape)
                    : tw_plan_input(plan, name, dtype, rank, shape);
    return *out == TW_NONE ? TW_OK : tw_plan_bind(plan, *out, address);
}

static tw_status outside_rng(tw_plan *plan, bool writable, void *address, tw_value *out) {
    const int64_t four = 4;
    return outside(plan, "rng", writable, TW_I64, 1, &four, address, out);
}

static tw_status outside_table(const tw_sampler *s, tw_plan *plan, tw_value *out) {
    const int64_t shape[] = {s->steps, TW_COEF_WIDTH};
    return outside(plan, "coefficients", false, TW_F32, 2, shape, s->table, out);
}

/* Compiles, and counts what the plan takes. */
static tw_status compile(tw_plan *plan, tw_sampler_chunk *c) {
    tw_plan_stats stats = {.size = sizeof stats};
    TW_TRY(tw_plan_compile(plan));
    TW_TRY(tw_plan_get_stats(plan, &stats));
    c->bytes += stats.arena_bytes + stats.owned_bytes;
    return TW_OK;
}

static tw_status make_start(tw_sampler *s, tw_sampler_chunk *c) {
    int64_t shape[TW_MAX_RANK];
    const int rank = batch_shape(s, c->n, channels(s), shape);
    tw_value x, rng;
    TW_TRY(tw_plan_create(s->ctx, NULL, &c->start));
    TW_TRY(outside(c->start, "x", true, TW_F32, rank, shape, c->x, &x));
    TW_TRY(outside_rng(c->start, false, c->rng, &rng));
    const tw_value noise = tw_build_noise(c->start, rng, rank, shape, TW_PURPOSE_INITIAL, 1.0);
    tw_build_copy(c->start, noise, x);
    return compile(c->start, c);
}

static tw_status make_time(tw_sampler *s, tw_sampler_chunk *c) {
    tw_value table, rng, t;
    TW_TRY(tw_plan_create(s->ctx, NULL, &c->time));
    TW_TRY(outside_table(s, c->time, &table));
    TW_TRY(outside_rng(c->time, false, c->rng, &rng));
    TW_TRY(outside(c->time, "t", true, TW_F32, 1, &c->n, c->t, &t));
    tw_build_copy(c->time, tw_build_step_time(c->time, table, rng, c->n, TW_COEF_TIME), t);
    return compile(c->time, c);
}

/* What the update takes from the plan. */
typedef struct step_values {
    tw_value x, table, rng, m, m_uncond;
} step_values;

/* Without a learned variance in the update, only the mean of a network that has one. */
static tw_value mean_part(const tw_sampler *s, tw_plan *plan, tw_value m) {
    if (s->learned || s->out_channels == channels(s)) return m;
    const int64_t extents[] = {channels(s), s->out_channels - channels(s)};
    tw_value parts[2] = {TW_NONE, TW_NONE};
    tw_plan_split(plan, m, extents, 2, parts); /* a failure sticks in the plan */
    return parts[0];
}

/* The model's network over the batch, twice as large under guidance: the caller's labels, then the
 * null label. */
static tw_status put_network(tw_sampler *s, tw_sampler_chunk *c, step_values *v) {
    const int64_t n = s->guided ? 2 * c->n : c->n;
    const tw_dtype format = tw_precision_format(s->options.precision);
    const tw_value x = format == TW_F32 ? v->x : tw_plan_convert(c->step, v->x, format);
    tw_network_inputs in = {.x = s->guided ? tw_plan_repeat_batch(c->step, x) : x,
                            .t = tw_build_step_time(c->step, v->table, v->rng, n, TW_COEF_TIME),
                            .labels = TW_NONE,
                            .rng = TW_NONE};
    if (s->classes > 0) in.labels = tw_plan_input(c->step, "labels", TW_I32, 1, &n);
    c->labels = in.labels;
    tw_network network;
    TW_TRY(tw_model_build(s->model, c->step, &in, &network));
    const tw_status status =
        tw_model_bind(s->model, c->step, &network, s->model->storage, s->rounded.weights, NULL);
    tw_free(s->ctx, network.parameters);
    const tw_value m = mean_part(s, c->step, network.out);
    v->m = s->guided ? tw_plan_slice_batch(c->step, m, 0, c->n) : m;
    if (s->guided) v->m_uncond = tw_plan_slice_batch(c->step, m, c->n, c->n);
    return status;
}

static tw_status put_answers(tw_sampler *s, tw_sampler_chunk *c, step_values *v) {
    int64_t shape[TW_MAX_RANK];
    const int rank = batch_shape(s, c->n, s->out_channels, shape);
    TW_TRY(outside(c->step, "m", false, TW_F32, rank, shape, c->m, &v->m));
    if (!s->guided) return TW_OK;
    return outside(c->step, "m_uncond", false, TW_F32, rank, shape, c->m_uncond, &v->m_uncond);
}

static tw_status make_step(tw_sampler *s, tw_sampler_chunk *c) {
    int64_t shape[TW_MAX_RANK];
    const int rank = batch_shape(s, c->n, channels(s), shape);
    step_values v = {TW_NONE, TW_NONE, TW_NONE, TW_NONE, TW_NONE};
    tw_plan_options options = TW_PLAN_OPTIONS_INIT;
    if (s->model) tw_precision_set(&options, s->options.precision);
    TW_TRY(tw_plan_create(s->ctx, &options, &c->step));
    tw_plan_hold_parameters(c->step);
    TW_TRY(outside(c->step, "x", true, TW_F32, rank, shape, c->x, &v.x));
    TW_TRY(outside_table(s, c->step, &v.table));
    TW_TRY(outside_rng(c->step, true, c->rng, &v.rng));
    TW_TRY(s->model ? put_network(s, c, &v) : put_answers(s, c, &v));
    tw_value limit = TW_NONE;
    if (s->update.update.clip == TW_CLIP_DYNAMIC)
        limit = tw_build_threshold(c->step, v.x, v.m, v.m_uncond, v.table, v.rng, &s->update);
    const bool want_x0 = s->options.hook && s->options.want_x0;
    tw_build_sampler_update(c->step, v.x, v.m, v.m_uncond, v.table, v.rng, limit, &s->update,
                            want_x0 ? &c->x0 : NULL);
    if (want_x0) tw_plan_keep(c->step, c->x0);
    tw_build_next_step(c->step, v.rng);
    return compile(c->step, c);
}

static tw_status make_buffers(tw_sampler *s, tw_sampler_chunk *c) {
    int64_t count, answers;
    if (!tw_mul_i64(c->n, s->elements, &count) || !tw_mul_i64(count, 2, &answers))
        return tw_fail(s->ctx, TW_ERROR_MEMORY,
                       "sampler: a batch of %lld samples does not fit an address", (long long)c->n);
    if (s->out_channels == channels(s)) answers = count;
    TW_TRY(device_buffer(s, c, count, sizeof(float), &c->x));
    TW_TRY(device_buffer(s, c, 4, sizeof(int64_t), &c->rng));
    c->host_labels = tw_allocate(s->ctx, 2 * (size_t)c->n, sizeof *c->host_labels);
    if (!c->host_labels) return TW_ERROR_MEMORY;
    if (s->options.hook && s->options.want_x &&
        !(c->host_x = tw_allocate(s->ctx, (size_t)count, sizeof *c->host_x)))
        return TW_ERROR_MEMORY;
    if (s->options.hook && s->options.want_x0 &&
        !(c->host_x0 = tw_allocate(s->ctx, (size_t)count, sizeof *c->host_x0)))
        return TW_ERROR_MEMORY;
    if (s->model) return TW_OK;
    TW_TRY(device_buffer(s, c, c->n, sizeof(float), &c->t));
    TW_TRY(device_buffer(s, c, answers, sizeof(float), &c->m));
    return s->guided ? device_buffer(s, c, answers, sizeof(float), &c->m_uncond) : TW_OK;
}

static tw_status make(tw_sampler *s, tw_sampler_chunk *c) {
    TW_TRY(make_buffers(s, c));
    TW_TRY(make_start(s, c));
    if (!s->model) TW_TRY(make_time(s, c));
    return make_step(s, c);
}

void tw_sampler_chunk_free(tw_sampler *sampler, tw_sampler_chunk *chunk) {
    if (!chunk) return;
    tw_backend *b = sampler->ctx->backend;
    tw_plan_free(chunk->start);
    tw_plan_free(chunk->time);
    tw_plan_free(chunk->step);
    b->release(b, chunk->x);
    b->release(b, chunk->rng);
    b->release(b, chunk->t);
    b->release(b, chunk->m);
    b->release(b, chunk->m_uncond);
    tw_free(sampler->ctx, chunk->host_labels);
    tw_free(sampler->ctx, chunk->host_x);
    tw_free(sampler->ctx, chunk->host_x0);
    tw_free(sampler->ctx, chunk);
}

tw_status tw_sampler_chunk_get(tw_sampler *sampler, int64_t n, tw_sampler_chunk **out) {
    tw_sampler_chunk **oldest = &sampler->chunks[0];
    for (int i = 0; i < TW_SAMPLER_CHUNKS; i++) {
        tw_sampler_chunk **place = &sampler->chunks[i];
        if (*place && (*place)->n == n) {
            (*place)->last_used = ++sampler->clock;
            *out = *place;
            return TW_OK;
        }
        if (*oldest && (!*place || (*place)->last_used < (*oldest)->last_used)) oldest = place;
    }
    tw_sampler_chunk_free(sampler, *oldest);
    *oldest = NULL;
    tw_sampler_chunk *c = tw_allocate(sampler->ctx, 1, sizeof *c);
    if (!c) return TW_ERROR_MEMORY;
    c->n = n;
    c->last_used = ++sampler->clock;
    c->x0 = c->labels = TW_NONE;
    const tw_status status = make(sampler, c);
    if (status != TW_OK) {
        tw_sampler_chunk_free(sampler, c);
        return status;
    }
    *out = *oldest = c;
    return TW_OK;
}
