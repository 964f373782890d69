// Convolution forward against a plain double sum over taps.
#include "conv_reference.h"

#include <algorithm>

using namespace tst;

namespace {

class ConvTest : public KernelTest {};

std::vector<double> run(Conv *c) {
    c->launch();
    return c->y.read();
}

void expect_right(const ConvCase &z) {
    Conv c(z);
    const std::vector<double> got = run(&c);
    if (::testing::Test::HasFatalFailure()) return;
    expect_close(got, c.expected(), c.a.format, c.bound(), str(z));
}

void expect_right_everywhere(ConvCase z) {
    for (Math math : every_math) {
        z.math = math;
        expect_right(z);
    }
}

TEST_F(ConvTest, OddSizesAndChannels) {
    expect_right_everywhere(same_size(1, 1, 1, 1, 1, 1));
    expect_right_everywhere(same_size(3, 7, 5, 3, 5));
    expect_right_everywhere(same_size(2, 7, 5, 33, 34, 1));
    expect_right_everywhere(same_size(5, 4, 4, 1, 3));
    expect_right_everywhere(same_size(1, 9, 11, 5, 8, 5));
}

TEST_F(ConvTest, PicturesInAndOut) {
    expect_right_everywhere(same_size(1, 8, 9, 3, 128));
    expect_right_everywhere(same_size(2, 8, 9, 128, 3));
}

// Kernels of their own: from at most four channels, and to at most four.
TEST_F(ConvTest, FewChannels) {
    ConvCase z = same_size(2, 9, 8, 3, 72); // 144 pixels, 72 channels: tails of both
    z.bias = z.vector = z.residual = z.silu = true;
    z.scale = 0.7f;
    expect_right_everywhere(z);
    z.shift = 1; // no tensor starts at a multiple of 16 bytes
    expect_right_everywhere(z);
    z = same_size(1, 7, 9, 4, 8, 4); // 64 along K
    z.stride = 2;
    z.pad = {0, 3, 1, 2};
    expect_right_everywhere(z);
    z = same_size(2, 9, 35, 40, 3); // more than a patch in both directions, a piece and a quarter
    z.bias = z.vector = z.residual = z.silu = true;
    z.scale = 0.7f;
    expect_right_everywhere(z);
    z = same_size(2, 5, 6, 8, 4);
    z.pad = {2, 0, 0, 3};
    expect_right_everywhere(z);
    expect_right_everywhere(same_size(1, 6, 3, 16, 1, 5));
    expect_right_everywhere(same_size(1, 6, 3, 64, 4, 1));
    z = same_size(3, 7, 5, 3, 5); // with the tile that gathers
    z.tile = TWK_TILE_64X64;
    expect_right_everywhere(z);
}

// What takes a call, and that its result is right.
void expect_served(ConvCase z, const char *kernel) {
    for (Math math : every_math) {
        z.math = math;
        expect_right(z);
        EXPECT_TRUE(was_launched(kernel)) << str(z);
    }
}

TEST_F(ConvTest, WhichFewChannelsAreServed) {
    for (int few : {1, 3, 4}) {
        expect_served(same_size(1, 4, 4, few, 8), "few_inputs");
        expect_served(same_size(1, 4, 4, 8, few), "few_outputs");
    }
    expect_served(same_size(1, 4, 4, 5, 8), "conv_kernel");
    expect_served(same_size(1, 4, 4, 8, 5), "conv_kernel");
    expect_served(same_size(1, 4, 4, 6, 3), "conv_kernel"); // channels in no whole chunks
    for (int few : {3, 8}) {
        ConvCase z = same_size(2, 5, 6, few, 11 - few);
        z.stride = 2;
        expect_served(z, few == 3 ? "few_inputs" : "conv_kernel");
        z.stride = 1;
        z.upsample = true;
        expect_served(z, "conv_kernel");
        z.fold = true;
        expect_served(z, "conv_phase");
        z.upsample = z.fold = false;
        z.c2 = 8;
        expect_served(z, "conv_kernel");
        z.c2 = 0;
        z.splits = 1; // asked for
        expect_served(z, "conv_kernel");
        z.splits = 0;
        z.shift = 1;
        expect_served(z, few == 3 ? "few_inputs" : "conv_kernel");
    }
#ifdef TW_EMULATOR
    ConvCase z = same_size(1, 8, 32, 256, 3);
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(48 * 1024); // too little for the patch and the weights
    z.math = Math::bf16;
    expect_right(z);
    EXPECT_FALSE(was_launched("few_"));
    tw::emu::set_shared_limit(limit);
#endif
}

TEST_F(ConvTest, WidthsOfTheNetworks) {
    NOT_FOR_RACES();
    for (int64_t n : {1, 5}) expect_right_everywhere(same_size(n, 4, 4, 128, 128));
    ConvCase z = same_size(1, 4, 4, 256, 256);
    z.math = Math::bf16;
    expect_right(z);
    z = same_size(1, 4, 4, 512, 256);
    z.math = Math::bf16;
    expect_right(z);
    z = same_size(3, 5, 7, 384, 256, 1);
    z.math = Math::f16;
    expect_right(z);
}

TEST_F(ConvTest, EveryTile) {
    for (twk_tile tile :
         {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_128X16, TWK_TILE_128X128_WGMMA}) {
        ConvCase z = same_size(3, 7, 9, 24, 136); // tails in every direction, 27 taps in 8 chunks
        z.tile = tile;
        for (Math math : {Math::tf32, Math::bf16, Math::f16}) {
            if (for_races && math != Math::bf16) continue;
            z.math = math;
            if (serves(tile, math)) expect_right(z);
        }
    }
}

// By wgmma, in bf16: fewer tiles along K than stages and a whole tile, two images, parts,
// statistics and everything that is added.
TEST_F(ConvTest, Warpgroups) {
    if (!wgmma_here()) GTEST_SKIP() << "no wgmma on this device, or no code for it";
    ConvCase z = same_size(2, 8, 8, 8, 128, 1);
    z.tile = TWK_TILE_128X128_WGMMA;
    z.math = Math::bf16;
    expect_right(z);
    z = same_size(2, 5, 7, 40, 72);
    z.tile = TWK_TILE_128X128_WGMMA;
    z.math = Math::bf16;
    z.c2 = 16;
    z.bias = z.vector = z.residual = z.silu = true;
    z.scale = 0.7f;
    expect_right(z);
    z.splits = 3;
    expect_right(z);
    z.splits = 1;
    z.upsample = true;
    z.stride = 2;
    expect_right(z);
    Conv unaligned(same_size(1, 4, 4, 5, 72));
    unaligned.a.tile = TWK_TILE_128X128_WGMMA;
    EXPECT_EQ(twk_conv_forward(&unaligned.a, nullptr), TWK_UNSUPPORTED);
#ifdef TW_EMULATOR
    Conv c(z);
    tw::emu::set_wgmma(false); // another GPU
    EXPECT_EQ(twk_conv_forward(&c.a, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_wgmma(true);
#endif
}

TEST_F(ConvTest, KernelsStridesAndPadding) {
    ConvCase z = same_size(2, 9, 8, 16, 32);
    z.stride = 2;
    expect_right_everywhere(z); // one pixel on every side
    z.pad = {0, 0, 1, 1};       // below and right only
    expect_right_everywhere(z);
    z.pad = {2, 1, 0, 3};
    z.kh = 5;
    z.kw = 2;
    expect_right_everywhere(z);
    z = same_size(2, 9, 8, 16, 32, 1);
    z.stride = 3;
    expect_right_everywhere(z);
    z = same_size(1, 2, 3, 8, 8); // padding wider than the image
    z.pad = {4, 5, 6, 3};
    expect_right_everywhere(z);
}

TEST_F(ConvTest, TwoTensorsAndUpsampling) {
    ConvCase z = same_size(2, 5, 6, 16, 24);
    z.c2 = 40;
    expect_right_everywhere(z);
    z.c = 3; // the border between the tensors lies inside a chunk
    z.c2 = 6;
    expect_right_everywhere(z);
    z = same_size(2, 3, 5, 16, 24);
    z.upsample = true;
    expect_right_everywhere(z);
    z.c2 = 8;
    z.stride = 2;
    z.pad = {1, 0, 2, 1};
    expect_right_everywhere(z);
    z.c2 = 0;
    z.c = 5;
    expect_right_everywhere(z);
}

TEST_F(ConvTest, FoldedUpsampling) {
    ConvCase z = same_size(2, 5, 3, 16, 24);
    z.upsample = z.fold = true;
    z.bias = z.vector = z.residual = z.silu = true;
    z.scale = 0.7f;
    expect_right_everywhere(z);
    z.silu = false;
    z.splits = 3;
    expect_right_everywhere(z);
    z = same_size(2, 4, 5, 16, 24);
    z.upsample = z.fold = true;
    z.c2 = 8;
    for (int stride : {1, 2, 3}) { // padding that leaves phases of different sizes and taps
        z.stride = stride;
        z.pad = {1, 0, 2, 2};
        expect_right_everywhere(z);
    }
    z = same_size(1, 4, 3, 5, 7, 4);
    z.upsample = z.fold = true;
    expect_right_everywhere(z);
    z = same_size(2, 3, 2, 8, 8, 1);
    z.upsample = z.fold = true;
    expect_right_everywhere(z);
    z = same_size(1, 3, 7, 24, 136);
    z.upsample = z.fold = true;
    z.math = Math::bf16;
    for (twk_tile tile :
         {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_128X16, TWK_TILE_128X128_WGMMA}) {
        z.tile = tile;
        if (serves(tile, z.math)) expect_right(z);
    }
    z.tile = TWK_TILE_AUTO;
    z.upsample = false; // nothing to fold
    expect_right(z);
}

TEST_F(ConvTest, Epilogue) {
    ConvCase z = same_size(3, 5, 4, 16, 32);
    z.bias = z.vector = z.residual = true;
    z.scale = 0.7f;
    z.silu = true;
    expect_right_everywhere(z);
    z.o = 13;
    z.c = 7;
    expect_right_everywhere(z);
    z = same_size(3, 5, 4, 16, 32);
    z.splits = 3;
    z.bias = z.vector = z.residual = z.silu = true;
    expect_right_everywhere(z);
    z.vector = z.residual = z.silu = false;
    z.shift = 1; // no tensor starts at a multiple of 16 bytes
    expect_right_everywhere(z);
}

TEST_F(ConvTest, OutputOverResidual) {
    ConvCase z = same_size(2, 5, 4, 16, 32);
    z.residual = true;
    z.math = Math::bf16;
    Conv c(z);
    const std::vector<Expected> want = c.expected();
    c.a.y = const_cast<void *>(c.a.residual);
    c.launch();
    expect_close(c.residual.read(), want, TWK_BF16, 8, "in place");
}

TEST_F(ConvTest, SplitSums) {
    for (int splits : {3, 5, 100}) { // more parts than tiles are as many as tiles
        ConvCase z = same_size(2, 6, 5, 40, 72);
        z.splits = splits;
        expect_right_everywhere(z);
    }
}

TEST_F(ConvTest, EqualToTheBit) {
    NOT_FOR_RACES();
    for (int splits : {1, 3}) {
        ConvCase z = same_size(2, 6, 8, 40, 72);
        z.math = Math::bf16;
        z.splits = splits;
        z.groups = 18;
        Conv c(z);
        const std::vector<double> first = run(&c);
        const std::vector<float> partial = fetch<float>(c.partial);
        for (int again = 0; again < 2; again++) {
            c.y.buffer.poison();
            c.partial.poison();
            EXPECT_EQ(run(&c), first);
            EXPECT_EQ(fetch<float>(c.partial), partial);
        }
    }
}

void expect_statistics(Conv &c) {
    const std::vector<double> y = run(&c);
    const ConvCase &z = c.z;
    expect_close(y, c.expected(), c.a.format, c.bound(), str(z));
    int64_t pixels = 0;
    const int64_t parts = twk_conv_partials(&c.a, &pixels), area = c.oh * c.ow;
    ASSERT_EQ(parts * pixels, area);
    const std::vector<float> got = fetch<float>(c.partial);
    const int64_t per = z.o / z.groups;
    // Pixel i of those that the partials cover: phase by phase where there are any.
    const auto pixel = [&](int64_t i) {
        if (!z.fold) return i;
        const int64_t phase = i / (area / 4), w = c.ow / 2, at = i % (area / 4);
        return (at / w * 2 + phase / 2) * c.ow + at % w * 2 + phase % 2;
    };
    for (int64_t n = 0; n < z.n; n++)
        for (int64_t p = 0; p < parts; p++)
            for (int64_t g = 0; g < z.groups; g++) {
                double mean = 0, m2 = 0;
                const auto at = [&](int64_t i) {
                    return y[(size_t)((n * area + pixel(p * pixels + i / per)) * z.o + g * per +
                                      i % per)];
                };
                const double count = (double)(pixels * per);
                for (int64_t i = 0; i < pixels * per; i++) mean += at(i) / count;
                for (int64_t i = 0; i < pixels * per; i++) m2 += std::pow(at(i) - mean, 2);
                const size_t i = (size_t)(((n * parts + p) * z.groups + g) * 2);
                EXPECT_NEAR(got[i], mean, 1e-6 + 4e-6 * std::sqrt(m2 / count)) << str(z);
                EXPECT_NEAR(got[i + 1] / m2, 1, 2e-5) << str(z);
            }
}

TEST_F(ConvTest, StatisticsForTheNextNorm) {
    for (Math math : {Math::fp32, Math::bf16}) {
        for (int splits : {1, 3}) {
            for (int64_t side : {4, 12, 16}) { // several samples a tile, a part of one, all of it
                ConvCase z = same_size(3, side, side, 8, 24);
                z.math = math;
                z.splits = splits;
                z.groups = 6;
                z.bias = z.silu = true;
                Conv c(z);
                c.shift_bias(30); // where E[x^2] - mean^2 would be lost
                expect_statistics(c);
            }
        }
    }
    for (int64_t side : {2, 12}) { // several samples of a phase in a tile, a part of one
        ConvCase z = same_size(2, side, side, 8, 24);
        z.upsample = z.fold = true;
        z.math = Math::bf16;
        z.groups = 6;
        z.bias = true;
        Conv c(z);
        c.shift_bias(30);
        expect_statistics(c);
    }
    ConvCase few = same_size(3, 8, 8, 3, 72);
    few.math = Math::bf16;
    few.groups = 18;
    Conv from(few);
    expect_statistics(from);
    few = same_size(1, 8, 8, 64, 4);
    few.math = Math::bf16;
    Conv to(few);
    to.a.groups = 2;
    EXPECT_EQ(twk_conv_partials(&to.a, nullptr), 0);
    ConvCase z = same_size(3, 4, 1, 8, 24); // a sample is less than eight pixels
    z.math = Math::bf16;
    z.groups = 6;
    Conv c(z);
    expect_statistics(c);
    z = same_size(1, 5, 7, 8, 24);
    z.math = Math::bf16;
    Conv odd(z);
    odd.a.groups = 6;
    EXPECT_EQ(twk_conv_partials(&odd.a, nullptr), 0) << "35 pixels share no factor with a tile";
    odd.a.partial = reinterpret_cast<twk_moments *>(odd.a.y);
    EXPECT_EQ(twk_conv_forward(&odd.a, nullptr), TWK_BAD_ARGUMENT);
    z = same_size(1, 8, 8, 8, 24);
    z.upsample = z.fold = true;
    z.pad = {1, 1, 1, 0};
    z.math = Math::bf16;
    Conv uneven(z);
    uneven.a.groups = 6;
    EXPECT_EQ(twk_conv_partials(&uneven.a, nullptr), 0) << "phases of 8 and 7 columns";
}

// A mistake in one tap, one channel or one term is larger than the bound.
TEST_F(ConvTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    for (int i = 0; i < 4 * (int)std::size(every_math); i++) {
        const int kind = i % 4; // plain, folded, from and to few channels
        ConvCase z = same_size(2, 5, 6, kind == 2 ? 3 : 16, kind == 3 ? 3 : 24);
        z.c2 = kind < 2 ? 8 : 0;
        z.bias = z.vector = z.residual = true;
        z.math = every_math[i / 4];
        z.upsample = z.fold = kind == 1;
        Conv c(z);
        const std::vector<double> got = run(&c);
        EXPECT_EQ(count_bad(got, c.expected(), c.a.format, c.bound()), 0);
        for (int tap = 0; tap < 9; tap++) {
            const int r = tap / 3, s = tap % 3;
            EXPECT_GT(count_bad(got,
                                c.expected([&](int kr, int ks, int) { return kr != r || ks != s; }),
                                c.a.format, c.bound()),
                      0)
                << "tap " << tap << " may be dropped";
        }
        for (int channel : {0, z.c - 1, z.c, z.c + z.c2 - 1})
            EXPECT_GT(count_bad(got, c.expected([&](int, int, int k) {
                          return k != channel % (z.c + z.c2);
                      }),
                                c.a.format, c.bound()),
                      0)
                << "channel " << channel << " may be dropped";
        std::vector<Expected> moved = c.expected();
        std::rotate(moved.begin(), moved.begin() + 1, moved.end());
        EXPECT_GT(count_bad(got, moved, c.a.format, c.bound()), (int64_t)got.size() / 2);
        for (Tensor *t : {&c.vector, &c.residual}) {
            const std::vector<double> kept = t->v;
            std::fill(t->v.begin(), t->v.end(), 0.0);
            EXPECT_GT(count_bad(got, c.expected(), c.a.format, c.bound()), 0);
            t->v = kept;
        }
    }
}

TEST_F(ConvTest, ChoicesAndErrors) {
    ConvCase z = same_size(1, 8, 8, 64, 64);
    z.math = Math::bf16;
    Conv c(z);
    twk_conv_args a = c.a;
    EXPECT_EQ(twk_conv_out_h(&a), 8);
    a.stride = 2;
    a.pad_top = a.pad_left = 0;
    EXPECT_EQ(twk_conv_out_w(&a), 4);
    a.kernel_h = 100;
    EXPECT_EQ(twk_conv_out_h(&a), 0);
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_NE(std::string(twk_error_text()).find("convolution"), std::string::npos);
    a = c.a;
    a.splits = 3;
    a.workspace_bytes = twk_conv_workspace(&a) - 1;
    EXPECT_EQ(twk_conv_workspace(&a), 3u * 64 * 64 * 4);
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_BAD_ARGUMENT);
    a = c.a;
    a.tf32 = 1;
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_BAD_ARGUMENT);
    a = c.a;
    a.channels2 = 8;
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_BAD_ARGUMENT);
    a = c.a;
    a.tile = TWK_TILE_128X64;
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_UNSUPPORTED);
    a = c.a;
    a.batch = int64_t(1) << 40;
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_UNSUPPORTED);
    EXPECT_EQ(twk_conv_forward(nullptr, nullptr), TWK_BAD_ARGUMENT);
#ifdef TW_EMULATOR
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024); // GPUs of the gaming line
    for (twk_tile tile :
         {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_128X16, TWK_TILE_128X128_WGMMA}) {
        a = c.a;
        a.tile = tile;
        a.splits = 1;
        EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_OK) << twk_error_text();
    }
    tw::emu::set_shared_limit(8 * 1024);
    EXPECT_EQ(twk_conv_forward(&a, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
#endif
}

#ifdef TW_EMULATOR
// Elements past 2^32, of which one block's are looked at.
TEST_F(ConvTest, LargeTensors) {
    const int64_t pixels = int64_t(1) << 26;
    const int channels = 64;
    Hollow x((size_t)(pixels * channels) * 2), y((size_t)(pixels * channels) * 2);
    Tensor weight = random_tensor(TWK_BF16, channels * channels);
    twk_conv_args a = {};
    a.batch = 64;
    a.h = 1024;
    a.w = 1024;
    a.channels = a.out_channels = channels;
    a.kernel_h = a.kernel_w = a.stride = 1;
    a.format = TWK_BF16;
    a.tile = TWK_TILE_64X64;
    a.x = x.data;
    a.weight = weight.data();
    a.y = y.data;
    const int64_t first = (pixels - 64) * channels;
    Tensor last = random_tensor(TWK_BF16, 64 * channels);
    last.buffer.download(x.data + first * 2);
    tw::emu::set_block_filter((uint64_t)(pixels / 64 - 1), 1);
    const twk_status status = twk_conv_forward(&a, nullptr);
    tw::emu::set_block_filter(0, 0);
    ASSERT_EQ(status, TWK_OK) << twk_error_text();
    Tensor got(TWK_BF16, 64 * channels);
    got.buffer.upload(y.data + first * 2);
    std::vector<Expected> want((size_t)(64 * channels));
    for (int64_t p = 0; p < 64; p++)
        for (int o = 0; o < channels; o++)
            for (int k = 0; k < channels; k++)
                want[(size_t)(p * channels + o)].add(last.v[(size_t)(p * channels + k)] *
                                                     weight.v[(size_t)(o * channels + k)]);
    expect_close(got.read(), want, TWK_BF16, 8, "the last block");
}

TEST_F(ConvTest, LargeTensorsOfFewChannels) {
    for (const bool from_few : {true, false}) {
        twk_conv_args a = {};
        a.batch = from_few ? 60 : 64;
        a.h = a.w = from_few ? 4096 : 1024;
        a.channels = from_few ? 4 : 64;
        a.out_channels = from_few ? 8 : 3;
        a.kernel_h = a.kernel_w = a.stride = 1;
        a.format = TWK_BF16;
        const int64_t pixels = a.batch * a.h * a.w, n = 32;
        const int64_t per_block = from_few ? 128 : 256;
        Hollow x((size_t)(pixels * a.channels) * 2), y((size_t)(pixels * a.out_channels) * 2);
        Tensor weight = random_tensor(TWK_BF16, a.channels * a.out_channels);
        Tensor last = random_tensor(TWK_BF16, n * a.channels), got(TWK_BF16, n * a.out_channels);
        last.buffer.download(x.data + (pixels - n) * a.channels * 2);
        a.x = x.data;
        a.weight = weight.data();
        a.y = y.data;
        tw::emu::set_block_filter((uint64_t)(pixels / per_block - 1), 1);
        const twk_status status = twk_conv_forward(&a, nullptr);
        tw::emu::set_block_filter(0, 0);
        ASSERT_EQ(status, TWK_OK) << twk_error_text();
        EXPECT_TRUE(was_launched(from_few ? "few_inputs" : "few_outputs"));
        got.buffer.upload(y.data + (pixels - n) * a.out_channels * 2);
        std::vector<Expected> want((size_t)(n * a.out_channels));
        for (size_t i = 0; i < want.size(); i++)
            for (int k = 0; k < a.channels; k++)
                want[i].add(last.v[i / (size_t)a.out_channels * (size_t)a.channels + (size_t)k] *
                            weight.v[i % (size_t)a.out_channels * (size_t)a.channels + (size_t)k]);
        expect_close(got.read(), want, TWK_BF16, 8, "the last pixels");
    }
}
#endif

} // namespace
