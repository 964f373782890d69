// Every gradient against central finite differences of its own forward operation, in double:
// L = sum over outputs of y r, with random r.
#include "support/ops.h"

using namespace ops;

namespace {

double Loss(const Op &op, const Values &r) {
    const std::vector<Values> out = RunOp(op, TW_F64, 1);
    double sum = 0;
    for (size_t i = 0; i < r.size(); i++) sum += out[0][i] * r[i];
    return sum;
}

void Check(Op op,
           std::vector<Values> (*backward)(const Op &, const std::vector<Values> &, const Values &),
           Random &random, const std::string &what, double step = 1e-5) {
    SCOPED_TRACE(what);
    const std::vector<Values> out = RunOp(op, TW_F64, 1);
    const Values r = random.Normal({(int64_t)out[0].size()});
    const std::vector<Values> gradients = backward(op, out, r);
    ASSERT_EQ(gradients.size(), op.in.size());
    for (size_t k = 0; k < op.in.size(); k++) {
        if (gradients[k].empty()) continue;
        ASSERT_EQ(gradients[k].size(), op.in[k].v.size());
        const size_t n = gradients[k].size();
        double largest = 1e-3;
        for (double g : gradients[k]) largest = std::max(largest, std::fabs(g));
        for (size_t probe = 0; probe < std::min<size_t>(n, 24); probe++) {
            const size_t i = n <= 24 ? probe : (size_t)random.Below((int64_t)n);
            const double x = op.in[k].v[i];
            op.in[k].v[i] = x + step;
            const double up = Loss(op, r);
            op.in[k].v[i] = x - step;
            const double down = Loss(op, r);
            op.in[k].v[i] = x;
            EXPECT_NEAR(gradients[k][i], (up - down) / (2 * step), 2e-7 * largest)
                << "input " << k << ", element " << i << ", seed " << BaseSeed();
        }
    }
}

std::vector<Values> RunBackward(tw_op_kind kind, const Op &f, std::vector<Arg> in,
                                std::vector<Arg> out) {
    return RunOp({kind, f.attr, std::move(in), std::move(out)}, TW_F64, 1);
}

std::vector<Values> LinearBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    const bool conv = f.kind == TW_OP_CONV2D, bias = f.in[2].kind != Arg::ABSENT;
    const Arg dy = Real(f.out[0].shape, r);
    const auto dx = RunBackward(conv ? TW_OP_CONV2D_BWD_DATA : TW_OP_LINEAR_BWD_DATA, f,
                                {dy, f.in[1]}, {Out(f.in[0].shape)});
    const auto dw =
        RunBackward(conv ? TW_OP_CONV2D_BWD_WEIGHT : TW_OP_LINEAR_BWD_WEIGHT, f, {f.in[0], dy},
                    {Zeros(f.in[1].shape), bias ? Zeros(f.in[2].shape) : Absent()});
    return {dx[0], dw[0], bias ? dw[1] : Values()};
}

TEST(Gradients, Linear) {
    Random random(1);
    for (bool bias : {false, true})
        for (Shape s : {Shape{1, 1, 1}, Shape{3, 5, 2}, Shape{4, 33, 70}})
            Check({TW_OP_LINEAR,
                   NoAttr(),
                   {Real({s[0], s[1]}, random.Normal({s[0], s[1]})),
                    Real({s[2], s[1]}, random.Normal({s[2], s[1]})),
                    bias ? Real({s[2]}, random.Normal({s[2]})) : Absent()},
                   {Out({s[0], s[2]})}},
                  LinearBackward, random, "linear");
}

TEST(Gradients, Convolution) {
    Random random(2);
    struct {
        int64_t n, h, w, c, o, k;
        int stride, top, left, bottom, right;
    } grid[] = {{1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},  {2, 5, 4, 3, 2, 3, 1, 1, 1, 1, 1},
                {1, 6, 7, 2, 3, 3, 2, 0, 0, 1, 1},  {1, 5, 5, 33, 4, 3, 2, 1, 1, 1, 1},
                {1, 4, 6, 4, 33, 5, 1, 2, 2, 2, 2}, {2, 7, 3, 3, 2, 3, 3, 0, 2, 2, 0},
                {1, 4, 4, 65, 66, 1, 1, 0, 0, 0, 0}};
    for (const auto &g : grid) {
        tw_op_attr a = NoAttr();
        a.conv = {g.stride, g.top, g.left, g.bottom, g.right};
        const int64_t oh = (g.h + g.top + g.bottom - g.k) / g.stride + 1;
        const int64_t ow = (g.w + g.left + g.right - g.k) / g.stride + 1;
        const Shape x{g.n, g.h, g.w, g.c}, w{g.o, g.k, g.k, g.c};
        Check({TW_OP_CONV2D,
               a,
               {Real(x, random.Normal(x)), Real(w, random.Normal(w)),
                Real({g.o}, random.Normal({g.o}))},
               {Out({g.n, oh, ow, g.o})}},
              LinearBackward, random, "conv");
    }
}

std::vector<Values> NormBackward(const Op &f, const std::vector<Values> &y, const Values &r) {
    const bool ss = f.in[3].kind != Arg::ABSENT;
    auto d = RunBackward(TW_OP_GROUP_NORM_BWD, f,
                         {Real(f.out[0].shape, r), f.in[0], f.in[1], f.in[2], f.in[3],
                          Real(f.out[1].shape, y[1]), Real(f.out[2].shape, y[2])},
                         {Out(f.in[0].shape), Zeros(f.in[1].shape), Zeros(f.in[2].shape),
                          ss ? Out(f.in[3].shape) : Absent()});
    return {d[0], d[1], d[2], d[3]};
}

TEST(Gradients, GroupNorm) {
    Random random(3);
    struct {
        Shape x;
        int groups;
    } grid[] = {{{2, 3, 5, 4}, 2}, {{1, 1, 1, 6}, 1},   {{2, 7, 9}, 3},
                {{3, 8}, 2},       {{1, 5, 3, 66}, 22}, {{2, 2, 2, 70}, 1}};
    for (const auto &g : grid)
        for (bool silu : {false, true})
            for (bool shifted : {false, true}) {
                tw_op_attr a = NoAttr();
                a.norm = {g.groups, silu, 1e-5, 0};
                const int64_t n = g.x[0], c = g.x.back();
                Check({TW_OP_GROUP_NORM,
                       a,
                       {Real(g.x, random.Normal(g.x, 1, 0.5)), Real({c}, random.Normal({c}, 1, 1)),
                        Real({c}, random.Normal({c})),
                        shifted ? Real({n, 2 * c}, random.Normal({n, 2 * c})) : Absent()},
                       {Out(g.x), Out({n, g.groups}), Out({n, g.groups})}},
                      NormBackward, random, "group norm");
            }
}

std::vector<Values> ActBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    return RunBackward(TW_OP_ACT_BWD, f, {Real(f.out[0].shape, r), f.in[0]}, {Out(f.in[0].shape)});
}

TEST(Gradients, Activations) {
    Random random(4);
    for (int kind : {TW_ACT_SILU, TW_ACT_RELU, TW_ACT_GELU}) {
        tw_op_attr a = NoAttr();
        a.act.kind = kind;
        Check({TW_OP_ACT, a, {Real({3, 7}, random.Normal({3, 7}, 2))}, {Out({3, 7})}}, ActBackward,
              random, "act " + std::to_string(kind));
    }
}

std::vector<Values> AddVecBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    return {r,
            RunBackward(TW_OP_SUM_SPATIAL, f, {Real(f.out[0].shape, r)}, {Out(f.in[1].shape)})[0]};
}

TEST(Gradients, AddVector) {
    Random random(5);
    Check({TW_OP_ADD_VEC,
           NoAttr(),
           {Real({2, 3, 2, 5}, random.Normal({2, 3, 2, 5})), Real({2, 5}, random.Normal({2, 5}))},
           {Out({2, 3, 2, 5})}},
          AddVecBackward, random, "add_vec");
}

std::vector<Values> SameBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    auto d = RunBackward(f.kind, f, {Real(f.out[0].shape, r), f.in[1]}, {Out(f.in[0].shape)});
    return {d[0], {}};
}

TEST(Gradients, PerSampleScaleAndDropout) {
    Random random(6);
    for (bool divide : {false, true}) {
        tw_op_attr a = NoAttr();
        a.per_sample.divide = divide;
        Check({TW_OP_PER_SAMPLE_SCALE,
               a,
               {Real({3, 5}, random.Normal({3, 5})), Real({3}, {0.5, 2, -3})},
               {Out({3, 5})}},
              SameBackward, random, "per_sample_scale");
    }
    tw_op_attr a = NoAttr();
    a.dropout.p = 0.4;
    a.dropout.layer = 3;
    Check({TW_OP_DROPOUT, a, {Real({3, 7}, random.Normal({3, 7})), Rng(9, 4, 2)}, {Out({3, 7})}},
          SameBackward, random, "dropout");
}

std::vector<Values> ResampleBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    return RunBackward(f.kind == TW_OP_POOL ? TW_OP_UPSAMPLE_NEAREST : TW_OP_POOL, f,
                       {Real(f.out[0].shape, r)}, {Out(f.in[0].shape)});
}

TEST(Gradients, Resampling) {
    Random random(7);
    tw_op_attr a = NoAttr();
    a.resample = {2, 0.25};
    Check({TW_OP_POOL, a, {Real({2, 5, 4, 3}, random.Normal({2, 5, 4, 3}))}, {Out({2, 2, 2, 3})}},
          ResampleBackward, random, "pool");
    a.resample = {3, 1.0};
    Check({TW_OP_UPSAMPLE_NEAREST,
           a,
           {Real({2, 2, 3, 3}, random.Normal({2, 2, 3, 3}))},
           {Out({2, 6, 9, 3})}},
          ResampleBackward, random, "upsample");
}

std::vector<Values> EmbeddingBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    auto d = RunBackward(TW_OP_EMBEDDING_BWD, f, {Real(f.out[0].shape, r), f.in[1]},
                         {Zeros(f.in[0].shape)});
    return {d[0], {}};
}

TEST(Gradients, Embedding) {
    Random random(8);
    Check({TW_OP_EMBEDDING,
           NoAttr(),
           {Real({4, 5}, random.Normal({4, 5})), Fixed(TW_I32, {6}, {0, 3, 3, 1, 0, 3})},
           {Out({6, 5})}},
          EmbeddingBackward, random, "embedding");
}

std::vector<Values> AttentionBackward(const Op &f, const std::vector<Values> &y, const Values &r) {
    auto d = RunBackward(TW_OP_ATTENTION_BWD, f,
                         {Real(f.out[0].shape, r), f.in[0], f.in[1], f.in[2],
                          Real(f.out[0].shape, y[0]), Real(f.out[1].shape, y[1]), f.in[3]},
                         {Out(f.in[0].shape), Out(f.in[1].shape), Out(f.in[2].shape)});
    return {d[0], d[1], d[2], {}};
}

TEST(Gradients, Attention) {
    Random random(9);
    struct {
        int64_t n, tq, tk, c;
        int heads;
        bool masked;
    } grid[] = {{1, 1, 1, 1, 1, false},
                {2, 5, 5, 6, 2, false},
                {2, 4, 7, 6, 3, true},
                {1, 3, 2, 70, 1, false},
                {3, 2, 9, 8, 8, true}};
    for (const auto &g : grid) {
        tw_op_attr a = NoAttr();
        a.attention = {g.heads, 1 / std::sqrt((double)(g.c / g.heads))};
        Values length;
        for (int64_t n = 0; n < g.n; n++) length.push_back((double)(n == 1 ? 0 : g.tk - 2 + n));
        const Shape q{g.n, g.tq, g.c}, k{g.n, g.tk, g.c};
        Check({TW_OP_ATTENTION,
               a,
               {Real(q, random.Normal(q)), Real(k, random.Normal(k)), Real(k, random.Normal(k)),
                g.masked ? Fixed(TW_I32, {g.n}, length) : Absent()},
               {Out(q), Out({g.n, g.heads, g.tq})}},
              AttentionBackward, random, "attention");
    }
}

std::vector<Values> MseBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    auto d = RunBackward(TW_OP_MSE_BWD, f, {Real({1}, {r[0]}), f.in[0], f.in[1], f.in[2]},
                         {Out(f.in[0].shape)});
    Values minus = d[0];
    for (double &x : minus) x = -x;
    return {d[0], minus, {}};
}

TEST(Gradients, Mse) {
    Random random(10);
    for (bool weighted : {false, true})
        Check({TW_OP_MSE,
               NoAttr(),
               {Real({3, 7}, random.Normal({3, 7})), Real({3, 7}, random.Normal({3, 7})),
                weighted ? Real({3}, {0.3, 2, 0}) : Absent()},
               {Out({1}), Out({3})}},
              MseBackward, random, "mse");
}

// The check itself must notice a wrong gradient.
std::vector<Values> WrongBackward(const Op &f, const std::vector<Values> &, const Values &r) {
    auto d = LinearBackward(f, {}, r);
    d[0][0] *= 1 + 1e-5;
    return d;
}

TEST(Gradients, TheCheckNoticesAnErrorOfOneInAHundredThousand) {
    Random random(11);
    Op op{TW_OP_LINEAR,
          NoAttr(),
          {Real({1, 1}, {1.5}), Real({1, 1}, {2.5}), Absent()},
          {Out({1, 1})}};
    const Values r{1.0};
    const Values wrong = WrongBackward(op, {}, r)[0];
    op.in[0].v[0] += 1e-5;
    const double up = Loss(op, r);
    op.in[0].v[0] -= 2e-5;
    EXPECT_GT(std::fabs(wrong[0] - (up - Loss(op, r)) / 2e-5), 2e-7 * 2.5);
}

} // namespace
