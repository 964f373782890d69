// Operations whose tensors have 16 bits, beside the double reference on the same rounded numbers.
#ifndef TW_TESTS_SUPPORT_HALFS_H
#define TW_TESTS_SUPPORT_HALFS_H

#include "support/products.h"

#include <tweedie/schedule.h>

extern "C" {
#include "core/halfs.h"
}

namespace ops {

constexpr tw_dtype kHalfs[] = {TW_BF16, TW_F16};

// Half the distance of neighbours, relative to a number that is not subnormal.
inline double HalfUlp(tw_dtype dtype) {
    return dtype == TW_BF16 ? 0x1p-8 : 0x1p-11;
}

inline double Bits(tw_dtype dtype, double x) {
    return dtype == TW_BF16 ? tw_f32_to_bf16((float)x) : tw_f32_to_f16((float)x);
}

inline double FromBits(tw_dtype dtype, double bits) {
    const auto b = (uint16_t)bits;
    return (double)(dtype == TW_BF16 ? tw_bf16_to_f32(b) : tw_f16_to_f32(b));
}

// `op` with its REAL operands in a format of 16 bits, but for those that are float32: positions of
// the inputs and of the outputs. `exact` gets the same for the double reference.
inline Op InHalfs(const Op &op, tw_dtype dtype, const std::vector<size_t> &wide_in,
                  const std::vector<size_t> &wide_out, Op *exact) {
    Op half = op;
    *exact = op;
    const auto convert = [&](std::vector<Arg> &args, std::vector<Arg> &same,
                             const std::vector<size_t> &wide) {
        for (size_t i = 0; i < args.size(); i++) {
            if (args[i].kind != Arg::REAL) continue;
            const bool is_wide = std::find(wide.begin(), wide.end(), i) != wide.end();
            args[i].kind = Arg::FIXED;
            args[i].dtype = is_wide ? TW_F32 : dtype;
            for (size_t k = 0; k < args[i].v.size() && !is_wide; k++) {
                const double bits = Bits(dtype, args[i].v[k]);
                args[i].v[k] = std::isnan(same[i].v[k]) ? kNaN : bits;
                same[i].v[k] = FromBits(dtype, bits);
            }
        }
    };
    convert(half.in, exact->in, wide_in);
    convert(half.out, exact->out, wide_out);
    return half;
}

// The numbers of an output.
inline Values Decoded(const Arg &arg, Values v) {
    if (arg.dtype == TW_BF16 || arg.dtype == TW_F16)
        for (double &x : v) x = FromBits(arg.dtype, x);
    return v;
}

inline double Largest(const Values &v) {
    double most = 0;
    for (double x : v) most = std::max(most, std::fabs(x));
    return most;
}

struct HalfCase {
    const char *name;
    Op op;
    std::vector<size_t> wide_in, wide_out;
};

inline tw_op_attr NormAttr(int groups, bool silu, int64_t column = 0) {
    tw_op_attr a = NoAttr();
    a.norm = {groups, silu, 1e-5, column};
    return a;
}

inline tw_op_attr AttentionAttr(int heads, double scale) {
    tw_op_attr a = NoAttr();
    a.attention = {heads, scale};
    return a;
}

inline std::vector<HalfCase> HalfProducts(Random &r) {
    std::vector<HalfCase> all;
    const Product conv = MakeConv({2, 5, 4, 3, 5, 3, 3, 1, 1, 1, 1, 1, true}, r),
                  linear = MakeLinear({7, 33, 5, true}, r);
    for (const Product *p : {&conv, &linear}) {
        all.push_back({"forward", p->forward, {2}, {}});
        all.push_back({"data", p->data, {}, {}});
        all.push_back({"weight", p->weight, {}, {0, 1}});
    }
    return all;
}

inline std::vector<HalfCase> HalfNorms(Random &r) {
    const Shape x{2, 3, 3, 8}, c{8}, ss{2, 16}, wide{2, 20}, stats{2, 4};
    const auto real = [&](const Shape &s, double scale = 1) { return Real(s, r.Normal(s, scale)); };
    const Arg mean = real(stats, 0.1), rstd = Real(stats, Values(8, 1.25));
    return {{"norm",
             {TW_OP_GROUP_NORM,
              NormAttr(4, true),
              {real(x), real(c), real(c), real(ss)},
              {Out(x), Out(stats), Out(stats)}},
             {1, 2},
             {1, 2}},
            {"norm from its statistics",
             {TW_OP_GROUP_NORM,
              NormAttr(4, true),
              {real(x), real(c), real(c), real(ss), mean, rstd},
              {Out(x)}},
             {1, 2, 4, 5},
             {}},
            {"norm's gradient",
             {TW_OP_GROUP_NORM_BWD,
              NormAttr(4, true),
              {real(x), real(x), real(c), real(c), real(ss), mean, rstd},
              {Out(x), real(c), real(c), Out(ss)}},
             {2, 3, 5, 6},
             {1, 2}},
            {"norm by columns",
             {TW_OP_GROUP_NORM,
              NormAttr(4, true, 3),
              {real(x), real(c), real(c), real(wide)},
              {Out(x), Out(stats), Out(stats)}},
             {1, 2},
             {1, 2}},
            {"its gradient",
             {TW_OP_GROUP_NORM_BWD,
              NormAttr(4, true, 3),
              {real(x), real(x), real(c), real(c), real(wide), mean, rstd},
              {Out(x), real(c), real(c), real(wide)}},
             {2, 3, 5, 6},
             {1, 2}}};
}

inline std::vector<HalfCase> HalfOthers(Random &r) {
    const Shape x{3, 2, 2, 4}, v{3, 4}, n{3}, q{2, 5, 8}, k{2, 7, 8}, lse{2, 2, 5};
    const auto real = [&](const Shape &s) { return Real(s, r.Normal(s)); };
    const Arg index = Fixed(TW_I32, n, {1, 0, 4});
    tw_op_attr columns = NoAttr();
    columns.vector = {3};
    tw_op_attr gelu = NoAttr(), sum = NoAttr(), pool = NoAttr(), time = NoAttr(), noise = NoAttr();
    gelu.act = {TW_ACT_GELU};
    sum.axpby = {0.75, -1.5};
    pool.resample = {2, 0.25};
    time.time = {true, false, 1, 1, 10000};
    noise.diffusion = {TW_PREDICT_V};
    return {{"act", {TW_OP_ACT, gelu, {real(x)}, {Out(x)}}, {}, {}},
            {"act's gradient", {TW_OP_ACT_BWD, gelu, {real(x), real(x)}, {Out(x)}}, {}, {}},
            {"sum", {TW_OP_AXPBY, sum, {real(x), real(x)}, {Out(x)}}, {}, {}},
            {"vector", {TW_OP_ADD_VEC, NoAttr(), {real(x), real(v)}, {Out(x)}}, {}, {}},
            {"vector's gradient", {TW_OP_SUM_SPATIAL, NoAttr(), {real(x)}, {Out(v)}}, {}, {}},
            {"columns", {TW_OP_ADD_VEC, columns, {real(x), real({3, 8})}, {Out(x)}}, {}, {}},
            {"columns' gradient", {TW_OP_SUM_SPATIAL, columns, {real(x)}, {real({3, 8})}}, {}, {}},
            {"scale", {TW_OP_PER_SAMPLE_SCALE, NoAttr(), {real(x), real(n)}, {Out(x)}}, {1}, {}},
            {"pool", {TW_OP_POOL, pool, {real(x)}, {Out({3, 1, 1, 4})}}, {}, {}},
            {"table", {TW_OP_EMBEDDING, NoAttr(), {real({5, 4}), index}, {Out(v)}}, {}, {}},
            {"table's gradient",
             {TW_OP_EMBEDDING_BWD, NoAttr(), {real(v), index}, {real({5, 4})}},
             {},
             {0}},
            {"time", {TW_OP_TIME_EMBED, time, {Real(n, {0, 17, 999})}, {Out({3, 9})}}, {0}, {}},
            {"attention",
             {TW_OP_ATTENTION,
              AttentionAttr(2, 0.5),
              {real(q), real(k), real(k), Absent()},
              {Out(q), Out(lse)}},
             {},
             {1}},
            {"loss",
             {TW_OP_MSE, NoAttr(), {real(x), real(x), real(n)}, {Out({1}), Out(n)}},
             {1, 2},
             {0, 1}},
            {"loss' gradient",
             {TW_OP_MSE_BWD, NoAttr(), {real({1}), real(x), real(x), real(n)}, {Out(x)}},
             {0, 2, 3},
             {}},
            {"noise",
             {TW_OP_FORWARD_NOISE,
              noise,
              {real(x), index,
               Fixed(TW_F32, {5, 2}, {.9, .1, .8, .2, .5, .5, .25, .75, .125, .875}), Rng(3, 5, 7)},
              {Out(x), Out(x)}},
             {0},
             {1}}};
}

inline std::vector<HalfCase> HalfCases(Random &r) {
    std::vector<HalfCase> all = HalfProducts(r);
    for (const auto &more : {HalfNorms(r), HalfOthers(r)})
        all.insert(all.end(), more.begin(), more.end());
    return all;
}

// By `provider`, within `roundings` of the format and `absolute` of the largest number.
inline void ExpectRounded(const HalfCase &c, tw_dtype dtype, const char *provider, double roundings,
                          double absolute) {
    Op exact;
    const Op half = InHalfs(c.op, dtype, c.wide_in, c.wide_out, &exact);
    const auto ref = RunOp(exact, TW_F64), got = RunOp(half, TW_F32, 1, provider);
    for (size_t i = 0; i < ref.size(); i++) {
        const bool wide = half.out[i].dtype == TW_F32;
        const Values scale(ref[i].size(), Largest(ref[i]) + 1);
        ExpectClose(Decoded(half.out[i], got[i]), ref[i], scale,
                    wide ? 0 : roundings * HalfUlp(dtype), absolute,
                    std::string(c.name) + " " + tw_dtype_name(dtype));
    }
}

} // namespace ops

#endif
