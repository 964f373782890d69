// A CUDA runtime without a GPU: the table of backend/cuda/runtime.h over the emulated kernels. In
// the device build (TW_TEST_DEVICE, device.cpp) NVIDIA's own stands behind the same interface; what
// only a stand-in can do is not there.
//
// Nothing that is queued on a stream happens before somebody waits for it: copies arrive as late as
// they may. Device memory lies between guard zones, starts as NaN, and can be touched while queued
// work runs only: a host that dereferences it crashes. What a capturing stream refuses is refused.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>

namespace emulated {

struct Counts {
    int64_t device, pinned; // allocations
    int64_t waits;          // for a stream or an event
    int64_t launches;       // of kernels, one by one or recorded
    int64_t graphs;         // launched
    int64_t captures;       // ended
    int64_t copies;         // queued or recorded
    int64_t sent;           // bytes of those from the host
    int64_t trims;          // of pools
    int64_t ahead;          // calls of hurried streams, while others had something queued
};
Counts counts();

// What was not given back: memory, streams, events, graphs.
int64_t held();
size_t device_bytes();

// Call `n` from now on (0 is the next) that makes something fails for want of memory, and with
// `dry` all after it.
void fail_at(int64_t n, bool dry = false);
bool failed(); // since fail_at
void plenty();

// Ends of captures fail.
void break_captures(bool on);
// Streams that are made while it is on do at once what is queued on them, after what they wait for:
// as early as they may, where others do it as late as they may. What is not ordered between two
// streams goes wrong one way or the other. (On a device streams go as they go.)
void hurry(bool on);

#ifndef TW_TEST_DEVICE
void set_devices(int count);
void set_capability(int major, int minor);
void set_name(const char *name);
// Milliseconds that a launch of a kernel, and a library's call, is said to take.
void set_costs(double kernel, double library);
// Pools say what they keep, which is what a want of memory is mended with.
void keep_in_pools(bool on);
// The next wait for a stream or an event fails, and everything after it: as when a kernel went
// wrong.
void break_stream();

// The management library's file; null: the stand-in that the device begins with.
void set_nvml(const char *file);
// Files of cuDNN and cuBLASLt; null: there are none.
void set_libraries(const char *cudnn, const char *cublaslt);
// Queues or records a call that a library makes of its own.
bool later(void *stream, std::function<bool()> call);
#endif

// What was wrong with the work so far (and forget it): guard zones, addresses, kernels' faults.
std::string report();

} // namespace emulated
