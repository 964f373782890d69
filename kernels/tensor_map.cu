// Descriptions of tensors for TMA. The driver makes them; its function is looked up, so that
// nothing here is linked to the driver's library.
#include "device/launch.cuh"
#include "device/tma.cuh"

#ifndef TW_EMULATOR
#include <cudaTypedefs.h>
#endif

namespace tw {

// As tiles for wgmma have them; the driver would take shorter ones, too.
static bool rows_fill_swizzle(const TensorBox &box) {
    const unsigned widths[] = {0, 128, 64, 32}, width = widths[(unsigned)box.swizzle];
    return !width || box.box[0] * format_bytes(box.format) == width;
}

static twk_status check(const TensorBox &box) {
    if (!tensor_maps_there()) return fail(TWK_UNSUPPORTED, "tensor map: no TMA here");
    TW_REQUIRE(box.rank >= 1 && box.rank <= 5 && box.step[0] == 1,
               "tensor map: 1 to 5 dimensions, the first without a step");
    if (!rows_fill_swizzle(box))
        return fail(TWK_UNSUPPORTED, "tensor map: rows are not as long as the swizzle");
    return TWK_OK;
}

#ifdef TW_EMULATOR

bool tensor_maps_there() {
    return emu::with_tma();
}

twk_status tensor_map(const TensorBox &box, TensorMap *map) {
    const twk_status right = check(box);
    if (right != TWK_OK) return right;
    emu::Tensor t = {};
    t.base = static_cast<const unsigned char *>(box.base);
    t.element = (unsigned)format_bytes(box.format);
    t.rank = box.rank;
    t.swizzle = (unsigned)box.swizzle;
    for (int i = 0; i < 5; i++) {
        t.size[i] = box.size[i];
        t.stride[i] = box.stride_bytes[i];
        t.box[i] = box.box[i];
        t.step[i] = box.step[i];
    }
    const char *refused = emu::tensor_map(t, map);
    return refused ? fail(TWK_UNSUPPORTED, refused) : TWK_OK;
}

#else

using Encode = PFN_cuTensorMapEncodeTiled_v12000;

static Encode find_encode() {
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                               12000, cudaEnableDefault, &result);
#else
    const cudaError_t error =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    if (error == cudaSuccess && result == cudaDriverEntryPointSuccess && found)
        return reinterpret_cast<Encode>(found);
    cudaGetLastError(); // an old driver is no error of the next launch
    return nullptr;
}

static Encode encode() {
    static const Encode known = find_encode();
    return known;
}

bool tensor_maps_there() {
    return encode() != nullptr;
}

static CUtensorMapSwizzle driver_swizzle(Swizzle s) {
    switch (s) {
    case Swizzle::bytes_128:
        return CU_TENSOR_MAP_SWIZZLE_128B;
    case Swizzle::bytes_64:
        return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::bytes_32:
        return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::none:
        break;
    }
    return CU_TENSOR_MAP_SWIZZLE_NONE;
}

static CUtensorMapDataType driver_type(twk_format f) {
    return f == TWK_BF16  ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
           : f == TWK_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                          : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
}

twk_status tensor_map(const TensorBox &box, TensorMap *map) {
    static_assert(sizeof(TensorMap) == sizeof(CUtensorMap), "the driver's description");
    const twk_status right = check(box);
    if (right != TWK_OK) return right;
    cuuint64_t size[5], stride[5] = {};
    cuuint32_t across[5], step[5];
    for (int i = 0; i < 5; i++) {
        size[i] = box.size[i];
        if (i < 4) stride[i] = box.stride_bytes[i + 1]; // the driver's leave out dimension 0
        across[i] = box.box[i] * box.step[i];           // spanned, as the driver counts
        step[i] = box.step[i];
    }
    const CUresult result =
        encode()(reinterpret_cast<CUtensorMap *>(map), driver_type(box.format),
                 (cuuint32_t)box.rank, const_cast<void *>(box.base), size, stride, across, step,
                 CU_TENSOR_MAP_INTERLEAVE_NONE, driver_swizzle(box.swizzle),
                 CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result == CUDA_SUCCESS) return TWK_OK;
    return fail(TWK_UNSUPPORTED, "tensor map: the driver cannot describe this layout");
}

#endif

} // namespace tw
