// The grid of matrix products and convolutions, for every provider.
#ifndef TW_TESTS_SUPPORT_PRODUCTS_H
#define TW_TESTS_SUPPORT_PRODUCTS_H

#include "support/ops.h"

namespace ops {

struct LinearShape {
    int64_t rows, in, out;
    bool bias;
};

inline std::vector<LinearShape> LinearGrid() {
    return {{1, 1, 1, true},      {1, 3, 4, false}, {7, 33, 5, true},
            {64, 128, 128, true}, {3, 4, 33, true}, {65, 31, 17, true},
            {1, 257, 129, true},  {33, 1, 3, true}, {130, 64, 67, false}};
}

struct ConvShape {
    int64_t n, h, w, c, o, kh, kw;
    int stride, top, left, bottom, right;
    bool bias;
    int64_t oh() const { return (h + top + bottom - kh) / stride + 1; }
    int64_t ow() const { return (w + left + right - kw) / stride + 1; }
    std::string name() const {
        std::string s = "conv";
        for (int64_t v : {n, h, w, c, o, kh, kw, (int64_t)stride, (int64_t)top, (int64_t)left,
                          (int64_t)bottom, (int64_t)right})
            s += " " + std::to_string(v);
        return s;
    }
};

inline std::vector<ConvShape> ConvGrid() {
    return {
        {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, true},
        {1, 1, 1, 33, 33, 3, 3, 1, 1, 1, 1, 1, true},
        {2, 9, 7, 3, 33, 3, 3, 1, 1, 1, 1, 1, true},
        {1, 8, 8, 33, 3, 3, 3, 1, 1, 1, 1, 1, true},
        {3, 7, 7, 4, 4, 3, 3, 2, 1, 1, 1, 1, false},
        {2, 8, 10, 16, 32, 3, 3, 2, 0, 0, 1, 1, true},
        {1, 9, 9, 32, 16, 1, 1, 1, 0, 0, 0, 0, true},
        {2, 6, 5, 33, 34, 5, 5, 1, 2, 2, 2, 2, true},
        {1, 12, 11, 1, 32, 3, 3, 1, 1, 1, 1, 1, false},
        {2, 5, 6, 17, 9, 1, 1, 2, 0, 0, 0, 0, true},
        {1, 6, 8, 8, 8, 3, 3, 1, 0, 2, 2, 0, true},
        {1, 7, 9, 24, 16, 1, 3, 1, 0, 1, 0, 1, true},
        {2, 14, 14, 64, 64, 3, 3, 1, 1, 1, 1, 1, true},
        {1, 11, 13, 16, 16, 5, 3, 3, 2, 0, 1, 1, true},
    };
}

// Operands of the six products for one shape. `dy` is random; dw and db start from random values,
// since gradients are accumulated.
struct Product {
    Op forward, data, weight;
};

inline Product MakeProduct(bool conv, const tw_op_attr &attr, const Shape &x, const Shape &w,
                           const Shape &y, bool bias, Random &random) {
    const int64_t o = w[0];
    const Arg xa = Real(x, random.Normal(x)), wa = Real(w, random.Normal(w)),
              dy = Real(y, random.Normal(y));
    const Arg b = bias ? Real({o}, random.Normal({o})) : Absent();
    const Arg dw = Real(w, random.Normal(w)), db = bias ? Real({o}, random.Normal({o})) : Absent();
    return {{conv ? TW_OP_CONV2D : TW_OP_LINEAR, attr, {xa, wa, b}, {Out(y)}},
            {conv ? TW_OP_CONV2D_BWD_DATA : TW_OP_LINEAR_BWD_DATA, attr, {dy, wa}, {Out(x)}},
            {conv ? TW_OP_CONV2D_BWD_WEIGHT : TW_OP_LINEAR_BWD_WEIGHT, attr, {xa, dy}, {dw, db}}};
}

inline Product MakeLinear(const LinearShape &s, Random &random) {
    return MakeProduct(false, NoAttr(), {s.rows, s.in}, {s.out, s.in}, {s.rows, s.out}, s.bias,
                       random);
}

inline Product MakeConv(const ConvShape &s, Random &random) {
    tw_op_attr a = NoAttr();
    a.conv = {s.stride, s.top, s.left, s.bottom, s.right};
    return MakeProduct(true, a, {s.n, s.h, s.w, s.c}, {s.o, s.kh, s.kw, s.c},
                       {s.n, s.oh(), s.ow(), s.o}, s.bias, random);
}

// sum |a b| of every output: the same operation on absolute values.
inline std::vector<Values> Magnitudes(Op op) {
    for (Arg &a : op.in) a.v = Abs(a.v);
    for (Arg &a : op.out) a.v = Abs(a.v);
    return RunOp(op, TW_F64);
}

// One operation in float32 by `provider` against the double reference, element by element.
inline void ExpectProduct(const Op &op, const char *provider, double c, const std::string &what,
                          int threads = 2) {
    const auto ref = RunOp(op, TW_F64), size = Magnitudes(op);
    const auto got = RunOp(op, TW_F32, threads, provider);
    for (size_t i = 0; i < ref.size(); i++)
        ExpectClose(got[i], ref[i], size[i], kUlp, c * kUlp,
                    what + ", " + tw_op_name(op.kind) + ", output " + std::to_string(i));
}

} // namespace ops

#endif
