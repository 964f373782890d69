// The convolution's weight and bias gradients against a plain double sum over pixels.
#include "conv_reference.h"

#include <algorithm>

using namespace tst;

namespace {

class ConvWeightTest : public KernelTest {};

// What a term comes from: a line of the output (of all samples, one after the other) and a tap.
using Taken = std::function<bool(int64_t line, int tap)>;

class WeightGradient {
  public:
    explicit WeightGradient(const ConvCase &shape) : conv(shape), z(shape), a(conv.a) {
        dy = random_tensor(a.format, z.n * conv.oh * conv.ow * z.o, 2, z.shift);
        if (z.math == Math::tf32) {
            std::vector<double> rounded = dy.v;
            for (double &v : rounded) v = tf32_of(v);
            dy.write(rounded);
        }
        dweight = random_tensor(TWK_F32, (int64_t)conv.weight.v.size());
        dbias = random_tensor(TWK_F32, z.o);
        a.y = nullptr; // neither read nor written
        a.weight = nullptr;
        a.dy = dy.data();
        a.dweight = dweight.f32();
        if (z.bias) a.dbias = dbias.f32();
        a.bias = nullptr;
        workspace = Buffer(twk_conv_weight_gradient_workspace(&a));
        a.workspace = workspace.data();
        a.workspace_bytes = workspace.size();
    }

    void launch() { LAUNCH_OK(twk_conv_weight_gradient(&a, nullptr)); }

    std::vector<Expected> expected(const Taken &taken = [](int64_t, int) { return true; }) const {
        const int channels = z.c + z.c2, taps = z.kh * z.kw, up = z.upsample ? 2 : 1;
        const double scale = z.scale == 0 ? 1 : (double)z.scale;
        std::vector<Expected> want(dweight.v.size());
        for (size_t i = 0; i < want.size(); i++) want[i].add(dweight.v[i]);
        for (int64_t p = 0; p < z.n * conv.oh * conv.ow; p++) {
            const int64_t line = p / conv.ow, n = line / conv.oh;
            for (int tap = 0; tap < taps; tap++) {
                const int64_t y = line % conv.oh * z.stride - z.pad.top + tap / z.kw;
                const int64_t x = p % conv.ow * z.stride - z.pad.left + tap % z.kw;
                if (y < 0 || x < 0 || y >= z.h * up || x >= z.w * up || !taken(line, tap)) continue;
                const int64_t pixel = (n * z.h + y / up) * z.w + x / up;
                for (int o = 0; o < z.o; o++) {
                    const double d = scale * dy.v[(size_t)(p * z.o + o)];
                    Expected *const row = &want[(size_t)((o * taps + tap) * channels)];
                    for (int k = 0; k < z.c; k++)
                        row[k].add(d * conv.x.v[(size_t)(pixel * z.c + k)]);
                    for (int k = 0; k < z.c2; k++)
                        row[z.c + k].add(d * conv.x2.v[(size_t)(pixel * z.c2 + k)]);
                }
            }
        }
        return want;
    }

    std::vector<Expected> expected_bias(int64_t without = -1) const {
        const double scale = z.scale == 0 ? 1 : (double)z.scale;
        std::vector<Expected> want((size_t)z.o);
        for (int o = 0; o < z.o; o++) want[(size_t)o].add(dbias.v[(size_t)o]);
        for (size_t i = 0; i < dy.v.size(); i++)
            if ((int64_t)i / z.o != without) want[i % (size_t)z.o].add(scale * dy.v[i]);
        return want;
    }

    Conv conv;
    ConvCase z;
    twk_conv_args a;
    Tensor dy, dweight, dbias;
    Buffer workspace;
};

void expect_right(const ConvCase &z) {
    WeightGradient g(z);
    g.launch();
    if (::testing::Test::HasFatalFailure()) return;
    expect_close(g.dweight.read(), g.expected(), TWK_F32, 8, str(z));
    if (z.bias)
        expect_close(g.dbias.read(), g.expected_bias(), TWK_F32, 8, "bias of " + str(z));
    else
        EXPECT_EQ(g.dbias.read(), g.dbias.v);
}

void expect_right_everywhere(ConvCase z) {
    for (Math math : every_math) {
        z.math = math;
        expect_right(z);
    }
}

ConvCase shape(int64_t n, int64_t h, int64_t w, int c, int o, int kernel = 3) {
    ConvCase z = same_size(n, h, w, c, o, kernel);
    z.bias = true;
    return z;
}

TEST_F(ConvWeightTest, OddSizesAndChannels) {
    expect_right_everywhere(shape(1, 1, 1, 1, 1, 1));
    expect_right_everywhere(shape(70, 1, 1, 4, 20)); // samples alone, above a tile's pixels
    expect_right_everywhere(shape(3, 7, 5, 3, 5));
    expect_right_everywhere(shape(2, 7, 5, 33, 34, 1));
    expect_right_everywhere(shape(5, 4, 4, 1, 3));
    expect_right_everywhere(shape(1, 9, 11, 5, 8, 5));
    expect_right_everywhere(shape(1, 3, 40, 32, 96)); // a line longer than a tile
}

TEST_F(ConvWeightTest, PicturesIn) {
    expect_right_everywhere(shape(1, 8, 9, 3, 128));
    expect_right_everywhere(shape(2, 5, 6, 1, 136)); // two tiles of rows
    ConvCase z = shape(2, 9, 8, 4, 72);
    z.c2 = 3;
    z.stride = 2;
    z.splits = 3;
    expect_right_everywhere(z);
}

// The product turned around, and where something small forbids it.
TEST_F(ConvWeightTest, PicturesOut) {
    for (int o : {1, 3, 4, 8}) expect_right_everywhere(shape(2, 8, 9, o == 3 ? 128 : 72, o));
    ConvCase z = shape(3, 7, 6, 160, 2);
    z.scale = 0.7f;
    for (int splits : {1, 3}) {
        z.splits = splits;
        z.bias = splits == 3;
        expect_right_everywhere(z);
    }
    z = shape(2, 5, 6, 64, 3);
    z.kh = 4;
    z.kw = 2;
    z.pad = {2, 0, 1, 1};
    expect_right_everywhere(z);
    z.pad = {0, 1, 0, 0}; // smaller than the image
    expect_right_everywhere(z);
    z.pad = {3, 1, 3, 1}; // larger
    expect_right_everywhere(z);
    z.pad = {1, 2, 1, 0}; // a tap that sees padding alone
    expect_right_everywhere(z);
    z = shape(2, 5, 6, 64, 3);
    z.shift = 1;
    expect_right_everywhere(z);
    z.shift = 0;
    z.stride = 2;
    expect_right_everywhere(z);
    z.stride = 1;
    z.upsample = true;
    expect_right_everywhere(z);
    z.upsample = false;
    z.c2 = 8;
    expect_right_everywhere(z);
}

TEST_F(ConvWeightTest, WidthsOfTheNetworks) {
    NOT_FOR_RACES();
    for (int64_t n : {1, 5}) expect_right_everywhere(shape(n, 4, 4, 128, 128));
    ConvCase z = shape(1, 4, 4, 256, 256);
    z.math = Math::bf16;
    expect_right(z);
    z = shape(2, 2, 2, 512, 256);
    z.math = Math::bf16;
    expect_right(z);
    z = shape(3, 5, 7, 384, 256, 1);
    z.math = Math::f16;
    expect_right(z);
}

TEST_F(ConvWeightTest, EveryTile) {
    for (twk_tile tile : {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_16X128, TWK_TILE_128X32,
                          TWK_TILE_128X128_WGMMA}) {
        ConvCase z = shape(3, 7, 9, 24, 136); // tails in every direction
        z.tile = tile;
        for (Math math : {Math::tf32, Math::bf16, Math::f16}) {
            if (for_races && math != Math::bf16) continue;
            z.math = math;
            if (serves(tile, math)) expect_right(z);
        }
    }
}

// By wgmma, in bf16, with the bias's: more tiles of pixels than stages, parts of them, two images.
TEST_F(ConvWeightTest, Warpgroups) {
    if (!wgmma_here()) GTEST_SKIP() << "no wgmma on this device, or no code for it";
    ConvCase z = shape(2, 11, 13, 136, 144, 1); // 286 pixels
    z.tile = TWK_TILE_128X128_WGMMA;
    z.math = Math::bf16;
    z.bias = true;
    z.splits = 1;
    expect_right(z);
    z = shape(2, 5, 6, 16, 72);
    z.tile = TWK_TILE_128X128_WGMMA;
    z.math = Math::bf16;
    z.bias = true;
    z.c2 = 8;
    z.scale = 0.7f;
    z.splits = 2;
    expect_right(z);
    z.upsample = true;
    z.stride = 2;
    expect_right(z);
}

TEST_F(ConvWeightTest, KernelsStridesAndPadding) {
    ConvCase z = shape(2, 9, 8, 16, 32);
    z.stride = 2;
    expect_right_everywhere(z); // one pixel on every side
    z.pad = {0, 0, 1, 1};       // below and right only
    expect_right_everywhere(z);
    z.pad = {2, 1, 0, 3};
    z.kh = 5;
    z.kw = 2;
    expect_right_everywhere(z);
    z = shape(2, 9, 8, 16, 32, 1);
    z.stride = 3;
    expect_right_everywhere(z);
    z = shape(1, 2, 3, 8, 8); // padding wider than the image
    z.pad = {4, 5, 6, 3};
    expect_right_everywhere(z);
}

TEST_F(ConvWeightTest, TwoTensorsAndUpsampling) {
    ConvCase z = shape(2, 5, 6, 16, 24);
    z.c2 = 40;
    expect_right_everywhere(z);
    z.c = 3; // the border between the tensors lies inside a chunk
    z.c2 = 6;
    expect_right_everywhere(z);
    z = shape(2, 3, 5, 16, 24);
    z.upsample = true;
    expect_right_everywhere(z);
    z.fold = true; // of no account here
    expect_right_everywhere(z);
    z.c2 = 8;
    z.stride = 2;
    z.pad = {1, 0, 2, 1};
    expect_right_everywhere(z);
    z.c2 = 0;
    z.c = 5;
    expect_right_everywhere(z);
}

TEST_F(ConvWeightTest, ScaleAlignmentAndNoBias) {
    ConvCase z = shape(3, 5, 4, 16, 32);
    z.scale = 0.7f;
    expect_right_everywhere(z);
    z.bias = false;
    expect_right_everywhere(z);
    z.splits = 1; // added without a workspace
    expect_right_everywhere(z);
    z.bias = true;
    z.shift = 1; // no tensor starts at a multiple of 16 bytes
    expect_right_everywhere(z);
}

TEST_F(ConvWeightTest, SplitSums) {
    for (int splits : {1, 2, 5, 100}) { // more parts than tiles are as many as tiles
        ConvCase z = shape(2, 9, 8, 24, 40);
        z.splits = splits;
        expect_right_everywhere(z);
    }
}

void expect_equal_and_added(const ConvCase &z) {
    WeightGradient g(z);
    const std::vector<double> none(g.dweight.v.size(), 0.0), no_bias((size_t)z.o, 0.0);
    const auto run = [&] {
        g.workspace.poison();
        g.launch();
        std::vector<double> all = g.dweight.read(), bias = g.dbias.read();
        all.insert(all.end(), bias.begin(), bias.end());
        return all;
    };
    g.dweight.write(none);
    g.dbias.write(no_bias);
    const std::vector<double> once = run();
    g.dweight.write(none);
    g.dbias.write(no_bias);
    EXPECT_EQ(run(), once);
    std::vector<double> doubled = once;
    for (double &v : doubled) v *= 2;
    EXPECT_EQ(run(), doubled);
}

TEST_F(ConvWeightTest, EqualToTheBitAndAddedTo) {
    NOT_FOR_RACES();
    for (int splits : {1, 4, 0})
        for (int o : {72, 3}) {
            ConvCase z = shape(2, 6, 8, 72, o);
            z.math = Math::bf16;
            z.splits = splits;
            expect_equal_and_added(z);
        }
}

// What the forward kernel makes of weights a little larger and smaller.
TEST_F(ConvWeightTest, FiniteDifferences) {
    NOT_FOR_RACES();
    ConvCase cases[3] = {shape(2, 3, 4, 3, 4), shape(1, 4, 4, 64, 2), shape(2, 7, 5, 4, 8)};
    cases[0].c2 = 2;
    cases[0].upsample = true;
    cases[0].scale = 0.7f;
    cases[2].stride = 2;
    cases[2].pad = {0, 0, 1, 1};
    for (const ConvCase &z : cases) {
        WeightGradient g(z);
        g.dweight.write(std::vector<double>(g.dweight.v.size(), 0.0));
        g.dbias.write(std::vector<double>((size_t)z.o, 0.0));
        g.launch();
        const std::vector<double> got = g.dweight.read(), got_bias = g.dbias.read();
        const auto slope = [&](Tensor &t, size_t i) {
            const std::vector<double> here = t.v;
            double loss[2] = {};
            for (int side = 0; side < 2; side++) {
                std::vector<double> moved = here;
                moved[i] += side ? 0.25 : -0.25;
                t.write(moved);
                g.conv.launch();
                const std::vector<double> y = g.conv.y.read();
                for (size_t at = 0; at < y.size(); at++) loss[side] += y[at] * g.dy.v[at];
            }
            t.write(here);
            return (loss[1] - loss[0]) / 0.5; // exact but for fp32's rounding: y is linear
        };
        for (size_t i = 0; i < got.size(); i += 1 + got.size() / 24)
            EXPECT_NEAR(got[i], slope(g.conv.weight, i), 1e-3) << "weight " << i << " " << str(z);
        for (size_t o = 0; o < got_bias.size(); o++)
            EXPECT_NEAR(got_bias[o], slope(g.conv.bias, o), 1e-3) << "bias " << o << " " << str(z);
    }
}

// A mistake in one line of pixels or one tap is larger than the bound.
void expect_mistakes_seen(const ConvCase &z) {
    WeightGradient g(z);
    g.launch();
    const std::vector<double> got = g.dweight.read();
    const auto bad = [&](const Taken &taken) {
        return count_bad(got, g.expected(taken), TWK_F32, 8);
    };
    EXPECT_EQ(bad([](int64_t, int) { return true; }), 0);
    const int64_t half = (int64_t)got.size() / 2, lines = z.n * g.conv.oh;
    for (int64_t line = 0; line < lines; line++)
        EXPECT_GT(bad([&](int64_t l, int) { return l != line; }), half)
            << "line " << line << " may be dropped";
    for (int tap = 0; tap < 9; tap++)
        EXPECT_GT(bad([&](int64_t l, int t) { return l != 2 || t != tap; }), half / 9)
            << "tap " << tap << " may be dropped in one line";
    std::vector<Expected> moved = g.expected();
    std::rotate(moved.begin(), moved.begin() + 1, moved.end());
    EXPECT_GT(count_bad(got, moved, TWK_F32, 8), half);
    const std::vector<double> bias = g.dbias.read();
    EXPECT_EQ(count_bad(bias, g.expected_bias(), TWK_F32, 8), 0);
    for (int64_t pixel : {0, 31, 32, 59})
        EXPECT_GT(count_bad(bias, g.expected_bias(pixel), TWK_F32, 8), z.o / 2) << pixel;
}

TEST_F(ConvWeightTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    for (Math math : every_math) {
        ConvCase z = shape(2, 5, 6, 16, 24);
        z.c2 = 8;
        z.math = math;
        z.splits = 2;
        expect_mistakes_seen(z);
        z = shape(2, 5, 6, 64, 3);
        z.math = math;
        expect_mistakes_seen(z);
    }
}

TEST_F(ConvWeightTest, ChoicesAndErrors) {
    ConvCase z = shape(1, 8, 8, 64, 64);
    z.math = Math::bf16;
    z.splits = 2;
    WeightGradient g(z);
    const auto with = [&](const std::function<void(twk_conv_args &)> &change) {
        twk_conv_args a = g.a;
        change(a);
        return twk_conv_weight_gradient(&a, nullptr);
    };
    // Two slices, and the bias's from nine tiles in two parts each.
    EXPECT_EQ(g.workspace.size(), 2u * 64 * 576 * 4 + 2u * 9 * 64 * 4);
    EXPECT_EQ(with([](twk_conv_args &a) { a.workspace_bytes--; }), TWK_BAD_ARGUMENT);
    EXPECT_NE(std::string(twk_error_text()).find("weight gradient"), std::string::npos);
    EXPECT_EQ(with([](twk_conv_args &a) { a.kernel_h = 100; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.tf32 = 1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.silu = 1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.channels2 = 8; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.dy = nullptr; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.dweight = nullptr; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_conv_args &a) { a.tile = TWK_TILE_128X64; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_conv_args &a) { a.tile = TWK_TILE_128X16; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_conv_args &a) { a.batch = int64_t(1) << 40; }), TWK_UNSUPPORTED);
    EXPECT_EQ(twk_conv_weight_gradient(nullptr, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(g.dweight.read(), g.dweight.v) << "a refused call wrote";
#ifdef TW_EMULATOR
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024); // GPUs of the gaming line
    for (twk_tile tile : {TWK_TILE_128X128, TWK_TILE_64X64, TWK_TILE_16X128, TWK_TILE_128X32,
                          TWK_TILE_128X128_WGMMA})
        EXPECT_EQ(with([&](twk_conv_args &a) { a.tile = tile, a.dbias = nullptr; }), TWK_OK)
            << twk_error_text();
    tw::emu::set_shared_limit(8 * 1024);
    EXPECT_EQ(with([](twk_conv_args &) {}), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
#endif
}

ConvCase boxed(ConvCase z, int splits = 1) {
    z.tile = TWK_TILE_128X256_TMA;
    z.math = Math::bf16;
    z.splits = splits;
    return z;
}

class ConvWeightBoxTest : public ConvWeightTest {
  protected:
    void SetUp() override {
        ConvWeightTest::SetUp();
        if (!IsSkipped() && !boxes_here()) GTEST_SKIP() << "no TMA here, or no code for it";
    }
};

// Tails in every direction, one tap and several, groups of channels that are not full; in parts.
TEST_F(ConvWeightBoxTest, Sizes) {
    expect_right(boxed(shape(1, 1, 1, 8, 8, 1)));
    expect_right(boxed(shape(70, 1, 1, 8, 24, 1), 2)); // samples alone
    expect_right(boxed(shape(3, 7, 9, 24, 136), 2));
    expect_right(boxed(shape(1, 9, 40, 72, 72, 1)));
    expect_right(boxed(shape(5, 4, 4, 128, 64), 2));
    expect_right(boxed(shape(2, 16, 8, 136, 40, 1), 3)); // more than a tile of channels
    ConvCase z = boxed(shape(2, 5, 6, 16, 72), 2);
    z.math = Math::f16;
    expect_right(z);
}

// More steps than stages and more tiles than processors.
TEST_F(ConvWeightBoxTest, ManyStepsAndTiles) {
    expect_right(boxed(shape(7, 8, 16, 64, 16, 1)));
    expect_right(boxed(shape(2, 8, 8, 72, 144), 2));
    expect_right(boxed(shape(4, 9, 7, 16, 16), 100)); // more parts than steps
}

TEST_F(ConvWeightBoxTest, StridesPaddingAndKernels) {
    ConvCase z = boxed(shape(2, 9, 8, 16, 32));
    z.stride = 2;
    expect_right(z);
    z.pad = {0, 0, 1, 1};
    expect_right(z);
    z.pad = {2, 1, 0, 3};
    z.kh = 5;
    z.kw = 2;
    expect_right(z);
    z = boxed(shape(2, 9, 8, 16, 32, 1));
    z.stride = 3;
    expect_right(z);
    z = boxed(shape(1, 2, 3, 8, 8)); // padding wider than the image
    z.pad = {4, 5, 6, 3};
    expect_right(z);
}

TEST_F(ConvWeightBoxTest, TwoTensorsAndUpsampling) {
    for (int splits : {1, 2}) {
        ConvCase z = boxed(shape(2, 5, 6, 16, 24), splits);
        z.c2 = 72;
        z.scale = 0.7f;
        expect_right(z);
        z = boxed(shape(2, 3, 5, 72, 24), splits);
        z.upsample = true;
        expect_right(z); // by classes of pixels
        z.c2 = 8;
        z.pad = {1, 0, 2, 1};
        expect_right(z);
        z.stride = 2; // one class
        expect_right(z);
        z.stride = 3;
        expect_right(z);
    }
}

TEST_F(ConvWeightBoxTest, MistakesAreSeenAndResultsAreEqual) {
    NOT_FOR_RACES();
    for (int splits : {1, 2}) {
        ConvCase z = boxed(shape(2, 5, 6, 16, 24), splits);
        z.c2 = 8;
        expect_mistakes_seen(z);
        expect_equal_and_added(z);
    }
}

TEST_F(ConvWeightBoxTest, WhatIsRefusedAndChosen) {
    WeightGradient g(boxed(shape(1, 4, 4, 16, 16)));
    const auto with = [&](const std::function<void(twk_conv_args &)> &change) {
        twk_conv_args a = g.a;
        change(a);
        return twk_conv_weight_gradient(&a, nullptr);
    };
    EXPECT_EQ(with([](twk_conv_args &) {}), TWK_OK);
    EXPECT_EQ(with([](twk_conv_args &a) { a.format = TWK_F32, a.dbias = nullptr; }),
              TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_conv_args &a) { a.channels = 12, a.dbias = nullptr; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_conv_args &a) { a.out_channels = 12, a.dbias = nullptr; }),
              TWK_UNSUPPORTED);
    synchronize();
#ifdef TW_EMULATOR
    tw::emu::set_tma(false);
    EXPECT_EQ(with([](twk_conv_args &) {}), TWK_UNSUPPORTED);
    tw::emu::set_tma(true);
    // Of 128 by 1152: five tiles of 128 x 256, in as many parts as are predicted to be best.
    ConvCase z = shape(4, 16, 16, 128, 128);
    z.math = Math::bf16;
    for (bool there : {false, true}) {
        tw::emu::set_tma(there);
        WeightGradient large(z);
        tw::emu::set_block_filter(0, 1); // no need to wait for all
        large.a.splits = 1;
        large.a.dbias = nullptr;
        EXPECT_EQ(twk_conv_weight_gradient(&large.a, nullptr), TWK_OK);
        tw::emu::set_block_filter(0, 0);
        EXPECT_EQ(was_launched("weight_gradient_box"), there);
    }
#endif
}

#ifdef TW_EMULATOR
// Elements past 2^32, of which the last part of the sum is looked at.
TEST_F(ConvWeightTest, LargeTensors) {
    const int64_t pixels = int64_t(1) << 26;
    const int channels = 64, splits = 65535, tiles = (int)(pixels / 32), each = tiles / splits + 1;
    const int64_t last_part = (tiles - 1) / each, first_pixel = last_part * each * 32;
    const int64_t count = pixels - first_pixel;
    Hollow x((size_t)(pixels * channels) * 2), dy((size_t)(pixels * channels) * 2);
    Hollow workspace((size_t)splits * channels * (channels + 1) * 4);
    Tensor dweight(TWK_F32, std::vector<double>((size_t)(channels * channels), 0.0));
    Tensor dbias(TWK_F32, std::vector<double>((size_t)channels, 0.0));
    twk_conv_args a = {};
    a.batch = 64;
    a.h = 1024;
    a.w = 1024;
    a.channels = a.out_channels = channels;
    a.kernel_h = a.kernel_w = a.stride = 1;
    a.format = TWK_BF16;
    a.tile = TWK_TILE_64X64;
    a.splits = splits;
    a.x = x.data;
    a.dy = dy.data;
    a.dweight = dweight.f32();
    a.dbias = dbias.f32();
    a.workspace = workspace.data;
    a.workspace_bytes = twk_conv_weight_gradient_workspace(&a);
    Tensor last_x = random_tensor(TWK_BF16, count * channels);
    Tensor last_dy = random_tensor(TWK_BF16, count * channels);
    last_x.buffer.download(x.data + first_pixel * channels * 2);
    last_dy.buffer.download(dy.data + first_pixel * channels * 2);
    // The second kernel has fewer blocks than the filter begins at: the slice is looked at.
    tw::emu::set_block_filter((uint64_t)last_part, 1);
    const twk_status status = twk_conv_weight_gradient(&a, nullptr);
    tw::emu::set_block_filter(0, 0);
    ASSERT_EQ(status, TWK_OK) << twk_error_text();
    Tensor got(TWK_F32, channels * channels), bias(TWK_F32, channels);
    const int64_t weights = channels * channels;
    got.buffer.upload(workspace.data + last_part * weights * 4);
    bias.buffer.upload(workspace.data + ((last_part + 1) * weights + last_part * channels) * 4);
    std::vector<Expected> want((size_t)weights), want_bias((size_t)channels);
    for (int64_t p = 0; p < count; p++)
        for (int o = 0; o < channels; o++) {
            const double d = last_dy.v[(size_t)(p * channels + o)];
            want_bias[(size_t)o].add(d);
            for (int k = 0; k < channels; k++)
                want[(size_t)(o * channels + k)].add(d * last_x.v[(size_t)(p * channels + k)]);
        }
    expect_close(got.read(), want, TWK_F32, 8, "the last part");
    expect_close(bias.read(), want_bias, TWK_F32, 8, "the last part of the bias");
}
#endif

} // namespace
