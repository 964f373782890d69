// The UNet against diffusers' on the CPU, in float and in double.
#include "support/unet_golden.h"

using unet_golden::UnetGolden;
using unet_golden::UnetSampling;

namespace {

TEST_P(UnetSampling, TenStepsOfDdim) {
    const json_t *runs = golden::At(root_.get(), "ddim");
    ASSERT_GT(json_array_size(runs), 0u);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        SCOPED_TRACE(i);
        ASSERT_NO_FATAL_FAILURE(Sample(json_array_get(runs, i)));
    }
}

INSTANTIATE_TEST_SUITE_P(Models, UnetSampling,
                         testing::Values("defaults", "digits", "resample", "scale_shift"),
                         [](const auto &i) { return std::string(i.param); });

TEST_P(UnetGolden, InFloat) {
    Check<float>({1e-5, 1e-4});
}

TEST_P(UnetGolden, InDouble) {
    if (std::string(GetParam()) == "ddpm_cifar10_32")
        GTEST_SKIP() << "a minute on one core; the smaller models have every part of it";
    Check<double>({1e-9, 1e-8, 0x1p-53});
}

INSTANTIATE_TEST_SUITE_P(Models, UnetGolden,
                         testing::Values("ddpm_cifar10_32", "digits", "defaults", "scale_shift",
                                         "scale_shift_groups", "class_cond", "class_timestep",
                                         "class_identity", "resample", "one_level", "four_levels",
                                         "no_attention", "fourier", "learned_time", "attn_groups",
                                         "odd_channels", "head_remainder"),
                         [](const auto &i) { return std::string(i.param); });

} // namespace
