// Training: the loss it minimises, the numbers it keeps, and that a broken run goes on to the bit.
#include <gtest/gtest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "core/philox.h"
#include "data/dataset.h"
#include "train/internal.h"
}

namespace {

const char *kMlp = R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 32, "layers": 3,
                       "act_fn": "silu"})";
const char *kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
    "norm_num_groups": 4, "num_class_embeds": 4, "dropout": 0.1})";

class TrainerTest : public ::testing::Test {
  protected:
    void SetUp() override {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.device = TW_DEVICE_CPU;
        o.threads = 2;
        ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK) << tw_context_error(nullptr);
        char name[] = "/tmp/tweedie-trainer-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
    }
    void TearDown() override {
        tw_context_free(ctx);
        if (std::system(("rm -rf '" + dir + "'").c_str()) != 0) ADD_FAILURE() << dir;
    }
    tw_model *model(const char *config, uint64_t seed = 1) {
        tw_model *m = nullptr;
        EXPECT_EQ(tw_model_create(ctx, config, nullptr, nullptr, 0, seed, &m), TW_OK) << error();
        return m;
    }
    tw_dataset *scurve(int64_t count = 512) {
        tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
        o.count = count;
        tw_dataset *d = nullptr;
        EXPECT_EQ(tw_dataset_open(ctx, "scurve", &o, &d), TW_OK) << error();
        return d;
    }
    // 40 random 8x8 pictures with labels 0..2.
    tw_dataset *pictures(bool labelled = true) {
        std::mt19937 gen(5);
        std::uniform_real_distribution<float> uniform(-1, 1);
        std::vector<float> x(40 * 64);
        std::vector<int32_t> labels(40);
        for (float &v : x) v = uniform(gen);
        for (size_t i = 0; i < labels.size(); i++) labels[i] = (int32_t)(i % 3);
        const int64_t shape[] = {8, 8, 1};
        tw_dataset *d = nullptr;
        EXPECT_EQ(tw_dataset_from_memory(ctx, 40, 3, shape, x.data(),
                                         labelled ? labels.data() : nullptr, &d),
                  TW_OK)
            << error();
        return d;
    }
    static tw_trainer_options small(int64_t steps) {
        tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
        o.steps = steps;
        o.batch_size = 16;
        o.lr_warmup = 4;
        o.seed = 9;
        return o;
    }
    tw_trainer *trainer(tw_model *m, tw_dataset *d, const tw_trainer_options &o) {
        tw_trainer *t = nullptr;
        EXPECT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << error();
        return t;
    }
    tw_train_metrics step(tw_trainer *t) {
        tw_train_metrics m = {};
        m.size = sizeof m;
        EXPECT_EQ(tw_trainer_step(t, &m), TW_OK) << error();
        return m;
    }
    std::vector<float> vector_of(tw_trainer *t, const void *address) {
        std::vector<float> out((size_t)t->model->weights.total);
        EXPECT_EQ(ctx->backend->download(ctx->backend, out.data(), address, out.size() * 4), TW_OK);
        return out;
    }
    std::string error() const { return tw_context_error(ctx); }

    tw_context *ctx = nullptr;
    std::string dir;
};

TEST_F(TrainerTest, LossFallsOnTheSCurve) {
    tw_model *m = model(kMlp);
    tw_dataset *d = scurve();
    tw_trainer_options o = small(300);
    o.batch_size = 128;
    tw_trainer *t = trainer(m, d, o);
    double first = 0, last = 0;
    for (int i = 0; i < 300; i++) {
        double loss = step(t).loss;
        if (i < 10) first += loss / 10;
        if (i >= 250) last += loss / 50;
    }
    EXPECT_LT(last, 0.6 * first);
    EXPECT_EQ(tw_trainer_step(t, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "trainer: step: all 300 steps are done");
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

// The first step's loss from the definition: t, epsilon and x_t by hand, the network by its
// forward.
TEST_F(TrainerTest, FirstLossIsTheDefinition) {
    tw_model *m = model(kMlp);
    tw_dataset *d = scurve(16); /* one batch is the whole set, in some order */
    tw_trainer_options o = small(1);
    o.antithetic = 1;
    tw_trainer *t = trainer(m, d, o);
    const float *x0;
    ASSERT_EQ(tw_loader_next(t->loader, &x0, nullptr), TW_OK);
    std::vector<float> batch(x0, x0 + 32), x_t(32), target(32), times(16), out(32);
    ASSERT_EQ(tw_loader_seek(t->loader, 0), TW_OK);
    const double *a = tw_schedule_alphas_cumprod(tw_model_schedule(m));
    for (uint64_t n = 0; n < 16; n++) {
        tw_philox_key key = {o.seed, n & ~1ull, TW_PURPOSE_TRAIN_T, 0};
        int64_t step = (int64_t)(((uint64_t)tw_philox_word(&key, 0) * 1000) >> 32);
        if (n & 1) step = 999 - step;
        times[n] = (float)step;
        key = {o.seed, n, TW_PURPOSE_TRAIN_NOISE, 0};
        double z[4];
        tw_philox_normals(&key, 0, z);
        for (int k = 0; k < 2; k++) {
            target[2 * n + k] = (float)z[k];
            x_t[2 * n + k] =
                (float)(std::sqrt(a[step]) * batch[2 * n + k] + std::sqrt(1 - a[step]) * z[k]);
        }
    }
    ASSERT_EQ(tw_model_forward(m, 16, x_t.data(), times.data(), nullptr, out.data()), TW_OK)
        << error();
    double loss = 0;
    for (int i = 0; i < 32; i++) loss += std::pow((double)out[i] - target[i], 2) / 32;
    EXPECT_NEAR(step(t).loss, loss, 2e-6 * loss);
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

TEST_F(TrainerTest, ResumedRunsEqualUnbrokenOnesToTheBit) {
    for (const char *config : {kMlp, kUnet}) {
        bool unet = config == kUnet;
        tw_dataset *d = unet ? pictures() : scurve();
        tw_trainer_options o = small(9);
        o.accumulate = 2;
        o.holdout = 0.1;
        o.lr_schedule = TW_LR_COSINE;
        if (unet) {
            o.cond_dropout = 0.3;
            o.flip = 0.5;
            o.weight = TW_WEIGHT_MIN_SNR;
        }
        std::vector<double> losses;
        std::vector<float> weights, ema;
        {
            tw_model *m = model(config);
            tw_trainer *t = trainer(m, d, o);
            for (int i = 0; i < 9; i++) losses.push_back(step(t).loss);
            weights = vector_of(t, m->storage);
            ema = vector_of(t, t->ema);
            tw_trainer_free(t);
            tw_model_free(m);
        }
        {
            tw_model *m = model(config);
            tw_trainer *t = trainer(m, d, o);
            for (int i = 0; i < 4; i++) {
                EXPECT_EQ(step(t).loss, losses[(size_t)i]);
                double loss;
                EXPECT_EQ(tw_trainer_validate(t, i % 2, 0, &loss), TW_OK) << error();
            }
            ASSERT_EQ(tw_trainer_save(t, dir.c_str()), TW_OK) << error();
            tw_trainer_free(t);
            tw_model_free(m);
        }
        /* Other weights, for all must come from the state; the same configuration, written
         * otherwise. */
        tw_model *m = model((std::string(config).insert(1, "\n ")).c_str(), 77);
        tw_trainer *t = trainer(m, d, o);
        ASSERT_EQ(tw_trainer_resume(t, dir.c_str()), TW_OK) << error();
        EXPECT_EQ(tw_trainer_step_count(t), 4);
        for (int i = 4; i < 9; i++) EXPECT_EQ(step(t).loss, losses[(size_t)i]) << i;
        EXPECT_EQ(vector_of(t, m->storage), weights);
        EXPECT_EQ(vector_of(t, t->ema), ema);
        tw_trainer_free(t);
        tw_model_free(m);
        tw_dataset_free(d);
    }
}

std::atomic<int> readable; // samples that can still be read
tw_status (*real_read)(const tw_dataset *, int64_t, float *, int32_t *, char *);
tw_status failing_read(const tw_dataset *d, int64_t index, float *out, int32_t *label, char *text) {
    if (readable-- > 0) return real_read(d, index, out, label, text);
    std::snprintf(text, TW_DATASET_ERROR_TEXT, "the disk is gone");
    return TW_ERROR_IO;
}

TEST_F(TrainerTest, AFailedStepCanBeAskedForAgain) {
    tw_trainer_options o = small(2);
    o.accumulate = 2;
    double want = 0;
    for (int broken = 0; broken < 2; broken++) {
        tw_model *m = model(kMlp);
        tw_dataset *d = scurve();
        real_read = d->read;
        readable = 24; /* the first of two batches, and half of the second */
        if (broken) d->read = failing_read;
        tw_trainer *t = trainer(m, d, o);
        if (broken) {
            EXPECT_EQ(tw_trainer_step(t, nullptr), TW_ERROR_IO);
            EXPECT_NE(error().find("the disk is gone"), std::string::npos) << error();
            EXPECT_EQ(tw_trainer_step_count(t), 0);
            readable = 1 << 20;
            tw_train_metrics metrics = {};
            metrics.size = sizeof metrics;
            tw_status s = tw_trainer_step(t, &metrics);
            /* The loader may have met the failure once more on its way ahead. */
            if (s == TW_ERROR_IO) s = tw_trainer_step(t, &metrics);
            ASSERT_EQ(s, TW_OK) << error();
            EXPECT_EQ(metrics.loss, want);
        } else {
            want = step(t).loss;
        }
        tw_trainer_free(t);
        tw_dataset_free(d);
        tw_model_free(m);
    }
}

TEST_F(TrainerTest, AccumulatedStepsShareTheGradient) {
    tw_dataset *d = scurve();
    std::vector<float> gradients[2];
    for (int k = 0; k < 2; k++) {
        tw_model *m = model(kMlp);
        tw_trainer_options o = small(1);
        o.accumulate = k ? 4 : 1;
        tw_trainer *t = trainer(m, d, o);
        const float *x;
        ASSERT_EQ(tw_loader_next(t->loader, &x, nullptr), TW_OK);
        ASSERT_EQ(tw_plan_write(t->micro.plan, t->micro.x, x, 32 * sizeof *x), TW_OK);
        ASSERT_EQ(tw_plan_run(t->micro.plan), TW_OK);
        gradients[k] = vector_of(t, t->gradients);
        tw_trainer_free(t);
        tw_model_free(m);
    }
    double norm = 0;
    for (size_t i = 0; i < gradients[0].size(); i++) {
        norm += std::fabs(gradients[0][i]);
        EXPECT_EQ(gradients[1][i], gradients[0][i] / 4);
    }
    EXPECT_GT(norm, 0);
    tw_dataset_free(d);
}

TEST_F(TrainerTest, EmaFollowsItsWarmUp) {
    tw_model *m = model(kMlp);
    tw_dataset *d = scurve();
    tw_trainer *t = trainer(m, d, small(3));
    std::vector<float> ema = vector_of(t, t->ema);
    EXPECT_EQ(ema, vector_of(t, m->storage));
    for (int k = 0; k < 3; k++) {
        step(t);
        std::vector<float> w = vector_of(t, m->storage), now = vector_of(t, t->ema);
        double decay = (1.0 + k) / (10.0 + k), moved = 0;
        for (size_t i = 0; i < w.size(); i++) {
            double want = decay * ema[i] + (1 - decay) * w[i];
            EXPECT_NEAR(now[i], want, 1e-6 * (std::fabs(want) + 1e-3));
            moved += std::fabs((double)now[i] - ema[i]);
        }
        EXPECT_GT(moved, 0);
        ema = now;
    }
    tw_model *average = nullptr;
    ASSERT_EQ(tw_trainer_ema_model(t, &average), TW_OK) << error();
    std::vector<float> copy(ema.size());
    ASSERT_EQ(ctx->backend->download(ctx->backend, copy.data(), average->storage, copy.size() * 4),
              TW_OK);
    EXPECT_EQ(copy, ema);
    tw_model_free(average);
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

TEST_F(TrainerTest, AGradientThatIsNotFiniteIsSkippedAndCounted) {
    tw_model *m = model(kMlp);
    std::vector<float> x(32 * 2, 0.5f);
    x[7] = std::numeric_limits<float>::quiet_NaN();
    const int64_t shape[] = {2};
    tw_dataset *d = nullptr;
    ASSERT_EQ(tw_dataset_from_memory(ctx, 32, 1, shape, x.data(), nullptr, &d), TW_OK);
    tw_trainer *t = trainer(m, d, small(4)); /* two batches an epoch, one of them bad */
    std::vector<float> before = vector_of(t, m->storage);
    int64_t skipped = 0;
    for (int i = 0; i < 4; i++) {
        tw_train_metrics metrics = step(t);
        bool bad = !std::isfinite(metrics.grad_norm);
        skipped += bad;
        EXPECT_EQ(metrics.skipped, skipped);
        std::vector<float> after = vector_of(t, m->storage);
        EXPECT_EQ(after == before, bad) << i;
        for (float w : after) ASSERT_TRUE(std::isfinite(w));
        before = after;
    }
    EXPECT_EQ(skipped, 2);
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

TEST_F(TrainerTest, ValidationRepeatsItself) {
    tw_model *m = model(kMlp);
    tw_dataset *d = scurve(500);
    tw_trainer_options o = small(5);
    o.holdout = 0.2;
    tw_trainer *t = trainer(m, d, o);
    double a = 0, b = 1, few = 0;
    ASSERT_EQ(tw_trainer_validate(t, 0, 0, &a), TW_OK) << error();
    ASSERT_EQ(tw_trainer_validate(t, 1, 0, &b), TW_OK) << error();
    EXPECT_EQ(a, b); /* nothing is learned yet */
    ASSERT_EQ(tw_trainer_validate(t, 0, 10, &few), TW_OK);
    EXPECT_NE(few, a);
    for (int i = 0; i < 5; i++) step(t);
    ASSERT_EQ(tw_trainer_validate(t, 0, 0, &b), TW_OK);
    EXPECT_LT(b, a);
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

TEST_F(TrainerTest, Rates) {
    tw_trainer_options o = small(100);
    o.lr = 2.0;
    o.lr_warmup = 10;
    EXPECT_DOUBLE_EQ(tw_learning_rate(&o, 0), 0.2);
    EXPECT_DOUBLE_EQ(tw_learning_rate(&o, 9), 2.0);
    EXPECT_DOUBLE_EQ(tw_learning_rate(&o, 99), 2.0);
    o.lr_schedule = TW_LR_LINEAR;
    EXPECT_DOUBLE_EQ(tw_learning_rate(&o, 55), 1.0);
    o.lr_schedule = TW_LR_COSINE;
    EXPECT_DOUBLE_EQ(tw_learning_rate(&o, 10), 2.0);
    EXPECT_NEAR(tw_learning_rate(&o, 55), 1.0, 1e-15);
    EXPECT_NEAR(tw_learning_rate(&o, 100), 0.0, 1e-15);
    o.weight = TW_WEIGHT_MIN_SNR;
    const double a = 0.9; /* SNR 9 */
    EXPECT_DOUBLE_EQ(tw_loss_weight_at(&o, TW_PREDICT_EPSILON, a), 5.0 / (a / (1 - a)));
    EXPECT_DOUBLE_EQ(tw_loss_weight_at(&o, TW_PREDICT_V, a), 5.0 / (a / (1 - a) + 1));
    EXPECT_DOUBLE_EQ(tw_loss_weight_at(&o, TW_PREDICT_SAMPLE, a), 5.0);
    EXPECT_DOUBLE_EQ(tw_loss_weight_at(&o, TW_PREDICT_EPSILON, 0.5), 1.0);
}

TEST_F(TrainerTest, OptionsAndFitAreChecked) {
    tw_model *m = model(kMlp), *u = model(kUnet);
    tw_dataset *d = scurve(), *pics = pictures(), *bare = pictures(false);
    struct Case {
        tw_model *model;
        tw_dataset *data;
        void (*change)(tw_trainer_options *);
        const char *text;
    };
    const Case cases[] = {
        {m, d, [](tw_trainer_options *o) { o->steps = 0; }, "steps: expected 1 or more, got 0"},
        {m, d, [](tw_trainer_options *o) { o->steps = INT64_C(1) << 60; },
         "steps: expected fewer than 2^62 samples in all"},
        {m, d, [](tw_trainer_options *o) { o->batch_size = 0; }, "batch size: expected 1 to"},
        {m, d, [](tw_trainer_options *o) { o->accumulate = -1; }, "accumulate: expected"},
        {m, d, [](tw_trainer_options *o) { o->lr = NAN; }, "learning rate: expected"},
        {m, d, [](tw_trainer_options *o) { o->beta1 = 1; }, "beta1: expected"},
        {m, d, [](tw_trainer_options *o) { o->beta2 = -1; }, "beta2: expected"},
        {m, d, [](tw_trainer_options *o) { o->eps = 0; }, "eps: expected"},
        {m, d, [](tw_trainer_options *o) { o->weight_decay = -1; }, "weight decay: expected"},
        {m, d, [](tw_trainer_options *o) { o->clip_norm = -1; }, "clip norm: expected"},
        {m, d, [](tw_trainer_options *o) { o->ema_decay = 1; }, "EMA decay: expected"},
        {m, d, [](tw_trainer_options *o) { o->lr_warmup = -1; }, "warm-up: expected"},
        {m, d, [](tw_trainer_options *o) { o->holdout = 0.6; }, "holdout: expected"},
        {m, d, [](tw_trainer_options *o) { o->flip = 0.5; }, "only images can be mirrored"},
        {m, d, [](tw_trainer_options *o) { o->antithetic = 1, o->batch_size = 3; },
         "an even number"},
        {m, d, [](tw_trainer_options *o) { o->cond_dropout = 0.1; }, "takes no class labels"},
        {m, d, [](tw_trainer_options *o) { o->size = 1; }, "options of 1 bytes"},
        {m, pics, [](tw_trainer_options *) {},
         "samples of the data are 8x8x1, the model takes 2x1x1"},
        {u, bare, [](tw_trainer_options *) {}, "but the data has none"},
    };
    for (const Case &c : cases) {
        tw_trainer_options o = small(5);
        c.change(&o);
        tw_trainer *t = nullptr;
        EXPECT_EQ(tw_trainer_create(c.model, c.data, &o, &t), TW_ERROR_ARGUMENT) << c.text;
        EXPECT_EQ(t, nullptr);
        EXPECT_NE(error().find(c.text), std::string::npos) << error();
    }
    tw_dataset_free(d);
    tw_dataset_free(pics);
    tw_dataset_free(bare);
    tw_model_free(m);
    tw_model_free(u);
}

TEST_F(TrainerTest, BadStatesAreRefusedAndChangeNothing) {
    tw_model *m = model(kMlp);
    tw_dataset *d = scurve();
    tw_trainer *t = trainer(m, d, small(8));
    step(t);
    ASSERT_EQ(tw_trainer_save(t, dir.c_str()), TW_OK) << error();
    tw_trainer_free(t);
    const std::string path = dir + "/trainer.safetensors";
    std::ifstream in(path, std::ios::binary);
    const std::string good((std::istreambuf_iterator<char>(in)), {});
    auto put = [&](const std::string &bytes) {
        std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    };
    struct Case {
        std::string bytes;
        int64_t steps;
        uint64_t seed;
        const char *text;
    };
    std::string renamed = good;
    renamed.replace(renamed.find("first_moment"), 12, "first_minute");
    const Case cases[] = {
        {good.substr(0, good.size() - 5), 8, 9, "trainer.safetensors"},
        {"", 8, 9, "empty"},
        {renamed, 8, 9, "first_moment: expected"},
        {good, 8, 10, "saved with other options"},
    };
    for (const Case &c : cases) {
        put(c.bytes);
        tw_trainer_options o = small(c.steps);
        o.seed = c.seed;
        tw_trainer *fresh = trainer(m, d, o);
        std::vector<float> before = vector_of(fresh, m->storage);
        EXPECT_NE(tw_trainer_resume(fresh, dir.c_str()), TW_OK) << c.text;
        EXPECT_NE(error().find(c.text), std::string::npos) << error();
        EXPECT_EQ(vector_of(fresh, m->storage), before);
        EXPECT_EQ(tw_trainer_step_count(fresh), 0);
        step(fresh); /* still of use */
        tw_trainer_free(fresh);
    }
    put(good);
    tw_model *other = model(R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 32,
                                "layers": 3, "act_fn": "relu"})");
    t = trainer(other, d, small(8));
    EXPECT_EQ(tw_trainer_resume(t, dir.c_str()), TW_ERROR_ARGUMENT);
    EXPECT_NE(error().find("another model configuration"), std::string::npos) << error();
    tw_trainer_free(t);
    tw_model_free(other);
    t = trainer(m, d, small(8));
    EXPECT_NE(tw_trainer_resume(t, (dir + "/nowhere").c_str()), TW_OK);
    EXPECT_NE(tw_trainer_save(t, (path + "/below-a-file").c_str()), TW_OK);
    EXPECT_EQ(tw_trainer_resume(t, dir.c_str()), TW_OK) << error();
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
}

} // namespace
