// The GPU as a device: choosing it, its memory and copies, and what happens when it fails.
#include "caller.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

extern "C" {
#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "core/context.h"
}

namespace {

class CudaDevice : public Cuda {};

#ifndef TW_TEST_DEVICE
TEST_F(CudaDevice, IsNamed) {
    Context c(TW_DEVICE_CUDA);
    ASSERT_EQ(c.status(), TW_OK) << tw_context_error(nullptr);
    EXPECT_EQ(tw_context_device(c.get()), TW_DEVICE_CUDA);
    EXPECT_STREQ(tw_context_device_name(c.get()), "Emulated GPU (1 GB, emulated CUDA)");
    EXPECT_STREQ(tw_context_provider(c.get(), 0), "own");
    EXPECT_STREQ(tw_context_provider(c.get(), 1), "cudnn");
    EXPECT_EQ(tw_context_provider(c.get(), 2), nullptr);
    EXPECT_EQ(tw_context_threads(c.get()), 1);
    EXPECT_EQ(c.logged(), "");
}
#endif

TEST_F(CudaDevice, AutoTakesTheGpuUnlessAProviderOfTheCpuIsAskedFor) {
    Context any(TW_DEVICE_AUTO);
    EXPECT_EQ(tw_context_device(any.get()), TW_DEVICE_CUDA);
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.provider = "cpu-reference";
    Context cpu(TW_DEVICE_AUTO, &o);
    EXPECT_EQ(tw_context_device(cpu.get()), TW_DEVICE_CPU);
    EXPECT_EQ(cpu.logged(), "");
}

#ifndef TW_TEST_DEVICE
TEST_F(CudaDevice, WithoutOneAutoTakesTheCpuAndSaysSo) {
    emulated::set_devices(0);
    Context any(TW_DEVICE_AUTO);
    ASSERT_EQ(any.status(), TW_OK);
    EXPECT_EQ(tw_context_device(any.get()), TW_DEVICE_CPU);
    EXPECT_NE(any.logged().find("no CUDA-capable device is detected"), std::string::npos);
    EXPECT_STREQ(tw_context_error(any.get()), "");
    Context cuda(TW_DEVICE_CUDA);
    EXPECT_EQ(cuda.status(), TW_ERROR_DEVICE);
    EXPECT_STREQ(tw_context_error(nullptr), "context: device cuda: no CUDA device: no CUDA-capable "
                                            "device is detected; use auto or cpu");
}

TEST_F(CudaDevice, AnOldOneIsRefused) {
    emulated::set_capability(7, 5);
    Context cuda(TW_DEVICE_CUDA);
    EXPECT_EQ(cuda.status(), TW_ERROR_DEVICE);
    EXPECT_NE(std::string(tw_context_error(nullptr)).find("7.5, expected 8.0 or later"),
              std::string::npos);
    Context any(TW_DEVICE_AUTO);
    EXPECT_EQ(tw_context_device(any.get()), TW_DEVICE_CPU);
}
#endif

TEST_F(CudaDevice, AnUnknownProviderIsRefused) {
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.provider = "cpu-reference";
    Context cuda(TW_DEVICE_CUDA, &o);
    EXPECT_EQ(cuda.status(), TW_ERROR_ARGUMENT);
    EXPECT_NE(std::string(tw_context_error(nullptr)).find("auto, own or cudnn"), std::string::npos);
    o.provider = "own";
    Context own(TW_DEVICE_CUDA, &o);
    EXPECT_EQ(own.status(), TW_OK);
    EXPECT_EQ(tw_context_provider(own.get(), 1), nullptr);
}

// Memory of `bytes` that came from `from`.
std::vector<char> RoundTrip(tw_backend *b, const std::vector<char> &from) {
    void *there = nullptr, *second = nullptr;
    std::vector<char> copy = from, back(from.size());
    EXPECT_EQ(b->allocate(b, from.size(), &there), TW_OK);
    EXPECT_EQ(b->allocate(b, from.size(), &second), TW_OK);
    EXPECT_EQ((uintptr_t)there % 256, 0u);
    EXPECT_EQ(b->upload(b, there, copy.data(), copy.size()), TW_OK);
    std::memset(copy.data(), 0, copy.size()); // the caller may
    EXPECT_EQ(b->copy(b, second, there, from.size()), TW_OK);
    EXPECT_EQ(b->fill(b, there, 0x11, from.size()), TW_OK);
    EXPECT_EQ(b->download(b, back.data(), second, back.size()), TW_OK);
    b->release(b, there);
    b->release(b, second);
    return back;
}

TEST_F(CudaDevice, CopiesOfEverySize) {
    Context c(TW_DEVICE_CUDA);
    tw_backend *b = c.get()->backend;
    const size_t page = TW_STAGING_PAGE;
    for (size_t bytes : {(size_t)1, (size_t)63, page - 1, page, page + 1, 5 * page + 7,
                         (TW_STAGING_PAGES + 3) * page + 5}) {
        std::vector<char> from(bytes);
        for (size_t i = 0; i < bytes; i++) from[i] = (char)(i * 2654435761u >> 13);
        EXPECT_TRUE(RoundTrip(b, from) == from) << bytes;
    }
    void *nothing = &c;
    EXPECT_EQ(b->allocate(b, 0, &nothing), TW_OK);
    EXPECT_EQ(nothing, nullptr);
    EXPECT_EQ(b->upload(b, nullptr, nullptr, 0), TW_OK);
    EXPECT_EQ(b->fill(b, nullptr, 0, 0), TW_OK);
    EXPECT_EQ(b->download(b, nullptr, nullptr, 0), TW_OK);
    b->release(b, nullptr);
}

// Small uploads follow each other without waiting until the ring has gone round.
TEST_F(CudaDevice, UploadsDoNotWait) {
    Context c(TW_DEVICE_CUDA);
    tw_backend *b = c.get()->backend;
    void *there = nullptr;
    ASSERT_EQ(b->allocate(b, 4096, &there), TW_OK);
    std::vector<char> bytes(4096, 1), back(4096);
    const emulated::Counts before = emulated::counts();
    for (int i = 0; i < 1000; i++) {
        std::memset(bytes.data(), i, bytes.size());
        ASSERT_EQ(b->upload(b, there, bytes.data(), bytes.size()), TW_OK);
    }
    EXPECT_EQ(emulated::counts().waits, before.waits);
    EXPECT_LE(emulated::counts().pinned, before.pinned + 1);
    ASSERT_EQ(b->download(b, back.data(), there, back.size()), TW_OK);
    EXPECT_EQ(back, bytes);
    b->release(b, there);
}

// Batches one after the other to the same place, each read before the next: whatever the feed's
// stream does early or late, in slots that grow.
TEST_F(CudaDevice, BatchesTravelBesideTheWork) {
    for (bool hurried : {false, true}) {
        Context c(TW_DEVICE_CUDA);
        tw_backend *b = c.get()->backend;
        const size_t sizes[] = {TW_FEED_LEAST, TW_FEED_LEAST - 1, 3 * TW_FEED_LEAST + 5},
                     most = 1 << 16;
        void *there = nullptr, *seen = nullptr;
        ASSERT_EQ(b->allocate(b, most, &there), TW_OK);
        ASSERT_EQ(b->allocate(b, 8 * most, &seen), TW_OK);
        emulated::hurry(hurried);
        for (size_t bytes : sizes) {
            std::vector<char> want, batch(bytes), got(8 * most);
            ASSERT_EQ(b->fill(b, seen, 0, 8 * most), TW_OK);
            const emulated::Counts before = emulated::counts();
            for (size_t i = 0; i < 8; i++) {
                for (size_t k = 0; k < bytes; k++) batch[k] = (char)(k * 31 + i + 1);
                want.insert(want.end(), batch.begin(), batch.end());
                want.resize((i + 1) * most);
                ASSERT_EQ(b->feed(b, there, batch.data(), bytes), TW_OK);
                ASSERT_EQ(b->copy(b, static_cast<char *>(seen) + i * most, there, bytes), TW_OK);
            }
            const emulated::Counts after = emulated::counts();
            if (bytes < TW_FEED_LEAST) {
                EXPECT_EQ(after.waits, before.waits);
            } else {
                EXPECT_EQ(after.waits - before.waits, 7) << "for slots, and once for their size";
#ifndef TW_TEST_DEVICE
                EXPECT_EQ(after.ahead > before.ahead, hurried);
#endif
            }
            ASSERT_EQ(b->download(b, got.data(), seen, got.size()), TW_OK);
            EXPECT_TRUE(got == want) << bytes;
        }
        emulated::hurry(false);
        b->release(b, there);
        b->release(b, seen);
    }
}

TEST_F(CudaDevice, WantOfMemoryIsAStatus) {
    for (int64_t k = 0;; k++) {
        emulated::fail_at(k);
        Context c(TW_DEVICE_CUDA);
        void *there = nullptr;
        char bytes[8] = {};
        std::vector<char> batch(TW_FEED_LEAST, 3);
        tw_status s = c.status();
        if (s == TW_OK) s = c.get()->backend->allocate(c.get()->backend, batch.size(), &there);
        if (s == TW_OK) s = c.get()->backend->upload(c.get()->backend, there, bytes, 8);
        if (s == TW_OK)
            s = c.get()->backend->feed(c.get()->backend, there, batch.data(), batch.size());
        const bool failed = emulated::failed();
        emulated::plenty();
        if (c.get()) {
            tw_backend *b = c.get()->backend;
            if (!there) {
                EXPECT_EQ(b->allocate(b, batch.size(), &there), TW_OK);
            }
            EXPECT_EQ(b->feed(b, there, batch.data(), batch.size()), TW_OK) << "the next try";
            EXPECT_EQ(b->upload(b, there, bytes, 8), TW_OK);
            EXPECT_EQ(b->download(b, bytes, there, 8), TW_OK);
            b->release(b, there);
        }
        if (!failed) {
            EXPECT_GT(k, 10);
            break;
        }
        EXPECT_EQ(s, TW_ERROR_MEMORY) << k;
    }
    Context c(TW_DEVICE_CUDA);
    void *there = nullptr;
    EXPECT_EQ(c.get()->backend->allocate(c.get()->backend, (size_t)1 << 40, &there),
              TW_ERROR_MEMORY);
    EXPECT_NE(std::string(tw_context_error(c.get())).find("1099511627776 bytes were asked for"),
              std::string::npos);
}

#ifndef TW_TEST_DEVICE
TEST_F(CudaDevice, WantOfMemoryTakesWhatThePoolKeeps) {
    Context c(TW_DEVICE_CUDA);
    tw_backend *b = c.get()->backend;
    emulated::keep_in_pools(true);
    void *there = nullptr, *second = nullptr;
    size_t total = 0, before = 0, after = 0;
    ASSERT_EQ(b->allocate(b, 4096, &there), TW_OK);
    const emulated::Counts counts = emulated::counts();
    emulated::fail_at(0);
    EXPECT_EQ(b->allocate(b, 8, &second), TW_ERROR_MEMORY) << "it keeps nothing";
    EXPECT_EQ(emulated::counts().trims, counts.trims);
    ASSERT_EQ(b->memory(b, &total, &before), TW_OK);
    b->release(b, there);
    ASSERT_EQ(b->memory(b, &total, &after), TW_OK);
    EXPECT_GE(after, before + 4096) << "what is kept is there to be used";
    emulated::fail_at(0);
    EXPECT_EQ(b->allocate(b, 8192, &second), TW_OK) << tw_context_error(c.get());
    EXPECT_EQ(emulated::counts().trims, counts.trims + 1);
    b->release(b, second);
}
#endif

TEST_F(CudaDevice, SaysHowMuchMemoryItHas) {
    Context c(TW_DEVICE_CUDA), cpu(TW_DEVICE_CPU);
    tw_backend *b = c.get()->backend;
    size_t total = 0, before = 0, left = 0;
    ASSERT_EQ(b->memory(b, &total, &before), TW_OK) << tw_context_error(c.get());
    EXPECT_GE(total, before);
    void *address = nullptr;
    ASSERT_EQ(b->allocate(b, 256 << 20, &address), TW_OK);
    ASSERT_EQ(b->memory(b, &total, &left), TW_OK);
    EXPECT_LT(left, before - (128 << 20)); // a real one may have kept some of what was released
    b->release(b, address);
    EXPECT_EQ(cpu.get()->backend->memory, nullptr);
}

TEST_F(CudaDevice, RemembersTheMostMemoryThatWasUsed) {
    Context c(TW_DEVICE_CUDA), cpu(TW_DEVICE_CPU);
    tw_backend *b = c.get()->backend;
    const double mib = 1 << 20;
    double used = NAN, held = NAN, before = NAN;
    void *first = nullptr, *second = nullptr;
    b->peak(b, true, &before, &held);
    b->peak(b, false, &before, &held); // what is used anyway
    ASSERT_EQ(b->allocate(b, 64 << 20, &first), TW_OK);
    ASSERT_EQ(b->allocate(b, 32 << 20, &second), TW_OK);
    b->release(b, first);
    ASSERT_EQ(b->synchronize(b), TW_OK);
    b->peak(b, true, &used, &held);
    EXPECT_GE(used, before + 96 * mib);
    EXPECT_LT(used, before + 128 * mib);
    EXPECT_GE(held, used);
    b->peak(b, false, &used, &held);
    EXPECT_GE(used, before + 32 * mib) << "since the restart";
    EXPECT_LT(used, before + 64 * mib);
    b->release(b, second);
    EXPECT_EQ(cpu.get()->backend->peak, nullptr);
}

#ifndef TW_TEST_DEVICE
TEST_F(CudaDevice, AFaultOnTheDeviceIsReportedEverywhere) {
    Context c(TW_DEVICE_CUDA);
    tw_backend *b = c.get()->backend;
    void *there = nullptr;
    char bytes[8] = {};
    ASSERT_EQ(b->allocate(b, 8, &there), TW_OK);
    emulated::break_stream();
    EXPECT_EQ(b->download(b, bytes, there, 8), TW_ERROR_DEVICE);
    EXPECT_NE(std::string(tw_context_error(c.get())).find("illegal memory access"),
              std::string::npos);
    EXPECT_EQ(b->upload(b, there, bytes, 8), TW_ERROR_DEVICE);
    EXPECT_EQ(b->fill(b, there, 0, 8), TW_ERROR_DEVICE);
    EXPECT_EQ(b->synchronize(b), TW_ERROR_DEVICE);
    b->release(b, there);
}
#endif

// The launchers' stream is the context's: nothing runs on the default stream.
TEST_F(CudaDevice, HasAStreamOfItsOwn) {
    Context a(TW_DEVICE_CUDA), b(TW_DEVICE_CUDA);
    EXPECT_NE(a.get()->backend->stream, nullptr);
    EXPECT_NE(a.get()->backend->stream, b.get()->backend->stream);
    Context cpu(TW_DEVICE_CPU);
    EXPECT_EQ(cpu.get()->backend->stream, nullptr);
    EXPECT_EQ(tw_context_stream(a.get()), a.get()->backend->stream);
    EXPECT_EQ(tw_context_stream(cpu.get()), nullptr);
}

TEST_F(CudaDevice, WorksOnTheCallersStreamInTheCallersMemory) {
    Caller caller;
    {
        Context c(TW_DEVICE_AUTO, &caller.options);
        ASSERT_EQ(c.status(), TW_OK) << tw_context_error(nullptr);
        EXPECT_EQ(tw_context_stream(c.get()), caller.stream);
        const emulated::Counts before = emulated::counts();
        const std::vector<char> from(3000, 7);
        EXPECT_EQ(RoundTrip(c.get()->backend, from), from);
        EXPECT_EQ(emulated::counts().device - before.device, 2) << "the caller's";
        EXPECT_EQ(caller.calls, 2);
        double used = 0, held = 0;
        c.get()->backend->peak(c.get()->backend, true, &used, &held);
        EXPECT_TRUE(std::isnan(used) && std::isnan(held)) << "the caller's, not ours to count";
        void *there = nullptr;
        caller.fail_at = caller.calls;
        EXPECT_EQ(c.get()->backend->allocate(c.get()->backend, 8, &there), TW_ERROR_MEMORY);
        EXPECT_STREQ(tw_context_error(c.get()),
                     "out of device memory: the caller's allocator has not 8 bytes");
        caller.crooked = true;
        EXPECT_EQ(c.get()->backend->allocate(c.get()->backend, 8, &there), TW_ERROR_ARGUMENT);
        EXPECT_EQ(there, nullptr);
    }
    EXPECT_EQ(caller.rt->stream_synchronize(caller.stream), TW_CUDA_OK) << "still the caller's";
}

TEST_F(CudaDevice, ACallersStreamIsOfAGpuAndNoDefaultStream) {
    Caller caller;
    Context cpu(TW_DEVICE_CPU, &caller.options);
    EXPECT_EQ(cpu.status(), TW_ERROR_ARGUMENT);
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    for (uintptr_t stream : {1, 2}) {
        o.stream = reinterpret_cast<void *>(stream);
        Context c(TW_DEVICE_CUDA, &o);
        EXPECT_EQ(c.status(), TW_ERROR_ARGUMENT);
        EXPECT_NE(std::string(tw_context_error(nullptr)).find("default stream"), std::string::npos);
    }
    tw_device_allocator half = {caller.allocator.allocate, nullptr, nullptr};
    o.stream = nullptr;
    o.device_allocator = &half;
    Context c(TW_DEVICE_CUDA, &o);
    EXPECT_EQ(c.status(), TW_ERROR_ARGUMENT);
#ifndef TW_TEST_DEVICE
    emulated::set_devices(0);
    Context none(TW_DEVICE_AUTO, &caller.options);
    EXPECT_EQ(none.status(), TW_ERROR_DEVICE) << "not the CPU in its place";
#endif
}

TEST_F(CudaDevice, ContextsOfSeveralThreadsAreIndependent) {
    std::vector<std::thread> threads;
    std::vector<int> right(4, 0);
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&right, t] {
            Context c(TW_DEVICE_CUDA);
            if (c.status() != TW_OK) return;
            for (int i = 0; i < 20; i++) {
                const std::vector<char> from(1000 * (size_t)(t + 1), (char)(16 * t + i));
                right[(size_t)t] += RoundTrip(c.get()->backend, from) == from;
            }
        });
    for (std::thread &t : threads) t.join();
    EXPECT_EQ(right, std::vector<int>(4, 20));
}

#ifndef TW_TEST_DEVICE
// NVML stands in: 100 watts. What cannot be known is NAN, be it the library, the device or a
// symbol.
TEST_F(CudaDevice, IsMetered) {
    double joules[2] = {}, busy = 0;
    {
        Context c(TW_DEVICE_CUDA);
        tw_backend *b = c.get()->backend;
        b->meter(b, &joules[0], &busy);
        EXPECT_DOUBLE_EQ(busy, 0.73);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        b->meter(b, &joules[1], &busy);
        EXPECT_GE(joules[1] - joules[0], 4.5);
        EXPECT_LT(joules[1] - joules[0], 500);
    }
    for (const char *file : {"/no/libnvidia-ml", "libc.so.6"}) {
        emulated::set_nvml(file);
        Context c(TW_DEVICE_CUDA);
        tw_backend *b = c.get()->backend;
        b->meter(b, &joules[0], &busy);
        EXPECT_TRUE(std::isnan(joules[0]) && std::isnan(busy)) << file;
    }
    emulated::set_nvml(nullptr);
    Context cpu(TW_DEVICE_CPU);
    EXPECT_EQ(cpu.get()->backend->meter, nullptr);
}
#endif

} // namespace
