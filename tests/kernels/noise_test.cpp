// The generator against the contract's known answers, the fills against an independent reference,
// and (in the plain build) the statistics of 10^8 normals.
#include "support.h"

#include <cstring>

using namespace tst;

namespace {

class NoiseTest : public KernelTest {};

TEST(Philox, KnownAnswers) {
    const uint32_t counter[3][4] = {{0, 0, 0, 0},
                                    {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                                    {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    const uint32_t key[3][2] = {{0, 0}, {0xffffffff, 0xffffffff}, {0xa4093822, 0x299f31d0}};
    const uint32_t want[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t got[4];
        philox(counter[i], key[i], got);
        for (int j = 0; j < 4; j++) EXPECT_EQ(got[j], want[i][j]);
    }
}

twk_noise_fill_args fill_args(const Shape &s, void *out, twk_fill kind, const Key &k) {
    twk_noise_fill_args a = {};
    a.batch = s.n;
    a.elements = s.elements();
    a.out = out;
    a.kind = kind;
    a.purpose = k.purpose;
    a.step = k.step;
    a.scale = 1.0f;
    a.noise.seed = k.seed;
    a.noise.first_sample = k.sample;
    return a;
}

// The contract's known answer, through a kernel.
TEST_F(NoiseTest, KernelGivesTheKnownAnswer) {
    const Shape s = {1, 1, 1, 4};
    Tensor out(TWK_F32, 4);
    LAUNCH_OK(([&] {
        twk_noise_fill_args a = fill_args(s, out.data(), TWK_FILL_WORDS, Key{0, 0, 0, 0});
        return twk_noise_fill(&a, nullptr);
    }()));
    const std::vector<uint32_t> got = fetch<uint32_t>(out.buffer);
    EXPECT_EQ(got[0], 0x6627e8d5u);
    EXPECT_EQ(got[3], 0x9b00dbd8u);
}

TEST_F(NoiseTest, WordsEqualTheReferenceToTheBit) {
    for (const Shape &s : shapes()) {
        const Key k = {rng()(), rng()() >> 20, (uint32_t)pick(65536), (uint32_t)rng()()};
        for (size_t shift : {0, 1}) {
            Tensor out(TWK_F32, s.total(), shift);
            twk_noise_fill_args a = fill_args(s, out.data(), TWK_FILL_WORDS, k);
            LAUNCH_OK(twk_noise_fill(&a, nullptr));
            const std::vector<uint32_t> got = fetch<uint32_t>(out.buffer);
            for (int64_t i = 0; i < s.total(); i++) {
                Key of = k;
                of.sample += (uint64_t)(i / s.elements());
                ASSERT_EQ(got[i], noise_word(of, i % s.elements())) << str(s) << " element " << i;
            }
        }
    }
}

TEST_F(NoiseTest, SamplesAndSeedFromTheDevice) {
    const Shape s = {5, 1, 1, 7};
    const std::vector<uint64_t> samples = {9, 3, uint64_t(5) << 40, 0, 9};
    const std::vector<uint64_t> seed = {0x123456789abcdefull};
    Buffer samples_on = upload(samples), seed_on = upload(seed);
    Tensor out(TWK_F32, s.total());
    twk_noise_fill_args a = fill_args(s, out.data(), TWK_FILL_WORDS, Key{1, 77, 3, 4});
    a.noise.samples = static_cast<const uint64_t *>(samples_on.data());
    a.noise.device_seed = static_cast<const uint64_t *>(seed_on.data());
    LAUNCH_OK(twk_noise_fill(&a, nullptr));
    const std::vector<uint32_t> got = fetch<uint32_t>(out.buffer);
    for (int64_t i = 0; i < s.total(); i++)
        EXPECT_EQ(got[i], noise_word(Key{seed[0], samples[i / 7], 3, 4}, i % 7));
}

TEST_F(NoiseTest, NormalsAndUniforms) {
    for (const Shape &s : shapes()) {
        for (twk_format f : formats) {
            const Key k = {rng()(), rng()() >> 20, TWK_NOISE_SAMPLER, (uint32_t)pick(1000)};
            for (twk_fill kind : {TWK_FILL_NORMAL, TWK_FILL_UNIFORM}) {
                Tensor out(f, s.total(), (size_t)pick(2));
                twk_noise_fill_args a = fill_args(s, out.data(), kind, k);
                a.format = f;
                LAUNCH_OK(twk_noise_fill(&a, nullptr));
                const std::vector<double> got = out.read();
                for (int64_t i = 0; i < s.total(); i++) {
                    Key of = k;
                    of.sample += (uint64_t)(i / s.elements());
                    const int64_t e = i % s.elements();
                    const double want =
                        kind == TWK_FILL_NORMAL ? noise_normal(of, e) : noise_uniform(of, e);
                    const double slack =
                        kind == TWK_FILL_NORMAL ? 1e-6 * std::max(1.0, std::fabs(want)) : 0;
                    ASSERT_LE(std::fabs(got[i] - want),
                              slack + (f == TWK_F32 ? 0 : eps_of(f) * std::fabs(want)) + 0x1p-25)
                        << str(s) << " " << name_of(f) << " element " << i;
                }
            }
        }
    }
}

TEST_F(NoiseTest, ASampleIsTheSameInEveryBatch) {
    const Shape all = {8, 3, 3, 3};
    Tensor whole(TWK_F32, all.total());
    twk_noise_fill_args a = fill_args(all, whole.data(), TWK_FILL_NORMAL, Key{5, 100, 0, 0});
    LAUNCH_OK(twk_noise_fill(&a, nullptr));
    const std::vector<uint32_t> want = fetch<uint32_t>(whole.buffer);
    const Shape part = {3, 3, 3, 3};
    Tensor some(TWK_F32, part.total());
    a = fill_args(part, some.data(), TWK_FILL_NORMAL, Key{5, 104, 0, 0});
    LAUNCH_OK(twk_noise_fill(&a, nullptr));
    const std::vector<uint32_t> got = fetch<uint32_t>(some.buffer);
    for (int64_t i = 0; i < part.total(); i++) EXPECT_EQ(got[i], want[4 * 27 + i]);
}

TEST_F(NoiseTest, CounterAdds) {
    Buffer counter = upload(std::vector<uint32_t>{41});
    LAUNCH_OK(twk_counter_add(static_cast<uint32_t *>(counter.data()), 1, nullptr));
    EXPECT_EQ(fetch<uint32_t>(counter)[0], 42u);
    EXPECT_EQ(twk_counter_add(nullptr, 1, nullptr), TWK_BAD_ARGUMENT);
}

// Mean, variance, skewness, kurtosis, tails, and correlation with the neighbour, with the other
// half of the pair's squares, with the next sample and with the next step. Each figure is compared
// with its own standard error.
TEST_F(NoiseTest, StatisticsOfManyNormals) {
#if !defined(TW_TEST_DEVICE) && !defined(TW_EMU_PLAIN)
    GTEST_SKIP() << "10^8 normals are drawn in the plain build";
#endif
    const int64_t per_sample = 4096, samples = 64, steps = 382; // 1.0014e8 normals
    const int64_t n = per_sample * samples;
    Tensor out(TWK_F32, n);
    std::vector<float> z((size_t)n), last((size_t)n);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0, squares = 0, sample = 0, step = 0;
    int64_t over[4] = {};
    for (int64_t s = 0; s < steps; s++) {
        twk_noise_fill_args a = fill_args({samples, 1, 1, per_sample}, out.data(), TWK_FILL_NORMAL,
                                          Key{20261122, 1000, TWK_NOISE_SAMPLER, (uint32_t)s});
        LAUNCH_OK(twk_noise_fill(&a, nullptr));
        out.buffer.download(z.data());
        for (int64_t i = 0; i < n; i++) {
            const double v = z[i], v2 = v * v;
            m1 += v;
            m2 += v2;
            m3 += v2 * v;
            m4 += v2 * v2;
            for (int k = 0; k < 4; k++) over[k] += std::fabs(v) > 2 + k;
            if (i + 1 < n) lag += v * z[i + 1];
            if (i % 2 == 0) squares += (v2 - 1) * ((double)z[i + 1] * z[i + 1] - 1);
            if (i + per_sample < n) sample += v * z[i + per_sample];
            if (s) step += v * last[i];
        }
        std::swap(z, last);
    }
    const double N = (double)(n * steps), se = 1 / std::sqrt(N), limit = 5;
    EXPECT_LT(std::fabs(m1 / N), limit * se);
    EXPECT_LT(std::fabs(m2 / N - 1), limit * std::sqrt(2.0) * se);
    EXPECT_LT(std::fabs(m3 / N), limit * std::sqrt(15.0) * se);
    EXPECT_LT(std::fabs(m4 / N - 3), limit * std::sqrt(96.0) * se);
    for (int k = 0; k < 4; k++) {
        const double p = std::erfc((2 + k) / std::sqrt(2.0));
        EXPECT_LT(std::fabs((double)over[k] - N * p), limit * std::sqrt(N * p))
            << "|z| > " << 2 + k;
    }
    EXPECT_LT(std::fabs(lag / N), limit * se);
    EXPECT_LT(std::fabs(squares / (N / 2)), limit * 2 * std::sqrt(2.0) * se);
    EXPECT_LT(std::fabs(sample / N), limit * se);
    EXPECT_LT(std::fabs(step / N), limit * se);
    printf("N %.4g mean %.3g variance-1 %.3g skewness %.3g kurtosis-3 %.3g |z|>5 %lld of %.1f\n", N,
           m1 / N, m2 / N - 1, m3 / N, m4 / N - 3, (long long)over[3],
           N * std::erfc(5 / std::sqrt(2.0)));
}

TEST_F(NoiseTest, RefusesWhatIsWrong) {
    Tensor out(TWK_F32, 4);
    twk_noise_fill_args a = fill_args({1, 1, 1, 4}, out.data(), TWK_FILL_WORDS, Key{0, 0, 0, 0});
    a.format = TWK_BF16;
    EXPECT_EQ(twk_noise_fill(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_STRNE(twk_error_text(), "");
    a.format = TWK_F32;
    a.batch = 0;
    EXPECT_EQ(twk_noise_fill(&a, nullptr), TWK_BAD_ARGUMENT);
    a.batch = INT64_MAX;
    EXPECT_EQ(twk_noise_fill(&a, nullptr), TWK_BAD_ARGUMENT);
    a.batch = 1;
    a.out = nullptr;
    EXPECT_EQ(twk_noise_fill(&a, nullptr), TWK_BAD_ARGUMENT);
    EXPECT_EQ(twk_noise_fill(nullptr, nullptr), TWK_BAD_ARGUMENT);
}

} // namespace
