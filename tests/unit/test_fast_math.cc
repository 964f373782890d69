// The functions inside vectorised loops against the C library in double, at the bounds that their
// comments give.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

extern "C" {
#include "backend/cpu/fast_math.h"
}

namespace {

// The distance of neighbouring floats at `x`.
double Ulp(double x) {
    const float a = std::fabs((float)x);
    return (double)std::nextafter(a, INFINITY) - (double)a;
}

// Floats of every sign and exponent, 1 in 997.
template <class F> void Sweep(F check) {
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += 997) {
        const uint32_t word = (uint32_t)bits;
        float x;
        std::memcpy(&x, &word, sizeof x);
        if (!std::isnan(x)) check(x);
    }
}

double Worst(float (*f)(float), double (*exact)(double), double low, double high) {
    double worst = 0;
    Sweep([&](float x) {
        if (!(x >= low && x <= high)) return;
        const double want = exact((double)x);
        const double off = std::fabs((double)f(x) - want) / Ulp(want);
        worst = std::isnan(off) ? INFINITY : std::max(worst, off);
    });
    return worst;
}

TEST(FastMath, WithinTheirBounds) {
    const auto exact_exp = [](double x) { return std::exp(x); };
    const auto one_over = [](double x) { return 1 / x; };
    const auto logistic = [](double x) { return 1 / (1 + std::exp(-x)); };
    EXPECT_LE(Worst([](float x) { return tw_ref_exp_within(x); }, exact_exp, -87, 88), 2);
    EXPECT_LE(Worst([](float x) { return tw_fast_reciprocal(x); }, one_over, 1, 8e37), 2);
    EXPECT_LE(Worst([](float x) { return tw_fast_sigmoid(x); }, logistic, -86, INFINITY), 4);
}

TEST(FastMath, SaturatesAndKeepsNaN) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(tw_ref_exp(-1e30f), tw_ref_exp(-87.0f));
    EXPECT_EQ(tw_ref_exp(1e30f), tw_ref_exp(88.0f));
    EXPECT_TRUE(std::isnan(tw_ref_exp(nan)));
    EXPECT_EQ(tw_fast_sigmoid(-INFINITY), tw_fast_sigmoid(-87.0f));
    EXPECT_EQ(tw_fast_sigmoid(3e38f), 1.0f);
    EXPECT_TRUE(std::isnan(tw_fast_silu(nan)));
    EXPECT_TRUE(std::isnan(tw_fast_silu_slope(nan)));
    EXPECT_EQ(tw_fast_silu(0.0f), 0.0f);
    EXPECT_EQ(tw_fast_silu(100.0f), 100.0f);
    EXPECT_NEAR(tw_fast_silu(-100.0f), 0.0f, 1e-30f);
}

} // namespace
