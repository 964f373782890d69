/* A device as the rest of the library sees it: memory that only it may dereference, copies that are
 * ordered on its stream, and its providers in order of preference. */
#ifndef TW_BACKEND_BACKEND_H
#define TW_BACKEND_BACKEND_H

#include "backend/provider.h"

struct tw_backend {
    tw_context *ctx;
    const char *name; /* "cpu", "cuda" */
    tw_device device;
    int threads;
    const tw_provider *const *providers; /* null-terminated */
    /* During a run: constant operands may have other values than in the plan's last one. */
    bool parameters_changed;

    /* Device memory aligned to 256 bytes. Zero bytes give a null address. */
    tw_status (*allocate)(tw_backend *b, size_t bytes, void **out);
    void (*release)(tw_backend *b, void *address);
    /* Ordered copies. After upload returns, `src` may be changed; download returns when the bytes
     * are there. */
    tw_status (*upload)(tw_backend *b, void *dst, const void *src, size_t bytes);
    tw_status (*download)(tw_backend *b, void *dst, const void *src, size_t bytes);
    tw_status (*copy)(tw_backend *b, void *dst, const void *src, size_t bytes);
    tw_status (*fill)(tw_backend *b, void *dst, int byte, size_t bytes);
    tw_status (*synchronize)(tw_backend *b);
    /* Brackets a run of kernels (thread settings on the CPU, a stream on a GPU). */
    tw_status (*begin)(tw_backend *b);
    void (*end)(tw_backend *b);
    void (*destroy)(tw_backend *b);
};

/* Makes the CPU backend. `provider` is "auto" or the name of the only provider wanted. */
tw_status tw_backend_cpu_create(tw_context *ctx, int threads, const char *provider,
                                tw_backend **out);

#endif
