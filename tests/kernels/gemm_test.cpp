// Matrix products against a plain double sum.
#include "support.h"

#include <algorithm>

using namespace tst;

namespace {

class GemmTest : public KernelTest {};

enum class Math { fp32, tf32, bf16, f16 };

struct Case {
    int64_t batch, m, n, k;
    int64_t a_extra = 0, b_extra = 0; // elements between the rows
    bool one_b = false;               // b is the same for every product
    bool bias = false, residual = false, silu = false;
    float scale = 0;
    twk_tile tile = TWK_TILE_AUTO;
    size_t shift = 0; // of every matrix off its alignment
    bool a_columns = false, b_columns = false, add = false;
    int splits = 1;
};

class Gemm {
  public:
    Gemm(const Case &shape, Math math) : z(shape) {
        const twk_format f = math == Math::bf16 ? TWK_BF16 : math == Math::f16 ? TWK_F16 : TWK_F32;
        arg.batch = z.batch;
        arg.m = z.m;
        arg.n = z.n;
        arg.k = z.k;
        arg.format = f;
        arg.tf32 = math == Math::tf32;
        arg.a_columns = z.a_columns;
        arg.b_columns = z.b_columns;
        arg.a_row = (z.a_columns ? z.m : z.k) + z.a_extra;
        arg.b_row = (z.b_columns ? z.n : z.k) + z.b_extra;
        arg.a_batch = (z.a_columns ? z.k : z.m) * arg.a_row;
        arg.b_batch = (z.b_columns ? z.k : z.n) * arg.b_row;
        arg.d_batch = z.m * z.n;
        a = inputs(f, z.batch * arg.a_batch, arg.tf32);
        b = inputs(f, (z.one_b ? 1 : z.batch) * arg.b_batch, arg.tf32);
        if (z.one_b) arg.b_batch = 0;
        arg.add_f32 = z.add;
        d = z.add ? random_tensor(TWK_F32, z.batch * z.m * z.n, 2, z.shift)
                  : Tensor(f, z.batch * z.m * z.n, z.shift);
        arg.a = a.data();
        arg.b = b.data();
        arg.d = d.data();
        arg.scale = z.scale;
        arg.silu = z.silu;
        if (math != Math::fp32) arg.tile = z.tile;
        if (z.bias) {
            bias = random_tensor(TWK_F32, z.n);
            arg.bias = bias.f32();
        }
        if (z.residual) {
            residual = random_tensor(f, z.batch * z.m * z.n, 2, z.shift);
            arg.residual = residual.data();
        }
        arg.splits = z.splits;
        workspace = Buffer(twk_gemm_workspace(&arg));
        arg.workspace = workspace.data();
        arg.workspace_bytes = workspace.size();
    }

    void launch() { LAUNCH_OK(twk_gemm(&arg, nullptr)); }

    std::vector<Expected> expected(int64_t without = -1) const {
        std::vector<Expected> want((size_t)(z.batch * z.m * z.n));
        for (size_t i = 0; i < want.size(); i++) {
            const int64_t p = (int64_t)i / (z.m * z.n), row = (int64_t)i / z.n % z.m;
            const int64_t column = (int64_t)i % z.n;
            Expected e;
            for (int64_t k = 0; k < z.k; k++) {
                const int64_t x = z.a_columns ? k * arg.a_row + row : row * arg.a_row + k;
                const int64_t y = z.b_columns ? k * arg.b_row + column : column * arg.b_row + k;
                if (k != without)
                    e.add(a.v[(size_t)(p * arg.a_batch + x)] * b.v[(size_t)(p * arg.b_batch + y)]);
            }
            if (z.bias) e.add(bias.v[(size_t)column]);
            if (z.residual) e.add(residual.v[i]);
            const double scale = z.scale == 0 ? 1 : (double)z.scale;
            e.value *= scale;
            e.terms *= scale;
            if (z.add) e.add(d.v[i]);
            if (z.silu) { // its slope is at most 1.1; the exponential's own error
                const double v = e.value;
                e.value = v / (1 + std::exp(-v));
                e.terms = 1.1 * e.terms + (1 + std::fabs(v)) * std::fabs(e.value);
            }
            want[i] = e;
        }
        return want;
    }

    Case z;
    twk_gemm_args arg = {};
    Tensor a, b, d, bias, residual;
    Buffer workspace;

  private:
    Tensor inputs(twk_format f, int64_t n, bool tf32) const {
        Tensor t = random_tensor(f, n, 2, z.shift);
        if (!tf32) return t;
        std::vector<double> rounded = t.v;
        for (double &v : rounded) v = tf32_of(v);
        t.write(rounded);
        return t;
    }
};

#ifdef TW_EMU_TSAN
constexpr Math every_math[] = {Math::fp32, Math::bf16}; // which have all indices between them
#else
constexpr Math every_math[] = {Math::fp32, Math::tf32, Math::bf16, Math::f16};
#endif

void expect_right(const Case &z) {
    for (Math math : every_math) {
        const bool sixteen = z.tile == TWK_TILE_128X128_WGMMA || z.tile == TWK_TILE_128X256_TMA;
        if (sixteen && (math == Math::fp32 || math == Math::tf32)) continue;
        Gemm g(z, math);
        g.launch();
        if (::testing::Test::HasFatalFailure()) return;
        expect_close(g.d.read(), g.expected(), g.d.format, 8,
                     std::to_string(z.batch) + " of " + std::to_string(z.m) + "x" +
                         std::to_string(z.n) + "x" + std::to_string(z.k) +
                         (z.a_columns ? " a columns" : "") + (z.b_columns ? " b columns" : "") +
                         " math " + std::to_string((int)math));
    }
}

TEST_F(GemmTest, Sizes) {
    expect_right({1, 1, 1, 1});
    expect_right({1, 3, 5, 7});
    expect_right({2, 65, 66, 33});
    expect_right({1, 70, 72, 136});
    expect_right({3, 16, 40, 64});
}

TEST_F(GemmTest, StridesTilesAndTerms) {
    Case z = {3, 33, 24, 40};
    z.a_extra = 8;
    z.b_extra = 16;
    z.one_b = z.bias = z.residual = z.silu = true;
    z.scale = 0.7f;
    expect_right(z);
    z.a_extra = 3; // rows off their alignment
    expect_right(z);
    z.a_extra = 0;
    z.shift = 1;
    expect_right(z);
    z = {1, 130, 136, 72};
    for (twk_tile tile : {TWK_TILE_128X128, TWK_TILE_64X64}) {
        z.tile = tile;
        expect_right(z);
    }
}

constexpr bool forms[][2] = {{false, false}, {false, true}, {true, false}, {true, true}};

// By wgmma: one tile and a little more in each direction, more tiles along K than stages, fewer.
TEST_F(GemmTest, Warpgroups) {
    if (!wgmma_here()) GTEST_SKIP() << "no wgmma on this device, or no code for it";
    for (const bool *form : forms) {
        for (int64_t k : {8, 72, 272}) {
            Case z = {1, 136, 144, k};
            if (k == 72) z.m = 128, z.n = 128, z.splits = 2;
            if (k == 8) z.m = 24, z.n = 40, z.batch = 2;
            z.tile = TWK_TILE_128X128_WGMMA;
            z.a_columns = form[0];
            z.b_columns = form[1];
            z.add = form[0] && form[1];
            expect_right(z);
        }
    }
    Case z = {1, 130, 136, 40};
    z.a_extra = 8;
    z.bias = z.residual = z.silu = true;
    z.scale = 0.7f;
    z.tile = TWK_TILE_128X128_WGMMA;
    expect_right(z);
    Gemm unaligned({1, 8, 8, 7}, Math::bf16);
    unaligned.arg.tile = TWK_TILE_128X128_WGMMA;
    EXPECT_EQ(twk_gemm(&unaligned.arg, nullptr), TWK_UNSUPPORTED);
    Gemm exact({1, 8, 8, 8}, Math::tf32);
    exact.arg.tile = TWK_TILE_128X128_WGMMA;
    EXPECT_EQ(twk_gemm(&exact.arg, nullptr), TWK_UNSUPPORTED);
#ifdef TW_EMULATOR
    Gemm one({1, 8, 8, 8}, Math::bf16);
    one.arg.tile = TWK_TILE_128X128_WGMMA;
    tw::emu::set_wgmma(false); // another GPU
    EXPECT_EQ(twk_gemm(&one.arg, nullptr), TWK_UNSUPPORTED);
    for (bool there : {false, true}) // four large tiles for four processors, but not three
        for (int64_t m : {512, 384}) {
            tw::emu::set_wgmma(there);
            Gemm several({1, m, 128, 8}, Math::bf16);
            several.launch();
            twk_launch_info info;
            twk_last_launch(&info);
            EXPECT_EQ(info.blocks, m == 512 ? 4u : 12u);
        }
#endif
}

bool boxes_here() {
    Gemm one({1, 8, 8, 8}, Math::bf16);
    one.arg.tile = TWK_TILE_128X256_TMA;
    const bool served = twk_gemm(&one.arg, nullptr) != TWK_UNSUPPORTED;
    synchronize();
    return served;
}

class GemmBoxTest : public GemmTest {
  protected:
    void SetUp() override {
        GemmTest::SetUp();
        if (!IsSkipped() && !boxes_here()) GTEST_SKIP() << "no TMA here, or no code for it";
    }
};

Case boxed(Case z, const bool *form = forms[0]) {
    z.tile = TWK_TILE_128X256_TMA;
    z.a_columns = form[0];
    z.b_columns = form[1];
    // Lines start at multiples of 16 bytes, of whatever length they are.
    z.a_extra += (8 - ((form[0] ? z.m : z.k) + z.a_extra) % 8) % 8;
    z.b_extra += (8 - ((form[1] ? z.n : z.k) + z.b_extra) % 8) % 8;
    if (z.batch > 1 && !form[0]) z.m = (z.m + 7) / 8 * 8; // and so do matrices
    if (z.batch > 1 && !form[1]) z.n = (z.n + 7) / 8 * 8;
    return z;
}

// Less than a tile, more in every direction, fewer and more pieces along K than stages; sizes that
// are no chunks of 16 bytes.
TEST_F(GemmBoxTest, SizesInEveryForm) {
    for (const bool *form : forms) {
        expect_right(boxed({1, 1, 1, 1}, form));
        expect_right(boxed({1, 24, 40, 8}, form));
        expect_right(boxed({1, 300, 136, 200}, form));
        expect_right(boxed({1, 257, 129, 65}, form));
        expect_right(boxed({1, 71, 30, 391}, form));
        expect_right(boxed({1, 64, 128, 64, 24, 16}, form));
    }
}

// What setmaxnreg gives one warpgroup must be there: a kernel compiled for fewer would hang.
TEST_F(GemmBoxTest, RegistersForEveryWarpgroup) {
    expect_right(boxed({1, 64, 64, 64}, forms[0]));
    twk_launch_info info;
    twk_last_launch(&info);
    EXPECT_TRUE(info.registers == 168 || info.registers == 0) << info.registers;
    EXPECT_EQ(info.local_bytes, 0);
}

// Some blocks are given several tiles.
TEST_F(GemmBoxTest, Batches) {
    for (const bool *form : forms) {
        expect_right(boxed({6, 40, 24, 72}, form));
        Case z = {3, 33, 24, 40, 8, 16};
        z.one_b = true;
        expect_right(boxed(z, form));
    }
}

TEST_F(GemmBoxTest, TermsAndParts) {
    for (int splits : {1, 3, 100}) {
        Case z = {1, 130, 136, 264, 8};
        z.splits = splits;
        z.bias = z.residual = z.silu = true;
        z.scale = 0.7f;
        expect_right(boxed(z));
        z = {2, 70, 24, 264};
        z.splits = splits;
        z.add = true;
        z.scale = 0.7f;
        expect_right(boxed(z, forms[3]));
        z.n = 27; // no chunks of 16 bytes in d
        expect_right(boxed(z, forms[3]));
    }
    Case z = {1, 40, 27, 40};
    z.bias = z.residual = true;
    expect_right(boxed(z));
}

TEST_F(GemmBoxTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    for (const bool *form : forms)
        for (int splits : {1, 2}) {
            Case z = {2, 24, 24, 136, 8, 0, false, true};
            z.splits = splits;
            Gemm g(boxed(z, form), Math::bf16);
            g.launch();
            const std::vector<double> got = g.d.read();
            EXPECT_EQ(count_bad(got, g.expected(), g.arg.format, 8), 0);
            for (int64_t k : {0, 63, 64, 127, 128, 135})
                EXPECT_GT(count_bad(got, g.expected(k), g.arg.format, 8), (int64_t)got.size() / 2)
                    << k;
        }
}

TEST_F(GemmBoxTest, EqualToTheBit) {
    NOT_FOR_RACES();
    for (int splits : {1, 3}) {
        Case z = {2, 40, 24, 400};
        z.splits = splits;
        Gemm g(boxed(z), Math::bf16);
        g.launch();
        const std::vector<double> first = g.d.read();
        g.workspace.poison();
        g.d.buffer.poison();
        g.launch();
        EXPECT_EQ(g.d.read(), first);
    }
}

TEST_F(GemmBoxTest, WhatIsRefused) {
    Gemm g(boxed({2, 24, 24, 40}), Math::bf16);
    const auto with = [&](const std::function<void(twk_gemm_args &)> &change) {
        twk_gemm_args a = g.arg;
        change(a);
        return twk_gemm(&a, nullptr);
    };
    EXPECT_EQ(with([](twk_gemm_args &) {}), TWK_OK);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.format = TWK_F32; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.a_row = 41; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.b_row = 0; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.b_batch = 4; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.a = static_cast<const char *>(a.a) + 2; }),
              TWK_UNSUPPORTED);
    synchronize();
#ifdef TW_EMULATOR
    tw::emu::set_tma(false);
    EXPECT_EQ(with([](twk_gemm_args &) {}), TWK_UNSUPPORTED);
    // Three tiles for four processors, or six of half the size.
    for (bool there : {false, true}) {
        tw::emu::set_tma(there);
        Gemm three({1, 768, 128, 1536}, Math::bf16);
        three.launch();
        twk_launch_info info;
        twk_last_launch(&info);
        EXPECT_EQ(std::string(info.kernel).find("gemm_boxed_kernel") != std::string::npos, there)
            << info.kernel;
    }
#endif
}

#ifdef TW_EMULATOR
// GPUs of the gaming line, of compute capability 8.6 and 8.9, give a block 99 KB.
TEST_F(GemmTest, LittleSharedMemory) {
    NOT_FOR_RACES();
    const size_t limit = tw::emu::shared_limit();
    tw::emu::set_shared_limit(99 * 1024);
    for (const bool *form : forms)
        for (twk_tile tile :
             {TWK_TILE_AUTO, TWK_TILE_64X64, TWK_TILE_128X128, TWK_TILE_128X128_WGMMA}) {
            Case z = {1, 136, 72, 136};
            z.a_columns = form[0];
            z.b_columns = form[1];
            z.tile = tile;
            z.splits = 2;
            expect_right(z);
        }
    Gemm boxes(boxed({1, 136, 72, 200}), Math::bf16); // four stages of 48 KB
    EXPECT_EQ(twk_gemm(&boxes.arg, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(8 * 1024);
    Gemm none({1, 136, 72, 200}, Math::bf16);
    EXPECT_EQ(twk_gemm(&none.arg, nullptr), TWK_UNSUPPORTED);
    tw::emu::set_shared_limit(limit);
}
#endif

// Rows and columns, each of a and b: aligned, with rows further apart, and gathered.
TEST_F(GemmTest, EveryForm) {
    for (const bool *form : forms) {
        Case z = {1, 136, 72, 48};
        z.a_columns = form[0];
        z.b_columns = form[1];
        for (twk_tile tile : {TWK_TILE_128X128, TWK_TILE_64X64}) {
            z.tile = tile;
            expect_right(z);
        }
        z = {2, 24, 40, 72, 8, 16};
        z.a_columns = form[0];
        z.b_columns = form[1];
        expect_right(z);
        z.one_b = true;
        z.a_extra = 3;
        expect_right(z);
        z = {1, 5, 7, 33};
        z.a_columns = form[0];
        z.b_columns = form[1];
        expect_right(z);
        z.shift = 1;
        expect_right(z);
    }
}

// What a linear layer's backward asks for.
TEST_F(GemmTest, AddedToFp32AndSplit) {
    for (int splits : {1, 3, 100}) { // more parts than tiles are as many as tiles
        Case z = {1, 72, 40, 136};
        z.splits = splits;
        z.bias = z.residual = z.silu = true;
        expect_right(z);
        z = {2, 20, 24, 136};
        z.splits = splits;
        z.residual = true;
        z.scale = 0.7f;
        expect_right(z);
        z = {1, 72, 40, 136};
        z.splits = splits;
        z.a_columns = z.b_columns = z.add = true;
        z.scale = 0.7f;
        expect_right(z);
        z = {2, 9, 7, 136};
        z.splits = splits;
        z.add = true;
        expect_right(z);
    }
}

TEST_F(GemmTest, AddedTwice) {
    Case z = {1, 24, 16, 100};
    z.a_columns = z.b_columns = z.add = true;
    z.splits = 0;
    for (Math math : every_math) {
        Gemm g(z, math);
        g.d.write(std::vector<double>(g.d.v.size(), 0.0));
        g.launch();
        const std::vector<double> once = g.d.read();
        g.launch();
        std::vector<double> doubled = once;
        for (double &v : doubled) v *= 2;
        EXPECT_EQ(g.d.read(), doubled);
    }
}

TEST_F(GemmTest, PlantedMistakesAreSeen) {
    NOT_FOR_RACES();
    for (Math math : every_math)
        for (const bool *form : forms) {
            Case z = {2, 20, 24, 40, 8, 0, false, true};
            z.a_columns = form[0];
            z.b_columns = form[1];
            Gemm g(z, math);
            g.launch();
            const std::vector<double> got = g.d.read();
            EXPECT_EQ(count_bad(got, g.expected(), g.arg.format, 8), 0);
            for (int64_t k : {0, 31, 32, 39})
                EXPECT_GT(count_bad(got, g.expected(k), g.arg.format, 8), (int64_t)got.size() / 2)
                    << k;
            std::vector<Expected> moved = g.expected();
            std::rotate(moved.begin(), moved.begin() + 1, moved.end());
            EXPECT_GT(count_bad(got, moved, g.arg.format, 8), (int64_t)got.size() / 2);
        }
}

TEST_F(GemmTest, EqualToTheBit) {
    NOT_FOR_RACES();
    for (bool add : {false, true})
        for (int splits : {1, 3}) {
            Case z = {2, 20, 24, 200};
            z.splits = splits;
            z.add = z.a_columns = add;
            Gemm g(z, Math::bf16);
            const std::vector<double> before = g.d.v;
            g.launch();
            const std::vector<double> first = g.d.read();
            g.workspace.poison();
            if (add)
                g.d.write(before);
            else
                g.d.buffer.poison();
            g.launch();
            EXPECT_EQ(g.d.read(), first);
        }
}

// Parts that the blocks of a cluster add up: as few as tiles and as many, some of them empty, of
// several products, added to fp32 and finished. They need no workspace.
TEST_F(GemmTest, PartsInAClusterOfBlocks) {
    const auto expect_clustered = [](const Case &z) {
        for (Math math : every_math) {
            Gemm g(z, math);
            g.launch();
            if (cluster_of_last() == 1) GTEST_SKIP() << "no clusters on this device";
            EXPECT_EQ(cluster_of_last(), (unsigned)z.splits);
            EXPECT_EQ(g.workspace.size(), 0u);
            expect_close(g.d.read(), g.expected(), z.add ? TWK_F32 : g.arg.format, 8, "a cluster");
        }
    };
    for (int splits : {2, 4, 8}) {
        Case z = {2, 72, 40, 296};
        z.splits = splits;
        z.bias = z.residual = z.silu = true;
        z.scale = 0.7f;
        expect_clustered(z);
        z = {1, 72, 136, 329};
        z.splits = splits;
        z.add = z.a_columns = z.b_columns = true;
        z.scale = 0.7f;
        expect_clustered(z);
    }
}

// Of two parts of 96 and 40, each is needed.
TEST_F(GemmTest, ADroppedPartIsSeen) {
    Case z = {1, 20, 24, 136};
    z.splits = 2;
    Gemm g(z, Math::bf16);
    g.launch();
    const std::vector<double> got = g.d.read();
    for (int64_t k : {0, 95, 96, 135})
        EXPECT_GT(count_bad(got, g.expected(k), TWK_BF16, 8), (int64_t)got.size() / 2) << k;
}

TEST_F(GemmTest, Errors) {
    Gemm g({2, 20, 24, 72}, Math::bf16);
    const auto with = [&](const std::function<void(twk_gemm_args &)> &change) {
        twk_gemm_args a = g.arg;
        change(a);
        return twk_gemm(&a, nullptr);
    };
    EXPECT_EQ(with([](twk_gemm_args &a) { a.k = 0; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.d_batch = 1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.tf32 = 1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.a_row = -1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.add_f32 = a.silu = 1; }), TWK_BAD_ARGUMENT);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.tile = TWK_TILE_128X16; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.m = int64_t(1) << 40, a.batch = 1; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.batch = 65536; }), TWK_UNSUPPORTED);
    EXPECT_EQ(with([](twk_gemm_args &a) { a.m = a.n = int64_t(1) << 29, a.batch = 1; }),
              TWK_UNSUPPORTED);
    EXPECT_EQ(twk_gemm(nullptr, nullptr), TWK_BAD_ARGUMENT);
    // 72 is three tiles along K.
    EXPECT_EQ(with([](twk_gemm_args &a) { a.splits = 3; }), TWK_BAD_ARGUMENT);
    EXPECT_NE(std::string(twk_error_text()).find("workspace"), std::string::npos);
    twk_gemm_args a = g.arg;
    a.splits = 5;
    EXPECT_EQ(twk_gemm_workspace(&a), 3u * 2 * 20 * 24 * 4);
}

TEST_F(GemmTest, PartsWithoutAWorkspaceAreOne) {
    Case z = {1, 20, 24, 1 << 14};
    z.splits = 0;
#ifdef TW_EMULATOR
    const unsigned most = tw::emu::max_cluster();
    tw::emu::set_max_cluster(1); // which would do on four processors
#endif
    Gemm g(z, Math::bf16);
    EXPECT_GT(twk_gemm_workspace(&g.arg), 0u) << "nothing is split here by itself";
    g.arg.workspace = nullptr;
    g.launch();
    expect_close(g.d.read(), g.expected(), TWK_BF16, 8, "in one part");
#ifdef TW_EMULATOR
    tw::emu::set_max_cluster(most);
#endif
}

} // namespace
