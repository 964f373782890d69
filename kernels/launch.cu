// What all launchers share: the error text and the limits of the device.
#include "device/launch.cuh"

namespace tw {

static thread_local const char *last_error = "";

twk_status fail(twk_status status, const char *text) {
    last_error = text;
    return status;
}

Limits device_limits() {
#ifdef TW_EMULATOR
    return Limits{emu::shared_limit(), emu::max_cluster(), 4};
#else
    // Attribute queries neither wait nor allocate, and are allowed while a stream is captured.
    int device = 0, shared = 48 * 1024, major = 8, processors = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    return Limits{(size_t)shared, major == 9 ? 8u : 1u, (unsigned)processors};
#endif
}

} // namespace tw

extern "C" const char *twk_error_text(void) {
    return tw::last_error;
}
