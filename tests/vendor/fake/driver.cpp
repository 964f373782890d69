// The driver: host memory, and a clock that stands between executions.
#include "fake.h"

#include <cstdlib>
#include <cstring>

static fake::State state;

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT fake::State *fake_state() {
    return &state;
}

EXPORT int cuEventCreate(float **event, unsigned) {
    *event = new float(-1);
    state.live++;
    return 0;
}
EXPORT int cuEventDestroy_v2(float *event) {
    delete event;
    state.live--;
    return 0;
}
EXPORT int cuEventRecord(float *event, void *) {
    *event = state.clock;
    return 0;
}
EXPORT int cuEventSynchronize(float *) {
    return 0;
}
EXPORT int cuEventElapsedTime(float *milliseconds, const float *from, const float *to) {
    *milliseconds = *to - *from;
    return *from < 0 || *to < 0;
}
EXPORT int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    void *p = nullptr;
    if (state.no_memory || posix_memalign(&p, 256, bytes)) return 2;
    *address = reinterpret_cast<uintptr_t>(p);
    state.live++;
    return 0;
}
EXPORT int cuMemFree_v2(unsigned long long address) {
    free(reinterpret_cast<void *>(address));
    state.live--;
    return 0;
}
EXPORT int cuMemsetD8Async(unsigned long long address, unsigned char byte, size_t bytes, void *) {
    memset(reinterpret_cast<void *>(address), byte, bytes);
    return 0;
}
EXPORT int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes) {
    memcpy(to, reinterpret_cast<void *>(from), bytes);
    return 0;
}
EXPORT int cuStreamSynchronize(void *) {
    return 0;
}
EXPORT int cuStreamIsCapturing(void *, int *status) {
    *status = state.capturing;
    return 0;
}
