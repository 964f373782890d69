// Operations that move, join, embed, convert or compare, against values written out here.
#include "support/ops.h"

using namespace ops;

namespace {

constexpr tw_dtype kBoth[] = {TW_F32, TW_F64};

TEST(Shape, Axpby) {
    Random random(50);
    const Values a = random.Normal({5001}), b = random.Normal({5001});
    tw_op_attr attr = NoAttr();
    attr.axpby = {0.5, -2};
    Values with, without, size;
    for (size_t i = 0; i < a.size(); i++) {
        with.push_back(0.5 * a[i] - 2 * b[i]);
        without.push_back(0.5 * a[i] - 2);
        size.push_back(std::fabs(0.5 * a[i]) + std::fabs(2 * b[i]) + 2);
    }
    for (tw_dtype p : kBoth) {
        const Op two{TW_OP_AXPBY, attr, {Real({5001}, a), Real({5001}, b)}, {Out({5001})}};
        const Op one{TW_OP_AXPBY, attr, {Real({5001}, a), Absent()}, {Out({5001})}};
        ExpectClose(RunOp(two, p)[0], with, size, kUlp, kUlp, "axpby");
        ExpectClose(RunOp(one, p)[0], without, size, kUlp, kUlp, "axpby without b");
    }
}

TEST(Shape, AddVectorAndSumSpatial) {
    Random random(51);
    const Shape x{2, 3, 5, 67}, v{2, 67};
    const Values xv = random.Normal(x), vv = random.Normal(v);
    Values y, sum(134, 0.0), size(134, 0.0), sizes;
    for (size_t i = 0; i < xv.size(); i++) {
        const size_t at = i / (15 * 67) * 67 + i % 67;
        y.push_back(xv[i] + vv[at]);
        sizes.push_back(std::fabs(xv[i]) + std::fabs(vv[at]));
        sum[at] += xv[i];
        size[at] += std::fabs(xv[i]);
    }
    for (tw_dtype p : kBoth) {
        ExpectClose(RunOp({TW_OP_ADD_VEC, NoAttr(), {Real(x, xv), Real(v, vv)}, {Out(x)}}, p)[0], y,
                    sizes, kUlp, kUlp, "add_vec");
        ExpectClose(RunOp({TW_OP_SUM_SPATIAL, NoAttr(), {Real(x, xv)}, {Out(v)}}, p)[0], sum, size,
                    kUlp, kUlp, "sum_spatial");
    }
}

// The same with columns of a wider matrix, of which the others stay.
TEST(Shape, ColumnsOfVectors) {
    Random random(52);
    const Shape x{2, 3, 67}, v{2, 70};
    const Values xv = random.Normal(x), vv = random.Normal(v);
    tw_op_attr from = NoAttr();
    from.vector.column = 2;
    Values y, sum = vv;
    for (size_t n = 0; n < 2; n++)
        for (size_t c = 0; c < 67; c++) sum[n * 70 + 2 + c] = 0;
    for (size_t i = 0; i < xv.size(); i++) {
        const size_t at = i / (3 * 67) * 70 + 2 + i % 67;
        y.push_back(xv[i] + vv[at]);
        sum[at] += xv[i];
    }
    const Values scale(xv.size(), 8);
    for (tw_dtype p : kBoth) {
        ExpectClose(RunOp({TW_OP_ADD_VEC, from, {Real(x, xv), Real(v, vv)}, {Out(x)}}, p)[0], y,
                    scale, kUlp, kUlp, "add_vec");
        ExpectClose(RunOp({TW_OP_SUM_SPATIAL, from, {Real(x, xv)}, {Real(v, vv)}}, p)[0], sum,
                    Values(sum.size(), 8), kUlp, kUlp, "sum_spatial");
    }
    for (const int64_t column : {-1, 4}) {
        from.vector.column = column;
        EXPECT_NE(Refusal({TW_OP_ADD_VEC, from, {Real(x, xv), Real(v, vv)}, {Out(x)}})
                      .find("the vectors need C columns"),
                  std::string::npos);
        EXPECT_NE(Refusal({TW_OP_SUM_SPATIAL, from, {Real(x, xv)}, {Out(v)}})
                      .find("the vectors need C columns"),
                  std::string::npos);
    }
}

TEST(Shape, PerSampleScale) {
    for (tw_dtype p : kBoth)
        for (bool divide : {false, true}) {
            tw_op_attr a = NoAttr();
            a.per_sample.divide = divide;
            const Op op{TW_OP_PER_SAMPLE_SCALE,
                        a,
                        {Real({2, 3}, {1, 2, 3, 4, 5, 6}), Real({2}, {2, -4})},
                        {Out({2, 3})}};
            EXPECT_EQ(RunOp(op, p)[0], divide ? Values({0.5, 1, 1.5, -1, -1.25, -1.5})
                                              : Values({2, 4, 6, -16, -20, -24}));
        }
}

TEST(Shape, ConcatAndSplit) {
    const Values a{1, 2, 3, 4}, b{5, 6}, c{7, 8, 9, 10, 11, 12};
    const Values whole{1, 2, 5, 7, 8, 9, 3, 4, 6, 10, 11, 12};
    for (tw_dtype p : kBoth) {
        EXPECT_EQ(RunOp({TW_OP_CONCAT,
                         NoAttr(),
                         {Real({2, 1, 2}, a), Real({2, 1, 1}, b), Real({2, 1, 3}, c)},
                         {Out({2, 1, 6})}},
                        p)[0],
                  whole);
        const auto parts = RunOp(
            {TW_OP_SPLIT, NoAttr(), {Real({2, 6}, whole)}, {Out({2, 2}), Out({2, 1}), Out({2, 3})}},
            p);
        EXPECT_EQ(parts, (std::vector<Values>{a, b, c}));
    }
}

TEST(Shape, RepeatBatch) {
    EXPECT_EQ(
        RunOp({TW_OP_REPEAT_BATCH, NoAttr(), {Real({2, 1}, {1, 2})}, {Out({4, 1})}}, TW_F32)[0],
        Values({1, 2, 1, 2}));
    EXPECT_EQ(RunOp({TW_OP_REPEAT_BATCH,
                     NoAttr(),
                     {Fixed(TW_I32, {3}, {4, 5, 6})},
                     {Fixed(TW_I32, {6}, Values(6, kNaN))}},
                    TW_F64)[0],
              Values({4, 5, 6, 4, 5, 6}));
}

TEST(Shape, Resampling) {
    tw_op_attr a = NoAttr();
    a.resample = {2, 3.0};
    for (tw_dtype p : kBoth) {
        EXPECT_EQ(
            RunOp({TW_OP_UPSAMPLE_NEAREST,
                   a,
                   {Real({1, 1, 2, 2}, {1, 2, 3, 4})},
                   {Out({1, 3, 4, 2})}},
                  p)[0],
            Values({3, 6, 3, 6, 9, 12, 9, 12, 3, 6, 3, 6, 9, 12, 9, 12, 0, 0, 0, 0, 0, 0, 0, 0}));
        a.resample.scale = 0.25;
        EXPECT_EQ(RunOp({TW_OP_POOL,
                         a,
                         {Real({1, 3, 5, 1}, {1, 2, 3, 4, 9, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9})},
                         {Out({1, 1, 2, 1})}},
                        p)[0],
                  Values({3.5, 5.5}));
        a.resample.scale = 3;
    }
}

TEST(Shape, Embedding) {
    for (tw_dtype p : kBoth) {
        const Values y = RunOp({TW_OP_EMBEDDING,
                                NoAttr(),
                                {Real({2, 2}, {1, 2, 3, 4}), Fixed(TW_I32, {4}, {1, 2, -1, 0})},
                                {Out({4, 2})}},
                               p)[0];
        EXPECT_EQ(Values(y.begin(), y.begin() + 2), Values({3, 4}));
        for (size_t i = 2; i < 6; i++) EXPECT_TRUE(std::isnan(y[i]));
        EXPECT_EQ(Values(y.begin() + 6, y.end()), Values({1, 2}));
        EXPECT_EQ(
            RunOp({TW_OP_EMBEDDING_BWD,
                   NoAttr(),
                   {Real({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8}), Fixed(TW_I32, {4}, {1, 2, -1, 1})},
                   {Real({2, 2}, {100, 200, 300, 400})}},
                  p)[0],
            Values({100, 200, 308, 410}));
    }
}

TEST(Shape, TimeEmbedding) {
    for (int64_t dim : {2, 7, 32})
        for (bool flip : {false, true})
            for (double shift : {0.0, 1.0}) {
                if (dim / 2 - shift == 0) continue;
                tw_op_attr a = NoAttr();
                a.time.flip = flip;
                a.time.freq_shift = shift;
                a.time.scale = 2;
                a.time.max_period = 10000;
                const Values t{0, 1, 999, 12.5};
                Values y;
                for (double v : t) {
                    const int64_t half = dim / 2;
                    for (int part = 0; part < 2; part++)
                        for (int64_t i = 0; i < half; i++) {
                            const double f =
                                std::exp(-std::log(10000.0) * (double)i / ((double)half - shift));
                            y.push_back((part == 1) != flip ? std::cos(2 * v * f)
                                                            : std::sin(2 * v * f));
                        }
                    if (dim % 2) y.push_back(0);
                }
                const Op op{TW_OP_TIME_EMBED, a, {Real({4}, t)}, {Out({4, dim})}};
                const Values one(y.size(), 1.0);
                ExpectClose(RunOp(op, TW_F64)[0], y, one, 0, 1e-12, "time, double");
                ExpectClose(RunOp(op, TW_F32)[0], y, one, 0, kUlp, "time, float");
            }
}

TEST(Shape, FourierEmbedding) {
    for (bool flip : {false, true})
        for (bool log : {false, true}) {
            tw_op_attr a = NoAttr();
            a.time.flip = flip;
            a.time.log = log;
            const Values t{0.5, 3}, w{16, -3.25, 0.125};
            Values y;
            for (double v : t)
                for (int part = 0; part < 2; part++)
                    for (double f : w) {
                        const double angle = 2 * M_PI * (log ? std::log(v) : v) * f;
                        y.push_back((part == 1) != flip ? std::cos(angle) : std::sin(angle));
                    }
            const Op op{TW_OP_FOURIER_EMBED, a, {Real({2}, t), Real({3}, w)}, {Out({2, 6})}};
            const Values one(y.size(), 1.0);
            ExpectClose(RunOp(op, TW_F64)[0], y, one, 0, 1e-12, "fourier, double");
            ExpectClose(RunOp(op, TW_F32)[0], y, one, 0, 2 * kUlp, "fourier, float");
        }
}

TEST(Shape, Mse) {
    Random random(52);
    const Shape x{3, 5, 4, 3};
    const Values p = random.Normal(x), t = random.Normal(x), w{0.5, 2, 0};
    Values each(3, 0.0), dp;
    for (size_t i = 0; i < p.size(); i++) {
        each[i / 60] += w[i / 60] * (p[i] - t[i]) * (p[i] - t[i]) / 60;
        dp.push_back(1.5 * 2 * w[i / 60] * (p[i] - t[i]) / 180);
    }
    const Op f{TW_OP_MSE, NoAttr(), {Real(x, p), Real(x, t), Real({3}, w)}, {Out({1}), Out({3})}};
    const Op b{TW_OP_MSE_BWD,
               NoAttr(),
               {Real({1}, {1.5}), Real(x, p), Real(x, t), Real({3}, w)},
               {Out(x)}};
    for (tw_dtype precision : kBoth) {
        const auto y = RunOp(f, precision);
        ExpectClose(y[0], {(each[0] + each[1] + each[2]) / 3}, {}, 3 * kUlp, 0, "mse");
        ExpectClose(y[1], each, {}, 2 * kUlp, 0, "mse by sample");
        ExpectClose(RunOp(b, precision)[0], dp, Values(dp.size(), 0.1), 3 * kUlp, kUlp, "gradient");
    }
}

TEST(Shape, FillAndConvert) {
    tw_op_attr a = NoAttr();
    a.fill.value = -2.5;
    for (tw_dtype p : kBoth)
        EXPECT_EQ(RunOp({TW_OP_FILL, a, {}, {Out({3, 2})}}, p)[0], Values(6, -2.5));
    const Values x{1.5, -2.75, 65504, 1e-7, 0, 300.5};
    const struct {
        tw_dtype to;
        Values expected; /* half formats as their bits */
    } rows[] = {{TW_F64, x},
                {TW_I32, {1, -2, 65504, 0, 0, 300}},
                {TW_I64, {1, -2, 65504, 0, 0, 300}},
                {TW_U8, {1, 0, 255, 0, 0, 255}},
                {TW_F16, {0x3e00, 0xc180, 0x7bff, 0x0002, 0, 0x5cb2}},
                {TW_BF16, {0x3fc0, 0xc030, 0x4780, 0x33d7, 0, 0x4396}}};
    for (const auto &row : rows) {
        const Op op{TW_OP_CONVERT,
                    NoAttr(),
                    {Fixed(TW_F64, {6}, x)},
                    {Fixed(row.to, {3, 2}, Values(6, kNaN))}};
        EXPECT_EQ(RunOp(op, TW_F32)[0], row.expected) << tw_dtype_name(row.to);
    }
    const Op back{
        TW_OP_CONVERT, NoAttr(), {Fixed(TW_F16, {3}, {0x3e00, 0x0002, 0xfbff})}, {Out({3})}};
    EXPECT_EQ(RunOp(back, TW_F32)[0], Values({1.5, 0x1p-23, -65504}));
    const Op sixteen{TW_OP_CONVERT, NoAttr(), {Fixed(TW_BF16, {1}, {0xc030})}, {Out({1})}};
    EXPECT_EQ(RunOp(sixteen, TW_F64)[0], Values({-2.75}));
}

// A wrong operand is refused by name before anything runs.
TEST(Refusals, NameOperationAndOperand) {
    const Op rank{
        TW_OP_ADD_VEC, NoAttr(), {Real({2, 3}, Values(6)), Real({2}, Values(2))}, {Out({2, 3})}};
    EXPECT_NE(Refusal(rank).find("add_vec: input 1"), std::string::npos) << Refusal(rank);
    const Op missing{TW_OP_ADD_VEC, NoAttr(), {Real({2, 3}, Values(6))}, {Out({2, 3})}};
    EXPECT_NE(Refusal(missing).find("absent"), std::string::npos);
    const Op extra{TW_OP_ACT, NoAttr(), {Real({2}, Values(2)), Real({2}, Values(2))}, {Out({2})}};
    EXPECT_NE(Refusal(extra).find("act: input 1"), std::string::npos);
    const Op output{TW_OP_ACT, NoAttr(), {Real({2}, Values(2))}, {Out({3})}};
    EXPECT_NE(Refusal(output).find("act: output 0"), std::string::npos);
    const Op format{
        TW_OP_EMBEDDING, NoAttr(), {Real({2, 2}, Values(4)), Real({1}, {0})}, {Out({1, 2})}};
    EXPECT_NE(Refusal(format).find("float32"), std::string::npos);
    const Op empty{TW_OP_ACT, NoAttr(), {Real({0}, {})}, {Out({0})}};
    EXPECT_NE(Refusal(empty).find("below 1"), std::string::npos);
}

TEST(Refusals, Attributes) {
    tw_op_attr a = NoAttr();
    a.norm.groups = 2;
    const Op norm{TW_OP_GROUP_NORM,
                  a,
                  {Real({1, 3}, Values(3)), Real({3}, Values(3)), Real({3}, Values(3)), Absent()},
                  {Out({1, 3}), Out({1, 2}), Out({1, 2})}};
    EXPECT_NE(Refusal(norm).find("groups"), std::string::npos);
    a = NoAttr();
    a.conv = {1, 0, 0, 0, 0};
    const Op conv{TW_OP_CONV2D,
                  a,
                  {Real({1, 3, 3, 1}, Values(9)), Real({1, 3, 3, 1}, Values(9)), Absent()},
                  {Out({1, 2, 1, 1})}};
    EXPECT_NE(Refusal(conv).find("conv2d: the output's extents"), std::string::npos);
    a.attention.heads = 2;
    const Op attention{TW_OP_ATTENTION,
                       a,
                       {Real({1, 2, 3}, Values(6)), Real({1, 2, 3}, Values(6)),
                        Real({1, 2, 3}, Values(6)), Absent()},
                       {Out({1, 2, 3}), Out({1, 2, 2})}};
    EXPECT_NE(Refusal(attention).find("heads"), std::string::npos);
    a = NoAttr();
    const Op concat{
        TW_OP_CONCAT, a, {Real({1, 2}, Values(2)), Real({1, 2}, Values(2))}, {Out({1, 5})}};
    EXPECT_NE(Refusal(concat).find("add up"), std::string::npos);
}

TEST(Providers, AnUnknownNameIsRefusedWithTheKnownOnes) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    tw_context *ctx = nullptr;
    o.provider = "abacus";
    EXPECT_EQ(tw_context_create(&o, &ctx), TW_ERROR_ARGUMENT);
    EXPECT_EQ(ctx, nullptr);
    const std::string text = tw_context_error(nullptr);
    EXPECT_NE(text.find("abacus"), std::string::npos) << text;
    EXPECT_NE(text.find("cpu-reference"), std::string::npos) << text;
}

TEST(Providers, ReferenceAloneAndLast) {
    Backend alone("cpu-reference"), all("auto");
    EXPECT_STREQ(alone.get()->providers[0]->name, "cpu-reference");
    EXPECT_EQ(alone.get()->providers[1], nullptr);
    int last = 0;
    while (all.get()->providers[last + 1]) last++;
    EXPECT_STREQ(all.get()->providers[last]->name, "cpu-reference");
}

TEST(Providers, EveryOperationHasAName) {
    for (int k = 0; k < TW_OP_COUNT; k++) EXPECT_STRNE(tw_op_name((tw_op_kind)k), "unknown") << k;
    EXPECT_STREQ(tw_op_name(TW_OP_COUNT), "unknown");
}

} // namespace
