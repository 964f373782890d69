/* The CPU as a backend: plain memory, copies by memcpy, threads by OpenMP. */
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "backend/cpu/cpu.h"
#include "core/checked.h"
#include "core/context.h"
#include "core/threads.h"

#define DEVICE_ALIGNMENT 256

typedef struct cpu_backend {
    tw_backend base;
    const tw_provider *list[TW_PROVIDERS_MAX];
    int outer_threads; /* the caller's setting, kept between begin and end */
} cpu_backend;

static tw_status cpu_allocate(tw_backend *b, size_t bytes, void **out) {
    *out = NULL;
    if (!bytes) return TW_OK;
    const tw_allocator *a = &b->ctx->allocator;
    *out = a->allocate(a->user, bytes, DEVICE_ALIGNMENT);
    if (!*out)
        return tw_fail(b->ctx, TW_ERROR_MEMORY, "out of memory: %zu bytes were asked for", bytes);
    return TW_OK;
}

static void cpu_release(tw_backend *b, void *address) {
    if (address) b->ctx->allocator.release(b->ctx->allocator.user, address);
}

static tw_status cpu_copy(tw_backend *b, void *dst, const void *src, size_t bytes) {
    (void)b;
    if (bytes) memmove(dst, src, bytes);
    return TW_OK;
}

static tw_status cpu_fill(tw_backend *b, void *dst, int byte, size_t bytes) {
    (void)b;
    if (bytes) memset(dst, byte, bytes);
    return TW_OK;
}

static tw_status cpu_synchronize(tw_backend *b) {
    (void)b;
    return TW_OK;
}

static tw_status cpu_begin(tw_backend *b) {
    TW_TRY(tw_threads_try(b->ctx, b->threads));
    ((cpu_backend *)b)->outer_threads = omp_get_max_threads();
    omp_set_num_threads(b->threads);
    return TW_OK;
}

static void cpu_end(tw_backend *b) {
    omp_set_num_threads(((cpu_backend *)b)->outer_threads);
}

/* Time that the calling thread spent on a processor: other programs do not count. */
static double cpu_clock(tw_backend *b) {
    struct timespec t;
    (void)b;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void cpu_destroy(tw_backend *b) {
    tw_free(b->ctx, b);
}

static tw_status choose_providers(tw_context *ctx, const char *name, const tw_provider **list) {
    int n = 0;
    const bool automatic = !strcmp(name, "auto");
#ifdef TW_WITH_ONEDNN
    static const char known[] = "auto, cpu-onednn, cpu-fast or cpu-reference";
    if (automatic || !strcmp(name, tw_provider_cpu_onednn.name))
        list[n++] = &tw_provider_cpu_onednn;
#else
    static const char known[] = "auto, cpu-fast or cpu-reference (this build has no oneDNN)";
#endif
    if (automatic || !strcmp(name, tw_provider_cpu_fast.name)) list[n++] = &tw_provider_cpu_fast;
    if (tw_backend_is_of_cuda(name))
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "provider: %s belongs to a GPU; the CPU has %s",
                       name, known);
    if (!automatic && !n && strcmp(name, tw_provider_cpu_reference.name) != 0)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "provider: expected %s, got \"%s\"", known, name);
    list[n++] = &tw_provider_cpu_reference; /* the only one that can do everything */
    list[n] = NULL;
    return TW_OK;
}

tw_status tw_backend_cpu_create(tw_context *ctx, int threads, const char *provider,
                                tw_backend **out) {
    *out = NULL;
    if (threads < 1)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "threads: expected at least 1, got %d", threads);
    cpu_backend *b = tw_allocate(ctx, 1, sizeof *b);
    if (!b) return TW_ERROR_MEMORY;
    tw_status s = choose_providers(ctx, provider ? provider : "auto", b->list);
    if (s != TW_OK) {
        tw_free(ctx, b);
        return s;
    }
    b->base = (tw_backend){
        .ctx = ctx,
        .name = "cpu",
        .device = TW_DEVICE_CPU,
        .threads = threads,
        .providers = b->list,
        .allocate = cpu_allocate,
        .release = cpu_release,
        .upload = cpu_copy,
        .download = cpu_copy,
        .copy = cpu_copy,
        .fill = cpu_fill,
        .synchronize = cpu_synchronize,
        .begin = cpu_begin,
        .end = cpu_end,
        .clock = cpu_clock,
        .clock_name = "processor time of the calling thread",
        .destroy = cpu_destroy,
    };
    snprintf(b->base.description, sizeof b->base.description, "CPU, %d thread%s", threads,
             threads == 1 ? "" : "s");
    b->outer_threads = threads;
    *out = &b->base;
    return TW_OK;
}
