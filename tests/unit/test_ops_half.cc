// Tensors of 16 bits on the CPU: computed as float32 computes, rounded once when stored.
#include "support/halfs.h"

using namespace ops;

namespace {

TEST(OpsHalf, AreRoundedOnce) {
    Random r(71);
    for (tw_dtype dtype : kHalfs)
        for (const HalfCase &c : HalfCases(r)) ExpectRounded(c, dtype, "cpu-reference", 1, 1e-5);
}

// What is not rounded stays float32: two formats of 16 bits at once, or a bias of 16 bits, are not.
TEST(OpsHalf, FormatsAreChecked) {
    Random r(72);
    Op exact;
    const Product p = MakeLinear({2, 3, 4, true}, r);
    EXPECT_EQ(Refusal(InHalfs(p.forward, TW_BF16, {2}, {}, &exact)), "");
    EXPECT_NE(Refusal(InHalfs(p.forward, TW_BF16, {}, {}, &exact)).find("input 2"),
              std::string::npos);
    EXPECT_NE(Refusal(InHalfs(p.forward, TW_BF16, {1, 2}, {}, &exact)).find("input 1"),
              std::string::npos);
    EXPECT_NE(Refusal(InHalfs(p.weight, TW_F16, {}, {1}, &exact)).find("output 0"),
              std::string::npos);
    Op mixed = InHalfs(p.forward, TW_BF16, {2}, {}, &exact);
    mixed.in[1].dtype = TW_F16;
    EXPECT_NE(Refusal(mixed).find("input 1"), std::string::npos);
}

// The masters take up what the copy cannot show, until it can; a skipped update leaves both.
TEST(OpsHalf, MastersKeepWhatTheCopyLoses) {
    const Shape n{3}, hypers{TW_HYPER_COUNT};
    const Values hyper{0x1p-12, 0, 0, 1e-12, 0, 0, 0, 0};
    Values p(3, 1), m(3, 0), v(3, 0), count{0, 0}, copy(3, 0x3f80);
    for (int i = 1; i <= 40; i++) {
        const double norm = i == 11 ? (double)INFINITY : 1;
        const Op op{TW_OP_ADAMW,
                    NoAttr(),
                    {Real(n, {1, -1, 0}), Real({1}, {norm}), Real(hypers, hyper)},
                    {Real(n, p), Real(n, m), Real(n, v), Fixed(TW_I64, {2}, count), Absent(),
                     Fixed(TW_BF16, n, copy)}};
        const auto out = RunOp(op, TW_F32);
        const double moved = (i > 10 ? i - 1 : i) * 0x1p-12;
        p = out[0], m = out[1], v = out[2], count = out[3], copy = out[5];
        EXPECT_NEAR(p[0], 1 - moved, 1e-6) << i;
        EXPECT_NEAR(p[1], 1 + moved, 1e-6) << i;
        for (size_t k = 0; k < 3; k++) EXPECT_EQ(copy[k], Bits(TW_BF16, p[k])) << i;
        if (i < 8) {
            EXPECT_EQ(copy[1], 0x3f80) << "below half a step of the copy";
        }
    }
    EXPECT_EQ(copy[1], 0x3f81);
    EXPECT_EQ(copy[2], 0x3f80);
    EXPECT_EQ(count[1], 1);
}

} // namespace
