// The UNet against diffusers' UNet2DModel in PyTorch's float64, on any device: output, loss, the
// gradient of the input and of every parameter, and ten DDIM steps from the same noise. See
// tests/golden/README.md for the goldens' rule.
#ifndef TW_TEST_UNET_GOLDEN_H
#define TW_TEST_UNET_GOLDEN_H

#include <cmath>
#include <string>
#include <vector>

#include "support/golden.h"
#include "support/network.h"

extern "C" {
#include "diffusion/scheduler_config.h"
}

namespace unet_golden {

struct Bounds {
    double output;              // relative to max(|entry|, rms)
    double gradient;            // relative to max(own norm, 1e-6 of the global norm)
    double cancelled = 0x1p-24; // of what should be zero, relative to the global norm
};

inline std::string Share(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.1e", value);
    return text;
}

class UnetGolden : public testing::TestWithParam<const char *> {
  protected:
    explicit UnetGolden(tw_device device = TW_DEVICE_CPU) : m_(0, device) {}
    void SetUp() override {
        root_ = golden::Load(std::string("model_") + GetParam() + ".json");
        ASSERT_NE(root_, nullptr);
    }

    void Create(const char *scheduler) {
        const std::string config = golden::Dump(golden::At(root_.get(), "config"));
        tw_model_free(m_.model);
        m_.model = nullptr;
        NET_OK(m_.ctx,
               tw_model_create(m_.ctx, config.c_str(), scheduler, nullptr, 0, 1, &m_.model));
        SetWeights();
    }

    // Also checks that the model has the golden's tensors and no other.
    void SetWeights() {
        const json_t *rows = golden::At(root_.get(), "gradients");
        ASSERT_EQ(m_.Info().parameters, golden::Whole(root_.get(), "parameters"));
        ASSERT_EQ(m_.Info().tensors, golden::Whole(root_.get(), "tensors"));
        ASSERT_EQ(static_cast<size_t>(m_.Info().tensors), json_array_size(rows));
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const std::string name = golden::Text(row, "name");
            const std::vector<int64_t> want = golden::Shape(golden::At(row, "shape"));
            const int64_t at = tw_weights_find(&m_.model->weights, name.c_str());
            ASSERT_GE(at, 0) << name;
            int64_t shape[TW_MAX_RANK];
            const int rank = tw_weight_file_shape(&m_.model->weights.items[at], shape);
            ASSERT_EQ(std::vector<int64_t>(shape, shape + rank), want) << name;
            const auto value = golden::Parameter(name, want, golden::Text(row, "kind"));
            NET_OK(m_.ctx, tw_model_set_weight(m_.model, name.c_str(), value.data(),
                                               static_cast<int64_t>(value.size())));
        }
    }

    network::Labels ReadLabels(int64_t n) {
        network::Labels labels;
        const json_t *given = golden::At(root_.get(), "class_labels");
        if (json_is_string(given)) { // vectors: as many numbers as the time embedding has
            const int64_t at = tw_weights_find(&m_.model->weights, "time_embedding.linear_2.bias");
            labels.width = m_.model->weights.items[at].count;
            labels.real = golden::Batch(n, labels.width, golden::kLabel);
        }
        for (size_t i = 0; json_is_array(given) && i < json_array_size(given); i++) {
            const json_t *label = json_array_get(given, i);
            if (json_is_integer(label))
                labels.whole.push_back(static_cast<int32_t>(json_integer_value(label)));
            else
                labels.real.push_back(static_cast<float>(json_number_value(label)));
        }
        return labels;
    }

    template <class Real>
    void Check(const Bounds &bounds, tw_precision precision = TW_PRECISION_F32) {
        ASSERT_NO_FATAL_FAILURE(Create(nullptr));
        const json_t *input = golden::At(root_.get(), "input");
        const int64_t n = golden::Whole(input, "batch");
        const int64_t pixels = golden::Whole(input, "height") * golden::Whole(input, "width");
        const json_t *times = golden::At(root_.get(), "timesteps");
        std::vector<double> t;
        for (size_t i = 0; i < json_array_size(times); i++)
            t.push_back(json_number_value(json_array_get(times, i)));
        network::Run<Real> run(&m_, n, precision);
        ASSERT_NO_FATAL_FAILURE(run.Prepare(ReadLabels(n)));
        const auto x = golden::Batch(n, pixels * golden::Whole(input, "channels"), golden::kInput);
        const auto target = golden::Batch(n, pixels * m_.Info().out_channels, golden::kTarget);
        ASSERT_NO_FATAL_FAILURE(run.Execute(run.Weights(), x, t, target));
        CheckTensor("output", run.Output(), golden::At(root_.get(), "output"), bounds.output);
        CheckTensor("grad_input", run.InputGradient(), golden::At(root_.get(), "grad_input"),
                    bounds.gradient);
        const double loss = golden::Number(root_.get(), "loss");
        EXPECT_NEAR(run.Loss(), loss, bounds.output * loss);
        CheckGradients(run.Gradients(), bounds);
    }

    template <class Real>
    void CheckTensor(const char *what, const std::vector<Real> &got, const json_t *want,
                     double bound) {
        const golden::Difference d = golden::Compare(got, want);
        EXPECT_LE(d.entry, bound * d.rms) << what << "[" << d.at << "]";
        EXPECT_LE(d.norm, bound * d.golden_norm) << what;
        RecordProperty(what, Share(d.entry / d.rms));
    }

    template <class Real> void CheckGradients(const std::vector<Real> &flat, const Bounds &bounds) {
        const json_t *rows = golden::At(root_.get(), "gradients");
        const double global = golden::Number(root_.get(), "grad_norm"), floor = 1e-6 * global;
        double worst = 0;
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *row = json_array_get(rows, i);
            const std::string name = golden::Text(row, "name");
            const tw_weight &w =
                m_.model->weights.items[tw_weights_find(&m_.model->weights, name.c_str())];
            std::vector<Real> file(static_cast<size_t>(w.count));
            for (int64_t k = 0; k < w.count; k++)
                file[static_cast<size_t>(k)] =
                    flat[static_cast<size_t>(w.offset + network::PlanIndex(w, k))];
            const json_t *fixed = json_object_get(row, "trainable");
            EXPECT_EQ(w.trainable, fixed == nullptr) << name;
            if (fixed) continue;
            const golden::Difference d = golden::Compare(file, row);
            double allowed = bounds.gradient * std::max(d.golden_norm, floor);
            // A gradient that is zero by symmetry (a key's bias; a bias before a norm of one
            // channel a group) is a sum that cancels: rounding is all that is left of it.
            if (d.golden_norm < 1e-12 * global) allowed = bounds.cancelled * global;
            EXPECT_LE(d.norm, allowed) << name << ": norm " << d.golden_norm;
            EXPECT_LE(d.entry, allowed) << name << "[" << d.at << "]";
            worst = std::max(worst, std::max(d.norm, d.entry) / allowed);
        }
        RecordProperty("gradients_of_bound", Share(worst));
    }

    golden::Json root_{nullptr, json_decref};
    network::Model m_;
};

class UnetSampling : public UnetGolden {
  protected:
    explicit UnetSampling(tw_device device = TW_DEVICE_CPU) : UnetGolden(device) {}
    // Ten steps of DDIM as the run's scheduler config says.
    void Sample(const json_t *run) {
        const std::string text = golden::Dump(golden::At(run, "scheduler"));
        ASSERT_NO_FATAL_FAILURE(Create(text.c_str()));
        tw_scheduler_config config;
        NET_OK(m_.ctx, tw_scheduler_config_parse(m_.ctx, text.c_str(), "scheduler", &config));
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        options.steps = golden::Whole(run, "steps");
        options.eta = golden::Number(run, "eta");
        options.rederive_epsilon = json_is_true(golden::At(run, "use_clipped_model_output"));
        options.seed = static_cast<uint64_t>(golden::Whole(run, "seed"));
        options.spacing = config.spacing;
        options.steps_offset = config.steps_offset;
        options.set_alpha_to_one = config.set_alpha_to_one;
        options.want_x = 1;
        options.hook = [](void *user, const tw_step_info *info) {
            static_cast<UnetSampling *>(user)->Note(*info);
            return 0;
        };
        options.hook_user = this;
        tw_scheduler_config_free(m_.ctx, &config);
        elements_ = m_.Info().shape[0] * m_.Info().shape[1] * m_.Info().shape[2];
        norms_.clear();
        tw_sampler *sampler = nullptr;
        NET_OK(m_.ctx, tw_sampler_create(m_.model, &options, &sampler));
        const int64_t n = golden::Whole(golden::At(root_.get(), "input"), "batch");
        const network::Labels labels = ReadLabels(n);
        std::vector<float> x(static_cast<size_t>(n * elements_), NAN);
        EXPECT_EQ(tw_sampler_run(sampler, n, labels.whole.empty() ? nullptr : labels.whole.data(),
                                 nullptr, x.data()),
                  TW_OK)
            << tw_context_error(m_.ctx);
        CheckSteps(sampler, run);
        tw_sampler_free(sampler);
        // Single entries get the room that ten steps need to let one evaluation's rounding grow.
        const golden::Difference d = golden::Compare(x, golden::At(run, "x"));
        EXPECT_LE(d.mean, 1e-4 * d.rms);
        EXPECT_LE(d.norm, 1e-4 * d.golden_norm);
        const double growth = std::max(1.0, golden::Number(run, "error_growth"));
        EXPECT_LE(d.entry, (1e-4 + 1e-5 * growth) * d.rms) << "x[" << d.at << "]";
    }

  private:
    void Note(const tw_step_info &info) {
        double sum = 0;
        for (int64_t i = 0; i < info.count * elements_; i++)
            sum += static_cast<double>(info.x[i]) * static_cast<double>(info.x[i]);
        norms_.push_back(std::sqrt(sum));
    }
    void CheckSteps(tw_sampler *sampler, const json_t *run) {
        int64_t count = 0;
        const int64_t *t = tw_sampler_timesteps(sampler, &count);
        EXPECT_EQ(std::vector<int64_t>(t, t + count), golden::Shape(golden::At(run, "timesteps")));
        const json_t *want = golden::At(run, "step_norms");
        ASSERT_EQ(norms_.size(), json_array_size(want));
        for (size_t i = 0; i < norms_.size(); i++) {
            const double norm = json_number_value(json_array_get(want, i));
            EXPECT_NEAR(norms_[i], norm, 1e-4 * norm) << "step " << i;
        }
    }

    int64_t elements_ = 0;
    std::vector<double> norms_;
};

} // namespace unet_golden

#endif
