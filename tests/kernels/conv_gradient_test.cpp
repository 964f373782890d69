// The gradient of a convolution's input against the forward sum turned around.
#include "conv_gradient_reference.h"

#include <algorithm>

using namespace tst;

namespace {

class ConvGradientTest : public KernelTest {};

void expect_right(const ConvCase &z, bool add = false) {
    InputGradient g(z, add);
    g.launch();
    if (::testing::Test::HasFatalFailure()) return;
    expect_close(g.dx.read(), g.expected(), g.a.format, g.bound(), str(z));
    if (z.c2) expect_close(g.dx2.read(), g.expected(true), g.a.format, g.bound(), str(z) + ", dx2");
}

void expect_right_everywhere(ConvCase z, bool add = false) {
    for (Math math : every_math) {
        z.math = math;
        expect_right(z, add);
    }
}

TEST_F(ConvGradientTest, OddSizesAndChannels) {
    expect_right_everywhere(same_size(1, 1, 1, 1, 1, 1));
    expect_right_everywhere(same_size(3, 7, 5, 5, 3));
    expect_right_everywhere(same_size(2, 7, 5, 33, 34, 1));
    expect_right_everywhere(same_size(5, 4, 4, 4, 1));
    expect_right_everywhere(same_size(1, 9, 11, 8, 5, 5));
    expect_right_everywhere(same_size(1, 1, 1, 33, 96));
}

TEST_F(ConvGradientTest, PicturesInAndOut) {
    expect_right_everywhere(same_size(1, 7, 5, 3, 128));
    expect_right_everywhere(same_size(2, 7, 5, 128, 3));
}

// As in the forward pass, kernels of their own.
TEST_F(ConvGradientTest, FewChannels) {
    ConvCase z = same_size(2, 9, 8, 72, 3);
    z.scale = 0.7f;
    expect_right_everywhere(z, true);
    z.shift = 1;
    expect_right_everywhere(z);
    z.shift = 0;
    z.c = 40;
    z.c2 = 5;
    z.pad = {0, 2, 1, 1};
    expect_right_everywhere(z, true);
    z = same_size(2, 9, 35, 3, 40);
    z.scale = 0.7f;
    expect_right_everywhere(z, true);
    z = same_size(2, 5, 6, 1, 32);
    z.c2 = 3;
    z.pad = {0, 2, 1, 1};
    expect_right_everywhere(z, true);
    z = same_size(3, 7, 5, 5, 3); // with the tile that gathers
    z.tile = TWK_TILE_64X64;
    expect_right_everywhere(z);
}

void expect_served(ConvCase z, const char *kernel) {
    for (Math math : every_math) {
        z.math = math;
        expect_right(z, true);
        EXPECT_TRUE(was_launched(kernel)) << str(z);
    }
}

TEST_F(ConvGradientTest, WhichFewChannelsAreServed) {
    for (int few : {1, 3, 4}) {
        expect_served(same_size(1, 4, 4, 8, few), "few_inputs");
        expect_served(same_size(1, 4, 4, few, 8), "few_outputs");
    }
    for (int few : {3, 8}) {
        ConvCase z = same_size(2, 5, 6, 11 - few, few);
        z.stride = 2;
        expect_served(z, "conv_phase");
        z.stride = 1;
        z.upsample = true;
        expect_served(z, "conv_phase");
        z.upsample = false;
        z.splits = 1; // asked for
        expect_served(z, "conv_phase");
    }
}

TEST_F(ConvGradientTest, WidthsOfTheNetworks) {
    NOT_FOR_RACES();
    ConvCase z = same_size(5, 4, 4, 128, 128);
    z.math = Math::bf16;
    expect_right(z);
    z = same_size(1, 4, 4, 256, 256);
    z.math = Math::f16;
    expect_right(z);
    z = same_size(1, 4, 4, 512, 256);
    z.math = Math::bf16;
    expect_right(z);
    z = same_size(2, 5, 7, 384, 256, 1);
    z.math = Math::f16;
    expect_right(z);
}

TEST_F(ConvGradientTest, EveryTile) {
    for (twk_tile tile :
         {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_128X16, TWK_TILE_128X128_WGMMA}) {
        ConvCase z = same_size(3, 7, 9, 136, 24); // tails in every direction, 27 taps in 8 chunks
        z.tile = tile;
        for (Math math : {Math::tf32, Math::bf16, Math::f16}) {
            if (for_races && math != Math::bf16) continue;
            z.math = math;
            if (serves(tile, math)) expect_right(z);
        }
    }
}

// By wgmma, in bf16: two tensors, classes of pixels of which some have no taps, parts.
TEST_F(ConvGradientTest, Warpgroups) {
    if (!wgmma_here()) GTEST_SKIP() << "no wgmma on this device, or no code for it";
    ConvCase z = same_size(2, 6, 7, 40, 32);
    z.tile = TWK_TILE_128X128_WGMMA;
    z.math = Math::bf16;
    z.c2 = 96;
    expect_right(z);
    z.stride = 3;
    z.kh = z.kw = 2;
    expect_right(z);
    z.stride = 1;
    z.upsample = true;
    z.splits = 2;
    expect_right(z);
}

TEST_F(ConvGradientTest, StridesAndPadding) {
    ConvCase z = same_size(2, 9, 8, 16, 32);
    z.stride = 2;
    expect_right_everywhere(z); // one pixel on every side
    z.pad = {0, 0, 1, 1};       // below and right only: what halves an image
    expect_right_everywhere(z);
    z.h = 8;
    expect_right_everywhere(z);
    z.pad = {2, 1, 0, 3};
    z.kh = 5;
    z.kw = 2;
    expect_right_everywhere(z);
    z = same_size(2, 9, 8, 16, 32, 1); // most pixels get nothing
    z.stride = 3;
    expect_right_everywhere(z, true);
    z = same_size(1, 13, 12, 12, 20, 4); // patches, and what no patch reaches
    z.stride = 4;
    z.pad = {0, 0, 0, 0};
    expect_right_everywhere(z);
    z = same_size(1, 2, 3, 8, 8); // padding wider than the image
    z.pad = {4, 5, 6, 3};
    expect_right_everywhere(z);
    z = same_size(2, 3, 1, 7, 9); // a column alone: half of the classes are empty
    z.stride = 2;
    expect_right_everywhere(z);
}

TEST_F(ConvGradientTest, TwoTensors) {
    ConvCase z = same_size(2, 5, 6, 16, 24);
    z.c2 = 40;
    z.scale = 0.7f;
    expect_right_everywhere(z, true);
    z.c = 3; // the border between the tensors lies inside a vector
    z.c2 = 6;
    z.shift = 1;
    expect_right_everywhere(z, true);
    z = same_size(2, 5, 6, 16, 24);
    z.c2 = 40;
    z.math = Math::bf16;
    for (bool second : {false, true}) { // one of them alone
        InputGradient g(z);
        (second ? g.a.dx : g.a.dx2) = nullptr;
        g.find_workspace();
        g.launch();
        expect_close((second ? g.dx2 : g.dx).read(), g.expected(second), g.a.format, 8, "alone");
        for (double v : (second ? g.dx : g.dx2).read()) ASSERT_TRUE(std::isnan(v));
    }
}

TEST_F(ConvGradientTest, Upsampling) {
    ConvCase z = same_size(2, 3, 5, 16, 24);
    z.upsample = true;
    expect_right_everywhere(z, true);
    z.c2 = 8;
    for (int stride : {2, 3}) {
        z.stride = stride;
        z.pad = {1, 0, 2, 1};
        expect_right_everywhere(z);
    }
    z = same_size(1, 4, 3, 5, 7, 4); // an even kernel, channels that are not aligned
    z.upsample = true;
    z.pad = {1, 2, 2, 1};
    expect_right_everywhere(z);
    z = same_size(2, 3, 2, 8, 8, 1);
    z.upsample = true;
    expect_right_everywhere(z);
}

TEST_F(ConvGradientTest, SplitSums) {
    for (int splits : {2, 5, 100}) { // more parts than tiles are as many as tiles
        ConvCase z = same_size(2, 6, 5, 72, 40);
        z.splits = splits;
        expect_right_everywhere(z, splits == 2);
    }
    ConvCase z = same_size(2, 6, 5, 40, 72); // classes with fewer tiles than parts
    z.stride = 2;
    z.splits = 8;
    z.c2 = 9;
    z.math = Math::bf16;
    expect_right(z, true);
}

TEST_F(ConvGradientTest, EqualToTheBit) {
    NOT_FOR_RACES();
    for (int splits : {1, 4}) {
        ConvCase z = same_size(2, 6, 8, 72, 40);
        z.math = Math::bf16;
        z.splits = splits;
        z.stride = 1 + splits % 2;
        InputGradient g(z);
        g.launch();
        const std::vector<double> first = g.dx.read();
        for (int again = 0; again < 2; again++) {
            g.dx.buffer.poison();
            g.workspace.poison();
            g.launch();
            EXPECT_EQ(g.dx.read(), first);
        }
    }
}

TEST_F(ConvGradientTest, InPlace) {
    for (int splits : {1, 3}) {
        ConvCase z = same_size(2, 5, 4, 32, 16);
        z.c2 = 8;
        z.splits = splits;
        z.math = Math::bf16;
        InputGradient g(z, true);
        g.a.dx = g.dx_add.data();
        g.a.dx2 = g.dx2_add.data();
        const std::vector<Expected> want = g.expected(), want2 = g.expected(true);
        g.launch();
        expect_close(g.dx_add.read(), want, TWK_BF16, 8, "dx over dx_add");
        expect_close(g.dx2_add.read(), want2, TWK_BF16, 8, "dx2 over dx2_add");
    }
}

// A mistake in one tap, one channel or one term is larger than the bound.
TEST_F(ConvGradientTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    // Plain, at stride 2, upsampled, from and to few channels.
    for (int kind = 0; kind < 5; kind++)
        for (Math math : every_math) {
            ConvCase z = same_size(2, 5, 6, kind == 4 ? 3 : 16, kind == 3 ? 3 : 24);
            z.stride = kind == 1 ? 2 : 1;
            z.upsample = kind == 2;
            z.math = math;
            InputGradient g(z, true);
            g.launch();
            const std::vector<double> got = g.dx.read();
            const auto bad = [&](const std::function<bool(int, int, int)> &taken) {
                return count_bad(got, g.expected(false, taken), g.a.format, g.bound());
            };
            EXPECT_EQ(bad(every_tap), 0);
            for (int tap = 0; tap < 9; tap++)
                EXPECT_GT(bad([&](int r, int s, int) { return r * 3 + s != tap; }), 0)
                    << "tap " << tap << " may be dropped, " << str(z);
            for (int channel : {0, z.o / 2, z.o - 1})
                EXPECT_GT(bad([&](int, int, int o) { return o != channel; }), 0)
                    << "channel " << channel << " may be dropped, " << str(z);
            std::vector<Expected> moved = g.expected();
            std::rotate(moved.begin(), moved.begin() + 1, moved.end());
            EXPECT_GT(count_bad(got, moved, g.a.format, g.bound()), (int64_t)got.size() / 2);
            std::fill(g.dx_add.v.begin(), g.dx_add.v.end(), 0.0);
            EXPECT_GT(bad(every_tap), 0);
        }
}

// <dy, conv(x)> = <gradient(dy), x>, with what the kernel left and the forward reference.
TEST_F(ConvGradientTest, AdjointOfTheForwardPass) {
    NOT_FOR_RACES();
    for (int kind = 0; kind < 4; kind++) {
        ConvCase z = same_size(2, 6, 5, 7, 9);
        z.stride = kind == 1 ? 2 : 1;
        z.upsample = kind >= 2;
        z.c2 = kind == 3 ? 4 : 0;
        z.pad = {1, 0, 1, 2};
        InputGradient g(z);
        g.launch();
        const std::vector<Expected> y = g.conv.expected();
        double forward = 0, backward = 0, terms = 0;
        for (size_t i = 0; i < y.size(); i++) {
            forward += g.dy.v[i] * y[i].value;
            terms += std::fabs(g.dy.v[i]) * y[i].terms;
        }
        const std::vector<double> dx = g.dx.read(), dx2 = g.dx2.read();
        for (size_t i = 0; i < dx.size(); i++) backward += dx[i] * g.conv.x.v[i];
        for (size_t i = 0; i < dx2.size(); i++) backward += dx2[i] * g.conv.x2.v[i];
        EXPECT_NEAR(forward, backward, g.bound() * 0x1p-24 * terms) << str(z);
    }
}

TEST_F(ConvGradientTest, Errors) {
    ConvCase z = same_size(1, 4, 4, 64, 64);
    z.math = Math::bf16;
    InputGradient g(z);
    const auto status = [](const twk_conv_args &a) { return twk_conv_input_gradient(&a, nullptr); };
    twk_conv_args a = g.a;
    EXPECT_EQ(twk_conv_input_gradient_workspace(&a), a.workspace_bytes);
    a.workspace_bytes--;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    EXPECT_NE(std::string(twk_error_text()).find("workspace"), std::string::npos);
    a = g.a;
    a.dy = nullptr;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.dx = nullptr;
    EXPECT_EQ(twk_conv_input_gradient_workspace(&a), 0u);
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.dx2 = a.dx;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT) << "there is no x2";
    a = g.a;
    a.dx2_add = a.dx;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.silu = 1;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.tf32 = 1;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.kernel_w = 100;
    EXPECT_EQ(status(a), TWK_BAD_ARGUMENT);
    a = g.a;
    a.tile = TWK_TILE_128X64;
    EXPECT_EQ(status(a), TWK_UNSUPPORTED);
    a = g.a;
    a.batch = int64_t(1) << 40;
    EXPECT_EQ(status(a), TWK_UNSUPPORTED);
    a = g.a;
    a.stride = 1 << 20;
    EXPECT_EQ(status(a), TWK_UNSUPPORTED) << "2^40 classes";
    EXPECT_EQ(twk_conv_input_gradient(nullptr, nullptr), TWK_BAD_ARGUMENT);
#ifdef TW_EMULATOR
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024); // GPUs of the gaming line
    for (twk_tile tile :
         {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_128X16, TWK_TILE_128X128_WGMMA}) {
        a = g.a;
        a.tile = tile;
        a.splits = 1;
        EXPECT_EQ(status(a), TWK_OK) << twk_error_text();
    }
    tw::emu::set_shared_limit(8 * 1024);
    EXPECT_EQ(status(a), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
#endif
}

#ifdef TW_EMULATOR
// Elements past 2^32, of which one block's are looked at: of the last class of pixels.
TEST_F(ConvGradientTest, LargeTensors) {
    const int channels = 64, side = 1024;
    const int64_t batch = 64, half = batch * side * side / 4, pixels = half * 4;
    Hollow dx((size_t)(pixels * channels) * 2), dy((size_t)(half * channels) * 2);
    Tensor weight = random_tensor(TWK_BF16, 9 * channels * channels);
    twk_conv_args a = {};
    a.batch = batch;
    a.h = a.w = side;
    a.channels = a.out_channels = channels;
    a.kernel_h = a.kernel_w = 3;
    a.stride = 2;
    a.pad_bottom = a.pad_right = 1;
    a.format = TWK_BF16;
    a.tile = TWK_TILE_64X64;
    a.weight = weight.data();
    a.dy = dy.data;
    a.dx = dx.data;
    Buffer workspace(twk_conv_input_gradient_workspace(&a));
    a.workspace = workspace.data();
    a.workspace_bytes = workspace.size();
    // The weights first, all of them; then the last 64 pixels of class (1, 1), which tap (1, 1)
    // alone reaches.
    const int64_t last = (half - 64) * channels;
    Tensor source = random_tensor(TWK_BF16, 64 * channels);
    source.buffer.download(dy.data + last * 2);
    twk_conv_args small = a;
    small.batch = 1;
    small.h = small.w = 2;
    Tensor one(TWK_BF16, 4 * channels);
    small.dx = one.data();
    ASSERT_EQ(twk_conv_input_gradient(&small, nullptr), TWK_OK) << twk_error_text();
    tw::emu::set_block_filter((uint64_t)(half / 64 * 4 - 1), 1);
    const twk_status status = twk_conv_input_gradient(&a, nullptr);
    tw::emu::set_block_filter(0, 0);
    ASSERT_EQ(status, TWK_OK) << twk_error_text();
    const char *const row = dx.data + ((pixels - side) * channels) * 2; // the last row of pixels
    std::vector<Expected> want((size_t)(64 * channels));
    std::vector<double> got;
    for (int64_t p = 0; p < 64; p++) {
        Tensor pixel(TWK_BF16, channels);
        pixel.buffer.upload(row + (2 * (side / 2 - 64 + p) + 1) * channels * 2);
        const std::vector<double> values = pixel.read();
        got.insert(got.end(), values.begin(), values.end());
        for (int c = 0; c < channels; c++)
            for (int o = 0; o < channels; o++)
                want[(size_t)(p * channels + c)].add(
                    source.v[(size_t)(p * channels + o)] *
                    weight.v[(size_t)((o * 9 + 4) * channels + c)]);
    }
    expect_close(got, want, TWK_BF16, 8, "the last block");
}
#endif

} // namespace
