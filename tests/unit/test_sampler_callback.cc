// What samplers over callbacks compute.
#include "support/sampler_callback.h"

#include <cstring>

extern "C" {
#include "diffusion/scheduler_config.h"
}

namespace {

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

} // namespace
