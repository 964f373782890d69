// The provider "cudnn": the regions that the libraries take, with which results, and what is left
// to the kernels.
#include "libraries.h"
#include "networks.h"
#include "support/ops.h"
#include "support/products.h"

using namespace ops;

namespace {

class CudaLibrary : public Cuda {
  protected:
    void SetUp() override {
        if (!kHaveLibraries) GTEST_SKIP() << "built without the headers of cuDNN or cuBLASLt";
    }
};

Arg Hidden(const Shape &s) {
    Arg a = Out(s);
    a.hidden = true;
    return a;
}

// `provider` claims `claimed` operations of the chain first, which gives what the reference gives.
void Same(std::vector<Op> list, const char *provider, int claimed, const std::string &what) {
    SCOPED_TRACE(what);
    list.back().out[0].hidden = false;
    Backend cpu, cuda("cudnn");
    Chain right(list, TW_F64), got(list, TW_F32);
    std::string used;
    int first = 0;
    ASSERT_EQ(right.Run(cpu.get()), TW_OK) << cpu.error();
    ASSERT_EQ(got.Run(cuda.get(), &used, &first), TW_OK) << cuda.error();
    EXPECT_EQ(used, provider);
    EXPECT_EQ(first, claimed);
    const Values want = right.Outputs(list.size() - 1)[0], have = got.Outputs(list.size() - 1)[0];
    const Values size(want.size(), Norm(want) / std::sqrt((double)want.size()));
    ExpectClose(have, want, size, 64 * kUlp, 64 * kUlp, what);
}

struct Parts {
    Shape x{2, 6, 4, 5}, y{2, 6, 4, 7}, w{7, 3, 3, 5};
    Op conv, vector, sum, silu, data, also, linear, plus, last;
    Parts() {
        Random random(340);
        const Arg ax = Real(x, random.Normal(x)), ay = Real(y, random.Normal(y)),
                  aw = Real(w, random.Normal(w));
        tw_op_attr one = NoAttr(), scaled = NoAttr(), three = NoAttr();
        three.conv = {1, 1, 1, 1, 1};
        scaled.axpby = {0.75, 0.75};
        one.axpby = {1, 1};
        conv = {TW_OP_CONV2D, three, {ax, aw, Real({7}, random.Normal({7}))}, {Hidden(y)}};
        vector = {TW_OP_ADD_VEC,
                  NoAttr(),
                  {Previous(), Real({2, 7}, random.Normal({2, 7}))},
                  {Hidden(y)}};
        sum = {TW_OP_AXPBY, scaled, {ay, Previous()}, {Hidden(y)}};
        silu = {TW_OP_ACT, NoAttr(), {Previous()}, {Hidden(y)}};
        data = {TW_OP_CONV2D_BWD_DATA, three, {ay, aw}, {Hidden(x)}};
        also = {TW_OP_AXPBY, one, {Previous(), ax}, {Hidden(x)}};
        const Shape rows{6, 5}, out{6, 7}, matrix{7, 5};
        linear = {TW_OP_LINEAR,
                  NoAttr(),
                  {Real(rows, random.Normal(rows)), Real(matrix, random.Normal(matrix)),
                   Real({7}, random.Normal({7}))},
                  {Hidden(out)}};
        plus = {TW_OP_AXPBY, one, {Previous(), Real(out, random.Normal(out))}, {Hidden(out)}};
        last = {TW_OP_ACT, NoAttr(), {Previous()}, {Hidden(out)}};
    }
};

TEST_F(CudaLibrary, Products) {
    const Libraries libraries({fake::Engine()});
    Random random(341);
    for (const LinearShape &s : LinearGrid()) {
        const Product p = MakeLinear(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            ExpectProduct(*op, "cudnn", 16, "linear", 1);
    }
    for (const ConvShape &s : ConvGrid()) {
        if (s.n * s.h * s.w * s.c * s.o > 50000) continue;
        const Product p = MakeConv(s, random);
        for (const Op *op : {&p.forward, &p.data, &p.weight})
            ExpectProduct(*op, "cudnn", 16, s.name(), 1);
    }
    EXPECT_GT(fake_state()->executed, 20);
}

TEST_F(CudaLibrary, ClaimsWhatItDoesOfWhatAKernelDoes) {
    fake::Engine engine;
    engine.workspace = 1000;
    const Libraries libraries({engine});
    const Parts p;
    Same({p.conv}, "cudnn", 1, "convolution");
    Same({p.conv, p.sum}, "cudnn", 2, "sum");
    Same({p.conv, p.vector, p.sum, p.silu}, "cudnn", 4, "all, where there is an engine for it");
    Same({p.data, p.also}, "cudnn", 2, "gradients");
    Same({p.linear, p.plus}, "cudnn", 2, "product and sum");
    Same({p.linear, p.plus, p.last}, "cudnn", 2, "cuBLASLt has no silu");
    Op scaled = p.plus;
    scaled.attr.axpby = {0.5, 0.5};
    Same({p.linear, scaled}, "cudnn", 1, "nor a scaled bias");
}

TEST_F(CudaLibrary, LeavesTheRestToTheKernels) {
    const Libraries libraries;
    const Parts p;
    Op alone = p.silu;
    alone.in = {p.conv.in[0]};
    alone.out = {Hidden(p.x)};
    Same({alone}, "own", 1, "an activation");
    tw_op_attr twice = NoAttr();
    twice.resample = {2, 1};
    const Shape small{2, 3, 2, 5};
    Random random(342);
    Op conv = p.conv;
    conv.in[0] = Previous();
    const Op up{TW_OP_UPSAMPLE_NEAREST, twice, {Real(small, random.Normal(small))}, {Hidden(p.x)}};
    Same({up, conv}, "own", 2, "an enlarged image");
    const Op pool{TW_OP_POOL, twice, {Previous()}, {Hidden(small)}};
    Same({p.data, pool}, "cudnn", 1, "a gradient that is made smaller");
    tw_op_attr a = NoAttr();
    a.attention = {2, 0.3};
    const Shape q{2, 9, 16};
    const Arg aq = Real(q, random.Normal(q));
    Same({{TW_OP_ATTENTION, a, {aq, aq, aq}, {Out(q), Out({2, 2, 9})}}}, "own", 1, "fp32");
}

// Whatever is missing, the kernels do it.
TEST_F(CudaLibrary, WithoutThemTheKernelsDoAll) {
    const Parts p;
    Same({p.conv, p.vector, p.sum, p.silu}, "own", 4, "no files");
    fake::Engine refused;
    refused.refused = true;
    const Libraries libraries({refused});
    Same({p.conv, p.vector, p.sum, p.silu}, "own", 4, "no plan");
    fake_state()->no_handle = true;
    Same({p.conv, p.sum}, "own", 2, "no handle");
}

TEST_F(CudaLibrary, OwnOpensNothing) {
    const Libraries libraries;
    const Parts p;
    Backend own("own");
    Chain chain({p.conv}, TW_F32);
    ASSERT_EQ(chain.Run(own.get()), TW_OK) << own.error();
    EXPECT_EQ(fake_state()->asked, 0);
}

} // namespace
