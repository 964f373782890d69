// Matrix products and convolutions: the double reference against sums written out here, float32
// against double.
#include "support/products.h"

using namespace ops;

namespace {

Values NaiveConv(const ConvShape &s, const Op &op) {
    Values y;
    const Values &x = op.in[0].v, &w = op.in[1].v;
    for (int64_t n = 0; n < s.n; n++)
        for (int64_t p = 0; p < s.oh(); p++)
            for (int64_t q = 0; q < s.ow(); q++)
                for (int64_t o = 0; o < s.o; o++) {
                    long double sum = s.bias ? op.in[2].v[(size_t)o] : 0.0;
                    for (int64_t i = 0; i < s.kh; i++)
                        for (int64_t j = 0; j < s.kw; j++)
                            for (int64_t c = 0; c < s.c; c++) {
                                const int64_t row = p * s.stride + i - s.top;
                                const int64_t col = q * s.stride + j - s.left;
                                if (row < 0 || col < 0 || row >= s.h || col >= s.w) continue;
                                sum += (long double)
                                           x[(size_t)(((n * s.h + row) * s.w + col) * s.c + c)] *
                                       w[(size_t)(((o * s.kh + i) * s.kw + j) * s.c + c)];
                            }
                    y.push_back((double)sum);
                }
    return y;
}

TEST(Products, ConvolutionIsTheSumOverItsTaps) {
    Random random(30);
    for (const ConvShape &s : ConvGrid()) {
        const Op op = MakeConv(s, random).forward;
        ExpectClose(RunOp(op, TW_F64)[0], NaiveConv(s, op), Magnitudes(op)[0], 1e-15, 1e-14,
                    s.name());
    }
}

TEST(Products, LinearIsTheSumOverItsInputs) {
    Random random(31);
    for (const LinearShape &s : LinearGrid()) {
        const Op op = MakeLinear(s, random).forward;
        Values y;
        for (int64_t m = 0; m < s.rows; m++)
            for (int64_t o = 0; o < s.out; o++) {
                long double sum = s.bias ? op.in[2].v[(size_t)o] : 0.0;
                for (int64_t k = 0; k < s.in; k++)
                    sum += (long double)op.in[0].v[(size_t)(m * s.in + k)] *
                           op.in[1].v[(size_t)(o * s.in + k)];
                y.push_back((double)sum);
            }
        ExpectClose(RunOp(op, TW_F64)[0], y, Magnitudes(op)[0], 1e-15, 1e-14, "linear");
    }
}

TEST(Products, Float) {
    Random random(32);
    for (const LinearShape &s : LinearGrid()) {
        const Product p = MakeLinear(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            ExpectProduct(*op, "cpu-reference", 2, "linear");
    }
    for (const ConvShape &s : ConvGrid()) {
        const Product p = MakeConv(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            ExpectProduct(*op, "cpu-reference", 2, s.name());
    }
}

// Leading axes of a linear operation are rows, however many there are.
TEST(Products, LinearFlattensLeadingAxes) {
    Random random(33);
    const Op flat = MakeLinear({6, 5, 4, true}, random).forward;
    Op deep = flat;
    deep.in[0].shape = {2, 3, 5};
    deep.out[0].shape = {2, 3, 4};
    EXPECT_EQ(RunOp(flat, TW_F64), RunOp(deep, TW_F64));
}

TEST(Products, ThreadsDoNotChangeTheBits) {
    Random random(34);
    const Product p = MakeConv(ConvGrid()[12], random);
    for (const Op *op : {&p.forward, &p.data, &p.weight})
        EXPECT_EQ(RunOp(*op, TW_F32, 1), RunOp(*op, TW_F32, 3));
}

} // namespace
