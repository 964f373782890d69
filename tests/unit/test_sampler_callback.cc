#include "support/diffusion.h"
#include "support/sampler_reference.h"

#include <cstring>

extern "C" {
#include "core/context.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler_config.h"
}

namespace {

struct SamplerFree {
    void operator()(tw_sampler *sampler) const { tw_sampler_free(sampler); }
};
using Sampler = std::unique_ptr<tw_sampler, SamplerFree>;

// A denoiser of one number at a time, told to the library as a callback.
struct Pointwise {
    std::function<double(double x, double t)> f;
    int calls = 0;

    static tw_status evaluate(void *user, const tw_tensor *x, const tw_tensor *t, const int32_t *,
                              tw_tensor *out, tw_stream) {
        auto *self = static_cast<Pointwise *>(user);
        const int64_t n = x->shape[0], each = tw_tensor_count(x) / n;
        for (int64_t i = 0; i < n * each; i++)
            static_cast<float *>(out->data)[i] =
                (float)self->f(static_cast<const float *>(x->data)[i],
                               static_cast<const float *>(t->data)[i / each]);
        self->calls++;
        return TW_OK;
    }

    tw_denoiser denoiser(std::vector<int64_t> shape, tw_prediction prediction) {
        tw_denoiser d = {};
        d.size = sizeof d;
        d.evaluate = evaluate;
        d.user = this;
        d.rank = (int)shape.size();
        std::copy(shape.begin(), shape.end(), d.shape);
        d.prediction = prediction;
        return d;
    }
};

class SamplerCallback : public ::testing::Test {
  protected:
    Context ctx = cpu_context();
    tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
    Schedule schedule = make_schedule(ctx.get(), linear);
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    Pointwise model;
    std::vector<int64_t> shape = {3, 5};
    tw_prediction prediction = TW_PREDICT_EPSILON;

    int64_t elements() const {
        int64_t n = 1;
        for (int64_t d : shape) n *= d;
        return n;
    }

    Sampler make() {
        const tw_denoiser d = model.denoiser(shape, prediction);
        tw_sampler *sampler = nullptr;
        EXPECT_EQ(TW_OK,
                  tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &options, &sampler))
            << tw_context_error(ctx.get());
        return Sampler(sampler);
    }

    std::vector<float> run(int64_t n, const std::vector<float> &noise = {}) {
        Sampler sampler = make();
        std::vector<float> out((size_t)(n * elements()), NAN);
        EXPECT_TRUE(noise.empty() || noise.size() == out.size());
        EXPECT_EQ(TW_OK, tw_sampler_run(sampler.get(), n, nullptr,
                                        noise.empty() ? nullptr : noise.data(), out.data()))
            << tw_context_error(ctx.get());
        return out;
    }

    // The same run in double.
    std::vector<double> reference(int64_t n, const std::vector<float> &noise = {}) {
        ReferenceSampler r;
        r.A = tw_schedule_alphas_cumprod(schedule.get());
        Sampler sampler = make();
        int64_t count;
        const int64_t *times = tw_sampler_timesteps(sampler.get(), &count);
        r.times.assign(times, times + count);
        r.options = options;
        r.prediction = prediction;
        r.network = [&](const std::vector<double> &x, int64_t t, std::vector<double> &m,
                        std::vector<double> &) {
            for (double v : x) m.push_back(model.f(v, (double)t));
        };
        std::vector<double> x = noise.empty()
                                    ? ReferenceSampler::noise(options.seed, options.first_sample, n,
                                                              elements(), TW_PURPOSE_INITIAL, 0)
                                    : std::vector<double>(noise.begin(), noise.end());
        r.run(x, elements());
        return x;
    }

    void expect_same(const std::vector<float> &got, const std::vector<double> &want, double bound) {
        ASSERT_EQ(want.size(), got.size());
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_WITHIN(got[i], want[i], bound * (1 + std::abs(want[i]))) << i;
    }
};

// The sample of diffusers' own scheduler tests, in N,H,W,C order.
std::vector<float> diffusers_sample() {
    std::vector<float> x;
    for (int n = 0; n < 4; n++)
        for (int h = 0; h < 8; h++)
            for (int w = 0; w < 8; w++)
                for (int c = 0; c < 3; c++)
                    x.push_back((float)((((c * 8 + h) * 8 + w) * 4 + n) / 768.0));
    return x;
}

TEST_F(SamplerCallback, MeetsDiffusersRuns) {
    Json golden = load_golden("schedulers.json");
    json_t *runs = json_object_get(golden.get(), "runs"), *row;
    size_t r, checked = 0;
    json_array_foreach(runs, r, row) {
        const std::string scheduler = text(row, "scheduler");
        if (scheduler != "ddim" && scheduler != "ddpm") continue;
        SCOPED_TRACE(text(row, "name"));
        char *config_text = json_dumps(json_object_get(row, "config"), 0);
        tw_scheduler_config config;
        ASSERT_EQ(TW_OK, tw_scheduler_config_parse(ctx.get(), config_text, "golden", &config))
            << tw_context_error(ctx.get());
        free(config_text);
        schedule = make_schedule(ctx.get(), config.schedule);
        options = TW_SAMPLER_OPTIONS_INIT;
        options.kind = scheduler == "ddpm" ? TW_SAMPLER_DDPM : TW_SAMPLER_DDIM;
        options.steps = (int64_t)number(row, "steps");
        options.eta = number(row, "eta");
        options.seed = (uint64_t)number(row, "seed");
        options.variance = config.variance;
        options.clipping = config.clipping;
        options.clip_range = config.clip_range;
        options.set_alpha_to_one = config.set_alpha_to_one;
        prediction = config.prediction;
        shape = {8, 8, 3};
        model.f = [](double x, double t) { return x * t / (t + 1); };
        const std::vector<float> got = run(4, diffusers_sample());
        double sum = 0, norm = 0;
        for (float v : got) sum += std::abs(v), norm += (double)v * v;
        EXPECT_WITHIN(sum, number(row, "sum_abs"), 1e-4 * number(row, "sum_abs"));
        if (const json_t *published = json_object_get(row, "diffusers_test")) {
            EXPECT_WITHIN(sum, number(published, "sum_abs"), 1e-3);
        }
        const json_t *x = json_object_get(row, "x");
        EXPECT_WITHIN(std::sqrt(norm), number(x, "norm"), 1e-5 * number(x, "norm"));
        json_t *samples = json_object_get(x, "samples"), *sample;
        size_t k;
        json_array_foreach(samples, k, sample) {
            const size_t e = (size_t)json_integer_value(json_array_get(sample, 0));
            const double want = json_number_value(json_array_get(sample, 1));
            EXPECT_WITHIN(got.at(e), want, 1e-5) << e;
        }
        checked++;
    }
    EXPECT_EQ(10u, checked);
}

TEST_F(SamplerCallback, ConstantEpsilonHasAClosedFormWhateverTheSteps) {
    // Every DDIM step keeps e and moves x0 nowhere, so the end is the first x0.
    model.f = [](double, double) { return 0.25; };
    const double A_first = tw_schedule_alphas_cumprod(schedule.get())[600];
    for (int64_t steps : {1, 2, 7, 601}) {
        std::vector<int64_t> times;
        for (int64_t i = 0; i < steps; i++) times.push_back(600 - i * (601 / steps));
        options.spacing = TW_SPACING_CUSTOM;
        options.steps = steps;
        options.timesteps = times.data();
        std::vector<float> noise((size_t)elements() * 2);
        for (size_t i = 0; i < noise.size(); i++) noise[i] = 0.3f * (float)i - 4;
        const std::vector<float> got = run(2, noise);
        for (size_t i = 0; i < got.size(); i++) {
            const double want = (noise[i] - std::sqrt(1 - A_first) * 0.25) / std::sqrt(A_first);
            EXPECT_WITHIN(got[i], want, 1e-5 * (1 + std::abs(want))) << steps;
        }
    }
}

// The exact denoiser of N(mu, s^2) data: E[e | x].
double gaussian_epsilon(double x, double A, double mu, double s) {
    const double variance = A * s * s + 1 - A;
    return std::sqrt(1 - A) * (x - std::sqrt(A) * mu) / variance;
}

TEST_F(SamplerCallback, GaussianDataFollowTheAnalyticTrajectory) {
    const double mu = 0.7, s = 0.3;
    const double *A = tw_schedule_alphas_cumprod(schedule.get());
    model.f = [&](double x, double t) { return gaussian_epsilon(x, A[(int64_t)t], mu, s); };
    for (int64_t steps : {10, 50, 1000}) {
        options.steps = steps;
        options.seed = 11;
        const std::vector<float> got = run(8);
        // Each step scales x - sqrt(A) mu by a factor of its own.
        Sampler sampler = make();
        int64_t count;
        const int64_t *times = tw_sampler_timesteps(sampler.get(), &count);
        double factor = 1;
        for (int64_t i = 0; i < count; i++) {
            const double a = A[times[i]], ap = i + 1 < count ? A[times[i + 1]] : 1.0;
            factor *=
                (std::sqrt(ap * a) * s * s + std::sqrt((1 - ap) * (1 - a))) / (a * s * s + 1 - a);
        }
        const std::vector<double> z = ReferenceSampler::noise(11, 0, 8, elements(), 0, 0);
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_WITHIN(got[i], mu + factor * (z[i] - std::sqrt(A[times[0]]) * mu), 1e-5)
                << steps;
        // With many steps the flow carries the noise's distribution to the data's.
        if (steps == 1000) {
            const double flow = s / std::sqrt(A[999] * s * s + 1 - A[999]);
            EXPECT_WITHIN(factor, flow, 0.02 * flow);
        }
    }
}

TEST_F(SamplerCallback, StochasticSamplersReachGaussianData) {
    const double mu = 0.7, s = 0.3;
    const double *A = tw_schedule_alphas_cumprod(schedule.get());
    model.f = [&](double x, double t) { return gaussian_epsilon(x, A[(int64_t)t], mu, s); };
    options.steps = 1000; // with fewer the small variance loses some of the spread
    shape = {16};
    for (int run_kind = 0; run_kind < 3; run_kind++) {
        options.kind = run_kind == 2 ? TW_SAMPLER_DDPM : TW_SAMPLER_DDIM;
        options.eta = run_kind == 0 ? 0.0 : 1.0;
        const std::vector<float> x = run(256);
        double mean = 0, square = 0;
        for (float v : x) mean += v, square += (double)v * v;
        mean /= (double)x.size(), square /= (double)x.size();
        EXPECT_WITHIN(mean, mu, 4 * s / std::sqrt((double)x.size()) + 2e-3) << run_kind;
        EXPECT_WITHIN(std::sqrt(square - mean * mean), s, 0.05 * s) << run_kind;
    }
}

TEST_F(SamplerCallback, EveryOptionFollowsTheFormulasInDouble) {
    model.f = [](double x, double t) { return std::tanh(1.7 * x + 0.1) * (0.4 + t / 1500); };
    options.seed = 0x123456789abcdef0u;
    options.first_sample = ((uint64_t)1 << 33) + 5;
    options.dynamic_ratio = 0.8;
    options.dynamic_max = 1.6;
    options.steps = 12;
    for (tw_prediction p : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V})
        for (int clipping = TW_CLIPPING_NONE; clipping <= TW_CLIPPING_DYNAMIC; clipping++)
            for (int rederive = 0; rederive < 2; rederive++)
                for (int kind = 0; kind < 5; kind++) {
                    prediction = p;
                    options.clipping = (tw_clipping)clipping;
                    options.clip_range = 0.8;
                    options.rederive_epsilon = rederive;
                    options.set_alpha_to_one = kind != 1;
                    options.kind = kind < 3 ? TW_SAMPLER_DDIM : TW_SAMPLER_DDPM;
                    options.eta = kind * 0.4;
                    options.variance =
                        kind == 4 ? TW_VARIANCE_FIXED_LARGE : TW_VARIANCE_FIXED_SMALL;
                    SCOPED_TRACE(std::string(tw_prediction_name(p)) + " clipping " +
                                 std::to_string(clipping) + " rederive " +
                                 std::to_string(rederive) + " kind " + std::to_string(kind));
                    expect_same(run(3), reference(3), 2e-5);
                }
}

TEST_F(SamplerCallback, EtaOneIsAncestralSamplingWithTheSmallVariance) {
    model.f = [](double x, double t) { return std::sin(x) * t / 700; };
    options.steps = 40;
    options.seed = 3;
    for (int clipped = 0; clipped < 2; clipped++) {
        // With clipping the two agree only when epsilon follows the clipped x0.
        options.clipping = clipped ? TW_CLIPPING_RANGE : TW_CLIPPING_NONE;
        options.rederive_epsilon = clipped;
        options.kind = TW_SAMPLER_DDIM;
        options.eta = 1;
        const std::vector<float> ddim = run(5);
        options.kind = TW_SAMPLER_DDPM;
        const std::vector<float> ddpm = run(5);
        for (size_t i = 0; i < ddim.size(); i++)
            EXPECT_WITHIN(ddim[i], ddpm[i], 1e-5 * (1 + std::abs(ddpm[i])));
    }
}

TEST_F(SamplerCallback, AThousandStepsStayCloseToDouble) {
    const double *A = tw_schedule_alphas_cumprod(schedule.get());
    model.f = [&](double x, double t) { return gaussian_epsilon(x, A[(int64_t)t], -0.2, 0.5); };
    options.steps = 1000;
    for (double eta : {0.0, 0.7}) {
        options.eta = eta;
        const std::vector<float> got = run(4);
        const std::vector<double> want = reference(4);
        for (size_t i = 0; i < got.size(); i++) EXPECT_WITHIN(got[i], want[i], 1e-4);
    }
}

TEST_F(SamplerCallback, NoiseBelongsToTheSample) {
    model.f = [](double x, double t) { return 0.5 * x * t / 1000; };
    shape = {2, 3, 3}; // 18 elements: not a multiple of Philox's four
    options.steps = 6;
    options.eta = 1;
    options.seed = 99;
    options.max_batch = 64;
    const std::vector<float> whole = run(7);
    for (int64_t most : {1, 3, 7}) {
        options.max_batch = most;
        const std::vector<float> parts = run(7);
        EXPECT_EQ(0, std::memcmp(whole.data(), parts.data(), whole.size() * sizeof(float))) << most;
    }
    options.first_sample = 4;
    const std::vector<float> tail = run(3);
    EXPECT_EQ(0, std::memcmp(whole.data() + 4 * 18, tail.data(), tail.size() * sizeof(float)));
    options.seed = 100;
    EXPECT_NE(tail, run(3));
    // x_T itself, seen through a step that changes nothing but its scale.
    model.f = [](double, double) { return 0.0; };
    options.eta = 0;
    options.steps = 1;
    options.spacing = TW_SPACING_LINSPACE; // t = 0
    const double root = std::sqrt(tw_schedule_alphas_cumprod(schedule.get())[0]);
    const std::vector<double> z = ReferenceSampler::noise(100, 4, 3, 18, 0, 0);
    const std::vector<float> first = run(3);
    for (size_t i = 0; i < first.size(); i++)
        EXPECT_WITHIN(first[i], z[i] / root, 3e-7 * (1 + std::abs(z[i])));
}

TEST_F(SamplerCallback, RepeatedRunsAreEqualAndPlansAreReused) {
    model.f = [](double x, double) { return 0.1 * x; };
    options.steps = 3;
    options.eta = 0.5;
    options.max_batch = 4;
    Sampler sampler = make();
    std::vector<float> a((size_t)(10 * elements())), b(a.size());
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 10, nullptr, nullptr, a.data()));
    EXPECT_EQ(9, model.calls); // 4, 4 and 2 samples, 3 steps each
    for (int64_t n : {1, 3, 10}) {
        ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), n, nullptr, nullptr, b.data()));
        EXPECT_EQ(0, std::memcmp(a.data(), b.data(), (size_t)(n * elements()) * sizeof(float)));
    }
}

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

TEST_F(SamplerCallback, LearnedVarianceReadsTheSecondHalf) {
    struct Two {
        static tw_status evaluate(void *, const tw_tensor *x, const tw_tensor *, const int32_t *,
                                  tw_tensor *out, tw_stream) {
            EXPECT_EQ(10, out->shape[2]);
            const float *in = static_cast<float *>(x->data);
            float *to = static_cast<float *>(out->data);
            for (int64_t p = 0; p < x->shape[0] * 3; p++)
                for (int c = 0; c < 5; c++) {
                    to[p * 10 + c] = 0.5f * in[p * 5 + c];
                    to[p * 10 + 5 + c] = std::tanh(in[p * 5 + c]);
                }
            return TW_OK;
        }
    };
    tw_denoiser d = model.denoiser(shape, prediction);
    d.evaluate = Two::evaluate;
    options.kind = TW_SAMPLER_DDPM;
    options.variance = TW_VARIANCE_LEARNED_RANGE;
    options.steps = 10;
    tw_sampler *made = nullptr;
    ASSERT_EQ(TW_OK, tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &options, &made));
    Sampler sampler(made);
    std::vector<float> out(45, NAN);
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 3, nullptr, nullptr, out.data()));
    ReferenceSampler r;
    r.A = tw_schedule_alphas_cumprod(schedule.get());
    r.options = options;
    r.times = {900, 800, 700, 600, 500, 400, 300, 200, 100, 0};
    r.network = [&](const std::vector<double> &x, int64_t, std::vector<double> &m,
                    std::vector<double> &o) {
        for (double v : x) m.push_back(0.5 * v), o.push_back(std::tanh(v));
    };
    std::vector<double> x = ReferenceSampler::noise(0, 0, 3, 15, 0, 0);
    r.run(x, 15);
    expect_same(out, x, 2e-5);
}

TEST_F(SamplerCallback, PureNoiseIsAStartForVelocity) {
    linear.zero_terminal_snr = 1;
    schedule = make_schedule(ctx.get(), linear);
    prediction = TW_PREDICT_V;
    options.spacing = TW_SPACING_TRAILING;
    options.steps = 20;
    model.f = [](double x, double t) { return 0.3 * std::cos(x) + t / 5000; };
    for (int kind = 0; kind < 2; kind++) {
        options.kind = (tw_sampler_kind)kind;
        expect_same(run(2), reference(2), 2e-5);
    }
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

// An allocator that gives out so much and then nothing; what it gave must come back.
struct Scarce {
    int left = INT32_MAX, held = 0;
    static void *allocate(void *user, size_t bytes, size_t alignment) {
        auto *self = static_cast<Scarce *>(user);
        if (self->left-- <= 0) return nullptr;
        self->held++;
        return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void release(void *user, void *memory) {
        static_cast<Scarce *>(user)->held--;
        free(memory);
    }
};

TEST(SamplerMemory, EveryAllocationMayFailAndNothingLeaks) {
    Scarce scarce;
    const tw_allocator allocator = {Scarce::allocate, Scarce::release, &scarce};
    tw_context_options where = TW_CONTEXT_OPTIONS_INIT;
    where.device = TW_DEVICE_CPU;
    where.threads = 1;
    where.allocator = &allocator;
    tw_context *made = nullptr;
    ASSERT_EQ(TW_OK, tw_context_create(&where, &made));
    Context ctx(made);
    const int before = scarce.held;
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
    float out[45];
    tw_status status = TW_ERROR_MEMORY;
    int allowed = 0;
    for (; status != TW_OK && allowed < 10000; allowed++) {
        scarce.left = allowed;
        tw_schedule *schedule = nullptr;
        tw_sampler *sampler = nullptr;
        status = tw_schedule_create(ctx.get(), &linear, &schedule);
        if (status == TW_OK)
            status = tw_sampler_create_callback(ctx.get(), &d, schedule, &options, &sampler);
        if (status == TW_OK) status = tw_sampler_run(sampler, 3, labels, nullptr, out);
        tw_sampler_free(sampler);
        tw_schedule_free(schedule);
        ASSERT_TRUE(status == TW_OK || status == TW_ERROR_MEMORY)
            << allowed << ": " << tw_context_error(ctx.get());
        ASSERT_EQ(before, scarce.held) << allowed;
    }
    EXPECT_EQ(TW_OK, status);
    EXPECT_GT(allowed, 20);
    scarce.left = INT32_MAX;
}

} // namespace
