// Numbers that are not finite: which tensor is named, and that a step with them changes nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "graph/finite.h"
#include "train/internal.h"
}

namespace {

const float kInf = std::numeric_limits<float>::infinity();
const char *const kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
    "norm_num_groups": 4, "dropout": 0.1})";

class FiniteTest : public ::testing::Test {
  protected:
    void SetUp() override {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.threads = 1;
        o.poison = 1;
        ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK) << tw_context_error(nullptr);
        std::vector<float> x(40 * 64);
        for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.1f * float(i));
        const int64_t shape[] = {8, 8, 1};
        ASSERT_EQ(tw_dataset_from_memory(ctx, 40, 3, shape, x.data(), nullptr, &data), TW_OK);
        ASSERT_EQ(tw_model_create(ctx, kUnet, nullptr, nullptr, 0, 1, &model), TW_OK);
        tw_trainer_options options = TW_TRAINER_OPTIONS_INIT;
        options.batch_size = 4;
        options.accumulate = 2;
        ASSERT_EQ(tw_trainer_create(model, data, &options, &trainer), TW_OK);
    }
    void TearDown() override {
        tw_trainer_free(trainer);
        tw_model_free(model);
        tw_dataset_free(data);
        tw_context_free(ctx);
    }
    tw_train_metrics step() {
        tw_train_metrics m = {};
        m.size = sizeof m;
        EXPECT_EQ(tw_trainer_step(trainer, &m), TW_OK) << tw_context_error(ctx);
        return m;
    }
    std::string found() {
        char text[256];
        EXPECT_EQ(tw_trainer_find_not_finite(trainer, text, sizeof text), TW_OK)
            << tw_context_error(ctx);
        return text;
    }
    // The first number of a weight, which the plans read in place.
    float *weight(const char *name) {
        for (int64_t i = 0; i < model->weights.count; i++)
            if (std::string(model->weights.items[i].name) == name)
                return static_cast<float *>(model->storage) + model->weights.items[i].offset;
        ADD_FAILURE() << name;
        return nullptr;
    }
    std::vector<float> weights() const {
        const float *w = static_cast<const float *>(model->storage);
        return std::vector<float>(w, w + model->weights.total);
    }

    tw_context *ctx = nullptr;
    tw_model *model = nullptr;
    tw_dataset *data = nullptr;
    tw_trainer *trainer = nullptr;
};

TEST_F(FiniteTest, AWeightIsNamedBeforeWhatItSpoils) {
    step();
    const char *const name = "down_blocks.1.resnets.0.conv1.weight";
    const float good = *weight(name);
    *weight(name) = kInf;
    EXPECT_EQ(step().skipped, 1);
    EXPECT_EQ(found(), name);
    *weight(name) = good;
    EXPECT_EQ(step().skipped, 1);
}

TEST_F(FiniteTest, TheForwardPassIsNamedByLayers) {
    // A finite weight, but not its products.
    *weight("mid_block.resnets.0.conv1.weight") = 3e38f;
    *weight("mid_block.resnets.0.norm1.bias") = 1e4f;
    EXPECT_EQ(step().skipped, 1);
    EXPECT_EQ(found(), "mid_block.resnets.0.conv1");
}

// A search leaves no trace: the next steps are those of a run without one.
TEST_F(FiniteTest, SearchingChangesNothing) {
    tw_model *other = nullptr;
    tw_trainer *unsearched = nullptr;
    tw_trainer_options options = TW_TRAINER_OPTIONS_INIT;
    options.batch_size = 4;
    options.accumulate = 2;
    ASSERT_EQ(tw_model_create(ctx, kUnet, nullptr, nullptr, 0, 1, &other), TW_OK);
    ASSERT_EQ(tw_trainer_create(other, data, &options, &unsearched), TW_OK);
    float *mine = weight("conv_in.weight"), good = *mine;
    float *theirs =
        static_cast<float *>(other->storage) + (mine - static_cast<float *>(model->storage));
    for (int i = 0; i < 6; i++) {
        if (i == 2) *mine = *theirs = kInf;
        if (i == 3) *mine = *theirs = good;
        const tw_train_metrics m = step();
        if (i == 1) good = *mine;
        tw_train_metrics n = {};
        n.size = sizeof n;
        ASSERT_EQ(tw_trainer_step(unsearched, &n), TW_OK);
        if (i == 2) {
            EXPECT_EQ(found(), "conv_in.weight");
        } else {
            EXPECT_EQ(m.loss, n.loss) << i;
        }
        EXPECT_EQ(m.skipped, i >= 2);
    }
    const float *w = static_cast<const float *>(other->storage);
    EXPECT_EQ(weights(), std::vector<float>(w, w + other->weights.total));
    tw_trainer_free(unsearched);
    tw_model_free(other);
}

// A loss beyond the format's range whose gradient is within it.
TEST_F(FiniteTest, ALossAloneSkipsTheUpdate) {
    const int64_t point[] = {2};
    const float x[4] = {1e22f, 0, 0, 1e22f};
    tw_dataset *far = nullptr;
    tw_model *mlp = nullptr;
    tw_trainer *t = nullptr;
    ASSERT_EQ(tw_dataset_from_memory(ctx, 2, 1, point, x, nullptr, &far), TW_OK);
    ASSERT_EQ(tw_model_create(ctx,
                              R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 4,
                                  "layers": 1, "act_fn": "relu"})",
                              R"({"_class_name": "DDPMScheduler", "prediction_type": "sample"})",
                              nullptr, 0, 1, &mlp),
              TW_OK)
        << tw_context_error(ctx);
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.batch_size = 2;
    ASSERT_EQ(tw_trainer_create(mlp, far, &o, &t), TW_OK) << tw_context_error(ctx);
    // Only the last bias is at work: its gradient is 1e22, the loss 1e44.
    float *w = static_cast<float *>(mlp->storage);
    std::fill(w, w + mlp->weights.total, 0.0f);
    tw_train_metrics m = {};
    m.size = sizeof m;
    ASSERT_EQ(tw_trainer_step(t, &m), TW_OK);
    EXPECT_FALSE(std::isfinite(m.loss));
    EXPECT_TRUE(std::isfinite(m.grad_norm)) << m.grad_norm;
    EXPECT_EQ(m.skipped, 1);
    for (int64_t i = 0; i < mlp->weights.total; i++) ASSERT_EQ(w[i], 0.0f);
    char text[256];
    ASSERT_EQ(tw_trainer_find_not_finite(t, text, sizeof text), TW_OK);
    EXPECT_STREQ(text, "loss");
    tw_trainer_free(t);
    tw_model_free(mlp);
    tw_dataset_free(far);
}

// Forward all is small; the chain rule is not.
TEST_F(FiniteTest, GradientsAreNamedByTheirValue) {
    tw_plan *plan = nullptr;
    ASSERT_EQ(tw_plan_create(ctx, nullptr, &plan), TW_OK);
    const int64_t shape[] = {2, 3}, square[] = {3, 3};
    tw_value x = tw_plan_input(plan, "x", TW_F32, 2, shape);
    tw_value w = tw_plan_parameter(plan, "w", 2, square);
    tw_value h = tw_plan_linear(plan, x, w, TW_NONE);
    tw_plan_name(plan, h, "h");
    tw_value y = tw_plan_scale(plan, h, 1e30, 0.0);
    tw_value target = tw_plan_input(plan, "target", TW_F32, 2, shape);
    tw_value loss =
        tw_plan_mse(plan, tw_plan_activation(plan, y, TW_GELU), target, TW_NONE, nullptr);
    ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
    ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
    tw_value bad = TW_NONE;
    char text[256];
    const std::vector<float> zeros(9), tiny(9, 1e-20f), ones(6, 1.0f);
    ASSERT_EQ(tw_plan_write(plan, x, ones.data(), 24), TW_OK);
    ASSERT_EQ(tw_plan_write(plan, w, zeros.data(), 36), TW_OK);
    ASSERT_EQ(tw_plan_find_not_finite(plan, &bad), TW_OK);
    EXPECT_EQ(bad, TW_NONE);
    ASSERT_EQ(tw_plan_write(plan, w, tiny.data(), 36), TW_OK);
    ASSERT_EQ(tw_plan_find_not_finite(plan, &bad), TW_OK);
    tw_plan_describe(plan, bad, text, sizeof text);
    EXPECT_EQ(std::string(text), "axpby of gradient of axpby of h");
    const tw_value g = tw_plan_gradient(plan, w);
    tw_plan_describe(plan, g, text, sizeof text);
    EXPECT_EQ(std::string(text), "gradient of w");
    // Cut short, not overrun.
    char small[9];
    tw_plan_describe(plan, g, small, sizeof small);
    EXPECT_STREQ(small, "gradient");
    tw_plan_free(plan);
}

} // namespace
