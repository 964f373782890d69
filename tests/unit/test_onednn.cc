// oneDNN against the double reference, alone and with what it computes in the same pass.
#include "support/products.h"

using namespace ops;

namespace {

bool Have() {
    Backend backend("auto");
    return std::strcmp(backend.get()->providers[0]->name, "cpu-onednn") == 0;
}

#define NEED_ONEDNN()                                                                              \
    if (!Have()) GTEST_SKIP() << "this build has no oneDNN"

constexpr double kC = 6; // float32 accumulation in blocks

TEST(OneDnn, Products) {
    NEED_ONEDNN();
    Random random(20);
    for (const LinearShape &s : LinearGrid()) {
        const Product p = MakeLinear(s, random);
        const std::string name = "linear " + std::to_string(s.rows) + " " + std::to_string(s.in) +
                                 " " + std::to_string(s.out);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            ExpectProduct(*op, "cpu-onednn", kC, name);
    }
}

TEST(OneDnn, Convolutions) {
    NEED_ONEDNN();
    Random random(21);
    for (const ConvShape &s : ConvGrid()) {
        const Product p = MakeConv(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            for (int threads : {1, 2}) ExpectProduct(*op, "cpu-onednn", kC, s.name(), threads);
    }
}

// What follows a product, hidden or not: act, sum, act + sum, sum + act.
std::vector<Op> Follow(const Op &first, int form, int act, bool hidden, bool swapped,
                       Random &random) {
    const Shape y = first.out[0].shape;
    std::vector<Op> chain{first};
    auto add_act = [&] {
        tw_op_attr a = NoAttr();
        a.act.kind = act;
        chain.back().out[0].hidden = hidden;
        chain.push_back({TW_OP_ACT, a, {Previous()}, {Out(y)}});
    };
    auto add_sum = [&] {
        tw_op_attr a = NoAttr();
        a.axpby = {1, 1};
        const Arg other = Real(y, random.Normal(y));
        chain.back().out[0].hidden = hidden;
        chain.push_back(
            {TW_OP_AXPBY,
             a,
             swapped ? std::vector<Arg>{other, Previous()} : std::vector<Arg>{Previous(), other},
             {Out(y)}});
    };
    if (form == 0 || form == 2) add_act();
    if (form >= 1) add_sum();
    if (form == 3) add_act();
    return chain;
}

void CheckChain(const std::vector<Op> &chain, const std::string &what, int *claimed) {
    Backend reference("cpu-reference"), fast("cpu-onednn");
    Chain exact(chain, TW_F64), got(chain, TW_F32);
    ASSERT_EQ(exact.Run(reference.get()), TW_OK) << reference.error();
    ASSERT_EQ(got.Run(fast.get(), nullptr, claimed), TW_OK) << fast.error();
    Values size = Magnitudes(chain[0])[0];
    for (const Op &op : chain)
        if (op.kind == TW_OP_AXPBY)
            for (const Arg &a : op.in)
                for (size_t i = 0; i < a.v.size(); i++) size[i] += std::fabs(a.v[i]);
    for (double &s : size) s = 1.2 * s + 1e-6; /* SiLU's slope is below 1.1 */
    for (size_t k = 0; k < chain.size(); k++)
        if (!chain[k].out[0].hidden)
            ExpectClose(got.Outputs(k)[0], exact.Outputs(k)[0], size, 4 * kUlp, kC * kUlp,
                        what + ", output of operation " + std::to_string(k));
}

TEST(OneDnn, WhatFollowsInTheSamePass) {
    NEED_ONEDNN();
    Random random(22);
    int most = 0;
    for (const ConvShape &s : {ConvGrid()[2], ConvGrid()[5], ConvGrid()[6], ConvGrid()[12]})
        for (int form = 0; form < 4; form++)
            for (int act : {TW_ACT_SILU, TW_ACT_RELU, TW_ACT_GELU})
                for (bool swapped : {false, true}) {
                    int claimed = 0;
                    CheckChain(
                        Follow(MakeConv(s, random).forward, form, act, true, swapped, random),
                        s.name() + " form " + std::to_string(form) + " act " + std::to_string(act),
                        &claimed);
                    EXPECT_LE(claimed, act == TW_ACT_GELU && form != 1 ? 2 : 3);
                    most = std::max(most, claimed);
                }
    EXPECT_EQ(most, 3);
    most = 0;
    for (const LinearShape &s : {LinearGrid()[3], LinearGrid()[5], LinearGrid()[8]})
        for (int form = 0; form < 4; form++) {
            int claimed = 0;
            CheckChain(
                Follow(MakeLinear(s, random).forward, form, TW_ACT_SILU, true, false, random),
                "linear form " + std::to_string(form), &claimed);
            most = std::max(most, claimed);
        }
    EXPECT_EQ(most, 3);
}

TEST(OneDnn, LeavesAResultThatIsNeeded) {
    NEED_ONEDNN();
    Random random(23);
    for (int form = 0; form < 4; form++) {
        int claimed = 0;
        CheckChain(Follow(MakeConv(ConvGrid()[12], random).forward, form, TW_ACT_SILU, false, false,
                          random),
                   "needed, form " + std::to_string(form), &claimed);
        EXPECT_EQ(claimed, 1);
    }
}

// x + x and sums with factors are not what the fused sum computes.
TEST(OneDnn, ClaimsOnlyPlainSums) {
    NEED_ONEDNN();
    Random random(24);
    for (int form = 0; form < 3; form++) {
        auto chain = Follow(MakeConv(ConvGrid()[12], random).forward, 1, 0, true, false, random);
        if (form == 0) chain[1].in[1] = Previous();
        if (form == 1) chain[1].attr.axpby.alpha = 0.5;
        if (form == 2) chain[1].in[1] = Absent();
        int claimed = 0;
        CheckChain(chain, "sum form " + std::to_string(form), &claimed);
        EXPECT_EQ(claimed, 1);
    }
}

TEST(OneDnn, TakesProductsAndNothingElse) {
    NEED_ONEDNN();
    Random random(25);
    Backend backend("cpu-onednn");
    std::string used;
    Chain conv({MakeConv(ConvGrid()[12], random).forward}, TW_F32);
    ASSERT_EQ(conv.Run(backend.get(), &used), TW_OK);
    EXPECT_EQ(used, "cpu-onednn");
    Chain precise({MakeConv(ConvGrid()[12], random).forward}, TW_F64);
    ASSERT_EQ(precise.Run(backend.get(), &used), TW_OK);
    EXPECT_EQ(used, "cpu-reference");
    Chain small({MakeLinear(LinearGrid()[0], random).forward}, TW_F32);
    ASSERT_EQ(small.Run(backend.get(), &used), TW_OK);
    EXPECT_EQ(used, "cpu-reference");
}

// A tap that is left out, or a transposed weight, must exceed the bounds used above.
TEST(OneDnn, TheBoundSeesADroppedTap) {
    Random random(26);
    Op op = MakeConv(ConvGrid()[12], random).forward;
    const auto ref = RunOp(op, TW_F64), size = Magnitudes(op);
    const int64_t c = ConvGrid()[12].c;
    for (int64_t o = 0; o < ConvGrid()[12].o; o++)
        for (int64_t i = 0; i < c; i++) op.in[1].v[(size_t)((o * 9 + 4) * c + i)] = 0;
    const auto wrong = RunOp(op, TW_F32);
    EXPECT_GT(CountBad(wrong[0], ref[0], size[0], kUlp, kC * kUlp),
              (int64_t)ref[0].size() * 9 / 10);
}

} // namespace
