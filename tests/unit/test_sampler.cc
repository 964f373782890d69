#include "support/diffusion.h"
#include "support/sampler_reference.h"

#include <cstring>

extern "C" {
#include "diffusion/sampler.h"
}

namespace {

struct SamplerFree {
    void operator()(tw_sampler *sampler) const { tw_sampler_free(sampler); }
};
using Sampler = std::unique_ptr<tw_sampler, SamplerFree>;
struct ModelFree {
    void operator()(tw_model *model) const { tw_model_free(model); }
};
using Model = std::unique_ptr<tw_model, ModelFree>;

const char *const points = R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 32})";
const char *const classes = R"({"_class_name": "TweedieMLP", "in_features": 3, "hidden": 32,
    "num_class_embeds": 4})";
const char *const learned = R"({"_class_name": "TweedieMLP", "in_features": 2, "out_features": 4,
    "hidden": 32})";
const char *const images = R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 3,
    "out_channels": 3, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4,
    "attention_head_dim": 4})";

class SamplerModel : public ::testing::Test {
  protected:
    Context ctx = cpu_context();
    tw_sampler_options options = TW_SAMPLER_OPTIONS_INIT;

    Model load(const char *config, const char *scheduler = R"({"clip_sample": false})") {
        tw_model *model = nullptr;
        EXPECT_EQ(TW_OK, tw_model_create(ctx.get(), config, scheduler, nullptr, 0, 5, &model))
            << tw_context_error(ctx.get());
        return Model(model);
    }

    static tw_model_info info_of(const Model &model) {
        tw_model_info info = {};
        info.size = sizeof info;
        EXPECT_EQ(TW_OK, tw_model_get_info(model.get(), &info));
        return info;
    }

    Sampler make(const Model &model) {
        tw_sampler *sampler = nullptr;
        EXPECT_EQ(TW_OK, tw_sampler_create(model.get(), &options, &sampler))
            << tw_context_error(ctx.get());
        return Sampler(sampler);
    }

    static int64_t elements(const Model &model) {
        const tw_model_info info = info_of(model);
        int64_t n = 1;
        for (int i = 0; i < info.rank; i++) n *= info.shape[i];
        return n;
    }

    std::vector<float> run(const Model &model, int64_t n, const std::vector<int32_t> &labels = {}) {
        Sampler sampler = make(model);
        std::vector<float> out((size_t)(n * elements(model)), NAN);
        EXPECT_EQ(TW_OK, tw_sampler_run(sampler.get(), n, labels.empty() ? nullptr : labels.data(),
                                        nullptr, out.data()))
            << tw_context_error(ctx.get());
        return out;
    }

    // The same run in double around tw_model_forward.
    std::vector<double> reference(const Model &model, int64_t n,
                                  const std::vector<int32_t> &labels = {}) {
        const tw_model_info info = info_of(model);
        const int64_t each = elements(model), channels = info.shape[info.rank - 1];
        ReferenceSampler r;
        r.A = tw_schedule_alphas_cumprod(tw_model_schedule(model.get()));
        r.options = options;
        r.prediction = info.prediction;
        Sampler sampler = make(model);
        int64_t count;
        const int64_t *times = tw_sampler_timesteps(sampler.get(), &count);
        r.times.assign(times, times + count);
        const auto forward = [&](const std::vector<double> &x, int64_t t,
                                 const std::vector<int32_t> &given) {
            std::vector<float> in(x.begin(), x.end()), time((size_t)n, (float)t),
                out(x.size() / (size_t)channels * (size_t)info.out_channels);
            EXPECT_EQ(TW_OK, tw_model_forward(model.get(), n, in.data(), time.data(),
                                              given.empty() ? nullptr : given.data(), out.data()));
            return out;
        };
        r.network = [&](const std::vector<double> &x, int64_t t, std::vector<double> &m,
                        std::vector<double> &o) {
            const std::vector<float> c = forward(x, t, labels);
            std::vector<float> u = c;
            if (options.guidance != 1)
                u = forward(x, t, std::vector<int32_t>((size_t)n, (int32_t)info.classes - 1));
            for (size_t i = 0; i < x.size(); i++) {
                const size_t at = i / channels * (size_t)info.out_channels + i % (size_t)channels;
                m.push_back(u[at] + options.guidance * ((double)c[at] - u[at]));
                if (info.out_channels > channels) o.push_back(c[at + (size_t)channels]);
            }
        };
        std::vector<double> x = ReferenceSampler::noise(options.seed, options.first_sample, n, each,
                                                        TW_PURPOSE_INITIAL, 0);
        r.run(x, each);
        return x;
    }

    void expect_same(const std::vector<float> &got, const std::vector<double> &want, double bound) {
        ASSERT_EQ(want.size(), got.size());
        for (size_t i = 0; i < got.size(); i++)
            EXPECT_WITHIN(got[i], want[i], bound * (1 + std::abs(want[i]))) << i;
    }
};

TEST_F(SamplerModel, FollowsALoopOverTheNetwork) {
    options.steps = 10;
    options.seed = 8;
    for (const char *config : {points, images}) {
        const Model model = load(config);
        for (int kind = 0; kind < 3; kind++) {
            options.kind = kind == 2 ? TW_SAMPLER_DDPM : TW_SAMPLER_DDIM;
            options.eta = 0.5 * kind;
            expect_same(run(model, 3), reference(model, 3), 1e-4);
        }
    }
}

TEST_F(SamplerModel, EveryPredictionIsReadFromTheConfig) {
    options.steps = 5;
    for (const char *name : {"epsilon", "sample", "v_prediction"}) {
        const std::string scheduler =
            std::string(R"({"clip_sample": false, "prediction_type": ")") + name + "\"}";
        const Model model = load(points, scheduler.c_str());
        expect_same(run(model, 3), reference(model, 3), 1e-4);
    }
}

TEST_F(SamplerModel, LabelsAndGuidance) {
    const Model model = load(classes);
    const std::vector<int32_t> labels = {0, 1, 2, 3, 1};
    options.steps = 10;
    options.max_batch = 3;
    std::vector<std::vector<float>> outputs;
    for (double w : {1.0, 0.0, 2.0}) {
        options.guidance = w;
        outputs.push_back(run(model, 5, labels));
        expect_same(outputs.back(), reference(model, 5, labels), 1e-4);
    }
    // Sample 3 has the null label itself: guidance changes nothing there, but elsewhere it does.
    for (int i = 0; i < 3; i++) EXPECT_WITHIN(outputs[2][9 + i], outputs[0][9 + i], 1e-5);
    double change = 0;
    for (int i = 0; i < 3; i++) change += std::abs(outputs[2][i] - outputs[0][i]);
    EXPECT_GT(change, 1e-3);
}

TEST_F(SamplerModel, TheBatchDoesNotChangeTheSample) {
    const Model model = load(images);
    options.steps = 4;
    options.eta = 1;
    options.max_batch = 64;
    const std::vector<float> whole = run(model, 7);
    for (int64_t most : {1, 3}) {
        options.max_batch = most;
        const std::vector<float> parts = run(model, 7);
        for (size_t i = 0; i < whole.size(); i++)
            EXPECT_WITHIN(parts[i], whole[i], 1e-5 * (1 + std::abs(whole[i]))) << most;
    }
    options.first_sample = 5;
    const std::vector<float> tail = run(model, 2);
    for (size_t i = 0; i < tail.size(); i++)
        EXPECT_WITHIN(tail[i], whole[5 * 192 + i], 1e-5 * (1 + std::abs(tail[i])));
}

TEST_F(SamplerModel, LearnedVarianceAndItsMeanAlone) {
    const Model model =
        load(learned, R"({"clip_sample": false, "variance_type": "learned_range"})");
    options.steps = 10;
    expect_same(run(model, 4), reference(model, 4), 1e-4); // DDIM takes the mean
    options.kind = TW_SAMPLER_DDPM;
    expect_same(run(model, 4), reference(model, 4), 1e-4);
    options.variance = TW_VARIANCE_LEARNED_RANGE;
    expect_same(run(model, 4), reference(model, 4), 1e-4);
}

TEST_F(SamplerModel, DefaultClippingIsTheSchedulers) {
    const auto largest = [&](const char *scheduler) {
        double most = 0;
        for (float v : run(load(points, scheduler), 16)) most = std::fmax(most, std::abs(v));
        return most;
    };
    options.steps = 5;
    EXPECT_GT(largest(R"({"clip_sample": false})"), 0.5);
    EXPECT_LE(largest(R"({"clip_sample": true, "clip_sample_range": 0.25})"), 0.25);
    EXPECT_LE(largest(R"({"thresholding": true, "sample_max_value": 2.0})"), 1.0);
    EXPECT_LE(largest("{}"), 1.0);
    options.clipping = TW_CLIPPING_RANGE;
    options.clip_range = 0.125;
    EXPECT_LE(largest("{}"), 0.125);
    options.clipping = TW_CLIPPING_NONE;
    EXPECT_GT(largest(R"({"clip_sample": true, "clip_sample_range": 0.25})"), 0.5);
}

TEST_F(SamplerModel, SamplersShareAModelAndOutliveItsOwner) {
    Model model = load(points);
    options.steps = 3;
    Sampler ddim = make(model);
    options.kind = TW_SAMPLER_DDPM;
    Sampler ddpm = make(model);
    model.reset();
    float a[8], b[8], again[8];
    ASSERT_EQ(TW_OK, tw_sampler_run(ddim.get(), 4, nullptr, nullptr, a));
    ASSERT_EQ(TW_OK, tw_sampler_run(ddpm.get(), 4, nullptr, nullptr, b));
    ASSERT_EQ(TW_OK, tw_sampler_run(ddim.get(), 4, nullptr, nullptr, again));
    EXPECT_EQ(0, std::memcmp(a, again, sizeof a));
    EXPECT_NE(0, std::memcmp(a, b, sizeof a));
}

TEST_F(SamplerModel, WeightsAreSharedNotCopied) {
    Model model = load(points);
    options.steps = 3;
    Sampler sampler = make(model);
    float before[2], after[2];
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 1, nullptr, nullptr, before));
    const float bias[] = {3, -3};
    ASSERT_EQ(TW_OK, tw_model_set_weight(model.get(), "output.bias", bias, 2))
        << tw_context_error(ctx.get());
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 1, nullptr, nullptr, after));
    EXPECT_NE(before[0], after[0]);
}

// Convolutions keep their weights in a layout of their own from step to step, not from run to run.
TEST_F(SamplerModel, ConvolutionsSeeNewWeights) {
    Model model = load(images);
    options.steps = 3;
    Sampler sampler = make(model);
    std::vector<float> before(192), after(192), weight(8 * 8 * 3 * 3);
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 1, nullptr, nullptr, before.data()));
    for (size_t i = 0; i < weight.size(); i++) weight[i] = std::sin((float)i);
    for (const char *name :
         {"down_blocks.0.resnets.0.conv1.weight", "down_blocks.0.resnets.0.conv2.weight"})
        ASSERT_EQ(TW_OK,
                  tw_model_set_weight(model.get(), name, weight.data(), (int64_t)weight.size()))
            << tw_context_error(ctx.get());
    /* conv_out starts at zero and would hide the change. */
    const std::vector<float> out(3 * 8 * 3 * 3, 0.05f);
    ASSERT_EQ(TW_OK,
              tw_model_set_weight(model.get(), "conv_out.weight", out.data(), (int64_t)out.size()));
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 1, nullptr, nullptr, after.data()));
    EXPECT_NE(before, after);
    EXPECT_EQ(run(model, 1), after);
    ASSERT_EQ(TW_OK, tw_model_set_weight(model.get(), "down_blocks.0.resnets.0.conv1.weight",
                                         std::vector<float>(weight.size(), 0.0f).data(),
                                         (int64_t)weight.size()));
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 1, nullptr, nullptr, before.data()));
    EXPECT_NE(before, after);
    EXPECT_EQ(run(model, 1), before);
}

TEST_F(SamplerModel, GivenNoiseIsTheStart) {
    const Model model = load(points);
    options.steps = 4;
    const std::vector<float> own = run(model, 3);
    std::vector<float> noise;
    for (double z : ReferenceSampler::noise(0, 0, 3, 2, TW_PURPOSE_INITIAL, 0))
        noise.push_back((float)z);
    options.max_batch = 2;
    Sampler sampler = make(model);
    std::vector<float> out(6);
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 3, nullptr, noise.data(), out.data()));
    for (size_t i = 0; i < 6; i++) EXPECT_WITHIN(out[i], own[i], 1e-6 * (1 + std::abs(own[i])));
    noise[0] += 1;
    ASSERT_EQ(TW_OK, tw_sampler_run(sampler.get(), 3, nullptr, noise.data(), out.data()));
    EXPECT_NE(own[0], out[0]);
    EXPECT_WITHIN(out[4], own[4], 1e-6 * (1 + std::abs(own[4])));
}

TEST_F(SamplerModel, MemoryCountsTheNetworksArena) {
    const Model model = load(images);
    options.max_batch = 64;
    Sampler sampler = make(model);
    size_t some = 0, many = 0;
    ASSERT_EQ(TW_OK, tw_sampler_memory(sampler.get(), 8, &some));
    ASSERT_EQ(TW_OK, tw_sampler_memory(sampler.get(), 64, &many));
    EXPECT_GT(some, 8 * 192 * sizeof(float) * 8);
    EXPECT_GT(many, 2 * some); // weights in a layout of their own do not grow with the batch
    EXPECT_LT(many, 16 * some);
}

TEST_F(SamplerModel, RefusesWhatTheModelCannotDo) {
    const Model plain = load(points), conditional = load(classes), twice = load(learned);
    const auto refused = [&](const Model &model, tw_status status, auto change, const char *words) {
        tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
        change(o);
        tw_sampler *out = reinterpret_cast<tw_sampler *>(1);
        EXPECT_REFUSED(status, ctx.get(), tw_sampler_create(model.get(), &o, &out), words);
        EXPECT_EQ(nullptr, out);
    };
    refused(
        plain, TW_ERROR_UNSUPPORTED, [](auto &o) { o.guidance = 2; },
        "guidance 2 needs a model with classes");
    refused(
        plain, TW_ERROR_UNSUPPORTED,
        [](auto &o) { o.kind = TW_SAMPLER_DDPM, o.variance = TW_VARIANCE_LEARNED_RANGE; },
        "makes 2 channels, expected 4");
    refused(
        plain, TW_ERROR_ARGUMENT, [](auto &o) { o.steps = 2000; }, "expected 1 to 1000");
    const Model zero = load(points, R"({"rescale_betas_zero_snr": true,
        "timestep_spacing": "trailing"})");
    refused(
        zero, TW_ERROR_UNSUPPORTED, [](auto &o) { o.spacing = TW_SPACING_TRAILING; },
        "zero terminal SNR");
    tw_sampler *out = nullptr;
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, nullptr, tw_sampler_create(nullptr, &options, &out),
                   "a model");

    options.steps = 2;
    float x[9];
    const int32_t labels[] = {0, 4, 1}, negative[] = {-1};
    Sampler unconditional = make(plain), sampler = make(conditional);
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                   tw_sampler_run(unconditional.get(), 3, labels, nullptr, x),
                   "the model has no classes");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                   tw_sampler_run(sampler.get(), 3, nullptr, nullptr, x), "0 to 3");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                   tw_sampler_run(sampler.get(), 3, labels, nullptr, x),
                   "label 4 of sample 1, expected 0 to 3");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, ctx.get(),
                   tw_sampler_run(sampler.get(), 1, negative, nullptr, x), "label -1");
    EXPECT_REFUSED(TW_ERROR_ARGUMENT, nullptr, tw_sampler_run(nullptr, 1, nullptr, nullptr, x),
                   "a sampler");
}

} // namespace
