#include "support/diffusion.h"

#include <limits>
#include <vector>

extern "C" {
#include "diffusion/schedule.h"
}

namespace {

tw_schedule_options defaults() {
    tw_schedule_options options = TW_SCHEDULE_OPTIONS_INIT;
    return options;
}

TEST(Schedule, MatchesGoldenTables) {
    Context ctx = cpu_context();
    Json golden = load_golden("schedulers.json");
    json_t *tables = json_object_get(golden.get(), "tables"), *row;
    ASSERT_GE(json_array_size(tables), 9u);
    size_t i;
    json_array_foreach(tables, i, row) {
        tw_schedule_options options = defaults();
        const std::string kind = text(row, "beta_schedule");
        ASSERT_EQ(TW_OK, tw_beta_schedule_parse(kind.c_str(), &options.kind));
        options.steps = (int64_t)number(row, "num_train_timesteps");
        options.beta_start = number(row, "beta_start");
        options.beta_end = number(row, "beta_end");
        options.zero_terminal_snr = json_is_true(json_object_get(row, "rescale_betas_zero_snr"));
        SCOPED_TRACE(kind + (options.zero_terminal_snr ? " zero" : ""));
        Schedule schedule = make_schedule(ctx.get(), options);
        const double *betas = tw_schedule_betas(schedule.get());
        const double *bar = tw_schedule_alphas_cumprod(schedule.get());
        json_t *times = json_object_get(row, "t"), *time;
        size_t k;
        json_array_foreach(times, k, time) {
            const int64_t t = json_integer_value(time);
            const double beta = json_number_value(json_array_get(json_object_get(row, "betas"), k));
            const double A =
                json_number_value(json_array_get(json_object_get(row, "alphas_cumprod"), k));
            EXPECT_WITHIN(betas[t], beta, 1e-12);
            EXPECT_WITHIN(bar[t], A, 1e-14 + 1e-12 * A);
        }
        double sum_betas = 0, sum_bar = 0;
        for (int64_t t = 0; t < options.steps; t++) sum_betas += betas[t], sum_bar += bar[t];
        EXPECT_WITHIN(sum_betas, number(row, "sum_betas"), 1e-9);
        EXPECT_WITHIN(sum_bar, number(row, "sum_alphas_cumprod"), 1e-9);
    }
}

TEST(Schedule, ClosedForms) {
    Context ctx = cpu_context();
    tw_schedule_options options = defaults();
    options.steps = 100;
    Schedule linear = make_schedule(ctx.get(), options);
    options.kind = TW_BETA_SCALED_LINEAR;
    Schedule scaled = make_schedule(ctx.get(), options);
    options.kind = TW_BETA_SIGMOID;
    Schedule sigmoid = make_schedule(ctx.get(), options);
    options.kind = TW_BETA_COSINE;
    Schedule cosine = make_schedule(ctx.get(), options);
    double product = 1;
    for (int t = 0; t < 100; t++) {
        const double u = t / 99.0;
        const double root = 0.01 * (1 - u) + std::sqrt(0.02) * u;
        EXPECT_WITHIN(tw_schedule_betas(linear.get())[t], 1e-4 * (1 - u) + 0.02 * u, 1e-16);
        EXPECT_WITHIN(tw_schedule_betas(scaled.get())[t], root * root, 1e-16);
        EXPECT_WITHIN(tw_schedule_betas(sigmoid.get())[t],
                      1e-4 + 0.0199 * 0.5 * (1 + std::tanh((12 * u - 6) / 2)), 1e-16);
        product *= 1 - tw_schedule_betas(linear.get())[t];
        EXPECT_EQ(product, tw_schedule_alphas_cumprod(linear.get())[t]);
        // The cosine schedule's A is f itself until the cap bites.
        if (t < 98) {
            const double f = std::cos(((t + 1) / 100.0 + 0.008) / 1.008 * std::acos(-1.0) / 2);
            const double f0 = std::cos(0.008 / 1.008 * std::acos(-1.0) / 2);
            const double A = f * f / (f0 * f0);
            EXPECT_WITHIN(tw_schedule_alphas_cumprod(cosine.get())[t], A, 1e-12);
        }
    }
    EXPECT_EQ(0.999, tw_schedule_betas(cosine.get())[99]);
    EXPECT_EQ(100, tw_schedule_steps(linear.get()));
}

TEST(Schedule, ZeroTerminalSnrEndsAtZeroAndKeepsItsStart) {
    Context ctx = cpu_context();
    tw_schedule_options options = defaults();
    Schedule plain = make_schedule(ctx.get(), options);
    options.zero_terminal_snr = 1;
    Schedule zero = make_schedule(ctx.get(), options);
    const double *A = tw_schedule_alphas_cumprod(zero.get());
    EXPECT_EQ(0.0, A[999]);
    EXPECT_EQ(1.0, tw_schedule_betas(zero.get())[999]);
    EXPECT_WITHIN(A[0], tw_schedule_alphas_cumprod(plain.get())[0], 1e-15);
    for (int t = 1; t < 1000; t++) EXPECT_LT(A[t], A[t - 1]);
}

TEST(Schedule, CustomBetasAreCopiedAndOneStepIsEnough) {
    Context ctx = cpu_context();
    std::vector<double> betas = {0.1, 0.5, 1.0};
    tw_schedule_options options = defaults();
    options.kind = TW_BETA_CUSTOM;
    options.steps = 3;
    options.betas = betas.data();
    Schedule custom = make_schedule(ctx.get(), options);
    betas.assign(3, std::nan(""));
    EXPECT_EQ(0.5, tw_schedule_betas(custom.get())[1]);
    EXPECT_DOUBLE_EQ(0.45, tw_schedule_alphas_cumprod(custom.get())[1]);
    EXPECT_EQ(0.0, tw_schedule_alphas_cumprod(custom.get())[2]);

    tw_schedule *copy = nullptr;
    ASSERT_EQ(TW_OK, tw_schedule_copy(ctx.get(), custom.get(), &copy));
    custom.reset();
    EXPECT_EQ(3, tw_schedule_steps(copy));
    EXPECT_EQ(0.1, tw_schedule_betas(copy)[0]);
    EXPECT_DOUBLE_EQ(0.9, tw_schedule_alphas_cumprod(copy)[0]);
    tw_schedule_free(copy);

    options = defaults();
    options.steps = 1;
    for (int kind = TW_BETA_LINEAR; kind <= TW_BETA_COSINE; kind++) {
        options.kind = (tw_beta_schedule)kind;
        Schedule one = make_schedule(ctx.get(), options);
        EXPECT_GT(tw_schedule_betas(one.get())[0], 0.0) << kind;
    }
}

TEST(Schedule, RefusesWhatIsNoSchedule) {
    Context ctx = cpu_context();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto refused = [&](auto change, const char *words) {
        tw_schedule_options options = defaults();
        change(options);
        tw_schedule *out = reinterpret_cast<tw_schedule *>(1);
        EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(), tw_schedule_create(ctx.get(), &options, &out),
                       words);
        EXPECT_EQ(nullptr, out);
    };
    refused([](auto &o) { o.steps = 0; }, "expected 1 to 1000000");
    refused([](auto &o) { o.steps = 1000001; }, "expected 1 to 1000000");
    refused([](auto &o) { o.beta_start = 0; }, "0 < start <= end < 1");
    refused([](auto &o) { o.beta_end = 1; }, "0 < start <= end < 1");
    refused([](auto &o) { o.beta_start = 0.03; }, "0 < start <= end < 1");
    refused([&](auto &o) { o.beta_end = nan; }, "0 < start <= end < 1");
    refused([](auto &o) { o.kind = (tw_beta_schedule)7; }, "kind 7");
    refused([](auto &o) { o.kind = TW_BETA_CUSTOM; }, "needs its betas");
    refused([](auto &o) { o.kind = TW_BETA_COSINE, o.max_beta = 1.5; }, "largest beta 1.5");
    refused([](auto &o) { o.kind = TW_BETA_COSINE, o.cosine_s = -1; }, "cosine offset -1");
    refused([](auto &o) { o.steps = 1, o.zero_terminal_snr = 1; }, "at least 2");
    refused([](auto &o) { o.size = 3; }, "_INIT");
    refused([](auto &o) { o.size = 4096; }, "_INIT");
    refused([](auto &o) { o.steps = 1000000; }, "the signal is gone at step");
    const double one_too_early[] = {0.1, 1.0, 0.1}, negative[] = {0.1, -0.1}, lost[] = {1e-18, 0.1};
    refused([&](auto &o) { o.kind = TW_BETA_CUSTOM, o.steps = 3, o.betas = one_too_early; },
            "beta[1] is 1,");
    refused([&](auto &o) { o.kind = TW_BETA_CUSTOM, o.steps = 2, o.betas = negative; },
            "beta[1] is -0.1,");
    refused([&](auto &o) { o.kind = TW_BETA_CUSTOM, o.steps = 2, o.betas = lost; },
            "beta[0] is 1e-18");
    const double not_a_number[] = {nan, 0.1};
    refused([&](auto &o) { o.kind = TW_BETA_CUSTOM, o.steps = 2, o.betas = not_a_number; },
            "beta[0]");
}

TEST(Schedule, NamesGoBothWays) {
    for (int i = TW_BETA_LINEAR; i <= TW_BETA_COSINE; i++) {
        tw_beta_schedule kind;
        ASSERT_EQ(TW_OK, tw_beta_schedule_parse(tw_beta_schedule_name((tw_beta_schedule)i), &kind));
        EXPECT_EQ(i, (int)kind);
    }
    tw_beta_schedule kind;
    ASSERT_EQ(TW_OK, tw_beta_schedule_parse("squaredcos_cap_v2", &kind));
    EXPECT_EQ(TW_BETA_COSINE, kind);
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, nullptr, tw_beta_schedule_parse("laplace", &kind),
                   "\"laplace\" is not known");
    EXPECT_STREQ("unknown", tw_beta_schedule_name((tw_beta_schedule)9));
    for (int i = TW_PREDICT_EPSILON; i <= TW_PREDICT_V; i++) {
        tw_prediction prediction;
        ASSERT_EQ(TW_OK, tw_prediction_parse(tw_prediction_name((tw_prediction)i), &prediction));
        EXPECT_EQ(i, (int)prediction);
    }
    tw_prediction prediction;
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, nullptr, tw_prediction_parse("flow", &prediction),
                   "v_prediction");
    for (int i = TW_SPACING_LEADING; i <= TW_SPACING_DDPM; i++) {
        tw_spacing spacing;
        ASSERT_EQ(TW_OK, tw_spacing_parse(tw_spacing_name((tw_spacing)i), &spacing));
        EXPECT_EQ(i, (int)spacing);
    }
    tw_spacing spacing;
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, nullptr, tw_spacing_parse("custom", &spacing), "quadratic");
}

} // namespace
