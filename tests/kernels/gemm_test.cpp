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
};

double tf32_of(double v) {
    int e;
    const double m = std::frexp(v, &e);
    return std::ldexp(std::round(std::ldexp(m, 11)), e - 11);
}

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
        arg.a_row = z.k + z.a_extra;
        arg.b_row = z.k + z.b_extra;
        arg.a_batch = z.m * arg.a_row;
        arg.b_batch = z.one_b ? 0 : z.n * arg.b_row;
        arg.d_batch = z.m * z.n;
        a = inputs(f, z.batch * arg.a_batch, arg.tf32);
        b = inputs(f, (z.one_b ? 1 : z.batch) * z.n * arg.b_row, arg.tf32);
        d = Tensor(f, z.batch * z.m * z.n, z.shift);
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
    }

    void launch() { LAUNCH_OK(twk_gemm(&arg, nullptr)); }

    std::vector<Expected> expected(int64_t without = -1) const {
        std::vector<Expected> want((size_t)(z.batch * z.m * z.n));
        for (size_t i = 0; i < want.size(); i++) {
            const int64_t p = (int64_t)i / (z.m * z.n), row = (int64_t)i / z.n % z.m;
            const int64_t column = (int64_t)i % z.n;
            const double *const x = &a.v[(size_t)(p * arg.a_batch + row * arg.a_row)];
            const double *const y = &b.v[(size_t)(p * arg.b_batch + column * arg.b_row)];
            Expected e;
            for (int64_t k = 0; k < z.k; k++)
                if (k != without) e.add(x[k] * y[k]);
            if (z.bias) e.add(bias.v[(size_t)column]);
            if (z.residual) e.add(residual.v[i]);
            const double scale = z.scale == 0 ? 1 : (double)z.scale;
            e.value *= scale;
            e.terms *= scale;
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

void expect_right(const Case &z) {
    for (Math math : {Math::fp32, Math::tf32, Math::bf16, Math::f16}) {
        Gemm g(z, math);
        g.launch();
        if (::testing::Test::HasFatalFailure()) return;
        expect_close(g.d.read(), g.expected(), g.arg.format, 8,
                     std::to_string(z.batch) + " of " + std::to_string(z.m) + "x" +
                         std::to_string(z.n) + "x" + std::to_string(z.k));
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

TEST_F(GemmTest, PlantedMistakesAreSeen) {
    for (Math math : {Math::fp32, Math::tf32, Math::bf16, Math::f16}) {
        Gemm g({2, 20, 24, 40, 8, 0, false, true}, math);
        g.launch();
        const std::vector<double> got = g.d.read();
        EXPECT_EQ(count_bad(got, g.expected(), g.arg.format, 8), 0);
        for (int64_t k : {0, 31, 32, 39})
            EXPECT_GT(count_bad(got, g.expected(k), g.arg.format, 8), (int64_t)got.size() / 2) << k;
        std::vector<Expected> moved = g.expected();
        std::rotate(moved.begin(), moved.begin() + 1, moved.end());
        EXPECT_GT(count_bad(got, moved, g.arg.format, 8), (int64_t)got.size() / 2);
    }
}

TEST_F(GemmTest, EqualToTheBitAndErrors) {
    Gemm g({2, 20, 24, 40}, Math::bf16);
    g.launch();
    const std::vector<double> first = g.d.read();
    g.d.buffer.poison();
    g.launch();
    EXPECT_EQ(g.d.read(), first);
    twk_gemm_args a = g.arg;
    a.k = 0;
    EXPECT_EQ(twk_gemm(&a, nullptr), TWK_BAD_ARGUMENT);
    a = g.arg;
    a.d_batch = 1;
    EXPECT_EQ(twk_gemm(&a, nullptr), TWK_BAD_ARGUMENT);
    a = g.arg;
    a.tf32 = 1;
    EXPECT_EQ(twk_gemm(&a, nullptr), TWK_BAD_ARGUMENT);
    a = g.arg;
    a.tile = TWK_TILE_128X16;
    EXPECT_EQ(twk_gemm(&a, nullptr), TWK_UNSUPPORTED);
    a = g.arg;
    a.m = int64_t(1) << 40;
    a.batch = 1;
    EXPECT_EQ(twk_gemm(&a, nullptr), TWK_UNSUPPORTED);
    EXPECT_EQ(twk_gemm(nullptr, nullptr), TWK_BAD_ARGUMENT);
}

} // namespace
