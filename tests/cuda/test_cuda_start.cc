// Sampling that does not wait, on the emulated device and on the CPU.
#include "caller.h"
#include "networks.h"

#include <cstring>

namespace {

class CudaStart : public CudaEngine {};

const int32_t kLabels[] = {0, 2, 1};

Floats Noise(int64_t count) {
    Floats x((size_t)count);
    for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.7f * (float)i);
    return x;
}

tw_tensor Samples(void *data, int64_t n, tw_device device) {
    const int64_t shape[] = {n, 2};
    tw_tensor t = {};
    EXPECT_EQ(tw_tensor_view(data, TW_F32, 2, shape, &t), TW_OK);
    t.device = device;
    return t;
}

// A model and a sampler of points.
struct Made {
    tw_model *m;
    tw_sampler *s = nullptr;
    explicit Made(tw_context *ctx) {
        m = MakeModel(ctx, kMlp);
        const tw_sampler_options o = FiveSteps();
        EXPECT_EQ(tw_sampler_create(m, &o, &s), TW_OK) << tw_context_error(ctx);
    }
    ~Made() {
        tw_sampler_free(s);
        tw_model_free(m);
    }
};

tw_sampling_request Request(const tw_tensor *noise, const tw_tensor *out) {
    tw_sampling_request r = TW_SAMPLING_REQUEST_INIT;
    r.n = 3;
    r.labels = kLabels;
    r.noise = noise;
    r.out = out;
    return r;
}

// From device memory to device memory, on the caller's stream, between two of the caller's events.
TEST_F(CudaStart, DrawsInDeviceMemoryWithoutWaiting) {
    Caller caller;
    const tw_cuda_runtime *rt = caller.rt;
    const Floats noise = Noise(6);
    const size_t bytes = 6 * sizeof(float);
    Context c(TW_DEVICE_CUDA, &caller.options);
    Made made(c.get());
    tw_cuda_stream other = nullptr;
    tw_cuda_event after = nullptr, done = nullptr;
    void *in = nullptr, *out = nullptr, *pinned = nullptr;
    ASSERT_EQ(rt->stream_create(&other), TW_CUDA_OK);
    ASSERT_EQ(rt->event_create(&after), TW_CUDA_OK);
    ASSERT_EQ(rt->event_create(&done), TW_CUDA_OK);
    ASSERT_EQ(rt->allocate(nullptr, other, bytes, &in), TW_CUDA_OK);
    ASSERT_EQ(rt->allocate(nullptr, other, bytes, &out), TW_CUDA_OK);
    ASSERT_EQ(rt->pinned_allocate(bytes, &pinned), TW_CUDA_OK);
    std::memcpy(pinned, noise.data(), bytes);
    Floats want(6), got(6, NAN);
    ASSERT_EQ(tw_sampler_run(made.s, 3, kLabels, noise.data(), want.data()), TW_OK);

    const tw_tensor from = Samples(in, 3, TW_DEVICE_CUDA), to = Samples(out, 3, TW_DEVICE_CUDA);
    tw_sampling_request r = Request(&from, &to);
    r.after = after;
    r.done = done;
    for (int round = 0; round < 3; round++) {
        tw_sampling *run = nullptr;
        ASSERT_EQ(rt->fill(other, in, 0xff, bytes), TW_CUDA_OK);
        ASSERT_EQ(rt->fill(other, out, 0xff, bytes), TW_CUDA_OK);
        ASSERT_EQ(rt->copy(other, in, pinned, bytes, TW_CUDA_IN), TW_CUDA_OK);
        ASSERT_EQ(rt->event_record(after, other), TW_CUDA_OK);
        const emulated::Counts before = emulated::counts();
        ASSERT_EQ(tw_sampler_start(made.s, &r, &run), TW_OK) << tw_context_error(c.get());
        EXPECT_EQ(emulated::counts().waits, before.waits);
        if (round) {
            EXPECT_EQ(emulated::counts().device, before.device);
        }
        int ready = 1;
        ASSERT_EQ(tw_sampling_query(run, &ready), TW_OK);
        EXPECT_EQ(ready, 0);
        EXPECT_EQ(rt->event_query(done), TW_CUDA_NOT_READY);
        ASSERT_EQ(rt->stream_wait(other, done), TW_CUDA_OK);
        ASSERT_EQ(rt->copy(other, got.data(), out, bytes, TW_CUDA_OUT), TW_CUDA_OK);
        ASSERT_EQ(rt->stream_synchronize(other), TW_CUDA_OK);
        EXPECT_EQ(got, want) << round;
        ASSERT_EQ(tw_sampling_wait(run), TW_OK);
        ASSERT_EQ(tw_sampling_query(run, &ready), TW_OK);
        EXPECT_EQ(ready, 1);
        tw_sampling_free(run);
    }
    rt->release(nullptr, other, in);
    rt->release(nullptr, other, out);
    rt->event_destroy(after);
    rt->event_destroy(done);
    rt->stream_destroy(other);
    rt->pinned_release(pinned);
}

// To the host: nothing is there before the run is done, and then the same bits.
TEST_F(CudaStart, DrawsIntoTheHostsMemory) {
    Floats want(6), all[2] = {Floats(6, NAN), Floats(6, NAN)};
    const Floats noise = Noise(6);
    Context c(TW_DEVICE_CUDA);
    tw_sampling *runs[2] = {};
    {
        Made made(c.get());
        ASSERT_EQ(tw_sampler_run(made.s, 3, kLabels, noise.data(), want.data()), TW_OK);
        Floats x = noise;
        const tw_tensor from = Samples(x.data(), 3, TW_DEVICE_CPU);
        for (int i = 0; i < 2; i++) {
            const tw_tensor to = Samples(all[i].data(), 3, TW_DEVICE_CPU);
            const tw_sampling_request r = Request(&from, &to);
            const emulated::Counts before = emulated::counts();
            ASSERT_EQ(tw_sampler_start(made.s, &r, &runs[i]), TW_OK) << tw_context_error(c.get());
            EXPECT_EQ(emulated::counts().waits, before.waits);
        }
        x.assign(6, NAN); // it was copied
    }                     // the sampler may go before
#ifndef TW_TEST_DEVICE
    EXPECT_TRUE(std::isnan(all[0][0]));
#endif
    ASSERT_EQ(tw_sampling_wait(runs[1]), TW_OK);
    EXPECT_EQ(all[0], want);
    EXPECT_EQ(all[1], want);
    tw_sampling_free(runs[0]);
    tw_sampling_free(runs[1]);
    tw_sampling_free(nullptr);
}

#ifndef TW_TEST_DEVICE
TEST_F(CudaStart, AFaultIsSaidByTheWait) {
    for (bool wait : {false, true}) {
        Context c(TW_DEVICE_CUDA);
        Made made(c.get());
        Floats out(6);
        const tw_tensor to = Samples(out.data(), 3, TW_DEVICE_CPU);
        const tw_sampling_request r = Request(nullptr, &to);
        tw_sampling *run = nullptr;
        int done = 1;
        ASSERT_EQ(tw_sampler_start(made.s, &r, &run), TW_OK);
        emulated::break_stream();
        EXPECT_EQ(wait ? tw_sampling_wait(run) : tw_sampling_query(run, &done), TW_ERROR_DEVICE);
        EXPECT_NE(std::string(tw_context_error(c.get())).find("illegal memory access"),
                  std::string::npos);
        EXPECT_EQ(tw_sampler_start(made.s, &r, nullptr), TW_ERROR_DEVICE);
        tw_sampling_free(run);
    }
}
#endif

TEST_F(CudaStart, WantOfDeviceMemoryIsAStatus) {
    Context c(TW_DEVICE_CUDA);
    FailEverywhere(
        c,
        [&]() -> Outcome {
            Floats out(6, NAN);
            tw_sampling *run = nullptr;
            tw_sampler *s = nullptr;
            const tw_sampler_options o = FiveSteps();
            const tw_tensor to = Samples(out.data(), 3, TW_DEVICE_CPU);
            const tw_sampling_request r = Request(nullptr, &to);
            tw_model *m = nullptr;
            tw_status status = tw_model_create(c.get(), kMlp, nullptr, nullptr, 0, 5, &m);
            if (status == TW_OK) status = tw_sampler_create(m, &o, &s);
            if (status == TW_OK) status = tw_sampler_start(s, &r, &run);
            EXPECT_EQ(run != nullptr, status == TW_OK);
            if (status == TW_OK) status = tw_sampling_wait(run);
            tw_sampling_free(run);
            tw_sampler_free(s);
            tw_model_free(m);
            return {status, out};
        },
        20);
}

TEST_F(CudaStart, OnTheCpuAllIsDoneAtOnce) {
    Context c(TW_DEVICE_CPU);
    Made made(c.get());
    Floats want(6), got(6);
    ASSERT_EQ(tw_sampler_run(made.s, 3, kLabels, nullptr, want.data()), TW_OK);
    const tw_tensor to = Samples(got.data(), 3, TW_DEVICE_CPU);
    tw_sampling_request r = Request(nullptr, &to);
    tw_sampling *run = nullptr;
    ASSERT_EQ(tw_sampler_start(made.s, &r, &run), TW_OK) << tw_context_error(c.get());
    EXPECT_EQ(got, want);
    int done = 0;
    EXPECT_EQ(tw_sampling_query(run, &done), TW_OK);
    EXPECT_EQ(done, 1);
    EXPECT_EQ(tw_sampling_wait(run), TW_OK);
    tw_sampling_free(run);
    r.done = &r;
    EXPECT_EQ(tw_sampler_start(made.s, &r, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(c.get()), "tw_sampler_start: the CPU has no events");
}

TEST_F(CudaStart, WhatDoesNotFitIsRefused) {
    Context c(TW_DEVICE_CUDA);
    Made made(c.get());
    Floats out(8);
    const tw_tensor right = Samples(out.data(), 3, TW_DEVICE_CPU);
    const auto refused = [&](const tw_tensor &noise, const tw_tensor &to, const char *why) {
        const tw_sampling_request r = Request(&noise, &to);
        tw_sampling *run = nullptr;
        EXPECT_EQ(tw_sampler_start(made.s, &r, &run), TW_ERROR_ARGUMENT) << why;
        EXPECT_EQ(run, nullptr);
        EXPECT_NE(std::string(tw_context_error(c.get())).find(why), std::string::npos)
            << tw_context_error(c.get());
    };
    tw_tensor wrong = Samples(out.data(), 4, TW_DEVICE_CPU);
    refused(right, wrong, "out: extent 0 is 4, expected 3");
    refused(wrong, right, "noise: extent 0 is 4, expected 3");
    wrong = right;
    wrong.strides[0] = 4;
    refused(right, wrong, "dense float32 tensor of 2 axes");
    wrong = right;
    wrong.dtype = TW_F16;
    refused(wrong, right, "noise: expected a dense float32");
    wrong = right;
    wrong.read_only = 1;
    refused(right, wrong, "read-only");
    wrong = Samples(out.data(), 3, TW_DEVICE_CUDA);
    wrong.device_index = 1;
    refused(right, wrong, "another device");
    EXPECT_EQ(tw_sampler_start(made.s, nullptr, nullptr), TW_ERROR_ARGUMENT);
    tw_sampler_options o = FiveSteps();
    o.hook = [](void *, const tw_step_info *) { return 0; };
    tw_sampler *hooked = nullptr;
    ASSERT_EQ(tw_sampler_create(made.m, &o, &hooked), TW_OK);
    const tw_sampling_request r = Request(nullptr, &right);
    EXPECT_EQ(tw_sampler_start(hooked, &r, nullptr), TW_ERROR_ARGUMENT);
    tw_sampler_free(hooked);
}

} // namespace
