#include "emulated.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "memory.h"
#include "tw_emulator.h"

extern "C" {
#include "backend/cuda/runtime.h"
}

using Call = std::function<bool()>;

struct CUstream_st {
    std::deque<Call> queue;
    uint64_t done = 0; // calls of the queue that have been made
    double cost = 0;   // milliseconds of all that was queued
    bool capturing = false, spoiled = false, broken = false, hurried = false;
    std::vector<Call> recorded;
    double recorded_cost = 0;
};
struct CUevent_st {
    CUstream_st *stream = nullptr;
    uint64_t after = 0; // calls of the stream
    double cost = 0;    // of these
    bool timer = false;
};
struct CUmemPoolHandle_st {
    size_t used = 0, kept = 0; // bytes; kept: of what was used at some time
    size_t most_used = 0, most_kept = 0;
};
struct CUgraphExec_st {
    std::vector<Call> calls;
    double cost = 0;
};

namespace {

std::recursive_mutex everything;
using Lock = std::lock_guard<std::recursive_mutex>;

emulated::Counts n_of;
int64_t n_held, at = INT64_MAX, seen;
bool dry, did_fail, captures_break, stream_breaks, pools_keep, hurry_next;
std::set<CUstream_st *> streams;
int devices = 1, major = 9, minor = 0;
std::string wrong; // reported
std::string device_name = "Emulated GPU";
thread_local std::string text = "no error";

tw_cuda_result fail(tw_cuda_result result, const std::string &why) {
    text = why;
    return result;
}

void blame(const std::string &why) {
    if (wrong.empty()) wrong = why;
}

// Whether something may be made.
bool enough() {
    const int64_t n = seen++;
    if (n != at && !(dry && n > at)) return true;
    did_fail = true;
    return false;
}

// Calls of this stream up to number `until` are made.
tw_cuda_result drain(CUstream_st *s, uint64_t until) {
    memory::open();
    while (s->done < until && !s->queue.empty()) {
        Call call = std::move(s->queue.front());
        s->queue.pop_front();
        s->done++;
        if (s->broken || call()) continue;
        s->broken = true;
        const std::string fault = tw::emu::take_report();
        blame(fault.empty() ? "a queued call failed" : fault);
    }
    memory::close();
    if (!s->broken) return TW_CUDA_OK;
    return fail(TW_CUDA_FAILED, "an illegal memory access was encountered");
}

// As break_stream asks.
tw_cuda_result break_now(CUstream_st *s) {
    s->broken = true;
    stream_breaks = false;
    return drain(s, s->done + s->queue.size());
}

uint64_t end_of(const CUstream_st *s) {
    return s->done + s->queue.size();
}

double kernel_cost = 1, library_cost = 1;

// Queued, or recorded.
tw_cuda_result enqueue(CUstream_st *s, Call call, double cost = 0) {
    if (!s) return fail(TW_CUDA_FAILED, "the default stream");
    if (s->broken) return fail(TW_CUDA_FAILED, "an illegal memory access was encountered");
    if (s->capturing) {
        s->recorded.push_back(std::move(call));
        s->recorded_cost += cost;
        return TW_CUDA_OK;
    }
    s->queue.push_back(std::move(call));
    s->cost += cost;
    if (!s->hurried) return TW_CUDA_OK;
    const tw_cuda_result r = drain(s, end_of(s));
    for (const CUstream_st *other : streams)
        if (!other->queue.empty()) {
            n_of.ahead++;
            break;
        }
    return r;
}

// What a capturing stream does not take.
bool refused(CUstream_st *s) {
    if (!s || !s->capturing) return false;
    s->spoiled = true;
    fail(TW_CUDA_FAILED, "operation not permitted when stream is capturing");
    return true;
}

bool launch_at(void *stream, std::function<bool()> call, double cost) {
    Lock lock(everything);
    n_of.launches++;
    return enqueue(static_cast<CUstream_st *>(stream), std::move(call), cost) == TW_CUDA_OK;
}
bool launch(void *stream, std::function<bool()> call) {
    return launch_at(stream, std::move(call), kernel_cost);
}

const char *version() {
    return "emulated CUDA";
}
const char *error_text() {
    return text.c_str();
}
tw_cuda_result device_count(int *count) {
    *count = devices;
    return devices ? TW_CUDA_OK : fail(TW_CUDA_NO_DEVICE, "no CUDA-capable device is detected");
}
tw_cuda_result device_properties(int device, tw_cuda_properties *out) {
    if (device < 0 || device >= devices) return fail(TW_CUDA_FAILED, "invalid device ordinal");
    *out = tw_cuda_properties{"", "0000:ec:00.0", major, minor, memory::capacity};
    snprintf(out->name, sizeof out->name, "%s", device_name.c_str());
    return TW_CUDA_OK;
}
thread_local int used = -1;
tw_cuda_result use(int device) {
    tw::emu::launch_later = launch;
    used = device;
    return device >= 0 && device < devices ? TW_CUDA_OK
                                           : fail(TW_CUDA_FAILED, "invalid device ordinal");
}
tw_cuda_result memory_info(size_t *available, size_t *total) {
    Lock lock(everything);
    *total = memory::capacity;
    *available = memory::capacity - memory::bytes();
    return TW_CUDA_OK;
}

template <typename T> tw_cuda_result make(T **out) {
    Lock lock(everything);
    *out = nullptr;
    if (!enough()) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    *out = new T();
    n_held++;
    return TW_CUDA_OK;
}
template <typename T> tw_cuda_result drop(T *what) {
    Lock lock(everything);
    n_held--;
    delete what;
    return TW_CUDA_OK;
}

std::map<void *, size_t> sizes; // of device memory, for the pools' books
tw_cuda_result pool_create(int, tw_cuda_pool *out) {
    return make(out);
}
tw_cuda_result pool_destroy(tw_cuda_pool pool) {
    Lock lock(everything);
    if (pool->used) blame("a pool is destroyed while its memory is used");
    return drop(pool);
}
tw_cuda_result pool_unused(tw_cuda_pool pool, size_t *bytes) {
    Lock lock(everything);
    *bytes = pools_keep ? pool->kept - pool->used : 0;
    return TW_CUDA_OK;
}
tw_cuda_result pool_trim(tw_cuda_pool pool) {
    Lock lock(everything);
    n_of.trims++;
    pool->kept = pool->used;
    return TW_CUDA_OK;
}
tw_cuda_result pool_peak(tw_cuda_pool pool, size_t *most_used, size_t *most_held) {
    Lock lock(everything);
    *most_used = pool->most_used;
    *most_held = pool->most_kept;
    return TW_CUDA_OK;
}
tw_cuda_result pool_peak_restart(tw_cuda_pool pool) {
    Lock lock(everything);
    pool->most_used = pool->used;
    pool->most_kept = pool->kept;
    return TW_CUDA_OK;
}
tw_cuda_result allocate(tw_cuda_pool pool, tw_cuda_stream s, size_t bytes, void **out) {
    Lock lock(everything);
    *out = nullptr;
    if (used < 0) return fail(TW_CUDA_FAILED, "no device is used by this thread");
    if (refused(s)) return TW_CUDA_FAILED;
    n_of.device++;
    if (!enough() || !(*out = memory::take(bytes))) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    n_held++;
    sizes[*out] = bytes;
    if (!pool) return TW_CUDA_OK;
    pool->used += bytes;
    if (pool->kept < pool->used) pool->kept = pool->used;
    pool->most_used = std::max(pool->most_used, pool->used);
    pool->most_kept = std::max(pool->most_kept, pool->kept);
    return TW_CUDA_OK;
}
tw_cuda_result release(tw_cuda_pool pool, tw_cuda_stream s, void *address) {
    Lock lock(everything);
    if (refused(s)) return TW_CUDA_FAILED;
    if (!memory::leave(address)) {
        blame("release of what is no device memory");
        return fail(TW_CUDA_FAILED, "invalid argument");
    }
    n_held--;
    if (pool) pool->used -= sizes[address];
    const auto back = [address] {
        if (memory::give(address)) return true;
        blame("a guard zone of device memory was written to");
        return false;
    };
    if (s->broken) {
        memory::open();
        back();
        memory::close();
        return fail(TW_CUDA_FAILED, "an illegal memory access was encountered");
    }
    return enqueue(s, back);
}

std::map<const char *, size_t> pinned;
bool is_pinned(const void *p, size_t bytes) {
    const char *address = static_cast<const char *>(p);
    auto next = pinned.upper_bound(address);
    if (next == pinned.begin()) return false;
    --next;
    return address + bytes <= next->first + next->second;
}
tw_cuda_result pinned_allocate(size_t bytes, void **out) {
    Lock lock(everything);
    *out = nullptr;
    n_of.pinned++;
    if (!enough() || !(*out = malloc(bytes))) return fail(TW_CUDA_NO_MEMORY, "out of memory");
    pinned[static_cast<char *>(*out)] = bytes;
    n_held++;
    return TW_CUDA_OK;
}
tw_cuda_result pinned_release(void *address) {
    Lock lock(everything);
    if (!pinned.erase(static_cast<char *>(address))) {
        blame("release of what is not pinned");
        return fail(TW_CUDA_FAILED, "invalid argument");
    }
    n_held--;
    free(address);
    return TW_CUDA_OK;
}

tw_cuda_result copy(tw_cuda_stream s, void *dst, const void *src, size_t bytes,
                    tw_cuda_direction direction) {
    Lock lock(everything);
    if (direction != TW_CUDA_ON && refused(s)) return TW_CUDA_FAILED;
    if ((direction != TW_CUDA_OUT && !memory::is_live(dst, bytes)) ||
        (direction != TW_CUDA_IN && !memory::is_live(src, bytes))) {
        blame("a copy beyond device memory");
        return fail(TW_CUDA_FAILED, "invalid argument");
    }
    if (direction == TW_CUDA_IN && !is_pinned(src, bytes)) {
        blame("a copy from memory that is not pinned");
        return fail(TW_CUDA_FAILED, "invalid argument");
    }
    n_of.copies++;
    if (direction == TW_CUDA_IN) n_of.sent += (int64_t)bytes;
    return enqueue(s, [=] {
        memmove(dst, src, bytes);
        return true;
    });
}
tw_cuda_result fill(tw_cuda_stream s, void *dst, int byte, size_t bytes) {
    Lock lock(everything);
    if (!memory::is_live(dst, bytes)) {
        blame("a fill beyond device memory");
        return fail(TW_CUDA_FAILED, "invalid argument");
    }
    return enqueue(s, [=] {
        memset(dst, byte, bytes);
        return true;
    });
}

tw_cuda_result stream_create(tw_cuda_stream *out) {
    Lock lock(everything);
    const tw_cuda_result r = make(out);
    if (r != TW_CUDA_OK) return r;
    (*out)->hurried = hurry_next;
    streams.insert(*out);
    return TW_CUDA_OK;
}
tw_cuda_result stream_destroy(tw_cuda_stream s) {
    Lock lock(everything);
    drain(s, end_of(s));
    streams.erase(s);
    return drop(s);
}
tw_cuda_result stream_synchronize(tw_cuda_stream s) {
    Lock lock(everything);
    if (refused(s)) return TW_CUDA_FAILED;
    n_of.waits++;
    s->broken = s->broken || stream_breaks;
    stream_breaks = false;
    return drain(s, end_of(s));
}
tw_cuda_result stream_wait(tw_cuda_stream s, tw_cuda_event e) {
    Lock lock(everything);
    const CUevent_st event = *e;
    return enqueue(
        s, [event] { return !event.stream || drain(event.stream, event.after) == TW_CUDA_OK; });
}

tw_cuda_result event_create(tw_cuda_event *out) {
    return make(out);
}
tw_cuda_result timer_create(tw_cuda_event *out) {
    const tw_cuda_result r = make(out);
    if (r == TW_CUDA_OK) (*out)->timer = true;
    return r;
}
tw_cuda_result event_destroy(tw_cuda_event e) {
    return drop(e);
}
tw_cuda_result event_record(tw_cuda_event e, tw_cuda_stream s) {
    Lock lock(everything);
    if (refused(s)) return TW_CUDA_FAILED;
    *e = CUevent_st{s, end_of(s), s->cost, e->timer};
    return TW_CUDA_OK;
}
tw_cuda_result event_elapsed(tw_cuda_event from, tw_cuda_event to, float *milliseconds) {
    Lock lock(everything);
    for (const CUevent_st *e : {from, to}) {
        if (!e->timer || !e->stream) return fail(TW_CUDA_FAILED, "invalid resource handle");
        if (e->stream->done < e->after) return fail(TW_CUDA_NOT_READY, "device not ready");
    }
    *milliseconds = (float)(to->cost - from->cost);
    return TW_CUDA_OK;
}
// Asking lets one more call happen, so that a loop of questions ends.
tw_cuda_result event_query(tw_cuda_event e) {
    Lock lock(everything);
    if (!e->stream) return TW_CUDA_OK;
    if (stream_breaks || e->stream->broken) return break_now(e->stream);
    if (e->stream->done >= e->after) return TW_CUDA_OK;
    if (drain(e->stream, e->stream->done + 1) != TW_CUDA_OK) return TW_CUDA_FAILED;
    return fail(TW_CUDA_NOT_READY, "device not ready");
}
tw_cuda_result event_synchronize(tw_cuda_event e) {
    Lock lock(everything);
    if (refused(e->stream)) return TW_CUDA_FAILED;
    n_of.waits++;
    if (e->stream && stream_breaks) return break_now(e->stream);
    return e->stream ? drain(e->stream, e->after) : TW_CUDA_OK;
}

tw_cuda_result capture_begin(tw_cuda_stream s) {
    Lock lock(everything);
    if (s->capturing) return fail(TW_CUDA_FAILED, "the stream is capturing");
    s->capturing = true;
    s->spoiled = false;
    return TW_CUDA_OK;
}
tw_cuda_result capture_end(tw_cuda_stream s, tw_cuda_graph *out) {
    Lock lock(everything);
    *out = nullptr;
    std::vector<Call> calls = std::move(s->recorded);
    const double cost = s->recorded_cost;
    s->recorded.clear();
    s->recorded_cost = 0;
    if (!s->capturing) return fail(TW_CUDA_FAILED, "the stream is not capturing");
    s->capturing = false;
    n_of.captures++;
    if (s->spoiled || captures_break)
        return fail(TW_CUDA_FAILED, "operation failed due to a previous error during capture");
    const tw_cuda_result r = make(out);
    if (r == TW_CUDA_OK) (*out)->calls = std::move(calls);
    if (r == TW_CUDA_OK) (*out)->cost = cost;
    return r;
}
tw_cuda_result graph_launch(tw_cuda_graph g, tw_cuda_stream s) {
    Lock lock(everything);
    n_of.graphs++;
    return enqueue(
        s,
        [calls = g->calls] {
            for (const Call &call : calls)
                if (!call()) return false;
            return true;
        },
        g->cost);
}
tw_cuda_result graph_destroy(tw_cuda_graph g) {
    return drop(g);
}

// Its libraries are nowhere, so that no test depends on those of the machine.
tw_cuda_runtime table = {
    version,
    error_text,
    device_count,
    device_properties,
    use,
    memory_info,
    pool_create,
    pool_destroy,
    pool_unused,
    pool_trim,
    pool_peak,
    pool_peak_restart,
    allocate,
    release,
    pinned_allocate,
    pinned_release,
    copy,
    fill,
    stream_create,
    stream_destroy,
    stream_synchronize,
    stream_wait,
    event_create,
    timer_create,
    event_destroy,
    event_record,
    event_query,
    event_synchronize,
    event_elapsed,
    capture_begin,
    capture_end,
    graph_launch,
    graph_destroy,
    "/no/libcudnn",
    "/no/libcublasLt",
    FAKE_NVML,
};

} // namespace

extern "C" const tw_cuda_runtime *tw_cuda_runtime_get(void) {
    return &table;
}

namespace emulated {

Counts counts() {
    Lock lock(everything);
    return n_of;
}
int64_t held() {
    Lock lock(everything);
    return n_held;
}
size_t device_bytes() {
    Lock lock(everything);
    return memory::bytes();
}
void fail_at(int64_t n, bool and_after) {
    Lock lock(everything);
    seen = 0;
    at = n;
    dry = and_after;
    did_fail = false;
}
bool failed() {
    return did_fail;
}
void set_libraries(const char *cudnn, const char *cublaslt) {
    table.cudnn = cudnn ? cudnn : "/no/libcudnn";
    table.cublaslt = cublaslt ? cublaslt : "/no/libcublasLt";
}
void set_nvml(const char *file) {
    table.nvml = file ? file : FAKE_NVML;
}
bool later(void *stream, std::function<bool()> call) {
    return launch_at(stream, std::move(call), library_cost);
}
void plenty() {
    at = INT64_MAX;
    dry = false;
}
void set_costs(double kernel, double library) {
    kernel_cost = kernel;
    library_cost = library;
}
void set_name(const char *name) {
    device_name = name;
}
void set_devices(int count) {
    devices = count;
}
void set_capability(int a, int b) {
    major = a;
    minor = b;
}
void hurry(bool on) {
    hurry_next = on;
}
void keep_in_pools(bool on) {
    pools_keep = on;
}
void break_captures(bool on) {
    captures_break = on;
}
void break_stream() {
    stream_breaks = true;
}
std::string report() {
    Lock lock(everything);
    memory::open();
    if (!memory::intact()) blame("a guard zone of device memory was written to");
    memory::close();
    std::string r = wrong;
    wrong.clear();
    return r;
}

} // namespace emulated
