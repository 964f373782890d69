// Convolutions and their input's gradient whose sums are split over the blocks of a cluster: what
// the exchange of parts, the shares of rows and the choice of parts can get wrong.
#include "conv_gradient_reference.h"

using namespace tst;

namespace {

ConvCase shape(int64_t n, int64_t h, int64_t w, int c, int o, int splits, int kernel = 3) {
    ConvCase z = same_size(n, h, w, c, o, kernel);
    z.splits = splits;
    z.math = Math::bf16;
    return z;
}

class ConvClusterTest : public KernelTest {
  protected:
    void SetUp() override {
        KernelTest::SetUp();
        if (IsSkipped()) return;
        Conv two(shape(1, 4, 4, 64, 8, 2, 1));
        two.launch();
        if (cluster_of_last() != 2) GTEST_SKIP() << "no clusters on this device";
    }
};

ConvCase with_tile(ConvCase z, twk_tile tile, Math math = Math::bf16) {
    z.tile = tile;
    z.math = math;
    return z;
}

void expect_right(const ConvCase &z) {
    Conv c(z);
    c.launch();
    EXPECT_EQ(cluster_of_last(), (unsigned)z.splits) << str(z);
    if (!z.fold) {
        EXPECT_EQ(c.workspace.size(), 0u) << str(z);
    }
    expect_close(c.y.read(), c.expected(), c.a.format, c.bound(), str(z));
}

void expect_right_gradient(const ConvCase &z, bool add = false) {
    InputGradient g(z, add);
    g.launch();
    EXPECT_EQ(cluster_of_last(), (unsigned)z.splits) << str(z);
    expect_close(g.dx.read(), g.expected(), g.a.format, g.bound(), str(z));
    if (z.c2) expect_close(g.dx2.read(), g.expected(true), g.a.format, g.bound(), str(z) + ", dx2");
}

TEST_F(ConvClusterTest, EveryTileAndNumberOfParts) {
    struct {
        twk_tile tile;
        Math math;
    } const all[] = {{TWK_TILE_AUTO, Math::fp32},        {TWK_TILE_64X64, Math::tf32},
                     {TWK_TILE_128X128, Math::bf16},     {TWK_TILE_64X64, Math::f16},
                     {TWK_TILE_128X16, Math::bf16},      {TWK_TILE_128X128_WGMMA, Math::bf16},
                     {TWK_TILE_128X128_WGMMA, Math::f16}};
    for (const auto &t : all) {
        if (!serves(t.tile, t.math)) continue;
        for (int splits : {2, 4, 8}) // tails in every direction
            expect_right(with_tile(shape(3, 7, 9, 40, 136, splits), t.tile, t.math));
        if (for_races) return;
    }
}

// As many parts as tiles along K; nine tiles over four parts and over eight, the last ones empty.
TEST_F(ConvClusterTest, PartsThatAreShortOrEmpty) {
    expect_right(shape(2, 5, 7, 64, 24, 2, 1));
    if (for_races) return;
    expect_right(shape(1, 4, 4, 32, 40, 4));
    expect_right(shape(1, 4, 4, 32, 40, 8));
    ConvCase z = shape(2, 3, 5, 37, 9, 4);
    z.shift = 1; // gathered one by one
    expect_right(z);
}

TEST_F(ConvClusterTest, Epilogues) {
    expect_right(with_everything(shape(3, 5, 4, 72, 32, 2)));
    if (for_races) return;
    expect_right(with_everything(shape(3, 5, 4, 72, 13, 4))); // y is not aligned
    expect_right(
        with_everything(with_tile(shape(3, 9, 8, 48, 136, 8), TWK_TILE_128X128, Math::f16)));
}

TEST_F(ConvClusterTest, TwoTensorsAndFoldedUpsampling) {
    ConvCase z = shape(2, 5, 6, 72, 24, 4);
    z.c2 = 40;
    expect_right(z);
    if (for_races) return;
    z = with_everything(shape(2, 5, 3, 48, 24, 2));
    z.upsample = z.fold = true;
    expect_right(z);
    z.pad = {1, 0, 2, 2}; // classes of different sizes and taps
    expect_right(z);
}

TEST_F(ConvClusterTest, Gradients) {
    expect_right_gradient(shape(3, 7, 9, 136, 24, 2), true);
    if (for_races) return;
    ConvCase z = shape(2, 5, 6, 16, 72, 8);
    z.c2 = 40;
    z.scale = 0.7f;
    expect_right_gradient(z, true);
    z = shape(2, 8, 9, 16, 96, 4); // four classes with 4, 2, 2 and 1 taps
    z.stride = 2;
    expect_right_gradient(z, true);
    z = shape(2, 3, 1, 24, 64, 2); // a column alone: half of the classes are empty
    z.stride = 2;
    expect_right_gradient(z);
}

// A partial's rows are of one block: 64 rows or 128, over the parts.
TEST_F(ConvClusterTest, Statistics) {
    for (int splits : {2, 4, 8})
        for (int64_t side : {4, 12}) {
            ConvCase z = shape(3, side, side, 32, 24, splits);
            z.groups = 6;
            z.bias = z.residual = true;
            Conv c(z);
            c.shift_bias(30); // where E[x^2] - mean^2 would be lost
            c.launch();
            const std::vector<double> y = c.y.read();
            expect_close(y, c.expected(), c.a.format, c.bound(), str(z));
            int64_t pixels = 0;
            const int64_t parts = twk_conv_partials(&c.a, &pixels), area = side * side;
            ASSERT_EQ(parts * pixels, area) << str(z);
            EXPECT_LE(pixels, 64 / splits) << str(z);
            const std::vector<float> got = fetch<float>(c.partial);
            for (int64_t i = 0; i < z.n * parts * z.groups; i++) {
                const int64_t first = i / z.groups * pixels, group = i % z.groups;
                const double count = (double)(pixels * 4);
                const auto at = [&](int64_t k) {
                    return y[(size_t)((first + k / 4) * z.o + group * 4 + k % 4)];
                };
                double mean = 0, m2 = 0;
                for (int64_t k = 0; k < pixels * 4; k++) mean += at(k) / count;
                for (int64_t k = 0; k < pixels * 4; k++) m2 += std::pow(at(k) - mean, 2);
                EXPECT_NEAR(got[(size_t)i * 2], mean, 1e-6 + 4e-6 * std::sqrt(m2 / count));
                EXPECT_NEAR(got[(size_t)i * 2 + 1] / m2, 1, 2e-5) << str(z);
            }
            if (for_races) return;
        }
}

TEST_F(ConvClusterTest, EqualToTheBit) {
    ConvCase z = shape(2, 6, 8, 40, 72, 4);
    z.groups = 18;
    Conv c(z);
    c.launch();
    const std::vector<double> first = c.y.read();
    const std::vector<float> partial = fetch<float>(c.partial);
    for (int again = 0; again < 2; again++) {
        c.y.buffer.poison();
        c.partial.poison();
        c.launch();
        EXPECT_EQ(c.y.read(), first);
        EXPECT_EQ(fetch<float>(c.partial), partial);
    }
}

// A part is missed: any tap and channel of it is.
TEST_F(ConvClusterTest, PlantedMistakesAreSeen) {
    if (for_races) return;
    const ConvCase z = shape(2, 5, 6, 32, 24, 4); // a tap is a tile, a part three taps
    Conv c(z);
    c.launch();
    const std::vector<double> got = c.y.read();
    const auto bad = [&](const std::function<bool(int, int, int)> &taken) {
        return count_bad(got, c.expected(taken), c.a.format, c.bound());
    };
    EXPECT_EQ(bad(every_tap), 0);
    for (int tap = 0; tap < 9; tap++)
        EXPECT_GT(bad([&](int r, int s, int) { return r * 3 + s != tap; }), 0) << tap;
    for (int part = 0; part < 3; part++)
        EXPECT_GT(bad([&](int r, int, int) { return r != part; }), (int64_t)got.size() / 2);
}

#ifdef TW_EMULATOR
// The parts are added up in the order that the workspace's are: the same bits.
TEST_F(ConvClusterTest, AsThroughTheWorkspace) {
    if (for_races) return;
    Conv c(with_everything(shape(2, 6, 8, 64, 72, 2)));
    c.launch();
    const std::vector<double> clustered = c.y.read();
    const unsigned most = tw::emu::max_cluster();
    tw::emu::set_max_cluster(1);
    const Buffer workspace(twk_conv_workspace(&c.a));
    c.a.workspace = workspace.data();
    c.a.workspace_bytes = workspace.size();
    c.y.buffer.poison();
    c.launch();
    EXPECT_TRUE(was_launched("conv_gather"));
    tw::emu::set_max_cluster(most);
    EXPECT_EQ(c.y.read(), clustered);
}

// One tile for four processors.
TEST_F(ConvClusterTest, WhereTheyAreChosen) {
    Conv c(shape(1, 4, 4, 64, 64, 0));
    EXPECT_EQ(twk_conv_workspace(&c.a), 0u);
    c.launch();
    EXPECT_EQ(cluster_of_last(), 4u);
    expect_close(c.y.read(), c.expected(), c.a.format, c.bound(), "chosen");
    const unsigned most = tw::emu::max_cluster();
    tw::emu::set_max_cluster(1);
    EXPECT_EQ(twk_conv_workspace(&c.a), 2u * 16 * 64 * 4);
    tw::emu::set_max_cluster(most);
}
#endif

} // namespace
