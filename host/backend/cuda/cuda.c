/* A GPU as a backend: one stream, on which memory, copies and kernels are ordered. */
#include "backend/cuda/gather.h"
#include "backend/cuda/marks.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/heuristics.h"
#include "backend/cuda/tuning.h"
#include "backend/cuda/vendor/vendor.h"
#include "core/context.h"

#define LEAST_CAPABILITY 80 /* what the kernels are compiled for */

const bool tw_backend_has_cuda = true;

tw_status tw_cuda_check(tw_backend *b, tw_cuda_result result, const char *what) {
    if (result == TW_CUDA_OK) return TW_OK;
    const tw_status s = result == TW_CUDA_NO_MEMORY ? TW_ERROR_MEMORY : TW_ERROR_DEVICE;
    return tw_fail(b->ctx, s, "CUDA: %s: %s", what, tw_cuda_of(b)->rt->error_text());
}

tw_status tw_cuda_use(tw_backend *b) {
    return tw_cuda_check(b, tw_cuda_of(b)->rt->use(tw_cuda_of(b)->device), "choosing the device");
}

/* Memory that the caller gives. */
static tw_status borrow(tw_backend *b, size_t bytes, void **out) {
    const tw_device_allocator *a = &b->ctx->device_allocator;
    void *address = a->allocate(a->user, bytes, b->stream);
    if (!address)
        return tw_fail(b->ctx, TW_ERROR_MEMORY,
                       "out of device memory: the caller's allocator has not %zu bytes", bytes);
    if ((uintptr_t)address % 256) {
        a->release(a->user, address, b->stream);
        return tw_fail(b->ctx, TW_ERROR_ARGUMENT,
                       "device memory: the caller's allocator gave an address that is no multiple "
                       "of 256 bytes");
    }
    *out = address;
    return TW_OK;
}

/* Bytes that the driver has, or the pool without using them. */
static tw_cuda_result memory_left(tw_cuda_backend *c, size_t *total, size_t *available) {
    size_t kept = 0;
    tw_cuda_result r = c->rt->memory_info(available, total);
    if (r == TW_CUDA_OK && c->pool) r = c->rt->pool_unused(c->pool, &kept);
    *available += kept;
    return r;
}

/* What the pool keeps in pieces may serve as a whole. */
static tw_cuda_result allocate_or_trim(tw_cuda_backend *c, size_t bytes, void **out) {
    const tw_cuda_result r = c->rt->allocate(c->pool, c->stream, bytes, out);
    size_t kept = 0;
    if (r != TW_CUDA_NO_MEMORY || !c->pool || c->rt->stream_synchronize(c->stream) != TW_CUDA_OK ||
        c->rt->pool_unused(c->pool, &kept) != TW_CUDA_OK || !kept ||
        c->rt->pool_trim(c->pool) != TW_CUDA_OK)
        return r;
    return c->rt->allocate(c->pool, c->stream, bytes, out);
}

static tw_status cuda_allocate(tw_backend *b, size_t bytes, void **out) {
    tw_cuda_backend *c = tw_cuda_of(b);
    *out = NULL;
    if (!bytes) return TW_OK;
    TW_TRY(tw_cuda_use(b));
    if (b->ctx->device_allocator.allocate) return borrow(b, bytes, out);
    const tw_cuda_result r = allocate_or_trim(c, bytes, out);
    size_t available = 0, total = 0;
    if (r != TW_CUDA_NO_MEMORY || memory_left(c, &total, &available) != TW_CUDA_OK)
        return tw_cuda_check(b, r, "device memory");
    return tw_fail(b->ctx, TW_ERROR_MEMORY,
                   "out of device memory: %zu bytes were asked for, %zu of %zu are free", bytes,
                   available, total);
}

static tw_status cuda_memory(tw_backend *b, size_t *total, size_t *available) {
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, memory_left(tw_cuda_of(b), total, available), "device memory");
}

/* What the caller's allocator or a device without pools gives is not counted. */
static void cuda_peak(tw_backend *b, bool restart, double *used, double *held) {
    const tw_cuda_backend *c = tw_cuda_of(b);
    size_t most[2];
    *used = *held = (double)NAN;
    if (!c->pool || tw_cuda_use(b) != TW_OK) return;
    if (c->rt->pool_peak(c->pool, &most[0], &most[1]) == TW_CUDA_OK) {
        *used = (double)most[0];
        *held = (double)most[1];
    }
    if (restart) c->rt->pool_peak_restart(c->pool);
}

/* A failure here is an earlier one's; the next call that can say so does. */
static void cuda_release(tw_backend *b, void *address) {
    const tw_cuda_backend *c = tw_cuda_of(b);
    const tw_device_allocator *a = &b->ctx->device_allocator;
    if (!address || tw_cuda_use(b) != TW_OK) return;
    if (a->release)
        a->release(a->user, address, b->stream);
    else
        c->rt->release(c->pool, c->stream, address);
}

static tw_status cuda_upload(tw_backend *b, void *dst, const void *src, size_t bytes) {
    tw_cuda_backend *c = tw_cuda_of(b);
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_staging_upload(&c->staging, c->rt, c->stream, dst, src, bytes),
                         "upload");
}

static tw_status cuda_synchronize(tw_backend *b) {
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_of(b)->rt->stream_synchronize(tw_cuda_of(b)->stream),
                         "waiting for the device");
}

static tw_status queue_copy(tw_backend *b, void *dst, const void *src, size_t bytes,
                            tw_cuda_direction direction, const char *what) {
    if (!bytes) return TW_OK;
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(
        b, tw_cuda_of(b)->rt->copy(tw_cuda_of(b)->stream, dst, src, bytes, direction), what);
}

static tw_status cuda_download(tw_backend *b, void *dst, const void *src, size_t bytes) {
    TW_TRY(queue_copy(b, dst, src, bytes, TW_CUDA_OUT, "download"));
    return cuda_synchronize(b);
}

static tw_status cuda_send(tw_backend *b, void *dst, const void *src, size_t bytes) {
    return queue_copy(b, dst, src, bytes, TW_CUDA_OUT, "download");
}

static tw_status cuda_copy(tw_backend *b, void *dst, const void *src, size_t bytes) {
    return queue_copy(b, dst, src, bytes, TW_CUDA_ON, "copy");
}

static tw_status cuda_fill(tw_backend *b, void *dst, int byte, size_t bytes) {
    if (!bytes) return TW_OK;
    TW_TRY(tw_cuda_use(b));
    return tw_cuda_check(b, tw_cuda_of(b)->rt->fill(tw_cuda_of(b)->stream, dst, byte, bytes),
                         "fill");
}

static void cuda_end(tw_backend *b) {
    (void)b;
}

static tw_status cuda_record(tw_backend *b) {
    return tw_cuda_check(b, tw_cuda_of(b)->rt->capture_begin(tw_cuda_of(b)->stream),
                         "recording a graph");
}

static tw_status cuda_recorded(tw_backend *b, void **out) {
    tw_cuda_graph graph = NULL;
    const tw_cuda_result r = tw_cuda_of(b)->rt->capture_end(tw_cuda_of(b)->stream, &graph);
    *out = graph;
    return tw_cuda_check(b, r, "recording a graph");
}

static tw_status cuda_replay(tw_backend *b, void *recording) {
    return tw_cuda_check(b, tw_cuda_of(b)->rt->graph_launch(recording, tw_cuda_of(b)->stream),
                         "launching a graph");
}

static void cuda_forget(tw_backend *b, void *recording) {
    if (recording && tw_cuda_use(b) == TW_OK) tw_cuda_of(b)->rt->graph_destroy(recording);
}

static double cuda_clock(tw_backend *b) {
    struct timespec t;
    (void)cuda_synchronize(b);
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void cuda_meter(tw_backend *b, double *joules, double *busy) {
    tw_cuda_backend *c = tw_cuda_of(b);
    if (!c->metered) c->meter = tw_cuda_meter_open(b->ctx, c->rt->nvml, c->properties.pci);
    c->metered = true;
    *joules = c->meter ? tw_cuda_meter_joules(c->meter) : (double)NAN;
    *busy = c->meter ? tw_cuda_meter_busy(c->meter) : (double)NAN;
}

static void cuda_destroy(tw_backend *b) {
    tw_cuda_backend *c = tw_cuda_of(b);
    tw_cuda_meter_close(b->ctx, c->meter);
    if (c->stream && tw_cuda_use(b) == TW_OK) {
        c->rt->stream_synchronize(c->stream);
        tw_cuda_feed_free(b);
        tw_cuda_staging_free(&c->staging, c->rt);
        tw_vendor_destroy(c->vendor);
        c->vendor = NULL;
        if (c->pool) c->rt->pool_destroy(c->pool);
        if (!b->ctx->stream) c->rt->stream_destroy(c->stream);
    }
    tw_vendor_destroy(c->vendor);
    tw_cuda_tuning_free(c);
    tw_free(b->ctx, b);
}

/* The kernels do what the libraries cannot, whatever the name: no library has everything. */
static tw_status choose_providers(tw_cuda_backend *c, const char *name) {
    const bool automatic = !strcmp(name, "auto"), library = !strcmp(name, tw_provider_library.name);
    int n = 0;
    if (!automatic && !library && strcmp(name, tw_provider_own.name) != 0)
        return tw_fail(c->base.ctx, TW_ERROR_ARGUMENT,
                       "provider: expected auto, own or cudnn on a GPU, got \"%s\"", name);
    if (library) c->list[n++] = &tw_provider_library;
    c->list[n++] = &tw_provider_own;
    if (automatic) {
        c->list[n++] = &tw_provider_library;
        c->base.order = tw_cuda_order;
    }
    if (!automatic && !library) return TW_OK;
    c->base.libraries = tw_cuda_name_libraries;
    return tw_cuda_open_libraries(c);
}

static tw_status find_device(tw_cuda_backend *c) {
    tw_backend *b = &c->base;
    int count = 0;
    const tw_cuda_result r = c->rt->device_count(&count);
    if (r != TW_CUDA_OK)
        return tw_fail(b->ctx, TW_ERROR_DEVICE, "no CUDA device: %s", c->rt->error_text());
    if (count < 1) return tw_fail(b->ctx, TW_ERROR_DEVICE, "no CUDA device");
    TW_TRY(tw_cuda_check(b, c->rt->device_properties(c->device, &c->properties), "the device"));
    const tw_cuda_properties *p = &c->properties;
    if (10 * p->major + p->minor < LEAST_CAPABILITY)
        return tw_fail(b->ctx, TW_ERROR_DEVICE,
                       "%s: compute capability %d.%d, expected %d.%d or later", p->name, p->major,
                       p->minor, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
    snprintf(b->description, sizeof b->description, "%s (%.0f GB, %s)", p->name,
             (double)p->memory / 1e9, c->rt->version());
    return TW_OK;
}

/* Its stream and its pool, or the caller's. */
static tw_status open_device(tw_cuda_backend *c) {
    tw_backend *b = &c->base;
    /* cudaStreamLegacy and cudaStreamPerThread */
    if ((uintptr_t)b->ctx->stream == 1 || (uintptr_t)b->ctx->stream == 2)
        return tw_fail(b->ctx, TW_ERROR_ARGUMENT,
                       "stream: a default stream; expected one that was created");
    TW_TRY(tw_cuda_use(b));
    c->stream = b->ctx->stream;
    if (!c->stream) TW_TRY(tw_cuda_check(b, c->rt->stream_create(&c->stream), "a stream"));
    b->stream = c->stream;
    if (b->ctx->device_allocator.allocate) return TW_OK;
    return tw_cuda_check(b, c->rt->pool_create(c->device, &c->pool), "a pool of memory");
}

tw_status tw_backend_cuda_create(tw_context *ctx, int threads, const char *provider,
                                 tw_backend **out) {
    *out = NULL;
    tw_cuda_backend *c = tw_allocate(ctx, 1, sizeof *c);
    if (!c) return TW_ERROR_MEMORY;
    c->rt = tw_cuda_runtime_get();
    c->base = (tw_backend){.ctx = ctx,
                           .name = "cuda",
                           .device = TW_DEVICE_CUDA,
                           .threads = threads,
                           .providers = c->list,
                           .allocate = cuda_allocate,
                           .release = cuda_release,
                           .upload = cuda_upload,
                           .download = cuda_download,
                           .feed = tw_cuda_feed_upload,
                           .feed_bytes = tw_cuda_feed_bytes,
                           .gather = tw_cuda_gather,
                           .send = cuda_send,
                           .pin = tw_cuda_pin,
                           .unpin = tw_cuda_unpin,
                           .mark = tw_cuda_mark,
                           .reached = tw_cuda_reached,
                           .unmark = tw_cuda_unmark,
                           .follow = tw_cuda_follow,
                           .signal = tw_cuda_signal,
                           .copy = cuda_copy,
                           .fill = cuda_fill,
                           .synchronize = cuda_synchronize,
                           .memory = cuda_memory,
                           .peak = cuda_peak,
                           .tune = tw_cuda_tune,
                           .save_tuning = tw_cuda_save_tuning,
                           .begin = tw_cuda_use,
                           .end = cuda_end,
                           .record = cuda_record,
                           .recorded = cuda_recorded,
                           .replay = cuda_replay,
                           .forget = cuda_forget,
                           .meter = cuda_meter,
                           .clock = cuda_clock,
                           .clock_name = "time on the wall, when the device was done",
                           .destroy = cuda_destroy};
    tw_status s = choose_providers(c, provider);
    if (s == TW_OK) s = find_device(c);
    if (s == TW_OK) s = open_device(c);
    if (s != TW_OK) {
        cuda_destroy(&c->base);
        return s;
    }
    *out = &c->base;
    return TW_OK;
}
