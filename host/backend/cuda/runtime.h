/* The CUDA runtime as a table of functions: what the backend asks of a GPU, and nothing else. The
 * tests put another table in its place, so that whole plans run where there is no GPU.
 *
 * Work is ordered on a stream that the caller made, never on the default stream. What takes a
 * stream or makes something works on the device that the calling thread named last with `use`.
 * Any function may be called by several threads at once. */
#ifndef TW_BACKEND_CUDA_RUNTIME_H
#define TW_BACKEND_CUDA_RUNTIME_H

#include <stddef.h>

/* As in CUDA's headers: cudaStream_t, cudaEvent_t, cudaGraphExec_t, cudaMemPool_t. */
typedef struct CUstream_st *tw_cuda_stream;
typedef struct CUevent_st *tw_cuda_event;
typedef struct CUgraphExec_st *tw_cuda_graph;
typedef struct CUmemPoolHandle_st *tw_cuda_pool;

typedef enum tw_cuda_result {
    TW_CUDA_OK = 0,
    TW_CUDA_NOT_READY, /* of a query: not yet */
    TW_CUDA_NO_DEVICE, /* none, or no driver that serves this build */
    TW_CUDA_NO_MEMORY,
    TW_CUDA_FAILED
} tw_cuda_result;

typedef enum tw_cuda_direction { TW_CUDA_IN, TW_CUDA_OUT, TW_CUDA_ON } tw_cuda_direction;

typedef struct tw_cuda_properties {
    char name[64];
    char pci[32];     /* its address, "0000:1b:00.0" */
    int major, minor; /* compute capability */
    size_t memory;
} tw_cuda_properties;

typedef struct tw_cuda_runtime {
    /* "CUDA 13.0" */
    const char *(*version)(void);
    /* Why the calling thread's last call did not succeed. Never null. */
    const char *(*error_text)(void);

    tw_cuda_result (*device_count)(int *count);
    tw_cuda_result (*device_properties)(int device, tw_cuda_properties *out);
    tw_cuda_result (*use)(int device);
    tw_cuda_result (*memory_info)(size_t *available, size_t *total);

    /* A pool of device memory, which keeps what is released. Null where the device has none: memory
     * then comes from the driver, and goes back. */
    tw_cuda_result (*pool_create)(int device, tw_cuda_pool *out);
    tw_cuda_result (*pool_destroy)(tw_cuda_pool pool);
    /* What it keeps and nobody uses, and giving that to the driver. */
    tw_cuda_result (*pool_unused)(tw_cuda_pool pool, size_t *bytes);
    tw_cuda_result (*pool_trim)(tw_cuda_pool pool);
    /* The most that was used of it, and that it held with what it kept, since it was made or since
     * the last restart. */
    tw_cuda_result (*pool_peak)(tw_cuda_pool pool, size_t *used, size_t *held);
    tw_cuda_result (*pool_peak_restart)(tw_cuda_pool pool);
    /* Device memory, aligned to 256 bytes, in the stream's order: what was queued before may still
     * use memory that is released. */
    tw_cuda_result (*allocate)(tw_cuda_pool pool, tw_cuda_stream stream, size_t bytes, void **out);
    tw_cuda_result (*release)(tw_cuda_pool pool, tw_cuda_stream stream, void *address);
    /* Host memory that copies may read and write while the host goes on. */
    tw_cuda_result (*pinned_allocate)(size_t bytes, void **out);
    tw_cuda_result (*pinned_release)(void *address);
    /* Queued; IN from and OUT into pinned memory. OUT into other memory has arrived when the
     * stream is synchronised. */
    tw_cuda_result (*copy)(tw_cuda_stream stream, void *dst, const void *src, size_t bytes,
                           tw_cuda_direction direction);
    tw_cuda_result (*fill)(tw_cuda_stream stream, void *dst, int byte, size_t bytes);

    tw_cuda_result (*stream_create)(tw_cuda_stream *out);
    tw_cuda_result (*stream_destroy)(tw_cuda_stream stream);
    tw_cuda_result (*stream_synchronize)(tw_cuda_stream stream);
    tw_cuda_result (*stream_wait)(tw_cuda_stream stream, tw_cuda_event event);

    tw_cuda_result (*event_create)(tw_cuda_event *out);
    tw_cuda_result (*timer_create)(tw_cuda_event *out); /* an event with a clock */
    tw_cuda_result (*event_destroy)(tw_cuda_event event);
    tw_cuda_result (*event_record)(tw_cuda_event event, tw_cuda_stream stream);
    tw_cuda_result (*event_query)(tw_cuda_event event);
    tw_cuda_result (*event_synchronize)(tw_cuda_event event);
    /* Between two with a clock that have happened. */
    tw_cuda_result (*event_elapsed)(tw_cuda_event from, tw_cuda_event to, float *milliseconds);

    /* Between begin and end the calling thread's calls on the stream are recorded instead of
     * queued. An end that does not succeed leaves nothing behind, and the stream as it was. */
    tw_cuda_result (*capture_begin)(tw_cuda_stream stream);
    tw_cuda_result (*capture_end)(tw_cuda_stream stream, tw_cuda_graph *out);
    tw_cuda_result (*graph_launch)(tw_cuda_graph graph, tw_cuda_stream stream);
    tw_cuda_result (*graph_destroy)(tw_cuda_graph graph);

    /* Files of NVIDIA's libraries; NULL: as the loader finds them. */
    const char *cudnn, *cublaslt, *nvml;
} tw_cuda_runtime;

/* The machine's own. */
const tw_cuda_runtime *tw_cuda_runtime_get(void);

#endif
