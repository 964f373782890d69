/* Making a context: its device is a backend. */
#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "core/context.h"
#include "core/threads.h"

/* AUTO takes a GPU where there is one that serves, unless a provider of the CPU is asked for. It
 * takes nothing else where one of a GPU is. */
static tw_status make_backend(tw_context *ctx, const tw_context_options *o) {
    const int threads = o->threads ? o->threads : tw_threads_available();
    const char *provider = o->provider ? o->provider : "auto";
    const bool of_gpu = o->stream || o->device_allocator;
    TW_TRY(tw_threads_try(ctx, threads));
    if (of_gpu && o->device == TW_DEVICE_CPU)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "device cpu: a stream and a device allocator are a GPU's");
    if (o->device == TW_DEVICE_CUDA) {
        const tw_status s = tw_backend_cuda_create(ctx, threads, provider, &ctx->backend);
        if (s == TW_OK) return s;
        return tw_fail(ctx, s, "device cuda: %s%s", ctx->error,
                       s == TW_ERROR_DEVICE ? "; use auto or cpu" : "");
    }
    if (o->device == TW_DEVICE_AUTO && strncmp(provider, "cpu-", 4) != 0) {
        if (tw_backend_cuda_create(ctx, threads, provider, &ctx->backend) == TW_OK) return TW_OK;
        if (tw_backend_is_of_cuda(provider))
            return tw_fail(ctx, TW_ERROR_DEVICE, "provider %s: %s; use auto", provider, ctx->error);
        if (of_gpu) return tw_fail_prefix(ctx, TW_ERROR_DEVICE, "a GPU's stream or allocator");
        tw_log(ctx, TW_LOG_INFO, "running on the CPU: %s", ctx->error);
    }
    return tw_backend_cpu_create(ctx, threads, provider, &ctx->backend);
}

bool tw_backend_is_of_cuda(const char *provider) {
    return !strcmp(provider, "own") || !strcmp(provider, "cudnn");
}

tw_status tw_context_create(const tw_context_options *options, tw_context **out) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    if (!out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: no place for the result");
    *out = NULL;
    if (options) {
        if (options->size < sizeof(size_t) + sizeof(tw_device) || options->size > sizeof o)
            return tw_fail(NULL, TW_ERROR_ARGUMENT,
                           "context: options of %zu bytes; use TW_CONTEXT_OPTIONS_INIT",
                           options->size);
        memcpy(&o, options, options->size);
    }
    if (o.threads < 0 || o.threads > 4096)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: threads: expected 0 to 4096, got %d",
                       o.threads);
    if (o.device != TW_DEVICE_AUTO && o.device != TW_DEVICE_CPU && o.device != TW_DEVICE_CUDA)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: unknown device %d", (int)o.device);
    if (o.no_fusion & ~(unsigned)TW_FUSION_ALL)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: no_fusion: %#x is no set of tw_fusion",
                       o.no_fusion);
    const tw_allocator *a = o.allocator ? o.allocator : &tw_libc_allocator;
    if (!a->allocate || !a->release)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: the allocator lacks a function");
    const tw_device_allocator *d = o.device_allocator;
    if (d && (!d->allocate || !d->release))
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "context: the device allocator lacks a function");
    tw_context *ctx = a->allocate(a->user, sizeof *ctx, 64);
    if (!ctx) return tw_fail(NULL, TW_ERROR_MEMORY, "context: out of memory");
    memset(ctx, 0, sizeof *ctx);
    ctx->allocator = *a;
    ctx->log = o.log;
    ctx->log_user = o.log_user;
    ctx->log_level = o.log_level;
    ctx->poison = o.poison != 0;
    ctx->no_fusion = o.no_fusion;
    ctx->stream = o.stream;
    if (o.device_allocator) ctx->device_allocator = *o.device_allocator;
    const tw_status s = make_backend(ctx, &o);
    if (s != TW_OK) {
        tw_fail(NULL, s, "context: %s", ctx->error);
        tw_context_free(ctx);
        return s;
    }
    ctx->error[0] = 0; /* of a device that was passed over */
    snprintf(ctx->device_name, sizeof ctx->device_name, "%s", ctx->backend->description);
    *out = ctx;
    return TW_OK;
}

void tw_context_free(tw_context *ctx) {
    if (!ctx) return;
    if (ctx->backend) ctx->backend->destroy(ctx->backend);
    tw_allocator a = ctx->allocator;
    a.release(a.user, ctx);
}

tw_device tw_context_device(const tw_context *ctx) {
    return ctx ? ctx->backend->device : TW_DEVICE_AUTO;
}

int tw_context_threads(const tw_context *ctx) {
    return ctx ? ctx->backend->threads : 0;
}

void *tw_context_stream(const tw_context *ctx) {
    return ctx ? ctx->backend->stream : NULL;
}

const char *tw_context_provider(const tw_context *ctx, int index) {
    if (!ctx || index < 0) return NULL;
    const tw_provider *const *p = ctx->backend->providers;
    for (int i = 0; p[i]; i++)
        if (i == index) return p[i]->name;
    return NULL;
}

tw_status tw_context_tune(tw_context *ctx, const char *file) {
    if (!ctx) return tw_fail(NULL, TW_ERROR_ARGUMENT, "tuning: no context");
    if (!ctx->backend->tune)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "tuning: it times a GPU's providers against each other, and this is %s",
                       ctx->device_name);
    return ctx->backend->tune(ctx->backend, file);
}

tw_status tw_context_save_tuning(tw_context *ctx, const char *file) {
    if (!ctx || !file)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "tuning: a context and a file are needed");
    return ctx->backend->save_tuning ? ctx->backend->save_tuning(ctx->backend, file) : TW_OK;
}
