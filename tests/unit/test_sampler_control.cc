// Hooks, guidance, failures and memory of samplers over callbacks.
#include "support/sampler_callback.h"
#include "support/scarce.h"

extern "C" {
#include "core/context.h"
}

namespace {

struct Seen {
    std::vector<std::vector<float>> x, x0;
    std::vector<tw_step_info> infos;
    int64_t elements = 0, stop_after = -1;

    static int hook(void *user, const tw_step_info *info) {
        auto *self = static_cast<Seen *>(user);
        const size_t n = (size_t)(info->count * self->elements);
        if (info->x) self->x.emplace_back(info->x, info->x + n);
        if (info->x0) self->x0.emplace_back(info->x0, info->x0 + n);
        self->infos.push_back(*info);
        return (int64_t)self->infos.size() == self->stop_after;
    }
};

TEST_F(SamplerCallback, TheHookSeesTheTrajectory) {
    model.f = [](double x, double t) { return std::sin(2 * x) * t / 900; };
    options.steps = 8;
    options.eta = 0.3;
    options.clipping = TW_CLIPPING_RANGE;
    Seen seen;
    seen.elements = elements();
    options.hook = Seen::hook;
    options.hook_user = &seen;
    options.want_x = options.want_x0 = 1;
    const std::vector<float> out = run(2);
    ASSERT_EQ(8u, seen.infos.size());
    ASSERT_EQ(8u, seen.x.size());
    EXPECT_EQ(out, seen.x.back());
    EXPECT_EQ(out, seen.x0.back()); // A_p = 1: the last x is its x0
    std::vector<std::vector<double>> want_x, want_x0;
    ReferenceSampler r;
    r.A = tw_schedule_alphas_cumprod(schedule.get());
    r.options = options;
    r.network = [&](const std::vector<double> &x, int64_t t, std::vector<double> &m,
                    std::vector<double> &) {
        for (double v : x) m.push_back(model.f(v, (double)t));
    };
    r.watch = [&](const std::vector<double> &x, const std::vector<double> &x0) {
        want_x.push_back(x), want_x0.push_back(x0);
    };
    for (const tw_step_info &info : seen.infos) r.times.push_back(info.timestep);
    EXPECT_EQ((std::vector<int64_t>{875, 750, 625, 500, 375, 250, 125, 0}), r.times);
    std::vector<double> x = ReferenceSampler::noise(0, 0, 2, elements(), 0, 0);
    r.run(x, elements());
    for (size_t i = 0; i < 8; i++) {
        EXPECT_EQ((int64_t)i, seen.infos[i].step);
        EXPECT_EQ(8, seen.infos[i].steps);
        EXPECT_EQ(0, seen.infos[i].first);
        EXPECT_EQ(2, seen.infos[i].count);
        EXPECT_EQ(sizeof(tw_step_info), seen.infos[i].size);
        expect_same(seen.x[i], want_x[i], 1e-5);
        expect_same(seen.x0[i], want_x0[i], 1e-4);
    }
}

TEST_F(SamplerCallback, TheHookGetsOnlyWhatItAsksFor) {
    model.f = [](double x, double) { return 0.1 * x; };
    options.steps = 2;
    options.max_batch = 2;
    Seen seen;
    seen.elements = elements();
    options.hook = Seen::hook;
    options.hook_user = &seen;
    run(3);
    ASSERT_EQ(4u, seen.infos.size());
    EXPECT_TRUE(seen.x.empty() && seen.x0.empty());
    EXPECT_EQ(2, seen.infos[3].first);
    EXPECT_EQ(1, seen.infos[3].count);
    options.want_x0 = 1;
    run(3);
    EXPECT_TRUE(seen.x.empty());
    EXPECT_EQ(4u, seen.x0.size());
}

TEST_F(SamplerCallback, TheHookCancelsAndFinishedChunksStay) {
    model.f = [](double x, double) { return 0.1 * x; };
    options.steps = 5;
    options.max_batch = 2;
    const std::vector<float> whole = run(6);
    Seen seen;
    seen.elements = elements();
    seen.stop_after = 8; // in the second chunk
    options.hook = Seen::hook;
    options.hook_user = &seen;
    Sampler sampler = make();
    std::vector<float> out(whole.size(), -7);
    EXPECT_REFUSED(TW_ERROR_CANCELLED, ctx.get(),
                   tw_sampler_run(sampler.get(), 6, nullptr, nullptr, out.data()),
                   "cancelled after step 3 of 5");
    EXPECT_EQ(8u, seen.infos.size());
    for (size_t i = 0; i < out.size(); i++)
        EXPECT_EQ(i < 2 * (size_t)elements() ? whole[i] : -7.0f, out[i]);
    // The sampler is usable afterwards.
    seen.stop_after = -1;
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 6, nullptr, nullptr, out.data()));
    EXPECT_EQ(whole, out);
}

// What guidance asks for.
struct Conditional {
    std::vector<std::vector<int32_t>> labels;
    static tw_status evaluate(void *user, const tw_tensor *x, const tw_tensor *t,
                              const int32_t *labels, tw_tensor *out, tw_stream stream) {
        auto *self = static_cast<Conditional *>(user);
        self->labels.emplace_back(labels, labels + x->shape[0]);
        EXPECT_EQ(nullptr, stream);
        for (const tw_tensor *v : {x, (const tw_tensor *)out}) {
            EXPECT_EQ(TW_DEVICE_CPU, v->device);
            EXPECT_EQ(TW_F32, v->dtype);
            EXPECT_EQ(3, v->rank);
            EXPECT_EQ(3, v->shape[1]);
            EXPECT_EQ(5, v->shape[2]);
            EXPECT_TRUE(tw_tensor_is_dense(v));
        }
        EXPECT_TRUE(x->read_only && t->read_only && !out->read_only);
        EXPECT_EQ(1, t->rank);
        EXPECT_EQ(x->shape[0], t->shape[0]);
        for (int64_t i = 0; i < tw_tensor_count(x); i++)
            static_cast<float *>(out->data)[i] =
                0.1f * (float)labels[i / 15] * std::tanh(static_cast<float *>(x->data)[i]);
        return TW_OK;
    }
};

TEST_F(SamplerCallback, GuidanceAsksTwiceAndExtrapolates) {
    Conditional user;
    tw_denoiser d = model.denoiser(shape, prediction);
    d.evaluate = Conditional::evaluate;
    d.user = &user;
    d.null_label = 9;
    options.guidance = 2.5;
    options.steps = 4;
    options.max_batch = 2;
    tw_sampler *made = nullptr;
    ASSERT_EQ(TW_OK, tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &options, &made));
    Sampler sampler(made);
    const int32_t labels[] = {1, 2, 3};
    std::vector<float> out(45);
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                   tw_sampler_run(sampler.get(), 3, nullptr, nullptr, out.data()), "needs a label");
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 3, labels, nullptr, out.data()));
    ASSERT_EQ(16u, user.labels.size());
    EXPECT_EQ((std::vector<int32_t>{1, 2}), user.labels[0]);
    EXPECT_EQ((std::vector<int32_t>{9, 9}), user.labels[1]);
    EXPECT_EQ((std::vector<int32_t>{3}), user.labels[14]);
    EXPECT_EQ((std::vector<int32_t>{9}), user.labels[15]);

    ReferenceSampler r;
    r.A = tw_schedule_alphas_cumprod(schedule.get());
    r.options = options;
    r.times = {750, 500, 250, 0};
    r.network = [&](const std::vector<double> &x, int64_t, std::vector<double> &m,
                    std::vector<double> &) {
        for (size_t i = 0; i < x.size(); i++)
            m.push_back((0.9 + 2.5 * (0.1 * labels[i / 15] - 0.9)) * std::tanh(x[i]));
    };
    std::vector<double> x = ReferenceSampler::noise(0, 0, 3, 15, 0, 0);
    r.run(x, 15);
    expect_same(out, x, 2e-5);
}

TEST_F(SamplerCallback, AFailingDenoiserEndsTheRun) {
    struct Fails {
        static tw_status silent(void *, const tw_tensor *, const tw_tensor *, const int32_t *,
                                tw_tensor *, tw_stream) {
            return TW_ERROR_DEVICE;
        }
        static tw_status telling(void *user, const tw_tensor *, const tw_tensor *, const int32_t *,
                                 tw_tensor *, tw_stream) {
            return tw_fail(static_cast<tw_context *>(user), TW_ERROR_IO, "the wire is cut");
        }
    };
    tw_denoiser d = model.denoiser(shape, prediction);
    std::vector<float> out(15);
    for (int telling = 0; telling < 2; telling++) {
        d.evaluate = telling ? Fails::telling : Fails::silent;
        d.user = ctx.get();
        tw_sampler *made = nullptr;
        ASSERT_EQ(TW_OK,
                  tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &options, &made));
        Sampler sampler(made);
        EXPECT_REFUSED(telling ? TW_ERROR_IO : TW_ERROR_DEVICE, ctx.get(),
                       tw_sampler_run(sampler.get(), 1, nullptr, nullptr, out.data()),
                       telling ? "the denoiser at step 1 of 50: the wire is cut"
                               : "the denoiser at step 1 of 50: device error");
    }
}

TEST_F(SamplerCallback, RefusesWhatItCannotDo) {
    model.f = [](double x, double) { return x; };
    const auto refused = [&](tw_status status, auto change, const char *words) {
        tw_denoiser d = model.denoiser(shape, prediction);
        tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
        change(d, o);
        tw_sampler *out = reinterpret_cast<tw_sampler *>(1);
        EXPECT_REFUSED(status, ctx.get(),
                       tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &o, &out), words);
        EXPECT_EQ(nullptr, out);
    };
    const tw_status bad = TW_ERROR_ARGUMENT;
    refused(
        bad, [](auto &, auto &o) { o.steps = 0; }, "0 steps, expected 1 to 1000");
    refused(
        bad, [](auto &, auto &o) { o.steps = 1001; }, "1001 steps, expected 1 to 1000");
    refused(
        bad, [](auto &, auto &o) { o.max_batch = 0; }, "max_batch 0");
    refused(
        bad, [](auto &, auto &o) { o.eta = -0.1; }, "eta -0.1");
    refused(
        bad, [](auto &, auto &o) { o.kind = (tw_sampler_kind)5; }, "kind 5");
    refused(
        bad, [](auto &, auto &o) { o.guidance = NAN; }, "guidance");
    refused(
        bad, [](auto &, auto &o) { o.spacing = TW_SPACING_CUSTOM; }, "needs its time steps");
    refused(
        bad, [](auto &, auto &o) { o.steps_offset = 20; }, "steps offset 20");
    refused(
        bad, [](auto &, auto &o) { o.clipping = (tw_clipping)8; }, "clipping 8");
    refused(
        bad, [](auto &, auto &o) { o.clipping = TW_CLIPPING_RANGE, o.clip_range = 0; },
        "clip range 0");
    refused(
        bad, [](auto &, auto &o) { o.clipping = TW_CLIPPING_DYNAMIC, o.dynamic_ratio = 1.1; },
        "quantile 1.1");
    refused(
        bad, [](auto &, auto &o) { o.clipping = TW_CLIPPING_DYNAMIC, o.dynamic_max = 0.5; },
        "maximum 0.5");
    refused(
        bad, [](auto &, auto &o) { o.size = 1 << 20; }, "_INIT");
    refused(
        bad, [](auto &d, auto &) { d.evaluate = nullptr; }, "no function");
    refused(
        bad, [](auto &d, auto &) { d.rank = 4; }, "rank 4");
    refused(
        bad, [](auto &d, auto &) { d.rank = 0; }, "rank 0");
    refused(
        bad, [](auto &d, auto &) { d.shape[1] = 0; }, "extent 1 of a sample is 0");
    refused(
        bad, [](auto &d, auto &) { d.shape[1] = INT64_MAX; }, "extent 1");
    refused(
        bad, [](auto &d, auto &) { d.prediction = (tw_prediction)3; }, "prediction 3");
    const int64_t rising[] = {5, 6}, outside[] = {1000, 3}, negative[] = {5, -1};
    for (const int64_t *times : {rising, outside, negative})
        refused(
            bad,
            [&](auto &, auto &o) {
                o.spacing = TW_SPACING_CUSTOM, o.steps = 2, o.timesteps = times;
            },
            "falling order");
    linear.zero_terminal_snr = 1;
    schedule = make_schedule(ctx.get(), linear);
    refused(
        TW_ERROR_UNSUPPORTED, [](auto &, auto &o) { o.spacing = TW_SPACING_TRAILING; },
        "zero terminal SNR");

    Sampler sampler = make();
    float out[15];
    EXPECT_REFUSED(bad, ctx.get(), tw_sampler_run(sampler.get(), 0, nullptr, nullptr, out),
                   "0 samples");
    EXPECT_REFUSED(bad, ctx.get(), tw_sampler_run(sampler.get(), INT64_MAX, nullptr, nullptr, out),
                   "samples");
    EXPECT_REFUSED(bad, ctx.get(), tw_sampler_run(sampler.get(), 1, nullptr, nullptr, nullptr),
                   "a place for the samples");
    options.first_sample = (uint64_t)1 << 48;
    EXPECT_REFUSED(bad, ctx.get(), tw_sampler_run(make().get(), 1, nullptr, nullptr, out),
                   "below 2^48");
}

TEST_F(SamplerCallback, MemoryIsKnownBefore) {
    model.f = [](double x, double) { return x; };
    options.max_batch = 4;
    Sampler sampler = make();
    size_t four = 0, ten = 0, again = 0;
    ASSERT_EQ(TW_OK, tw_sampler_memory(sampler.get(), 4, &four));
    ASSERT_EQ(TW_OK, tw_sampler_memory(sampler.get(), 10, &ten)); // 4 and 2
    ASSERT_EQ(TW_OK, tw_sampler_memory(sampler.get(), 8, &again));
    // x, the answer and x_T in the arena, at least.
    EXPECT_GE(four, 3 * 4 * 15 * sizeof(float));
    EXPECT_GT(ten, four);
    EXPECT_EQ(four, again);
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(), tw_sampler_memory(sampler.get(), 0, &four),
                   "0 samples");
}

TEST(SamplerMemory, EveryAllocationMayFailAndNothingLeaks) {
    tw_test::Scarce scarce;
    Conditional user;
    Pointwise none;
    tw_denoiser d = none.denoiser({3, 5}, TW_PREDICT_EPSILON);
    d.evaluate = Conditional::evaluate;
    d.user = &user;
    Seen seen;
    seen.elements = 15;
    const tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    options.steps = 2;
    options.guidance = 2;
    options.clipping = TW_CLIPPING_DYNAMIC;
    options.hook = Seen::hook;
    options.hook_user = &seen;
    options.want_x = options.want_x0 = 1;
    const int32_t labels[] = {0, 1, 2};
    tw_test::fail_everywhere(
        scarce,
        [&]() -> tw_test::Outcome {
            tw_schedule *schedule = nullptr;
            tw_sampler *sampler = nullptr;
            float out[45] = {};
            seen.x.clear(), seen.x0.clear(), seen.infos.clear();
            tw_status s = tw_schedule_create(scarce.ctx(), &linear, &schedule);
            if (s == TW_OK)
                s = tw_sampler_create_callback(scarce.ctx(), &d, schedule, &options, &sampler);
            if (s == TW_OK) s = tw_sampler_run(sampler, 3, labels, nullptr, out);
            tw_sampler_free(sampler);
            tw_schedule_free(schedule);
            return {s, std::string(reinterpret_cast<const char *>(out), sizeof out)};
        },
        20);
}

} // namespace
