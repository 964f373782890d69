// Group norm, activations and attention: the double reference against formulas written out here,
// float32 against double.
#include "support/ops.h"

using namespace ops;

namespace {

double Silu(double x) {
    return x / (1 + std::exp(-x));
}

struct NormCase {
    Shape x;
    int groups;
    bool silu, shifted;
};

std::vector<NormCase> NormGrid() {
    std::vector<NormCase> grid;
    for (bool silu : {false, true})
        for (bool shifted : {false, true})
            for (auto &&[x, groups] : std::vector<std::pair<Shape, int>>{{{1, 1, 1, 4}, 2},
                                                                         {{2, 5, 3, 3}, 3},
                                                                         {{3, 7, 9, 33}, 11},
                                                                         {{2, 4, 4, 4}, 1},
                                                                         {{1, 13, 64}, 8},
                                                                         {{4, 130}, 10},
                                                                         {{1, 16, 15, 96}, 32},
                                                                         {{2, 9, 9, 1}, 1}})
                grid.push_back({x, groups, silu, shifted});
    return grid;
}

Op MakeNorm(const NormCase &c, Random &random, double shift = 0.5) {
    tw_op_attr a = NoAttr();
    a.norm = {c.groups, c.silu, 1e-5, 0};
    const int64_t n = c.x[0], ch = c.x.back();
    return {TW_OP_GROUP_NORM,
            a,
            {Real(c.x, random.Normal(c.x, 1.5, shift)), Real({ch}, random.Normal({ch}, 1, 1)),
             Real({ch}, random.Normal({ch})),
             c.shifted ? Real({n, 2 * ch}, random.Normal({n, 2 * ch})) : Absent()},
            {Out(c.x), Out({n, c.groups}), Out({n, c.groups})}};
}

// y, and in `scale` what the terms of each element add up to.
Values NaiveNorm(const NormCase &c, const Op &op, Values *scale) {
    const int64_t n_all = c.x[0], ch = c.x.back(), pixels = Count(c.x) / n_all / ch;
    const int64_t per = ch / c.groups;
    Values y(op.in[0].v.size());
    scale->resize(y.size());
    for (int64_t n = 0; n < n_all; n++)
        for (int64_t e = 0; e < ch; e++) {
            auto at = [&](int64_t p, int64_t k) { return (size_t)((n * pixels + p) * ch + k); };
            const int64_t first = e / per * per;
            long double mean = 0, variance = 0;
            for (int64_t p = 0; p < pixels; p++)
                for (int64_t k = first; k < first + per; k++) mean += op.in[0].v[at(p, k)];
            mean /= (long double)(pixels * per);
            for (int64_t p = 0; p < pixels; p++)
                for (int64_t k = first; k < first + per; k++)
                    variance += (op.in[0].v[at(p, k)] - mean) * (op.in[0].v[at(p, k)] - mean);
            variance /= (long double)(pixels * per);
            const double rstd = 1 / std::sqrt((double)variance + 1e-5);
            for (int64_t p = 0; p < pixels; p++) {
                const double x = op.in[0].v[at(p, e)];
                const double gamma = op.in[1].v[(size_t)e], beta = op.in[2].v[(size_t)e];
                double u = gamma * (x - (double)mean) * rstd + beta;
                double size = std::fabs(gamma) * (std::fabs(x) + std::fabs((double)mean)) * rstd +
                              std::fabs(beta);
                if (c.shifted) {
                    const double s = op.in[3].v[(size_t)(2 * n * ch + e)];
                    const double b = op.in[3].v[(size_t)(2 * n * ch + ch + e)];
                    u = u * (1 + s) + b;
                    size = size * (1 + std::fabs(s)) + std::fabs(b);
                }
                y[at(p, e)] = c.silu ? Silu(u) : u;
                (*scale)[at(p, e)] = size;
            }
        }
    return y;
}

TEST(GroupNorm, IsItsFormula) {
    Random random(40);
    for (const NormCase &c : NormGrid()) {
        const Op op = MakeNorm(c, random);
        Values scale;
        const Values y = NaiveNorm(c, op, &scale);
        ExpectClose(RunOp(op, TW_F64)[0], y, scale, 1e-14, 1e-13, "group norm, double");
        const auto ref = RunOp(op, TW_F64);
        for (const char *provider : kFloatProviders) {
            SCOPED_TRACE(provider);
            const auto got = RunOp(op, TW_F32, 2, provider);
            ExpectClose(got[0], y, scale, 4 * kUlp, 5 * kUlp, "group norm, float");
            ExpectClose(got[1], ref[1], Values(ref[1].size(), 1.0), kUlp, kUlp, "mean");
            ExpectClose(got[2], ref[2], {}, 2 * kUlp, 0, "rstd");
            EXPECT_EQ(RunOp(op, TW_F32, 1, provider), RunOp(op, TW_F32, 3, provider))
                << "threads change the bits";
        }
    }
}

// To the bit, whatever stands for the data.
TEST(GroupNorm, TakesMeanAndDeviation) {
    Random random(49);
    for (const NormCase &c : NormGrid()) {
        const Op op = MakeNorm(c, random);
        const auto exact = RunOp(op, TW_F64);
        EXPECT_EQ(RunOp(FromStatistics(op, exact), TW_F64)[0], exact[0]);
        for (const char *provider : kFloatProviders) {
            SCOPED_TRACE(provider);
            const auto first = RunOp(op, TW_F32, 2, provider);
            EXPECT_EQ(RunOp(FromStatistics(op, first), TW_F32, 2, provider)[0], first[0]);
            auto other = first;
            other[2][0] *= 1.5;
            EXPECT_NE(RunOp(FromStatistics(op, other), TW_F32, 2, provider)[0], first[0]);
        }
    }
    const Op op = MakeNorm({{2, 3, 3, 8}, 2, true, false}, random);
    const Op again = FromStatistics(op, RunOp(op, TW_F64));
    Op both = again, neither = again, half = again;
    both.out = op.out;
    neither.in.resize(4);
    half.in.resize(5);
    for (const Op &bad : {both, neither, half}) EXPECT_NE(Refusal(bad), "");
}

double Largest(const Values &v) {
    double largest = 0;
    for (double x : v) largest = std::max(largest, std::fabs(x));
    return largest;
}

// A variance from E[x^2] - mean^2 would lose everything here.
TEST(GroupNorm, HoldsFarFromZero) {
    Random random(41);
    const NormCase c{{2, 8, 8, 8}, 2, false, false};
    const Op op = MakeNorm(c, random, 3e4);
    const auto ref = RunOp(op, TW_F64);
    for (const char *provider : kFloatProviders)
        ExpectClose(RunOp(op, TW_F32, 2, provider)[2], ref[2], {}, 1e-6, 0,
                    std::string("rstd far from zero, ") + provider);
}

TEST(GroupNorm, GradientInFloat) {
    Random random(42);
    for (const NormCase &c : NormGrid()) {
        const Op f = MakeNorm(c, random);
        const auto y = RunOp(f, TW_F64);
        const Op op{TW_OP_GROUP_NORM_BWD,
                    f.attr,
                    {Real(c.x, random.Normal(c.x)), f.in[0], f.in[1], f.in[2], f.in[3],
                     Real(f.out[1].shape, y[1]), Real(f.out[2].shape, y[2])},
                    {Out(c.x), Real(f.in[1].shape, random.Normal(f.in[1].shape)),
                     Real(f.in[2].shape, random.Normal(f.in[2].shape)),
                     c.shifted ? Out(f.in[3].shape) : Absent()}};
        const auto ref = RunOp(op, TW_F64);
        for (size_t i = 0; i < ref.size(); i++) {
            /* Elements are sums over the group or the batch: the scale is the tensor's norm; in dx,
             * where the terms may cancel, the size of a term. */
            double size = Norm(ref[i]) + 1;
            if (i == 0) {
                size = 3 * Largest(y[2]) * Largest(f.in[1].v) * Largest(op.in[0].v);
                if (c.shifted) size *= 1 + Largest(f.in[3].v);
            }
            const Values scale(ref[i].size(), size);
            for (const char *provider : kFloatProviders)
                ExpectClose(RunOp(op, TW_F32, 2, provider)[i], ref[i], scale, 4 * kUlp, 16 * kUlp,
                            std::string("group norm gradient, ") + provider);
        }
        for (const char *provider : kFloatProviders)
            EXPECT_EQ(RunOp(op, TW_F32, 1, provider), RunOp(op, TW_F32, 3, provider))
                << provider << ": threads change the bits";
    }
}

// A vector that is added beforehand, in the same pass where nobody else reads the sum.
TEST(GroupNorm, AfterAVector) {
    Random random(48);
    for (const NormCase &c : NormGrid())
        for (bool hidden : {true, false}) {
            Op norm = MakeNorm(c, random);
            const Shape v{c.x[0], c.x.back()};
            Op sum{TW_OP_ADD_VEC, NoAttr(), {norm.in[0], Real(v, random.Normal(v))}, {Out(c.x)}};
            sum.out[0].hidden = hidden;
            /* What the norm sees, for the scale of its terms. */
            norm.in[0] = Real(c.x, RunOp(sum, TW_F64)[0]);
            Values scale;
            NaiveNorm(c, norm, &scale);
            norm.in[0] = Previous();
            Backend reference("cpu-reference"), fast("cpu-fast");
            Chain exact({sum, norm}, TW_F64), got({sum, norm}, TW_F32);
            int claimed = 0;
            std::string used;
            ASSERT_EQ(exact.Run(reference.get()), TW_OK) << reference.error();
            ASSERT_EQ(got.Run(fast.get(), &used, &claimed), TW_OK) << fast.error();
            EXPECT_EQ(claimed, hidden ? 2 : 1);
            EXPECT_EQ(used, hidden ? "cpu-fast" : "cpu-reference");
            for (double &s : scale) s += 4;
            ExpectClose(got.Outputs(1)[0], exact.Outputs(1)[0], scale, 4 * kUlp, 8 * kUlp,
                        "group norm after a vector");
            ExpectClose(got.Outputs(1)[2], exact.Outputs(1)[2], {}, 4 * kUlp, 0, "rstd");
        }
}

// What is added to dx in the same pass, where that is plain and nobody else reads dx.
TEST(GroupNorm, GradientAndSum) {
    Random random(47);
    for (const NormCase &c : NormGrid())
        for (int form = 0; form < 4; form++) {
            const Op f = MakeNorm(c, random);
            const auto y = RunOp(f, TW_F64);
            Op op{TW_OP_GROUP_NORM_BWD,
                  f.attr,
                  {Real(c.x, random.Normal(c.x)), f.in[0], f.in[1], f.in[2], f.in[3],
                   Real(f.out[1].shape, y[1]), Real(f.out[2].shape, y[2])},
                  {Out(c.x), Zeros(f.in[1].shape), Zeros(f.in[2].shape),
                   c.shifted ? Out(f.in[3].shape) : Absent()}};
            tw_op_attr plain = NoAttr();
            plain.axpby = {1, form == 2 ? 0.5 : 1};
            op.out[0].hidden = form != 3;
            const Arg other = Real(c.x, random.Normal(c.x));
            Op sum{TW_OP_AXPBY, plain, {other, Previous()}, {Out(c.x)}};
            if (form == 1) std::swap(sum.in[0], sum.in[1]);
            Backend reference("cpu-reference"), fast("cpu-fast");
            Chain exact({op, sum}, TW_F64), got({op, sum}, TW_F32);
            int claimed = 0;
            ASSERT_EQ(exact.Run(reference.get()), TW_OK) << reference.error();
            ASSERT_EQ(got.Run(fast.get(), nullptr, &claimed), TW_OK) << fast.error();
            EXPECT_EQ(claimed, form < 2 ? 2 : 1);
            double size = 3 * Largest(y[2]) * Largest(f.in[1].v) * Largest(op.in[0].v);
            if (c.shifted) size *= 1 + Largest(f.in[3].v);
            ExpectClose(got.Outputs(1)[0], exact.Outputs(1)[0],
                        Values(other.v.size(), size + Largest(other.v)), 4 * kUlp, 16 * kUlp,
                        "group norm gradient and sum");
        }
}

TEST(Activations, AreTheirFormulas) {
    Random random(43);
    const Shape shape{37, 29};
    Values x = random.Normal(shape, 4);
    x[0] = 0, x[1] = -30, x[2] = 30, x[3] = -100, x[4] = 100, x[5] = -1e-30;
    const Values dy = random.Normal(shape);
    for (int kind : {TW_ACT_SILU, TW_ACT_RELU, TW_ACT_GELU}) {
        tw_op_attr a = NoAttr();
        a.act.kind = kind;
        Values y, slope;
        for (double v : x) {
            const double s = 1 / (1 + std::exp(-v)), phi = 0.5 * std::erfc(-v / std::sqrt(2.0));
            const double density = std::exp(-v * v / 2) / std::sqrt(2 * M_PI);
            y.push_back(kind == TW_ACT_SILU   ? v * s
                        : kind == TW_ACT_RELU ? std::max(v, 0.0)
                                              : v * phi);
            slope.push_back(kind == TW_ACT_SILU   ? s * (1 + v * (1 - s))
                            : kind == TW_ACT_RELU ? (v > 0 ? 1 : 0)
                                                  : phi + v * density);
        }
        for (size_t i = 0; i < slope.size(); i++) slope[i] *= dy[i];
        const Op f{TW_OP_ACT, a, {Real(shape, x)}, {Out(shape)}};
        const Op b{TW_OP_ACT_BWD, a, {Real(shape, dy), Real(shape, x)}, {Out(shape)}};
        const Values tiny(x.size(), 1e-30), terms(x.size(), 20.0);
        /* GELU's tail is as steep as x^2. */
        ExpectClose(RunOp(f, TW_F64)[0], y, tiny, 1e-13, 1, "act, double");
        ExpectClose(RunOp(f, TW_F32)[0], y, tiny, 6 * kUlp, 1, "act, float");
        ExpectClose(RunOp(b, TW_F64)[0], slope, terms, 1e-14, 1e-15, "act gradient, double");
        ExpectClose(RunOp(b, TW_F32)[0], slope, terms, 6 * kUlp, 2 * kUlp, "act gradient, float");
    }
}

TEST(Activations, KeepNaN) {
    for (int kind : {TW_ACT_SILU, TW_ACT_RELU, TW_ACT_GELU})
        for (tw_dtype precision : {TW_F32, TW_F64}) {
            tw_op_attr a = NoAttr();
            a.act.kind = kind;
            const Op f{TW_OP_ACT, a, {Real({3}, {1, kNaN, 2})}, {Out({3})}};
            const Values y = RunOp(f, precision)[0];
            EXPECT_FALSE(std::isnan(y[0]));
            EXPECT_TRUE(std::isnan(y[1])) << kind;
            EXPECT_FALSE(std::isnan(y[2]));
        }
}

struct AttentionCase {
    int64_t n, tq, tk, c;
    int heads;
    std::vector<double> length;
};

Op MakeAttention(const AttentionCase &c, Random &random) {
    tw_op_attr a = NoAttr();
    a.attention = {c.heads, 1 / std::sqrt((double)(c.c / c.heads))};
    const Shape q{c.n, c.tq, c.c}, k{c.n, c.tk, c.c};
    return {TW_OP_ATTENTION,
            a,
            {Real(q, random.Normal(q, 2)), Real(k, random.Normal(k, 2)), Real(k, random.Normal(k)),
             c.length.empty() ? Absent() : Fixed(TW_I32, {c.n}, c.length)},
            {Out(q), Out({c.n, c.heads, c.tq})}};
}

// y, lse, and what their terms add up to: sum p |v| times the largest sum |scale q k| of the row,
// and that sum.
std::vector<Values> NaiveAttention(const AttentionCase &c, const Op &op) {
    const int64_t d = c.c / c.heads;
    Values y(op.in[0].v.size()), lse((size_t)(c.n * c.heads * c.tq)), y_size(y), lse_size(lse);
    for (int64_t n = 0; n < c.n; n++)
        for (int64_t h = 0; h < c.heads; h++)
            for (int64_t i = 0; i < c.tq; i++) {
                const int64_t keys = c.length.empty() ? c.tk : (int64_t)c.length[(size_t)n];
                std::vector<long double> p;
                long double sum = 0, largest = 1;
                for (int64_t j = 0; j < keys; j++) {
                    long double s = 0, size = 0;
                    for (int64_t e = 0; e < d; e++) {
                        const long double term =
                            (long double)op.in[0].v[(size_t)((n * c.tq + i) * c.c + h * d + e)] *
                            op.in[1].v[(size_t)((n * c.tk + j) * c.c + h * d + e)];
                        s += term;
                        size += std::fabs(term) * op.attr.attention.scale;
                    }
                    largest = std::max(largest, size);
                    p.push_back(std::exp(s * op.attr.attention.scale));
                    sum += p.back();
                }
                const size_t row = (size_t)((n * c.heads + h) * c.tq + i);
                lse[row] = (double)std::log(sum);
                lse_size[row] = (double)largest;
                for (int64_t e = 0; e < d; e++) {
                    const size_t at = (size_t)((n * c.tq + i) * c.c + h * d + e);
                    long double v = 0, size = 0;
                    for (int64_t j = 0; j < keys; j++) {
                        const long double term =
                            p[(size_t)j] / sum *
                            op.in[2].v[(size_t)((n * c.tk + j) * c.c + h * d + e)];
                        v += term;
                        size += std::fabs(term);
                    }
                    y[at] = (double)v;
                    y_size[at] = (double)(size * largest);
                }
            }
    return {y, lse, y_size, lse_size};
}

std::vector<AttentionCase> AttentionGrid() {
    return {{1, 1, 1, 1, 1, {}},      {2, 5, 5, 33, 3, {}},           {1, 49, 49, 64, 1, {}},
            {2, 7, 3, 8, 8, {}},      {3, 4, 70, 12, 2, {70, 1, 33}}, {2, 17, 9, 130, 1, {9, 0}},
            {1, 100, 100, 32, 4, {}}, {2, 130, 90, 40, 1, {90, 33}}};
}

TEST(Attention, IsItsFormula) {
    Random random(44);
    for (const AttentionCase &c : AttentionGrid()) {
        const Op op = MakeAttention(c, random);
        const auto ref = NaiveAttention(c, op);
        const auto exact = RunOp(op, TW_F64);
        const Values size(ref[0].size(), 4.0);
        ExpectClose(exact[0], ref[0], size, 1e-13, 1e-13, "attention, double");
        for (size_t i = 0; i < ref[1].size(); i++)
            if (!std::isinf(ref[1][i])) {
                EXPECT_NEAR(exact[1][i], ref[1][i], 1e-12);
            }
        for (const char *provider : kFloatProviders) {
            SCOPED_TRACE(provider);
            const auto got = RunOp(op, TW_F32, 2, provider);
            ExpectClose(got[0], ref[0], ref[2], 8 * kUlp, 4 * kUlp, "attention, float");
            for (size_t i = 0; i < ref[1].size(); i++) {
                if (std::isinf(ref[1][i])) {
                    EXPECT_TRUE(exact[1][i] == ref[1][i] && got[1][i] == ref[1][i]);
                } else {
                    EXPECT_NEAR(got[1][i], ref[1][i], 4 * kUlp * (ref[3][i] + 1));
                }
            }
            EXPECT_EQ(RunOp(op, TW_F32, 1, provider), RunOp(op, TW_F32, 3, provider))
                << "threads change the bits";
        }
    }
}

TEST(Attention, GradientInFloat) {
    Random random(45);
    for (const AttentionCase &c : AttentionGrid()) {
        const Op f = MakeAttention(c, random);
        const auto y = RunOp(f, TW_F64);
        const Op op{TW_OP_ATTENTION_BWD,
                    f.attr,
                    {Real(f.in[0].shape, random.Normal(f.in[0].shape)), f.in[0], f.in[1], f.in[2],
                     Real(f.out[0].shape, y[0]), Real(f.out[1].shape, y[1]), f.in[3]},
                    {Out(f.in[0].shape), Out(f.in[1].shape), Out(f.in[2].shape)}};
        const auto ref = RunOp(op, TW_F64);
        for (const char *provider : kFloatProviders) {
            const auto got = RunOp(op, TW_F32, 2, provider);
            for (size_t i = 0; i < 3; i++)
                ExpectClose(got[i], ref[i], Values(ref[i].size(), Norm(ref[i]) + 1e-3), 8 * kUlp,
                            64 * kUlp, provider + (" attention gradient " + std::to_string(i)));
            EXPECT_EQ(RunOp(op, TW_F32, 1, provider), RunOp(op, TW_F32, 3, provider))
                << provider << ": threads change the bits";
        }
    }
}

TEST(Attention, MaskedKeysDoNotMatter) {
    Random random(46);
    AttentionCase c{1, 3, 8, 4, 2, {5}};
    Op op = MakeAttention(c, random);
    const Op clean = op;
    for (size_t i = 5 * 4; i < 8 * 4; i++) op.in[1].v[i] = op.in[2].v[i] = kNaN;
    for (const char *provider : kFloatProviders)
        EXPECT_EQ(RunOp(op, TW_F32, 2, provider), RunOp(clean, TW_F32, 2, provider)) << provider;
}

} // namespace
