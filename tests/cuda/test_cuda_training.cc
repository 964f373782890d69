// Training on the GPU's backend: as the CPU does it, in recorded steps, and what fails.
#include "libraries.h"
#include "networks.h"

extern "C" {
#include "backend/cuda/feed.h"
#include "core/halfs.h"
#include "data/dataset.h"
#include "graph/internal.h"
#include "graph/times.h"
#include "train/internal.h"
}

namespace {

class CudaTraining : public CudaEngine {};

struct Training {
    Floats losses, norms, weights, ema, rounded; // the last: bf16, as numbers
    double held_out = 0;
};

tw_trainer_options ThreeSteps(bool images) {
    tw_trainer_options o = TW_TRAINER_OPTIONS_INIT;
    o.steps = 3;
    o.batch_size = 2;
    o.accumulate = 2;
    o.lr_warmup = 2;
    o.eps = 0.1; // else the sign of a gradient that is rounding makes a whole step
    o.weight_decay = 0.01;
    o.clip_norm = 0.5;
    o.antithetic = 1;
    o.cond_dropout = 0.3;
    o.flip = images ? 0.5 : 0;
    o.holdout = 0.2;
    o.weight = TW_WEIGHT_MIN_SNR;
    o.seed = 3;
    return o;
}

Training Train(tw_context *ctx, const char *config, tw_recompute recompute = TW_RECOMPUTE_NONE,
               tw_precision precision = TW_PRECISION_F32) {
    Training r;
    tw_model *m = MakeModel(ctx, config);
    tw_dataset *d = MakeData(ctx, m);
    tw_trainer_options o = ThreeSteps(config != kMlp);
    o.recompute = recompute;
    o.precision = precision;
    tw_trainer *t = nullptr;
    EXPECT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(ctx);
    for (int i = 0; t && i < 3; i++) {
        tw_train_metrics metrics = {};
        metrics.size = sizeof metrics;
        EXPECT_EQ(tw_trainer_step(t, &metrics), TW_OK) << tw_context_error(ctx);
        r.losses.push_back((float)metrics.loss);
        r.norms.push_back((float)metrics.grad_norm);
        EXPECT_EQ(metrics.skipped, 0);
    }
    if (t) {
        EXPECT_EQ(tw_trainer_validate(t, 1, 0, &r.held_out), TW_OK) << tw_context_error(ctx);
        r.weights = Storage(m, m->storage);
        r.ema = Storage(m, t->ema);
    }
    if (t && precision == TW_PRECISION_BF16) {
        Floats flat((size_t)m->weights.total);
        std::vector<uint16_t> bits(flat.size());
        EXPECT_EQ(
            ctx->backend->download(ctx->backend, bits.data(), t->rounded.weights, 2 * bits.size()),
            TW_OK);
        for (size_t i = 0; i < bits.size(); i++) flat[i] = tw_bf16_to_f32(bits[i]);
        r.rounded.resize((size_t)m->weights.saved);
        tw_weights_to_state(&m->weights, flat.data(), r.rounded.data());
    }
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
    return r;
}

TEST_F(CudaTraining, TrainsAsTheCpuDoes) {
    for (const char *config : {kMlp, kUnet, kAttention, kMeasured}) {
        std::vector<Training> r;
        OnBoth([&](tw_context *ctx) { r.push_back(Train(ctx, config)); });
        const double loss = Distance(r[1].losses, r[0].losses),
                     norm = Distance(r[1].norms, r[0].norms),
                     weights = Distance(r[1].weights, r[0].weights),
                     ema = Distance(r[1].ema, r[0].ema);
        EXPECT_LT(loss, 1e-5);
        EXPECT_LT(norm, 2e-5);
        EXPECT_LT(weights, 1e-5);
        EXPECT_LT(ema, 1e-5);
        EXPECT_NEAR(r[1].held_out, r[0].held_out, 1e-5 * r[0].held_out);
        const std::string name = config == kMlp ? "mlp" : config == kUnet ? "unet" : "attention";
        Note((name + "_losses").c_str(), loss);
        Note((name + "_weights").c_str(), weights);
    }
}

// In bf16 the two round at other places, in tf32 only the device rounds; what the network reads are
// the optimizer's weights, rounded, to the bit. The device joins operations that the reference does
// one by one: both norms are within 2e-2 of those in float32.
TEST_F(CudaTraining, TrainsInLowPrecisionAsTheCpuDoes) {
    for (const char *config : {kMlp, kUnet, kAttention})
        for (tw_precision precision : {TW_PRECISION_TF32, TW_PRECISION_BF16}) {
            SCOPED_TRACE(std::string(config).substr(0, 40) + " " + std::to_string(precision));
            const double tolerance = precision == TW_PRECISION_BF16 ? 1e-2 : 2e-3;
            std::vector<Training> r;
            OnBoth([&](tw_context *ctx) {
                r.push_back(Train(ctx, config, TW_RECOMPUTE_NONE, precision));
            });
            const double loss = Distance(r[1].losses, r[0].losses),
                         norm = Distance(r[1].norms, r[0].norms),
                         weights = Distance(r[1].weights, r[0].weights);
            EXPECT_LT(loss, tolerance);
            EXPECT_LT(norm, 3 * tolerance);
            EXPECT_LT(weights, tolerance);
            EXPECT_NEAR(r[1].held_out, r[0].held_out, tolerance * r[0].held_out);
            EXPECT_NE(r[1].losses, r[0].losses);
            Note("loss", loss);
            Note("norm", norm);
            for (size_t i = 0; i < r[1].rounded.size(); i++)
                ASSERT_EQ(r[1].rounded[i], tw_bf16_to_f32(tw_f32_to_bf16(r[1].weights[i]))) << i;
        }
}

TEST_F(CudaTraining, RecomputationKeepsTheBits) {
    for (const char *config : {kMlp, kUnet, kAttention, kMeasured}) {
        Context c(TW_DEVICE_CUDA);
        const Training none = Train(c.get(), config);
        for (tw_recompute recompute : {TW_RECOMPUTE_NORMS, TW_RECOMPUTE_BLOCKS}) {
            const Training again = Train(c.get(), config, recompute);
            EXPECT_EQ(again.losses, none.losses) << recompute;
            EXPECT_EQ(again.weights, none.weights) << recompute;
            EXPECT_EQ(again.ema, none.ema) << recompute;
        }
    }
}

class CudaPlanning : public CudaTraining, public ::testing::WithParamInterface<tw_precision> {};
INSTANTIATE_TEST_SUITE_P(Precisions, CudaPlanning,
                         ::testing::Values(TW_PRECISION_F32, TW_PRECISION_BF16));

TEST_P(CudaPlanning, NeedsNoMemory) {
    Context planning(TW_DEVICE_CUDA), real(TW_DEVICE_CUDA);
    tw_backend_plan_only(planning.get()->backend);
    const size_t before = emulated::device_bytes();
    tw_model *planned = MakeModel(planning.get(), kUnet);
    tw_trainer_options o = ThreeSteps(true);
    o.precision = GetParam();
    o.batch_size = 64; // batches travel through slots of their own
    o.resident_limit = 0;
    tw_trainer_budget b = {};
    EXPECT_EQ(tw_trainer_plan_budget(planned, &o, &b), TW_OK) << tw_context_error(planning.get());
    EXPECT_EQ(emulated::device_bytes(), before);
    tw_model *m = MakeModel(real.get(), kUnet);
    tw_dataset *d = MakeData(real.get(), m);
    tw_trainer *t = nullptr;
    EXPECT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(real.get());
    tw_trainer_memory memory = {};
    memory.size = sizeof memory;
    if (t) {
        EXPECT_EQ(tw_trainer_get_memory(t, &memory), TW_OK);
    }
    EXPECT_EQ(b.plans.kept + b.plans.passing + b.plans.workspace + b.plans.gaps, memory.arena);
    EXPECT_EQ(b.plans.inputs + b.plans.held, memory.staging);
    const size_t batch = 64 * 64 * sizeof(float);
    EXPECT_GE(memory.staging, 2 * batch + TW_FEED_SLOTS * batch);
    EXPECT_EQ(b.rounded, memory.rounded);
    EXPECT_EQ(b.rounded, GetParam() == TW_PRECISION_BF16 ? memory.weights / 2 : 0);
    tw_trainer_free(t);
    tw_dataset_free(d);
    tw_model_free(m);
    tw_model_free(planned);
}

TEST_F(CudaTraining, TrainsWithTheLibraries) {
    if (!kHaveLibraries) GTEST_SKIP() << "built without the headers of cuDNN or cuBLASLt";
    const struct {
        tw_precision precision;
        double tolerance;
    } formats[] = {{TW_PRECISION_F32, 1e-5}, {TW_PRECISION_TF32, 2e-3}, {TW_PRECISION_BF16, 1e-2}};
    for (const auto &f : formats) {
        SCOPED_TRACE(f.precision);
        const Libraries libraries;
        std::vector<Training> r;
        OnBoth(
            [&](tw_context *ctx) {
                r.push_back(Train(ctx, kAttention, TW_RECOMPUTE_NONE, f.precision));
            },
            "cudnn");
#ifndef TW_TEST_DEVICE
        EXPECT_GT(fake_state()->executed, 100);
#endif
        EXPECT_LT(Distance(r[1].losses, r[0].losses), f.tolerance);
        EXPECT_LT(Distance(r[1].norms, r[0].norms), 2 * f.tolerance);
        EXPECT_LT(Distance(r[1].weights, r[0].weights), f.tolerance);
    }
}

// Both are taken, for different products; what is made again is chosen as what it stands for.
TEST_F(CudaTraining, TunedTrainingIsTheSame) {
    if (!kHaveLibraries) GTEST_SKIP() << "built without the headers of cuDNN or cuBLASLt";
    const Libraries libraries;
    Context cpu(TW_DEVICE_CPU), c(TW_DEVICE_CUDA);
#ifndef TW_TEST_DEVICE
    emulated::set_costs(2, 3);
#endif
    ASSERT_EQ(tw_context_tune(c.get(), nullptr), TW_OK) << tw_context_error(c.get());
    const Training want = Train(cpu.get(), kAttention), none = Train(c.get(), kAttention),
                   again = Train(c.get(), kAttention, TW_RECOMPUTE_BLOCKS);
    EXPECT_EQ(c.logged().find("refused"), std::string::npos) << c.logged();
    const tw_choices &choices = c.get()->backend->choices;
    EXPECT_GT(choices.timed, 10);
#ifndef TW_TEST_DEVICE
    for (int provider = 0; provider < 2; provider++)
        EXPECT_GT(choices.operations[provider][TW_OP_CONV2D] +
                      choices.operations[provider][TW_OP_CONV2D_BWD_DATA] +
                      choices.operations[provider][TW_OP_CONV2D_BWD_WEIGHT],
                  0);
#endif
    EXPECT_LT(Distance(none.losses, want.losses), 1e-5);
    EXPECT_LT(Distance(none.weights, want.weights), 1e-5);
    EXPECT_EQ(again.losses, none.losses);
    EXPECT_EQ(again.weights, none.weights);
}

struct Micro { // a trainer's first plan, run by hand
    tw_model *m;
    tw_dataset *d;
    tw_trainer *t = nullptr;
    explicit Micro(tw_context *ctx, const char *config) {
        m = MakeModel(ctx, config);
        d = MakeData(ctx, m);
        const tw_trainer_options o = ThreeSteps(config != kMlp);
        EXPECT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(ctx);
    }
    ~Micro() {
        tw_trainer_free(t);
        tw_dataset_free(d);
        tw_model_free(m);
    }
    Floats Gradients() const { return Storage(m, t->gradients); }
};

TEST_F(CudaTraining, ARunNeitherAllocatesNorWaitsAndIsRecordedOnce) {
    Context c(TW_DEVICE_CUDA);
    Micro micro(c.get(), kUnet);
    tw_plan_stats stats = {};
    stats.size = sizeof stats;
    ASSERT_EQ(tw_plan_get_stats(micro.t->micro.plan, &stats), TW_OK);
    for (int run = 0; run < 4; run++) {
        const emulated::Counts before = emulated::counts();
        ASSERT_EQ(tw_plan_run(micro.t->micro.plan), TW_OK) << tw_context_error(c.get());
        const emulated::Counts after = emulated::counts();
        EXPECT_EQ(after.device, before.device);
        EXPECT_EQ(after.pinned, before.pinned);
        EXPECT_EQ(after.waits, before.waits);
        EXPECT_EQ(after.captures - before.captures, run == 1) << run;
        EXPECT_EQ(after.graphs - before.graphs, run >= 1) << run;
        if (run > 1) {
            EXPECT_EQ(after.launches, before.launches) << "one graph, nothing else";
            EXPECT_EQ(after.copies, before.copies);
        } else {
            EXPECT_GT(after.launches - before.launches, stats.launches / 2);
        }
    }
    EXPECT_EQ(c.get()->backend->synchronize(c.get()->backend), TW_OK);
    EXPECT_EQ(c.logged(), "");
}

// Four runs by replay, and four call by call, for the four reasons that there are for that.
TEST_F(CudaTraining, ReplaysGiveTheSameBits) {
    std::vector<Floats> gradients;
    for (int how = 0; how < 5; how++) {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.poison = how == 1;
        Context c(TW_DEVICE_CUDA, &o);
        Micro micro(c.get(), kUnet);
        emulated::break_captures(how == 2);
        c.get()->backend->plain = how == 4;
        if (how == 3) {
            ASSERT_EQ(tw_plan_start_times(micro.t->micro.plan), TW_OK);
        }
        const emulated::Counts before = emulated::counts();
        for (int run = 0; run < 4; run++)
            ASSERT_EQ(tw_plan_run(micro.t->micro.plan), TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(emulated::counts().graphs - before.graphs, how == 0 ? 3 : 0);
        EXPECT_EQ(emulated::counts().captures - before.captures, how == 0 || how == 2);
        EXPECT_EQ(c.logged().find("call by call") != std::string::npos, how == 2) << c.logged();
        emulated::break_captures(false);
        gradients.push_back(micro.Gradients());
        EXPECT_EQ(gradients.back(), gradients.front()) << how;
    }
}

// A step is one graph for each of its micro-steps and one for the update, and a launch for each
// batch that is taken from the data on the device.
TEST_F(CudaTraining, StepsAreGraphs) {
    Context c(TW_DEVICE_CUDA);
    Micro micro(c.get(), kMlp);
    for (int step = 0; step < 3; step++) {
        const emulated::Counts before = emulated::counts();
        ASSERT_EQ(tw_trainer_step(micro.t, nullptr), TW_OK) << tw_context_error(c.get());
        const emulated::Counts after = emulated::counts();
        if (step < 2) continue;
        EXPECT_EQ(after.graphs - before.graphs, 3) << "two micro-steps and the update";
        EXPECT_EQ(after.launches - before.launches, 2);
        EXPECT_EQ(after.waits, before.waits);
        EXPECT_EQ(after.device, before.device);
    }
}
// Metrics that are read later, or never, are those that are waited for, and cost no wait.
TEST_F(CudaTraining, MetricsComeLater) {
    std::vector<tw_train_metrics> want;
    for (int how = 0; how < 3; how++) { // each step's at once, two steps later, at the end
        Context c(TW_DEVICE_CUDA);
        tw_model *m = MakeModel(c.get(), kMlp);
        tw_dataset *d = MakeData(c.get(), m);
        tw_trainer_options o = ThreeSteps(false);
        o.steps = 12;
        tw_trainer *t = nullptr;
        ASSERT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(c.get());
        std::vector<tw_train_metrics> got;
        tw_train_metrics metrics = {};
        metrics.size = sizeof metrics;
        ASSERT_EQ(tw_trainer_metrics(t, 1, &metrics), TW_OK);
        EXPECT_EQ(metrics.step, 0) << "no step yet";
        for (int i = 0; i < 12; i++) {
            const emulated::Counts before = emulated::counts();
            ASSERT_EQ(tw_trainer_step(t, how ? nullptr : &metrics), TW_OK);
            EXPECT_EQ(emulated::counts().waits - before.waits, how == 0);
            if (how == 0) got.push_back(metrics);
            if (how == 1 && i >= 2) {
                ASSERT_EQ(tw_trainer_metrics(t, 1, &metrics), TW_OK);
                got.push_back(metrics);
            }
        }
        if (how) {
            ASSERT_EQ(tw_trainer_metrics(t, 0, &metrics), TW_OK);
            EXPECT_EQ(metrics.step, 0) << "not done";
        }
        for (;;) {
            ASSERT_EQ(tw_trainer_metrics(t, 1, &metrics), TW_OK);
            if (!metrics.step) break;
            got.push_back(metrics);
        }
        if (how == 0) want = got;
        ASSERT_EQ(want.size(), 12u);
        ASSERT_EQ(got.size(), how < 2 ? 12u : (size_t)TW_METRICS_KEPT);
        for (size_t i = 0; i < got.size(); i++) {
            const tw_train_metrics &w = want[want.size() - got.size() + i];
            EXPECT_EQ(got[i].step, w.step);
            EXPECT_EQ(got[i].loss, w.loss);
            EXPECT_EQ(got[i].grad_norm, w.grad_norm);
            EXPECT_EQ(got[i].lr, w.lr);
            EXPECT_EQ(got[i].skipped, 0);
        }
        tw_trainer_free(t);
        tw_dataset_free(d);
        tw_model_free(m);
    }
}

// A data set that lies on the device makes the batches that the host would send, and only their
// places travel.
TEST_F(CudaTraining, ResidentDataIsTheSame) {
    struct Kind {
        const char *name, *config;
        int rank;
        int64_t shape[3], elements;
        bool bytes;
    };
    for (const Kind &k : {Kind{"pictures as bytes", kUnet, 3, {8, 8, 1}, 64, true},
                          Kind{"pictures as floats", kUnet, 3, {8, 8, 1}, 64, false},
                          Kind{"points", kMlp, 1, {2}, 2, false}}) {
        SCOPED_TRACE(k.name);
        std::vector<Floats> weights;
        std::vector<double> held_out;
        std::vector<int64_t> sent;
        const int64_t values = 20 * k.elements, bytes = k.bytes ? values : 4 * values;
        for (int64_t limit : {(int64_t)0, bytes}) {
            Context c(TW_DEVICE_CUDA);
            tw_model *m = MakeModel(c.get(), k.config);
            tw_dataset *d = nullptr;
            ASSERT_EQ(tw_dataset_new(c.get(), k.name, 20, k.rank, k.shape, &d), TW_OK);
            const auto whole = [](int64_t i) { return (uint8_t)((uint64_t)i * 2654435761u >> 9); };
            if (k.bytes) {
                d->bytes = static_cast<uint8_t *>(tw_allocate(c.get(), (size_t)values, 1));
                for (int64_t i = 0; i < values; i++) d->bytes[i] = whole(i);
            } else {
                d->values =
                    static_cast<float *>(tw_allocate(c.get(), (size_t)values, sizeof(float)));
                for (int64_t i = 0; i < values; i++) d->values[i] = (float)whole(i) / 77 - 1;
            }
            int32_t *labels = static_cast<int32_t *>(tw_allocate(c.get(), 20, sizeof *labels));
            for (int i = 0; i < 20; i++) labels[i] = i % 3;
            ASSERT_EQ(tw_dataset_set_labels(d, k.name, labels, 20), TW_OK);
            EXPECT_EQ(tw_dataset_resident_bytes(d, bytes - 1, SIZE_MAX), 0u);
            EXPECT_EQ(tw_dataset_resident_bytes(d, bytes, 4 * (size_t)bytes - 1), 0u);
            tw_trainer_options o = ThreeSteps(k.rank == 3);
            o.resident_limit = limit;
            tw_trainer *t = nullptr;
            ASSERT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(c.get());
            tw_trainer_memory memory = {};
            memory.size = sizeof memory;
            ASSERT_EQ(tw_trainer_get_memory(t, &memory), TW_OK);
            EXPECT_EQ(memory.resident, limit == bytes ? (size_t)bytes : 0u);
            const emulated::Counts first = emulated::counts();
            for (int i = 0; i < 3; i++) {
                const emulated::Counts before = emulated::counts();
                ASSERT_EQ(tw_trainer_step(t, nullptr), TW_OK) << tw_context_error(c.get());
                EXPECT_EQ(emulated::counts().waits, before.waits);
            }
            sent.push_back(emulated::counts().sent - first.sent);
            double loss = 0;
            ASSERT_EQ(tw_trainer_validate(t, 1, 0, &loss), TW_OK);
            held_out.push_back(loss);
            weights.push_back(Storage(m, m->storage));
            EXPECT_EQ(weights.back(), weights.front()) << limit;
            EXPECT_EQ(held_out.back(), held_out.front()) << limit;
            tw_trainer_free(t);
            tw_dataset_free(d);
            tw_model_free(m);
        }
        const int64_t samples = 3 * 2 * 2, place = k.bytes ? 8 : 4;
        EXPECT_EQ(sent[0] - sent[1], samples * (4 * k.elements - place));
    }
}

// All values of a byte, as the host makes numbers of them, and numbers as they are.
TEST_F(CudaTraining, SamplesOnTheDeviceAreTheHosts) {
    Context c(TW_DEVICE_CUDA);
    tw_backend *b = c.get()->backend;
    Floats all(256);
    for (bool are_bytes : {true, false}) {
        uint8_t bytes[256];
        for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
        if (are_bytes) tw_dataset_to_floats(bytes, 256, all.data());
        if (!are_bytes)
            for (int i = 0; i < 256; i++) all[i] = std::sin(0.37f * (float)i);
        const int64_t wide[] = {1, 0, 1};
        const int32_t narrow[] = {1, 0, 1};
        void *samples = nullptr, *which = nullptr, *out = nullptr;
        ASSERT_EQ(b->allocate(b, 1024, &samples), TW_OK);
        ASSERT_EQ(b->allocate(b, sizeof wide, &which), TW_OK);
        ASSERT_EQ(b->allocate(b, 3 * 128 * sizeof(float), &out), TW_OK);
        if (are_bytes) {
            ASSERT_EQ(b->upload(b, samples, bytes, 256), TW_OK);
            ASSERT_EQ(b->upload(b, which, wide, sizeof wide), TW_OK);
        } else {
            ASSERT_EQ(b->upload(b, samples, all.data(), 1024), TW_OK);
            ASSERT_EQ(b->upload(b, which, narrow, sizeof narrow), TW_OK);
        }
        const tw_samples_on_device p = {are_bytes, samples, 2, 128, which, 3};
        ASSERT_EQ(b->gather(b, &p, out), TW_OK) << tw_context_error(c.get());
        Floats got(3 * 128), want;
        ASSERT_EQ(b->download(b, got.data(), out, got.size() * sizeof(float)), TW_OK);
        for (int64_t i : wide)
            want.insert(want.end(), all.begin() + 128 * i, all.begin() + 128 * (i + 1));
        EXPECT_EQ(got, want);
        for (void *p : {samples, which, out}) b->release(b, p);
    }
}

// Batches large enough to travel on a stream of their own, early or late, give the bits of those
// that do not.
TEST_F(CudaTraining, BatchesThatTravelAheadAreTheSame) {
    std::vector<Floats> weights;
    for (int how = 0; how < 3; how++) {
        Context c(TW_DEVICE_CUDA);
        tw_backend *b = c.get()->backend;
        if (how == 0) b->feed = nullptr;
        emulated::hurry(how == 2);
        tw_model *m = MakeModel(c.get(), kMlp);
        tw_dataset *d = MakeData(c.get(), m);
        tw_trainer_options o = ThreeSteps(false);
        o.batch_size = (int64_t)TW_FEED_LEAST / 8 + 2;
        o.resident_limit = 0;
        tw_trainer *t = nullptr;
        ASSERT_EQ(tw_trainer_create(m, d, &o, &t), TW_OK) << tw_context_error(c.get());
        [[maybe_unused]] const emulated::Counts before = emulated::counts();
        for (int i = 0; i < 3; i++)
            ASSERT_EQ(tw_trainer_step(t, nullptr), TW_OK) << tw_context_error(c.get());
#ifndef TW_TEST_DEVICE
        EXPECT_EQ(emulated::counts().ahead > before.ahead, how == 2);
#endif
        weights.push_back(Storage(m, m->storage));
        EXPECT_EQ(weights.back(), weights.front()) << how;
        tw_trainer_free(t);
        tw_dataset_free(d);
        tw_model_free(m);
        emulated::hurry(false);
    }
}

TEST_F(CudaTraining, TrainingWithoutMemoryIsAStatusToo) {
    Context c(TW_DEVICE_CUDA);
    FailEverywhere(
        c,
        [&]() -> Outcome {
            tw_model *m = nullptr;
            tw_trainer *t = nullptr;
            Floats losses(3, NAN);
            tw_status status = tw_model_create(c.get(), kMlp, nullptr, nullptr, 0, 5, &m);
            tw_dataset *d = m ? MakeData(c.get(), m) : nullptr;
            const tw_trainer_options o = ThreeSteps(false);
            if (status == TW_OK) status = tw_trainer_create(m, d, &o, &t);
            EXPECT_EQ(t != nullptr, status == TW_OK);
            for (int i = 0; i < 3 && status == TW_OK; i++) {
                tw_train_metrics metrics = {};
                metrics.size = sizeof metrics;
                status = tw_trainer_step(t, &metrics);
                losses[(size_t)i] = (float)metrics.loss;
            }
            tw_trainer_free(t);
            tw_dataset_free(d);
            tw_model_free(m);
            return {status, losses};
        },
        20);
}

} // namespace
