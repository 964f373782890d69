// Sampling on the GPU's backend: as the CPU does it, in recorded steps, and what fails.
#include "networks.h"
#include "support/tempdir.h"

#include <thread>

namespace {

class CudaSampling : public CudaEngine {};

// Every kind of step; samples and the x0 of every step.
TEST_F(CudaSampling, SamplesAsTheCpuDoes) {
    std::vector<std::pair<const char *, tw_sampler_options>> runs;
    const auto add = [&](const char *config, const std::function<void(tw_sampler_options &)> &set) {
        tw_sampler_options o = FiveSteps();
        set(o);
        runs.emplace_back(config, o);
    };
    for (const char *config : {kMlp, kUnet})
        for (double eta : {0.0, 1.0})
            for (double guidance : {1.0, 2.5})
                add(config, [&](auto &o) { o.eta = eta, o.guidance = guidance; });
    add(kUnet, [](auto &o) { o.kind = TW_SAMPLER_DDPM, o.guidance = 2; });
    add(kUnet, [](auto &o) { o.clipping = TW_CLIPPING_DYNAMIC, o.dynamic_max = 2; });
    add(kUnet, [](auto &o) { o.clipping = TW_CLIPPING_RANGE, o.rederive_epsilon = 1; });
    for (double guidance : {1.0, 2.5}) add(kAttention, [&](auto &o) { o.guidance = guidance; });
    add(kLearned, [](auto &o) { o.clipping = TW_CLIPPING_NONE; });
    for (tw_clipping clipping : {TW_CLIPPING_RANGE, TW_CLIPPING_DYNAMIC})
        add(kLearned, [&](auto &o) {
            o.kind = TW_SAMPLER_DDPM;
            o.variance = TW_VARIANCE_LEARNED_RANGE;
            o.guidance = 1.5;
            o.clipping = clipping;
            o.dynamic_max = 3;
        });
    double worst = 0;
    for (size_t i = 0; i < runs.size(); i++) {
        SCOPED_TRACE("run " + std::to_string(i));
        std::vector<Drawn> r;
        OnBoth([&](tw_context *ctx) {
            tw_model *m = MakeModel(ctx, runs[i].first);
            r.push_back(Draw(m, runs[i].second, 3, {0, 2, 1}));
            tw_model_free(m);
        });
        ASSERT_EQ(r.size(), 2u);
        const double x = Distance(r[1].x, r[0].x), x0 = Distance(r[1].x0, r[0].x0);
        EXPECT_LT(x, 5e-4); // five guided steps of such weights make of rounding up to 1.2e-4
        EXPECT_LT(x0, 5e-4);
        worst = std::fmax(worst, std::fmax(x, x0));
    }
    Note("of_rms", worst);
}

double RmsDistance(const Floats &got, const Floats &want) {
    double d = 0, sum = 0;
    for (size_t i = 0; i < want.size(); i++) {
        d += std::pow((double)got[i] - (double)want[i], 2);
        sum += std::pow((double)want[i], 2);
    }
    return got.size() == want.size() ? std::sqrt(d / sum) : NAN;
}

TEST_F(CudaSampling, SamplesInLowPrecisionAsTheCpuDoes) {
    const struct {
        tw_precision precision;
        double tolerance; // of the CPU's float32: five steps of such weights make much of rounding
    } formats[] = {{TW_PRECISION_TF32, 3e-2}, {TW_PRECISION_BF16, 2e-1}, {TW_PRECISION_F16, 3e-2}};
    for (const char *config : {kMlp, kUnet, kAttention}) {
        tw_sampler_options o = FiveSteps();
        Drawn exact;
        const auto draw = [&](tw_device device) {
            Context c(device);
            tw_model *m = MakeModel(c.get(), config);
            Drawn d = Draw(m, o, 3, {0, 2, 1});
            tw_model_free(m);
            if (device == TW_DEVICE_CUDA) {
                EXPECT_EQ(c.logged(), "");
            }
            return d;
        };
        exact = draw(TW_DEVICE_CPU);
        for (const auto &f : formats) {
            o.precision = f.precision;
            const Drawn got = draw(TW_DEVICE_CUDA);
            const double x = RmsDistance(got.x, exact.x);
            EXPECT_LT(x, f.tolerance) << f.precision;
            EXPECT_GT(x, 1e-6) << f.precision << ": is that another format?";
            EXPECT_LT(RmsDistance(got.x0, exact.x0), f.tolerance) << f.precision;
            EXPECT_EQ(draw(TW_DEVICE_CUDA).x, got.x) << "from run to run";
            Note(("x" + std::to_string(f.precision)).c_str(), x);
        }
    }
}

// What a callback on the device does: out = x / 2, queued on the stream that it is given.
tw_status Halve(void *user, const tw_tensor *x, const tw_tensor *, const int32_t *, tw_tensor *out,
                tw_stream stream) {
    tw_context *ctx = static_cast<tw_context *>(user);
    EXPECT_EQ(stream, ctx->backend->stream);
    EXPECT_EQ(x->device, tw_context_device(ctx));
    int64_t count = tw_tensor_count(x);
    Floats values((size_t)count);
    tw_backend *b = ctx->backend;
    EXPECT_EQ(b->download(b, values.data(), x->data, values.size() * sizeof(float)), TW_OK);
    for (float &v : values) v *= 0.5f;
    return b->upload(b, out->data, values.data(), values.size() * sizeof(float));
}

TEST_F(CudaSampling, ACallbackGetsTheStreamAndDeviceTensors) {
    std::vector<Floats> r;
    OnBoth([&](tw_context *ctx) {
        tw_denoiser d = {};
        d.size = sizeof d;
        d.evaluate = Halve;
        d.user = ctx;
        d.rank = 1;
        d.shape[0] = 3;
        d.prediction = TW_PREDICT_V;
        tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
        tw_schedule *schedule = nullptr;
        tw_sampler *s = nullptr;
        tw_sampler_options o = FiveSteps();
        o.eta = 0.5;
        ASSERT_EQ(tw_schedule_create(ctx, &linear, &schedule), TW_OK);
        ASSERT_EQ(tw_sampler_create_callback(ctx, &d, schedule, &o, &s), TW_OK)
            << tw_context_error(ctx);
        Floats out(9);
        EXPECT_EQ(tw_sampler_run(s, 3, nullptr, nullptr, out.data()), TW_OK)
            << tw_context_error(ctx);
        r.push_back(out);
        tw_sampler_free(s);
        tw_schedule_free(schedule);
    });
    EXPECT_LT(Distance(r[1], r[0]), 1e-5);
}

// A step is one graph.
TEST_F(CudaSampling, StepsAreGraphs) {
    Context c(TW_DEVICE_CUDA);
    tw_model *m = MakeModel(c.get(), kMlp);
    tw_sampler_options o = FiveSteps();
    tw_sampler *s = nullptr;
    ASSERT_EQ(tw_sampler_create(m, &o, &s), TW_OK);
    Floats out(4);
    const int32_t labels[] = {0, 1};
    for (int run = 0; run < 3; run++) {
        const emulated::Counts before = emulated::counts();
        ASSERT_EQ(tw_sampler_run(s, 2, labels, nullptr, out.data()), TW_OK);
        const emulated::Counts after = emulated::counts();
        if (run < 2) continue;
        EXPECT_EQ(after.graphs - before.graphs, 6) << "the noise and five steps";
        EXPECT_EQ(after.launches, before.launches);
        EXPECT_EQ(after.waits - before.waits, 1) << "for the samples";
    }
    tw_sampler_free(s);
    tw_model_free(m);
}

TEST_F(CudaSampling, WantOfDeviceMemoryIsAStatus) {
    Context c(TW_DEVICE_CUDA);
    const int32_t labels[] = {0, 1, 2};
    tw_test::TempDir dir;
    tw_model *made = MakeModel(c.get(), kMlp);
    ASSERT_EQ(tw_model_save(made, dir.path().c_str()), TW_OK) << tw_context_error(c.get());
    tw_model_free(made);
    FailEverywhere(
        c,
        [&]() -> Outcome {
            tw_model *m = nullptr;
            tw_sampler *s = nullptr;
            Floats out(6, NAN);
            tw_sampler_options o = FiveSteps();
            tw_status status = tw_model_load(c.get(), dir.path().c_str(), nullptr, &m);
            EXPECT_EQ(m != nullptr, status == TW_OK);
            if (status == TW_OK) status = tw_sampler_create(m, &o, &s);
            EXPECT_EQ(s != nullptr, status == TW_OK);
            if (status == TW_OK) status = tw_sampler_run(s, 3, labels, nullptr, out.data());
            tw_sampler_free(s);
            tw_model_free(m);
            return {status, out};
        },
        20);
}

// A sampler that could not run for want of memory runs when there is some.
TEST_F(CudaSampling, AHandleIsUsableAfterAFailure) {
    Context c(TW_DEVICE_CUDA);
    tw_model *m = MakeModel(c.get(), kMlp);
    tw_sampler_options o = FiveSteps();
    const int32_t labels[] = {0, 1, 2};
    Floats right(6);
    int64_t failures = 0;
    for (int64_t k = -1;; k++) {
        tw_sampler *s = nullptr;
        ASSERT_EQ(tw_sampler_create(m, &o, &s), TW_OK);
        if (k >= 0) emulated::fail_at(k, k % 2 == 1);
        Floats out(6, NAN);
        const tw_status status = tw_sampler_run(s, 3, labels, nullptr, out.data());
        const bool failed = emulated::failed() && k >= 0;
        emulated::plenty();
        if (k < 0) right = out;
        if (failed && status != TW_OK) {
            failures++;
            EXPECT_EQ(status, TW_ERROR_MEMORY);
            ASSERT_EQ(tw_sampler_run(s, 3, labels, nullptr, out.data()), TW_OK) << k;
        }
        EXPECT_EQ(out, right) << k;
        tw_sampler_free(s);
        if (k >= 0 && !failed) break;
    }
    EXPECT_GT(failures, 10);
    tw_model_free(m);
}

TEST_F(CudaSampling, WhatNoKernelDoesIsNamed) {
    Context c(TW_DEVICE_CUDA);
    tw_plan *plan = nullptr;
    tw_plan_options o = TW_PLAN_OPTIONS_INIT;
    o.precision = TW_F64;
    const int64_t two = 2;
    ASSERT_EQ(tw_plan_create(c.get(), &o, &plan), TW_OK);
    tw_plan_keep(plan,
                 tw_plan_activation(plan, tw_plan_input(plan, "x", TW_F64, 1, &two), TW_SILU));
    EXPECT_EQ(tw_plan_compile(plan), TW_ERROR_UNSUPPORTED);
    EXPECT_STREQ(tw_context_error(c.get()),
                 "plan: no provider of the cuda backend runs act with these shapes: act: a GPU "
                 "calculates in float32, not in float64");
    tw_plan_free(plan);
}

#ifndef TW_TEST_DEVICE
// The device goes wrong in the middle of a run: a status at the next chance to say so.
TEST_F(CudaSampling, AFaultEndsTheRun) {
    Context c(TW_DEVICE_CUDA);
    tw_model *m = MakeModel(c.get(), kMlp);
    tw_sampler_options o = FiveSteps();
    tw_sampler *s = nullptr;
    ASSERT_EQ(tw_sampler_create(m, &o, &s), TW_OK);
    Floats out(4);
    const int32_t labels[] = {0, 1};
    emulated::break_stream();
    EXPECT_EQ(tw_sampler_run(s, 2, labels, nullptr, out.data()), TW_ERROR_DEVICE);
    EXPECT_NE(std::string(tw_context_error(c.get())).find("illegal memory access"),
              std::string::npos);
    tw_sampler_free(s);
    tw_model_free(m);
}
#endif

TEST_F(CudaSampling, SeveralThreadsSampleAtOnce) {
    std::vector<Floats> all(3);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < all.size(); t++)
        threads.emplace_back([&all, t] {
            Context c(TW_DEVICE_CUDA);
            tw_model *m = MakeModel(c.get(), kMlp);
            all[t] = Draw(m, FiveSteps(), 3, {0, 2, 1}).x;
            tw_model_free(m);
        });
    for (std::thread &t : threads) t.join();
    EXPECT_EQ(all[1], all[0]);
    EXPECT_EQ(all[2], all[0]);
}

} // namespace
