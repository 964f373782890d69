// The denoiser for points: its numbers against the formula, its configuration, its derivatives.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/network.h"

namespace {

const char *const kConfig = R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 16,
                                "layers": 3, "act_fn": "silu", "num_class_embeds": 3})";

class Mlp : public testing::Test {
  protected:
    void Create(const char *config) {
        NET_OK(m_.ctx, tw_model_create(m_.ctx, config, nullptr, nullptr, 0, 11, &m_.model));
    }
    std::vector<double> Weight(const std::string &name) {
        const int64_t at = tw_weights_find(&m_.model->weights, name.c_str());
        if (at < 0) {
            ADD_FAILURE() << name;
            return {};
        }
        std::vector<float> value(static_cast<size_t>(m_.model->weights.items[at].count), NAN);
        EXPECT_EQ(tw_model_get_weight(m_.model, name.c_str(), value.data(),
                                      static_cast<int64_t>(value.size())),
                  TW_OK);
        return std::vector<double>(value.begin(), value.end());
    }
    std::vector<double> Linear(const std::string &name, const std::vector<double> &x) {
        const auto w = Weight(name + ".weight"), b = Weight(name + ".bias");
        std::vector<double> y = b;
        for (size_t o = 0; o < y.size(); o++)
            for (size_t i = 0; i < x.size(); i++) y[o] += w[o * x.size() + i] * x[i];
        return y;
    }
    network::Model m_;
};

TEST_F(Mlp, FollowsTheFormula) {
    Create(kConfig);
    const float x[] = {0.5f, -1.25f, 2.0f, 0.125f}, t[] = {3.0f, 812.0f};
    const int32_t labels[] = {2, 0};
    float out[4] = {NAN, NAN, NAN, NAN};
    NET_OK(m_.ctx, tw_model_forward(m_.model, 2, x, t, labels, out));
    for (size_t n = 0; n < 2; n++) {
        std::vector<double> time(16),
            h = {static_cast<double>(x[2 * n]), static_cast<double>(x[2 * n + 1])};
        const auto table = Weight("class_embedding.weight");
        for (size_t i = 0; i < 16; i++) {
            const double f = std::exp(-std::log(10000.0) * static_cast<double>(i % 8) / 8.0);
            const double angle = static_cast<double>(t[n]) * f;
            time[i] = (i < 8 ? std::sin(angle) : std::cos(angle)) +
                      table[static_cast<size_t>(labels[n]) * 16 + i];
        }
        for (int i = 0; i < 3; i++) {
            const std::string k = std::to_string(i);
            h = Linear("layers." + k, h);
            const auto e = Linear("time_embedding." + k, time);
            for (size_t j = 0; j < h.size(); j++) {
                const double u = h[j] + e[j];
                h[j] = u / (1.0 + std::exp(-u));
            }
        }
        h = Linear("output", h);
        for (size_t j = 0; j < 2; j++)
            EXPECT_NEAR(static_cast<double>(out[2 * n + j]), h[j], 2e-6) << n << "," << j;
    }
}

TEST_F(Mlp, SaysWhatItIs) {
    Create(R"({"_class_name": "TweedieMLP"})");
    const tw_model_info info = m_.Info();
    EXPECT_STREQ(info.kind, "TweedieMLP");
    EXPECT_EQ(info.rank, 1);
    EXPECT_EQ(info.shape[0], 2);
    EXPECT_EQ(info.out_channels, 2);
    EXPECT_EQ(info.classes, 0);
    const int64_t h = 128;
    EXPECT_EQ(info.parameters, (2 * h + h) + 2 * (h * h + h) + 3 * (h * h + h) + (2 * h + 2));
    EXPECT_EQ(info.training_steps, 1000);
    EXPECT_EQ(info.prediction, TW_PREDICT_EPSILON);
}

TEST_F(Mlp, DerivativesMatchDifferences) {
    Create(kConfig);
    const uint32_t seed = 4711;
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    network::Labels labels;
    labels.whole = {2, 0, 1};
    network::Run<double> run(&m_, 3);
    ASSERT_NO_FATAL_FAILURE(run.Prepare(labels));
    std::vector<float> x(6), target(6);
    for (float &v : x) v = normal(random);
    for (float &v : target) v = normal(random);
    const std::vector<double> t = {0.0, 17.0, 999.0};
    std::vector<double> weights = run.Weights();
    ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
    const auto slope = run.Gradients();
    for (int64_t i = 0; i < m_.model->weights.count; i++) {
        const tw_weight &w = m_.model->weights.items[i];
        for (int k = 0; k < 4; k++) {
            const size_t at =
                static_cast<size_t>(w.offset) + random() % static_cast<size_t>(w.count);
            const double kept = weights[at], h = 1e-5;
            weights[at] = kept + h;
            ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
            const double above = run.Loss();
            weights[at] = kept - h;
            ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
            EXPECT_NEAR((above - run.Loss()) / (2 * h), slope[at],
                        1e-6 * std::abs(slope[at]) + 1e-9)
                << w.name;
            weights[at] = kept;
        }
    }
}

TEST_F(Mlp, RefusesWhatItCannotBe) {
    const struct {
        const char *config, *says;
    } cases[] = {
        {R"({"_class_name": "TweedieMLP", "act_fn": "tanh"})",
         "config.json: act_fn: \"tanh\" is not supported; expected \"silu\", \"relu\" or \"gelu\""},
        {R"({"_class_name": "TweedieMLP", "hidden": 1})", "config.json: \"hidden\": expected"},
        {R"({"_class_name": "TweedieMLP", "layers": 65})", "config.json: \"layers\": expected"},
        {R"({"_class_name": "TweedieMLP", "in_features": 0})", "config.json: \"in_features\""},
        {R"({"_class_name": "UNet3DModel"})",
         "config.json: _class_name: \"UNet3DModel\" is not supported; expected \"UNet2DModel\" or "
         "\"TweedieMLP\""},
        {R"({"hidden": 8})", "config.json: \"_class_name\" is missing"},
        {R"([1])", "config.json: expected a JSON object"}};
    for (const auto &c : cases) {
        EXPECT_NE(tw_model_create(m_.ctx, c.config, nullptr, nullptr, 0, 1, &m_.model), TW_OK);
        EXPECT_EQ(m_.model, nullptr);
        const std::string error = tw_context_error(m_.ctx);
        EXPECT_EQ(error.substr(0, strlen(c.says)), c.says);
    }
}

} // namespace
