/* The table over NVIDIA's runtime library. */
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda/runtime.h"

static _Thread_local char last_text[256] = "no error";

/* An error that is not sticky is forgotten by the library: the next call must not report it. */
static tw_cuda_result result(cudaError_t error) {
    if (error == cudaSuccess) return TW_CUDA_OK;
    cudaGetLastError();
    snprintf(last_text, sizeof last_text, "%s", cudaGetErrorString(error));
    switch (error) {
    case cudaErrorNotReady:
        return TW_CUDA_NOT_READY;
    case cudaErrorMemoryAllocation:
        return TW_CUDA_NO_MEMORY;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorStubLibrary:
        return TW_CUDA_NO_DEVICE;
    default:
        return TW_CUDA_FAILED;
    }
}

static const char *version(void) {
    static _Thread_local char text[32];
    int v = 0;
    if (cudaRuntimeGetVersion(&v) != cudaSuccess) v = CUDART_VERSION;
    snprintf(text, sizeof text, "CUDA %d.%d", v / 1000, v % 1000 / 10);
    return text;
}

static const char *error_text(void) {
    return last_text;
}

static tw_cuda_result device_count(int *count) {
    int driver = 0;
    *count = 0;
    const tw_cuda_result r = result(cudaGetDeviceCount(count));
    if (r == TW_CUDA_NO_DEVICE && cudaDriverGetVersion(&driver) == cudaSuccess && !driver)
        snprintf(last_text, sizeof last_text, "there is no NVIDIA driver");
    return r;
}

static tw_cuda_result device_properties(int device, tw_cuda_properties *out) {
    struct cudaDeviceProp p;
    memset(out, 0, sizeof *out);
    const tw_cuda_result r = result(cudaGetDeviceProperties(&p, device));
    if (r != TW_CUDA_OK) return r;
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    if (cudaDeviceGetPCIBusId(out->pci, (int)sizeof out->pci, device) != cudaSuccess) {
        cudaGetLastError();
        out->pci[0] = '\0';
    }
    out->major = p.major;
    out->minor = p.minor;
    out->memory = p.totalGlobalMem;
    return TW_CUDA_OK;
}

static tw_cuda_result use(int device) {
    return result(cudaSetDevice(device));
}

static tw_cuda_result memory_info(size_t *available, size_t *total) {
    return result(cudaMemGetInfo(available, total));
}

/* Some virtual GPUs have no memory that is ordered on a stream. */
static bool has_pools(int device) {
    int pools = 0;
    return result(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, device)) ==
               TW_CUDA_OK &&
           pools;
}

static tw_cuda_result pool_create(int device, tw_cuda_pool *out) {
    struct cudaMemPoolProps p;
    uint64_t keep = UINT64_MAX;
    *out = NULL;
    if (!has_pools(device)) return TW_CUDA_OK;
    memset(&p, 0, sizeof p);
    p.allocType = cudaMemAllocationTypePinned;
    p.location.type = cudaMemLocationTypeDevice;
    p.location.id = device;
    tw_cuda_result r = result(cudaMemPoolCreate(out, &p));
    if (r != TW_CUDA_OK) return r;
    r = result(cudaMemPoolSetAttribute(*out, cudaMemPoolAttrReleaseThreshold, &keep));
    if (r == TW_CUDA_OK) return r;
    cudaMemPoolDestroy(*out);
    *out = NULL;
    return r;
}

static tw_cuda_result pool_destroy(tw_cuda_pool pool) {
    return result(cudaMemPoolDestroy(pool));
}

static tw_cuda_result pool_unused(tw_cuda_pool pool, size_t *bytes) {
    uint64_t kept = 0, used = 0;
    tw_cuda_result r =
        result(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &kept));
    if (r == TW_CUDA_OK)
        r = result(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
    *bytes = r == TW_CUDA_OK && kept > used ? (size_t)(kept - used) : 0;
    return r;
}

static tw_cuda_result pool_peak(tw_cuda_pool pool, size_t *used, size_t *held) {
    uint64_t most[2] = {0, 0};
    tw_cuda_result r = result(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &most[0]));
    if (r == TW_CUDA_OK)
        r = result(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemHigh, &most[1]));
    *used = (size_t)most[0];
    *held = (size_t)most[1];
    return r;
}

static tw_cuda_result pool_peak_restart(tw_cuda_pool pool) {
    uint64_t from_here = 0; /* no other value is taken */
    const tw_cuda_result r =
        result(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &from_here));
    if (r != TW_CUDA_OK) return r;
    return result(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReservedMemHigh, &from_here));
}

static tw_cuda_result pool_trim(tw_cuda_pool pool) {
    return result(cudaMemPoolTrimTo(pool, 0));
}

static tw_cuda_result allocate(tw_cuda_pool pool, tw_cuda_stream stream, size_t bytes, void **out) {
    *out = NULL;
    return result(pool ? cudaMallocFromPoolAsync(out, bytes, pool, stream)
                       : cudaMalloc(out, bytes));
}

static tw_cuda_result release(tw_cuda_pool pool, tw_cuda_stream stream, void *address) {
    return result(pool ? cudaFreeAsync(address, stream) : cudaFree(address));
}

static tw_cuda_result pinned_allocate(size_t bytes, void **out) {
    *out = NULL;
    return result(cudaHostAlloc(out, bytes, cudaHostAllocDefault));
}

static tw_cuda_result pinned_release(void *address) {
    return result(cudaFreeHost(address));
}

static tw_cuda_result copy(tw_cuda_stream stream, void *dst, const void *src, size_t bytes,
                           tw_cuda_direction direction) {
    static const enum cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                                cudaMemcpyDeviceToDevice};
    return result(cudaMemcpyAsync(dst, src, bytes, kinds[direction], stream));
}

static tw_cuda_result fill(tw_cuda_stream stream, void *dst, int byte, size_t bytes) {
    return result(cudaMemsetAsync(dst, byte, bytes, stream));
}

static tw_cuda_result stream_create(tw_cuda_stream *out) {
    *out = NULL;
    return result(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
}

static tw_cuda_result stream_destroy(tw_cuda_stream stream) {
    return result(cudaStreamDestroy(stream));
}

static tw_cuda_result stream_synchronize(tw_cuda_stream stream) {
    return result(cudaStreamSynchronize(stream));
}

static tw_cuda_result stream_wait(tw_cuda_stream stream, tw_cuda_event event) {
    return result(cudaStreamWaitEvent(stream, event, 0));
}

static tw_cuda_result event_create(tw_cuda_event *out) {
    *out = NULL;
    return result(cudaEventCreateWithFlags(out, cudaEventDisableTiming));
}

static tw_cuda_result timer_create(tw_cuda_event *out) {
    *out = NULL;
    return result(cudaEventCreate(out));
}

static tw_cuda_result event_destroy(tw_cuda_event event) {
    return result(cudaEventDestroy(event));
}

static tw_cuda_result event_record(tw_cuda_event event, tw_cuda_stream stream) {
    return result(cudaEventRecord(event, stream));
}

static tw_cuda_result event_query(tw_cuda_event event) {
    return result(cudaEventQuery(event));
}

static tw_cuda_result event_synchronize(tw_cuda_event event) {
    return result(cudaEventSynchronize(event));
}

static tw_cuda_result event_elapsed(tw_cuda_event from, tw_cuda_event to, float *milliseconds) {
    return result(cudaEventElapsedTime(milliseconds, from, to));
}

/* Other threads may allocate meanwhile. */
static tw_cuda_result capture_begin(tw_cuda_stream stream) {
    return result(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

static tw_cuda_result capture_end(tw_cuda_stream stream, tw_cuda_graph *out) {
    cudaGraph_t graph = NULL;
    *out = NULL;
    tw_cuda_result r = result(cudaStreamEndCapture(stream, &graph));
    if (r == TW_CUDA_OK) r = result(cudaGraphInstantiateWithFlags(out, graph, 0));
    if (graph) cudaGraphDestroy(graph);
    if (r != TW_CUDA_OK) *out = NULL;
    return r;
}

static tw_cuda_result graph_launch(tw_cuda_graph graph, tw_cuda_stream stream) {
    return result(cudaGraphLaunch(graph, stream));
}

static tw_cuda_result graph_destroy(tw_cuda_graph graph) {
    return result(cudaGraphExecDestroy(graph));
}

const tw_cuda_runtime *tw_cuda_runtime_get(void) {
    static const tw_cuda_runtime table = {
        .version = version,
        .error_text = error_text,
        .device_count = device_count,
        .device_properties = device_properties,
        .use = use,
        .memory_info = memory_info,
        .pool_create = pool_create,
        .pool_destroy = pool_destroy,
        .pool_unused = pool_unused,
        .pool_trim = pool_trim,
        .pool_peak = pool_peak,
        .pool_peak_restart = pool_peak_restart,
        .allocate = allocate,
        .release = release,
        .pinned_allocate = pinned_allocate,
        .pinned_release = pinned_release,
        .copy = copy,
        .fill = fill,
        .stream_create = stream_create,
        .stream_destroy = stream_destroy,
        .stream_synchronize = stream_synchronize,
        .stream_wait = stream_wait,
        .event_create = event_create,
        .timer_create = timer_create,
        .event_destroy = event_destroy,
        .event_record = event_record,
        .event_query = event_query,
        .event_synchronize = event_synchronize,
        .event_elapsed = event_elapsed,
        .capture_begin = capture_begin,
        .capture_end = capture_end,
        .graph_launch = graph_launch,
        .graph_destroy = graph_destroy,
    };
    return &table;
}
