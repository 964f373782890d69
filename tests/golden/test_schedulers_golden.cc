// Schedules, time-step lists, ancestral steps and dynamic thresholding against diffusers' formulas
// in float64. Steps run through the sampler's operation, in the float32 that samplers use. See
// README.md here. The runs of whole samplers are in test_sampler_callback.cc.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "support/diffusion.h"
#include "support/golden.h"

extern "C" {
#include "core/philox.h"
#include "diffusion/coefficients.h"
#include "graph/builder.h"
}

namespace {

constexpr int64_t kTraining = 1000;

class SchedulersGolden : public testing::Test {
  protected:
    void SetUp() override {
        root_ = golden::Load("schedulers.json");
        ASSERT_NE(root_, nullptr);
    }
    const json_t *List(const char *key, size_t least) {
        const json_t *list = golden::At(root_.get(), key);
        EXPECT_GE(json_array_size(list), least) << key;
        return list;
    }
    golden::Json root_{nullptr, json_decref};
    Context ctx_ = cpu_context();
};

bool True(const json_t *row, const char *key) {
    return json_is_true(golden::At(row, key));
}
std::vector<double> Numbers(const json_t *row, const char *key) {
    std::vector<double> out;
    const json_t *array = golden::At(row, key);
    for (size_t i = 0; i < json_array_size(array); i++) {
        EXPECT_TRUE(json_is_number(json_array_get(array, i))) << key;
        out.push_back(json_number_value(json_array_get(array, i)));
    }
    return out;
}

TEST_F(SchedulersGolden, Tables) {
    const json_t *tables = List("tables", 9);
    for (size_t i = 0; i < json_array_size(tables); i++) {
        const json_t *row = json_array_get(tables, i), *stock = golden::At(row, "float32");
        tw_schedule_options options = TW_SCHEDULE_OPTIONS_INIT;
        const std::string kind = golden::Text(row, "beta_schedule");
        ASSERT_EQ(tw_beta_schedule_parse(kind.c_str(), &options.kind), TW_OK) << kind;
        options.steps = golden::Whole(row, "num_train_timesteps");
        options.beta_start = golden::Number(row, "beta_start");
        options.beta_end = golden::Number(row, "beta_end");
        options.zero_terminal_snr = True(row, "rescale_betas_zero_snr");
        SCOPED_TRACE(kind + (options.zero_terminal_snr ? ", rescaled" : ""));
        Schedule schedule = make_schedule(ctx_.get(), options);
        ASSERT_NE(schedule, nullptr);
        const double *betas = tw_schedule_betas(schedule.get());
        const double *bar = tw_schedule_alphas_cumprod(schedule.get());
        const std::vector<double> t = Numbers(row, "t"), wanted = Numbers(row, "betas"),
                                  wanted_bar = Numbers(row, "alphas_cumprod"),
                                  stock_bar = Numbers(stock, "alphas_cumprod");
        ASSERT_GE(t.size(), 12u);
        // The table that diffusers itself uses differs by its own float32 error and no more.
        const double error = 1.1 * golden::Number(stock, "max_error_of_alphas_cumprod");
        for (size_t k = 0; k < t.size(); k++) {
            const auto at = static_cast<size_t>(t[k]);
            // beta is 1 - a ratio in some of them, so its error is that of numbers around 1.
            EXPECT_WITHIN(betas[at], wanted.at(k), 1e-12 * wanted[k] + 0x1p-51) << "beta " << at;
            EXPECT_WITHIN(bar[at], wanted_bar.at(k), 1e-12 * wanted_bar[k]) << "A " << at;
            EXPECT_WITHIN(bar[at], stock_bar.at(k), error) << "A " << at;
        }
    }
}

std::vector<int64_t> Ours(tw_context *ctx, tw_spacing spacing, int64_t steps, int64_t offset,
                          tw_status *status) {
    std::vector<int64_t> t(static_cast<size_t>(steps), -7);
    int64_t count = 0;
    *status = tw_timesteps(ctx, spacing, kTraining, steps, offset, t.data(), &count);
    t.resize(static_cast<size_t>(count));
    return t;
}

// Lists of the schedulers that build S points. Where this library's differ, diffusers' are wrong:
// - leading with an offset and S = T: the first entry is T, past the last training step. Refused.
// - trailing where arange(T, 0, -T / S) yields S + 1 entries: the last is -1. Without it, the same.
TEST_F(SchedulersGolden, TimestepLists) {
    const json_t *rows = List("timesteps", 200);
    size_t same = 0, refused = 0, cut = 0;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const std::string scheduler = golden::Text(row, "scheduler");
        if (scheduler != "ddim" && scheduler != "ddpm" && scheduler != "pndm") continue;
        const std::string name = golden::Text(row, "spacing");
        const int64_t steps = golden::Whole(row, "steps"), offset = golden::Whole(row, "offset");
        SCOPED_TRACE(scheduler + " " + name + " " + std::to_string(steps));
        tw_spacing spacing;
        ASSERT_EQ(tw_spacing_parse(name.c_str(), &spacing), TW_OK);
        tw_status status;
        const std::vector<int64_t> got = Ours(ctx_.get(), spacing, steps, offset, &status);
        std::vector<double> first = Numbers(row, "first"), last = Numbers(row, "last");
        double sum = golden::Number(row, "sum"), count = golden::Number(row, "count");
        if (first.at(0) >= kTraining) {
            EXPECT_EQ(status, TW_ERROR_ARGUMENT);
            refused++;
            continue;
        }
        ASSERT_EQ(status, TW_OK) << tw_context_error(ctx_.get());
        if (!True(row, "same_as_ours")) {
            ASSERT_EQ(last.back(), -1);
            ASSERT_EQ(spacing, TW_SPACING_TRAILING);
            last.pop_back(), sum += 1, count -= 1, cut++;
        } else {
            same++;
        }
        ASSERT_EQ(static_cast<double>(got.size()), count);
        ASSERT_EQ(static_cast<int64_t>(got.size()), steps);
        double total = 0;
        for (int64_t t : got) total += static_cast<double>(t);
        EXPECT_EQ(total, sum);
        for (size_t k = 0; k < first.size(); k++)
            EXPECT_EQ(static_cast<double>(got[k]), first[k]) << k;
        for (size_t k = 0; k < last.size(); k++)
            EXPECT_EQ(static_cast<double>(got[got.size() - last.size() + k]), last[k]) << k;
    }
    EXPECT_GE(same, 120u);
    EXPECT_EQ(refused, 3u);
    EXPECT_EQ(cut, 3u);
}

// Every S for which diffusers' trailing list has S + 1 entries has S here, down to no less than 0.
TEST_F(SchedulersGolden, TrailingHasAsManyEntriesAsSteps) {
    List("trailing_wrong_counts", 62);
    for (double steps : Numbers(root_.get(), "trailing_wrong_counts")) {
        tw_status status;
        const std::vector<int64_t> got =
            Ours(ctx_.get(), TW_SPACING_TRAILING, static_cast<int64_t>(steps), 0, &status);
        ASSERT_EQ(status, TW_OK);
        ASSERT_EQ(static_cast<double>(got.size()), steps);
        EXPECT_EQ(got.front(), kTraining - 1);
        EXPECT_GE(got.back(), 0);
    }
}

// One sampling step of the operation, alone in a plan. m has `channels` channels, x has 3.
class Step {
  public:
    Step(tw_context *ctx, const tw_sampler_options &how, tw_prediction prediction,
         const tw_op_attr &attr, const std::vector<int64_t> &times, int64_t n, int channels)
        : ctx_(ctx), n_(n) {
        tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
        Schedule schedule = make_schedule(ctx, linear);
        const auto count = static_cast<int64_t>(times.size());
        std::vector<float> rows(times.size() * TW_COEF_WIDTH, NAN);
        EXPECT_EQ(tw_coefficients_make(ctx, schedule.get(), &how, prediction, times.data(), count,
                                       rows.data()),
                  TW_OK)
            << tw_context_error(ctx);
        EXPECT_EQ(tw_plan_create(ctx, nullptr, &plan_), TW_OK);
        const int64_t xs[] = {n, 4, 4, 3}, ms[] = {n, 4, 4, channels}, four = 4;
        const int64_t table_shape[] = {count, TW_COEF_WIDTH};
        x_ = tw_plan_state(plan_, "x", TW_F32, 4, xs);
        m_ = tw_plan_input(plan_, "m", TW_F32, 4, ms);
        rng_ = tw_plan_state(plan_, "rng", TW_I64, 1, &four);
        const tw_value table = tw_plan_input(plan_, "table", TW_F32, 2, table_shape);
        if (attr.update.clip == TW_CLIP_DYNAMIC)
            limit_ = tw_build_threshold(plan_, x_, m_, TW_NONE, table, rng_, &attr);
        tw_build_sampler_update(plan_, x_, m_, TW_NONE, table, rng_, limit_, &attr, &x0_);
        tw_plan_keep(plan_, x0_);
        if (limit_ != TW_NONE) tw_plan_keep(plan_, limit_);
        EXPECT_EQ(tw_plan_compile(plan_), TW_OK) << tw_context_error(ctx);
        Write(table, rows);
    }
    ~Step() { tw_plan_free(plan_); }
    Step(const Step &) = delete;

    void Run(const std::vector<float> &x, const std::vector<float> &m, uint64_t seed,
             int64_t index) {
        Write(x_, x);
        Write(m_, m);
        Write(rng_, std::vector<int64_t>{static_cast<int64_t>(seed), 0, index, 0});
        EXPECT_EQ(tw_plan_run(plan_), TW_OK) << tw_context_error(ctx_);
    }
    std::vector<float> X() { return Read(x_, n_ * 48); }
    std::vector<float> X0() { return Read(x0_, n_ * 48); }
    std::vector<float> Limit() { return Read(limit_, n_); }

  private:
    template <class T> void Write(tw_value v, const std::vector<T> &host) {
        EXPECT_EQ(tw_plan_write(plan_, v, host.data(), host.size() * sizeof(T)), TW_OK)
            << tw_context_error(ctx_);
    }
    std::vector<float> Read(tw_value v, int64_t count) {
        std::vector<float> host(static_cast<size_t>(count), NAN);
        EXPECT_EQ(tw_plan_read(plan_, v, host.data(), host.size() * sizeof(float)), TW_OK)
            << tw_context_error(ctx_);
        return host;
    }

    tw_context *ctx_;
    int64_t n_;
    tw_plan *plan_ = nullptr;
    tw_value x_, m_, rng_, x0_ = TW_NONE, limit_ = TW_NONE;
};

void ExpectSummary(const char *what, const std::vector<float> &got, const json_t *want) {
    // Some float32 roundings of numbers around 1, the table's entries among them.
    const golden::Difference d = golden::Compare(got, want);
    const double bound = 8 * 0x1p-24;
    EXPECT_LE(d.entry, bound * std::max(1.0, d.rms)) << what << "[" << d.at << "]";
    EXPECT_LE(d.norm, bound * d.golden_norm) << what;
}

TEST_F(SchedulersGolden, AncestralSteps) {
    const json_t *rows = List("ddpm_steps", 34);
    std::array<size_t, 3> seen = {0, 0, 0};
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const std::string variance = golden::Text(row, "variance_type");
        const int64_t steps = golden::Whole(row, "steps"), index = golden::Whole(row, "index");
        SCOPED_TRACE(variance + ", step " + std::to_string(index) + " of " + std::to_string(steps));
        tw_prediction prediction;
        ASSERT_EQ(tw_prediction_parse(golden::Text(row, "prediction_type").c_str(), &prediction),
                  TW_OK);
        tw_sampler_options how = TW_SAMPLER_OPTIONS_INIT;
        how.kind = TW_SAMPLER_DDPM;
        // fixed_small_log is fixed_small, computed through its logarithm.
        how.variance = variance == "learned_range" ? TW_VARIANCE_LEARNED_RANGE
                       : variance == "fixed_large" ? TW_VARIANCE_FIXED_LARGE
                                                   : TW_VARIANCE_FIXED_SMALL;
        const bool learned = how.variance == TW_VARIANCE_LEARNED_RANGE;
        tw_op_attr attr = {};
        attr.update.prediction = prediction;
        attr.update.rule = learned ? TW_UPDATE_LEARNED_RANGE : TW_UPDATE_LINEAR;
        attr.update.clip = True(row, "clip_sample") ? TW_CLIP_RANGE : TW_CLIP_NONE;
        attr.update.clip_range = 1;
        tw_status status;
        const auto times = Ours(ctx_.get(), TW_SPACING_LEADING, steps, 0, &status);
        ASSERT_EQ(status, TW_OK);
        ASSERT_EQ(times.at(static_cast<size_t>(index)), golden::Whole(row, "t"));
        const int channels = learned ? 6 : 3;
        std::vector<float> m = golden::Batch(2, 16 * channels, golden::kTarget);
        for (size_t k = 0; learned && k < m.size(); k++)
            if (k % 6 >= 3) m[k] = static_cast<float>(std::tanh(static_cast<double>(m[k])));
        Step step(ctx_.get(), how, prediction, attr, times, 2, channels);
        step.Run(golden::Batch(2, 48, golden::kInput), m, 7, index);
        ExpectSummary("prev", step.X(), golden::At(row, "prev"));
        ExpectSummary("x0", step.X0(), golden::At(row, "x0"));
        seen[how.variance]++;
    }
    for (size_t count : seen) EXPECT_GE(count, 8u);
}

TEST_F(SchedulersGolden, DynamicThresholding) {
    const json_t *cases = golden::At(golden::At(root_.get(), "thresholding"), "cases");
    ASSERT_GE(json_array_size(cases), 5u);
    // The network predicts x0 itself, which is the tensor to threshold.
    std::vector<float> m = golden::Batch(3, 48, golden::kInput);
    for (size_t k = 0; k < m.size(); k++)
        m[k] = static_cast<float>((k / 48 == 2 ? 0.1 : 1.0) * 2.0 * static_cast<double>(m[k]));
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *row = json_array_get(cases, i);
        SCOPED_TRACE(i);
        const tw_sampler_options how = TW_SAMPLER_OPTIONS_INIT;
        tw_op_attr attr = {};
        attr.update.prediction = TW_PREDICT_SAMPLE;
        attr.update.clip = TW_CLIP_DYNAMIC;
        attr.update.quantile = golden::Number(row, "dynamic_thresholding_ratio");
        attr.update.max_limit = golden::Number(row, "sample_max_value");
        Step step(ctx_.get(), how, TW_PREDICT_SAMPLE, attr, {500}, 3, 3);
        step.Run(std::vector<float>(m.size(), 0.5f), m, 7, 0);
        const std::vector<double> limits = Numbers(row, "s");
        const std::vector<float> got = step.Limit();
        ASSERT_EQ(got.size(), limits.size());
        for (size_t n = 0; n < got.size(); n++)
            EXPECT_WITHIN(got[n], limits[n], 4 * 0x1p-24 * limits[n]) << "sample " << n;
        ExpectSummary("x0", step.X0(), golden::At(row, "y"));
    }
}

} // namespace
