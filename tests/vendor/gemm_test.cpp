// Matrix products against plain double sums, through a stand-in that counts columns first.
#include "support.h"

using namespace vnd;

namespace {

struct Case {
    int64_t batch, m, n, k;
    bool a_columns, b_columns;
    int64_t gap; // elements between rows, and between matrices
};
constexpr Case cases[] = {
    {1, 1, 1, 1, false, false, 0},   {1, 33, 5, 7, false, false, 0}, {3, 4, 7, 32, false, false, 1},
    {1, 6, 9, 33, true, false, 0},   {2, 6, 9, 33, false, true, 8},  {2, 5, 3, 16, true, true, 2},
    {1, 96, 32, 1, false, false, 0},
};

struct Gemm {
    Gemm(const Case &shape, twk_format format, bool add_f32 = false, size_t shift = 0)
        : z(shape), f(format) {
        const int64_t a_rows = z.a_columns ? z.k : z.m, b_rows = z.b_columns ? z.k : z.n;
        g.batch = z.batch;
        g.m = z.m;
        g.n = z.n;
        g.k = z.k;
        g.a_columns = z.a_columns;
        g.b_columns = z.b_columns;
        g.a_row = (z.a_columns ? z.m : z.k) + z.gap;
        g.b_row = (z.b_columns ? z.n : z.k) + z.gap;
        g.a_batch = a_rows * g.a_row + z.gap;
        g.b_batch = b_rows * g.b_row + z.gap;
        g.d_batch = z.m * z.n + z.gap;
        g.format = f;
        g.add_f32 = add_f32;
        a = random_tensor(f, z.batch * g.a_batch, shift);
        b = random_tensor(f, z.batch * g.b_batch, shift);
        bias = random_tensor(TWK_F32, z.n, shift % 16 ? 4 : 0);
        residual = random_tensor(f, z.batch * g.d_batch, shift);
        d = add_f32 ? random_tensor(TWK_F32, z.batch * g.d_batch, shift % 16 ? 4 : 0)
                    : Tensor(f, z.batch * g.d_batch, shift);
        room = Tensor(TWK_F32, 4096, 4);
        g.a = a.data();
        g.b = b.data();
        g.d = d.data();
        g.workspace = room.data();
        g.workspace_bytes = 16384;
    }
    int64_t place(int64_t p, int64_t i, int64_t j) const { return p * g.d_batch + i * z.n + j; }
    std::vector<Expected> expected(const std::vector<double> &before) const {
        std::vector<Expected> out;
        const double scale = g.scale == 0 ? 1 : (double)g.scale;
        for (int64_t p = 0; p < z.batch; p++)
            for (int64_t i = 0; i < z.m; i++)
                for (int64_t j = 0; j < z.n; j++) {
                    Expected e;
                    for (int64_t l = 0; l < z.k; l++)
                        e.add(scale *
                              a.at(p * g.a_batch +
                                   (z.a_columns ? l * g.a_row + i : i * g.a_row + l)) *
                              b.at(p * g.b_batch +
                                   (z.b_columns ? l * g.b_row + j : j * g.b_row + l)));
                    if (g.bias) e.add_rounded(scale * bias.at(j));
                    if (g.residual) e.add(scale * residual.at(place(p, i, j)));
                    if (g.add_f32) e.add(before[(size_t)place(p, i, j)]);
                    out.push_back(e);
                }
        return out;
    }
    std::vector<double> result() const {
        std::vector<double> out;
        for (int64_t p = 0; p < z.batch; p++)
            for (int64_t i = 0; i < z.m * z.n; i++) out.push_back(d.at(p * g.d_batch + i));
        return out;
    }

    Case z;
    twk_format f;
    twk_gemm_args g = {};
    Tensor a, b, bias, residual, d, room;
};

class GemmTest : public VendorTest {
  protected:
    Vendor v;
    tw_vendor_choice choice = {};
    twk_status choose(const twk_gemm_args &g) {
        const tw_vendor_call c = call_of(g);
        return tw_vendor_choose(v, &c, &choice);
    }
    int64_t bad(const Gemm &c) {
        const std::vector<Expected> e = c.expected(c.d.all());
        EXPECT_EQ(tw_vendor_gemm(v, &c.g, nullptr), TWK_OK) << tw_vendor_text();
        return count_bad(c.result(), e, c.g.add_f32 ? TWK_F32 : c.f);
    }
};

TEST_F(GemmTest, Products) {
    for (const Case &z : cases)
        for (twk_format f : formats)
            for (size_t shift : {size_t(0), bytes_of(f)}) {
                Gemm c(z, f, false, shift);
                EXPECT_EQ(bad(c), 0) << name_of(f) << " " << z.m << "x" << z.n << "x" << z.k;
            }
}

TEST_F(GemmTest, Terms) {
    for (const Case &z : cases)
        for (twk_format f : formats)
            for (int terms = 1; terms < 4; terms++)
                for (size_t shift : {size_t(0), bytes_of(f)}) {
                    Gemm c(z, f, false, shift);
                    if (terms & 1) c.g.bias = c.bias.f32();
                    if (terms & 2) c.g.residual = c.residual.data();
                    if (terms == 2) c.g.scale = 0.25f;
                    EXPECT_EQ(bad(c), 0) << name_of(f) << " " << z.m << "x" << z.n << "x" << z.k;
                }
}

TEST_F(GemmTest, AddedToFp32) {
    for (const Case &z : cases)
        for (twk_format f : formats) {
            Gemm c(z, f, true);
            c.g.scale = 0.5f;
            EXPECT_EQ(bad(c), 0) << name_of(f) << " " << z.m << "x" << z.n << "x" << z.k;
        }
}

TEST_F(GemmTest, ResidualInPlace) {
    Gemm c(cases[2], TWK_F16);
    c.g.residual = c.residual.data();
    const std::vector<Expected> e = c.expected({});
    c.g.d = c.residual.data();
    ASSERT_RUNS(tw_vendor_gemm(v, &c.g, nullptr));
    c.d = std::move(c.residual);
    EXPECT_EQ(count_bad(c.result(), e, c.f), 0);
}

TEST_F(GemmTest, PlantedMistake) {
    fake::Engine e = engine(1);
    e.wrong = true;
    engines({e});
    const Gemm c(cases[1], TWK_BF16);
    EXPECT_GT(bad(c), c.z.m * c.z.n / 2);
}

TEST_F(GemmTest, WhatIsAskedFor) {
    tw_vendor_options o = options();
    o.workspace_limit = 12345;
    Vendor limited(o);
    Gemm c(cases[1], TWK_BF16, false, 2);
    c.g.b = static_cast<const char *>(c.g.b) + 6; // 8 bytes past a multiple of 16
    const tw_vendor_call call = call_of(c.g);
    ASSERT_RUNS(tw_vendor_choose(limited, &call, &choice));
    EXPECT_EQ(fake_state()->limit, size_t(12345));
    EXPECT_EQ(fake_state()->sums, 2u);    // sums of parts in fp32, none by atomics in place
    const uint32_t want[] = {8, 2, 2, 2}; // the library's a is b
    for (int i = 0; i < 4; i++) EXPECT_EQ(fake_state()->alignment[i], want[i]);
    EXPECT_NE(std::string(choice.text).find("cuBLASLt 13.99.0: algorithm 1"), std::string::npos);
}

TEST_F(GemmTest, TheFirstThatServes) {
    fake::Engine refused = engine(4);
    refused.refused = true;
    engines({refused, engine(5, 1, size_t(1) << 40), engine(6, 1, 64), engine(7)});
    Gemm c(cases[1], TWK_F32);
    ASSERT_RUNS(choose(c.g));
    EXPECT_EQ(choice.engine, 6);
    EXPECT_EQ(choice.rank, 2);
}

TEST_F(GemmTest, PlansAreKept) {
    Gemm c(cases[1], TWK_F32);
    ASSERT_RUNS(choose(c.g));
    const uint64_t first = choice.plan;
    ASSERT_RUNS(choose(c.g));
    EXPECT_EQ(choice.plan, first);
    EXPECT_EQ(fake_state()->asked, 1);
    c.g.scale = 0.5f; // a number of the call, not of the plan
    ASSERT_RUNS(choose(c.g));
    EXPECT_EQ(choice.plan, first);
    c.g.tf32 = 1;
    ASSERT_RUNS(choose(c.g));
    EXPECT_NE(choice.plan, first);
}

TEST_F(GemmTest, Tuned) {
    engines({engine(1, 3), engine(2, 1, 512), engine(3, 2)});
    for (bool add : {false, true}) {
        Gemm c(cases[4], TWK_BF16, add);
        if (!add) c.g.bias = c.bias.f32();
        const std::vector<double> before = c.d.all();
        const tw_vendor_call call = call_of(c.g);
        ASSERT_RUNS(tw_vendor_tune(v, &call, nullptr, &choice));
        EXPECT_EQ(choice.engine, 2);
        EXPECT_EQ(choice.tried, 3);
        if (add) {
            EXPECT_EQ(c.d.all(), before);
        }
        EXPECT_EQ(bad(c), 0);
        EXPECT_EQ(fake_state()->engine, 2);
    }
}

TEST_F(GemmTest, Cannot) {
    const Gemm c(cases[1], TWK_BF16);
    twk_gemm_args g = c.g;
    g.silu = 1;
    EXPECT_CANNOT(choose(g), "silu");
    g = c.g;
    g.bias = c.bias.f32();
    g.scale = 0.5f;
    EXPECT_CANNOT(choose(g), "bias that is scaled");
    g = c.g;
    g.a_row = g.k - 1;
    EXPECT_CANNOT(choose(g), "rows that overlap");
    g = c.g;
    g.m = int64_t(1) << 31;
    EXPECT_CANNOT(choose(g), "2^31");
    tw_vendor_options o = options();
    o.kernels = {};
    Vendor bare(o);
    g = c.g;
    g.bias = c.bias.f32();
    EXPECT_CANNOT(tw_vendor_gemm(bare, &g, nullptr), "nobody rounds");
    engines({});
    EXPECT_CANNOT(choose(c.g), "not supported");
}

TEST_F(GemmTest, BadArguments) {
    const Gemm c(cases[1], TWK_BF16);
    twk_gemm_args g = c.g;
    g.format = (twk_format)5;
    EXPECT_BAD(choose(g), "format");
    g = c.g;
    g.tf32 = 1;
    EXPECT_BAD(choose(g), "tf32");
    g = c.g;
    g.k = 0;
    EXPECT_BAD(choose(g), "positive");
    g = c.g;
    g.add_f32 = 1;
    g.residual = c.residual.data();
    EXPECT_BAD(choose(g), "without bias, residual and silu");
    g = c.g;
    g.d = nullptr;
    EXPECT_BAD(tw_vendor_gemm(v, &g, nullptr), "NULL");
}

} // namespace
