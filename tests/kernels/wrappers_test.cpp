// The wrappers of kernels/device against plain host code: on a GPU this checks that the hardware
// does what the emulator pretends it does.
#include "support.h"
#include "wrappers.h"

#include <algorithm>
#include <cstring>

using namespace tst;

namespace {

class WrappersTest : public KernelTest {};

TEST_F(WrappersTest, CollectivesCopiesAndAtomics) {
    std::vector<uint32_t> in(1024);
    for (uint32_t &v : in) v = (uint32_t)rng()();
    Buffer in_on = upload(in);
    std::vector<WrapperResults> zero(1);
    memset(static_cast<void *>(zero.data()), 0, sizeof(WrapperResults));
    zero[0].smallest = 0xffffffffu;
    Buffer out_on = upload(zero);
    LAUNCH_OK(wrappers_run(static_cast<uint32_t *>(in_on.data()),
                           static_cast<WrapperResults *>(out_on.data()), nullptr));
    const WrapperResults got = fetch<WrapperResults>(out_on)[0];
    uint32_t count = 0, largest = 0, smallest = 0xffffffffu;
    double sum = 0;
    for (int t = 0; t < 256; t++) {
        count += in[t] % 16;
        largest = std::max(largest, in[t]);
        smallest = std::min(smallest, in[t]);
        sum += in[t] % 1000;
    }
    EXPECT_EQ(got.count, count);
    EXPECT_EQ(got.largest, largest);
    EXPECT_EQ(got.smallest, smallest);
    for (int t = 0; t < 256; t++) {
        const int lane = t % 32, warp = t - lane;
        EXPECT_EQ(got.shuffled[0][t], in[warp + (lane ^ 5)]);
        EXPECT_EQ(got.shuffled[1][t], in[lane + 3 < 32 ? t + 3 : t]);
        EXPECT_EQ(got.shuffled[2][t], in[lane >= 7 ? t - 7 : t]);
        EXPECT_EQ(got.shuffled[3][t], in[warp + lane * 7 % 32]);
        uint32_t votes = 0, half = 0;
        double mean = 0, m2 = 0;
        for (int l = 0; l < 32; l++) {
            votes |= (in[warp + l] & 1u) << l;
            if (l / 16 == lane / 16) half |= (in[warp + l] >> 1 & 1u) << l;
            mean += in[warp + l] % 1000 / 32.0;
        }
        for (int l = 0; l < 32; l++) m2 += std::pow(in[warp + l] % 1000 - mean, 2);
        EXPECT_EQ(got.votes[t], votes);
        EXPECT_EQ(got.half_votes[t], half);
        EXPECT_EQ(got.block_sum[t], (float)sum); // exact: small whole numbers
        EXPECT_EQ(got.moments[t][0], 32.0f);
        EXPECT_NEAR(got.moments[t][1], mean, 1e-5 * 1000);
        EXPECT_NEAR(got.moments[t][2] / m2, 1, 1e-5);
        for (int i = 0; i < 4; i++) {
            EXPECT_EQ(got.copied[4 * t + i], in[(4 * (t + 1) + i) % 1024]);
            EXPECT_EQ(got.partly[4 * t + i], i < t % 5 ? in[4 * t + i] : 0u);
        }
    }
}

TEST_F(WrappersTest, ProducersAndConsumers) {
    const int rounds = 7;
    std::vector<uint32_t> in(128 * rounds);
    for (uint32_t &v : in) v = (uint32_t)rng()();
    Buffer in_on = upload(in), out_on(32 * rounds * sizeof(uint32_t));
    for (int again = 0; again < 5; again++) {
        out_on.poison();
        LAUNCH_OK(wrappers_ring(static_cast<uint32_t *>(in_on.data()), rounds,
                                static_cast<uint32_t *>(out_on.data()), nullptr));
        const std::vector<uint32_t> got = fetch<uint32_t>(out_on);
        for (int round = 0; round < rounds; round++)
            for (int lane = 0; lane < 32; lane++) {
                uint32_t sum = 0;
                for (int i = 0; i < 4; i++)
                    sum += in[(size_t)(128 * round + (4 * (lane + 1) + i) % 128)];
                EXPECT_EQ(got[(size_t)(32 * round + lane)], sum);
            }
    }
}

TEST_F(WrappersTest, Conversions) {
    const int64_t n = 20000;
    std::vector<float> in((size_t)n);
    for (float &v : in) {
        uint32_t bits = (uint32_t)rng()();
        if (pick(2)) bits = (bits & 0x8fffffffu) | 0x30000000u; // where fp16 lives
        memcpy(&v, &bits, 4);
        if (std::isnan(v)) v = 0;
    }
    Buffer in_on = upload(in), b((size_t)n * 2), h((size_t)n * 2);
    Buffer pairs((size_t)n * 8);
    Tensor from_b(TWK_F32, n), from_h(TWK_F32, n);
    LAUNCH_OK(wrappers_convert(static_cast<float *>(in_on.data()), n,
                               static_cast<uint16_t *>(b.data()), static_cast<uint16_t *>(h.data()),
                               from_b.f32(), from_h.f32(), static_cast<uint32_t *>(pairs.data()),
                               nullptr));
    const std::vector<uint16_t> bits_b = fetch<uint16_t>(b), bits_h = fetch<uint16_t>(h);
    const std::vector<uint32_t> two = fetch<uint32_t>(pairs);
    for (size_t i = 0, last = (size_t)n - 1; i <= last; i++) {
        EXPECT_EQ(two[i], bits_b[i] | (uint32_t)bits_b[last - i] << 16) << in[i];
        EXPECT_EQ(two[last + 1 + i], bits_h[i] | (uint32_t)bits_h[last - i] << 16) << in[i];
    }
    const std::vector<double> gb = from_b.read(), gh = from_h.read();
    for (int64_t i = 0; i < n; i++) {
        const double wb = round_to(TWK_BF16, in[i]), wh = round_to(TWK_F16, in[i]);
        EXPECT_EQ(gb[i], std::fabs(wb) >= 0x1p128 ? std::copysign(INFINITY, wb) : wb) << in[i];
        EXPECT_EQ(gh[i], std::fabs(wh) >= 65520 ? std::copysign(INFINITY, wh) : wh) << in[i];
    }
}

TEST_F(WrappersTest, Functions) {
    const int64_t n = 20000;
    std::vector<float> in((size_t)n);
    for (float &v : in) v = (float)tst::uniform(-80, 80);
    in[0] = 0;
    in[1] = 200;
    in[2] = -200;
    Buffer in_on = upload(in);
    Tensor s(TWK_F32, n), e(TWK_F32, n), e2(TWK_F32, n), sine(TWK_F32, n), cosine(TWK_F32, n);
    LAUNCH_OK(wrappers_math(static_cast<float *>(in_on.data()), n, s.f32(), e.f32(), e2.f32(),
                            sine.f32(), cosine.f32(), nullptr));
    const std::vector<double> gs = s.read(), ge = e.read(), ge2 = e2.read(), gsin = sine.read(),
                              gcos = cosine.read();
    for (int64_t i = 0; i < n; i++) {
        const double x = in[i], slack = (4 + 2 * std::fabs(x)) * 0x1p-23;
        const double want = 1 / (1 + std::exp(-x));
        EXPECT_LE(std::fabs(gs[i] - want), slack * want + 1e-37) << x;
        if (std::fabs(x) < 85) {
            EXPECT_LE(std::fabs(ge[i] / std::exp(x) - 1), slack) << x;
        }
        const double two = std::exp2(x);
        if (x < -126) {
            EXPECT_EQ(ge2[i], 0) << x;
        } else if (x < 127) {
            EXPECT_LE(std::fabs(ge2[i] / two - 1), 0x1p-21) << x;
        }
        const double turn = std::fabs(x) - 2 * std::floor(std::fabs(x) / 2);
        EXPECT_NEAR(gsin[i], std::sin(M_PI * turn), 2e-7) << x;
        EXPECT_NEAR(gcos[i], std::cos(M_PI * turn), 2e-7) << x;
    }
}

TEST_F(WrappersTest, Clusters) {
    for (unsigned cluster = 1; cluster <= wrappers_max_cluster(); cluster *= 2) {
        Buffer out(cluster * 2 * 32 * 4);
        LAUNCH_OK(wrappers_cluster(cluster, static_cast<uint32_t *>(out.data()), nullptr));
        const std::vector<uint32_t> got = fetch<uint32_t>(out);
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_EQ(got[i], 100 * cluster * (cluster - 1) / 2 + cluster * (31 - i % 32));
    }
}

TEST_F(WrappersTest, TheLastLaunchIsKnown) {
    Buffer counter = upload(std::vector<uint32_t>{0});
    LAUNCH_OK(twk_counter_add(static_cast<uint32_t *>(counter.data()), 1, nullptr));
    twk_launch_info info;
    twk_last_launch(&info);
    EXPECT_STREQ(info.kernel, "counter_kernel");
    EXPECT_EQ(info.threads, 1u);
    twk_last_launch(nullptr);
}

} // namespace
