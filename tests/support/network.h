// A model's network with its loss and gradients in a plan of any precision.
#ifndef TW_TEST_NETWORK_H
#define TW_TEST_NETWORK_H

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "backend/backend.h"
#include "core/context.h"
#include "core/halfs.h"
#include "graph/internal.h"
#include "graph/precision.h"
#include "models/model.h"
#include "models/rounded.h"
#include "models/weights.h"
}

namespace network {

#define NET_OK(ctx, call) ASSERT_EQ(call, TW_OK) << tw_context_error(ctx)

struct Model {
    tw_context *ctx = nullptr;
    tw_model *model = nullptr;
    ~Model() {
        tw_model_free(model);
        tw_context_free(ctx);
    }
    explicit Model(int threads = 0, tw_device device = TW_DEVICE_CPU) {
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.device = device;
        options.poison = 1;
        options.threads = threads;
        EXPECT_EQ(tw_context_create(&options, &ctx), TW_OK) << tw_context_error(nullptr);
    }
    Model(const Model &) = delete;
    tw_model_info Info() const {
        tw_model_info info = {};
        info.size = sizeof info;
        EXPECT_EQ(tw_model_get_info(model, &info), TW_OK);
        return info;
    }
};

// Where the file's element i of a weight stands in the plan's layout.
inline int64_t PlanIndex(const tw_weight &w, int64_t i) {
    if (w.rank != 4) return i;
    const int64_t kh = w.shape[1], kw = w.shape[2], in = w.shape[3];
    const int64_t x = i % kw, y = i / kw % kh, c = i / (kw * kh) % in, o = i / (kw * kh * in);
    return ((o * kh + y) * kw + x) * in + c;
}

template <class Real> constexpr tw_dtype kDtype = sizeof(Real) == 8 ? TW_F64 : TW_F32;

// What the labels are: none, int32[n], or [n,...] of the plan's precision.
struct Labels {
    std::vector<int32_t> whole;
    std::vector<float> real; // n times `width` numbers
    int64_t width = 0;       // 0: [n]
};

template <class Real> class Run {
  public:
    Run(Model *owner, int64_t n, tw_precision precision = TW_PRECISION_F32)
        : owner_(owner), ctx_(owner->ctx), n_(n), precision_(precision) {}
    ~Run() {
        tw_plan_free(plan_);
        tw_rounded_free(ctx_, &rounded_);
        tw_free(ctx_, network_.parameters);
        ctx_->backend->release(ctx_->backend, base_);
        ctx_->backend->release(ctx_->backend, slope_);
    }
    Run(const Run &) = delete;

    // Builds the network, its mean squared error against a target, and the gradients.
    void Prepare(const Labels &labels) {
        const tw_model_info info = owner_->Info();
        tw_model *model = owner_->model;
        tw_plan_options options = TW_PLAN_OPTIONS_INIT;
        tw_precision_set(&options, precision_);
        if (sizeof(Real) == 8) options.precision = TW_F64;
        const tw_dtype format = options.precision;
        NET_OK(ctx_, tw_plan_create(ctx_, &options, &plan_));
        std::vector<int64_t> shape = {n_};
        for (int i = 0; i < info.rank; i++) shape.push_back(info.shape[i]);
        in_.x = tw_plan_input(plan_, "x", format, info.rank + 1, shape.data());
        in_.t = tw_plan_input(plan_, "t", kDtype<Real>, 1, &n_);
        in_.labels = in_.rng = TW_NONE;
        const int64_t wide[2] = {n_, labels.width};
        if (!labels.whole.empty()) in_.labels = tw_plan_input(plan_, "labels", TW_I32, 1, &n_);
        if (!labels.real.empty())
            in_.labels = tw_plan_input(plan_, "labels", labels.width ? format : kDtype<Real>,
                                       labels.width ? 2 : 1, wide);
        shape.back() = info.out_channels;
        target_ = tw_plan_input(plan_, "target", kDtype<Real>, info.rank + 1, shape.data());
        tw_plan_want_gradient(plan_, in_.x);
        NET_OK(ctx_, tw_model_build(model, plan_, &in_, &network_));
        loss_ = tw_plan_mse(plan_, network_.out, target_, TW_NONE, nullptr);
        NET_OK(ctx_, tw_plan_backward(plan_, loss_, 1.0));
        const tw_value kept[] = {network_.out, loss_, tw_plan_gradient(plan_, in_.x)};
        for (tw_value v : kept) tw_plan_keep(plan_, v);
        total_ = model->weights.total;
        NET_OK(ctx_, ctx_->backend->allocate(ctx_->backend, Bytes(), &base_));
        NET_OK(ctx_, ctx_->backend->allocate(ctx_->backend, Bytes(), &slope_));
        const tw_dtype rounded = sizeof(Real) == 8 ? TW_F32 : format; // double: none either
        NET_OK(ctx_, tw_rounded_make(model, rounded, base_, &rounded_));
        NET_OK(ctx_, tw_model_bind(model, plan_, &network_, base_, rounded_.weights, slope_));
        NET_OK(ctx_, tw_plan_compile(plan_));
        WriteLabels(labels);
    }

    // The flat vector of the model, converted.
    std::vector<Real> Weights() {
        std::vector<float> flat(static_cast<size_t>(total_));
        EXPECT_EQ(ctx_->backend->download(ctx_->backend, flat.data(), owner_->model->storage,
                                          flat.size() * sizeof(float)),
                  TW_OK);
        return std::vector<Real>(flat.begin(), flat.end());
    }

    void Execute(const std::vector<Real> &weights, const std::vector<float> &x,
                 const std::vector<double> &t, const std::vector<float> &target) {
        tw_backend *b = ctx_->backend;
        ASSERT_EQ(weights.size(), static_cast<size_t>(total_));
        NET_OK(ctx_, b->upload(b, base_, weights.data(), Bytes()));
        NET_OK(ctx_, tw_rounded_refresh(&rounded_));
        NET_OK(ctx_, b->fill(b, slope_, 0, Bytes()));
        Write(in_.x, x);
        Write(in_.t, t);
        Write(target_, target);
        NET_OK(ctx_, tw_plan_run(plan_));
    }

    double Loss() {
        Real loss = NAN;
        EXPECT_EQ(tw_plan_read(plan_, loss_, &loss, sizeof loss), TW_OK);
        return static_cast<double>(loss);
    }
    std::vector<Real> Output() { return Read(network_.out); }
    std::vector<Real> InputGradient() { return Read(tw_plan_gradient(plan_, in_.x)); }
    std::vector<Real> Gradients() {
        std::vector<Real> flat(static_cast<size_t>(total_), NAN);
        EXPECT_EQ(ctx_->backend->download(ctx_->backend, flat.data(), slope_, Bytes()), TW_OK);
        return flat;
    }

  private:
    size_t Bytes() const { return static_cast<size_t>(total_) * sizeof(Real); }
    tw_dtype Format(tw_value v) const { return tw_plan_desc(plan_, v)->dtype; }
    template <class Host> void Write(tw_value v, const std::vector<Host> &host) {
        const std::vector<Real> real(host.begin(), host.end());
        if (tw_dtype_size(Format(v)) == sizeof(Real)) {
            NET_OK(ctx_, tw_plan_write(plan_, v, real.data(), real.size() * sizeof(Real)));
            return;
        }
        std::vector<uint16_t> bits;
        for (Real x : real)
            bits.push_back(Format(v) == TW_BF16 ? tw_f32_to_bf16((float)x)
                                                : tw_f32_to_f16((float)x));
        NET_OK(ctx_, tw_plan_write(plan_, v, bits.data(), bits.size() * sizeof bits[0]));
    }
    void WriteLabels(const Labels &labels) {
        if (!labels.real.empty()) Write(in_.labels, labels.real);
        if (!labels.whole.empty()) {
            NET_OK(ctx_, tw_plan_write(plan_, in_.labels, labels.whole.data(),
                                       labels.whole.size() * sizeof(int32_t)));
        }
    }
    std::vector<Real> Read(tw_value v) {
        int64_t shape[TW_MAX_RANK], count = 1;
        const int rank = tw_plan_shape(plan_, v, shape);
        for (int i = 0; i < rank; i++) count *= shape[i];
        const auto n = static_cast<size_t>(count);
        std::vector<Real> out(n, NAN);
        std::vector<uint16_t> bits(n, 0xffff);
        const bool wide = tw_dtype_size(Format(v)) == sizeof(Real);
        void *const to = wide ? static_cast<void *>(out.data()) : bits.data();
        EXPECT_EQ(tw_plan_read(plan_, v, to, n * (wide ? sizeof(Real) : 2)), TW_OK)
            << tw_context_error(ctx_);
        for (size_t i = 0; i < n && !wide; i++)
            out[i] = Format(v) == TW_BF16 ? tw_bf16_to_f32(bits[i]) : tw_f16_to_f32(bits[i]);
        return out;
    }

    Model *owner_;
    tw_context *ctx_;
    int64_t n_, total_ = 0;
    tw_precision precision_;
    tw_rounded rounded_ = {};
    tw_plan *plan_ = nullptr;
    tw_network_inputs in_ = {};
    tw_network network_ = {};
    tw_value target_ = TW_NONE, loss_ = TW_NONE;
    void *base_ = nullptr, *slope_ = nullptr;
};

} // namespace network

#endif
