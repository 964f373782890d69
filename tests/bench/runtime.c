#include "runtime.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct CUstream_st {
    int capturing;
};
struct CUevent_st {
    int recorded;
};
struct CUgraph_st {
    int unused;
};
struct CUgraphExec_st {
    int unused;
};

static size_t live, fail_at;
static int devices = 1, capturing, lost, hangs;
static cudaError_t last;

size_t runtime_live(void) {
    return live;
}
void runtime_fail_malloc(size_t n) {
    fail_at = n;
}
void runtime_lose_device(int is_lost) {
    lost = is_lost;
}
void runtime_hang(void) {
    hangs = 1;
}
void runtime_set_devices(int count) {
    devices = count;
}

static cudaError_t result(cudaError_t error) {
    if (error != cudaSuccess) last = error;
    return error;
}

/* What waits or allocates must not happen while a stream of this thread captures. */
static cudaError_t outside_capture(void) {
    return result(lost        ? cudaErrorIllegalAddress
                  : capturing ? cudaErrorStreamCaptureUnsupported
                              : cudaSuccess);
}

static void *make(size_t bytes) {
    void *p = malloc(bytes);
    if (p) live++;
    return p;
}
static cudaError_t drop(void *p) {
    if (!p) return cudaSuccess;
    live--;
    free(p);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = devices;
    return result(devices ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    if (device >= devices) return result(cudaErrorInvalidValue);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "stand-in");
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 0; /* as the runtime says where there is no driver */
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    return outside_capture();
}
const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess                         ? "no error"
           : error == cudaErrorMemoryAllocation         ? "out of memory"
           : error == cudaErrorNoDevice                 ? "no CUDA-capable device is detected"
           : error == cudaErrorStreamCaptureUnsupported ? "not permitted while capturing"
                                                        : "invalid value or state";
}
cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    if (outside_capture() != cudaSuccess) return last;
    if (fail_at && --fail_at == 0) return result(cudaErrorMemoryAllocation);
    *p = make(bytes);
    if (!*p) return result(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes); /* NaN in every format */
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    return drop(p);
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) {
    if (outside_capture() != cudaSuccess) return last;
    memset(p, value, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    (void)kind, (void)stream;
    if (!to || !from || width > to_pitch || width > from_pitch)
        return result(cudaErrorInvalidValue);
    for (size_t y = 0; y < height; y++)
        memcpy((char *)to + y * to_pitch, (const char *)from + y * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind) {
    if (outside_capture() != cudaSuccess) return last;
    return cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, NULL);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    return cudaMemcpy2D(to, bytes, from, bytes, bytes, 1, kind);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    *stream = make(sizeof **stream);
    if (!*stream) return result(cudaErrorMemoryAllocation);
    memset(*stream, 0, sizeof **stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    return drop(stream);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    while (hangs) pause();
    (void)stream;
    return outside_capture();
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    (void)mode;
    if (!stream || stream->capturing) return result(cudaErrorIllegalState);
    stream->capturing = capturing = 1;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    *graph = NULL;
    if (!stream->capturing) return result(cudaErrorIllegalState);
    stream->capturing = capturing = 0;
    *graph = make(sizeof **graph);
    return result(*graph ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags) {
    if (!graph || flags) return result(cudaErrorInvalidValue);
    *exec = make(sizeof **exec);
    return result(*exec ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    return result(exec && stream && !stream->capturing ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return drop(graph);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return drop(exec);
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = make(sizeof **event);
    if (!*event) return result(cudaErrorMemoryAllocation);
    (*event)->recorded = 0;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return drop(event);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void)stream;
    event->recorded = 1;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (outside_capture() != cudaSuccess) return last;
    return result(event->recorded ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end) {
    *ms = 1;
    return result(begin->recorded && end->recorded ? cudaSuccess : cudaErrorInvalidValue);
}
