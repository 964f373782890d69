// The stand-in for the CUDA runtime catches what it is there to catch.
#include "support.h"

#include <cstring>
#include <csignal>
#include <functional>

#include "kernels.h"

extern "C" {
#include "backend/cuda/runtime.h"
}

namespace {

class Emulated : public Cuda {
  protected:
    void SetUp() override {
        ASSERT_EQ(rt->use(0), TW_CUDA_OK);
        ASSERT_EQ(rt->stream_create(&s), TW_CUDA_OK);
        ASSERT_EQ(rt->allocate(nullptr, s, 16, &device), TW_CUDA_OK);
        void *p = nullptr;
        ASSERT_EQ(rt->pinned_allocate(16, &p), TW_CUDA_OK);
        host = static_cast<char *>(p);
        std::memset(host, 1, 16);
    }
    void TearDown() override {
        rt->release(nullptr, s, device);
        rt->stream_destroy(s);
        rt->pinned_release(host);
        Cuda::TearDown();
    }
    std::string Arrived() {
        char out[17] = {};
        EXPECT_EQ(rt->copy(s, out, device, 16, TW_CUDA_OUT), TW_CUDA_OK);
        EXPECT_EQ(rt->stream_synchronize(s), TW_CUDA_OK);
        return out;
    }
    const tw_cuda_runtime *rt = tw_cuda_runtime_get();
    tw_cuda_stream s = nullptr;
    void *device = nullptr;
    char *host = nullptr;
};

TEST_F(Emulated, CopiesArriveWhenSomebodyWaits) {
    ASSERT_EQ(rt->copy(s, device, host, 16, TW_CUDA_IN), TW_CUDA_OK);
    std::memset(host, 'x', 16); // too early
    EXPECT_EQ(Arrived(), std::string(16, 'x'));
}

TEST_F(Emulated, KernelsRunInTheStreamsOrder) {
    float *f = static_cast<float *>(device);
    ASSERT_EQ(rt->fill(s, device, 0, 16), TW_CUDA_OK);
    ASSERT_EQ(twk_constant(TWK_F32, 2, 2.0f, f, s), TWK_OK);
    ASSERT_EQ(twk_add(TWK_F32, 2, 3, f, 0.5f, nullptr, f + 2, s), TWK_OK);
    float out[4] = {};
    ASSERT_EQ(rt->copy(s, out, device, 16, TW_CUDA_OUT), TW_CUDA_OK);
    EXPECT_EQ(out[3], 0.0f) << "nobody has waited";
    ASSERT_EQ(rt->stream_synchronize(s), TW_CUDA_OK);
    EXPECT_EQ(out[0], 2.0f);
    EXPECT_EQ(out[3], 6.5f);
    EXPECT_EQ(twk_constant(TWK_F32, 2, 2.0f, f, nullptr), TWK_LAUNCH_FAILED) << "default stream";
}

TEST_F(Emulated, EventsHoldTheOrderBetweenStreams) {
    tw_cuda_stream other = nullptr;
    tw_cuda_event e = nullptr;
    ASSERT_EQ(rt->stream_create(&other), TW_CUDA_OK);
    ASSERT_EQ(rt->event_create(&e), TW_CUDA_OK);
    EXPECT_EQ(rt->event_query(e), TW_CUDA_OK) << "never recorded";
    ASSERT_EQ(rt->fill(s, device, 'a', 16), TW_CUDA_OK);
    ASSERT_EQ(rt->fill(s, device, 'b', 8), TW_CUDA_OK);
    ASSERT_EQ(rt->event_record(e, s), TW_CUDA_OK);
    EXPECT_EQ(rt->event_query(e), TW_CUDA_NOT_READY);
    ASSERT_EQ(rt->stream_wait(other, e), TW_CUDA_OK);
    ASSERT_EQ(rt->fill(other, device, 'c', 4), TW_CUDA_OK);
    ASSERT_EQ(rt->stream_synchronize(other), TW_CUDA_OK);
    EXPECT_EQ(rt->event_query(e), TW_CUDA_OK);
    EXPECT_EQ(Arrived(), "ccccbbbbaaaaaaaa");
    rt->event_destroy(e);
    rt->stream_destroy(other);
}

// A copy on another stream beside work that it must not overtake, and that must not overtake it.
TEST_F(Emulated, WhatIsNotOrderedGoesWrong) {
    for (bool hurried : {false, true})
        for (int missing : {-1, 0, 1}) {
            tw_cuda_stream other = nullptr;
            tw_cuda_event read = nullptr, arrived = nullptr;
            emulated::hurry(hurried);
            ASSERT_EQ(rt->stream_create(&other), TW_CUDA_OK);
            emulated::hurry(false);
            ASSERT_EQ(rt->event_create(&read), TW_CUDA_OK);
            ASSERT_EQ(rt->event_create(&arrived), TW_CUDA_OK);
            char *d = static_cast<char *>(device);
            ASSERT_EQ(rt->fill(s, d, 'a', 4), TW_CUDA_OK);
            ASSERT_EQ(rt->copy(s, d + 4, d, 4, TW_CUDA_ON), TW_CUDA_OK);
            ASSERT_EQ(rt->event_record(read, s), TW_CUDA_OK);
            if (missing != 0) {
                ASSERT_EQ(rt->stream_wait(other, read), TW_CUDA_OK);
            }
            ASSERT_EQ(rt->fill(other, d, 'b', 4), TW_CUDA_OK);
            ASSERT_EQ(rt->event_record(arrived, other), TW_CUDA_OK);
            if (missing != 1) {
                ASSERT_EQ(rt->stream_wait(s, arrived), TW_CUDA_OK);
            }
            ASSERT_EQ(rt->copy(s, d + 8, d, 4, TW_CUDA_ON), TW_CUDA_OK);
            ASSERT_EQ(rt->fill(s, d + 12, 'c', 4), TW_CUDA_OK);
            const std::string got = Arrived().substr(4);
            if (missing < 0) {
                EXPECT_EQ(got, "aaaabbbbcccc");
            }
            if (missing == 0 && hurried) {
                EXPECT_NE(got, "aaaabbbbcccc");
            }
            if (missing == 1 && !hurried) {
                EXPECT_NE(got, "aaaabbbbcccc");
            }
            rt->event_destroy(read);
            rt->event_destroy(arrived);
            rt->stream_destroy(other);
        }
}

TEST_F(Emulated, GraphsReplayWhatWasRecorded) {
    float *f = static_cast<float *>(device);
    ASSERT_EQ(rt->fill(s, device, 0, 16), TW_CUDA_OK);
    ASSERT_EQ(rt->capture_begin(s), TW_CUDA_OK);
    ASSERT_EQ(twk_add(TWK_F32, 4, 1, f, 1, nullptr, f, s), TWK_OK);
    tw_cuda_graph g = nullptr;
    ASSERT_EQ(rt->capture_end(s, &g), TW_CUDA_OK);
    for (int i = 0; i < 3; i++) ASSERT_EQ(rt->graph_launch(g, s), TW_CUDA_OK);
    float out[4] = {};
    ASSERT_EQ(rt->copy(s, out, device, 16, TW_CUDA_OUT), TW_CUDA_OK);
    ASSERT_EQ(rt->stream_synchronize(s), TW_CUDA_OK);
    EXPECT_EQ(out[2], 3.0f) << "recording does not run";
    rt->graph_destroy(g);
}

TEST_F(Emulated, ACaptureIsSpoiltByWhatAllocatesOrWaits) {
    void *p = nullptr;
    tw_cuda_event e = nullptr;
    ASSERT_EQ(rt->event_create(&e), TW_CUDA_OK);
    const std::function<tw_cuda_result()> spoilers[] = {
        [&] { return rt->allocate(nullptr, s, 8, &p); },
        [&] { return rt->release(nullptr, s, device); },
        [&] { return rt->stream_synchronize(s); },
        [&] { return rt->event_record(e, s); },
        [&] { return rt->copy(s, device, host, 8, TW_CUDA_IN); },
        [&] { return rt->copy(s, host, device, 8, TW_CUDA_OUT); },
    };
    for (const auto &spoil : spoilers) {
        tw_cuda_graph g = nullptr;
        ASSERT_EQ(rt->capture_begin(s), TW_CUDA_OK);
        ASSERT_EQ(rt->fill(s, device, 0, 8), TW_CUDA_OK);
        EXPECT_EQ(spoil(), TW_CUDA_FAILED);
        EXPECT_EQ(rt->capture_end(s, &g), TW_CUDA_FAILED);
        EXPECT_EQ(g, nullptr);
    }
    EXPECT_EQ(rt->stream_synchronize(s), TW_CUDA_OK) << "the stream is as it was";
    rt->event_destroy(e);
}

TEST_F(Emulated, AddressesAreChecked) {
    char *d = static_cast<char *>(device);
    EXPECT_EQ(rt->fill(s, d + 8, 0, 9), TW_CUDA_FAILED);
    EXPECT_NE(emulated::report(), "");
    EXPECT_EQ(rt->copy(s, host, device, 17, TW_CUDA_OUT), TW_CUDA_FAILED);
    EXPECT_NE(emulated::report(), "");
    char plain[16];
    EXPECT_EQ(rt->copy(s, device, plain, 16, TW_CUDA_IN), TW_CUDA_FAILED);
    EXPECT_NE(emulated::report(), "") << "not pinned";
    EXPECT_EQ(rt->release(nullptr, s, d + 1), TW_CUDA_FAILED);
    EXPECT_NE(emulated::report(), "");
}

TEST_F(Emulated, MemoryStartsAsNaN) {
    float out[4] = {};
    ASSERT_EQ(rt->copy(s, out, device, 16, TW_CUDA_OUT), TW_CUDA_OK);
    ASSERT_EQ(rt->stream_synchronize(s), TW_CUDA_OK);
    for (float v : out) EXPECT_TRUE(v != v);
}

#if defined(__SANITIZE_ADDRESS__)
TEST_F(Emulated, AKernelBeyondItsMemoryIsSeen) {
    EXPECT_DEATH(
        {
            twk_constant(TWK_F32, 5, 1.0f, static_cast<float *>(device), s);
            rt->stream_synchronize(s);
        },
        "use-after-poison");
}
#else
TEST_F(Emulated, AKernelBeyondItsMemoryIsSeen) {
    ASSERT_EQ(twk_constant(TWK_F32, 5, 1.0f, static_cast<float *>(device), s), TWK_OK);
    ASSERT_EQ(rt->stream_synchronize(s), TW_CUDA_OK);
    EXPECT_NE(emulated::report().find("guard zone"), std::string::npos);
    ASSERT_EQ(rt->release(nullptr, s, device), TW_CUDA_OK);
    EXPECT_EQ(rt->stream_synchronize(s), TW_CUDA_FAILED);
    EXPECT_NE(emulated::report().find("guard zone"), std::string::npos);
    rt->stream_destroy(s);
    ASSERT_EQ(rt->stream_create(&s), TW_CUDA_OK);
    ASSERT_EQ(rt->allocate(nullptr, s, 16, &device), TW_CUDA_OK);
}

// The host's processor cannot look into the device's memory.
TEST_F(Emulated, TheHostCannotTouchDeviceMemory) {
    EXPECT_EXIT(*static_cast<volatile char *>(device) = 1, testing::KilledBySignal(SIGSEGV), "");
}
#endif

} // namespace
