// What a step draws beside noise and reads of its state, and what the other kernels take from the
// device instead of from their arguments.
#include "schedule.h"
#include "support.h"

#include <algorithm>

using namespace tst;

namespace {

class DrawTest : public KernelTest {};

// The run's state as the engine keeps it: {seed, first sample, step, 0}.
struct State {
    uint64_t seed, first;
    uint32_t step;
    Buffer on;
    explicit State(uint64_t seed_, uint64_t first_, uint32_t step_)
        : seed(seed_), first(first_), step(step_),
          on(upload(std::vector<uint64_t>{seed_, first_, step_, 0})) {}
    const uint64_t *word(int i) const { return static_cast<const uint64_t *>(on.data()) + i; }
    const uint32_t *counter() const { return reinterpret_cast<const uint32_t *>(word(2)); }
    twk_noise noise() const {
        twk_noise n = {};
        n.seed = 1; // none of these is used
        n.first_sample = 2;
        n.device_seed = word(0);
        n.device_first_sample = word(1);
        return n;
    }
    Key key(int64_t n, uint32_t purpose) const {
        return {seed, first + (uint64_t)n, purpose, step};
    }
};

template <typename T> T *at(const Buffer &b) {
    return static_cast<T *>(b.data());
}

TEST_F(DrawTest, Times) {
    for (int64_t batch : {1, 6, 257})
        for (int64_t steps : {1, 1000, 0x7fffffff})
            for (int antithetic : {0, 1})
                for (uint64_t first : {uint64_t(0), (uint64_t(1) << 33) + 1}) {
                    const State s(77, first, 5);
                    Buffer out((size_t)batch * 4);
                    twk_times_args a = {};
                    a.batch = batch;
                    a.steps = steps;
                    a.antithetic = antithetic;
                    a.out = at<int32_t>(out);
                    a.device_step = s.counter();
                    a.noise = s.noise();
                    LAUNCH_OK(twk_draw_times(&a, nullptr));
                    const std::vector<int32_t> got = fetch<int32_t>(out);
                    for (int64_t n = 0; n < batch; n++) {
                        Key k = s.key(n, TWK_NOISE_TRAIN_T);
                        const bool odd = antithetic && k.sample % 2;
                        if (odd) k.sample--;
                        const int64_t t =
                            (int64_t)((uint64_t)noise_word(k, 0) * (uint64_t)steps >> 32);
                        ASSERT_EQ(got[n], odd ? steps - 1 - t : t) << n;
                    }
                }
    twk_times_args none = {};
    EXPECT_EQ(twk_draw_times(&none, nullptr), TWK_BAD_ARGUMENT);
}

TEST_F(DrawTest, DroppedLabels) {
    for (float p : {0.0f, 0.3f, 1.0f}) {
        const State s(9, uint64_t(1) << 32, 3);
        const int64_t batch = 300;
        std::vector<int32_t> label((size_t)batch);
        for (int32_t &l : label) l = (int32_t)pick(10);
        Buffer label_on = upload(label), out((size_t)batch * 4);
        twk_drop_labels_args a = {};
        a.batch = batch;
        a.label = at<int32_t>(label_on);
        a.out = at<int32_t>(out);
        a.null_label = 10;
        a.probability = p;
        a.device_step = s.counter();
        a.noise = s.noise();
        LAUNCH_OK(twk_drop_labels(&a, nullptr));
        const std::vector<int32_t> got = fetch<int32_t>(out);
        for (int64_t n = 0; n < batch; n++)
            ASSERT_EQ(got[n],
                      noise_uniform(s.key(n, TWK_NOISE_COND_DROP), 0) < (double)p ? 10 : label[n]);
    }
}

TEST_F(DrawTest, MirroredImages) {
    for (const Shape &h : shapes())
        for (twk_format format : {TWK_F32, TWK_BF16}) {
            const State s(4, 11, 2);
            Tensor x = random_tensor(format, h.total(), 2, (size_t)pick(2)), y(format, h.total());
            twk_mirror_args a = {};
            a.batch = h.n;
            a.h = h.h;
            a.w = h.w;
            a.channels = h.c;
            a.format = format;
            a.x = x.data();
            a.y = y.data();
            a.probability = 0.5f;
            a.device_step = s.counter();
            a.noise = s.noise();
            LAUNCH_OK(twk_mirror(&a, nullptr));
            const std::vector<double> got = y.read();
            for (int64_t i = 0; i < h.total(); i++) {
                const bool flip = noise_uniform(s.key(i / h.elements(), TWK_NOISE_FLIP), 0) < 0.5;
                const int64_t column = i / h.c % h.w;
                ASSERT_EQ(got[i], x.v[flip ? i + (h.w - 1 - 2 * column) * h.c : i]) << tst::str(h);
            }
        }
}

TEST_F(DrawTest, NoiseFollowsTheState) {
    const State s(123, uint64_t(7) << 35, 41);
    const int64_t batch = 3, elements = 9;
    Tensor out(TWK_F32, batch * elements);
    twk_noise_fill_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.out = out.data();
    a.kind = TWK_FILL_WORDS;
    a.purpose = TWK_NOISE_INITIAL;
    a.device_step = s.counter();
    a.noise = s.noise();
    LAUNCH_OK(twk_noise_fill(&a, nullptr));
    const std::vector<uint32_t> got = fetch<uint32_t>(out.buffer);
    for (int64_t i = 0; i < batch * elements; i++)
        ASSERT_EQ(got[i], noise_word(s.key(i / elements, TWK_NOISE_INITIAL), i % elements));
}

TEST_F(DrawTest, TableEntry) {
    const std::vector<float> table = {0, 1, 2, 10, 11, 12};
    Buffer table_on = upload(table), out(300 * 4);
    for (uint32_t row : {0u, 1u, 2u}) {
        const State s(0, 0, row);
        LAUNCH_OK(twk_table_entry(at<float>(table_on), 2, 3, 2, s.counter(), 300, at<float>(out),
                                  nullptr));
        for (float v : fetch<float>(out)) {
            if (row < 2)
                ASSERT_EQ(v, table[row * 3 + 2]);
            else
                ASSERT_TRUE(std::isnan(v));
        }
    }
    EXPECT_EQ(twk_table_entry(at<float>(table_on), 2, 3, 3, nullptr, 1, nullptr, nullptr),
              TWK_BAD_ARGUMENT);
}

TEST_F(DrawTest, Numbers) {
    const std::vector<int32_t> whole = {0, -1, 999, INT32_MAX, INT32_MIN, 16777217};
    const std::vector<float> real = {0.9f, -0.9f, 1e10f, -1e10f, NAN, 41.0f, -2147483648.0f};
    const std::vector<int32_t> cut = {0, 0, INT32_MAX, INT32_MIN, 0, 41, INT32_MIN};
    Buffer w = upload(whole), r = upload(real);
    Buffer as_real(whole.size() * 4), as_whole(real.size() * 4);
    LAUNCH_OK(twk_int_to_real((int64_t)whole.size(), at<int32_t>(w), at<float>(as_real), nullptr));
    LAUNCH_OK(twk_real_to_int((int64_t)real.size(), at<float>(r), at<int32_t>(as_whole), nullptr));
    const std::vector<float> got = fetch<float>(as_real);
    for (size_t i = 0; i < whole.size(); i++) EXPECT_EQ(got[i], (float)whole[i]);
    EXPECT_EQ(fetch<int32_t>(as_whole), cut);
}

TEST_F(DrawTest, ScaledSamplesAndConstants) {
    for (const Shape &s : shapes())
        for (twk_format format : formats)
            for (int divide : {0, 1}) {
                Tensor x = random_tensor(format, s.total(), 2, (size_t)pick(2));
                Tensor factor = random_tensor(TWK_F32, s.n), y(format, s.total());
                LAUNCH_OK(twk_scale_samples(format, s.n, s.elements(), x.data(), factor.f32(),
                                            divide, y.data(), nullptr));
                std::vector<Expected> want((size_t)s.total());
                for (int64_t i = 0; i < s.total(); i++) {
                    const double f = factor.v[i / s.elements()];
                    want[i].add(divide ? x.v[i] / f : x.v[i] * f);
                }
                expect_close(y.read(), want, format, 4, tst::str(s));
                Tensor c(format, s.total(), (size_t)pick(2));
                LAUNCH_OK(twk_constant(format, s.total(), -2.5f, c.data(), nullptr));
                for (double v : c.read()) ASSERT_EQ(v, -2.5);
                LAUNCH_OK(
                    twk_add(format, s.total(), 2, x.data(), 0.5f, nullptr, y.data(), nullptr));
                for (int64_t i = 0; i < s.total(); i++) {
                    want[i] = {};
                    want[i].add(2 * x.v[i]);
                    want[i].add(0.5);
                }
                expect_close(y.read(), want, format, 4, "plus a constant " + tst::str(s));
            }
}

// Two rows in a table of another width, beside what other kernels read.
template <typename ROW> Buffer wide_table(const ROW &row, int64_t width, int64_t offset) {
    std::vector<float> table((size_t)(2 * width), NAN);
    memcpy(&table[(size_t)(width + offset)], &row, sizeof row);
    return upload(table);
}

TEST_F(DrawTest, RowsLieApart) {
    const int64_t width = 33, batch = 2, elements = 37, n = batch * elements;
    const State s(31, 5, 1);
    Tensor x = random_tensor(TWK_F32, n), m = random_tensor(TWK_F32, n), close(TWK_F32, n),
           apart(TWK_F32, n);
    const twk_ddim_row row = {0.6f, 0.4f, 0.25f, 0.8f, 0.2f, 1, 1, 0};
    Buffer one = upload(std::vector<twk_ddim_row>{row}), table = wide_table(row, width, 3);
    twk_ddim_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = x.data();
    a.m = m.data();
    a.x_out = close.data();
    a.rows = at<twk_ddim_row>(one);
    a.n_rows = 1;
    a.noise.seed = s.seed;
    a.noise.first_sample = s.first;
    LAUNCH_OK(twk_ddim_update(&a, nullptr));
    a.x_out = apart.data();
    a.rows = reinterpret_cast<const twk_ddim_row *>(at<float>(table) + 3);
    a.n_rows = 2;
    a.row_stride = width;
    a.counter = s.counter();
    a.noise = s.noise();
    LAUNCH_OK(twk_ddim_update(&a, nullptr));
    EXPECT_EQ(fetch<uint32_t>(apart.buffer), fetch<uint32_t>(close.buffer));

    twk_update_row general = {};
    general.dx = 0.5f, general.dp[0] = 0.25f, general.cx = 0.75f, general.cy = 2;
    general.cz = 0.1f, general.clip = 0.3f, general.noise_step = 1;
    Buffer one_general = upload(std::vector<twk_update_row>{general});
    Buffer table_general = wide_table(general, width, 9);
    twk_update_args u = {};
    u.batch = batch;
    u.elements = elements;
    u.x = x.f32();
    u.p[0] = m.data();
    u.x_out = close.f32();
    u.rows = at<twk_update_row>(one_general);
    u.n_rows = 1;
    u.noise.seed = s.seed;
    u.noise.first_sample = s.first;
    LAUNCH_OK(twk_sampler_update(&u, nullptr));
    u.x_out = apart.f32();
    u.rows = reinterpret_cast<const twk_update_row *>(at<float>(table_general) + 9);
    u.n_rows = 2;
    u.row_stride = width;
    u.counter = s.counter();
    u.noise = s.noise();
    LAUNCH_OK(twk_sampler_update(&u, nullptr));
    EXPECT_EQ(fetch<uint32_t>(apart.buffer), fetch<uint32_t>(close.buffer));
}

TEST_F(DrawTest, TheGeneralUpdateTakesThresholds) {
    const int64_t batch = 3, elements = 21, n = batch * elements;
    Tensor x = random_tensor(TWK_F32, n, 6), out(TWK_F32, n), y(TWK_F32, n);
    Tensor threshold(TWK_F32, std::vector<double>{1, 1.5, 2.25});
    twk_update_row row = {};
    row.dx = 1.5f, row.cx = 0.25f, row.cy = 0.5f, row.clip = 0.001f;
    Buffer rows = upload(std::vector<twk_update_row>{row});
    twk_update_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = x.f32();
    a.x_out = out.f32();
    a.y_out = y.f32();
    a.threshold = threshold.f32();
    a.rows = at<twk_update_row>(rows);
    a.n_rows = 1;
    LAUNCH_OK(twk_sampler_update(&a, nullptr));
    std::vector<Expected> want((size_t)n), want_y((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        const double s = threshold.v[i / elements];
        want_y[i].add(std::clamp(1.5 * x.v[i], -s, s) / s);
        want[i].add(0.25 * x.v[i]);
        want[i].add(0.5 * want_y[i].value);
    }
    expect_close(y.read(), want_y, TWK_F32, 8, "y");
    expect_close(out.read(), want, TWK_F32, 8, "x");
}

TEST_F(DrawTest, NaNIsNotClippedAway) {
    const int64_t batch = 2, elements = 1300, n = batch * elements;
    std::vector<double> v((size_t)n, 0.25);
    v[elements + 7] = NAN;
    Tensor x(TWK_F32, std::vector<double>((size_t)n, 0.5)), m(TWK_F32, v), out(TWK_F32, n);
    Tensor threshold(TWK_F32, batch);
    Buffer rows = upload(std::vector<twk_ddim_row>{{0.6f, 0.4f, 0.25f, 0.8f, 0.2f, 0, 0, 0}});
    twk_ddim_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = x.data();
    a.m = m.data();
    a.x_out = out.data();
    a.clip_mode = TWK_CLIP_FIXED;
    a.clip = 1;
    a.rows = at<twk_ddim_row>(rows);
    a.n_rows = 1;
    const auto only_one = [&](const Tensor &t, int64_t where) {
        const std::vector<double> got = t.read();
        for (size_t i = 0; i < got.size(); i++)
            ASSERT_EQ(std::isnan(got[i]), (int64_t)i == where) << i;
    };
    LAUNCH_OK(twk_ddim_update(&a, nullptr));
    only_one(out, elements + 7);
    LAUNCH_OK(twk_dynamic_threshold(&a, 0.5f, 100, threshold.f32(), nullptr));
    only_one(threshold, 1);
    twk_update_row general = {};
    general.dp[0] = 1, general.cy = 1, general.clip = 1;
    Buffer general_on = upload(std::vector<twk_update_row>{general});
    twk_update_args u = {};
    u.batch = batch;
    u.elements = elements;
    u.x = x.f32();
    u.x_out = out.f32();
    u.p[0] = m.data();
    u.rows = at<twk_update_row>(general_on);
    u.n_rows = 1;
    LAUNCH_OK(twk_sampler_update(&u, nullptr));
    only_one(out, elements + 7);
    LAUNCH_OK(twk_activation_forward(TWK_RELU, TWK_F32, n, m.data(), out.data(), nullptr));
    only_one(out, elements + 7);
}

TEST_F(DrawTest, NoisingFromATableOfPairs) {
    const std::vector<float> pairs = {0.9f, 0.1f, 0.5f, 0.5f, 0.1f, 0.9f};
    const std::vector<int32_t> time = {2, 0, 3, -1};
    Buffer table = upload(pairs), time_on = upload(time);
    const State s(8, 100, 6);
    const int64_t batch = 4, elements = 10;
    Tensor x0 = random_tensor(TWK_F32, batch * elements), xt(TWK_F32, batch * elements);
    twk_noising_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x0 = x0.data();
    a.x_t = xt.data();
    a.time = at<int32_t>(time_on);
    a.a = at<float>(table);
    a.one_minus_a = at<float>(table) + 1;
    a.n_times = 3;
    a.table_stride = 2;
    a.purpose = TWK_NOISE_TRAIN_NOISE;
    a.device_step = s.counter();
    a.noise = s.noise();
    LAUNCH_OK(twk_forward_noising(&a, nullptr));
    const std::vector<double> got = xt.read();
    std::vector<Expected> want((size_t)(2 * elements));
    for (int64_t i = 0; i < batch * elements; i++) {
        const int32_t t = time[i / elements];
        if (i >= 2 * elements) {
            ASSERT_TRUE(std::isnan(got[i])) << "time " << t;
            continue;
        }
        const double z = noise_normal(s.key(i / elements, TWK_NOISE_TRAIN_NOISE), i % elements);
        want[i].add(std::sqrt((double)pairs[2 * t]) * x0.v[i]);
        want[i].add(std::sqrt((double)pairs[2 * t + 1]) * z);
        want[i].terms += 1;
    }
    expect_close({got.begin(), got.begin() + 2 * elements}, want, TWK_F32, 32, "pairs");
}

TEST_F(DrawTest, TheLossGradientAlone) {
    const int64_t batch = 3, elements = 50, n = batch * elements;
    Tensor p = random_tensor(TWK_F32, n), target = random_tensor(TWK_F32, n), dp(TWK_F32, n);
    Tensor upper(TWK_F32, std::vector<double>{-1.75});
    twk_mse_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.p = p.data();
    a.target = target.f32();
    a.device_gradient_scale = upper.f32();
    a.dp = dp.data();
    LAUNCH_OK(twk_mse(&a, nullptr));
    std::vector<Expected> want((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        want[i].add(2 * -1.75 * p.v[i] / (double)n);
        want[i].add(-2 * -1.75 * target.v[i] / (double)n);
    }
    expect_close(dp.read(), want, TWK_F32, 8, "gradient");
    a.dp = nullptr;
    EXPECT_EQ(twk_mse(&a, nullptr), TWK_BAD_ARGUMENT);
}

TEST_F(DrawTest, FourierOfTheLogarithm) {
    const int64_t batch = 5, half = 6;
    Tensor t(TWK_F32, std::vector<double>{0.01, 1, 2.5, 30, 999}), out(TWK_F32, batch * 2 * half);
    Tensor weights = random_tensor(TWK_F32, half, 32);
    twk_time_embedding_args a = {};
    a.batch = batch;
    a.width = (int)(2 * half);
    a.t = t.f32();
    a.weights = weights.f32();
    a.log_time = 1;
    a.out = out.data();
    LAUNCH_OK(twk_time_embedding(&a, nullptr));
    std::vector<Expected> want((size_t)(batch * 2 * half));
    for (int64_t i = 0; i < batch * 2 * half; i++) {
        const int64_t n = i / (2 * half), column = i % (2 * half);
        const double angle = 2 * M_PI * std::log(t.v[n]) * weights.v[column % half];
        want[i] = {column < half ? std::sin(angle) : std::cos(angle), 1 + std::fabs(angle)};
    }
    expect_close(out.read(), want, TWK_F32, 4, "log");
    a.weights = nullptr;
    a.max_period = 100;
    EXPECT_EQ(twk_time_embedding(&a, nullptr), TWK_BAD_ARGUMENT);
}

} // namespace
