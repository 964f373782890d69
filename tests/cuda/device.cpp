// The interface of emulated.h over a real GPU: calls go through to NVIDIA's runtime library, are
// counted, and fail on demand. What this cannot see (guard zones, what a queue holds) is the
// business of compute-sanitizer.
#include "emulated.h"

#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

extern "C" {
#include "backend/cuda/runtime.h"

// The linker gives those who ask for the left ones the right ones (--wrap).
const tw_cuda_runtime *__real_tw_cuda_runtime_get(void);
const tw_cuda_runtime *__wrap_tw_cuda_runtime_get(void);
cudaError_t __real_cudaLaunchKernelExC(const cudaLaunchConfig_t *, const void *, void **);
cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *, const void *, void **);
}

namespace {

std::mutex everything;
using Lock = std::lock_guard<std::mutex>;

emulated::Counts n_of;
int64_t n_held, at = INT64_MAX, seen;
bool dry, did_fail, captures_break;
std::map<void *, size_t> blocks;
thread_local const char *text; // of a failure on demand; null: the library's

const tw_cuda_runtime *real() {
    static const tw_cuda_runtime *const table = __real_tw_cuda_runtime_get();
    return table;
}

const char *error_text() {
    return text ? text : real()->error_text();
}

tw_cuda_result fail(tw_cuda_result r, const char *why) {
    text = why;
    return r;
}

tw_cuda_result done(tw_cuda_result r) {
    if (r != TW_CUDA_OK) text = nullptr;
    return r;
}

// Whether something may be made.
bool enough() {
    const Lock lock(everything);
    const int64_t n = seen++;
    if (n != at && !(dry && n > at)) return true;
    did_fail = true;
    return false;
}

void count(int64_t emulated::Counts::*what, int64_t n = 1) {
    const Lock lock(everything);
    n_of.*what += n;
}

void hold(int64_t n, tw_cuda_result r = TW_CUDA_OK) {
    const Lock lock(everything);
    if (r == TW_CUDA_OK) n_held += n;
}

// Filled with 0xff: NaN in every format.
tw_cuda_result allocate(tw_cuda_pool pool, tw_cuda_stream s, size_t bytes, void **out) {
    *out = nullptr;
    count(&emulated::Counts::device);
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->allocate(pool, s, bytes, out));
    if (r != TW_CUDA_OK) return r;
    hold(1);
    const Lock lock(everything);
    blocks[*out] = bytes;
    return done(real()->fill(s, *out, 0xff, bytes));
}

tw_cuda_result release(tw_cuda_pool pool, tw_cuda_stream s, void *address) {
    hold(-1);
    {
        const Lock lock(everything);
        blocks.erase(address);
    }
    return done(real()->release(pool, s, address));
}

tw_cuda_result pool_create(int device, tw_cuda_pool *out) {
    *out = nullptr;
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->pool_create(device, out));
    if (*out) hold(1, r);
    return r;
}

tw_cuda_result pool_destroy(tw_cuda_pool pool) {
    if (pool) hold(-1);
    return done(real()->pool_destroy(pool));
}

tw_cuda_result pool_trim(tw_cuda_pool pool) {
    count(&emulated::Counts::trims);
    return done(real()->pool_trim(pool));
}

tw_cuda_result pinned_allocate(size_t bytes, void **out) {
    *out = nullptr;
    count(&emulated::Counts::pinned);
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->pinned_allocate(bytes, out));
    hold(1, r);
    return r;
}

tw_cuda_result pinned_release(void *address) {
    hold(-1);
    return done(real()->pinned_release(address));
}

tw_cuda_result copy(tw_cuda_stream s, void *dst, const void *src, size_t bytes,
                    tw_cuda_direction direction) {
    count(&emulated::Counts::copies);
    if (direction == TW_CUDA_IN) count(&emulated::Counts::sent, (int64_t)bytes);
    return done(real()->copy(s, dst, src, bytes, direction));
}

tw_cuda_result stream_create(tw_cuda_stream *out) {
    *out = nullptr;
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->stream_create(out));
    hold(1, r);
    return r;
}

tw_cuda_result stream_destroy(tw_cuda_stream s) {
    hold(-1);
    return done(real()->stream_destroy(s));
}

tw_cuda_result stream_synchronize(tw_cuda_stream s) {
    count(&emulated::Counts::waits);
    return done(real()->stream_synchronize(s));
}

tw_cuda_result event_create(tw_cuda_event *out) {
    *out = nullptr;
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->event_create(out));
    hold(1, r);
    return r;
}

tw_cuda_result timer_create(tw_cuda_event *out) {
    *out = nullptr;
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    const tw_cuda_result r = done(real()->timer_create(out));
    hold(1, r);
    return r;
}

tw_cuda_result event_destroy(tw_cuda_event e) {
    hold(-1);
    return done(real()->event_destroy(e));
}

tw_cuda_result event_synchronize(tw_cuda_event e) {
    count(&emulated::Counts::waits);
    return done(real()->event_synchronize(e));
}

tw_cuda_result capture_end(tw_cuda_stream s, tw_cuda_graph *out) {
    count(&emulated::Counts::captures);
    const tw_cuda_result r = done(real()->capture_end(s, out));
    if (r != TW_CUDA_OK) return r;
    if (!captures_break && enough()) {
        hold(1);
        return r;
    }
    real()->graph_destroy(*out);
    *out = nullptr;
    if (!captures_break) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    return fail(TW_CUDA_FAILED, "operation failed due to a previous error during capture");
}

tw_cuda_result graph_launch(tw_cuda_graph g, tw_cuda_stream s) {
    count(&emulated::Counts::graphs);
    return done(real()->graph_launch(g, s));
}

tw_cuda_result graph_destroy(tw_cuda_graph g) {
    hold(-1);
    return done(real()->graph_destroy(g));
}

tw_cuda_runtime watched() {
    tw_cuda_runtime t = *real();
    t.error_text = error_text;
    t.pool_create = pool_create;
    t.pool_destroy = pool_destroy;
    t.pool_trim = pool_trim;
    t.allocate = allocate;
    t.release = release;
    t.pinned_allocate = pinned_allocate;
    t.pinned_release = pinned_release;
    t.copy = copy;
    t.stream_create = stream_create;
    t.stream_destroy = stream_destroy;
    t.stream_synchronize = stream_synchronize;
    t.event_create = event_create;
    t.timer_create = timer_create;
    t.event_destroy = event_destroy;
    t.event_synchronize = event_synchronize;
    t.capture_end = capture_end;
    t.graph_launch = graph_launch;
    t.graph_destroy = graph_destroy;
    return t;
}

// Without a GPU no test begins.
class Gpu : public testing::Environment {
    void SetUp() override {
        int n = 0;
        if (real()->device_count(&n) != TW_CUDA_OK || n == 0)
            GTEST_SKIP() << "no CUDA device: " << (n ? "" : real()->error_text());
    }
};
const testing::Environment *const gpu = testing::AddGlobalTestEnvironment(new Gpu);

} // namespace

const tw_cuda_runtime *__wrap_tw_cuda_runtime_get(void) {
    static const tw_cuda_runtime table = watched();
    return &table;
}

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel,
                                       void **arguments) {
    count(&emulated::Counts::launches);
    return __real_cudaLaunchKernelExC(config, kernel, arguments);
}

namespace emulated {

Counts counts() {
    const Lock lock(everything);
    return n_of;
}
int64_t held() {
    const Lock lock(everything);
    return n_held;
}
size_t device_bytes() {
    const Lock lock(everything);
    size_t sum = 0;
    for (const auto &b : blocks) sum += b.second;
    return sum;
}
void fail_at(int64_t n, bool and_after) {
    const Lock lock(everything);
    seen = 0;
    at = n;
    dry = and_after;
    did_fail = false;
}
bool failed() {
    return did_fail;
}
void plenty() {
    const Lock lock(everything);
    at = INT64_MAX;
    dry = false;
}
void break_captures(bool on) {
    captures_break = on;
}
void hurry(bool) {}
std::string report() {
    const cudaError_t error = cudaDeviceSynchronize();
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

} // namespace emulated
