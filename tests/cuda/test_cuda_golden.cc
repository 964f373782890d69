// The UNet on the GPU's backend against diffusers' UNet2DModel in PyTorch's float64: every kind of
// block, under the emulator in models that are small enough for it, on a real device in all. There
// ten DDIM steps too.
#include "support.h"
#include "support/unet_golden.h"

namespace {

class CudaUnet : public unet_golden::UnetGolden {
  protected:
    CudaUnet() : UnetGolden(TW_DEVICE_CUDA) {}
    void TearDown() override { EXPECT_EQ(emulated::report(), ""); }
    bool HasRelu() const {
        const json_t *act = json_object_get(golden::At(root_.get(), "config"), "act_fn");
        return act && std::string(json_string_value(act)) == "relu";
    }
};

TEST_P(CudaUnet, OutputAndGradients) {
    Check<float>({2e-5, 1e-4});
}

// A relu whose input changes sign by a rounding changes a gradient by an element of it.
TEST_P(CudaUnet, OutputAndGradientsInTf32) {
    Check<float>({1e-2, HasRelu() ? 0.3 : 1.5e-2, 1e-3}, TW_PRECISION_TF32);
}

TEST_P(CudaUnet, OutputAndGradientsInBf16) {
    Check<float>({8e-2, HasRelu() ? 2 : 0.12, 1e-2}, TW_PRECISION_BF16);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaUnet,
                         testing::Values(
#ifdef TW_TEST_DEVICE
                             "ddpm_cifar10_32", "digits", "defaults", "scale_shift", "four_levels",
                             "attn_groups",
#endif
#ifndef __SANITIZE_ADDRESS__ // under which a run takes three times as long
                             "class_identity", "class_timestep", "head_remainder", "learned_time",
                             "no_attention", "one_level", "resample",
#endif
                             "class_cond", "fourier", "odd_channels", "scale_shift_groups"),
                         [](const auto &i) { return std::string(i.param); });

#ifdef TW_TEST_DEVICE
class CudaUnetSampling : public unet_golden::UnetSampling {
  protected:
    CudaUnetSampling() : UnetSampling(TW_DEVICE_CUDA) {}
    void TearDown() override { EXPECT_EQ(emulated::report(), ""); }
};

TEST_P(CudaUnetSampling, TenStepsOfDdim) {
    const json_t *runs = golden::At(root_.get(), "ddim");
    ASSERT_GT(json_array_size(runs), 0u);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        SCOPED_TRACE(i);
        ASSERT_NO_FATAL_FAILURE(Sample(json_array_get(runs, i)));
    }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaUnetSampling,
                         testing::Values("defaults", "digits", "resample", "scale_shift"),
                         [](const auto &i) { return std::string(i.param); });
#endif

} // namespace
