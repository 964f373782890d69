// Convolutions and their input's gradient by boxes of pixels (TWK_TILE_128X256_TMA), against the
// double references: what such boxes and the channels' pieces of 64 can get wrong.
#include "conv_gradient_reference.h"

#include <algorithm>

using namespace tst;

namespace {

class ConvBoxTest : public KernelTest {
  protected:
    void SetUp() override {
        KernelTest::SetUp();
        if (!IsSkipped() && !boxes_here())
            GTEST_SKIP() << "no TMA on this device, or no code for it";
    }
};

ConvCase shape(int64_t n, int64_t h, int64_t w, int c, int o, int kernel = 3) {
    ConvCase z = same_size(n, h, w, c, o, kernel);
    z.tile = TWK_TILE_128X256_TMA;
    z.math = Math::bf16;
    return z;
}

ConvCase half(ConvCase z) {
    z.math = Math::f16;
    return z;
}

ConvCase in_parts(ConvCase z, int splits) {
    z.splits = splits;
    return z;
}

void expect_right(const ConvCase &z) {
    Conv c(z);
    c.launch();
    if (::testing::Test::HasFatalFailure()) return;
    EXPECT_TRUE(was_launched("conv_box") || was_launched("conv_gather")) << str(z);
    expect_close(c.y.read(), c.expected(), c.a.format, c.bound(), str(z));
}

void expect_right_gradient(const ConvCase &z, bool add = false) {
    InputGradient g(z, add);
    g.launch();
    if (::testing::Test::HasFatalFailure()) return;
    EXPECT_TRUE(was_launched("conv_box") || was_launched("conv_gather")) << str(z);
    expect_close(g.dx.read(), g.expected(), g.a.format, g.bound(), str(z));
    if (z.c2) expect_close(g.dx2.read(), g.expected(true), g.a.format, g.bound(), str(z) + ", dx2");
}

TEST_F(ConvBoxTest, Shapes) {
    expect_right(shape(2, 8, 8, 64, 128, 1)); // whole pieces of everything but the box
    if (for_races) return;
    expect_right(shape(1, 1, 1, 8, 8, 1));
    expect_right(half(shape(5, 4, 4, 136, 24)));
    expect_right(shape(3, 7, 5, 24, 136));
    expect_right(half(shape(1, 9, 33, 72, 8))); // two boxes of 5 lines, one too many
    expect_right(shape(1, 2, 300, 8, 16, 1));   // wider than a box
    expect_right(shape(70, 2, 2, 8, 264, 1));   // two boxes of images, three tiles of channels
    ConvCase z = shape(1, 11, 19, 16, 40);
    z.kh = 2;
    z.kw = 5;
    z.pad = {0, 3, 2, 1};
    expect_right(z);
    z = shape(1, 1, 258, 8, 8, 1); // 86 pixels, three apart: a box spans 256 at the most
    z.stride = 3;
    expect_right(z);
    z = shape(1, 2, 3, 8, 8);
    z.pad = {4, 5, 6, 3}; // wider than the image
    expect_right(z);
}

// Tiles follow each other in one block: of 4 processors here, and of more.
TEST_F(ConvBoxTest, ManyTiles) {
    expect_right(shape(9, 16, 16, 8, 136, 1));
    if (!for_races) expect_right(half(shape(1, 48, 48, 72, 16, 1)));
}

// Two blocks share weights or pixels, of which each brings half for both.
TEST_F(ConvBoxTest, Pairs) {
    for (int kind = 0; kind < (for_races ? 2 : 6); kind++) {
        ConvCase z = kind == 0   ? shape(3, 16, 16, 8, 24, 1) // weights, one tile too many
                     : kind == 1 ? shape(4, 4, 4, 72, 136)    // half the images
                     : kind == 2 ? shape(1, 6, 7, 16, 136)    // no half and one box: nothing shared
                     : kind == 3 ? shape(1, 8, 8, 16, 136)    // half the lines
                     : kind == 4 ? shape(1, 1, 32, 8, 136, 1) // half a line
                                 : shape(3, 32, 16, 8, 264, 1); // weights: three tiles across
        z.c2 = kind == 3 ? 8 : 0;
        z.splits = 1;
        expect_right(z);
        EXPECT_EQ(cluster_of_last(), kind == 2 ? 1u : 2u) << str(z);
    }
    if (for_races) return;
    ConvCase z = shape(2, 8, 8, 16, 136); // 4 x 4 pixels, two images
    z.stride = 2;
    z.splits = 1;
    expect_right(z);
    EXPECT_EQ(cluster_of_last(), 2u);
    z = shape(2, 8, 8, 136, 16); // four classes with 4, 2, 2 and 1 taps
    z.stride = 2;
    expect_right_gradient(z, true);
#ifdef TW_EMULATOR
    const unsigned most = tw::emu::max_cluster();
    tw::emu::set_max_cluster(1);
    expect_right(shape(3, 16, 16, 8, 136, 1));
    EXPECT_EQ(cluster_of_last(), 1u);
    tw::emu::set_max_cluster(most);
    setenv("TWK_WITHOUT", "clusters", 1);
    expect_right(shape(3, 16, 16, 8, 136, 1));
    EXPECT_EQ(cluster_of_last(), 1u);
    setenv("TWK_WITHOUT", "tma", 1);
    Conv refused(shape(3, 16, 16, 8, 136, 1));
    EXPECT_EQ(twk_conv_forward(&refused.a, nullptr), TWK_UNSUPPORTED);
    unsetenv("TWK_WITHOUT");
#endif
}

TEST_F(ConvBoxTest, Epilogues) {
    expect_right(with_everything(shape(3, 5, 4, 16, 32)));
    if (for_races) return;
    expect_right(with_everything(half(shape(3, 5, 4, 16, 13)))); // y is not aligned
    expect_right(in_parts(with_everything(shape(3, 5, 4, 72, 32)), 3));
    expect_right(in_parts(half(shape(1, 6, 5, 40, 72)), 100)); // as many as there are pieces
    ConvCase z = shape(2, 5, 4, 16, 32);
    z.residual = true;
    Conv c(z);
    const std::vector<Expected> want = c.expected();
    c.a.y = const_cast<void *>(c.a.residual);
    c.launch();
    expect_close(c.residual.read(), want, TWK_BF16, 8, "in place");
}

TEST_F(ConvBoxTest, StridesAndPadding) {
    ConvCase z = shape(2, 9, 8, 16, 32);
    z.stride = 2;
    expect_right(z);
    if (for_races) return;
    z.pad = {0, 0, 1, 1};
    expect_right(half(z));
    z = shape(1, 5, 301, 8, 8); // a box spans no more than 256
    z.stride = 2;
    expect_right(z);
    z = shape(2, 9, 8, 16, 32, 1);
    z.stride = 3;
    expect_right(z);
}

TEST_F(ConvBoxTest, TwoTensorsAndFoldedUpsampling) {
    ConvCase z = shape(2, 5, 6, 72, 24);
    z.c2 = 40;
    if (!for_races) expect_right(z);
    expect_right(in_parts(half(z), 4));
    z = shape(2, 5, 3, 16, 24);
    z.upsample = z.fold = true;
    expect_right(with_everything(z));
    if (for_races) return;
    z.c2 = 8;
    z.splits = 2;
    expect_right(half(z));
    z.splits = 0;
    z.pad = {1, 0, 2, 2}; // phases of different sizes and taps
    expect_right(z);
    z.stride = 3;
    expect_right(z);
}

TEST_F(ConvBoxTest, Gradients) {
    expect_right_gradient(shape(3, 7, 9, 136, 24), true);
    if (for_races) return;
    expect_right_gradient(half(shape(1, 9, 33, 8, 72)));
    expect_right_gradient(in_parts(shape(2, 6, 5, 72, 40), 5), true);
    ConvCase z = shape(2, 5, 6, 16, 24);
    z.c2 = 40;
    z.scale = 0.7f;
    expect_right_gradient(z, true);
    z.c = 3; // the border between the tensors lies inside a vector
    z.c2 = 6;
    expect_right_gradient(half(z), true);
}

TEST_F(ConvBoxTest, GradientsInClasses) {
    ConvCase z = shape(2, 8, 9, 16, 32);
    z.stride = 2;
    expect_right_gradient(z, true);
    if (for_races) return;
    z.pad = {0, 0, 1, 1};
    expect_right_gradient(half(z));
    expect_right_gradient(in_parts(z, 3));
    z = shape(2, 9, 8, 16, 32, 1); // most pixels get nothing
    z.stride = 3;
    expect_right_gradient(z, true);
    z = shape(2, 3, 1, 8, 16); // a column alone: half of the classes are empty
    z.stride = 2;
    expect_right_gradient(z);
    z = shape(2, 3, 5, 16, 24);
    z.upsample = true;
    expect_right_gradient(z, true);
    z.stride = 3;
    expect_right_gradient(half(z));
}

// A box is w x h pixels.
void expect_statistics(ConvCase z, int64_t w, int64_t h) {
    z.bias = true;
    z.groups = z.o / 4;
    Conv c(z);
    std::vector<double> moved = c.bias.v;
    for (double &v : moved) v += 30; // where E[x^2] - mean^2 would be lost
    c.bias.write(moved);
    c.launch();
    const std::vector<double> y = c.y.read();
    expect_close(y, c.expected(), c.a.format, c.bound(), str(z));
    int64_t pixels = 0;
    const int64_t parts = twk_conv_partials(&c.a, &pixels), area = c.oh * c.ow;
    ASSERT_EQ(parts * pixels, area) << str(z);
    const std::vector<float> got = fetch<float>(c.partial);
    // Pixel i of those that the partials cover: class by class, box by box.
    const int64_t up = z.fold ? 2 : 1, of_class = area / (up * up), width = c.ow / up;
    const auto pixel = [&](int64_t i) {
        const int64_t phase = i / of_class, box = i % of_class / (w * h), at = i % (w * h);
        const int64_t row = box / (width / w) * h + at / w, column = box % (width / w) * w + at % w;
        return (row * up + phase / 2) * c.ow + column * up + phase % 2;
    };
    for (int64_t i = 0; i < z.n * parts * z.groups; i++) {
        const int64_t n = i / (parts * z.groups), part = i / z.groups % parts, g = i % z.groups;
        double mean = 0, m2 = 0;
        const auto at = [&](int64_t k) {
            return y[(size_t)((n * area + pixel(part * pixels + k / 4)) * z.o + g * 4 + k % 4)];
        };
        const double count = (double)(pixels * 4);
        for (int64_t k = 0; k < pixels * 4; k++) mean += at(k) / count;
        for (int64_t k = 0; k < pixels * 4; k++) m2 += std::pow(at(k) - mean, 2);
        EXPECT_NEAR(got[(size_t)i * 2], mean, 1e-6 + 4e-6 * std::sqrt(m2 / count)) << str(z);
        EXPECT_NEAR(got[(size_t)i * 2 + 1] / m2, 1, 2e-5) << str(z);
    }
}

TEST_F(ConvBoxTest, Statistics) {
    expect_statistics(shape(3, 4, 4, 8, 24), 4, 4);
    if (for_races) return;
    expect_statistics(shape(2, 12, 12, 8, 136, 1), 12, 12); // 16 pixels a partial
    expect_statistics(half(shape(1, 16, 48, 8, 24, 1)), 16, 16);
    expect_statistics(in_parts(shape(2, 8, 8, 72, 24, 1), 2), 8, 8);
    ConvCase z = shape(3, 4, 4, 8, 24);
    z.upsample = z.fold = true;
    expect_statistics(z, 4, 4);
    z = shape(1, 5, 7, 8, 24);
    z.groups = 6;
    Conv odd(z);
    EXPECT_EQ(twk_conv_partials(&odd.a, nullptr), 0) << "35 pixels share no factor with 64";
}

// Tiles of 256 pixels are for shapes that give each of the processors as many: 4 here, 8, 12. Most
// others are served by halves of tiles.
TEST_F(ConvBoxTest, WholeTiles) {
    expect_right(shape(8, 8, 8, 8, 136, 1)); // half the images each, for two
    if (for_races) return;
    expect_right(half(shape(4, 16, 48, 8, 24, 1))); // three for a block
    expect_right(with_everything(shape(16, 8, 8, 72, 24)));
    expect_right_gradient(shape(8, 8, 9, 24, 136), true);
    expect_statistics(shape(16, 8, 8, 8, 24), 8, 8);
}

TEST_F(ConvBoxTest, EqualToTheBit) {
    for (int splits = 1; splits <= (for_races ? 1 : 2); splits++) {
        ConvCase z = in_parts(shape(3, 16, 16, 72, 40, 1), splits);
        z.groups = 10;
        Conv c(z);
        c.launch();
        const std::vector<double> first = c.y.read();
        const std::vector<float> partial = fetch<float>(c.partial);
        c.y.buffer.poison();
        c.partial.poison();
        c.launch();
        EXPECT_EQ(c.y.read(), first);
        EXPECT_EQ(fetch<float>(c.partial), partial);
    }
}

// A mistake in one tap or one channel is larger than the bound.
TEST_F(ConvBoxTest, PlantedMistakesAreSeen) {
    if (for_races) return;
    ConvCase z = shape(2, 5, 6, 72, 24);
    z.c2 = 8;
    Conv c(z);
    c.launch();
    const std::vector<double> got = c.y.read();
    const auto bad = [&](const std::function<bool(int, int, int)> &taken) {
        return count_bad(got, c.expected(taken), c.a.format, c.bound());
    };
    EXPECT_EQ(bad(every_tap), 0);
    for (int tap = 0; tap < 9; tap++)
        EXPECT_GT(bad([&](int r, int s, int) { return r * 3 + s != tap; }), 0) << tap;
    for (int channel : {0, 63, 64, 71, 72, 79})
        EXPECT_GT(bad([&](int, int, int k) { return k != channel; }), 0) << channel;
    std::vector<Expected> moved = c.expected();
    std::rotate(moved.begin(), moved.begin() + 1, moved.end());
    EXPECT_GT(count_bad(got, moved, c.a.format, c.bound()), (int64_t)got.size() / 2);
}

TEST_F(ConvBoxTest, WhatIsRefused) {
    const auto status = [](const ConvCase &z) {
        Conv c(z);
        return twk_conv_forward(&c.a, nullptr);
    };
    EXPECT_EQ(status(shape(1, 4, 4, 5, 72)), TWK_UNSUPPORTED);
    EXPECT_NE(std::string(twk_error_text()).find("aligned"), std::string::npos);
    ConvCase z = shape(1, 4, 4, 8, 72);
    z.upsample = true;
    EXPECT_EQ(status(z), TWK_UNSUPPORTED);
    z.upsample = false;
    z.stride = 9;
    EXPECT_EQ(status(z), TWK_UNSUPPORTED);
    InputGradient g(shape(1, 15, 15, 8, 8));
    g.a.stride = 5; // 25 classes
    g.a.h = g.a.w = 13;
    g.find_workspace();
    EXPECT_EQ(twk_conv_input_gradient(&g.a, nullptr), TWK_UNSUPPORTED);
    Conv exact(shape(1, 4, 4, 8, 72));
    exact.a.format = TWK_F32;
    EXPECT_EQ(twk_conv_forward(&exact.a, nullptr), TWK_UNSUPPORTED);
}

#ifdef TW_EMULATOR
// 4 processors and no others. What boxes cannot serve, or would serve later, others do.
TEST_F(ConvBoxTest, WhereTheyAreChosen) {
    if (for_races) return;
    ConvCase z = shape(4, 16, 16, 128, 128);
    z.tile = TWK_TILE_AUTO;
    Conv c(z);
    c.launch();
    EXPECT_TRUE(was_launched("conv_box"));
    tw::emu::set_tma(false);
    twk_conv_args a = c.a;
    LAUNCH_OK(twk_conv_forward(&a, nullptr));
    EXPECT_TRUE(was_launched("conv_kernel"));
    a.tile = TWK_TILE_128X256_TMA;
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_tma(true);
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024);
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
}
#endif

} // namespace
