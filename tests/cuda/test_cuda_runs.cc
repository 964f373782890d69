// Whole runs on the GPU's backend beside the CPU's: training, fifty DDIM steps, twice the same, and
// a run that moves from one device to the other. On a real device training is longer, models
// larger.
#include "networks.h"
#include "support/golden.h"
#include "support/tempdir.h"

extern "C" {
#include "train/internal.h"
}

namespace {

#ifdef TW_TEST_DEVICE
// As the preset cifar10 is built, with fewer channels and pixels, for the CPU's sake.
const char *const kWide =
    R"({"_class_name": "UNet2DModel", "sample_size": 16, "in_channels": 3,
    "out_channels": 3, "block_out_channels": [64, 128, 128], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 64,
    "norm_num_groups": 32, "num_class_embeds": 4, "dropout": 0.1})";
const char *const kConfigs[] = {kMlp, kUnet, kAttention, kWide};
const auto &kLow = kConfigs; // in low precision
constexpr int kSteps = 10;
#else
const char *const kConfigs[] = {kMlp, kUnet, kAttention};
const char *const kLow[] = {kAttention};
constexpr int kSteps = 4; // of which the second is recorded, and replayed after it
#endif

// As a user trains: AdamW, clipping, an average, labels dropped.
tw_trainer_options Options(bool images) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.steps = kSteps;
    o.batch_size = 4;
    o.lr_warmup = kSteps / 2;
    o.cond_dropout = 0.2;
    o.flip = images ? 0.5 : 0;
    o.seed = 17;
    return o;
}

// A model in training.
struct InTraining {
    tw_context *ctx;
    tw_model *m;
    tw_dataset *d;
    tw_trainer *t = nullptr;
    InTraining(tw_context *c, const char *config, tw_precision precision = TW_PRECISION_F32)
        : ctx(c), m(MakeModel(c, config)), d(MakeData(c, m)) {
        tw_trainer_options o = Options(config != kMlp);
        o.precision = precision;
        EXPECT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(ctx);
    }
    ~InTraining() {
        tw_trainer_free(t);
        tw_dataset_free(d);
        tw_model_free(m);
    }
    InTraining(const InTraining &) = delete;
    // The losses of the next steps.
    Floats Steps(int n) {
        Floats losses;
        for (int i = 0; t && i < n; i++) {
            tw_train_metrics metrics = {};
            metrics.size = sizeof metrics;
            EXPECT_EQ(tw_trainer_step(t, &metrics), TW_OK) << tw_context_error(ctx);
            EXPECT_EQ(metrics.skipped, 0);
            losses.push_back((float)metrics.loss);
        }
        return losses;
    }
    // Everything that training changes.
    Floats State() const {
        Floats all;
        for (const void *part : {m->storage, t->first_moment, t->second_moment, t->ema}) {
            const Floats one = Storage(m, part);
            all.insert(all.end(), one.begin(), one.end());
        }
        return all;
    }
};

void ExpectLosses(const Floats &got, const Floats &want, double bound) {
    ASSERT_EQ(got.size(), want.size());
    double worst = 0;
    for (size_t i = 0; i < want.size(); i++) {
        EXPECT_NEAR(got[i], want[i], bound * std::fabs(want[i])) << "step " << i;
        worst = std::fmax(worst, std::fabs(got[i] / want[i] - 1));
    }
    Note("losses", worst);
}

class CudaRuns : public CudaEngine {};

TEST_F(CudaRuns, TrainingLosesWhatTheCpuLoses) {
    for (const char *config : kConfigs) {
        SCOPED_TRACE(config);
        Context cpu(TW_DEVICE_CPU), cuda(TW_DEVICE_CUDA);
        const Floats want = InTraining(cpu.get(), config).Steps(kSteps);
        ExpectLosses(InTraining(cuda.get(), config).Steps(kSteps), want, 1e-4);
    }
}

// Within what a network's rounding makes of a loss.
TEST_F(CudaRuns, TrainingInLowPrecisionLosesNearlyThat) {
    const std::pair<tw_precision, double> formats[] = {{TW_PRECISION_TF32, 5e-3},
                                                       {TW_PRECISION_BF16, 3e-2}};
    for (const char *config : kLow) {
        Context cpu(TW_DEVICE_CPU);
        const Floats want = InTraining(cpu.get(), config).Steps(kSteps);
        for (const auto &f : formats) {
            SCOPED_TRACE(std::string(config) + " " + std::to_string(f.first));
            Context c(TW_DEVICE_CUDA);
            ExpectLosses(InTraining(c.get(), config, f.first).Steps(kSteps), want, f.second);
        }
    }
}

void ExpectSameTwice(const char *config, tw_precision precision) {
    SCOPED_TRACE(std::string(config) + " " + std::to_string(precision));
    std::vector<Floats> losses, states;
    for (int k = 0; k < 2; k++) {
        Context c(TW_DEVICE_CUDA);
        InTraining run(c.get(), config, precision);
        losses.push_back(run.Steps(kSteps));
        states.push_back(run.State());
    }
    EXPECT_EQ(losses[1], losses[0]);
    EXPECT_EQ(states[1], states[0]);
}

TEST_F(CudaRuns, TrainingTwiceGivesTheSameBits) {
    for (const char *config : kConfigs) ExpectSameTwice(config, TW_PRECISION_F32);
    for (const char *config : kLow)
        for (tw_precision precision : {TW_PRECISION_TF32, TW_PRECISION_BF16})
            ExpectSameTwice(config, precision);
}

// Saved by the one, taken up by the other: the state to the bit, and the losses of the steps after
// it as if all had been taken on the CPU.
TEST_F(CudaRuns, AnotherDeviceResumes) {
    for (const char *config : kConfigs) {
        Context unbroken(TW_DEVICE_CPU);
        const Floats want = InTraining(unbroken.get(), config).Steps(kSteps);
        for (tw_device first : {TW_DEVICE_CUDA, TW_DEVICE_CPU}) {
            SCOPED_TRACE(std::string(config) + (first == TW_DEVICE_CPU ? " on the GPU" : ""));
            Context a(first), b(first == TW_DEVICE_CPU ? TW_DEVICE_CUDA : TW_DEVICE_CPU);
            tw_test::TempDir dir;
            InTraining begins(a.get(), config), resumes(b.get(), config);
            Floats losses = begins.Steps(kSteps / 2);
            ASSERT_EQ(tw_trainer_save(begins.t, dir.path().c_str()), TW_OK)
                << tw_context_error(a.get());
            ASSERT_EQ(tw_trainer_resume(resumes.t, dir.path().c_str()), TW_OK)
                << tw_context_error(b.get());
            EXPECT_EQ(tw_trainer_step_count(resumes.t), kSteps / 2);
            EXPECT_EQ(resumes.State(), begins.State());
            const Floats rest = resumes.Steps(kSteps / 2);
            losses.insert(losses.end(), rest.begin(), rest.end());
            ExpectLosses(losses, want, 1e-4);
        }
    }
}

tw_sampler_options FiftySteps() {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = 50;
    o.seed = 23;
    o.max_batch = 4;
    return o;
}

double Furthest(const Floats &got, const Floats &want) {
    double worst = 0;
    EXPECT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size() && i < want.size(); i++) {
        const double d = std::fabs((double)got[i] - (double)want[i]);
        worst = d <= worst ? worst : d;
        if (std::isnan(d)) return NAN;
    }
    return worst;
}

TEST_F(CudaRuns, FiftyStepsOfDdimGiveTheCpusSamples) {
    for (const char *config : {kMlp, kUnet}) {
        SCOPED_TRACE(config);
        std::vector<Floats> r;
        OnBoth([&](tw_context *ctx) {
            tw_model *m = MakeModel(ctx, config);
            r.push_back(Draw(m, FiftySteps(), 3, {0, 2, 1}).x);
            tw_model_free(m);
        });
        ASSERT_EQ(r.size(), 2u);
        const double d = Furthest(r[1], r[0]);
        EXPECT_LT(d, 1e-3);
        Note(config == kMlp ? "mlp" : "unet", d);
    }
}

TEST_F(CudaRuns, SamplingTwiceGivesTheSameBits) {
    for (const char *config : kConfigs)
        for (double eta : {0.0, 1.0}) {
            std::vector<Floats> r;
            for (int k = 0; k < 2; k++) {
                Context c(TW_DEVICE_CUDA);
                tw_model *m = MakeModel(c.get(), config);
                tw_sampler_options o = FiveSteps();
                o.eta = eta;
                o.guidance = 2;
                r.push_back(Draw(m, o, 3, {0, 2, 1}).x);
                tw_model_free(m);
            }
            EXPECT_EQ(r[1], r[0]) << config;
        }
}

// The weights that come with the source.
TEST_F(CudaRuns, DigitsAreTheCpus) {
#ifndef TW_TEST_DEVICE
    GTEST_SKIP() << "minutes under the emulator";
#endif
    std::vector<Floats> r;
    for (tw_device device : {TW_DEVICE_CPU, TW_DEVICE_CUDA}) {
        Context c(device);
        tw_model *m = nullptr;
        const std::string model = golden::Path("../../host/examples/digits/model");
        ASSERT_EQ(tw_model_load(c.get(), model.c_str(), nullptr, &m), TW_OK)
            << tw_context_error(c.get());
        tw_sampler_options o = FiftySteps();
        o.rederive_epsilon = 1;
        r.push_back(Draw(m, o, 4, {0, 1, 2, 3}).x);
        tw_model_free(m);
    }
    const double d = Furthest(r[1], r[0]);
    EXPECT_LT(d, 1e-3);
    Note("digits", d);
}

// A little of everything: what compute-sanitizer runs.
TEST_F(CudaRuns, AStepAndASamplerRun) {
    for (const char *config : {kUnet, kAttention}) {
        Context c(TW_DEVICE_CUDA);
        InTraining run(c.get(), config);
        EXPECT_TRUE(std::isfinite(run.Steps(3)[2])); // the second is recorded, the third replayed
        tw_sampler_options o = FiveSteps();
        o.guidance = 2;
        o.eta = 1;
        for (float x : Draw(run.m, o, 3, {0, 2, 1}).x) EXPECT_TRUE(std::isfinite(x));
    }
}

} // namespace
