// Single operations against PyTorch's float64, through the public plan: forward, and every gradient
// of sum(y dy). See README.md here and the rule in ops.json.
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "support/golden.h"

#include <tweedie/plan.h>

namespace {

using Shape = std::vector<int64_t>;
template <class Real> constexpr tw_dtype kDtype = sizeof(Real) == 8 ? TW_F64 : TW_F32;
// Half the distance from 1 to the next number.
template <class Real> constexpr double kRounding = sizeof(Real) == 8 ? 0x1p-53 : 0x1p-24;

// A tensor of a case: how it is filled, and its gradient as PyTorch has it. `shape` is PyTorch's.
struct Input {
    std::string name;
    Shape shape;
    bool image, kernel; // image: counted in N,H,W,C order; kernel: O,I,KH,KW
    uint32_t role;
    double scale = 1, shift = 0;
    const json_t *grad = nullptr;

    // N,H,W,C; O,KH,KW,I; all others as they are.
    Shape PlanShape() const {
        if (image || kernel) return {shape[0], shape[2], shape[3], shape[1]};
        return shape;
    }
    // Where the golden's element i stands in the plan.
    size_t PlanIndex(size_t i) const {
        if (!kernel) return i;
        const auto in = static_cast<size_t>(shape[1]);
        const size_t window = static_cast<size_t>(shape[2] * shape[3]);
        return (i / window / in * window + i % window) * in + i / window % in;
    }
    // float32(shift + scale z), in the golden's order.
    std::vector<float> Values(const std::string &case_name) const {
        std::vector<float> z(static_cast<size_t>(golden::Count(shape)));
        golden::Normals(golden::kSeed, tw_name_hash(case_name.c_str()), TW_PURPOSE_GOLDEN, role,
                        static_cast<int64_t>(z.size()), z.data());
        for (float &v : z) v = static_cast<float>(shift + scale * static_cast<double>(v));
        return z;
    }
};

bool IsImage(const json_t *row) {
    const std::string layout = golden::Text(row, "layout");
    EXPECT_TRUE(layout == "NHWC" || layout == "flat") << layout;
    return layout == "NHWC";
}

struct Case {
    std::string op, name;
    const json_t *row;
    std::vector<Input> inputs;
    Input dy;

    explicit Case(const json_t *r) : op(golden::Text(r, "op")), name(golden::Text(r, "name")) {
        row = r;
        const json_t *rows = golden::At(r, "inputs"), *output = golden::At(r, "output");
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *x = json_array_get(rows, i);
            const Shape shape = golden::Shape(golden::At(x, "shape"));
            const bool image = IsImage(x);
            inputs.push_back({golden::Text(x, "name"), shape, image, !image && shape.size() == 4,
                              static_cast<uint32_t>(golden::Whole(x, "role")),
                              golden::Number(x, "scale"), golden::Number(x, "shift"),
                              golden::At(x, "grad")});
        }
        dy = {"dy", golden::Shape(golden::At(output, "shape")), IsImage(output), false,
              static_cast<uint32_t>(golden::Whole(r, "dy_role"))};
    }
    int Int(const char *key) const { return static_cast<int>(golden::Whole(row, key)); }
};

// The bound of an entry, relative to the tensor's rms: some rounding errors of the format.
// PyTorch's own come on top in double. Around a large mean, deviations have lost that much of their
// digits.
template <class Real> double Bound(const Case &c) {
    const Input &x = c.inputs[0];
    const double roundings = sizeof(Real) == 8 ? 128 : 32;
    return roundings * kRounding<Real> * (1 + std::abs(x.shift) / x.scale);
}

// A case as a plan of either precision.
template <class Real> class Plan {
  public:
    Plan(tw_context *ctx, const Case &c) : ctx_(ctx), case_(c) {
        tw_plan_options options = TW_PLAN_OPTIONS_INIT;
        options.precision = kDtype<Real>;
        EXPECT_EQ(tw_plan_create(ctx, &options, &plan_), TW_OK) << tw_context_error(ctx);
    }
    ~Plan() { tw_plan_free(plan_); }
    Plan(const Plan &) = delete;

    void Run() {
        for (const Input &x : case_.inputs) values_.push_back(Declare(x));
        const tw_value dy = Declare(case_.dy);
        const tw_value y = Build();
        tw_plan_keep(plan_, y);
        // sum(y dy) as a product of two vectors.
        const int64_t flat[2] = {1, golden::Count(case_.dy.shape)};
        const tw_value loss = tw_plan_linear(plan_, tw_plan_reshape(plan_, y, 2, flat),
                                             tw_plan_reshape(plan_, dy, 2, flat), TW_NONE);
        ASSERT_EQ(tw_plan_backward(plan_, loss, 1.0), TW_OK) << tw_context_error(ctx_);
        ASSERT_EQ(tw_plan_compile(plan_), TW_OK) << tw_context_error(ctx_);
        for (size_t i = 0; i < values_.size(); i++) Write(values_[i], case_.inputs[i]);
        Write(dy, case_.dy);
        for (tw_value v : identities_) WriteIdentity(v);
        ASSERT_EQ(tw_plan_run(plan_), TW_OK) << tw_context_error(ctx_);
        output_ = Read(y, case_.dy);
        for (size_t i = 0; i < values_.size(); i++)
            gradients_.push_back(Read(tw_plan_gradient(plan_, values_[i]), case_.inputs[i]));
    }

    const std::vector<Real> &Output() const { return output_; }
    const std::vector<Real> &Gradient(size_t i) const { return gradients_.at(i); }
    int Launches(const char *provider) const { return tw_plan_provider_launches(plan_, provider); }

  private:
    // What is learned in a network is a parameter here, so that both ways to a gradient are used.
    tw_value Declare(const Input &x) {
        const Shape shape = x.PlanShape();
        const int rank = static_cast<int>(shape.size());
        const std::set<std::string> learned = {"w", "b", "gamma", "beta"};
        if (learned.count(x.name))
            return tw_plan_parameter(plan_, x.name.c_str(), rank, shape.data());
        const tw_value v = tw_plan_input(plan_, x.name.c_str(), kDtype<Real>, rank, shape.data());
        if (x.grad) tw_plan_want_gradient(plan_, v);
        return v;
    }

    tw_value At(const char *name) const {
        for (size_t i = 0; i < values_.size(); i++)
            if (case_.inputs[i].name == name) return values_[i];
        return TW_NONE;
    }

    tw_value Build() {
        const std::string &op = case_.op;
        const tw_value x = At("x");
        if (op == "conv2d") {
            const tw_conv_options options = {case_.Int("stride"), case_.Int("pad_top"),
                                             case_.Int("pad_left"), case_.Int("pad_bottom"),
                                             case_.Int("pad_right")};
            return tw_plan_conv2d(plan_, x, At("w"), At("b"), options);
        }
        if (op == "group_norm") return BuildNorm();
        if (op == "silu") return tw_plan_activation(plan_, x, TW_SILU);
        if (op == "gelu") return tw_plan_activation(plan_, x, TW_GELU);
        if (op == "relu") return tw_plan_activation(plan_, x, TW_RELU);
        if (op == "attention")
            return tw_plan_attention(plan_, At("q"), At("k"), At("v"), TW_NONE, case_.Int("heads"),
                                     0);
        if (op == "upsample_nearest") return tw_plan_upsample_nearest(plan_, x, 2);
        if (op == "avg_pool") return tw_plan_average_pool(plan_, x, 2);
        if (op == "linear") return tw_plan_linear(plan_, x, At("w"), At("b"));
        if (op == "mse") return tw_plan_mse(plan_, x, At("target"), TW_NONE, nullptr);
        if (op == "softmax") return BuildSoftmax();
        ADD_FAILURE() << "the golden's operation " << op << " is not known here";
        return TW_NONE;
    }

    tw_value BuildNorm() {
        tw_value both = TW_NONE;
        if (json_is_true(golden::At(case_.row, "scale_shift"))) {
            const tw_value parts[2] = {At("s"), At("t")};
            both = tw_plan_concat(plan_, parts, 2);
        }
        const tw_norm_options options = {case_.Int("groups"), golden::Number(case_.row, "eps"),
                                         golden::Text(case_.row, "act") == "silu"};
        return tw_plan_group_norm(plan_, At("x"), At("gamma"), At("beta"), both, options);
    }

    // Attention of one query whose keys and values are the unit vectors.
    tw_value BuildSoftmax() {
        const Shape &s = case_.inputs[0].shape;
        const int64_t row[3] = {s[0], 1, s[1]}, unit[3] = {s[0], s[1], s[1]};
        const tw_value e = tw_plan_input(plan_, "identity", kDtype<Real>, 3, unit);
        identities_.push_back(e);
        const tw_value q = tw_plan_reshape(plan_, At("x"), 3, row);
        const tw_value y = tw_plan_attention(plan_, q, e, e, TW_NONE, 1, 1.0);
        return tw_plan_reshape(plan_, y, 2, s.data());
    }

    void Write(tw_value v, const Input &x) {
        const std::vector<float> values = x.Values(case_.name);
        std::vector<Real> host(values.size());
        for (size_t i = 0; i < host.size(); i++) host[x.PlanIndex(i)] = values[i];
        ASSERT_EQ(tw_plan_write(plan_, v, host.data(), host.size() * sizeof(Real)), TW_OK)
            << tw_context_error(ctx_);
    }
    void WriteIdentity(tw_value v) {
        int64_t s[TW_MAX_RANK];
        ASSERT_EQ(tw_plan_shape(plan_, v, s), 3);
        std::vector<Real> host(static_cast<size_t>(s[0] * s[1] * s[2]), 0);
        for (int64_t i = 0; i < s[0] * s[1]; i++)
            host[static_cast<size_t>(i * s[2] + i % s[1])] = 1;
        ASSERT_EQ(tw_plan_write(plan_, v, host.data(), host.size() * sizeof(Real)), TW_OK);
    }
    std::vector<Real> Read(tw_value v, const Input &x) {
        std::vector<Real> host(static_cast<size_t>(golden::Count(x.shape)), NAN), out(host);
        EXPECT_EQ(tw_plan_read(plan_, v, host.data(), host.size() * sizeof(Real)), TW_OK)
            << x.name << ": " << tw_context_error(ctx_);
        for (size_t i = 0; i < out.size(); i++) out[i] = host[x.PlanIndex(i)];
        return out;
    }

    tw_context *ctx_;
    const Case &case_;
    tw_plan *plan_ = nullptr;
    std::vector<tw_value> values_, identities_;
    std::vector<Real> output_;
    std::vector<std::vector<Real>> gradients_;
};

class OpsGolden : public testing::TestWithParam<const char *> {
  protected:
    void SetUp() override {
        root_ = golden::Load("ops.json");
        ASSERT_NE(root_, nullptr);
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.device = TW_DEVICE_CPU;
        options.provider = GetParam();
        options.poison = 1;
        ASSERT_EQ(tw_context_create(&options, &ctx_), TW_OK) << tw_context_error(nullptr);
    }
    void TearDown() override { tw_context_free(ctx_); }

    // `whole`: the norm of all gradients, which says what rounding is when a gradient vanishes.
    template <class Real>
    void Expect(const std::string &what, const std::vector<Real> &got, const json_t *want,
                double bound, double whole) {
        const golden::Difference d = golden::Compare(got, want);
        double entry = bound * d.rms, norm = bound * d.golden_norm;
        if (d.golden_norm < 1e-12 * whole) entry = norm = bound * whole;
        EXPECT_LE(d.entry, entry) << what << "[" << d.at << "], rms " << d.rms;
        EXPECT_LE(d.norm, norm) << what << ": norm " << d.golden_norm;
    }

    template <class Real> void CheckAll() {
        const json_t *rows = golden::At(root_.get(), "cases");
        size_t checked = 0;
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const Case c(json_array_get(rows, i));
            if (c.op == "mish") continue; // an activation that this library does not have
            SCOPED_TRACE(c.name);
            Plan<Real> plan(ctx_, c);
            ASSERT_NO_FATAL_FAILURE(plan.Run());
            const double bound = Bound<Real>(c);
            double whole = 0;
            for (const Input &x : c.inputs)
                whole = std::hypot(whole, golden::Number(x.grad, "norm"));
            Expect("output", plan.Output(), golden::At(c.row, "output"), bound, whole);
            for (size_t k = 0; k < c.inputs.size(); k++)
                Expect("gradient of " + c.inputs[k].name, plan.Gradient(k), c.inputs[k].grad, bound,
                       whole);
            for (int p = 0; tw_context_provider(ctx_, p); p++)
                launches_[p] += plan.Launches(tw_context_provider(ctx_, p));
            checked++;
        }
        EXPECT_GE(checked, 32u);
    }

    golden::Json root_{nullptr, json_decref};
    tw_context *ctx_ = nullptr;
    int launches_[8] = {0};
};

// The sinusoidal embedding. Angles reach 1000, so a table or an angle in float32 would be off by
// 1e-5; numbers of at most 1 are held to `bound`.
template <class Real> void CheckTimeEmbedding(tw_context *ctx, const json_t *row, double bound) {
    std::vector<Real> t;
    const json_t *times = golden::At(row, "t"), *values = golden::At(row, "values");
    for (size_t i = 0; i < json_array_size(times); i++)
        t.push_back(static_cast<Real>(json_number_value(json_array_get(times, i))));
    const int64_t n = static_cast<int64_t>(t.size()), dim = golden::Whole(row, "dim");
    const size_t stride = static_cast<size_t>(golden::Whole(row, "stride"));
    const tw_time_options how = {golden::Number(row, "freq_shift"), 1, 10000,
                                 json_is_true(golden::At(row, "flip_sin_to_cos")), 0};
    tw_plan_options options = TW_PLAN_OPTIONS_INIT;
    options.precision = kDtype<Real>;
    tw_plan *plan = nullptr;
    ASSERT_EQ(tw_plan_create(ctx, &options, &plan), TW_OK);
    const tw_value in = tw_plan_input(plan, "t", kDtype<Real>, 1, &n);
    const tw_value y = tw_plan_time_embedding(plan, in, dim, how);
    tw_plan_keep(plan, y);
    std::vector<Real> got(static_cast<size_t>(n * dim), NAN);
    EXPECT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
    EXPECT_EQ(tw_plan_write(plan, in, t.data(), t.size() * sizeof(Real)), TW_OK);
    EXPECT_EQ(tw_plan_run(plan), TW_OK) << tw_context_error(ctx);
    EXPECT_EQ(tw_plan_read(plan, y, got.data(), got.size() * sizeof(Real)), TW_OK);
    tw_plan_free(plan);
    ASSERT_EQ(json_array_size(values), t.size());
    for (size_t i = 0; i < t.size(); i++) {
        const json_t *wanted = json_array_get(values, i);
        const size_t count = json_array_size(wanted);
        ASSERT_EQ(count, (static_cast<size_t>(dim) + stride - 1) / stride);
        for (size_t k = 0; k < count; k++) {
            const double want = json_number_value(json_array_get(wanted, k));
            const size_t at = i * static_cast<size_t>(dim) + k * stride;
            EXPECT_LE(std::abs(static_cast<double>(got[at]) - want), bound)
                << "dim " << dim << ", t " << t[i] << ", entry " << k * stride;
        }
    }
}

TEST_P(OpsGolden, TimeEmbedding) {
    const json_t *rows = golden::At(root_.get(), "time_embedding");
    ASSERT_GE(json_array_size(rows), 6u);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        CheckTimeEmbedding<float>(ctx_, json_array_get(rows, i), 0x1p-24);
        CheckTimeEmbedding<double>(ctx_, json_array_get(rows, i), 1e-12);
    }
}

TEST_P(OpsGolden, InFloat) {
    CheckAll<float>();
    // Every provider that the context has was used.
    for (int p = 0; tw_context_provider(ctx_, p); p++)
        EXPECT_GT(launches_[p], 0) << tw_context_provider(ctx_, p);
}

TEST_P(OpsGolden, InDouble) {
    CheckAll<double>();
}

INSTANTIATE_TEST_SUITE_P(Providers, OpsGolden, testing::Values("cpu-reference", "auto"),
                         [](const auto &info) {
                             return std::string(info.param) == "auto" ? "Auto" : "Reference";
                         });

} // namespace
