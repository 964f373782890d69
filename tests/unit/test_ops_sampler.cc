// The sampler's update against a plain formula in double, over predictions, rules, clipping,
// guidance and eta; and the dynamic threshold.
#include "support/ops.h"

#include <algorithm>

#include <tweedie/schedule.h>
extern "C" {
#include "core/philox.h"
#include "diffusion/coefficients.h"
}

using namespace ops;

namespace {

constexpr uint64_t kSeed = 99;

struct Case {
    tw_op_attr attr;
    int64_t n = 3, pixels = 5, c = 2, sample = 4, step = 1;
    Values x, m, uncond, table, limit;
    bool learned() const { return attr.update.rule == TW_UPDATE_LEARNED_RANGE; }
};

// Column `column` of the row that is read.
void Put(Case &k, int column, double v) {
    k.table[(size_t)(TW_COEF_WIDTH + column)] = (double)(float)v;
}

Case Make(Random &random) {
    Case k;
    k.attr = NoAttr();
    const double a = 0.3, ap = 0.7;
    k.table = Values(2 * TW_COEF_WIDTH, kNaN); /* only row 1 may be read */
    const std::pair<int, double> columns[] = {
        {TW_COEF_TIME, 10},       {TW_COEF_A, a},           {TW_COEF_1MA, 1 - a},
        {TW_COEF_AP, ap},         {TW_COEF_1MAP, 1 - ap},   {TW_COEF_1MRATIO, 1 - a / ap},
        {TW_COEF_X0, 0.6},        {TW_COEF_X, 0.35},        {TW_COEF_Z, 0.2},
        {TW_COEF_LOGVAR_MIN, -4}, {TW_COEF_LOGVAR_MAX, -1}, {TW_COEF_ETA, 0}};
    for (const auto &c : columns) Put(k, c.first, c.second);
    k.x = random.Normal({k.n, k.pixels, k.c}, 1.5);
    k.m = random.Normal({k.n, k.pixels, 2 * k.c});
    k.uncond = random.Normal({k.n, k.pixels, 2 * k.c});
    k.limit = {1, 1.5, 2.25};
    return k;
}

double Coef(const Case &k, int i) {
    return k.table[(size_t)(k.step * TW_COEF_WIDTH + i)];
}

// Prediction of element i: x0 before clipping, and epsilon.
double Predict(const Case &k, int64_t i, double *e) {
    const auto &u = k.attr.update;
    const int64_t width = k.learned() ? 2 * k.c : k.c;
    const size_t at = (size_t)(i / k.c * width + i % k.c);
    const double m = u.guided ? k.uncond[at] + u.guidance * (k.m[at] - k.uncond[at]) : k.m[at];
    const double x = k.x[(size_t)i], a = Coef(k, TW_COEF_A), b = Coef(k, TW_COEF_1MA);
    if (u.prediction == TW_PREDICT_EPSILON) {
        *e = m;
        return (x - std::sqrt(b) * m) / std::sqrt(a);
    }
    if (u.prediction == TW_PREDICT_SAMPLE) {
        *e = (x - std::sqrt(a) * m) / std::sqrt(b);
        return m;
    }
    *e = std::sqrt(a) * m + std::sqrt(b) * x;
    return std::sqrt(a) * x - std::sqrt(b) * m;
}

void Plain(const Case &k, Values *x_new, Values *x0_all) {
    const auto &u = k.attr.update;
    const int64_t count = k.pixels * k.c;
    for (int64_t i = 0; i < k.n * count; i++) {
        const tw_philox_key key{kSeed, (uint64_t)(k.sample + i / count), TW_PURPOSE_SAMPLER,
                                (uint32_t)k.step};
        double z4[4], e;
        tw_philox_normals(&key, (uint32_t)(i % count / 4), z4);
        const double z = z4[i % count % 4], x = k.x[(size_t)i];
        double x0 = Predict(k, i, &e);
        if (u.clip == TW_CLIP_RANGE) x0 = std::min(std::max(x0, -u.clip_range), u.clip_range);
        if (u.clip == TW_CLIP_DYNAMIC) {
            const double s = k.limit[(size_t)(i / count)];
            x0 = std::min(std::max(x0, -s), s) / s;
        }
        if (u.rederive_epsilon)
            e = (x - std::sqrt(Coef(k, TW_COEF_A)) * x0) / std::sqrt(Coef(k, TW_COEF_1MA));
        double y;
        if (u.rule == TW_UPDATE_DDIM) {
            const double sigma = Coef(k, TW_COEF_ETA) *
                                 std::sqrt(Coef(k, TW_COEF_1MAP) / Coef(k, TW_COEF_1MA)) *
                                 std::sqrt(Coef(k, TW_COEF_1MRATIO));
            y = std::sqrt(Coef(k, TW_COEF_AP)) * x0 +
                std::sqrt(std::max(Coef(k, TW_COEF_1MAP) - sigma * sigma, 0.0)) * e + sigma * z;
        } else {
            double factor = Coef(k, TW_COEF_Z);
            if (k.learned()) {
                const double f = (k.m[(size_t)(i / k.c * 2 * k.c + k.c + i % k.c)] + 1) / 2;
                factor *= std::exp(0.5 * (f * Coef(k, TW_COEF_LOGVAR_MAX) +
                                          (1 - f) * Coef(k, TW_COEF_LOGVAR_MIN)));
            }
            y = Coef(k, TW_COEF_X0) * x0 + Coef(k, TW_COEF_X) * x + factor * z;
        }
        x_new->push_back(y);
        x0_all->push_back(x0);
    }
}

Op MakeOp(const Case &k, bool x0 = true) {
    const Shape x{k.n, k.pixels, 1, k.c}, m{k.n, k.pixels, 1, k.learned() ? 2 * k.c : k.c};
    auto network = [&](Values v) {
        v.resize((size_t)Count(m));
        return Real(m, v);
    };
    return {TW_OP_SAMPLER_UPDATE,
            k.attr,
            {network(k.m), k.attr.update.guided ? network(k.uncond) : Absent(),
             Fixed(TW_F32, {2, TW_COEF_WIDTH}, k.table), Rng(kSeed, k.sample, k.step),
             k.attr.update.clip == TW_CLIP_DYNAMIC ? Real({k.n}, k.limit) : Absent()},
            {Real(x, k.x), x0 ? Out(x) : Absent()}};
}

void Check(const Case &k, const std::string &what) {
    Values x, x0;
    Plain(k, &x, &x0);
    const Values size(x.size(), 8.0);
    const auto exact = RunOp(MakeOp(k), TW_F64), got = RunOp(MakeOp(k), TW_F32);
    ExpectClose(exact[0], x, size, 1e-14, 1e-15, what + ", x in double");
    ExpectClose(exact[1], x0, size, 1e-14, 1e-15, what + ", x0 in double");
    ExpectClose(got[0], x, size, kUlp, 0.1 * kUlp, what + ", x in float");
    ExpectClose(got[1], x0, size, kUlp, 0.1 * kUlp, what + ", x0 in float");
    EXPECT_EQ(RunOp(MakeOp(k, false), TW_F32)[0], got[0]) << "x0 is optional";
}

TEST(SamplerUpdate, IsTheFormula) {
    Random random(70);
    for (int rule : {TW_UPDATE_DDIM, TW_UPDATE_LINEAR, TW_UPDATE_LEARNED_RANGE})
        for (int prediction : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V})
            for (int clip : {TW_CLIP_NONE, TW_CLIP_RANGE, TW_CLIP_DYNAMIC})
                for (bool rederive : {false, true})
                    for (bool guided : {false, true})
                        for (double eta : {0.0, 0.5, 1.0}) {
                            if (rule != TW_UPDATE_DDIM && eta != 0) continue;
                            Case k = Make(random);
                            k.attr.update.rule = rule;
                            k.attr.update.prediction = prediction;
                            k.attr.update.clip = clip;
                            k.attr.update.clip_range = 1.25;
                            k.attr.update.rederive_epsilon = rederive;
                            k.attr.update.guided = guided;
                            k.attr.update.guidance = 2.5;
                            Put(k, TW_COEF_ETA, eta);
                            Check(k, "rule " + std::to_string(rule) + " prediction " +
                                         std::to_string(prediction) + " clip " +
                                         std::to_string(clip) + " eta " + std::to_string(eta));
                        }
}

TEST(SamplerUpdate, TheLastStepGivesX0WithoutNoise) {
    Random random(71);
    for (int rule : {TW_UPDATE_DDIM, TW_UPDATE_LINEAR, TW_UPDATE_LEARNED_RANGE}) {
        Case k = Make(random);
        k.attr.update.rule = rule;
        double *row = &k.table[TW_COEF_WIDTH];
        row[TW_COEF_ETA] = 1;
        row[TW_COEF_AP] = 1, row[TW_COEF_1MAP] = 0, row[TW_COEF_1MRATIO] = row[TW_COEF_1MA];
        row[TW_COEF_X0] = 1, row[TW_COEF_X] = 0, row[TW_COEF_Z] = 0;
        const auto out = RunOp(MakeOp(k), TW_F64);
        EXPECT_EQ(out[0], out[1]) << rule;
    }
}

TEST(SamplerUpdate, ASampleDoesNotDependOnTheBatch) {
    Random random(72);
    Case k = Make(random);
    Put(k, TW_COEF_ETA, 1);
    const Values all = RunOp(MakeOp(k), TW_F32)[0];
    Case one = k;
    one.n = 1;
    one.sample = k.sample + 2;
    one.x = Values(k.x.begin() + 20, k.x.end());
    one.m = Values(k.m.begin() + 20, k.m.begin() + 30);
    EXPECT_EQ(RunOp(MakeOp(one), TW_F32)[0], Values(all.begin() + 20, all.end()));
}

TEST(SamplerUpdate, ARowOutsideOfTheTableGivesNaN) {
    Random random(73);
    Case k = Make(random);
    k.step = 2;
    k.table.resize(2 * TW_COEF_WIDTH);
    const Values y = RunOp(MakeOp(k), TW_F32)[0];
    for (double x : y) EXPECT_TRUE(std::isnan(x));
}

TEST(SamplerUpdate, RefusesWhatDoesNotFit) {
    Random random(74);
    Case k = Make(random);
    Op op = MakeOp(k);
    op.attr.update.guided = true;
    EXPECT_NE(Refusal(op).find("unconditional"), std::string::npos);
    op = MakeOp(k);
    op.attr.update.clip = TW_CLIP_DYNAMIC;
    EXPECT_NE(Refusal(op).find("limit"), std::string::npos);
    op = MakeOp(k);
    op.attr.update.rule = TW_UPDATE_LEARNED_RANGE;
    EXPECT_NE(Refusal(op).find("2C"), std::string::npos);
    op.attr.update.rule = 7;
    EXPECT_NE(Refusal(op).find("unknown rule"), std::string::npos);
}

TEST(Threshold, IsTheInterpolatedQuantile) {
    Random random(75);
    for (int64_t pixels : {1, 3, 5, 100})
        for (double q : {0.0, 0.3, 0.9, 0.995, 1.0})
            for (double max_limit : {1e9, 1.75}) {
                Case k = Make(random);
                k.pixels = pixels;
                const Shape x{k.n, pixels, 1, k.c};
                k.x = random.Normal(x, 3);
                k.m = random.Normal(x);
                if (pixels == 5)
                    std::fill(k.m.begin(), k.m.end(), 0.5), std::fill(k.x.begin(), k.x.end(), 2.0);
                k.attr.update.quantile = q;
                k.attr.update.max_limit = max_limit;
                const Op op{TW_OP_THRESHOLD,
                            k.attr,
                            {Real(x, k.x), Real(x, k.m), Absent(),
                             Fixed(TW_F32, {2, TW_COEF_WIDTH}, k.table), Rng(1, 2, k.step)},
                            {Out({k.n})}};
                Values expected;
                const int64_t count = pixels * k.c;
                for (int64_t n = 0; n < k.n; n++) {
                    Values v;
                    double e;
                    for (int64_t i = 0; i < count; i++)
                        v.push_back(std::fabs(Predict(k, n * count + i, &e)));
                    std::sort(v.begin(), v.end());
                    const double rank = q * (double)(count - 1);
                    const size_t low = (size_t)rank, high = std::min(low + 1, v.size() - 1);
                    const double s = v[low] + (rank - (double)low) * (v[high] - v[low]);
                    expected.push_back(std::min(std::max(s, 1.0), max_limit));
                }
                ExpectClose(RunOp(op, TW_F64)[0], expected, {}, 1e-14, 0, "threshold");
                ExpectClose(RunOp(op, TW_F32)[0], expected, {}, 2 * kUlp, 0, "threshold in float");
            }
}

TEST(Threshold, NaNStaysNaN) {
    Random random(76);
    Case k = Make(random);
    const Shape x{k.n, k.pixels, 1, k.c};
    k.m.resize((size_t)Count(x));
    k.m[3] = kNaN;
    k.attr.update.quantile = 0.5;
    k.attr.update.max_limit = 100;
    const Values s = RunOp({TW_OP_THRESHOLD,
                            k.attr,
                            {Real(x, k.x), Real(x, k.m), Absent(),
                             Fixed(TW_F32, {2, TW_COEF_WIDTH}, k.table), Rng(1, 2, 1)},
                            {Out({k.n})}},
                           TW_F32)[0];
    EXPECT_TRUE(std::isnan(s[0]));
    EXPECT_FALSE(std::isnan(s[1]));
}

} // namespace
