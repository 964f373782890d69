#include "support/diffusion.h"

extern "C" {
#include "core/context.h"
#include "diffusion/scheduler_config.h"
}

namespace {

class SchedulerConfig : public ::testing::Test {
  protected:
    Context ctx = cpu_context();
    tw_scheduler_config config;

    void SetUp() override { tw_scheduler_config_init(&config); }
    void TearDown() override { tw_scheduler_config_free(ctx.get(), &config); }

    tw_status parse(const char *json) {
        tw_scheduler_config_free(ctx.get(), &config);
        return tw_scheduler_config_parse(ctx.get(), json, "scheduler_config.json", &config);
    }
    void good(const char *json) { ASSERT_EQ(TW_OK, parse(json)) << tw_context_error(ctx.get()); }
};

TEST_F(SchedulerConfig, NothingMeansDdpm) {
    for (const char *json : {(const char *)nullptr, "{}"}) {
        good(json);
        EXPECT_STREQ("DDPMScheduler", config.class_name);
        EXPECT_EQ(TW_BETA_LINEAR, config.schedule.kind);
        EXPECT_EQ(1000, config.schedule.steps);
        EXPECT_EQ(1e-4, config.schedule.beta_start);
        EXPECT_EQ(0.02, config.schedule.beta_end);
        EXPECT_EQ(TW_PREDICT_EPSILON, config.prediction);
        EXPECT_EQ(TW_VARIANCE_FIXED_SMALL, config.variance);
        EXPECT_EQ(TW_CLIPPING_RANGE, config.clipping);
        EXPECT_EQ(1.0, config.clip_range);
        EXPECT_EQ(TW_SPACING_LEADING, config.spacing);
        EXPECT_EQ(1, config.set_alpha_to_one);
    }
}

TEST_F(SchedulerConfig, ReadsEveryKey) {
    good(R"({"_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "other": [1],
        "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.001, "beta_end": 0.5,
        "num_train_timesteps": 50, "trained_betas": null, "prediction_type": "v_prediction",
        "clip_sample": false, "clip_sample_range": 2, "thresholding": true,
        "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3.5, "set_alpha_to_one": false,
        "steps_offset": 1, "timestep_spacing": "trailing", "rescale_betas_zero_snr": true,
        "variance_type": "learned_range"})");
    EXPECT_STREQ("DDIMScheduler", config.class_name);
    EXPECT_EQ(TW_BETA_COSINE, config.schedule.kind);
    EXPECT_EQ(50, config.schedule.steps);
    EXPECT_EQ(0.001, config.schedule.beta_start);
    EXPECT_EQ(0.5, config.schedule.beta_end);
    EXPECT_EQ(1, config.schedule.zero_terminal_snr);
    EXPECT_EQ(TW_PREDICT_V, config.prediction);
    EXPECT_EQ(TW_CLIPPING_DYNAMIC, config.clipping);
    EXPECT_EQ(2.0, config.clip_range);
    EXPECT_EQ(0.9, config.dynamic_ratio);
    EXPECT_EQ(3.5, config.dynamic_max);
    EXPECT_EQ(0, config.set_alpha_to_one);
    EXPECT_EQ(1, config.steps_offset);
    EXPECT_EQ(TW_SPACING_TRAILING, config.spacing);
    EXPECT_EQ(TW_VARIANCE_LEARNED_RANGE, config.variance);
}

TEST_F(SchedulerConfig, DefaultsFollowTheClass) {
    good(R"({"_class_name": "PNDMScheduler"})");
    EXPECT_EQ(TW_CLIPPING_NONE, config.clipping);
    EXPECT_EQ(0, config.set_alpha_to_one);
    good(R"({"_class_name": "DPMSolverMultistepScheduler", "variance_type": null})");
    EXPECT_EQ(TW_CLIPPING_NONE, config.clipping);
    EXPECT_EQ(TW_SPACING_LINSPACE, config.spacing);
    good(R"({"_class_name": "HeunDiscreteScheduler"})");
    EXPECT_EQ(0.012, config.schedule.beta_end);
    good(R"({"variance_type": "fixed_small_log", "beta_schedule": "sigmoid"})");
    EXPECT_EQ(TW_VARIANCE_FIXED_SMALL, config.variance);
    EXPECT_EQ(TW_BETA_SIGMOID, config.schedule.kind);
}

TEST_F(SchedulerConfig, TrainedBetasMakeACustomSchedule) {
    good(R"({"trained_betas": [0.1, 0.2, 0.3], "beta_schedule": "linear"})");
    EXPECT_EQ(TW_BETA_CUSTOM, config.schedule.kind);
    Schedule schedule = make_schedule(ctx.get(), config.schedule);
    EXPECT_EQ(3, tw_schedule_steps(schedule.get()));
    EXPECT_EQ(0.2, tw_schedule_betas(schedule.get())[1]);
}

TEST_F(SchedulerConfig, RefusesAndNamesWhatItCannotUse) {
    const auto refused = [&](tw_status status, const char *json, const char *words) {
        EXPECT_REFUSED(status, ctx.get(), parse(json), words);
        EXPECT_EQ(0u, std::string(tw_context_error(ctx.get())).find("scheduler_config.json"));
        EXPECT_EQ(nullptr, config.betas);
    };
    const tw_status unsupported = TW_ERROR_UNSUPPORTED, format = TW_ERROR_FORMAT;
    refused(unsupported, R"({"_class_name": "ScoreSdeVeScheduler"})", "\"ScoreSdeVeScheduler\"");
    refused(unsupported, R"({"_class_name": "GaussianDDPMScheduler"})", "_class_name");
    refused(unsupported, R"({"beta_schedule": "laplace"})", "beta_schedule \"laplace\"");
    refused(unsupported, R"({"prediction_type": "flow_prediction"})", "expected one of epsilon");
    refused(unsupported, R"({"variance_type": "fixed_large_log"})", "variance_type");
    refused(unsupported, R"({"variance_type": "learned"})", "variance_type \"learned\"");
    refused(unsupported, R"({"timestep_spacing": "uniform"})", "timestep_spacing");
    refused(format, R"({"num_train_timesteps": 0})", "num_train_timesteps");
    refused(format, R"({"num_train_timesteps": "many"})", "num_train_timesteps");
    refused(format, R"({"beta_start": null})", "beta_start");
    refused(format, R"({"beta_schedule": 3})", "beta_schedule");
    refused(format, R"({"clip_sample": 1})", "clip_sample");
    refused(format, R"({"clip_sample_range": 0})", "clip_sample_range 0");
    refused(format, R"({"thresholding": true, "dynamic_thresholding_ratio": 2})", "ratio 2");
    refused(format, R"({"thresholding": true, "sample_max_value": 0.5})", "sample_max_value 0.5");
    refused(format, R"({"steps_offset": -1})", "steps_offset");
    refused(format, R"({"trained_betas": 3})", "trained_betas");
    refused(format, R"({"trained_betas": []})", "trained_betas");
    refused(format, R"({"trained_betas": [0.1, "x"]})", "trained_betas");
    refused(format, R"({"trained_betas": [0.1], "num_train_timesteps": 2})", "1 trained_betas");
    refused(format, "{", "");
    refused(format, "[]", "");
}

TEST_F(SchedulerConfig, WritesWhatItReads) {
    for (const char *json :
         {R"({})", R"({"_class_name": "DDIMScheduler", "set_alpha_to_one": false,
           "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
           "prediction_type": "sample", "thresholding": true, "sample_max_value": 2.5,
           "timestep_spacing": "linspace", "steps_offset": 1, "rescale_betas_zero_snr": true})",
          R"({"beta_schedule": "squaredcos_cap_v2", "variance_type": "fixed_large",
           "clip_sample": false, "num_train_timesteps": 77})",
          R"({"trained_betas": [0.1, 0.2], "clip_sample_range": 1.5})"}) {
        good(json);
        char *text = nullptr;
        ASSERT_EQ(TW_OK, tw_scheduler_config_write(ctx.get(), &config, &text));
        tw_scheduler_config again;
        ASSERT_EQ(TW_OK, tw_scheduler_config_parse(ctx.get(), text, "written", &again)) << text;
        EXPECT_STREQ(config.class_name, again.class_name);
        EXPECT_EQ(config.schedule.kind, again.schedule.kind);
        EXPECT_EQ(config.schedule.steps, again.schedule.steps);
        EXPECT_EQ(config.schedule.beta_start, again.schedule.beta_start);
        EXPECT_EQ(config.schedule.beta_end, again.schedule.beta_end);
        EXPECT_EQ(config.schedule.zero_terminal_snr, again.schedule.zero_terminal_snr);
        EXPECT_EQ(config.prediction, again.prediction);
        EXPECT_EQ(config.variance, again.variance);
        EXPECT_EQ(config.clipping, again.clipping);
        EXPECT_EQ(config.clip_range, again.clip_range);
        EXPECT_EQ(config.dynamic_ratio, again.dynamic_ratio);
        EXPECT_EQ(config.dynamic_max, again.dynamic_max);
        EXPECT_EQ(config.spacing, again.spacing);
        EXPECT_EQ(config.steps_offset, again.steps_offset);
        EXPECT_EQ(config.set_alpha_to_one, again.set_alpha_to_one);
        if (config.betas) {
            EXPECT_EQ(config.betas[1], again.betas[1]);
        }
        tw_scheduler_config_free(ctx.get(), &again);
        tw_free(ctx.get(), text);
    }
    config.spacing = TW_SPACING_QUADRATIC;
    char *text = nullptr;
    EXPECT_REFUSED(TW_ERROR_UNSUPPORTED, ctx.get(),
                   tw_scheduler_config_write(ctx.get(), &config, &text), "quadratic");
}

} // namespace
