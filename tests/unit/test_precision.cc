// Training and sampling in another format than the weights': near float32's numbers, over masters
// in float32.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "support/tempdir.h"

#include <tweedie/tweedie.h>
extern "C" {
#include "core/halfs.h"
#include "train/internal.h"
}

namespace {

struct Network {
    const char *name, *config;
    int rank;
};

const Network kNetworks[] = {
    {"unet", R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
        "norm_num_groups": 4, "dropout": 0.1, "num_class_embeds": 4})",
     3},
    {"unet_scale_shift", R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
        "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "attention_head_dim": 8,
        "norm_num_groups": 4, "num_class_embeds": 4,
        "resnet_time_scale_shift": "scale_shift"})",
     3},
    {"mlp", R"({"_class_name": "TweedieMLP", "in_features": 64, "hidden": 48, "layers": 3,
        "act_fn": "silu", "num_class_embeds": 4})",
     1},
};

using Floats = std::vector<float>;

// The largest difference, relative to the rms of `want`.
double distance(const Floats &got, const Floats &want) {
    double worst = 0, sum = 0;
    EXPECT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); i++) {
        if (std::isnan(got[i])) return NAN;
        worst = std::fmax(worst, std::fabs(double(got[i]) - want[i]));
        sum += double(want[i]) * want[i];
    }
    return worst / std::sqrt(sum / double(want.size()));
}

class Precision : public ::testing::TestWithParam<Network> {
  protected:
    tw_context *ctx = nullptr;
    tw_model *model = nullptr;
    tw_dataset *data = nullptr;

    void SetUp() override {
        tw_context_options co = TW_CONTEXT_OPTIONS_INIT;
        co.poison = 1;
        ASSERT_EQ(tw_context_create(&co, &ctx), TW_OK) << tw_context_error(nullptr);
        Floats x(40 * 64);
        std::vector<int32_t> labels(40);
        for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.37f * float(i));
        for (size_t i = 0; i < labels.size(); i++) labels[i] = int32_t(i % 3);
        const int64_t image[] = {8, 8, 1}, point[] = {64};
        const int rank = GetParam().rank;
        ASSERT_EQ(tw_dataset_from_memory(ctx, 40, rank, rank == 3 ? image : point, x.data(),
                                         labels.data(), &data),
                  TW_OK);
        model = make();
    }
    void TearDown() override {
        tw_model_free(model);
        tw_dataset_free(data);
        tw_context_free(ctx);
    }

    // No weight is zero, or its gradient would hide others.
    tw_model *make() {
        tw_model *m = nullptr;
        EXPECT_EQ(tw_model_create(ctx, GetParam().config, nullptr, nullptr, 0, 1, &m), TW_OK)
            << tw_context_error(ctx);
        for (int64_t i = 0; m && i < m->weights.count; i++) {
            const tw_weight &w = m->weights.items[i];
            if (w.init != TW_INIT_ZERO) continue;
            Floats values(size_t(w.count));
            for (size_t k = 0; k < values.size(); k++)
                values[k] = 0.1f * std::sin(float(i) + 0.7f * float(k));
            EXPECT_EQ(tw_model_set_weight(m, w.name, values.data(), w.count), TW_OK);
        }
        return m;
    }

    tw_trainer_options options(tw_precision precision) {
        tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
        o.steps = 10;
        o.batch_size = 6;
        o.accumulate = 2;
        o.lr_warmup = 0;
        o.holdout = 0.2;
        o.ema_decay = 0.9;
        o.weight = TW_WEIGHT_MIN_SNR;
        o.cond_dropout = 0.1;
        o.flip = GetParam().rank == 3 ? 0.5 : 0;
        o.precision = precision;
        return o;
    }

    tw_trainer *trainer(tw_model *of, tw_precision precision) {
        const tw_trainer_options o = options(precision);
        tw_trainer *t = nullptr;
        EXPECT_EQ(tw_trainer_create(of, data, &o, &t), TW_OK) << tw_context_error(ctx);
        return t;
    }

    void step(tw_trainer *t, Floats *losses = nullptr, Floats *norms = nullptr) {
        tw_train_metrics m = {};
        m.size = sizeof m;
        ASSERT_EQ(tw_trainer_step(t, &m), TW_OK) << tw_context_error(ctx);
        EXPECT_EQ(m.skipped, 0);
        if (losses) losses->push_back(float(m.loss));
        if (norms) norms->push_back(float(m.grad_norm));
    }

    static Floats vector_of(const tw_trainer *t, const void *from) {
        const float *w = static_cast<const float *>(from);
        return Floats(w, w + t->model->weights.total);
    }

    // What the network reads is the masters, rounded, to the bit.
    static void expect_rounded(const tw_trainer *t) {
        const Floats masters = vector_of(t, t->model->storage);
        const uint16_t *copy = static_cast<const uint16_t *>(t->rounded.weights);
        ASSERT_NE(copy, nullptr);
        int64_t wrong = 0;
        for (size_t i = 0; i < masters.size(); i++) wrong += copy[i] != tw_f32_to_bf16(masters[i]);
        EXPECT_EQ(wrong, 0);
    }

    Floats draw(tw_precision precision, double guidance = 2.0) {
        tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
        o.steps = 5;
        o.guidance = guidance;
        o.max_batch = 2;
        o.precision = precision;
        tw_sampler *s = nullptr;
        const int32_t labels[] = {0, 2, 1};
        Floats x(3 * 64, NAN);
        EXPECT_EQ(tw_sampler_create(model, &o, &s), TW_OK) << tw_context_error(ctx);
        EXPECT_EQ(tw_sampler_run(s, 3, labels, nullptr, x.data()), TW_OK) << tw_context_error(ctx);
        tw_sampler_free(s);
        return x;
    }
};

TEST_P(Precision, TrainingIsThatOfFloat32ButForRounding) {
    tw_model *other = make();
    tw_trainer *wide = trainer(model, TW_PRECISION_F32), *half = trainer(other, TW_PRECISION_BF16);
    Floats wide_losses, half_losses, wide_norms, half_norms;
    for (int i = 0; i < 10; i++) {
        step(wide, &wide_losses, &wide_norms);
        step(half, &half_losses, &half_norms);
        if (i == 0 || i == 9) expect_rounded(half);
    }
    EXPECT_LT(distance(half_losses, wide_losses), 2e-2);
    EXPECT_NE(half_losses, wide_losses);
    EXPECT_LT(distance(half_norms, wide_norms), 0.25);
    for (int ema = 0; ema < 2; ema++) {
        double a = 0, b = 0;
        EXPECT_EQ(tw_trainer_validate(wide, ema, 0, &a), TW_OK) << tw_context_error(ctx);
        EXPECT_EQ(tw_trainer_validate(half, ema, 0, &b), TW_OK) << tw_context_error(ctx);
        EXPECT_NEAR(b, a, 2e-2 * a) << ema;
        EXPECT_NE(a, b);
    }
    tw_trainer_memory m = {};
    m.size = sizeof m;
    EXPECT_EQ(tw_trainer_get_memory(half, &m), TW_OK);
    EXPECT_EQ(m.rounded, m.weights / 2);
    EXPECT_EQ(tw_trainer_get_memory(wide, &m), TW_OK);
    EXPECT_EQ(m.rounded, 0u);
    tw_trainer_free(wide);
    tw_trainer_free(half);
    tw_model_free(other);
}

// Weights that are set, taken up or stepped by another trainer are those of the next step.
TEST_P(Precision, TheNetworkFollowsTheModel) {
    tw_trainer *t = trainer(model, TW_PRECISION_BF16), *other = trainer(model, TW_PRECISION_BF16);
    step(t);
    step(other);
    step(t);
    const tw_weight &w = model->weights.items[0];
    const Floats values(size_t(w.count), 0.0123f);
    ASSERT_EQ(tw_model_set_weight(model, w.name, values.data(), w.count), TW_OK);
    double before = 0, after = 0;
    ASSERT_EQ(tw_trainer_validate(t, 0, 0, &before), TW_OK);
    expect_rounded(t);
    const tw_test::TempDir directory;
    ASSERT_EQ(tw_trainer_save(t, directory.path().c_str()), TW_OK) << tw_context_error(ctx);
    step(t);
    ASSERT_EQ(tw_trainer_resume(t, directory.path().c_str()), TW_OK) << tw_context_error(ctx);
    ASSERT_EQ(tw_trainer_validate(t, 0, 0, &after), TW_OK);
    EXPECT_EQ(before, after);
    expect_rounded(t);
    tw_trainer_free(t);
    tw_trainer_free(other);
}

TEST_P(Precision, ResumingGivesTheSameBits) {
    const tw_test::TempDir directory;
    tw_trainer *t = trainer(model, TW_PRECISION_BF16);
    step(t);
    step(t);
    ASSERT_EQ(tw_trainer_save(t, directory.path().c_str()), TW_OK) << tw_context_error(ctx);
    step(t);
    const Floats whole = vector_of(t, model->storage), average = vector_of(t, t->ema);
    tw_trainer_free(t);
    tw_model *fresh = make();
    t = trainer(fresh, TW_PRECISION_BF16);
    ASSERT_EQ(tw_trainer_resume(t, directory.path().c_str()), TW_OK) << tw_context_error(ctx);
    step(t);
    EXPECT_EQ(vector_of(t, fresh->storage), whole);
    EXPECT_EQ(vector_of(t, t->ema), average);
    tw_trainer_free(t);
    tw_model_free(fresh);
}

TEST_P(Precision, SamplesAreThoseOfFloat32ButForRounding) {
    for (double guidance : {1.0, 2.0}) {
        const Floats want = draw(TW_PRECISION_F32, guidance);
        EXPECT_EQ(draw(TW_PRECISION_TF32, guidance), want) << "the CPU has no tf32";
        const Floats bf16 = draw(TW_PRECISION_BF16, guidance),
                     f16 = draw(TW_PRECISION_F16, guidance);
        const double coarse = distance(bf16, want), fine = distance(f16, want);
        // Five steps of such weights make much of rounding; that of bf16 is eight times fp16's.
        EXPECT_LT(fine, 0.3);
        EXPECT_GT(fine, 1e-5);
        EXPECT_GT(coarse, 3 * fine);
        EXPECT_LT(coarse, 24 * fine);
    }
}

TEST_P(Precision, ARunOfASamplerFollowsTheModel) {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = 2;
    o.precision = TW_PRECISION_BF16;
    tw_sampler *s = nullptr;
    const int32_t label = 1;
    Floats first(64, NAN), second(64, NAN), third(64, NAN);
    ASSERT_EQ(tw_sampler_create(model, &o, &s), TW_OK) << tw_context_error(ctx);
    ASSERT_EQ(tw_sampler_run(s, 1, &label, nullptr, first.data()), TW_OK) << tw_context_error(ctx);
    for (int64_t i = 0; i < model->weights.count; i++) {
        const tw_weight &w = model->weights.items[i];
        Floats values(size_t(w.count));
        ASSERT_EQ(tw_model_get_weight(model, w.name, values.data(), w.count), TW_OK);
        for (float &v : values) v *= 1.1f;
        ASSERT_EQ(tw_model_set_weight(model, w.name, values.data(), w.count), TW_OK);
    }
    ASSERT_EQ(tw_sampler_run(s, 1, &label, nullptr, second.data()), TW_OK);
    tw_sampler_free(s);
    ASSERT_EQ(tw_sampler_create(model, &o, &s), TW_OK);
    ASSERT_EQ(tw_sampler_run(s, 1, &label, nullptr, third.data()), TW_OK);
    tw_sampler_free(s);
    EXPECT_NE(first, second);
    EXPECT_EQ(second, third);
}

TEST_P(Precision, WhatCannotBeIsRefused) {
    tw_trainer_options o = options(TW_PRECISION_F16);
    tw_trainer *t = nullptr;
    EXPECT_EQ(tw_trainer_create(model, data, &o, &t), TW_ERROR_UNSUPPORTED);
    EXPECT_NE(std::string(tw_context_error(ctx)).find("fp32, tf32 or bf16"), std::string::npos);
    o.precision = static_cast<tw_precision>(4);
    EXPECT_EQ(tw_trainer_create(model, data, &o, &t), TW_ERROR_ARGUMENT);
    tw_sampler_options so = TW_SAMPLER_OPTIONS_INIT;
    so.precision = static_cast<tw_precision>(-1);
    tw_sampler *s = nullptr;
    EXPECT_EQ(tw_sampler_create(model, &so, &s), TW_ERROR_ARGUMENT);
    EXPECT_NE(std::string(tw_context_error(ctx)).find("tw_precision"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Networks, Precision, ::testing::ValuesIn(kNetworks),
                         [](const auto &info) { return std::string(info.param.name); });

} // namespace
