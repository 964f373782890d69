// What is made again in the backward pass: the same bits in less memory.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "graph/internal.h"
#include "train/internal.h"
}

namespace {

struct Network {
    const char *name, *config;
    int rank;
};

// Dropout; attention; activations apart from their norms; norms that the time scales; blocks that
// resample.
const Network kNetworks[] = {
    {"unet", R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
        "norm_num_groups": 4, "dropout": 0.2})",
     3},
    {"unet_relu", R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 8], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D"], "act_fn": "relu",
        "norm_num_groups": 2, "dropout": 0.2})",
     3},
    {"unet_scale_shift", R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "attention_head_dim": 8,
        "norm_num_groups": 4, "dropout": 0.2, "resnet_time_scale_shift": "scale_shift"})",
     3},
    {"mlp_silu", R"({"_class_name": "TweedieMLP", "in_features": 64, "hidden": 48, "layers": 3,
        "act_fn": "silu"})",
     1},
    {"mlp_gelu", R"({"_class_name": "TweedieMLP", "in_features": 64, "hidden": 48, "layers": 2,
        "act_fn": "gelu"})",
     1},
};

struct Outcome {
    std::vector<double> losses;
    std::vector<float> weights, ema;
    size_t arena = 0, kept = 0;
    int launches = 0;
    double flops = 0;
};

Outcome train(const Network &network, const char *provider, tw_recompute recompute, int threads) {
    Outcome out;
    tw_context_options co = TW_CONTEXT_OPTIONS_INIT;
    co.threads = threads;
    co.provider = provider;
    co.poison = 1; // what is read too late is NaN
    tw_context *ctx = nullptr;
    tw_model *model = nullptr;
    tw_dataset *data = nullptr;
    tw_trainer *t = nullptr;
    EXPECT_EQ(tw_context_create(&co, &ctx), TW_OK) << tw_context_error(nullptr);
    std::vector<float> x(40 * 64);
    for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.37f * float(i));
    const int64_t image[] = {8, 8, 1}, point[] = {64};
    EXPECT_EQ(tw_dataset_from_memory(ctx, 40, network.rank, network.rank == 3 ? image : point,
                                     x.data(), nullptr, &data),
              TW_OK);
    EXPECT_EQ(tw_model_create(ctx, network.config, nullptr, nullptr, 0, 1, &model), TW_OK)
        << tw_context_error(ctx);
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.batch_size = 6;
    o.accumulate = 2;
    o.lr_warmup = 0;
    o.lr = 1e-2;
    o.recompute = recompute;
    EXPECT_EQ(tw_trainer_create(model, data, &o, &t), TW_OK) << tw_context_error(ctx);
    for (int i = 0; t && i < 3; i++) {
        tw_train_metrics m = {};
        m.size = sizeof m;
        EXPECT_EQ(tw_trainer_step(t, &m), TW_OK) << tw_context_error(ctx);
        EXPECT_EQ(m.skipped, 0);
        out.losses.push_back(m.loss);
    }
    if (t) {
        const float *w = static_cast<const float *>(model->storage),
                    *e = static_cast<const float *>(t->ema);
        out.weights.assign(w, w + model->weights.total);
        out.ema.assign(e, e + model->weights.total);
        tw_plan_stats stats = {};
        stats.size = sizeof stats;
        tw_plan_budget budget = {};
        EXPECT_EQ(tw_plan_get_stats(tw_trainer_plan(t, 0), &stats), TW_OK);
        EXPECT_EQ(tw_plan_add_budget(tw_trainer_plan(t, 0), &budget), TW_OK);
        out.arena = stats.arena_bytes;
        out.launches = stats.launches;
        out.flops = stats.flops;
        out.kept = budget.kept;
    }
    tw_trainer_free(t);
    tw_model_free(model);
    tw_dataset_free(data);
    tw_context_free(ctx);
    return out;
}

class Recompute : public ::testing::TestWithParam<Network> {};

TEST_P(Recompute, GivesTheSameBitsInLessMemory) {
    const struct {
        const char *provider;
        int threads;
    } ways[] = {{"auto", 2}, {"cpu-fast", 1}, {"cpu-reference", 1}};
    for (const auto &way : ways) {
        SCOPED_TRACE(std::string(way.provider) + " " + std::to_string(way.threads));
        const Outcome none = train(GetParam(), way.provider, TW_RECOMPUTE_NONE, way.threads);
        ASSERT_EQ(none.losses.size(), 3u);
        size_t arena = none.arena, kept = none.kept;
        for (tw_recompute recompute : {TW_RECOMPUTE_NORMS, TW_RECOMPUTE_BLOCKS}) {
            SCOPED_TRACE(recompute);
            const Outcome again = train(GetParam(), way.provider, recompute, way.threads);
            EXPECT_EQ(again.losses, none.losses);
            EXPECT_EQ(again.weights, none.weights);
            EXPECT_EQ(again.ema, none.ema);
            EXPECT_GT(again.launches, none.launches);
            EXPECT_LT(again.kept, none.kept);
            if (recompute == TW_RECOMPUTE_NORMS) {
                EXPECT_EQ(again.flops, none.flops);
            } else {
                EXPECT_GT(again.flops, none.flops);
            }
            if (GetParam().rank != 3) continue;
            EXPECT_LT(again.arena, arena);
            EXPECT_LT(again.kept, kept);
            kept = again.kept;
            arena = again.arena;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Of, Recompute, ::testing::ValuesIn(kNetworks),
                         [](const ::testing::TestParamInfo<Network> &info) {
                             return std::string(info.param.name);
                         });

class RecomputePlan : public ::testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK); }
    void TearDown() override {
        tw_plan_free(plan);
        tw_context_free(ctx);
    }
    void create(tw_recompute recompute) {
        tw_plan_options o = TW_PLAN_OPTIONS_INIT;
        o.recompute = recompute;
        tw_plan_free(plan);
        ASSERT_EQ(tw_plan_create(ctx, &o, &plan), TW_OK) << tw_context_error(ctx);
    }
    int count(tw_op_kind kind) const {
        int n = 0;
        for (int i = 0; i < plan->n_nodes; i++)
            n += plan->nodes[i].live && plan->nodes[i].kind == kind;
        return n;
    }
    tw_context *ctx = nullptr;
    tw_plan *plan = nullptr;
};

// Only what a gradient reads is made again, and only once; a kept value is not.
TEST_F(RecomputePlan, OnlyWhatIsRead) {
    for (const bool keep : {false, true}) {
        create(TW_RECOMPUTE_NORMS);
        const int64_t shape[] = {4, 8}, square[] = {8, 8};
        tw_value x = tw_plan_input(plan, "x", TW_F32, 2, shape);
        tw_value w = tw_plan_parameter(plan, "w", 2, square);
        tw_value v = tw_plan_parameter(plan, "v", 2, square);
        tw_value h = tw_plan_activation(plan, tw_plan_linear(plan, x, w, TW_NONE), TW_GELU);
        if (keep) tw_plan_keep(plan, h);
        /* Two products read it; the last activation is read by no gradient but the loss's. */
        tw_value a = tw_plan_linear(plan, h, v, TW_NONE), b = tw_plan_linear(plan, h, w, TW_NONE);
        tw_value y = tw_plan_scale(
            plan, tw_plan_activation(plan, tw_plan_add(plan, a, b, 1, 1), TW_RELU), 0.5, 0.0);
        tw_value loss = tw_plan_mse(plan, y, x, TW_NONE, nullptr);
        ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
        tw_plan_keep(plan, loss);
        ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
        EXPECT_EQ(count(TW_OP_ACT), keep ? 2 : 3);
        EXPECT_EQ(count(TW_OP_LINEAR), 3);
    }
}

// A normalisation is measured once.
TEST_F(RecomputePlan, NormsAreMadeFromTheirStatistics) {
    for (tw_recompute recompute : {TW_RECOMPUTE_NORMS, TW_RECOMPUTE_BLOCKS}) {
        create(recompute);
        const int64_t shape[] = {4, 3, 8}, eight[] = {8}, square[] = {8, 8};
        tw_value x = tw_plan_input(plan, "x", TW_F32, 3, shape);
        tw_value g = tw_plan_parameter(plan, "g", 1, eight),
                 b = tw_plan_parameter(plan, "b", 1, eight);
        tw_value w = tw_plan_parameter(plan, "w", 2, square);
        tw_plan_begin_block(plan);
        tw_value y = tw_plan_linear(plan, tw_plan_group_norm(plan, x, g, b, TW_NONE, {2, 1e-5, 1}),
                                    w, TW_NONE);
        tw_plan_end_block(plan);
        tw_value loss = tw_plan_mse(plan, y, x, TW_NONE, nullptr);
        ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
        tw_plan_keep(plan, loss);
        ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
        std::vector<tw_node> norms;
        for (int i = 0; i < plan->n_nodes; i++)
            if (plan->nodes[i].live && plan->nodes[i].kind == TW_OP_GROUP_NORM)
                norms.push_back(plan->nodes[i]);
        ASSERT_EQ(norms.size(), 2u);
        EXPECT_EQ(norms[1].n_in, 6);
        EXPECT_EQ(norms[1].n_out, 1);
        for (int k = 0; k < 2; k++) EXPECT_EQ(norms[1].in[4 + k], norms[0].out[1 + k]);
    }
}

// A block that no gradient reaches, and one whose inside is read from elsewhere.
TEST_F(RecomputePlan, BlocksKeepWhatOthersRead) {
    create(TW_RECOMPUTE_BLOCKS);
    const int64_t shape[] = {4, 8}, square[] = {8, 8};
    tw_value x = tw_plan_input(plan, "x", TW_F32, 2, shape);
    tw_value w = tw_plan_parameter(plan, "w", 2, square);
    tw_plan_begin_block(plan);
    tw_value unreached = tw_plan_activation(plan, x, TW_SILU);
    tw_plan_end_block(plan);
    tw_plan_begin_block(plan);
    tw_value h = tw_plan_linear(plan, unreached, w, TW_NONE);
    tw_value inside = tw_plan_activation(plan, h, TW_SILU);
    tw_value shared = tw_plan_activation(plan, inside, TW_GELU);
    tw_value out = tw_plan_linear(plan, shared, w, TW_NONE);
    tw_plan_end_block(plan);
    tw_value loss = tw_plan_mse(plan, tw_plan_add(plan, out, shared, 1, 1), x, TW_NONE, nullptr);
    ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
    tw_plan_keep(plan, loss);
    ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
    /* Again: h and inside. Kept: unreached, shared, out. */
    EXPECT_EQ(count(TW_OP_LINEAR), 3);
    EXPECT_EQ(count(TW_OP_ACT), 4);
}

// Operations with another between them are two calls; made again without the other, which no
// gradient reads, they are two as well, and have the same bits.
TEST_F(RecomputePlan, JoinsOnlyWhatWasJoined) {
    std::vector<float> gradients[2];
    for (int blocks = 0; blocks < 2; blocks++) {
        create(blocks ? TW_RECOMPUTE_BLOCKS : TW_RECOMPUTE_NONE);
        const int64_t shape[] = {2, 49, 8}, rows[] = {2, 8}, one[] = {8}, square[] = {8, 8};
        const tw_value x = tw_plan_input(plan, "x", TW_F32, 3, shape),
                       v = tw_plan_input(plan, "v", TW_F32, 2, rows),
                       gamma = tw_plan_input(plan, "gamma", TW_F32, 1, one),
                       target = tw_plan_input(plan, "target", TW_F32, 3, shape),
                       w = tw_plan_parameter(plan, "w", 2, square);
        tw_plan_begin_block(plan);
        const tw_value sum = tw_plan_add_vector(plan, x, v);
        const tw_value other = tw_plan_scale(plan, x, 0.5, 0.25);
        const tw_value y = tw_plan_group_norm(plan, sum, gamma, gamma, TW_NONE, {2, 1e-5, 1});
        const tw_value out =
            tw_plan_add(plan, tw_plan_linear(plan, y, w, TW_NONE), other, 1.0, 1.0);
        tw_plan_end_block(plan);
        const tw_value loss = tw_plan_mse(plan, out, target, TW_NONE, nullptr);
        ASSERT_EQ(tw_plan_backward(plan, loss, 1.0), TW_OK);
        ASSERT_EQ(tw_plan_compile(plan), TW_OK) << tw_context_error(ctx);
        int sums = 0;
        for (int i = 0; i < plan->n_steps; i++) {
            if (plan->nodes[plan->steps[i].first_node].kind != TW_OP_ADD_VEC) continue;
            sums++;
            EXPECT_EQ(plan->steps[i].kernel.claimed, 1);
        }
        EXPECT_EQ(sums, 1 + blocks);
        float at = 0.0f;
        for (const tw_value value : {x, v, gamma, target, w}) {
            std::vector<float> numbers((size_t)tw_desc_count(tw_plan_desc(plan, value)));
            for (float &number : numbers) number = 3 + std::sin(at += 0.7f);
            ASSERT_EQ(tw_plan_write(plan, value, numbers.data(), numbers.size() * sizeof(float)),
                      TW_OK);
        }
        ASSERT_EQ(tw_plan_run(plan), TW_OK) << tw_context_error(ctx);
        gradients[blocks].resize(64);
        ASSERT_EQ(tw_plan_read(plan, tw_plan_gradient(plan, w), gradients[blocks].data(), 256),
                  TW_OK);
    }
    EXPECT_EQ(gradients[1], gradients[0]);
}

TEST_F(RecomputePlan, UnknownKindsAreRefused) {
    tw_plan_options o = TW_PLAN_OPTIONS_INIT;
    o.recompute = static_cast<tw_recompute>(3);
    EXPECT_EQ(tw_plan_create(ctx, &o, &plan), TW_ERROR_ARGUMENT);
    EXPECT_NE(std::string(tw_context_error(ctx)).find("recompute"), std::string::npos);
}

} // namespace
