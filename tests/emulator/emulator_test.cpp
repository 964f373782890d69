// The emulator's own tests: right kernels pass, and each planted mistake is caught.
#include "planted.h"
#include "tw_emulator.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#endif

#ifdef TW_EMU_TSAN
// A death test needs the first race to end the process.
extern "C" const char *__tsan_default_options() {
    return "halt_on_error=1:exitcode=66";
}
#endif

namespace {

class Emulator : public ::testing::Test {
  protected:
    void SetUp() override {
        tw::emu::take_report();
        tw::emu::set_seed(1);
        // A child that starts afresh: ThreadSanitizer looks away after a fork.
        ::testing::FLAGS_gtest_death_test_style = "threadsafe";
    }
    std::vector<int> in = std::vector<int>(64), out = std::vector<int>(64, -1);
};

void expect_report(const std::vector<std::string> &parts) {
    const std::string report = tw::emu::take_report();
    for (const std::string &part : parts)
        EXPECT_NE(report.find(part), std::string::npos) << "no \"" << part << "\" in: " << report;
}

TEST_F(Emulator, RunsARightKernelInEveryOrder) {
    std::iota(in.begin(), in.end(), 0);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        tw::emu::set_seed(seed);
        ASSERT_EQ(planted_neighbour(in.data(), out.data(), 64, 1, 0), TWK_OK);
        for (int i = 0; i < 64; i++) EXPECT_EQ(out[i], (i + 1) % 64);
    }
    EXPECT_EQ(tw::emu::take_report(), "");
}

TEST_F(Emulator, MissingBarrierGivesWrongValuesOrARace) {
#ifdef TW_EMU_TSAN
    EXPECT_EXIT(planted_neighbour(in.data(), out.data(), 64, 0, 0), ::testing::ExitedWithCode(66),
                "data race");
#else
    std::iota(in.begin(), in.end(), 0);
    ASSERT_EQ(planted_neighbour(in.data(), out.data(), 64, 0, 0), TWK_OK);
    int wrong = 0;
    for (int i = 0; i < 64; i++) wrong += out[i] != (i + 1) % 64;
    EXPECT_GT(wrong, 0);
#endif
}

TEST_F(Emulator, MissingSecondBarrierIsARace) {
#ifdef TW_EMU_TSAN
    EXPECT_EXIT(planted_turns(out.data(), 64, 0), ::testing::ExitedWithCode(66), "data race");
#else
    GTEST_SKIP() << "races are looked for in the ThreadSanitizer build";
#endif
}

TEST_F(Emulator, TwoBlocksWritingOneWordIsARace) {
#ifdef TW_EMU_TSAN
    std::vector<int> wide(256);
    EXPECT_EXIT(planted_collide(wide.data()), ::testing::ExitedWithCode(66), "data race");
#else
    GTEST_SKIP() << "races are looked for in the ThreadSanitizer build";
#endif
}

TEST_F(Emulator, RightKernelsAreQuiet) {
    ASSERT_EQ(planted_turns(out.data(), 64, 1), TWK_OK);
    for (int v : out) EXPECT_EQ(v, 6);
    ASSERT_EQ(planted_divergent(out.data(), 64, 0), TWK_OK);
    ASSERT_EQ(planted_past_end(in.data(), out.data(), 64, 0, 0), TWK_OK);
    std::vector<uint32_t> lanes(64);
    ASSERT_EQ(planted_mask(lanes.data(), 64, 0), TWK_OK);
    for (uint32_t v : lanes) EXPECT_EQ(v, 496u ^ 0xaaaaaaaau);
    EXPECT_EQ(tw::emu::take_report(), "");
}

TEST_F(Emulator, SharedOutOfBounds) {
#ifdef WITH_ASAN
    EXPECT_DEATH(planted_past_end(in.data(), out.data(), 64, 3, 0), "use-after-poison");
    EXPECT_DEATH(planted_neighbour(in.data(), out.data(), 64, 1, 2), "use-after-poison");
#else
    EXPECT_EQ(planted_past_end(in.data(), out.data(), 64, 3, 0), TWK_LAUNCH_FAILED);
    expect_report({"past_end_kernel", "past the end of carve-out 0"});
#endif
}

TEST_F(Emulator, GlobalOutOfBounds) {
#ifdef WITH_ASAN
    EXPECT_DEATH(planted_past_end(in.data(), out.data(), 64, 0, 1), "heap-buffer-overflow");
#else
    GTEST_SKIP() << "global memory is guarded in the AddressSanitizer build";
#endif
}

TEST_F(Emulator, MissingWaitReadsNaN) {
    std::vector<float> src(256, 1.0f), dst(256, 0.0f);
    ASSERT_EQ(planted_staged(src.data(), dst.data(), 64, 1, 1, 1), TWK_OK);
    for (float v : dst) ASSERT_EQ(v, 1.0f);
    ASSERT_EQ(planted_staged(src.data(), dst.data(), 64, 1, 0, 0), TWK_OK);
    for (float v : dst) ASSERT_TRUE(std::isnan(v));
    ASSERT_EQ(planted_staged(src.data(), dst.data(), 64, 0, 1, 0), TWK_OK); // nothing committed
    for (float v : dst) ASSERT_TRUE(std::isnan(v));
}

TEST_F(Emulator, MbarriersHandOver) {
    std::vector<float> from(128), to(32);
    std::iota(from.begin(), from.end(), 0.0f);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        tw::emu::set_seed(seed);
        ASSERT_EQ(planted_ring(from.data(), to.data(), 0), TWK_OK);
        for (int i = 0; i < 32; i++) EXPECT_EQ(to[i], (float)((4 * i + 4) % 128));
    }
    EXPECT_EQ(planted_ring(from.data(), to.data(), 3), TWK_LAUNCH_FAILED);
    expect_report({"ring_kernel", "mbarrier at planted.cu:", "waits for a phase that never ends"});
    EXPECT_EQ(planted_ring(from.data(), to.data(), 4), TWK_LAUNCH_FAILED);
    expect_report({"ring_kernel", "mbarrier at planted.cu:", "was never made"});
}

TEST_F(Emulator, MbarrierNotWaitedForIsSeen) {
    std::vector<float> from(128), to(32);
#ifdef TW_EMU_TSAN
    for (int fault : {1, 2, 5})
        EXPECT_EXIT(planted_ring(from.data(), to.data(), fault), ::testing::ExitedWithCode(66),
                    "data race");
#else
    // In some order of the threads: what was not waited for has not landed, or the wait is for
    // ever.
    for (int fault : {1, 2, 5}) {
        bool seen = false;
        for (uint64_t seed = 1; seed <= 20 && !seen; seed++) {
            tw::emu::set_seed(seed);
            seen = planted_ring(from.data(), to.data(), fault) != TWK_OK;
            for (float v : to) seen = seen || std::isnan(v);
        }
        EXPECT_TRUE(seen) << fault;
    }
    tw::emu::take_report();
#endif
}

TEST_F(Emulator, WrongMasks) {
    std::vector<uint32_t> lanes(64);
    EXPECT_EQ(planted_mask(lanes.data(), 64, 1), TWK_LAUNCH_FAILED);
    expect_report({"mask_kernel", "planted.cu:", "mask ffffffff names lane 16", "has finished"});
    EXPECT_EQ(planted_mask(lanes.data(), 64, 2), TWK_LAUNCH_FAILED);
    expect_report({"mask_kernel", "mask 0001ffff", "mask ffffffff"});
    EXPECT_EQ(planted_mask(lanes.data(), 64, 3), TWK_LAUNCH_FAILED);
    expect_report({"is not in its own mask 0000ffff"});
    EXPECT_EQ(planted_mask(lanes.data(), 64, 4), TWK_LAUNCH_FAILED);
    expect_report({"which is not in mask"});
}

TEST_F(Emulator, DivergentBarriersAreReportedWithKernelAndLine) {
    EXPECT_EQ(planted_divergent(out.data(), 64, 1), TWK_LAUNCH_FAILED);
    expect_report(
        {"divergent_kernel", "divergent barrier at planted.cu:", "thread 3 has finished"});
    EXPECT_EQ(planted_divergent(out.data(), 64, 2), TWK_LAUNCH_FAILED);
    expect_report({"divergent_kernel", "divergent barrier", "others wait at planted.cu:"});
    EXPECT_EQ(planted_divergent(out.data(), 64, 3), TWK_LAUNCH_FAILED);
    expect_report({"divergent_kernel", "divergent barrier at planted.cu:"});
    // The emulator is usable afterwards.
    EXPECT_EQ(planted_divergent(out.data(), 64, 0), TWK_OK);
}

TEST_F(Emulator, SharedMemoryMustFitTheLaunch) {
    EXPECT_EQ(planted_shared_too_small(in.data(), out.data(), 64), TWK_LAUNCH_FAILED);
    expect_report({"neighbour_kernel", "bytes of shared memory, launched with 256"});
}

TEST_F(Emulator, Clusters) {
    std::vector<int> sums(8 * 32);
    ASSERT_EQ(planted_exchange(sums.data(), 8, 32, 4, 1), TWK_OK);
    for (int v : sums) EXPECT_EQ(v, 406);
        // A block that leaves while others still read its memory.
#ifndef TW_EMU_TSAN
    bool caught = false;
    for (uint64_t seed = 1; seed < 50 && !caught; seed++) {
        tw::emu::set_seed(seed);
        caught = planted_exchange(sums.data(), 8, 32, 4, 0) == TWK_LAUNCH_FAILED;
    }
    EXPECT_TRUE(caught);
    expect_report({"exchange_kernel", "has already finished"});
#endif
    EXPECT_EQ(planted_exchange(sums.data(), 6, 32, 4, 1), TWK_LAUNCH_FAILED);
    expect_report({"clusters of 4 in a grid 6 wide"});
    EXPECT_EQ(planted_exchange(sums.data(), 16, 32, 16, 1), TWK_LAUNCH_FAILED);
    expect_report({"clusters of 16 in a grid 16 wide"});
}

TEST_F(Emulator, AtomicsAndFilteredBlocks) {
    uint32_t count = 0, largest = 0;
    ASSERT_EQ(planted_count(&count, &largest, 100, 64), TWK_OK);
    EXPECT_EQ(count, 6400u);
    EXPECT_EQ(largest, 6399u);
    count = largest = 0;
    tw::emu::set_block_filter(10, 2);
    ASSERT_EQ(planted_count(&count, &largest, 100, 64), TWK_OK);
    tw::emu::set_block_filter(0, 0);
    EXPECT_EQ(count, 128u);
    EXPECT_EQ(largest, 767u);
}

// Whole numbers, so that products are exact, in bf16: the upper half of a float.
std::vector<uint16_t> small_numbers(size_t n, unsigned seed) {
    std::vector<uint16_t> bits(n);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float v = (float)((int)(seed >> 16) % 17) - 8;
        uint32_t word;
        memcpy(&word, &v, 4);
        bits[i] = (uint16_t)(word >> 16);
    }
    return bits;
}

float number(uint16_t bits) {
    const uint32_t word = (uint32_t)bits << 16;
    float v;
    memcpy(&v, &word, 4);
    return v;
}

class Wgmma : public Emulator {
  protected:
    std::vector<uint16_t> a = small_numbers(64 * 32, 1), b = small_numbers(128 * 32, 2);
    std::vector<float> d = std::vector<float>(64 * 128);

    twk_status run(bool columns, PlantedProduct fault = PlantedProduct::none) {
        return planted_product(a.data(), b.data(), d.data(), columns, fault);
    }
    int wrong(bool columns) const {
        int n = 0;
        for (int row = 0; row < 64; row++)
            for (int col = 0; col < 128; col++) {
                float sum = 0;
                for (int k = 0; k < 32; k++)
                    sum += columns ? number(a[k * 64 + row]) * number(b[k * 128 + col])
                                   : number(a[row * 32 + k]) * number(b[col * 32 + k]);
                n += d[row * 128 + col] != sum;
            }
        return n;
    }
    void expect_fault(bool columns, PlantedProduct fault, const char *text) {
        EXPECT_EQ(run(columns, fault), TWK_LAUNCH_FAILED) << text;
        expect_report({"product_kernel", text});
    }
};

TEST_F(Wgmma, RightProductsInEveryOrder) {
    for (uint64_t seed = 1; seed <= 10; seed++)
        for (bool columns : {false, true}) {
            tw::emu::set_seed(seed);
            ASSERT_EQ(run(columns), TWK_OK) << tw::emu::take_report();
            EXPECT_EQ(wrong(columns), 0) << columns;
        }
}

TEST_F(Wgmma, WrongDescriptors) {
    using P = PlantedProduct;
    for (bool columns : {false, true}) {
        // Reads past what was taken, where it reaches so far, or the wrong elements.
        for (P fault : {P::wrong_stride, P::wrong_swizzle, P::wrong_leading}) {
            if (fault == P::wrong_leading && !columns) continue; // is not looked at
            if (run(columns, fault) == TWK_OK) {
                EXPECT_GT(wrong(columns), 1000) << (int)fault;
            }
        }
        expect_fault(columns, P::misaligned, "not at a multiple of");
    }
    tw::emu::take_report();
}

TEST_F(Wgmma, WrongOrder) {
    using P = PlantedProduct;
    for (bool columns : {false, true}) {
        expect_fault(columns, P::no_proxy_fence, "no fence_async_proxy()");
        expect_fault(columns, P::no_fence, "no wgmma_fence()");
        expect_fault(columns, P::no_wait, "products of wgmma in flight");
        expect_fault(columns, P::no_commit, "products of wgmma in flight");
        expect_fault(columns, P::d_touched, "D was written while products were adding to it");
        EXPECT_EQ(run(columns, P::no_copy_wait), TWK_OK);
        EXPECT_EQ(wrong(columns), 64 * 128); // NaN
    }
}

TEST_F(Wgmma, TilesNotThereOrNoLongerThere) {
    for (PlantedProduct fault : {PlantedProduct::no_barrier, PlantedProduct::tile_overwritten}) {
#ifdef TW_EMU_TSAN
        EXPECT_EXIT(run(false, fault), ::testing::ExitedWithCode(66), "data race");
#else
        for (uint64_t seed = 1; seed <= 10; seed++) {
            tw::emu::set_seed(seed);
            EXPECT_TRUE(run(false, fault) != TWK_OK || wrong(false)) << (int)fault;
        }
        expect_report({"its tiles changed while it read them"});
#endif
    }
}

TEST_F(Wgmma, DivergentWarpgroup) {
    expect_fault(false, PlantedProduct::warp_left_out, "divergent warpgroup: thread");
    expect_fault(false, PlantedProduct::other_product, "starts another product at planted.cu:");
    expect_fault(false, PlantedProduct::lane_left_out, "lane 13 has started 0 products");
}

} // namespace
