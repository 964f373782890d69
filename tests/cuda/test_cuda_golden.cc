// The UNet on the GPU's backend against diffusers' UNet2DModel in PyTorch's
// float64: every kind of block, in models that are small enough for the
// emulator.
#include "support.h"
#include "support/unet_golden.h"

namespace {

class CudaUnet : public unet_golden::UnetGolden {
  protected:
    CudaUnet() : UnetGolden(TW_DEVICE_CUDA) {}
    void TearDown() override { EXPECT_EQ(emulated::report(), ""); }
};

TEST_P(CudaUnet, OutputAndGradients) {
    Check<float>({2e-5, 1e-4});
}

INSTANTIATE_TEST_SUITE_P(Models, CudaUnet,
                         testing::Values("class_cond", "class_identity", "class_timestep",
                                         "fourier", "head_remainder", "learned_time",
                                         "no_attention", "odd_channels", "one_level", "resample",
                                         "scale_shift_groups"),
                         [](const auto &i) { return std::string(i.param); });

} // namespace
