// A fixture for samplers over callbacks, and the same run in double.
#pragma once

#include "support/diffusion.h"
#include "support/sampler_reference.h"

struct SamplerFree {
    void operator()(tw_sampler *sampler) const { tw_sampler_free(sampler); }
};
using Sampler = std::unique_ptr<tw_sampler, SamplerFree>;

// A denoiser of one number at a time, told to the library as a callback.
struct Pointwise {
    std::function<double(double x, double t)> f;
    int calls = 0;

    static tw_status evaluate(void *user, const tw_tensor *x, const tw_tensor *t, const int32_t *,
                              tw_tensor *out, tw_stream) {
        auto *self = static_cast<Pointwise *>(user);
        const int64_t n = x->shape[0], each = tw_tensor_count(x) / n;
        for (int64_t i = 0; i < n * each; i++)
            static_cast<float *>(out->data)[i] =
                (float)self->f(static_cast<const float *>(x->data)[i],
                               static_cast<const float *>(t->data)[i / each]);
        self->calls++;
        return TW_OK;
    }

    tw_denoiser denoiser(std::vector<int64_t> shape, tw_prediction prediction) {
        tw_denoiser d = {};
        d.size = sizeof d;
        d.evaluate = evaluate;
        d.user = this;
        d.rank = (int)shape.size();
        std::copy(shape.begin(), shape.end(), d.shape);
        d.prediction = prediction;
        return d;
    }
};

class SamplerCallback : public ::testing::Test {
  protected:
    Context ctx = cpu_context();
    tw_schedule_options linear = TW_SCHEDULE_OPTIONS_INIT;
    Schedule schedule = make_schedule(ctx.get(), linear);
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;
    Pointwise model;
    std::vector<int64_t> shape = {3, 5};
    tw_prediction prediction = TW_PREDICT_EPSILON;

    int64_t elements() const {
        int64_t n = 1;
        for (int64_t d : shape) n *= d;
        return n;
    }

    Sampler make() {
        const tw_denoiser d = model.denoiser(shape, prediction);
        tw_sampler *sampler = nullptr;
        EXPECT_EQ(TW_OK,
                  tw_sampler_create_callback(ctx.get(), &d, schedule.get(), &options, &sampler))
            << tw_context_error(ctx.get());
        return Sampler(sampler);
    }

    std::vector<float> run(int64_t n, const std::vector<float> &noise = {}) {
        Sampler sampler = make();
        std::vector<float> out((size_t)(n * elements()), NAN);
        EXPECT_TRUE(noise.empty() || noise.size() == out.size());
        EXPECT_EQ(TW_OK, tw_sampler_run(sampler.get(), n, nullptr,
                                        noise.empty() ? nullptr : noise.data(), out.data()))
            << tw_context_error(ctx.get());
        return out;
    }

    // The same run in double.
    std::vector<double> reference(int64_t n, const std::vector<float> &noise = {}) {
        ReferenceSampler r;
        r.A = tw_schedule_alphas_cumprod(schedule.get());
        Sampler sampler = make();
        int64_t count;
        const int64_t *times = tw_sampler_timesteps(sampler.get(), &count);
        r.times.assign(times, times + count);
        r.options = options;
        r.prediction = prediction;
        r.network = [&](const std::vector<double> &x, int64_t t, std::vector<double> &m,
                        std::vector<double> &) {
            for (double v : x) m.push_back(model.f(v, (double)t));
        };
        std::vector<double> x = noise.empty()
                                    ? ReferenceSampler::noise(options.seed, options.first_sample, n,
                                                              elements(), TW_PURPOSE_INITIAL, 0)
                                    : std::vector<double>(noise.begin(), noise.end());
        r.run(x, elements());
        return x;
    }

    void expect_same(const std::vector<float> &got, const std::vector<double> &want, double bound) {
        ASSERT_EQ(want.size(), got.size());
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_WITHIN(got[i], want[i], bound * (1 + std::abs(want[i]))) << i;
    }
};
