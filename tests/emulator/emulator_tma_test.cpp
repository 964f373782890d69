// The emulator's own tests of TMA, mbarriers that count bytes and are reached across a cluster,
// setmaxnreg and barriers of a part of a block: right kernels pass, planted mistakes are caught.
#include "planted_tma.h"
#include "tw_emulator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#ifdef TW_EMU_TSAN
extern "C" const char *__tsan_default_options() {
    return "halt_on_error=1:exitcode=66";
}
#endif

namespace {

constexpr int steps = 4, depth = 64 * steps;

// Whole numbers, so that products are exact, in bf16: the upper half of a float.
struct alignas(16) Numbers {
    std::vector<uint16_t> bits;
    Numbers(size_t n, unsigned seed) : bits(n) {
        for (uint16_t &b : bits) {
            seed = seed * 1664525u + 1013904223u;
            const float v = (float)((int)(seed >> 16) % 17) - 8;
            uint32_t word;
            memcpy(&word, &v, 4);
            b = (uint16_t)(word >> 16);
        }
    }
    float at(size_t i) const {
        const uint32_t word = (uint32_t)bits[i] << 16;
        float v;
        memcpy(&v, &word, 4);
        return v;
    }
};

class Tma : public ::testing::Test {
  protected:
    void SetUp() override {
        tw::emu::take_report();
        tw::emu::set_seed(1);
        ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    }
    Numbers a{64 * depth, 1}, b{256 * depth, 2};
    std::vector<float> d = std::vector<float>(64 * 256);

    twk_status run(PlantedTma fault) {
        return planted_tma(a.bits.data(), b.bits.data(), d.data(), steps, fault);
    }
    int wrong() const {
        int n = 0;
        for (size_t row = 0; row < 64; row++)
            for (size_t col = 0; col < 256; col++) {
                float sum = 0;
                for (size_t k = 0; k < depth; k++)
                    sum += a.at(row * depth + k) * b.at(col * depth + k);
                n += d[row * 256 + col] != sum;
            }
        return n;
    }
    // In the first order of the threads that shows it; as a race where those are looked for first.
    void expect_fault(PlantedTma fault, const std::string &text) {
#ifdef TW_EMU_TSAN
        EXPECT_EXIT(
            {
                for (uint64_t seed = 1; seed <= 10; seed++) {
                    tw::emu::set_seed(seed);
                    if (run(fault) != TWK_OK) exit(66);
                }
            },
            ::testing::ExitedWithCode(66), "data race|emulator: kernel tma_kernel")
            << text;
        return;
#endif
        std::string report;
        for (uint64_t seed = 1; seed <= 10 && report.find(text) == std::string::npos; seed++) {
            tw::emu::set_seed(seed);
            run(fault);
            report = tw::emu::take_report();
        }
        EXPECT_NE(report.find(text), std::string::npos) << "no \"" << text << "\" in: " << report;
        EXPECT_NE(report.find("tma_kernel"), std::string::npos) << report;
    }
};

TEST_F(Tma, RightProductsInEveryOrder) {
    for (uint64_t seed = 1; seed <= 6; seed++)
        for (PlantedTma fault : {PlantedTma::none, PlantedTma::stored_and_fenced}) {
            tw::emu::set_seed(seed);
            ASSERT_EQ(run(fault), TWK_OK) << tw::emu::take_report();
            EXPECT_EQ(wrong(), 0);
        }
}

TEST_F(Tma, WrongBytes) {
    using P = PlantedTma;
    expect_fault(P::bytes_more, "16 bytes were expected that nobody brings");
    expect_fault(P::bytes_fewer, "bytes");
    expect_fault(P::no_expect, "fewer bytes were expected than are brought");
    expect_fault(P::every_lane, "bytes");
    expect_fault(P::left_coming, "with a box of TMA on its way");
}

TEST_F(Tma, WrongPlaces) {
    using P = PlantedTma;
    expect_fault(P::misaligned, "no multiple of 128");
    expect_fault(P::past_the_end, "which nobody has taken");
}

TEST_F(Tma, WrongOrder) {
    using P = PlantedTma;
    expect_fault(P::missing_arrival, "1 of 128 have not arrived");
    expect_fault(P::no_init_fence, "no mbarrier_fence_init() of thread 0");
    expect_fault(P::stored, "no fence_async_proxy() of anyone after stores");
    expect_fault(P::box_over_stores, "no fence_async_proxy() of anyone after stores");
}

// Not there yet, or no longer.
TEST_F(Tma, TilesNotWaitedFor) {
    for (PlantedTma fault : {PlantedTma::no_wait, PlantedTma::wrong_parity,
                             PlantedTma::early_overwrite, PlantedTma::early_release}) {
#ifdef TW_EMU_TSAN
        EXPECT_EXIT(
            {
                for (uint64_t seed = 1; seed <= 20; seed++) {
                    tw::emu::set_seed(seed);
                    if (run(fault) != TWK_OK) exit(66);
                }
            },
            ::testing::ExitedWithCode(66), "data race|emulator: kernel tma_kernel")
            << (int)fault;
#else
        int caught = 0;
        for (uint64_t seed = 1; seed <= 20; seed++) {
            tw::emu::set_seed(seed);
            caught += run(fault) != TWK_OK || wrong() > 0;
        }
        EXPECT_GE(caught, 10) << (int)fault;
#endif
    }
#ifndef TW_EMU_TSAN
    EXPECT_NE(tw::emu::take_report().find("its tiles changed while it read them"),
              std::string::npos);
#endif
}

TEST_F(Tma, Registers) {
    using P = PlantedTma;
    expect_fault(P::too_many_registers, "registers, it has");
    expect_fault(P::one_warp_keeps_registers, "divergent warpgroup: thread");
    expect_fault(P::fewer_taken, "is not more");
}

TEST_F(Tma, Clusters) {
    using P = PlantedCluster;
    alignas(16) static float numbers[256];
    std::iota(numbers, numbers + 256, 0.0f);
    std::vector<float> sums(64);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        tw::emu::set_seed(seed);
        ASSERT_EQ(planted_cluster_tma(numbers, sums.data(), P::none), TWK_OK);
        for (int t = 0; t < 64; t++) EXPECT_EQ(sums[t], (float)(2 * (8 * (t % 32) + 32 * 28))) << t;
    }
#ifndef TW_EMU_TSAN
    const auto expect = [&](P fault, const char *text) {
        std::string report;
        for (uint64_t seed = 1; seed <= 40 && report.find(text) == std::string::npos; seed++) {
            tw::emu::set_seed(seed);
            planted_cluster_tma(numbers, sums.data(), fault);
            report = tw::emu::take_report();
        }
        EXPECT_NE(report.find(text), std::string::npos) << "no \"" << text << "\" in: " << report;
    };
    expect(P::no_init_fence, "no mbarrier_fence_init() of thread 0");
    expect(P::no_remote_arrival, "32 of 64 have not arrived");
    expect(P::no_cluster_sync, "was never made");
    expect(P::leaves_early, "has already finished");
#endif
}

TEST_F(Tma, PartsOfABlockMeet) {
    using P = PlantedGroups;
    std::vector<int> out(128);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        tw::emu::set_seed(seed);
        ASSERT_EQ(planted_groups(out.data(), P::none), TWK_OK);
        for (int t = 0; t < 128; t++) EXPECT_EQ(out[t], 1000 + 2 * (t / 64 * 64 + (t + 1) % 64));
    }
    EXPECT_EQ(planted_groups(out.data(), P::missing), TWK_LAUNCH_FAILED);
    EXPECT_NE(tw::emu::take_report().find("divergent barrier"), std::string::npos);
    EXPECT_EQ(planted_groups(out.data(), P::other_count), TWK_LAUNCH_FAILED);
    EXPECT_NE(tw::emu::take_report().find("divergent barrier"), std::string::npos);
#ifdef TW_EMU_TSAN
    EXPECT_EXIT(planted_groups(out.data(), P::no_barrier), ::testing::ExitedWithCode(66),
                "data race");
#endif
}

} // namespace
