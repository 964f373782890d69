#include "support/diffusion.h"

#include <cfloat>
#include <cstring>
#include <numeric>
#include <vector>

extern "C" {
#include "core/philox.h"
#include "diffusion/coefficients.h"
}

namespace {

constexpr uint64_t golden_seed = 20261122, run_seed = 7;

std::vector<float> make_rows(tw_context *ctx, const tw_schedule *schedule,
                             const tw_sampler_options &options, tw_prediction prediction,
                             const std::vector<int64_t> &times) {
    std::vector<float> rows(times.size() * TW_COEF_WIDTH, NAN);
    EXPECT_EQ(TW_OK, tw_coefficients_make(ctx, schedule, &options, prediction, times.data(),
                                          (int64_t)times.size(), rows.data()))
        << tw_context_error(ctx);
    return rows;
}

std::vector<int64_t> leading(tw_context *ctx, int64_t S) {
    std::vector<int64_t> times((size_t)S);
    int64_t count;
    EXPECT_EQ(TW_OK, tw_timesteps(ctx, TW_SPACING_LEADING, 1000, S, 0, times.data(), &count));
    return times;
}

Schedule linear(tw_context *ctx) {
    const tw_schedule_options options = TW_SCHEDULE_OPTIONS_INIT;
    return make_schedule(ctx, options);
}

uint32_t number_at(const float *row, int column) {
    uint32_t bits;
    memcpy(&bits, row + column, sizeof bits);
    return bits;
}

// Each entry is the float32 next to the exact one.
void expect_float(float got, long double want, const char *what) {
    EXPECT_WITHIN(got, (double)want, FLT_EPSILON / 2 * std::abs((double)want) * (1 + 1e-6)) << what;
}

TEST(Coefficients, CommonColumnsAreRoundedOnce) {
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    const double *betas = tw_schedule_betas(schedule.get());
    const std::vector<int64_t> times = leading(ctx.get(), 250);
    for (int alpha_one = 0; alpha_one < 2; alpha_one++) {
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        options.eta = 1;
        options.set_alpha_to_one = alpha_one;
        const std::vector<float> rows =
            make_rows(ctx.get(), schedule.get(), options, TW_PREDICT_EPSILON, times);
        for (size_t i = 0; i < times.size(); i++) {
            // 1 - A by summation instead of subtraction: 1 - A_t = sum of beta_s A_{s-1}.
            long double A = 1, rest = 0, A_next = alpha_one ? 1.0L : 1.0L - betas[0],
                        rest_next = alpha_one ? 0.0L : (long double)betas[0];
            for (int64_t t = 0; t <= times[i]; t++) {
                rest += betas[t] * A;
                A *= 1.0L - betas[t];
                if (i + 1 < times.size() && t == times[i + 1]) A_next = A, rest_next = rest;
            }
            const float *row = &rows[i * TW_COEF_WIDTH];
            EXPECT_EQ((float)times[i], row[TW_COEF_TIME]);
            expect_float(row[TW_COEF_A], A, "A");
            expect_float(row[TW_COEF_1MA], rest, "1 - A");
            expect_float(row[TW_COEF_AP], A_next, "A_p");
            expect_float(row[TW_COEF_1MAP], rest_next, "1 - A_p");
            const long double ratio = A == A_next ? 0.0L : (rest - rest_next) / A_next;
            expect_float(row[TW_COEF_1MRATIO], ratio, "1 - A_t / A_p");
            EXPECT_EQ(1.0f, row[TW_COEF_ETA]);
            EXPECT_EQ((uint32_t)i, number_at(row, TW_COEF_STEP));
            EXPECT_EQ((uint32_t)i, number_at(row, TW_COEF_GENERAL_STEP));
        }
    }
}

// The columns give the x0 that the prediction means, with guidance in it, and what clips it.
TEST(Coefficients, X0IsALinearCombination) {
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    const std::vector<int64_t> times = leading(ctx.get(), 20);
    for (tw_prediction prediction : {TW_PREDICT_EPSILON, TW_PREDICT_SAMPLE, TW_PREDICT_V})
        for (double w : {1.0, 0.0, 7.5}) {
            tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
            options.kind = TW_SAMPLER_DDPM;
            options.guidance = w;
            options.clipping = w == 1 ? TW_CLIPPING_NONE : TW_CLIPPING_RANGE;
            options.clip_range = 1.5;
            const std::vector<float> rows =
                make_rows(ctx.get(), schedule.get(), options, prediction, times);
            for (size_t i = 0; i < times.size(); i++) {
                const float *r = &rows[i * TW_COEF_WIDTH];
                const double a = r[TW_COEF_A], b = r[TW_COEF_1MA], x = 0.7, m = -0.4, u = 1.3;
                const double g = u + w * (m - u);
                const double want =
                    prediction == TW_PREDICT_EPSILON  ? (x - std::sqrt(b) * g) / std::sqrt(a)
                    : prediction == TW_PREDICT_SAMPLE ? g
                                                      : std::sqrt(a) * x - std::sqrt(b) * g;
                const double got = r[TW_COEF_X0_X] * x + r[TW_COEF_X0_M] * m + r[TW_COEF_X0_U] * u;
                EXPECT_WITHIN(got, want, 1e-6 * (1 + w) / std::sqrt(a));
                EXPECT_EQ(w == 1 ? 0.0f : 1.5f, r[TW_COEF_CLIP]);
            }
        }
}

// Normals as the generator of the goldens draws them: [n, 4, 4, channels], rounded to float32.
std::vector<float> normals(uint64_t seed, uint32_t purpose, uint32_t step, int channels) {
    std::vector<float> out;
    for (uint64_t n = 0; n < 2; n++)
        for (uint32_t quad = 0; quad < (uint32_t)(4 * channels); quad++) {
            const tw_philox_key key = {seed, n, purpose, step};
            double z[4];
            tw_philox_normals(&key, quad, z);
            for (double v : z) out.push_back((float)v);
        }
    return out;
}

// One ancestral step from the row, in double, as the update operation is specified.
double ancestral(const float *row, tw_variance variance, bool v_prediction, bool clip, double x,
                 double m, double o, double z) {
    const double A = row[TW_COEF_A], rest = row[TW_COEF_1MA];
    double x0 = v_prediction ? std::sqrt(A) * x - std::sqrt(rest) * m
                             : (x - std::sqrt(rest) * m) / std::sqrt(A);
    if (clip) x0 = std::fmax(-1, std::fmin(1, x0));
    double scale = row[TW_COEF_Z];
    if (variance == TW_VARIANCE_LEARNED_RANGE) {
        const double f = (o + 1) / 2;
        scale = row[TW_COEF_Z] *
                std::exp((f * row[TW_COEF_LOGVAR_MAX] + (1 - f) * row[TW_COEF_LOGVAR_MIN]) / 2);
    }
    return row[TW_COEF_X0] * x0 + row[TW_COEF_X] * x + scale * z;
}

TEST(Coefficients, AncestralStepsMatchGoldens) {
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    Json golden = load_golden("schedulers.json");
    json_t *rows = json_object_get(golden.get(), "ddpm_steps"), *row;
    size_t r, checked = 0;
    json_array_foreach(rows, r, row) {
        const std::string name = text(row, "variance_type");
        const bool v = text(row, "prediction_type") == "v_prediction";
        const bool clip = json_is_true(json_object_get(row, "clip_sample"));
        const int64_t S = (int64_t)number(row, "steps"), index = (int64_t)number(row, "index");
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        options.kind = TW_SAMPLER_DDPM;
        options.variance = name == "learned_range" ? TW_VARIANCE_LEARNED_RANGE
                           : name == "fixed_large" ? TW_VARIANCE_FIXED_LARGE
                                                   : TW_VARIANCE_FIXED_SMALL;
        SCOPED_TRACE(name + " " + std::to_string(S) + " " + std::to_string(index));
        const std::vector<int64_t> times = leading(ctx.get(), S);
        ASSERT_EQ((int64_t)number(row, "t"), times[index]);
        const std::vector<float> table = make_rows(ctx.get(), schedule.get(), options,
                                                   v ? TW_PREDICT_V : TW_PREDICT_EPSILON, times);
        const bool learned = options.variance == TW_VARIANCE_LEARNED_RANGE;
        const int channels = learned ? 6 : 3;
        const std::vector<float> x = normals(golden_seed, TW_PURPOSE_GOLDEN, 1, 3),
                                 m = normals(golden_seed, TW_PURPOSE_GOLDEN, 2, channels),
                                 z = normals(run_seed, TW_PURPOSE_SAMPLER, (uint32_t)index, 3);
        json_t *samples = json_object_get(json_object_get(row, "prev"), "samples"), *sample;
        size_t k;
        json_array_foreach(samples, k, sample) {
            const size_t e = (size_t)json_integer_value(json_array_get(sample, 0));
            const double want = json_number_value(json_array_get(sample, 1));
            const size_t at = e / 3 * channels + e % 3;
            const double got =
                ancestral(&table[index * TW_COEF_WIDTH], options.variance, v, clip, x[e], m[at],
                          learned ? std::tanh((double)m[at + 3]) : 0, z[e]);
            EXPECT_WITHIN(got, want, 1e-6 * (1 + std::abs(want)));
        }
        checked++;
    }
    EXPECT_GE(checked, 30u);
}

TEST(Coefficients, DdimEtaOneHasThePosteriorOfDdpm) {
    // sqrt(A_p) x0 + sqrt(1 - A_p - sigma^2) e with e from x and x0 is DDPM's mean.
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    const std::vector<int64_t> times = leading(ctx.get(), 50);
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    options.kind = TW_SAMPLER_DDPM;
    const std::vector<float> rows =
        make_rows(ctx.get(), schedule.get(), options, TW_PREDICT_EPSILON, times);
    for (size_t i = 0; i + 1 < times.size(); i++) {
        const float *r = &rows[i * TW_COEF_WIDTH];
        const double rest = r[TW_COEF_1MA], rest_next = r[TW_COEF_1MAP];
        const double sigma2 = rest_next / rest * r[TW_COEF_1MRATIO];
        const double dir = std::sqrt(rest_next - sigma2);
        EXPECT_WITHIN(r[TW_COEF_X], dir / std::sqrt(rest), 1e-6);
        EXPECT_WITHIN(r[TW_COEF_X0],
                      std::sqrt(r[TW_COEF_AP]) - dir * std::sqrt(r[TW_COEF_A] / rest),
                      1e-6 * (1 + 1 / std::sqrt(rest)));
        EXPECT_WITHIN(r[TW_COEF_Z], std::sqrt(sigma2), 1e-6 * std::sqrt(sigma2));
    }
    const float *last = &rows[(times.size() - 1) * TW_COEF_WIDTH];
    EXPECT_EQ(0.0f, last[TW_COEF_Z]);
    EXPECT_EQ(1.0f, last[TW_COEF_X0]);
    EXPECT_EQ(0.0f, last[TW_COEF_X]);
}

TEST(Coefficients, ZeroTerminalSnrNeedsAnotherPredictionThanEpsilon) {
    Context ctx = cpu_context();
    tw_schedule_options zero = TW_SCHEDULE_OPTIONS_INIT;
    zero.zero_terminal_snr = 1;
    Schedule schedule = make_schedule(ctx.get(), zero);
    const int64_t from_the_end[] = {999, 500, 0};
    std::vector<float> rows(3 * TW_COEF_WIDTH);
    for (int kind = TW_SAMPLER_DDIM; kind <= TW_SAMPLER_DDPM; kind++) {
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        options.kind = (tw_sampler_kind)kind;
        const auto make = [&](tw_prediction prediction, int64_t first, int64_t count) {
            return tw_coefficients_make(ctx.get(), schedule.get(), &options, prediction,
                                        from_the_end + first, count, rows.data());
        };
        EXPECT_REFUSED(TW_ERROR_UNSUPPORTED, ctx.get(), make(TW_PREDICT_EPSILON, 0, 3),
                       "zero terminal SNR");
        EXPECT_EQ(TW_OK, make(TW_PREDICT_EPSILON, 1, 2));
        for (tw_prediction prediction : {TW_PREDICT_V, TW_PREDICT_SAMPLE}) {
            EXPECT_EQ(TW_OK, make(prediction, 0, 3));
            EXPECT_EQ(0.0f, rows[TW_COEF_A]);
            EXPECT_EQ(1.0f, rows[TW_COEF_1MA]);
            EXPECT_EQ(1.0f, rows[TW_COEF_1MRATIO]);
            for (float v : rows) EXPECT_TRUE(std::isfinite(v));
        }
    }
}

TEST(Coefficients, LogarithmsStayFiniteAtTheEnds) {
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    std::vector<int64_t> times(1000);
    std::iota(times.rbegin(), times.rend(), 0);
    for (int alpha_one = 0; alpha_one < 2; alpha_one++) {
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        options.kind = TW_SAMPLER_DDPM;
        options.variance = TW_VARIANCE_LEARNED_RANGE;
        options.set_alpha_to_one = alpha_one;
        for (float v : make_rows(ctx.get(), schedule.get(), options, TW_PREDICT_EPSILON, times))
            EXPECT_TRUE(std::isfinite(v));
    }
}

TEST(Coefficients, RefusesOptionsThatNoMethodHas) {
    Context ctx = cpu_context();
    Schedule schedule = linear(ctx.get());
    const int64_t time = 500;
    float row[TW_COEF_WIDTH];
    const auto refused = [&](auto change, const char *words) {
        tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
        change(options);
        EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                       tw_coefficients_make(ctx.get(), schedule.get(), &options, TW_PREDICT_EPSILON,
                                            &time, 1, row),
                       words);
    };
    refused([](auto &o) { o.kind = (tw_sampler_kind)9; }, "kind 9");
    refused([](auto &o) { o.kind = (tw_sampler_kind)-1; }, "kind -1");
    refused([](auto &o) { o.eta = 1.5; }, "eta 1.5");
    refused([](auto &o) { o.eta = NAN; }, "eta");
    refused([](auto &o) { o.kind = TW_SAMPLER_DDPM, o.variance = (tw_variance)4; }, "variance 4");
}

} // namespace
