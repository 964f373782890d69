// What memory is said to be for adds up to what is taken, and can be told without taking it.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "diffusion/sampler.h"
#include "graph/internal.h"
#include "train/internal.h"
}

namespace {

const char *const kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
    "norm_num_groups": 4, "dropout": 0.1})";

class BudgetTest : public ::testing::Test {
  protected:
    void SetUp() override {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.threads = 1;
        for (tw_context **ctx : {&real, &planning}) {
            ASSERT_EQ(tw_context_create(&o, ctx), TW_OK) << tw_context_error(nullptr);
            if (ctx == &planning) tw_backend_plan_only(planning->backend);
            tw_model *m = nullptr;
            ASSERT_EQ(tw_model_create(*ctx, kUnet, nullptr, nullptr, 0, 1, &m), TW_OK);
            (ctx == &real ? model : planned) = m;
        }
    }
    void TearDown() override {
        tw_model_free(model);
        tw_model_free(planned);
        tw_context_free(real);
        tw_context_free(planning);
    }
    tw_context *real = nullptr, *planning = nullptr;
    tw_model *model = nullptr, *planned = nullptr;
};

// Kept for the backward pass are the values of the forward part that it reads, and no others.
TEST_F(BudgetTest, ByHand) {
    tw_plan *plan = nullptr;
    ASSERT_EQ(tw_plan_create(real, nullptr, &plan), TW_OK);
    const int64_t shape[] = {256, 4}, square[] = {4, 4}, one[] = {1};
    const size_t bytes = 256 * 4 * sizeof(float);
    tw_value x = tw_plan_input(plan, "x", TW_F32, 2, shape);
    tw_value w = tw_plan_parameter(plan, "w", 2, square);
    tw_value h = tw_plan_linear(plan, x, w, TW_NONE); /* read by the activation's gradient */
    tw_value y = tw_plan_scale(plan, tw_plan_activation(plan, h, TW_GELU), 2.0, 0.0); /* not */
    tw_value target = tw_plan_input(plan, "target", TW_F32, 2, shape);
    tw_value loss = tw_plan_mse(plan, y, target, TW_NONE, nullptr); /* reads y again */
    tw_value out = tw_plan_state(plan, "loss", TW_F32, 1, one);
    tw_build_copy(plan, loss, out);
    ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
    ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(real);
    tw_plan_budget b = {};
    ASSERT_EQ(tw_plan_add_budget(plan, &b), TW_OK);
    EXPECT_EQ(b.kept, 2 * bytes);
    EXPECT_EQ(b.kept + b.passing + b.workspace + b.gaps, plan->arena_bytes);
    EXPECT_EQ(b.inputs + b.held, plan->owned_bytes);
    /* Adding again doubles. */
    const size_t total = tw_plan_budget_total(&b);
    ASSERT_EQ(tw_plan_add_budget(plan, &b), TW_OK);
    EXPECT_EQ(tw_plan_budget_total(&b), 2 * total);
    tw_plan_free(plan);
}

TEST_F(BudgetTest, OfATrainerIsWhatItTakes) {
    std::vector<float> x(40 * 64, 0.5f);
    const int64_t shape[] = {8, 8, 1};
    tw_dataset *d = nullptr;
    ASSERT_EQ(tw_dataset_from_memory(real, 40, 3, shape, x.data(), nullptr, &d), TW_OK);
    for (int64_t batch : {1, 7, 16}) {
        tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
        o.batch_size = batch;
        tw_trainer *t = nullptr;
        tw_trainer_memory m = {};
        m.size = sizeof m;
        ASSERT_EQ(tw_trainer_create(model, d, &o, &t), TW_OK) << tw_context_error(real);
        ASSERT_EQ(tw_trainer_get_memory(t, &m), TW_OK);
        tw_trainer_budget b = {};
        ASSERT_EQ(tw_trainer_plan_budget(planned, &o, &b), TW_OK) << tw_context_error(planning);
        EXPECT_EQ(b.weights, m.weights);
        EXPECT_EQ(b.gradients, m.gradients);
        EXPECT_EQ(b.optimizer, m.optimizer);
        EXPECT_EQ(b.ema, m.ema);
        EXPECT_EQ(b.plans.kept + b.plans.passing + b.plans.workspace + b.plans.gaps, m.arena);
        EXPECT_EQ(b.plans.inputs + b.plans.held, m.staging);
        EXPECT_EQ(b.snapshot, m.snapshot);
        EXPECT_GT(b.plans.kept, b.plans.passing);
        tw_trainer_free(t);
    }
    tw_dataset_free(d);
}

TEST_F(BudgetTest, OfASamplerIsWhatItTakes) {
    for (int64_t batch : {1, 9}) {
        tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
        o.max_batch = batch;
        tw_sampler *s = nullptr, *p = nullptr;
        size_t bytes = 0;
        tw_plan_budget b = {};
        ASSERT_EQ(tw_sampler_create(model, &o, &s), TW_OK) << tw_context_error(real);
        ASSERT_EQ(tw_sampler_memory(s, batch, &bytes), TW_OK);
        ASSERT_EQ(tw_sampler_create(planned, &o, &p), TW_OK) << tw_context_error(planning);
        ASSERT_EQ(tw_sampler_batch_budget(p, batch, &b), TW_OK);
        EXPECT_EQ(tw_plan_budget_total(&b), bytes);
        EXPECT_EQ(b.kept, 0u);
        tw_sampler_free(s);
        tw_sampler_free(p);
    }
}

TEST_F(BudgetTest, APlanningContextRefusesToRun) {
    const float x[64] = {}, t[1] = {};
    float out[64];
    EXPECT_EQ(tw_model_forward(planned, 1, x, t, nullptr, out), TW_ERROR_ARGUMENT);
    EXPECT_NE(std::string(tw_context_error(planning)).find("only plans"), std::string::npos);
}

} // namespace
