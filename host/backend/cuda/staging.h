/* Uploads that do not wait: the bytes are copied into pinned memory, from where they travel while
 * the host goes on. The memory is a ring of pages; a page is used again when an event says that
 * everything in it has arrived. */
#ifndef TW_BACKEND_CUDA_STAGING_H
#define TW_BACKEND_CUDA_STAGING_H

#include <stdbool.h>

#include "backend/cuda/runtime.h"

#define TW_STAGING_PAGES 16
#define TW_STAGING_PAGE ((size_t)512 << 10)

typedef struct tw_cuda_staging {
    char *memory; /* null before the first upload */
    tw_cuda_event left[TW_STAGING_PAGES];
    bool pending[TW_STAGING_PAGES]; /* the event was recorded and not waited for */
    int page;
    size_t used; /* bytes of this page */
} tw_cuda_staging;

/* Queues the copy of `bytes` to device memory; `src` may be changed at once. */
tw_cuda_result tw_cuda_staging_upload(tw_cuda_staging *s, const tw_cuda_runtime *rt,
                                      tw_cuda_stream stream, void *dst, const void *src,
                                      size_t bytes);
/* When nothing is under way any more. */
void tw_cuda_staging_free(tw_cuda_staging *s, const tw_cuda_runtime *rt);

#endif
