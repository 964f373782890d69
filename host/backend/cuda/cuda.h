/* A GPU as a backend, and what its providers take from it. */
#ifndef TW_BACKEND_CUDA_CUDA_H
#define TW_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/cuda/feed.h"
#include "backend/cuda/meter.h"
#include "backend/cuda/runtime.h"
#include "backend/cuda/staging.h"

typedef struct tw_cuda_backend {
    tw_backend base; /* its `stream` is the one below */
    const tw_cuda_runtime *rt;
    int device;
    tw_cuda_stream stream; /* the caller's where the context has one */
    tw_cuda_pool pool;     /* null: the caller's allocator, or a device without pools */
    tw_cuda_properties properties;
    tw_cuda_staging staging;
    tw_cuda_feed feed;
    bool metered; /* whether it was tried to open the next */
    tw_cuda_meter *meter;
    struct tw_vendor *vendor; /* null: its libraries are not wanted */
    struct tw_tuning *tuning; /* null: the table decides */
    const tw_provider *list[TW_PROVIDERS_MAX];
} tw_cuda_backend;

static inline tw_cuda_backend *tw_cuda_of(tw_backend *b) {
    return (tw_cuda_backend *)b;
}

/* TW_OK, or the failure with its text: "what" failed, and the runtime's words. */
tw_status tw_cuda_check(tw_backend *b, tw_cuda_result result, const char *what);

/* Makes the device the calling thread's. */
tw_status tw_cuda_use(tw_backend *b);

/* The hand-written kernels, and NVIDIA's libraries. */
extern const tw_provider tw_provider_own, tw_provider_library;

/* Makes `vendor`. What a library file lacks is said when it is first asked. */
tw_status tw_cuda_open_libraries(tw_cuda_backend *b);
/* As tw_backend.libraries. */
void tw_cuda_name_libraries(tw_backend *b, char *out, size_t size);

#endif
