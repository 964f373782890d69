// Operations that draw random numbers, the optimizer and the sampler's small operations, against
// plain loops over core/philox.h.
#include "support/ops.h"

#include <algorithm>

#include <tweedie/schedule.h>
extern "C" {
#include "core/philox.h"
#include "diffusion/coefficients.h"
}

using namespace ops;

namespace {

constexpr tw_dtype kBoth[] = {TW_F32, TW_F64};
constexpr uint64_t kSeed = 0x1234567890abULL;

tw_philox_key Key(int64_t sample, uint32_t purpose, int64_t step) {
    return {kSeed, (uint64_t)sample, purpose, (uint32_t)step};
}

double Uniform(const tw_philox_key &key, int64_t element) {
    return (double)tw_philox_uniform(tw_philox_word(&key, (uint64_t)element));
}

double Normal(const tw_philox_key &key, int64_t element) {
    double z[4];
    tw_philox_normals(&key, (uint32_t)(element / 4), z);
    return z[element % 4];
}

TEST(Draws, Noise) {
    tw_op_attr a = NoAttr();
    a.noise = {TW_PURPOSE_INITIAL, 2.0};
    for (tw_dtype p : kBoth) {
        const Values y = RunOp({TW_OP_NOISE, a, {Rng(kSeed, 7, 3)}, {Out({3, 5, 3, 1})}}, p)[0];
        for (int64_t i = 0; i < 45; i++) {
            const double z = 2 * Normal(Key(7 + i / 15, TW_PURPOSE_INITIAL, 3), i % 15);
            EXPECT_EQ(y[(size_t)i], p == TW_F32 ? (double)(float)z : z);
        }
    }
}

TEST(Draws, NoiseOfASampleDoesNotDependOnTheBatch) {
    tw_op_attr a = NoAttr();
    a.noise = {TW_PURPOSE_INITIAL, 1.0};
    const Values all = RunOp({TW_OP_NOISE, a, {Rng(kSeed, 0, 0)}, {Out({4, 7})}}, TW_F32)[0];
    for (int64_t n = 0; n < 4; n++)
        EXPECT_EQ(RunOp({TW_OP_NOISE, a, {Rng(kSeed, n, 0)}, {Out({1, 7})}}, TW_F32)[0],
                  Values(all.begin() + 7 * n, all.begin() + 7 * (n + 1)));
}

TEST(Draws, Dropout) {
    Random random(60);
    const Values x = random.Normal({3, 4, 67});
    tw_op_attr a = NoAttr();
    a.dropout = {0.3, 5};
    for (tw_dtype p : kBoth) {
        const Values y = RunOp(
            {TW_OP_DROPOUT, a, {Real({3, 4, 67}, x), Rng(kSeed, 9, 2)}, {Out({3, 4, 67})}}, p)[0];
        int64_t kept = 0;
        for (int64_t i = 0; i < 3 * 268; i++) {
            const bool keep = Uniform(Key(9 + i / 268, TW_PURPOSE_DROPOUT + 5, 2), i % 268) >= 0.3;
            kept += keep;
            EXPECT_NEAR(y[(size_t)i], keep ? x[(size_t)i] / 0.7 : 0,
                        3 * kUlp * std::fabs(x[(size_t)i]));
        }
        EXPECT_NEAR((double)kept / 804, 0.7, 0.06);
    }
}

TEST(Draws, TimeSteps) {
    for (int64_t steps : {1, 7, 1000})
        for (bool antithetic : {false, true}) {
            tw_op_attr a = NoAttr();
            a.sample_t = {steps, antithetic};
            const Values t = RunOp(
                {TW_OP_SAMPLE_T, a, {Rng(kSeed, 3, 11)}, {Fixed(TW_I32, {8}, Values(8, kNaN))}},
                TW_F32)[0];
            for (int64_t n = 0; n < 8; n++) {
                const int64_t sample = 3 + n, source = antithetic ? sample / 2 * 2 : sample;
                const tw_philox_key key = Key(source, TW_PURPOSE_TRAIN_T, 11);
                const int64_t drawn =
                    (int64_t)(((uint64_t)tw_philox_word(&key, 0) * (uint64_t)steps) >> 32);
                EXPECT_EQ((int64_t)t[(size_t)n],
                          antithetic && sample % 2 ? steps - 1 - drawn : drawn);
            }
        }
}

TEST(Draws, ConditionDrop) {
    tw_op_attr a = NoAttr();
    a.cond_drop = {0.4, 10};
    Values label;
    for (int i = 0; i < 64; i++) label.push_back(i % 10);
    const Values y = RunOp({TW_OP_COND_DROP,
                            a,
                            {Fixed(TW_I32, {64}, label), Rng(kSeed, 100, 4)},
                            {Fixed(TW_I32, {64}, Values(64, kNaN))}},
                           TW_F64)[0];
    int dropped = 0;
    for (int64_t n = 0; n < 64; n++) {
        const bool drop = Uniform(Key(100 + n, TW_PURPOSE_COND_DROP, 4), 0) < 0.4;
        dropped += drop;
        EXPECT_EQ(y[(size_t)n], drop ? 10 : label[(size_t)n]);
    }
    EXPECT_GT(dropped, 10);
    EXPECT_LT(dropped, 45);
}

TEST(Draws, Flip) {
    Random random(61);
    const Shape s{16, 2, 3, 2};
    const Values x = random.Normal(s);
    tw_op_attr a = NoAttr();
    a.flip.p = 0.5;
    const Values y = RunOp({TW_OP_FLIP, a, {Real(s, x), Rng(kSeed, 5, 1)}, {Out(s)}}, TW_F32)[0];
    int flipped = 0;
    for (int64_t i = 0; i < Count(s); i++) {
        const int64_t n = i / 12, row = i / 6, col = i / 2 % 3, c = i % 2;
        const bool flip = Uniform(Key(5 + n, TW_PURPOSE_FLIP, 1), 0) < 0.5;
        flipped += flip;
        EXPECT_EQ(y[(size_t)i], x[(size_t)(row * 6 + (flip ? 2 - col : col) * 2 + c)]);
    }
    EXPECT_GT(flipped, 0);
    EXPECT_LT(flipped, Count(s));
}

TEST(Draws, ForwardNoise) {
    Random random(62);
    const Shape s{4, 3, 3};
    const Values x0 = random.Normal(s), table{0.9, 0.1, 0.25, 0.75, 1e-4, 0.9999};
    const Values t{2, 0, 1, 3};
    for (int prediction : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V})
        for (tw_dtype p : kBoth)
            for (tw_dtype table_type : kBoth) {
                tw_op_attr a = NoAttr();
                a.diffusion.prediction = prediction;
                const auto out = RunOp({TW_OP_FORWARD_NOISE,
                                        a,
                                        {Real(s, x0), Fixed(TW_I32, {4}, t),
                                         Fixed(table_type, {3, 2}, table), Rng(kSeed, 50, 8)},
                                        {Out(s), Out(s)}},
                                       p);
                for (int64_t i = 0; i < 36; i++) {
                    const size_t at = (size_t)i;
                    if (i >= 27) {
                        EXPECT_TRUE(std::isnan(out[0][at])) << "a step outside of the table";
                        continue;
                    }
                    const size_t row = 2 * (size_t)t[at / 9];
                    const double ra = std::sqrt(table[row]), rs = std::sqrt(table[row + 1]);
                    const double e = Normal(Key(50 + i / 9, TW_PURPOSE_TRAIN_NOISE, 8), i % 9);
                    const double target = prediction == TW_PREDICT_EPSILON  ? e
                                          : prediction == TW_PREDICT_SAMPLE ? x0[at]
                                                                            : ra * e - rs * x0[at];
                    const double size = std::fabs(e) + std::fabs(x0[at]);
                    EXPECT_NEAR(out[0][at], ra * x0[at] + rs * e, 3 * kUlp * size);
                    EXPECT_NEAR(out[1][at], target, 3 * kUlp * size);
                }
            }
}

TEST(Steps, TimeAndCounter) {
    Values table(2 * TW_COEF_WIDTH);
    for (size_t i = 0; i < table.size(); i++) table[i] = (double)i / 4;
    tw_op_attr a = NoAttr();
    a.row.column = 3;
    for (tw_dtype p : kBoth) {
        const Arg coef = Fixed(TW_F32, {2, TW_COEF_WIDTH}, table);
        EXPECT_EQ(RunOp({TW_OP_STEP_TIME, a, {coef, Rng(1, 2, 1)}, {Out({3})}}, p)[0],
                  Values(3, (TW_COEF_WIDTH + 3) / 4.0));
        EXPECT_TRUE(
            std::isnan(RunOp({TW_OP_STEP_TIME, a, {coef, Rng(1, 2, 2)}, {Out({1})}}, p)[0][0]));
        EXPECT_EQ(RunOp({TW_OP_NEXT_STEP, NoAttr(), {}, {Rng(4, 5, 6)}}, p)[0],
                  Values({4, 5, 7, 0}));
    }
}

TEST(Optimizer, GlobalNorm) {
    Random random(63);
    for (int64_t n : {1, 4095, 4097, 20001}) {
        const Values g = random.Normal({n});
        const Op op{TW_OP_GLOBAL_NORM, NoAttr(), {Real({n}, g)}, {Out({1})}};
        EXPECT_NEAR(RunOp(op, TW_F64)[0][0], Norm(g), 1e-13 * Norm(g));
        EXPECT_NEAR(RunOp(op, TW_F32)[0][0], Norm(g), 2 * kUlp * Norm(g));
        EXPECT_EQ(RunOp(op, TW_F64, 1), RunOp(op, TW_F64, 3));
    }
}

struct AdamwState {
    Values p, m, v, count, ema;
};

// One step of the formula in op.h, in double.
void PlainAdamw(AdamwState &s, const Values &g, double norm, const Values &h) {
    const double t = s.count[0] + 1;
    const double factor = h[TW_HYPER_CLIP] > 0 ? std::min(1.0, h[TW_HYPER_CLIP] / norm) : 1;
    double d = h[TW_HYPER_EMA_DECAY];
    if (h[TW_HYPER_EMA_WARMUP] != 0) d = std::min(d, t / (9 + t));
    for (size_t i = 0; i < g.size(); i++) {
        const double gi = g[i] * factor;
        s.m[i] = h[TW_HYPER_BETA1] * s.m[i] + (1 - h[TW_HYPER_BETA1]) * gi;
        s.v[i] = h[TW_HYPER_BETA2] * s.v[i] + (1 - h[TW_HYPER_BETA2]) * gi * gi;
        const double mh = s.m[i] / (1 - std::pow(h[TW_HYPER_BETA1], t));
        const double vh = s.v[i] / (1 - std::pow(h[TW_HYPER_BETA2], t));
        s.p[i] -=
            h[TW_HYPER_LR] * (h[TW_HYPER_DECAY] * s.p[i] + mh / (std::sqrt(vh) + h[TW_HYPER_EPS]));
        s.ema[i] = d * s.ema[i] + (1 - d) * s.p[i];
    }
    s.count[0]++;
}

TEST(Optimizer, Adamw) {
    Random random(64);
    const int64_t n = 5003;
    for (double clip : {0.0, 1.0})
        for (double warmup : {0.0, 1.0})
            for (tw_dtype precision : kBoth) {
                Values h{1e-2, 0.9, 0.999, 1e-8, 0.01, clip, 0.99, warmup};
                for (double &x : h) x = (double)(float)x;
                AdamwState s{random.Normal({n}), Values((size_t)n), Values((size_t)n), {0, 0}, {}};
                s.ema = s.p;
                AdamwState got = s;
                for (int step = 0; step < 3; step++) {
                    const Values g = random.Normal({n}, step == 1 ? 1e-3 : 1);
                    const double norm = (double)(float)Norm(g);
                    PlainAdamw(s, g, norm, h);
                    const auto out = RunOp({TW_OP_ADAMW,
                                            NoAttr(),
                                            {Real({n}, g), Real({1}, {norm}), Real({8}, h)},
                                            {Real({n}, got.p), Real({n}, got.m), Real({n}, got.v),
                                             Fixed(TW_I64, {2}, got.count), Real({n}, got.ema)}},
                                           precision);
                    got = {out[0], out[1], out[2], out[3], out[4]};
                    const double eps = precision == TW_F32 ? kUlp : 0x1p-53;
                    const Values one((size_t)n, 1.0);
                    ExpectClose(got.p, s.p, one, 8 * eps, eps, "p");
                    ExpectClose(got.m, s.m, one, 8 * eps, eps, "m");
                    ExpectClose(got.v, s.v, one, 16 * eps, 1e-12 * eps, "v");
                    ExpectClose(got.ema, s.ema, one, 8 * eps, eps, "ema");
                    EXPECT_EQ(got.count, s.count);
                }
            }
}

TEST(Optimizer, ANormThatIsNotFiniteOnlyCounts) {
    const Values h{1e-2, 0.9, 0.999, 1e-8, 0.01, 1, 0.99, 1};
    for (double norm : {kNaN, (double)INFINITY}) {
        const auto out = RunOp({TW_OP_ADAMW,
                                NoAttr(),
                                {Real({2}, {kNaN, 1}), Real({1}, {norm}), Real({8}, h)},
                                {Real({2}, {1, 2}), Real({2}, {3, 4}), Real({2}, {5, 6}),
                                 Fixed(TW_I64, {2}, {7, 8}), Real({2}, {9, 10})}},
                               TW_F32);
        EXPECT_EQ(out, (std::vector<Values>{{1, 2}, {3, 4}, {5, 6}, {7, 9}, {9, 10}}));
    }
}

TEST(Optimizer, WorksWithoutAnAverage) {
    const auto out = RunOp(
        {TW_OP_ADAMW,
         NoAttr(),
         {Real({1}, {2}), Real({1}, {2}), Real({8}, {0.5, 0, 0, 0, 0, 0, 0, 0})},
         {Real({1}, {1}), Real({1}, {0}), Real({1}, {0}), Fixed(TW_I64, {2}, {0, 0}), Absent()}},
        TW_F64);
    EXPECT_EQ(out[0][0], 0.5); /* a step of lr against the sign */
    EXPECT_EQ(out[3], Values({1, 0}));
}

} // namespace
