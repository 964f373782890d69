// Products of whole tiles in shared memory by four warps together (wgmma, compute capability 9.0 by
// code for sm_90a alone): D (64 x 128 or 64 x 256, fp32) += A (64 x 16) B in bf16 and fp16. Neither
// operand passes through registers.
//
//      wgmma_fence()     D may be used by the tensor cores
//      wgmma_multiply()  starts one product; D is not to be touched
//      wgmma_commit()    ends a group of products
//      wgmma_wait<N>()   all groups but the last N are done: their tiles are free again, and D may
//                        be read where no later group adds to it
//
// D: warp w holds rows 16 w to 16 w + 15. Of lane 4 g + t, d[4 j], d[4 j + 1] are row g, columns
// 8 j + 2 t and 8 j + 2 t + 1; d[4 j + 2], d[4 j + 3] row g + 8, the same columns.
//
// An operand is told by a descriptor. Its bytes are permuted in the address that they lie at: bits
// 7 to 9 (128-byte swizzle) or 7 and 8 (64) are added, exclusive or, to those from bit 4 on, which
// is what swizzled<128> and swizzled<64> do in a tile that begins at a multiple of 1024 bytes.
//
//   rows      K runs fastest, rows of 64 bytes, swizzled<64>: eight rows are 512 bytes. 16 further
//             along K is 32 bytes further.
//   rows_128  the same with rows of 128 bytes, swizzled<128>: eight rows are 1024 bytes.
//   columns   K runs slowest: lines of 64 elements (128 bytes), one for each k, swizzled<128>: 8 k
//             are 1024 bytes, 16 further along K is 2048 bytes further. The next 64 columns are
//             `apart` bytes away.
//
// cp.async and stores into shared memory go another way than these reads (the generic proxy, the
// asynchronous one): whoever copied waits for its copies, then fence_async_proxy(), then the
// barrier. What tma.cuh brings goes the same way as these reads.
//
// A warpgroup that needs more registers than its share of the block's takes them from one that
// needs fewer: registers_give<N>() and registers_take<N>() by all its warps, N a thread from then
// on. Taking waits until as many have been given.
#pragma once

#include "swizzle.cuh"
#include "types.cuh"

namespace tw {

#if defined(TW_EMULATOR) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool has_wgmma = true; // in the code that is being compiled
#else
constexpr bool has_wgmma = false;
#endif

TW_DEVICE unsigned wgmma_address(const void *shared) {
#ifdef TW_EMULATOR
    return emu::shared_address(shared);
#else
    return (unsigned)__cvta_generic_to_shared(shared);
#endif
}

// Where an operand begins, and how far apart its pieces lie: `leading` and `stride` in bytes.
TW_DEVICE uint64_t wgmma_descriptor(const void *start, unsigned leading, unsigned stride,
                                    Swizzle swizzle) {
    const unsigned low = (wgmma_address(start) >> 4 & 0x3fffu) | leading >> 4 << 16;
    const unsigned high = stride >> 4 | (unsigned)swizzle << 30;
    return (uint64_t)high << 32 | low;
}
TW_DEVICE uint64_t wgmma_rows(const void *start) {
    return wgmma_descriptor(start, 16, 512, Swizzle::bytes_64);
}
TW_DEVICE uint64_t wgmma_rows_128(const void *start) {
    return wgmma_descriptor(start, 16, 1024, Swizzle::bytes_128);
}
TW_DEVICE uint64_t wgmma_columns(const void *start, unsigned apart) {
    return wgmma_descriptor(start, apart, 1024, Swizzle::bytes_128);
}

#ifndef TW_EMULATOR

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

TW_DEVICE void fence_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
TW_DEVICE void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
TW_DEVICE void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int LEFT> TW_DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
template <int N> TW_DEVICE void registers_take() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> TW_DEVICE void registers_give() {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
// Nothing of D moves across this: it stands where D changes hands.
template <int N> TW_DEVICE void wgmma_settle(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#define TW_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TW_D16(i) TW_D4(i), TW_D4(i + 4), TW_D4(i + 8), TW_D4(i + 12)
#define TW_WGMMA_128(types)                                                                        \
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                    \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." types                              \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                  \
                 "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, "               \
                 "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "               \
                 "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "               \
                 "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, add, 1, 1, "   \
                 "%66, %67;\n}"                                                                    \
                 : TW_D16(0), TW_D16(16), TW_D16(32), TW_D16(48)                                   \
                 : "l"(a), "l"(b), "n"(A_COLUMNS), "n"(B_COLUMNS))
#define TW_WGMMA_256(types)                                                                        \
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"                                    \
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32." types                              \
                 " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, "                  \
                 "%14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, "               \
                 "%27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "               \
                 "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "               \
                 "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "               \
                 "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, "               \
                 "%79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, "               \
                 "%92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, "                \
                 "%104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, "              \
                 "%115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "              \
                 "%126, %127}, %128, %129, add, 1, 1, %130, %131;\n}"                              \
                 : TW_D16(0), TW_D16(16), TW_D16(32), TW_D16(48), TW_D16(64), TW_D16(80),          \
                   TW_D16(96), TW_D16(112)                                                         \
                 : "l"(a), "l"(b), "n"(A_COLUMNS), "n"(B_COLUMNS))

template <bool A_COLUMNS, bool B_COLUMNS>
TW_DEVICE void wgmma_multiply(bf16, float (&d)[64], uint64_t a, uint64_t b) {
    TW_WGMMA_128("bf16.bf16");
}
template <bool A_COLUMNS, bool B_COLUMNS>
TW_DEVICE void wgmma_multiply(bf16, float (&d)[128], uint64_t a, uint64_t b) {
    TW_WGMMA_256("bf16.bf16");
}
template <bool A_COLUMNS, bool B_COLUMNS>
TW_DEVICE void wgmma_multiply(f16, float (&d)[64], uint64_t a, uint64_t b) {
    TW_WGMMA_128("f16.f16");
}
template <bool A_COLUMNS, bool B_COLUMNS>
TW_DEVICE void wgmma_multiply(f16, float (&d)[128], uint64_t a, uint64_t b) {
    TW_WGMMA_256("f16.f16");
}

#undef TW_WGMMA_256
#undef TW_WGMMA_128
#undef TW_D16
#undef TW_D4

#else // never run, see has_wgmma

TW_DEVICE void fence_async_proxy() {}
TW_DEVICE void wgmma_fence() {}
TW_DEVICE void wgmma_commit() {}
template <int LEFT> TW_DEVICE void wgmma_wait() {}
template <int N> TW_DEVICE void registers_take() {}
template <int N> TW_DEVICE void registers_give() {}
template <int N> TW_DEVICE void wgmma_settle(float (&)[N]) {}
template <bool A_COLUMNS, bool B_COLUMNS, typename T, int N>
TW_DEVICE void wgmma_multiply(T, float (&)[N], uint64_t, uint64_t) {}

#endif

#else

inline void fence_async_proxy() {
    emu::fence_async_proxy();
}
inline void wgmma_fence() {
    emu::wgmma_fence();
}
inline void wgmma_commit() {
    emu::wgmma_commit();
}
template <int LEFT> inline void wgmma_wait(TW_EMU_SITE) {
    emu::wgmma_wait(LEFT, emu::Site{file, line});
}
template <int N> inline void wgmma_settle(float (&)[N]) {}
template <int N> inline void registers_take(TW_EMU_SITE) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
    emu::registers_set(N, true, emu::Site{file, line});
}
template <int N> inline void registers_give(TW_EMU_SITE) {
    static_assert(N >= 24 && N <= 256 && N % 8 == 0, "a number of registers");
    emu::registers_set(N, false, emu::Site{file, line});
}

template <bool A_COLUMNS, bool B_COLUMNS, typename T, int N>
inline void wgmma_multiply(T, float (&d)[N], uint64_t a, uint64_t b, TW_EMU_SITE) {
    static_assert(N == 64 || N == 128, "128 or 256 columns");
    constexpr bool half = std::is_same<T, f16>::value;
    const emu::Product product = {
        half ? emu::Mma::f16 : emu::Mma::bf16, 2 * N, a, b, A_COLUMNS, B_COLUMNS};
    emu::wgmma_multiply(product, d, emu::Site{file, line});
}

#endif

} // namespace tw
