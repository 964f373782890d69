// Every operation through the hand-written kernels against the double reference: that operands,
// attributes and extents reach the launchers as the plan's contract says. How exact the kernels are
// is tested with them (tests/kernels).
#include "support.h"
#include "support/products.h"

#include <set>

#include <tweedie/schedule.h>
extern "C" {
#include "core/philox.h"
#include "diffusion/coefficients.h"
}

using namespace ops;

namespace {

constexpr const char *kOwn = "own";
std::set<tw_op_kind> seen;

double Rms(const Values &v) {
    double sum = 0;
    for (double x : v) sum += std::isnan(x) ? 0 : x * x;
    return v.empty() ? 0 : std::sqrt(sum / (double)v.size());
}

// NaN where NaN is expected, and the rest within `c` units of float32 of element and rms.
void Same(const Op &op, const std::string &what, double c = 32) {
    SCOPED_TRACE(what + " (" + tw_op_name(op.kind) + ")");
    seen.insert(op.kind);
    const auto ref = RunOp(op, TW_F64), got = RunOp(op, TW_F32, 1, kOwn);
    ASSERT_EQ(ref.size(), got.size());
    for (size_t k = 0; k < ref.size(); k++) {
        ASSERT_EQ(ref[k].size(), got[k].size());
        const double rms = Rms(ref[k]);
        for (size_t i = 0; i < ref[k].size(); i++) {
            if (std::isnan(ref[k][i]))
                ASSERT_TRUE(std::isnan(got[k][i])) << "output " << k << " element " << i;
            else
                ASSERT_NEAR(got[k][i], ref[k][i], c * kUlp * (std::fabs(ref[k][i]) + rms))
                    << "output " << k << " element " << i << " seed " << BaseSeed();
        }
    }
    const auto again = RunOp(op, TW_F32, 1, kOwn);
    for (size_t k = 0; k < got.size(); k++)
        for (size_t i = 0; i < got[k].size(); i++)
            ASSERT_EQ(std::memcmp(&again[k][i], &got[k][i], sizeof(double)), 0)
                << "not the same twice: output " << k << " element " << i;
}

class CudaOps : public Cuda {};

TEST_F(CudaOps, Products) {
    Random random(300);
    for (const LinearShape &s : LinearGrid()) {
        const Product p = MakeLinear(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight}) {
            seen.insert(op->kind);
            ExpectProduct(*op, kOwn, 16, "linear", 1);
        }
    }
    for (const ConvShape &s : ConvGrid()) {
        if (s.n * s.h * s.w * s.c * s.o > 200000) continue; /* the emulator takes its time */
        const Product p = MakeConv(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight}) {
            seen.insert(op->kind);
            ExpectProduct(*op, kOwn, 16, s.name(), 1);
        }
    }
}

Op NormBackward(const Op &norm, const std::vector<Values> &out, Random &random, bool ss) {
    const Shape x = norm.in[0].shape, c = norm.in[1].shape, g = norm.out[1].shape;
    return {TW_OP_GROUP_NORM_BWD,
            norm.attr,
            {Real(x, random.Normal(x)), norm.in[0], norm.in[1], norm.in[2],
             ss ? norm.in[3] : Absent(), Real(g, out[1]), Real(g, out[2])},
            {Out(x), Real(c, random.Normal(c)), Real(c, random.Normal(c)),
             ss ? Out(norm.in[3].shape) : Absent()}};
}

TEST_F(CudaOps, GroupNorm) {
    Random random(301);
    for (bool silu : {false, true})
        for (bool ss : {false, true})
            for (const Shape &x : std::vector<Shape>{{2, 4, 3, 8}, {1, 5, 5, 33}, {3, 6}}) {
                tw_op_attr a = NoAttr();
                const int64_t n = x[0], c = x.back(), groups = c == 33 ? 3 : 2;
                a.norm = {(int)groups, silu, 1e-5, 0};
                const Op norm{TW_OP_GROUP_NORM,
                              a,
                              {Real(x, random.Normal(x, 2, 0.5)), Real({c}, random.Normal({c})),
                               Real({c}, random.Normal({c})),
                               ss ? Real({n, 2 * c}, random.Normal({n, 2 * c})) : Absent()},
                              {Out(x), Out({n, groups}), Out({n, groups})}};
                Same(norm, "norm", 64);
                const auto first = RunOp(norm, TW_F32, 1, kOwn);
                const Op again = FromStatistics(norm, first);
                Same(again, "norm from its statistics", 64);
                EXPECT_EQ(RunOp(again, TW_F32, 1, kOwn)[0], first[0]);
                Same(NormBackward(norm, RunOp(norm, TW_F64), random, ss), "backward", 256);
            }
}

TEST_F(CudaOps, Attention) {
    Random random(302);
    for (int heads : {1, 2})
        for (int64_t tokens : {1, 9, 16}) {
            tw_op_attr a = NoAttr();
            a.attention = {heads, 0.3};
            const Shape q{2, tokens, 16}, k{2, 7, 16}, lse{2, heads, tokens};
            const Arg qa = Real(q, random.Normal(q)), ka = Real(k, random.Normal(k)),
                      va = Real(k, random.Normal(k));
            const Op forward{TW_OP_ATTENTION, a, {qa, ka, va, Absent()}, {Out(q), Out(lse)}};
            Same(forward, "attention");
            const auto out = RunOp(forward, TW_F64);
            Same({TW_OP_ATTENTION_BWD,
                  a,
                  {Real(q, random.Normal(q)), qa, ka, va, Real(q, out[0]), Real(lse, out[1]),
                   Absent()},
                  {Out(q), Out(k), Out(k)}},
                 "attention backward", 64);
        }
    tw_op_attr a = NoAttr();
    a.attention = {1, 1.0};
    const Shape s{1, 2, 8};
    const Arg x = Real(s, Values(16, 1.0));
    EXPECT_NE(
        Refusal({TW_OP_ATTENTION, a, {x, x, x, Fixed(TW_I32, {1}, {1})}, {Out(s), Out({1, 1, 2})}},
                TW_F32, kOwn)
            .find("masked"),
        std::string::npos);
    const Shape wide{1, 1, 513};
    const Arg y = Real(wide, Values(513, 1.0));
    EXPECT_NE(Refusal({TW_OP_ATTENTION, a, {y, y, y, Absent()}, {Out(wide), Out({1, 1, 1})}},
                      TW_F32, kOwn)
                  .find("512"),
              std::string::npos);
}

TEST_F(CudaOps, Elementwise) {
    Random random(303);
    const Shape s{3, 5, 2, 4}, v{3, 4};
    const Arg x = Real(s, random.Normal(s, 2)), y = Real(s, random.Normal(s));
    for (int kind : {TW_ACT_SILU, TW_ACT_RELU, TW_ACT_GELU}) {
        tw_op_attr a = NoAttr();
        a.act.kind = kind;
        Same({TW_OP_ACT, a, {x}, {Out(s)}}, "act " + std::to_string(kind));
        Same({TW_OP_ACT_BWD, a, {y, x}, {Out(s)}}, "act " + std::to_string(kind));
    }
    tw_op_attr a = NoAttr();
    a.axpby = {0.75, -1.5};
    Same({TW_OP_AXPBY, a, {x, y}, {Out(s)}}, "sum");
    Same({TW_OP_AXPBY, a, {x, Absent()}, {Out(s)}}, "with a constant");
    Same({TW_OP_AXPBY, a, {x}, {Out(s)}}, "with a constant");
    Same({TW_OP_ADD_VEC, NoAttr(), {x, Real(v, random.Normal(v))}, {Out(s)}}, "vector");
    Same({TW_OP_SUM_SPATIAL, NoAttr(), {x}, {Out(v)}}, "sum");
    const Shape wide{3, 9};
    for (const int64_t column : {0, 3, 5}) {
        tw_op_attr from = NoAttr();
        from.vector.column = column;
        const Arg vectors = Real(wide, random.Normal(wide));
        Same({TW_OP_ADD_VEC, from, {x, vectors}, {Out(s)}}, "columns");
        Same({TW_OP_SUM_SPATIAL, from, {x}, {vectors}}, "sum into columns");
    }
    for (bool divide : {false, true}) {
        tw_op_attr scale = NoAttr();
        scale.per_sample.divide = divide;
        Same({TW_OP_PER_SAMPLE_SCALE, scale, {x, Real({3}, {0.5, -3, 7})}, {Out(s)}}, "scale");
    }
    for (double p : {0.0, 0.3, 0.7}) {
        tw_op_attr drop = NoAttr();
        drop.dropout.p = p;
        drop.dropout.layer = 5;
        Same({TW_OP_DROPOUT, drop, {x, Rng(7, (int64_t)1 << 33, 4)}, {Out(s)}}, "dropout");
    }
}

TEST_F(CudaOps, Loss) {
    Random random(304);
    const Shape s{4, 3, 3, 2};
    const Arg p = Real(s, random.Normal(s)), t = Real(s, random.Normal(s));
    for (bool weighted : {false, true}) {
        const Arg w = weighted ? Real({4}, {1, 0.5, 0, 2}) : Absent();
        Same({TW_OP_MSE, NoAttr(), {p, t, w}, {Out({1}), Out({4})}}, "loss");
        Same({TW_OP_MSE_BWD, NoAttr(), {Real({1}, {1.25}), p, t, w}, {Out(s)}}, "gradient");
    }
}

TEST_F(CudaOps, Shapes) {
    Random random(305);
    const Shape a{2, 3, 2, 4}, b{2, 3, 2, 5}, both{2, 3, 2, 9};
    const Arg x = Real(a, random.Normal(a)), y = Real(b, random.Normal(b)),
              z = Real(both, random.Normal(both));
    Same({TW_OP_CONCAT, NoAttr(), {x, y}, {Out(both)}}, "join");
    Same({TW_OP_SPLIT, NoAttr(), {z}, {Out(a), Out(b)}}, "cut");
    EXPECT_NE(Refusal({TW_OP_CONCAT, NoAttr(), {x, x, x}, {Out({2, 3, 2, 12})}}, TW_F32, kOwn)
                  .find("two parts"),
              std::string::npos);
    tw_op_attr r = NoAttr();
    r.resample = {2, 0.25};
    const Shape odd{2, 5, 7, 3}, small{2, 2, 3, 3};
    Same({TW_OP_POOL, r, {Real(odd, random.Normal(odd))}, {Out(small)}}, "pool");
    Same({TW_OP_UPSAMPLE_NEAREST, r, {Real(small, random.Normal(small))}, {Out(odd)}}, "spread");
    Same({TW_OP_REPEAT_BATCH, NoAttr(), {x}, {Out({4, 3, 2, 4})}}, "repeat");
    Same({TW_OP_REPEAT_BATCH,
          NoAttr(),
          {Fixed(TW_I32, {3}, {1, 2, 3})},
          {Fixed(TW_I32, {6}, Values(6, kNaN))}},
         "repeat");
    for (double value : {0.0, -0.0, 1.5}) {
        tw_op_attr f = NoAttr();
        f.fill.value = value;
        Same({TW_OP_FILL, f, {}, {Fixed(TW_F32, {3, 5}, Values(15, kNaN))}}, "fill");
    }
    Same({TW_OP_FILL, NoAttr(), {}, {Fixed(TW_I64, {2}, Values(2, kNaN))}}, "fill");
    tw_op_attr one = NoAttr();
    one.fill.value = 1;
    EXPECT_NE(Refusal({TW_OP_FILL, one, {}, {Fixed(TW_I64, {2}, Values(2))}}, TW_F32, kOwn), "");
    // Of halves the bits are compared, and NaN has many.
    const Values reals{0, -1.75, 3.5, 1e9, -1e10, 65504, 1e-3, 1.00390625};
    Values with_nan = reals;
    with_nan[6] = kNaN;
    const std::vector<std::pair<tw_dtype, Values>> from = {
        {TW_F32, reals}, {TW_F32, with_nan}, {TW_I32, {0, -5, 999, 2147483647, 7, 1, 2, 3}}};
    for (const auto &f : from)
        for (tw_dtype to : {TW_F32, TW_I32, TW_BF16, TW_F16}) {
            const bool half = to == TW_BF16 || to == TW_F16;
            if (half && f.second != reals) continue;
            Same({TW_OP_CONVERT,
                  NoAttr(),
                  {Fixed(f.first, {8}, f.second)},
                  {Fixed(to, {8}, Values(8, kNaN))}},
                 std::string("convert to ") + tw_dtype_name(to), 0);
        }
    EXPECT_NE(
        Refusal({TW_OP_CONVERT, NoAttr(), {Fixed(TW_I64, {1}, {1})}, {Out({1})}}, TW_F32, kOwn),
        "");
}

TEST_F(CudaOps, Embeddings) {
    Random random(306);
    const Shape table{5, 6}, rows{4, 6};
    const Arg index = Fixed(TW_I32, {4}, {4, 0, 5, 4}); // one outside
    Same({TW_OP_EMBEDDING, NoAttr(), {Real(table, random.Normal(table)), index}, {Out(rows)}},
         "embedding");
    Same({TW_OP_EMBEDDING_BWD,
          NoAttr(),
          {Real(rows, random.Normal(rows)), index},
          {Real(table, random.Normal(table))}},
         "embedding");
    for (int64_t width : {6, 7})
        for (bool flip : {false, true}) {
            tw_op_attr a = NoAttr();
            a.time = {flip, false, 1.0, 0.5, 10000.0};
            Same({TW_OP_TIME_EMBED, a, {Real({4}, {0, 1, 17, 999})}, {Out({4, width})}}, "time");
        }
    for (bool log : {false, true}) {
        tw_op_attr a = NoAttr();
        a.time.log = log;
        a.time.flip = log;
        Same({TW_OP_FOURIER_EMBED,
              a,
              {Real({3}, {0.5, 1, 999}), Real({4}, {0.25, -3, 16, 1.5})},
              {Out({3, 8})}},
             "fourier", 20000);
    }
    tw_op_attr wrong = NoAttr();
    wrong.time = {false, false, 0, 1, 1.0};
    EXPECT_NE(Refusal({TW_OP_TIME_EMBED, wrong, {Real({1}, {1})}, {Out({1, 4})}}, TW_F32, kOwn),
              "");
}

TEST_F(CudaOps, Draws) {
    Random random(307);
    const Arg rng = Rng(99, ((int64_t)1 << 34) + 1, 3);
    const Shape s{3, 2, 5, 3};
    const Arg x = Real(s, random.Normal(s));
    tw_op_attr a = NoAttr();
    a.noise = {TW_PURPOSE_INITIAL, 0.5};
    Same({TW_OP_NOISE, a, {rng}, {Out(s)}}, "noise", 64);
    for (bool antithetic : {false, true}) {
        tw_op_attr t = NoAttr();
        t.sample_t = {1000, antithetic};
        Same({TW_OP_SAMPLE_T, t, {rng}, {Fixed(TW_I32, {9}, Values(9, kNaN))}}, "times", 0);
    }
    for (double p : {0.0, 0.5, 1.0}) {
        tw_op_attr d = NoAttr();
        d.cond_drop = {p, 77};
        Same({TW_OP_COND_DROP,
              d,
              {Fixed(TW_I32, {5}, {1, 2, 3, 4, 5}), rng},
              {Fixed(TW_I32, {5}, Values(5, kNaN))}},
             "labels", 0);
        tw_op_attr f = NoAttr();
        f.flip.p = p;
        Same({TW_OP_FLIP, f, {x, rng}, {Out(s)}}, "flip", 0);
    }
    for (int prediction : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V}) {
        tw_op_attr d = NoAttr();
        d.diffusion.prediction = prediction;
        const Values table{0.75, 0.25, 0.5, 0.5};
        for (int outside : {1, 2})
            Same({TW_OP_FORWARD_NOISE,
                  d,
                  {x, Fixed(TW_I32, {3}, {1, 0, (double)outside}), Fixed(TW_F32, {2, 2}, table),
                   rng},
                  {Out(s), Out(s)}},
                 "noising", 64);
    }
}

struct Step {
    tw_op_attr attr = NoAttr();
    Values table, m, uncond, x, limit;
    const Shape shape{3, 2, 2, 5}, limits{3};
    Shape m_shape;

    Step(Random &random, tw_sampler_kind kind, const tw_sampler_options &options,
         tw_prediction prediction, bool learned)
        : m_shape(shape) {
        m_shape[3] *= learned ? 2 : 1;
        x = random.Normal(shape, 1.5);
        m = random.Normal(m_shape);
        uncond = random.Normal(m_shape);
        limit = {1, 1.25, 1.5};
        Backend backend;
        tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
        tw_schedule *schedule = nullptr;
        EXPECT_EQ(tw_schedule_create(backend.get()->ctx, &linear, &schedule), TW_OK);
        const int64_t times[] = {800, 400, 100};
        std::vector<float> rows(3 * TW_COEF_WIDTH);
        (void)kind;
        EXPECT_EQ(tw_coefficients_make(backend.get()->ctx, schedule, &options, prediction, times, 3,
                                       rows.data()),
                  TW_OK);
        tw_schedule_free(schedule);
        table.assign(rows.begin(), rows.end());
    }
    Arg M(const Values &v) const { return Real(m_shape, v); }
    Arg Table() const { return Fixed(TW_F32, {3, TW_COEF_WIDTH}, table); }
};

TEST_F(CudaOps, SamplerSteps) {
    Random random(308);
    int trial = 0;
    for (int rule : {TW_UPDATE_DDIM, TW_UPDATE_LINEAR, TW_UPDATE_LEARNED_RANGE})
        for (tw_prediction prediction : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V})
            for (int clip : {TW_CLIP_NONE, TW_CLIP_RANGE, TW_CLIP_DYNAMIC})
                for (bool guided : {false, true}) {
                    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
                    o.kind = rule == TW_UPDATE_DDIM ? TW_SAMPLER_DDIM : TW_SAMPLER_DDPM;
                    o.eta = trial % 2;
                    o.variance = rule == TW_UPDATE_LEARNED_RANGE ? TW_VARIANCE_LEARNED_RANGE
                                                                 : TW_VARIANCE_FIXED_SMALL;
                    o.guidance = guided ? 2.5 : 1;
                    o.clipping = clip == TW_CLIP_RANGE ? TW_CLIPPING_RANGE : TW_CLIPPING_NONE;
                    o.clip_range = 1.25;
                    Step k(random, o.kind, o, prediction, rule == TW_UPDATE_LEARNED_RANGE);
                    auto &u = k.attr.update;
                    u.prediction = prediction;
                    u.rule = rule;
                    u.clip = clip;
                    u.clip_range = 1.25;
                    u.guided = guided;
                    u.guidance = o.guidance;
                    u.rederive_epsilon = clip != TW_CLIP_NONE && trial % 3 == 0;
                    u.quantile = 0.8;
                    u.max_limit = 100;
                    const Arg rng = Rng(5, 40, trial % 3), un = guided ? k.M(k.uncond) : Absent();
                    const std::string what = "rule " + std::to_string(rule) + " prediction " +
                                             std::to_string(prediction) + " clip " +
                                             std::to_string(clip) + (guided ? " guided" : "");
                    // x0 = x / sqrt(A) - ...: A is 0.01 in the first row.
                    Same({TW_OP_SAMPLER_UPDATE,
                          k.attr,
                          {k.M(k.m), un, k.Table(), rng,
                           clip == TW_CLIP_DYNAMIC ? Real(k.limits, k.limit) : Absent()},
                          {Real(k.shape, k.x), trial % 4 ? Out(k.shape) : Absent()}},
                         what, 500);
                    Same({TW_OP_THRESHOLD,
                          k.attr,
                          {Real(k.shape, k.x), k.M(k.m), un, k.Table(), rng},
                          {Out(k.limits)}},
                         what, 500);
                    trial++;
                }
    Values table(2 * TW_COEF_WIDTH);
    for (size_t i = 0; i < table.size(); i++) table[i] = (double)i;
    tw_op_attr a = NoAttr();
    a.row.column = TW_COEF_TIME;
    const Arg coef = Fixed(TW_F32, {2, TW_COEF_WIDTH}, table);
    for (int row : {0, 1, 2})
        Same({TW_OP_STEP_TIME, a, {coef, Rng(1, 2, row)}, {Out({4})}}, "time", 0);
    Same({TW_OP_NEXT_STEP, NoAttr(), {}, {Rng(4, 5, 6)}}, "next", 0);
}

TEST_F(CudaOps, Optimizer) {
    Random random(309);
    for (int64_t n : {1, 1000, 9001}) {
        const Shape s{n};
        const Arg g = Real(s, random.Normal(s));
        Same({TW_OP_GLOBAL_NORM, NoAttr(), {g}, {Out({1})}}, "norm");
        for (double warmup : {0.0, 1.0})
            for (double norm : {0.5, 3.0, (double)INFINITY}) {
                const Values hyper{1e-2, 0.9, 0.999, 1e-8, 0.1, 1.0, 0.99, warmup};
                Values v = Abs(random.Normal(s));
                Same({TW_OP_ADAMW,
                      NoAttr(),
                      {g, Real({1}, {norm}), Fixed(TW_F32, {TW_HYPER_COUNT}, hyper)},
                      {Real(s, random.Normal(s)), Real(s, random.Normal(s)), Real(s, v),
                       Fixed(TW_I64, {2}, {4, 1}),
                       warmup != 0 ? Real(s, random.Normal(s)) : Absent()}},
                     "adamw", 64);
            }
    }
}

// The last test of this file: every operation was in one of the others.
TEST_F(CudaOps, ZAllOfThem) {
    if (::testing::GTEST_FLAG(filter) != "*") GTEST_SKIP() << "only some tests run";
    for (int kind = 0; kind < TW_OP_COUNT; kind++)
        EXPECT_TRUE(seen.count((tw_op_kind)kind)) << tw_op_name((tw_op_kind)kind);
}

TEST_F(CudaOps, DoubleIsRefusedByName) {
    const Arg x = Real({2}, {1, 2});
    EXPECT_EQ(Refusal({TW_OP_ACT, NoAttr(), {x}, {Out({2})}}, TW_F64, kOwn),
              "act: a GPU calculates in float32, not in float64");
}

} // namespace
