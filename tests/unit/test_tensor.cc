#include <gtest/gtest.h>

#include <cstddef>
#include <string>

extern "C" {
#include "core/dlpack.h"
#include <tweedie/tensor.h>
}

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

TEST(Tensor, Dtypes) {
    EXPECT_EQ(tw_dtype_size(TW_F32), 4u);
    EXPECT_EQ(tw_dtype_size(TW_F64), 8u);
    EXPECT_EQ(tw_dtype_size(TW_BF16), 2u);
    EXPECT_EQ(tw_dtype_size(TW_F16), 2u);
    EXPECT_EQ(tw_dtype_size(TW_I32), 4u);
    EXPECT_EQ(tw_dtype_size(TW_I64), 8u);
    EXPECT_EQ(tw_dtype_size(TW_U8), 1u);
    EXPECT_EQ(tw_dtype_size(static_cast<tw_dtype>(7)), 0u);
    EXPECT_STREQ(tw_dtype_name(TW_BF16), "bfloat16");
    EXPECT_STREQ(tw_dtype_name(static_cast<tw_dtype>(7)), "unknown");
}

TEST(Tensor, ViewsAreDense) {
    float data[24];
    const int64_t shape[3] = {2, 3, 4};
    tw_tensor t;
    ASSERT_EQ(tw_tensor_view(data, TW_F32, 3, shape, &t), TW_OK);
    EXPECT_EQ(t.device, TW_DEVICE_CPU);
    EXPECT_EQ(t.strides[0], 12);
    EXPECT_EQ(t.strides[1], 4);
    EXPECT_EQ(t.strides[2], 1);
    EXPECT_EQ(tw_tensor_count(nullptr), -1);
    EXPECT_FALSE(tw_tensor_is_dense(nullptr));
    EXPECT_EQ(tw_tensor_count(&t), 24);
    EXPECT_TRUE(tw_tensor_is_dense(&t));
    t.strides[0] = 13;
    EXPECT_FALSE(tw_tensor_is_dense(&t));
    t.shape[0] = 1; // then its stride does not matter
    EXPECT_TRUE(tw_tensor_is_dense(&t));
    ASSERT_EQ(tw_tensor_view(data, TW_F32, 0, nullptr, &t), TW_OK);
    EXPECT_EQ(tw_tensor_count(&t), 1);
    EXPECT_TRUE(tw_tensor_is_dense(&t));
}

TEST(Tensor, RefusesBadShapes) {
    tw_tensor t;
    const int64_t negative[2] = {2, -1}, large[2] = {1ll << 31, 1ll << 30},
                  fits[2] = {1ll << 31, 1};
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, 5, negative, &t), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "tensor: rank: expected 0 to 4, got 5");
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, -1, negative, &t), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, 2, negative, &t), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "tensor: extent 1: expected at least 0, got -1");
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, 2, large, &t), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "tensor: the shape does not fit 63 bits");
    EXPECT_EQ(tw_tensor_view(nullptr, TW_U8, 2, large, &t), TW_OK);
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, 2, fits, &t), TW_OK);
    EXPECT_EQ(tw_tensor_view(nullptr, static_cast<tw_dtype>(9), 2, fits, &t), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_tensor_view(nullptr, TW_F32, 2, nullptr, &t), TW_ERROR_ARGUMENT);
}

TEST(DLPack, LayoutIsTheSpecifications) {
    EXPECT_EQ(sizeof(DLTensor), 48u);
    EXPECT_EQ(offsetof(DLTensor, device), 8u);
    EXPECT_EQ(offsetof(DLTensor, ndim), 16u);
    EXPECT_EQ(offsetof(DLTensor, dtype), 20u);
    EXPECT_EQ(offsetof(DLTensor, shape), 24u);
    EXPECT_EQ(offsetof(DLTensor, strides), 32u);
    EXPECT_EQ(offsetof(DLTensor, byte_offset), 40u);
    EXPECT_EQ(offsetof(DLManagedTensor, manager_ctx), 48u);
    EXPECT_EQ(offsetof(DLManagedTensor, deleter), 56u);
    EXPECT_EQ(offsetof(DLManagedTensorVersioned, manager_ctx), 8u);
    EXPECT_EQ(offsetof(DLManagedTensorVersioned, deleter), 16u);
    EXPECT_EQ(offsetof(DLManagedTensorVersioned, flags), 24u);
    EXPECT_EQ(offsetof(DLManagedTensorVersioned, dl_tensor), 32u);
}

void count_release(void *user) {
    ++*static_cast<int *>(user);
}

TEST(DLPack, RoundTripsEveryDtype) {
    int64_t data[8];
    const int64_t shape[2] = {2, 3};
    for (int dtype = TW_F32; dtype <= TW_U8; dtype++) {
        tw_tensor t, back;
        ASSERT_EQ(tw_tensor_view(data, static_cast<tw_dtype>(dtype), 2, shape, &t), TW_OK);
        t.strides[0] = 4; // not dense
        t.read_only = dtype % 2;
        int released = 0;
        DLManagedTensorVersioned *capsule;
        ASSERT_EQ(tw_tensor_to_dlpack(&t, count_release, &released, &capsule), TW_OK);
        EXPECT_EQ(capsule->version.major, 1u);
        EXPECT_EQ(capsule->dl_tensor.dtype.lanes, 1);
        EXPECT_EQ(capsule->dl_tensor.dtype.bits, 8 * tw_dtype_size(t.dtype));
        EXPECT_EQ(capsule->flags, dtype % 2 ? 1u : 0u);
        ASSERT_EQ(tw_tensor_from_dlpack(capsule, &back), TW_OK) << error();
        EXPECT_EQ(back.data, data);
        EXPECT_EQ(back.dtype, t.dtype);
        EXPECT_EQ(back.rank, 2);
        EXPECT_EQ(back.shape[1], 3);
        EXPECT_EQ(back.strides[0], 4);
        EXPECT_EQ(back.read_only, t.read_only);
        EXPECT_EQ(released, 0);
        capsule->deleter(capsule);
        EXPECT_EQ(released, 1);
    }
    tw_tensor t;
    ASSERT_EQ(tw_tensor_view(data, TW_F32, 2, shape, &t), TW_OK);
    t.device = TW_DEVICE_CUDA;
    t.device_index = 3;
    DLManagedTensorVersioned *capsule;
    ASSERT_EQ(tw_tensor_to_dlpack(&t, nullptr, nullptr, &capsule), TW_OK);
    EXPECT_EQ(capsule->dl_tensor.device.device_type, 2);
    EXPECT_EQ(capsule->dl_tensor.device.device_id, 3);
    capsule->deleter(capsule);
    t.device = TW_DEVICE_AUTO;
    EXPECT_EQ(tw_tensor_to_dlpack(&t, nullptr, nullptr, &capsule), TW_ERROR_ARGUMENT);
}

class DLPackIn : public ::testing::Test {
  protected:
    DLPackIn() {
        capsule.version = {1, 1};
        capsule.dl_tensor = {data, {1, 0}, 2, {2, 32, 1}, shape, nullptr, 0};
    }
    tw_status read() { return tw_tensor_from_dlpack(&capsule, &t); }
    float data[12];
    int64_t shape[5] = {2, 3, 1, 1, 1};
    DLManagedTensorVersioned capsule{};
    tw_tensor t;
};

TEST_F(DLPackIn, NullStridesAreDenseAndTheOffsetCounts) {
    capsule.dl_tensor.byte_offset = 8;
    ASSERT_EQ(read(), TW_OK) << error();
    EXPECT_EQ(t.data, data + 2);
    EXPECT_EQ(t.strides[0], 3);
    EXPECT_EQ(t.strides[1], 1);
    EXPECT_EQ(t.read_only, 0);
}

TEST_F(DLPackIn, UnversionedWorks) {
    DLManagedTensor old{capsule.dl_tensor, nullptr, nullptr};
    ASSERT_EQ(tw_tensor_from_dlpack_unversioned(&old, &t), TW_OK);
    EXPECT_EQ(tw_tensor_count(&t), 6);
    EXPECT_EQ(t.read_only, 0);
}

TEST_F(DLPackIn, EmptyTensorsNeedNoAddress) {
    shape[0] = 0;
    capsule.dl_tensor.data = nullptr;
    EXPECT_EQ(read(), TW_OK);
    EXPECT_EQ(tw_tensor_count(&t), 0);
    shape[0] = 2;
    EXPECT_EQ(read(), TW_ERROR_ARGUMENT);
}

TEST_F(DLPackIn, RefusesWhatIsNotOurs) {
    capsule.version.major = 2;
    EXPECT_EQ(read(), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "DLPack: version 2.1, expected 1.x");
    capsule.version.major = 1;
    capsule.dl_tensor.dtype = {2, 32, 4};
    EXPECT_EQ(read(), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "DLPack: dtype with code 2, 32 bits, 4 lanes");
    capsule.dl_tensor.dtype = {5, 64, 1}; // complex
    EXPECT_EQ(read(), TW_ERROR_UNSUPPORTED);
    capsule.dl_tensor.dtype = {2, 32, 1};
    capsule.dl_tensor.device.device_type = 10; // ROCm
    EXPECT_EQ(read(), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "DLPack: device type 10, expected 1 (CPU) or 2 (CUDA)");
    capsule.dl_tensor.device.device_type = 1;
    capsule.dl_tensor.ndim = 5;
    EXPECT_EQ(read(), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "DLPack: rank 5, expected at most 4");
    capsule.dl_tensor.ndim = -1;
    EXPECT_EQ(read(), TW_ERROR_ARGUMENT);
    capsule.dl_tensor.ndim = 2;
    shape[0] = -2;
    EXPECT_EQ(read(), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_tensor_from_dlpack(nullptr, &t), TW_ERROR_ARGUMENT);
}

} // namespace
