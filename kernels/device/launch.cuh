// The only way to launch a kernel (TW_LAUNCH), the only way to shared memory (TW_SHARED), and what
// every launcher needs: checks, format dispatch, limits of the device.
#pragma once

#include "../kernels.h"
#include "platform.cuh"
#include "types.cuh"

#include <tuple>
#include <type_traits>

#ifndef TW_EMULATOR
#if defined(__has_include)
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define TW_HAVE_NVTX 1
#endif
#endif
#endif

namespace tw {

struct LaunchConfig {
    dim3 grid = dim3(1), block = dim3(256);
    size_t shared = 0;
    twk_stream stream = nullptr;
    unsigned cluster = 1;
};

// Remembers the launch for twk_last_launch().
void note_launch(const char *name, const LaunchConfig &config, const void *kernel);

// Remembers what was wrong for twk_error_text() and gives the status back.
twk_status fail(twk_status status, const char *text);

struct Limits {
    size_t shared; // bytes of shared memory a block may ask for
    unsigned cluster;
    unsigned processors;
    bool wgmma; // and the code for this device was compiled with it
    bool tma;   // the same, and the driver describes tensors for it
};
Limits device_limits();

#ifdef TW_EMULATOR

#define TW_SHARED(arena) ::tw::SharedArena arena
#define TW_LAUNCH(kernel, config, ...)                                                             \
    ::tw::launch_emulated(#kernel, ::tw::emu::Site{__FILE__, __LINE__}, config, kernel, __VA_ARGS__)

// As on a device the arguments are copied: the kernel may run when the launcher has returned.
template <typename... P, typename... A>
twk_status launch_emulated(const char *name, emu::Site site, const LaunchConfig &c,
                           void (*kernel)(P...), const A &...args) {
    note_launch(name, c, nullptr);
    const std::tuple<P...> values(static_cast<P>(args)...);
    const auto body = [=] { std::apply(kernel, values); };
    if (emu_launch(name, site, c.grid, c.block, c.shared, c.cluster, c.stream, body)) return TWK_OK;
    return fail(TWK_LAUNCH_FAILED, "the emulator reported a fault");
}

#else

// Hands out pieces of the block's dynamic shared memory, each 16-byte aligned, the first 1024.
class SharedArena {
  public:
    __device__ explicit SharedArena(unsigned char *base) : next_(base) {}
    template <typename T> TW_DEVICE T *take(size_t count) {
        T *p = reinterpret_cast<T *>(next_);
        next_ += (count * sizeof(T) + 15) / 16 * 16;
        return p;
    }

  private:
    unsigned char *next_;
};

#define TW_SHARED(arena)                                                                           \
    extern __shared__ __align__(1024) unsigned char tw_shared_bytes[];                             \
    ::tw::SharedArena arena(tw_shared_bytes)
#define TW_LAUNCH(kernel, config, ...) ::tw::launch_device(#kernel, kernel, config, __VA_ARGS__)

template <typename... P, typename... A>
twk_status launch_device(const char *name, void (*kernel)(P...), const LaunchConfig &c,
                         const A &...args) {
#ifdef TW_HAVE_NVTX
    nvtxRangePushA(name);
#endif
    note_launch(name, c, reinterpret_cast<const void *>(kernel));
    cudaError_t error = cudaSuccess;
    if (c.shared > 48 * 1024)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     (int)c.shared);
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attribute;
    config.gridDim = c.grid;
    config.blockDim = c.block;
    config.dynamicSmemBytes = c.shared;
    config.stream = reinterpret_cast<cudaStream_t>(c.stream);
    if (c.cluster > 1) {
        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = c.cluster;
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        config.attrs = &attribute;
        config.numAttrs = 1;
    }
    if (error == cudaSuccess) error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
#ifdef TW_HAVE_NVTX
    nvtxRangePop();
#endif
    return error == cudaSuccess ? TWK_OK : fail(TWK_LAUNCH_FAILED, cudaGetErrorString(error));
}

#endif

// Bytes that arena.take<T>(count) uses.
template <typename T> size_t shared_bytes(size_t count) {
    return (count * sizeof(T) + 15) / 16 * 16;
}

#define TW_REQUIRE(condition, text)                                                                \
    do {                                                                                           \
        if (!(condition)) return ::tw::fail(TWK_BAD_ARGUMENT, text);                               \
    } while (0)

// Calls f with a value of the C++ type of a format.
template <typename F> twk_status with_format(twk_format format, const F &f) {
    switch (format) {
    case TWK_F32:
        return f(float{});
    case TWK_BF16:
        return f(bf16{});
    case TWK_F16:
        return f(f16{});
    }
    return fail(TWK_BAD_ARGUMENT, "format: expected fp32, bf16 or fp16");
}

template <typename F> twk_status with_flag(bool flag, const F &f) {
    return flag ? f(std::true_type{}) : f(std::false_type{});
}

inline bool is_format(twk_format f) {
    return f == TWK_F32 || f == TWK_BF16 || f == TWK_F16;
}
inline size_t format_bytes(twk_format f) {
    return f == TWK_F32 ? 4 : 2;
}

// Blocks for `count` items of work, `per_block` each. A grid holds 2^31 - 1 of them.
inline bool grid_for(int64_t count, int64_t per_block, dim3 *grid) {
    const int64_t n = count / per_block + (count % per_block != 0);
    if (n < 1 || n > 0x7fffffff) return false;
    *grid = dim3((unsigned)n);
    return true;
}

// batch * elements, or -1 where that does not fit.
inline int64_t total_of(int64_t batch, int64_t elements) {
    int64_t total;
    if (batch < 1 || elements < 1 || __builtin_mul_overflow(batch, elements, &total)) return -1;
    return total;
}

} // namespace tw
