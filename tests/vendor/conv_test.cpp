// Convolutions and their gradients against plain double sums, through a stand-in that does what its
// descriptors say: sizes, strides, terms, and what the launchers add around the library's part.
#include "support.h"

using namespace vnd;

namespace {

struct Case {
    int64_t n, h, w;
    int c, o, kh, kw, stride;
    int top, left, bottom, right;
};
constexpr Case cases[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},   {2, 7, 5, 3, 4, 3, 3, 1, 1, 1, 1, 1},
    {1, 4, 4, 33, 32, 3, 3, 1, 1, 1, 1, 1}, {2, 8, 6, 4, 3, 3, 3, 2, 0, 0, 1, 1},
    {3, 5, 4, 32, 33, 1, 1, 1, 0, 0, 0, 0}, {1, 6, 5, 3, 128, 3, 1, 1, 2, 0, 0, 0},
    {1, 9, 4, 96, 1, 5, 3, 3, 0, 2, 1, 0},
};

int64_t out_h(const Case &z) {
    return (z.h + z.top + z.bottom - z.kh) / z.stride + 1;
}
int64_t out_w(const Case &z) {
    return (z.w + z.left + z.right - z.kw) / z.stride + 1;
}

// Calls f with the places of y, x and weight in every product.
template <typename F> void products(const Case &z, F f) {
    for (int64_t n = 0; n < z.n; n++)
        for (int64_t p = 0; p < out_h(z); p++)
            for (int64_t q = 0; q < out_w(z); q++)
                for (int64_t o = 0; o < z.o; o++)
                    for (int64_t r = 0; r < z.kh; r++)
                        for (int64_t s = 0; s < z.kw; s++) {
                            const int64_t i = p * z.stride - z.top + r;
                            const int64_t j = q * z.stride - z.left + s;
                            if (i < 0 || j < 0 || i >= z.h || j >= z.w) continue;
                            for (int64_t c = 0; c < z.c; c++)
                                f(((n * out_h(z) + p) * out_w(z) + q) * z.o + o,
                                  ((n * z.h + i) * z.w + j) * z.c + c,
                                  ((o * z.kh + r) * z.kw + s) * z.c + c);
                        }
}

// A call with operands in memory. An odd shift leaves every address aligned to it alone.
struct Conv {
    Conv(const Case &shape, twk_format format, size_t shift = 0)
        : z(shape), f(format), n_y(z.n * out_h(z) * out_w(z) * z.o),
          x(random_tensor(f, z.n * z.h * z.w * z.c, shift)),
          weight(random_tensor(f, (int64_t)z.o * z.kh * z.kw * z.c, shift)),
          bias(random_tensor(TWK_F32, z.o)), residual(random_tensor(f, n_y, shift)),
          vector(random_tensor(f, z.n * (z.o + 3), shift)), dy(random_tensor(f, n_y, shift)),
          y(f, n_y, shift), dx(f, x.n, shift), dx_add(random_tensor(f, x.n, shift)),
          dweight(random_tensor(TWK_F32, weight.n)), dbias(random_tensor(TWK_F32, z.o)),
          room(TWK_F32, 1 << 18, 4) {
        a.batch = z.n;
        a.h = z.h;
        a.w = z.w;
        a.channels = z.c;
        a.out_channels = z.o;
        a.kernel_h = z.kh;
        a.kernel_w = z.kw;
        a.stride = z.stride;
        a.pad_top = z.top;
        a.pad_left = z.left;
        a.pad_bottom = z.bottom;
        a.pad_right = z.right;
        a.format = f;
        a.x = x.data();
        a.weight = weight.data();
        a.y = y.data();
        a.dy = dy.data();
        a.dx = dx.data();
        a.dweight = dweight.f32();
        a.workspace = room.data();
        a.workspace_bytes = size_t(4) << 18;
    }
    double scale() const { return a.scale == 0 ? 1 : (double)a.scale; }
    std::string label() const {
        return std::string(name_of(f)) + " " + std::to_string(z.h) + "x" + std::to_string(z.w) +
               " " + std::to_string(z.c) + "->" + std::to_string(z.o);
    }
    std::vector<Expected> expected() const {
        std::vector<Expected> e((size_t)n_y);
        products(z, [&](int64_t iy, int64_t ix, int64_t iw) {
            e[(size_t)iy].add(scale() * x.at(ix) * weight.at(iw));
        });
        for (int64_t i = 0; i < n_y; i++) {
            const int64_t o = i % z.o, n = i / (out_h(z) * out_w(z) * z.o);
            if (a.residual) e[(size_t)i].add(scale() * residual.at(i));
            if (a.bias) e[(size_t)i].add_rounded(scale() * bias.at(o));
            if (a.vector) e[(size_t)i].add(scale() * vector.at(n * a.vector_stride + o));
            if (a.silu) e[(size_t)i].value /= 1 + std::exp(-e[(size_t)i].value);
        }
        return e;
    }
    std::vector<Expected> expected_dx(const std::vector<double> &before) const {
        std::vector<Expected> e(before.size());
        products(z, [&](int64_t iy, int64_t ix, int64_t iw) {
            e[(size_t)ix].add(scale() * dy.at(iy) * weight.at(iw));
        });
        for (size_t i = 0; i < e.size(); i++) {
            e[i].rounded = std::fabs(e[i].value);
            e[i].add(before[i]);
        }
        return e;
    }
    // The library's part is rounded to the format, the whole is not.
    std::vector<Expected> expected_dweight(const std::vector<double> &before) const {
        std::vector<Expected> e(before.size());
        products(z, [&](int64_t iy, int64_t ix, int64_t iw) {
            e[(size_t)iw].add(scale() * dy.at(iy) * x.at(ix));
        });
        for (size_t i = 0; i < e.size(); i++) {
            e[i].rounded = std::fabs(e[i].value) * eps_of(f) / eps_of(TWK_F32);
            e[i].add(before[i]);
        }
        return e;
    }
    std::vector<Expected> expected_dbias(const std::vector<double> &before) const {
        std::vector<Expected> e(before.size());
        for (size_t i = 0; i < e.size(); i++) e[i].add(before[i]);
        for (int64_t i = 0; i < n_y; i++) e[(size_t)(i % z.o)].add(dy.at(i));
        return e;
    }

    Case z;
    twk_format f;
    int64_t n_y;
    Tensor x, weight, bias, residual, vector, dy, y, dx, dx_add, dweight, dbias, room;
    twk_conv_args a = {};
};

class ConvTest : public VendorTest {
  protected:
    Vendor v;
    tw_vendor_choice choice = {};
    twk_status choose(const twk_conv_args &a, tw_vendor_op op = TW_VENDOR_CONV_FORWARD) {
        const tw_vendor_call c = call_of(a, op);
        return tw_vendor_choose(v, &c, &choice);
    }
    void expect_forward(Conv &c) {
        ASSERT_RUNS(tw_vendor_conv_forward(v, &c.a, nullptr));
        EXPECT_EQ(count_bad(c.y.all(), c.expected(), c.f), 0) << c.label();
    }
};

TEST_F(ConvTest, Forward) {
    for (const Case &z : cases)
        for (twk_format f : formats)
            for (size_t shift : {size_t(0), bytes_of(f)}) {
                Conv c(z, f, shift);
                expect_forward(c);
            }
}

TEST_F(ConvTest, ForwardTerms) {
    for (const Case &z : {cases[1], cases[3], cases[5]})
        for (twk_format f : formats)
            for (int terms = 0; terms < 32; terms++) {
                Conv c(z, f);
                if (terms & 1) c.a.bias = c.bias.f32();
                if (terms & 2) c.a.residual = c.residual.data();
                if (terms & 4) {
                    c.a.vector = c.vector.data();
                    c.a.vector_stride = z.o + 3;
                }
                c.a.silu = terms >> 3 & 1;
                c.a.scale = terms & 16 ? 0.25f : 0.0f;
                expect_forward(c);
            }
}

TEST_F(ConvTest, ResidualInPlace) {
    Conv c(cases[1], TWK_BF16);
    c.a.bias = c.bias.f32();
    c.a.residual = c.residual.data();
    c.a.y = c.residual.data();
    const std::vector<Expected> e = c.expected();
    ASSERT_RUNS(tw_vendor_conv_forward(v, &c.a, nullptr));
    EXPECT_EQ(count_bad(c.residual.all(), e, c.f), 0);
}

TEST_F(ConvTest, InputGradient) {
    for (const Case &z : cases)
        for (twk_format f : formats)
            for (int mode = 0; mode < 3; mode++) { // nothing to add, elsewhere, in place
                Conv c(z, f, mode ? 0 : bytes_of(f));
                c.a.scale = mode == 1 ? 0.5f : 0.0f;
                if (mode) c.a.dx_add = c.dx_add.data();
                if (mode == 2) c.a.dx = c.dx_add.data();
                const std::vector<Expected> e =
                    c.expected_dx(mode ? c.dx_add.all() : std::vector<double>((size_t)c.dx.n));
                ASSERT_RUNS(tw_vendor_conv_input_gradient(v, &c.a, nullptr));
                EXPECT_EQ(count_bad((mode == 2 ? c.dx_add : c.dx).all(), e, f), 0) << c.label();
            }
}

TEST_F(ConvTest, WeightGradient) {
    for (const Case &z : cases)
        for (twk_format f : formats)
            for (bool with_bias : {false, true}) {
                Conv c(z, f);
                if (with_bias) c.a.dbias = c.dbias.f32();
                if (!with_bias) c.a.scale = 0.5f;
                const std::vector<Expected> dw = c.expected_dweight(c.dweight.all());
                const std::vector<Expected> db = c.expected_dbias(c.dbias.all());
                ASSERT_RUNS(tw_vendor_conv_weight_gradient(v, &c.a, nullptr));
                EXPECT_EQ(count_bad(c.dweight.all(), dw, TWK_F32), 0) << c.label();
                if (with_bias) {
                    EXPECT_EQ(count_bad(c.dbias.all(), db, TWK_F32), 0) << c.label();
                }
            }
}

// fp32 gradients are added by the library, without workspace beside its own.
TEST_F(ConvTest, Fp32WeightGradientInPlace) {
    Conv c(cases[1], TWK_F32);
    ASSERT_RUNS(choose(c.a, TW_VENDOR_CONV_WEIGHT_GRADIENT));
    EXPECT_EQ(choice.workspace, size_t(0));
    ASSERT_RUNS(tw_vendor_conv_weight_gradient(v, &c.a, nullptr));
    EXPECT_EQ(launched, 0);
}

// The bounds see a result that is wrong.
TEST_F(ConvTest, PlantedMistake) {
    fake::Engine e = engine(1);
    e.wrong = true;
    engines({e});
    Conv c(cases[1], TWK_BF16);
    ASSERT_RUNS(tw_vendor_conv_forward(v, &c.a, nullptr));
    EXPECT_GT(count_bad(c.y.all(), c.expected(), c.f), c.y.n / 2);
    const std::vector<Expected> dw = c.expected_dweight(c.dweight.all());
    ASSERT_RUNS(tw_vendor_conv_weight_gradient(v, &c.a, nullptr));
    EXPECT_GT(count_bad(c.dweight.all(), dw, TWK_F32), c.dweight.n / 2);
}

TEST_F(ConvTest, Cannot) {
    const Conv c(cases[1], TWK_BF16);
    twk_moments partial = {};
    twk_conv_args a = c.a;
    a.channels2 = 4;
    EXPECT_CANNOT(choose(a), "side by side");
    a = c.a;
    a.upsample = 1;
    EXPECT_CANNOT(choose(a), "enlarged");
    a = c.a;
    a.partial = &partial;
    EXPECT_CANNOT(choose(a), "statistics");
    a = c.a;
    a.scale = 0.5f;
    a.dbias = c.dbias.f32();
    EXPECT_CANNOT(choose(a, TW_VENDOR_CONV_WEIGHT_GRADIENT), "bias that is scaled");
    a.scale = 0;
    a.dweight = nullptr;
    EXPECT_CANNOT(tw_vendor_conv_weight_gradient(v, &a, nullptr), "bias alone");
    a = c.a;
    a.h = a.w = INT64_MAX;
    EXPECT_CANNOT(choose(a), "2^40");
    a = c.a;
    a.kernel_h = a.kernel_w = a.channels = a.out_channels = INT32_MAX;
    EXPECT_CANNOT(choose(a), "2^40");
    EXPECT_EQ(fake_state()->asked, 0);
}

TEST_F(ConvTest, CannotWithoutLaunchers) {
    tw_vendor_options o = options();
    o.kernels = {};
    Vendor bare(o);
    Conv c(cases[1], TWK_BF16);
    twk_conv_args a = c.a;
    EXPECT_EQ(tw_vendor_conv_forward(bare, &a, nullptr), TWK_OK);
    EXPECT_EQ(tw_vendor_conv_input_gradient(bare, &a, nullptr), TWK_OK);
    EXPECT_CANNOT(tw_vendor_conv_weight_gradient(bare, &a, nullptr), "nobody adds");
    a.bias = c.bias.f32();
    EXPECT_CANNOT(tw_vendor_conv_forward(bare, &a, nullptr), "nobody rounds");
    a.dx_add = c.dx_add.data();
    EXPECT_CANNOT(tw_vendor_conv_input_gradient(bare, &a, nullptr), "nobody adds");
    const Conv exact(cases[1], TWK_F32);
    EXPECT_EQ(tw_vendor_conv_weight_gradient(bare, &exact.a, nullptr), TWK_OK);
}

TEST_F(ConvTest, BadArguments) {
    const Conv c(cases[1], TWK_BF16);
    twk_conv_args a = c.a;
    a.format = (twk_format)3;
    EXPECT_BAD(choose(a), "format");
    a = c.a;
    a.tf32 = 1;
    EXPECT_BAD(choose(a), "tf32");
    a = c.a;
    a.batch = 0;
    EXPECT_BAD(choose(a), "positive");
    a = c.a;
    a.kernel_h = 20;
    EXPECT_BAD(choose(a), "no output");
    a = c.a;
    a.silu = 1;
    EXPECT_BAD(choose(a, TW_VENDOR_CONV_INPUT_GRADIENT), "silu");
    a = c.a;
    a.y = nullptr;
    EXPECT_BAD(tw_vendor_conv_forward(v, &a, nullptr), "NULL");
    a.dx = nullptr;
    EXPECT_BAD(tw_vendor_conv_input_gradient(v, &a, nullptr), "NULL");
    a.dy = nullptr;
    EXPECT_BAD(tw_vendor_conv_weight_gradient(v, &a, nullptr), "NULL");
}

} // namespace
