// AdamW, clipping by the global norm and the EMA with warm-up against PyTorch's float64: ten steps
// of a small regression, every value of every step. See README.md here and the rules in optim.json.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "support/golden.h"

extern "C" {
#include "graph/builder.h"
}

namespace {

template <class Real> constexpr tw_dtype kDtype = sizeof(Real) == 8 ? TW_F64 : TW_F32;
constexpr int64_t kRows = 8, kIn = 3, kOut = 4, kWeights = kIn * kOut, kAll = kWeights + kOut;

#define PLAN_OK(call) ASSERT_EQ(call, TW_OK) << tw_context_error(ctx_)

template <class Real> class Plan {
  public:
    explicit Plan(tw_context *ctx) : ctx_(ctx) {
        tw_plan_options options = TW_PLAN_OPTIONS_INIT;
        options.precision = kDtype<Real>;
        EXPECT_EQ(tw_plan_create(ctx, &options, &plan_), TW_OK) << tw_context_error(ctx);
    }
    ~Plan() { tw_plan_free(plan_); }
    Plan(const Plan &) = delete;
    tw_plan *get() const { return plan_; }
    tw_value State(const char *name, int64_t count) {
        return tw_plan_state(plan_, name, kDtype<Real>, 1, &count);
    }
    template <class Host> void Write(tw_value v, const std::vector<Host> &host) {
        PLAN_OK(tw_plan_write(plan_, v, host.data(), host.size() * sizeof(Host)));
    }
    template <class Host = Real> std::vector<Host> Read(tw_value v, int64_t count) {
        std::vector<Host> host(static_cast<size_t>(count), std::numeric_limits<Host>::quiet_NaN());
        EXPECT_EQ(tw_plan_read(plan_, v, host.data(), host.size() * sizeof(Host)), TW_OK)
            << tw_context_error(ctx_);
        return host;
    }
    void Compile() { PLAN_OK(tw_plan_compile(plan_)); }
    void Run() { PLAN_OK(tw_plan_run(plan_)); }

  private:
    tw_context *ctx_;
    tw_plan *plan_ = nullptr;
};

// Loss and gradient of mean((X W^T + b - Y)^2); all values as one vector [W, b].
template <class Real> class Regression {
  public:
    explicit Regression(tw_context *ctx) : plan_(ctx) {
        tw_plan *p = plan_.get();
        const int64_t xs[] = {kRows, kIn}, ys[] = {kRows, kOut}, ws[] = {kOut, kIn}, bs[] = {kOut};
        const tw_value x = tw_plan_input(p, "x", kDtype<Real>, 2, xs);
        const tw_value y = tw_plan_input(p, "y", kDtype<Real>, 2, ys);
        w_ = tw_plan_input(p, "w", kDtype<Real>, 2, ws);
        b_ = tw_plan_input(p, "b", kDtype<Real>, 1, bs);
        tw_plan_want_gradient(p, w_);
        tw_plan_want_gradient(p, b_);
        loss_ = tw_plan_mse(p, tw_plan_linear(p, x, w_, b_), y, TW_NONE, nullptr);
        tw_plan_keep(p, loss_);
        EXPECT_EQ(tw_plan_backward(p, loss_, 1), TW_OK) << tw_context_error(ctx);
        plan_.Compile();
        Fill(x, "optim.x", golden::kInput, kRows * kIn);
        Fill(y, "optim.y", golden::kTarget, kRows * kOut);
    }
    std::vector<Real> Gradient(const std::vector<Real> &parameters) {
        const auto middle = parameters.begin() + kWeights;
        plan_.Write(w_, std::vector<Real>(parameters.begin(), middle));
        plan_.Write(b_, std::vector<Real>(middle, parameters.end()));
        plan_.Run();
        std::vector<Real> g = plan_.Read(tw_plan_gradient(plan_.get(), w_), kWeights);
        const std::vector<Real> gb = plan_.Read(tw_plan_gradient(plan_.get(), b_), kOut);
        g.insert(g.end(), gb.begin(), gb.end());
        return g;
    }
    std::vector<Real> Loss() { return plan_.Read(loss_, 1); }

  private:
    void Fill(tw_value v, const char *name, uint32_t step, int64_t count) {
        std::vector<float> z(static_cast<size_t>(count));
        golden::Normals(golden::kSeed, tw_name_hash(name), TW_PURPOSE_GOLDEN, step, count,
                        z.data());
        plan_.Write(v, std::vector<Real>(z.begin(), z.end()));
    }
    Plan<Real> plan_;
    tw_value w_, b_, loss_;
};

// One update by the operations under test.
template <class Real> class Optimizer {
  public:
    explicit Optimizer(tw_context *ctx, const std::vector<Real> &parameters) : plan_(ctx) {
        tw_plan *plan = plan_.get();
        const int64_t all = kAll, columns = TW_HYPER_COUNT, two = 2;
        g_ = tw_plan_input(plan, "g", kDtype<Real>, 1, &all);
        hyper_ = tw_plan_input(plan, "hyper", kDtype<Real>, 1, &columns);
        p = plan_.State("p", kAll);
        m = plan_.State("m", kAll);
        v = plan_.State("v", kAll);
        ema = plan_.State("ema", kAll);
        count_ = tw_plan_state(plan, "count", TW_I64, 1, &two);
        norm_ = tw_build_global_norm(plan, g_);
        tw_plan_keep(plan, norm_);
        tw_build_adamw(plan, g_, norm_, hyper_, p, m, v, count_, ema, TW_NONE);
        plan_.Compile();
        const std::vector<Real> zero(static_cast<size_t>(kAll), 0);
        plan_.Write(p, parameters);
        plan_.Write(ema, parameters);
        plan_.Write(m, zero);
        plan_.Write(v, zero);
        plan_.Write(count_, std::vector<int64_t>(2, 0));
    }
    void Step(const std::vector<Real> &gradient, const std::vector<Real> &hyper) {
        plan_.Write(g_, gradient);
        plan_.Write(hyper_, hyper);
        plan_.Run();
    }
    std::vector<Real> Read(tw_value state) { return plan_.Read(state, kAll); }
    std::vector<Real> Norm() { return plan_.Read(norm_, 1); }
    std::vector<int64_t> Count() { return plan_.template Read<int64_t>(count_, 2); }
    tw_value p, m, v, ema;

  private:
    Plan<Real> plan_;
    tw_value g_, hyper_, norm_, count_;
};

// Shares of |want| + the tensor's largest entry.
struct Bounds {
    double value, v;
};

class OptimGolden : public testing::TestWithParam<const char *> {
  protected:
    void SetUp() override {
        root_ = golden::Load("optim.json");
        ASSERT_NE(root_, nullptr);
        const json_t *cases = golden::At(root_.get(), "cases");
        for (size_t i = 0; i < json_array_size(cases); i++)
            if (golden::Text(json_array_get(cases, i), "name") == GetParam())
                case_ = json_array_get(cases, i);
        ASSERT_NE(case_, nullptr);
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.device = TW_DEVICE_CPU;
        options.poison = 1;
        ASSERT_EQ(tw_context_create(&options, &ctx_), TW_OK) << tw_context_error(nullptr);
    }
    void TearDown() override { tw_context_free(ctx_); }

    // PyTorch clips to max_norm / (norm + 1e-6), this library to clip / norm: the same factor when
    // clip = max_norm norm / (norm + 1e-6).
    std::vector<double> Hyper(double norm, bool as_pytorch) const {
        const json_t *betas = golden::At(case_, "betas");
        std::vector<double> h(TW_HYPER_COUNT, NAN);
        h[TW_HYPER_LR] = golden::Number(case_, "lr");
        h[TW_HYPER_BETA1] = json_number_value(json_array_get(betas, 0));
        h[TW_HYPER_BETA2] = json_number_value(json_array_get(betas, 1));
        h[TW_HYPER_EPS] = golden::Number(case_, "eps");
        h[TW_HYPER_DECAY] = golden::Number(case_, "weight_decay");
        h[TW_HYPER_CLIP] = golden::Number(case_, "max_norm");
        h[TW_HYPER_EMA_DECAY] = golden::Number(case_, "ema_decay");
        h[TW_HYPER_EMA_WARMUP] = 1;
        if (as_pytorch) h[TW_HYPER_CLIP] *= norm / (norm + 1e-6);
        return h;
    }

    static std::vector<double> Flat(const json_t *value) {
        if (json_is_number(value)) return {json_number_value(value)};
        std::vector<double> flat;
        for (size_t i = 0; i < json_array_size(value); i++)
            for (double v : Flat(json_array_get(value, i))) flat.push_back(v);
        return flat;
    }

    template <class Real>
    void Expect(const char *what, const std::vector<Real> &got, const json_t *row, double bound) {
        const std::vector<double> want = Flat(golden::At(row, what));
        ASSERT_EQ(want.size(), got.size()) << what;
        double largest = 0;
        for (double w : want) largest = std::max(largest, std::abs(w));
        for (size_t i = 0; i < want.size(); i++)
            EXPECT_LE(std::abs(static_cast<double>(got[i]) - want[i]),
                      bound * (std::abs(want[i]) + largest))
                << what << "[" << i << "]: got " << got[i] << ", expected " << want[i];
    }

    template <class Real> void Check(const Bounds &bounds, bool as_pytorch) {
        std::vector<Real> parameters;
        for (float w : golden::Parameter("optim.w", {kOut, kIn}, "weight")) parameters.push_back(w);
        for (float b : golden::Parameter("optim.b", {kOut}, "bias")) parameters.push_back(b);
        Regression<Real> problem(ctx_);
        Optimizer<Real> optimizer(ctx_, parameters);
        const json_t *steps = golden::At(case_, "steps");
        ASSERT_EQ(json_array_size(steps), 10u);
        for (size_t k = 0; k < 10; k++) {
            SCOPED_TRACE("step " + std::to_string(k));
            const json_t *row = json_array_get(steps, k);
            const std::vector<Real> gradient = problem.Gradient(optimizer.Read(optimizer.p));
            double square = 0;
            for (Real g : gradient) square += static_cast<double>(g) * static_cast<double>(g);
            const std::vector<double> hyper = Hyper(std::sqrt(square), as_pytorch);
            optimizer.Step(gradient, std::vector<Real>(hyper.begin(), hyper.end()));
            Expect("loss", problem.Loss(), row, bounds.value);
            Expect("grad", gradient, row, bounds.value);
            Expect("grad_norm", optimizer.Norm(), row, bounds.value);
            Expect("param", optimizer.Read(optimizer.p), row, bounds.value);
            Expect("m", optimizer.Read(optimizer.m), row, bounds.value);
            Expect("v", optimizer.Read(optimizer.v), row, bounds.v);
            Expect("ema", optimizer.Read(optimizer.ema), row, bounds.value);
            const std::vector<int64_t> count = {static_cast<int64_t>(k) + 1, 0};
            EXPECT_EQ(optimizer.Count(), count);
        }
    }

    golden::Json root_{nullptr, json_decref};
    const json_t *case_ = nullptr;
    tw_context *ctx_ = nullptr;
};

TEST_P(OptimGolden, InDouble) {
    Check<double>({1e-13, 1e-13}, true);
}

// 1 - beta2 of a float32 beta2 is off by up to 2^-25 / (1 - beta2): v has that error, which the
// correction of its bias takes out of the step.
TEST_P(OptimGolden, InFloat) {
    const double beta2 = Hyper(1, true)[TW_HYPER_BETA2], rounding = 0x1p-24;
    Check<float>({32 * rounding, (32 + 0.5 / (1 - beta2)) * rounding}, true);
}

// With clip = max_norm itself only the 1e-6 of PyTorch's divisor is between the two.
TEST_P(OptimGolden, ClippingDiffersByPyTorchsEpsilonAlone) {
    Check<double>({4e-6, 4e-6}, false);
}

INSTANTIATE_TEST_SUITE_P(Cases, OptimGolden, testing::Values("plain", "decay_clip"),
                         [](const auto &info) { return std::string(info.param); });

} // namespace
