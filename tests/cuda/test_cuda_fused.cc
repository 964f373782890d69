// What is claimed together with a product: how much, and that it is the same as one by one.
#include "support.h"
#include "support/ops.h"

using namespace ops;

namespace {

class CudaFused : public Cuda {};

Arg Hidden(const Shape &s) {
    Arg a = Out(s);
    a.hidden = true;
    return a;
}

tw_op_attr Conv() {
    tw_op_attr a = NoAttr();
    a.conv = {1, 1, 1, 1, 1};
    return a;
}

// Claims `claimed` operations of the chain, and gives what the reference gives. Of sums, `terms` is
// how much larger the magnitudes of what is added are together than the sums.
void Same(const std::vector<Op> &list, int claimed, const std::string &what, bool measures = false,
          double terms = 1) {
    SCOPED_TRACE(what);
    Backend cpu, cuda("own");
    Chain right(list, TW_F64), got(list, TW_F32);
    if (measures) got.Measure();
    std::string used;
    int first = 0;
    ASSERT_EQ(right.Run(cpu.get()), TW_OK) << cpu.error();
    ASSERT_EQ(got.Run(cuda.get(), &used, &first), TW_OK) << cuda.error();
    EXPECT_EQ(used, "own");
    EXPECT_EQ(first, claimed);
    const size_t last = list.size() - 1;
    for (size_t i = 0; i < list[last].out.size(); i++) {
        const Values want = right.Outputs(last)[i], have = got.Outputs(last)[i];
        const Values size(want.size(), terms * Norm(want) / std::sqrt((double)want.size()));
        ExpectClose(have, want, size, 64 * kUlp, 64 * kUlp, what);
    }
}

struct Parts {
    Shape x{2, 6, 4, 5}, y{2, 6, 4, 7}, w{7, 3, 3, 5};
    Op conv, vector, sum, silu, relu;
    explicit Parts(Random &random, bool show = false) {
        const Arg out = show ? Out(y) : Hidden(y);
        conv = {
            TW_OP_CONV2D,
            Conv(),
            {Real(x, random.Normal(x)), Real(w, random.Normal(w)), Real({7}, random.Normal({7}))},
            {out}};
        vector = {
            TW_OP_ADD_VEC, NoAttr(), {Previous(), Real({2, 7}, random.Normal({2, 7}))}, {out}};
        tw_op_attr scaled = NoAttr();
        scaled.axpby = {0.75, 0.75};
        sum = {TW_OP_AXPBY, scaled, {Real(y, random.Normal(y)), Previous()}, {out}};
        silu = {TW_OP_ACT, NoAttr(), {Previous()}, {out}};
        relu = silu;
        relu.attr.act.kind = TW_ACT_RELU;
    }
};

// The last output of a chain is read by the test.
std::vector<Op> Shown(std::vector<Op> list) {
    list.back().out[0].hidden = false;
    return list;
}

TEST_F(CudaFused, Convolutions) {
    Random random(320);
    const Parts p(random);
    Same(Shown({p.conv, p.vector}), 2, "vector");
    Same(Shown({p.conv, p.sum}), 2, "sum");
    Op columns = p.vector;
    columns.attr.vector.column = 2;
    columns.in[1] = Real({2, 11}, random.Normal({2, 11}));
    Same(Shown({p.conv, columns}), 2, "columns");
    Same(Shown({p.conv, p.silu}), 2, "silu");
    Same(Shown({p.conv, p.vector, p.sum, p.silu}), 4, "all");
    Same(Shown({p.conv, p.relu}), 1, "another activation");
    Same(Shown({p.conv, p.sum, p.vector}), 2, "in another order");
    Same(Shown({p.conv, p.silu, p.silu}), 2, "twice");
    Op unequal = p.sum;
    unequal.attr.axpby.beta = 0.5;
    Same(Shown({p.conv, unequal}), 1, "unequal factors");
    Op constant = p.sum;
    constant.in = {Previous()};
    Same(Shown({p.conv, constant}), 1, "a constant");
    const Parts q(random, true);
    Same({q.conv, q.vector}, 1, "somebody reads what lies between");
}

TEST_F(CudaFused, UpsampledConvolutions) {
    Random random(321);
    tw_op_attr twice = NoAttr(), thrice = NoAttr();
    twice.resample = {2, 1};
    thrice.resample = {3, 1};
    for (const tw_op_attr &attr : {twice, thrice}) {
        const int64_t k = attr.resample.k;
        const Shape x{2, 4, 3, 5}, up{2, 4 * k, 3 * k, 5}, y{2, 4 * k, 3 * k, 7}, w{7, 3, 3, 5};
        const Op first{TW_OP_UPSAMPLE_NEAREST, attr, {Real(x, random.Normal(x))}, {Hidden(up)}};
        const Op conv{TW_OP_CONV2D, Conv(), {Previous(), Real(w, random.Normal(w))}, {Hidden(y)}};
        const Op vector{TW_OP_ADD_VEC,
                        NoAttr(),
                        {Previous(), Real({2, 7}, random.Normal({2, 7}))},
                        {Hidden(y)}};
        Same(Shown({first, conv}), k == 2 ? 2 : 1, "factor " + std::to_string(k));
        Same(Shown({first, conv, vector}), k == 2 ? 3 : 1, "factor " + std::to_string(k));
        // The gradient's way back.
        const Op data{TW_OP_CONV2D_BWD_DATA,
                      Conv(),
                      {Real(y, random.Normal(y)), Real(w, random.Normal(w))},
                      {Hidden(up)}};
        const Op pool{TW_OP_POOL, attr, {Previous()}, {Hidden(x)}};
        tw_op_attr one = NoAttr();
        one.axpby = {1, 1};
        const Op sum{TW_OP_AXPBY, one, {Previous(), Real(x, random.Normal(x))}, {Hidden(x)}};
        Same(Shown({data, pool}), k == 2 ? 2 : 1, "gradient");
        Same(Shown({data, pool, sum}), k == 2 ? 3 : 1, "gradient");
    }
    const Shape odd{1, 7, 5, 3}, small{1, 3, 2, 3};
    const Op spread{
        TW_OP_UPSAMPLE_NEAREST, twice, {Real(small, random.Normal(small))}, {Hidden(odd)}};
    const Op conv{TW_OP_CONV2D,
                  Conv(),
                  {Previous(), Real({4, 3, 3, 3}, random.Normal({4, 3, 3, 3}))},
                  {Out({1, 7, 5, 4})}};
    Same({spread, conv}, 1, "pixels that no input covers");
}

tw_op_attr Norm4() {
    tw_op_attr a = NoAttr();
    a.norm.groups = 4;
    a.norm.silu = true;
    a.norm.eps = 1e-5;
    return a;
}

// The gradient of a normalisation of [2,6,4,C], by way of another and in parts.
struct NormGradient {
    Op norm, sum, split;
    NormGradient(Random &random, const Arg &x, int64_t a, int64_t b) {
        const Shape s{2, 6, 4, a + b}, c{a + b}, g{2, 4};
        Values rstd = random.Normal(g);
        for (double &v : rstd) v = 1 + v * v;
        norm = {TW_OP_GROUP_NORM_BWD,
                Norm4(),
                {Real(s, random.Normal(s)), x, Real(c, random.Normal(c)), Real(c, random.Normal(c)),
                 Absent(), Real(g, random.Normal(g)), Real(g, rstd)},
                {Hidden(s), Zeros(c), Zeros(c), Absent()}};
        tw_op_attr one = NoAttr();
        one.axpby = {1, 1};
        sum = {TW_OP_AXPBY, one, {Real(s, random.Normal(s)), Previous()}, {Hidden(s)}};
        split = {TW_OP_SPLIT, NoAttr(), {Previous()}, {Out({2, 6, 4, a}), Out({2, 6, 4, b})}};
    }
};

// What others read of it is stored, and its sums are made beside it.
TEST_F(CudaFused, SumsOfANormsGradient) {
    Random random(327);
    const Shape x{2, 6, 4, 12};
    NormGradient g(random, Real(x, random.Normal(x)), 8, 4);
    Op sums{TW_OP_SUM_SPATIAL, NoAttr(), {Previous()}, {Out({2, 12})}};
    const double terms = std::sqrt(6.0 * 4); // independent, of both signs
    Op shown = g.norm;
    shown.out[0] = Out(x);
    Same({shown, sums}, 2, "sums", false, terms);
    sums.attr.vector.column = 3;
    sums.out[0] = Real({2, 20}, random.Normal({2, 20}));
    Same({shown, sums}, 2, "sums in columns", false, terms);
    Same({g.norm, sums}, 1, "of what nobody else reads", false, terms);
    shown.out[0] = g.norm.out[0];
    Op sum = g.sum;
    sum.out[0] = Out(x);
    Same({shown, sum, sums}, 2, "of more than it", false, terms);
    NormGradient two(random, Previous(), 8, 4);
    const Shape a{2, 6, 4, 8}, b{2, 6, 4, 4};
    const Op concat{TW_OP_CONCAT,
                    NoAttr(),
                    {Real(a, random.Normal(a)), Real(b, random.Normal(b))},
                    {Hidden(x)}};
    two.norm.out[0] = Out(x);
    Same({concat, two.norm, sums}, 3, "of two tensors", false, terms);
}

TEST_F(CudaFused, Concatenations) {
    Random random(323);
    const Shape a{2, 6, 4, 8}, b{2, 6, 4, 4}, both{2, 6, 4, 12}, c{12}, w{7, 3, 3, 12},
        y{2, 6, 4, 7};
    const Op concat{TW_OP_CONCAT,
                    NoAttr(),
                    {Real(a, random.Normal(a)), Real(b, random.Normal(b))},
                    {Hidden(both)}};
    const Op conv{TW_OP_CONV2D, Conv(), {Previous(), Real(w, random.Normal(w))}, {Hidden(y)}};
    const Op sum = Parts(random).sum;
    Same(Shown({concat, conv}), 2, "convolution");
    Same(Shown({concat, conv, sum}), 3, "convolution and sum");
    const Op weight{TW_OP_CONV2D_BWD_WEIGHT,
                    Conv(),
                    {Previous(), Real(y, random.Normal(y))},
                    {Zeros(w), Zeros({7})}};
    Same({concat, weight}, 2, "a weight's gradient");
    const Op norm{TW_OP_GROUP_NORM,
                  Norm4(),
                  {Previous(), Real(c, random.Normal(c)), Real(c, random.Normal(c))},
                  {Out(both), Out({2, 4}), Out({2, 4})}};
    Same({concat, norm}, 2, "normalisation");
    NormGradient g(random, Previous(), 8, 4);
    Same({concat, g.norm, g.sum, g.split}, 4, "its gradient");
    Same({concat, g.norm, g.split}, 3, "its gradient alone");
    Same(Shown({concat, g.norm, g.sum}), 3, "its gradient as one");
    Op other = g.split;
    other.out = {Out({2, 6, 4, 4}), Out({2, 6, 4, 8})};
    Same({concat, g.norm, g.sum, other}, 3, "its gradient in other parts");
    // The kernels read 16 bytes at a time.
    const Shape odd{2, 6, 4, 2}, ten{2, 6, 4, 10};
    Op uneven = concat;
    uneven.in[1] = Real(odd, random.Normal(odd));
    uneven.out = {Hidden(ten)};
    Op five = norm;
    five.attr.norm.groups = 5;
    five.in[1] = five.in[2] = Real({10}, random.Normal({10}));
    five.out = {Out(ten), Out({2, 5}), Out({2, 5})};
    Same({uneven, five}, 1, "a part of 8 bytes");
}

TEST_F(CudaFused, MeasuredConvolutions) {
    Random random(326);
    // Channels that are no vectors: the norm would read its input twice.
    const Shape x{2, 8, 8, 5}, y{2, 8, 8, 18}, w{18, 3, 3, 5}, c{18}, stats{2, 9};
    const Arg xs = Real(x, random.Normal(x)), ws = Real(w, random.Normal(w));
    Op norm{TW_OP_GROUP_NORM,
            Norm4(),
            {Previous(), Real(c, random.Normal(c)), Real(c, random.Normal(c))},
            {Out(y), Out(stats), Out(stats)}};
    norm.attr.norm.groups = 9;
    tw_op_attr half = NoAttr();
    half.axpby = {0.5, 0.5};
    for (const bool hidden : {false, true}) {
        const Arg out = hidden ? Hidden(y) : Out(y);
        const Op conv{TW_OP_CONV2D, Conv(), {xs, ws, Real(c, random.Normal(c))}, {out}};
        const Op vector{
            TW_OP_ADD_VEC, NoAttr(), {Previous(), Real({2, 18}, random.Normal({2, 18}))}, {out}};
        const Op sum{TW_OP_AXPBY, half, {Previous(), Real(y, random.Normal(y))}, {out}};
        const Op silu{TW_OP_ACT, NoAttr(), {Previous()}, {out}};
        Op inner = conv, before = vector;
        inner.out = before.out = {Hidden(y)};
        Same({conv, norm}, 2, "convolution", true);
        Same({inner, before, sum, norm}, 4, "and what is added", true);
        Same({inner, silu, norm}, 3, "and SiLU", true);
        Same({conv, norm}, 1, "not asked for");
        Op again = norm;
        again.in.resize(4, Absent());
        again.in.push_back(Real(stats, random.Normal(stats)));
        again.in.push_back(Real(stats, Values(18, 1.25)));
        again.out.resize(1);
        Same({conv, again}, 1, "from statistics that are there", true);
    }
    const Shape even{2, 8, 8, 16}, sixteen{16, 3, 3, 5};
    Op once = norm;
    once.attr = Norm4();
    once.in[1] = once.in[2] = Real({16}, random.Normal({16}));
    once.out = {Out(even), Out({2, 4}), Out({2, 4})};
    const Op before{TW_OP_CONV2D, Conv(), {xs, Real(sixteen, random.Normal(sixteen))}, {Out(even)}};
    Same({before, once}, 1, "a norm that reads its input once", true);
    Op three = norm; // its groups lie across tiles
    three.attr.norm.groups = 3;
    three.in[1] = three.in[2] = Real({189}, random.Normal({189}));
    const Shape wide{2, 8, 8, 189}, weights{189, 3, 3, 5};
    three.out = {Out(wide), Out({2, 3}), Out({2, 3})};
    const Op conv{
        TW_OP_CONV2D, Conv(), {xs, Real(weights, random.Normal(weights))}, {Hidden(wide)}};
    Same({conv, three}, 1, "groups that are no part of a tile", true);
}

TEST_F(CudaFused, PackedAttention) {
    Random random(327);
    const Shape all{2, 9, 48}, one{2, 9, 16}, lse{2, 2, 9};
    tw_op_attr heads = NoAttr();
    heads.attention.heads = 2;
    heads.attention.scale = 0.35;
    // What the forward pass leaves, for the gradient.
    const Values packed = random.Normal(all);
    const Op split{
        TW_OP_SPLIT, NoAttr(), {Real(all, packed)}, {Hidden(one), Hidden(one), Hidden(one)}};
    Op shown = split;
    shown.out = {Out(one), Out(one), Out(one)};
    Backend cpu;
    Chain parts({shown}, TW_F64);
    ASSERT_EQ(parts.Run(cpu.get()), TW_OK);
    const std::vector<Values> q = parts.Outputs(0);
    const Op plain{TW_OP_ATTENTION,
                   heads,
                   {Real(one, q[0]), Real(one, q[1]), Real(one, q[2])},
                   {Out(one), Out(lse)}};
    Chain attended({plain}, TW_F64);
    ASSERT_EQ(attended.Run(cpu.get()), TW_OK);
    const std::vector<Values> y = attended.Outputs(0);
    Op attention = plain, gradient{TW_OP_ATTENTION_BWD,
                                   heads,
                                   {Real(one, random.Normal(one)), Previous(0), Previous(1),
                                    Previous(2), Real(one, y[0]), Real(lse, y[1])},
                                   {Hidden(one), Hidden(one), Hidden(one)}};
    attention.in = {Previous(0), Previous(1), Previous(2)};
    const Op joint{TW_OP_CONCAT, NoAttr(), {Previous(0), Previous(1), Previous(2)}, {Out(all)}};
    Same({split, attention}, 2, "attention");
    Same({split, gradient, joint}, 3, "its gradient");
}

TEST_F(CudaFused, GradientsOfNorms) {
    Random random(324);
    const Shape x{2, 6, 4, 12};
    const NormGradient g(random, Real(x, random.Normal(x)), 8, 4);
    Same(Shown({g.norm, g.sum}), 2, "added");
    Same({g.norm, g.sum, g.split}, 2, "what was no concatenation is cut by itself");
}

TEST_F(CudaFused, GradientsOfWeightsOfUpsampledConvolutions) {
    Random random(325);
    tw_op_attr twice = NoAttr();
    twice.resample = {2, 1};
    const Shape x{2, 3, 4, 5}, up{2, 6, 8, 5}, y{2, 6, 8, 7};
    const Op first{TW_OP_UPSAMPLE_NEAREST, twice, {Real(x, random.Normal(x))}, {Hidden(up)}};
    const Op weight{TW_OP_CONV2D_BWD_WEIGHT,
                    Conv(),
                    {Previous(), Real(y, random.Normal(y))},
                    {Zeros({7, 3, 3, 5}), Zeros({7})}};
    Same({first, weight}, 2, "upsampled");
}

TEST_F(CudaFused, Linear) {
    Random random(322);
    const Shape x{6, 5}, y{6, 7}, w{7, 5};
    tw_op_attr one = NoAttr(), scaled = NoAttr();
    one.axpby = {1, 1};
    scaled.axpby = {2, 2};
    const Op linear{
        TW_OP_LINEAR,
        NoAttr(),
        {Real(x, random.Normal(x)), Real(w, random.Normal(w)), Real({7}, random.Normal({7}))},
        {Hidden(y)}};
    const Op sum{TW_OP_AXPBY, scaled, {Previous(), Real(y, random.Normal(y))}, {Hidden(y)}};
    const Op silu{TW_OP_ACT, NoAttr(), {Previous()}, {Hidden(y)}};
    Same(Shown({linear, sum}), 2, "sum");
    Same(Shown({linear, sum, silu}), 3, "sum and silu");
    const Op data{TW_OP_LINEAR_BWD_DATA,
                  NoAttr(),
                  {Real(y, random.Normal(y)), Real(w, random.Normal(w))},
                  {Hidden(x)}};
    const Op also{TW_OP_AXPBY, one, {Real(x, random.Normal(x)), Previous()}, {Hidden(x)}};
    Op twice = also;
    twice.attr.axpby = {2, 2};
    Same(Shown({data, also}), 2, "gradients");
    Same(Shown({data, twice}), 1, "scaled gradients");
}

} // namespace
