/* Uploads beside the computation: a batch travels on a stream of its own into one of two slots of
 * the device, while the backend's stream works on the batch before; that stream then waits for it
 * and copies it to where the plan reads it, so that recorded runs keep their addresses. A slot's
 * pinned memory is written again when its batch has arrived, its device memory when it was copied.
 * The host is thus at most two batches ahead. */
#ifndef TW_BACKEND_CUDA_FEED_H
#define TW_BACKEND_CUDA_FEED_H

#include <stdbool.h>

#include "backend/backend.h"
#include "backend/cuda/runtime.h"

#define TW_FEED_SLOTS 2
#define TW_FEED_LEAST ((size_t)16 << 10) /* fewer bytes arrive sooner than events are made */

typedef struct tw_cuda_feed_slot {
    void *pinned, *device;
    tw_cuda_event arrived; /* on the feed's stream: `device` has what was in `pinned` */
    tw_cuda_event taken;   /* on the backend's: `device` may be written again */
    bool used;             /* `arrived` was recorded */
} tw_cuda_feed_slot;

typedef struct tw_cuda_feed {
    tw_cuda_stream stream; /* null before the first */
    size_t bytes;          /* of a slot */
    int next;
    tw_cuda_feed_slot slots[TW_FEED_SLOTS];
} tw_cuda_feed;

/* Queues the copy of `bytes` to device memory; `src` may be changed at once. */
tw_status tw_cuda_feed_upload(tw_backend *b, void *dst, const void *src, size_t bytes);
/* Of device memory, for uploads of `bytes`. */
size_t tw_cuda_feed_bytes(const tw_backend *b, size_t bytes);
/* When nothing is under way any more. */
void tw_cuda_feed_free(tw_backend *b);

#endif
