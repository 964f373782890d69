/* Runs that are queued, and waited for later. */
#include <stdio.h>

#include "backend/backend.h"
#include "core/context.h"
#include "core/options.h"
#include "diffusion/sampler.h"

struct tw_sampling {
    tw_context *ctx;
    void *mark; /* behind the run; null on the CPU */
};

/* Whether the tensor holds n samples where the device can get at them. */
static tw_status check_tensor(const tw_sampler *s, const char *name, const tw_tensor *t,
                              int64_t n) {
    const tw_device device = s->ctx->backend->device;
    if (!t->data || t->dtype != TW_F32 || t->rank != s->rank + 1 || !tw_tensor_is_dense(t))
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "sampler: %s: expected a dense float32 tensor of %d axes", name,
                       s->rank + 1);
    for (int i = 0; i < t->rank; i++) {
        const int64_t want = i ? s->shape[i - 1] : n;
        if (t->shape[i] != want)
            return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                           "sampler: %s: extent %d is %lld, expected %lld", name, i,
                           (long long)t->shape[i], (long long)want);
    }
    if (t->device == TW_DEVICE_CPU || (t->device == device && t->device_index == 0)) return TW_OK;
    return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                   "sampler: %s: is on another device than the context, expected host memory%s",
                   name, device == TW_DEVICE_CUDA ? " or the first GPU's" : "");
}

static tw_status check(const tw_sampler *s, const tw_sampling_request *r) {
    if (s->options.hook)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "tw_sampler_start: the sampler has a hook, which is called by "
                       "tw_sampler_run only");
    if (!r->out)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT,
                       "tw_sampler_start: a place for the samples is needed");
    if ((r->after || r->done) && !s->ctx->backend->signal)
        return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "tw_sampler_start: the CPU has no events");
    TW_TRY(tw_sampler_check(s, r->n, r->labels));
    if (r->noise) TW_TRY(check_tensor(s, "noise", r->noise, r->n));
    if (r->out->read_only) return tw_fail(s->ctx, TW_ERROR_ARGUMENT, "sampler: out: is read-only");
    return check_tensor(s, "out", r->out, r->n);
}

static tw_status queue(tw_sampler *s, const tw_sampling_request *r, tw_sampling *run) {
    tw_backend *b = s->ctx->backend;
    const bool gpu = b->device == TW_DEVICE_CUDA;
    const tw_draw all = {.count = r->n,
                         .labels = r->labels,
                         .noise = r->noise ? r->noise->data : NULL,
                         .out = r->out->data,
                         .device_noise = r->noise && gpu && r->noise->device == TW_DEVICE_CUDA,
                         .device_out = gpu && r->out->device == TW_DEVICE_CUDA,
                         .later = true};
    if (r->after) TW_TRY(b->follow(b, r->after));
    TW_TRY(tw_sampler_draw(s, &all));
    if (run && b->mark) TW_TRY(b->mark(b, &run->mark));
    return r->done ? b->signal(b, r->done) : TW_OK;
}

tw_status tw_sampler_start(tw_sampler *sampler, const tw_sampling_request *request,
                           tw_sampling **out) {
    tw_sampling_request r = TW_SAMPLING_REQUEST_INIT;
    tw_sampling *run = NULL;
    if (out) *out = NULL;
    if (!sampler || !request)
        return tw_fail(sampler ? sampler->ctx : NULL, TW_ERROR_ARGUMENT,
                       "tw_sampler_start: a sampler and a request are needed");
    tw_context *ctx = sampler->ctx;
    TW_TRY(tw_options_read(ctx, "tw_sampler_start", &r, sizeof r, request));
    TW_TRY(check(sampler, &r));
    if (out && !(run = tw_allocate(ctx, 1, sizeof *run))) return TW_ERROR_MEMORY;
    if (run) run->ctx = ctx;
    const tw_status s = queue(sampler, &r, run);
    if (s != TW_OK) {
        char text[TW_ERROR_TEXT];
        snprintf(text, sizeof text, "%s", ctx->error);
        (void)ctx->backend->synchronize(ctx->backend); /* nothing writes to `out` any more */
        tw_sampling_free(run);
        return tw_fail(ctx, s, "%s", text);
    }
    if (out) *out = run;
    return TW_OK;
}

static tw_status ask(tw_sampling *run, bool wait, bool *done) {
    tw_backend *b = run->ctx->backend;
    *done = true;
    return run->mark ? b->reached(b, run->mark, wait, done) : TW_OK;
}

tw_status tw_sampling_query(tw_sampling *sampling, int *done) {
    bool is;
    if (!sampling || !done)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "tw_sampling_query: a null pointer");
    const tw_status s = ask(sampling, false, &is);
    *done = is;
    return s;
}

tw_status tw_sampling_wait(tw_sampling *sampling) {
    bool is;
    if (!sampling) return tw_fail(NULL, TW_ERROR_ARGUMENT, "tw_sampling_wait: a null pointer");
    return ask(sampling, true, &is);
}

void tw_sampling_free(tw_sampling *sampling) {
    if (!sampling) return;
    tw_backend *b = sampling->ctx->backend;
    if (sampling->mark) b->unmark(b, sampling->mark);
    tw_free(sampling->ctx, sampling);
}
