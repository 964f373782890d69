// The fused DDIM update and the dynamic threshold.
#include "schedule.h"
#include "support.h"

#include <algorithm>
#include <cstring>

#ifdef TW_TEST_DEVICE
#include <cuda_runtime_api.h>
#endif

using namespace tst;

namespace {

struct Step {
    double a_t, a_p, eta;
    uint32_t noise_step;
};

twk_ddim_row row_of(const Step &s) {
    twk_ddim_row r = {};
    r.a_t = (float)s.a_t;
    r.one_minus_a_t = (float)(1 - s.a_t);
    r.one_minus_ratio = (float)(1 - s.a_t / s.a_p);
    r.a_p = (float)s.a_p;
    r.one_minus_a_p = (float)(1 - s.a_p);
    r.eta = (float)s.eta;
    r.noise_step = s.noise_step;
    return r;
}

struct Case {
    Shape shape;
    twk_format x_format, m_format;
    twk_prediction prediction;
    twk_clip clip;
    bool guided, rederive, x0_out, in_place, per_sample, inpaint, mask_per_element, batched;
    double eta;
    size_t shift;
};

std::string str(const Case &c) {
    return tst::str(c.shape) + " x " + name_of(c.x_format) + " m " + name_of(c.m_format) +
           " prediction " + std::to_string(c.prediction) + " clip " + std::to_string(c.clip) +
           (c.guided ? " guided" : "") + (c.rederive ? " rederive" : "") +
           (c.inpaint ? " inpaint" : "") + (c.per_sample ? " per sample" : "") + " eta " +
           std::to_string(c.eta) + " shift " + std::to_string(c.shift);
}

// x0 and e in double, with the magnitudes that bound their rounding.
void predict(twk_prediction kind, double a, double x, Expected m, Expected *x0, Expected *e) {
    const double sa = std::sqrt(a), sb = std::sqrt(1 - a), mag = std::fabs(x);
    switch (kind) {
    case TWK_PREDICT_EPSILON:
    case TWK_PREDICT_SCORE: {
        const double k = kind == TWK_PREDICT_SCORE ? -sb : 1;
        *e = {k * m.value, std::fabs(k) * m.terms};
        *x0 = {(x - sb * e->value) / sa, (mag + sb * e->terms) / sa};
        break;
    }
    case TWK_PREDICT_SAMPLE:
        *x0 = m;
        *e = {(x - sa * m.value) / sb, (mag + sa * m.terms) / sb};
        break;
    case TWK_PREDICT_V:
        *x0 = {sa * x - sb * m.value, sa * mag + sb * m.terms};
        *e = {sa * m.value + sb * x, sa * m.terms + sb * mag};
        break;
    }
}

class SamplerTest : public KernelTest {};

// One run of the kernel for a case; `mistake` spoils what is expected, which must then be noticed.
int64_t run_case(const Case &c, int mistake, std::string *what) {
    const int64_t n = c.shape.total(), elements = c.shape.elements(), channels = c.shape.c;
    static const Schedule schedule(1000);
    const double guidance = 1.75, clip = 0.8;
    std::vector<Step> steps;
    for (int i = 0; i < 4; i++) {
        const int t = 20 + (int)pick(970);
        const int p = std::max(t - 1 - (int)pick(40), 0);
        steps.push_back({schedule.a[t], i == 3 ? 1.0 : schedule.a[p], c.eta, (uint32_t)pick(1000)});
    }
    std::vector<twk_ddim_row> rows;
    for (const Step &s : steps) rows.push_back(row_of(s));
    Tensor x = random_tensor(c.x_format, n, 2, c.shift);
    Tensor m = random_tensor(c.m_format, n, 2, c.shift),
           u = random_tensor(c.m_format, n, 2, c.shift);
    Tensor known = random_tensor(c.x_format, c.batched ? n : elements, 2, c.shift);
    const int64_t width = c.mask_per_element ? elements : elements / channels;
    std::vector<double> mask_values((size_t)(c.batched ? c.shape.n * width : width));
    for (double &v : mask_values) v = pick(3) ? (double)pick(2) : tst::uniform(0, 1);
    Tensor mask(TWK_F32, mask_values), out(c.x_format, n, c.shift), x0_out(c.x_format, n, c.shift);
    std::vector<float> thresholds((size_t)c.shape.n);
    std::vector<int32_t> index((size_t)c.shape.n);
    for (float &t : thresholds) t = (float)tst::uniform(1, 1.5);
    for (int32_t &i : index) i = (int32_t)pick(4);
    const uint32_t counter = (uint32_t)pick(4);
    Buffer rows_on = upload(rows), thresholds_on = upload(thresholds), index_on = upload(index),
           counter_on = upload(std::vector<uint32_t>{counter});
    const uint64_t seed = rng()(), first = rng()() >> 20;

    twk_ddim_args a = {};
    a.batch = c.shape.n;
    a.elements = elements;
    a.x_format = c.x_format;
    a.m_format = c.m_format;
    a.x = x.data();
    a.x_out = c.in_place ? x.data() : out.data();
    a.x0_out = c.x0_out ? x0_out.data() : nullptr;
    a.m = m.data();
    a.m_uncond = c.guided ? u.data() : nullptr;
    a.guidance = (float)guidance;
    a.prediction = c.prediction;
    a.clip_mode = c.clip;
    a.clip = (float)clip;
    a.threshold = static_cast<float *>(thresholds_on.data());
    a.rederive_epsilon = c.rederive;
    a.rows = static_cast<twk_ddim_row *>(rows_on.data());
    a.n_rows = 4;
    a.counter = static_cast<uint32_t *>(counter_on.data());
    a.row_index = c.per_sample ? static_cast<int32_t *>(index_on.data()) : nullptr;
    a.noise.seed = seed;
    a.noise.first_sample = first;
    if (c.inpaint) {
        a.known = known.data();
        a.known_batched = a.mask_batched = c.batched;
        a.mask = mask.f32();
        a.mask_per_element = c.mask_per_element;
        a.channels = (int)channels;
    }
    EXPECT_EQ(twk_ddim_update(&a, nullptr), TWK_OK) << twk_error_text();
    synchronize();

    std::vector<Expected> want((size_t)n), want_x0((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t sample = i / elements, e = i % elements;
        const Step &s = steps[c.per_sample ? index[sample] : counter];
        Expected mm = {m.v[i], std::fabs(m.v[i])};
        if (c.guided)
            mm = {u.v[i] + guidance * (m.v[i] - u.v[i]),
                  (1 + guidance) * std::fabs(u.v[i]) + guidance * std::fabs(m.v[i])};
        Expected x0, eps;
        predict(c.prediction, s.a_t, x.v[i], mm, &x0, &eps);
        if (c.clip != TWK_CLIP_NONE) {
            const double limit =
                c.clip == TWK_CLIP_FIXED ? (double)(float)clip : thresholds[sample];
            x0.value = std::clamp(x0.value, -limit, limit);
            if (c.clip == TWK_CLIP_DYNAMIC) x0.value /= limit;
            if (c.rederive) {
                const double sa = std::sqrt(s.a_t), sb = std::sqrt(1 - s.a_t);
                eps = {(x.v[i] - sa * x0.value) / sb, (std::fabs(x.v[i]) + sa * x0.terms) / sb};
            }
        }
        want_x0[i] = x0;
        const double sigma = mistake == 1 ? s.eta * (1 - s.a_p) / (1 - s.a_t)
                                          : s.eta * std::sqrt((1 - s.a_p) / (1 - s.a_t)) *
                                                std::sqrt(1 - s.a_t / s.a_p);
        const double direction =
            std::sqrt(std::max(1 - s.a_p - (mistake == 2 ? sigma : sigma * sigma), 0.0));
        Expected r;
        r.value = std::sqrt(s.a_p) * x0.value + direction * eps.value;
        r.terms = std::sqrt(s.a_p) * x0.terms + direction * eps.terms;
        Key key = {seed, first + (uint64_t)sample, TWK_NOISE_SAMPLER, s.noise_step};
        if (mistake == 3) key.step++;
        if (sigma > 0) {
            const double z = noise_normal(key, e);
            r.value += sigma * z;
            r.terms += sigma * std::max(1.0, std::fabs(z));
        }
        if (c.inpaint) {
            const int64_t at = c.mask_per_element ? e : e / channels;
            const double k = mask.v[(c.batched ? sample * width : 0) + at];
            key.purpose = TWK_NOISE_INPAINT;
            const double z = noise_normal(key, e);
            const double there = known.v[c.batched ? i : e];
            const double sb = std::sqrt(1 - s.a_p);
            r.value = k * (std::sqrt(s.a_p) * there + sb * z) + (1 - k) * r.value;
            r.terms = k * (std::fabs(there) + sb * std::max(1.0, std::fabs(z))) + (1 - k) * r.terms;
        }
        want[i] = r;
    }
    // 1e-6 for the normals is 17 units of 2^-24.
    int64_t bad = count_bad((c.in_place ? x : out).read(), want, c.x_format, 32, what);
    if (c.x0_out && !bad) bad += count_bad(x0_out.read(), want_x0, c.x_format, 16, what);
    return bad;
}

Case random_case(const Shape &s) {
    Case c;
    c.shape = s;
    c.m_format = formats[pick(3)];
    c.x_format = pick(3) ? TWK_F32 : c.m_format;
    c.prediction = (twk_prediction)pick(4);
    c.clip = (twk_clip)pick(3);
    c.guided = pick(2);
    c.rederive = pick(2);
    c.x0_out = pick(2);
    c.in_place = pick(2);
    c.per_sample = pick(2);
    c.inpaint = pick(3) == 0;
    c.mask_per_element = pick(2);
    c.batched = pick(2);
    c.eta = (double)pick(3) / 2;
    c.shift = (size_t)pick(2);
    return c;
}

TEST_F(SamplerTest, DdimEveryOption) {
    NOT_FOR_RACES();
    for (int prediction = 0; prediction < 4; prediction++)
        for (int clip = 0; clip < 3; clip++)
            for (int format = 0; format < 5; format++)
                for (int bits = 0; bits < 4; bits++) {
                    Case c = random_case({2, 5, 3, 4});
                    c.prediction = (twk_prediction)prediction;
                    c.clip = (twk_clip)clip;
                    c.m_format = formats[format % 3];
                    c.x_format = format < 3 ? TWK_F32 : formats[format - 2];
                    if (format >= 3) c.m_format = c.x_format;
                    c.guided = bits & 1;
                    c.inpaint = bits & 2;
                    std::string what;
                    EXPECT_EQ(run_case(c, 0, &what), 0) << str(c) << ": " << what;
                }
}

TEST_F(SamplerTest, DdimEveryShape) {
    for (const Shape &s : shapes())
        for (int i = 0; i < 8; i++) {
            const Case c = random_case(s);
            std::string what;
            EXPECT_EQ(run_case(c, 0, &what), 0) << str(c) << ": " << what;
        }
}

TEST_F(SamplerTest, DdimNoticesPlantedMistakes) {
    NOT_FOR_RACES();
    for (int mistake = 1; mistake <= 3; mistake++) {
        Case c = random_case({2, 7, 5, 3});
        c.eta = 1;
        c.inpaint = c.per_sample = false;
        c.x_format = c.m_format = TWK_F32;
        c.clip = TWK_CLIP_NONE;
        int64_t bad = 0; // the last step of a run (A_p = 1) has no noise to be wrong about
        for (int i = 0; i < 8; i++) bad += run_case(c, mistake, nullptr);
        EXPECT_GT(bad, 0) << "mistake " << mistake;
    }
}

// Data N(mu, s^2): the prediction is known in closed form. 1000 steps against float64.
TEST_F(SamplerTest, ThousandStepsStayWithFloat64) {
    NOT_FOR_RACES();
    const Schedule schedule(1000);
    const int64_t n = 96;
    for (const double eta : {0.0, 1.0}) {
        std::vector<twk_ddim_row> rows;
        std::vector<Step> steps;
        for (int t = 999; t >= 0; t--) {
            steps.push_back({schedule.a[t], t ? schedule.a[t - 1] : 1.0, eta, (uint32_t)t});
            rows.push_back(row_of(steps.back()));
        }
        Buffer rows_on = upload(rows), counter = upload(std::vector<uint32_t>{0});
        Tensor x = random_tensor(TWK_F32, n, 2), m(TWK_F32, n);
        std::vector<double> want = x.v;
        const double mu = 0.3, var = 0.25;
        auto epsilon = [&](double v, double a) {
            return std::sqrt(1 - a) * (v - std::sqrt(a) * mu) / (a * var + 1 - a);
        };
        twk_ddim_args a = {};
        a.batch = 2;
        a.elements = n / 2;
        a.x = a.x_out = x.data();
        a.m = m.data();
        a.rows = static_cast<twk_ddim_row *>(rows_on.data());
        a.n_rows = 1000;
        a.counter = static_cast<uint32_t *>(counter.data());
        a.noise.seed = 11;
        for (const Step &s : steps) {
            std::vector<double> now = x.read();
            for (double &v : now) v = epsilon(v, s.a_t);
            m.write(now);
            LAUNCH_OK(twk_ddim_update(&a, nullptr));
            LAUNCH_OK(twk_counter_add(static_cast<uint32_t *>(counter.data()), 1, nullptr));
            const double sigma = s.eta * std::sqrt((1 - s.a_p) / (1 - s.a_t) * (1 - s.a_t / s.a_p));
            for (int64_t i = 0; i < n; i++) {
                const double e = epsilon(want[i], s.a_t);
                const double x0 = (want[i] - std::sqrt(1 - s.a_t) * e) / std::sqrt(s.a_t);
                want[i] =
                    std::sqrt(s.a_p) * x0 + std::sqrt(std::max(1 - s.a_p - sigma * sigma, 0.0)) * e;
                if (sigma > 0)
                    want[i] += sigma * noise_normal({11, (uint64_t)(i / (n / 2)), TWK_NOISE_SAMPLER,
                                                     s.noise_step},
                                                    i % (n / 2));
            }
        }
        const std::vector<double> got = x.read();
        double worst = 0;
        for (int64_t i = 0; i < n; i++) worst = std::max(worst, std::fabs(got[i] - want[i]));
        EXPECT_LE(worst, 1e-4) << "eta " << eta;
        printf("eta %g: worst error after 1000 steps %.3g\n", eta, worst);
    }
}

TEST_F(SamplerTest, DdimRepeatsToTheBit) {
    NOT_FOR_RACES();
    Case c = random_case({3, 7, 5, 3});
    const int64_t n = c.shape.total();
    Tensor x = random_tensor(TWK_F32, n), m = random_tensor(TWK_BF16, n);
    std::vector<twk_ddim_row> rows = {row_of({0.4, 0.6, 1.0, 5})};
    Buffer rows_on = upload(rows);
    std::vector<uint32_t> first;
    for (int run = 0; run < 3; run++) {
        Tensor out(TWK_F32, n);
        twk_ddim_args a = {};
        a.batch = 3;
        a.elements = n / 3;
        a.x = x.data();
        a.x_out = out.data();
        a.m = m.data();
        a.m_format = TWK_BF16;
        a.rows = static_cast<twk_ddim_row *>(rows_on.data());
        a.n_rows = 1;
        LAUNCH_OK(twk_ddim_update(&a, nullptr));
        if (run == 0)
            first = fetch<uint32_t>(out.buffer);
        else
            EXPECT_EQ(fetch<uint32_t>(out.buffer), first);
    }
}

#ifdef TW_TEST_DEVICE
// A step captured once, replayed for each row of the table.
TEST_F(SamplerTest, ACapturedStepIsReplayed) {
    const int64_t n = 3000;
    const Schedule schedule(50);
    std::vector<twk_ddim_row> rows;
    for (int t = 49; t >= 0; t--)
        rows.push_back(row_of({schedule.a[t], t ? schedule.a[t - 1] : 1.0, 1.0, (uint32_t)t}));
    Tensor x = random_tensor(TWK_F32, n), m = random_tensor(TWK_BF16, n);
    Buffer rows_on = upload(rows), counter = upload(std::vector<uint32_t>{0});
    uint32_t *const count = static_cast<uint32_t *>(counter.data());
    twk_ddim_args a = {};
    a.batch = 2;
    a.elements = n / 2;
    a.x = a.x_out = x.data();
    a.m = m.data();
    a.m_format = TWK_BF16;
    a.rows = static_cast<twk_ddim_row *>(rows_on.data());
    a.n_rows = 50;
    a.counter = count;
    auto step = [&](twk_stream stream) {
        EXPECT_EQ(twk_ddim_update(&a, stream), TWK_OK);
        EXPECT_EQ(twk_counter_add(count, 1, stream), TWK_OK);
    };
    for (int i = 0; i < 50; i++) step(nullptr);
    synchronize();
    const std::vector<uint32_t> want = fetch<uint32_t>(x.buffer);
    x.write(x.v);
    counter.upload(std::vector<uint32_t>{0}.data());
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    step(reinterpret_cast<twk_stream>(stream));
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    for (int i = 0; i < 50; i++) ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    synchronize();
    EXPECT_EQ(fetch<uint32_t>(x.buffer), want);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}
#endif

TEST_F(SamplerTest, DdimInversionGoesUpwards) {
    Tensor x = random_tensor(TWK_F32, 16), m = random_tensor(TWK_F32, 16), out(TWK_F32, 16);
    const Step s = {0.8, 0.5, 0, 0};
    Buffer rows_on = upload(std::vector<twk_ddim_row>{row_of(s)});
    twk_ddim_args a = {};
    a.batch = 1;
    a.elements = 16;
    a.x = x.data();
    a.m = m.data();
    a.x_out = out.data();
    a.rows = static_cast<twk_ddim_row *>(rows_on.data());
    a.n_rows = 1;
    LAUNCH_OK(twk_ddim_update(&a, nullptr));
    std::vector<Expected> want(16);
    for (int i = 0; i < 16; i++) {
        const double x0 = (x.v[i] - std::sqrt(0.2) * m.v[i]) / std::sqrt(0.8);
        want[i].add(std::sqrt(0.5) * x0);
        want[i].add(std::sqrt(0.5) * m.v[i]);
        want[i].terms += std::fabs(x.v[i]) + std::fabs(m.v[i]);
    }
    expect_close(out.read(), want, TWK_F32, 16, "inversion");
}

TEST_F(SamplerTest, DdimRefusesWhatIsWrong) {
    Tensor x = random_tensor(TWK_F32, 16);
    Buffer rows_on = upload(std::vector<twk_ddim_row>{row_of({0.5, 0.8, 0, 0})});
    twk_ddim_args good = {};
    good.batch = 1;
    good.elements = 16;
    good.x = good.m = good.x_out = x.data();
    good.rows = static_cast<twk_ddim_row *>(rows_on.data());
    good.n_rows = 1;
    auto refused = [&](const std::function<void(twk_ddim_args &)> &spoil) {
        twk_ddim_args a = good;
        spoil(a);
        return twk_ddim_update(&a, nullptr) == TWK_BAD_ARGUMENT;
    };
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.batch = 0; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.elements = -1; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.batch = a.elements = INT64_MAX / 2; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.x = nullptr; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.x_out = nullptr; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.rows = nullptr; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.x_format = TWK_BF16; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.m_format = (twk_format)3; }));
    EXPECT_TRUE(refused([](twk_ddim_args &a) { a.clip_mode = TWK_CLIP_DYNAMIC; }));
    EXPECT_TRUE(refused([&](twk_ddim_args &a) { a.known = x.data(); }));
    EXPECT_EQ(twk_ddim_update(nullptr, nullptr), TWK_BAD_ARGUMENT);
}

#ifdef TW_EMULATOR
// 3 * 2^30 elements in address space without memory; only the blocks looked at are run.
TEST_F(SamplerTest, DdimIndexesPast2To31) {
    const int64_t elements = 3 * 256, batch = int64_t(1) << 22, n = batch * elements;
    Hollow x((size_t)n * 4), m((size_t)n * 2), out((size_t)n * 4);
    ASSERT_TRUE(x.data && m.data && out.data);
    Buffer rows_on = upload(std::vector<twk_ddim_row>{row_of({0.5, 0.8, 1.0, 3})});
    twk_ddim_args a = {};
    a.batch = batch;
    a.elements = elements;
    a.x = x.data;
    a.m = m.data;
    a.m_format = TWK_BF16;
    a.x_out = out.data;
    a.rows = static_cast<twk_ddim_row *>(rows_on.data());
    a.n_rows = 1;
    const int64_t per_block = 256 * 8;
    for (const int64_t block :
         {(int64_t(1) << 31) / per_block - 1, (int64_t(1) << 31) / per_block, n / per_block - 1}) {
        float *const xs = reinterpret_cast<float *>(x.data) + block * per_block;
        for (int64_t i = 0; i < per_block; i++) xs[i] = (float)tst::uniform(-1, 1);
        tw::emu::set_block_filter((uint64_t)block, 1);
        const twk_status status = twk_ddim_update(&a, nullptr);
        tw::emu::set_block_filter(0, 0);
        ASSERT_EQ(status, TWK_OK);
        const float *got = reinterpret_cast<float *>(out.data) + block * per_block;
        const double sigma = std::sqrt(0.2 / 0.5 * (1 - 0.5 / 0.8));
        for (int64_t i = 0; i < per_block; i++) {
            const int64_t at = block * per_block + i;
            const double z =
                noise_normal({0, (uint64_t)(at / elements), TWK_NOISE_SAMPLER, 3}, at % elements);
            const double want = std::sqrt(0.8 / 0.5) * xs[i] + sigma * z;
            ASSERT_NEAR(got[i], want, 1e-5) << "element " << at;
        }
    }
}
#endif

// A device with so little shared memory that the threshold's keys are not kept there.
struct LittleShared {
#ifdef TW_EMULATOR
    size_t before = tw::emu::shared_limit();
    explicit LittleShared(bool on) {
        if (on) tw::emu::set_shared_limit(12 * 1024);
    }
    ~LittleShared() {
        tw::emu::set_shared_limit(before);
    }
#else
    explicit LittleShared(bool) {}
#endif
};

// The last three take clusters of two and four blocks where there are clusters.
TEST_F(SamplerTest, DynamicThreshold) {
    for (const Shape &s : std::vector<Shape>{{1, 1, 1, 1},
                                             {3, 1, 1, 2},
                                             {2, 7, 5, 3},
                                             {1, 32, 32, 3},
                                             {2, 1, 1, 1025},
                                             {2, 1, 1, 5000},
                                             {1, 1, 1, 9217},
                                             {1, 56, 56, 3}}) {
        for (int trial = 0; trial < 6; trial++) {
            const twk_format mf = formats[pick(3)], xf = pick(2) ? TWK_F32 : mf;
            const double q = trial == 0 ? 1.0 : trial == 1 ? 0.0 : tst::uniform(0.3, 0.999);
            const double limit = 40;
            const int64_t n = s.total(), e = s.elements();
            Tensor x = random_tensor(xf, n, 6), m = random_tensor(mf, n, 6);
            Tensor u = random_tensor(mf, n, 6), out(TWK_F32, s.n);
            if (trial == 2) // many equal values
                for (Tensor *t : {&x, &m, &u}) {
                    std::vector<double> v((size_t)n);
                    for (double &w : v) w = (double)pick(3) * 2 - 2;
                    t->write(v);
                }
            const Step step = {0.6, 0.8, 0, 0};
            Buffer rows_on = upload(std::vector<twk_ddim_row>{row_of(step)});
            twk_ddim_args a = {};
            a.batch = s.n;
            a.elements = e;
            a.x_format = xf;
            a.m_format = mf;
            a.x = x.data();
            a.m = m.data();
            a.m_uncond = trial % 2 ? u.data() : nullptr;
            a.guidance = 2;
            a.prediction = (twk_prediction)pick(4);
            a.rows = static_cast<twk_ddim_row *>(rows_on.data());
            a.n_rows = 1;
            const LittleShared little(trial > 3);
            LAUNCH_OK(twk_dynamic_threshold(&a, (float)q, (float)limit, out.f32(), nullptr));
            const std::vector<double> got = out.read();
            for (int64_t i = 0; i < s.n; i++) {
                std::vector<double> sizes;
                double terms = 0;
                for (int64_t j = i * e; j < (i + 1) * e; j++) {
                    Expected mm = {m.v[j], std::fabs(m.v[j])}, x0, eps;
                    if (trial % 2)
                        mm = {u.v[j] + 2 * (m.v[j] - u.v[j]),
                              3 * std::fabs(u.v[j]) + 2 * std::fabs(m.v[j])};
                    predict(a.prediction, step.a_t, x.v[j], mm, &x0, &eps);
                    sizes.push_back(std::fabs(x0.value));
                    terms = std::max(terms, x0.terms);
                }
                std::sort(sizes.begin(), sizes.end());
                const double at = (double)(float)q * (double)(e - 1);
                const size_t low = (size_t)at;
                const double next = sizes[std::min(low + 1, sizes.size() - 1)];
                const double want =
                    std::clamp(sizes[low] + (at - (double)low) * (next - sizes[low]), 1.0, limit);
                ASSERT_LE(std::fabs(got[i] - want), 16 * 0x1p-24 * terms + 1e-7)
                    << tst::str(s) << " trial " << trial << " q " << q;
            }
        }
    }
}

} // namespace
