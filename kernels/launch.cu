// What all launchers share: the error text and the limits of the device.
#include "device/launch.cuh"
#include "device/tma.cuh"
#include "device/wgmma.cuh"

#include <stdlib.h>
#include <string.h>

namespace tw {

static thread_local const char *last_error = "";

twk_status fail(twk_status status, const char *text) {
    last_error = text;
    return status;
}

static thread_local twk_launch_info last_launch = {"", 0, 0, 0, 0, 0, 0};
static thread_local const void *last_kernel = nullptr;

void note_launch(const char *name, const LaunchConfig &c, const void *kernel) {
    last_launch = {name,
                   c.grid.x * c.grid.y * c.grid.z,
                   c.block.x * c.block.y * c.block.z,
                   c.cluster,
                   c.shared,
                   0,
                   0};
    last_kernel = kernel;
}

// TWK_WITHOUT in the environment names what is not to be used, to find out on a GPU which part of
// it was understood wrongly, and to have the rest meanwhile: "tma", "wgmma" or "clusters".
static Limits less_of(Limits limits) {
    const char *const without = getenv("TWK_WITHOUT");
    if (!without) return limits;
    if (strstr(without, "clusters")) limits.cluster = 1;
    if (strstr(without, "wgmma")) limits.wgmma = limits.tma = false; // boxes are multiplied by it
    if (strstr(without, "tma")) limits.tma = false;
    return limits;
}

#ifndef TW_EMULATOR
// Work: none, it is asked about and never launched: its launch bound says for which GPU the code
// was compiled. Limit: none.
__global__ void __launch_bounds__(has_wgmma ? 128 : 256) built_for_kernel() {}

// sm_90 code and PTX of older architectures run on compute capability 9.0 too, without wgmma.
// Queries neither wait nor allocate, and are allowed while a stream is captured. False where one
// fails.
static bool ask_for_limits(int device, Limits *limits) {
    int shared = 48 * 1024, major = 8, minor = 0, processors = 1;
    cudaFuncAttributes built = {};
    const bool whole =
        cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) ==
            cudaSuccess &&
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) ==
            cudaSuccess &&
        cudaFuncGetAttributes(&built, built_for_kernel) == cudaSuccess;
    const bool wgmma = whole && major == 9 && minor == 0 && built.maxThreadsPerBlock == 128;
    *limits = less_of(Limits{(size_t)shared, major == 9 ? 8u : 1u, (unsigned)processors, wgmma,
                             wgmma && tensor_maps_there()});
    return whole;
}
#endif

Limits device_limits() {
#ifdef TW_EMULATOR
    return less_of(Limits{emu::shared_limit(), emu::max_cluster(), 4, emu::with_wgmma(),
                          emu::with_wgmma() && tensor_maps_there()});
#else
    // The choice of a tile asks many times.
    static thread_local int known = -1;
    static thread_local Limits limits;
    int device = 0;
    const bool current = cudaGetDevice(&device) == cudaSuccess;
    if (!current || device != known)
        known = ask_for_limits(device, &limits) && current ? device : -1;
    return limits;
#endif
}

} // namespace tw

extern "C" void twk_last_launch(twk_launch_info *info) {
    if (!info) return;
    *info = tw::last_launch;
#ifndef TW_EMULATOR
    cudaFuncAttributes attributes;
    if (tw::last_kernel && cudaFuncGetAttributes(&attributes, tw::last_kernel) == cudaSuccess) {
        info->registers = attributes.numRegs;
        info->local_bytes = (int)attributes.localSizeBytes;
    }
#endif
}

extern "C" const char *twk_error_text(void) {
    return tw::last_error;
}
