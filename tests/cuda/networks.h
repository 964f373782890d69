// Whole networks on the GPU's backend beside the CPU's reference.
#pragma once

#include "support.h"

#include <cmath>
#include <functional>
#include <random>
#include <vector>

extern "C" {
#include "backend/backend.h"
#include "core/context.h"
#include "models/model.h"
#include "models/weights.h"
}

inline const char *const kMlp = R"({"_class_name": "TweedieMLP", "in_features": 2, "hidden": 16,
    "layers": 2, "act_fn": "gelu", "num_class_embeds": 4})";
inline const char *const kUnet =
    R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"], "add_attention": false,
    "norm_num_groups": 4, "num_class_embeds": 4, "dropout": 0.1})";
inline const char *const kAttention =
    R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 8,
    "norm_num_groups": 4, "num_class_embeds": 4})";
// Channels that are no vectors: convolutions measure what is normalised next.
inline const char *const kMeasured =
    R"({"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1,
    "out_channels": 1, "block_out_channels": [6, 18], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"], "add_attention": false,
    "norm_num_groups": 3, "num_class_embeds": 4})";
// Twice the channels: a learned variance.
inline const char *const kLearned =
    R"({"_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 3,
    "out_channels": 6, "block_out_channels": [8], "layers_per_block": 1,
    "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "norm_num_groups": 2,
    "add_attention": false, "num_class_embeds": 4})";

using Floats = std::vector<float>;

// Relative to the rms of `want`.
inline double Distance(const Floats &got, const Floats &want) {
    double worst = 0, sum = 0;
    EXPECT_EQ(got.size(), want.size());
    for (size_t i = 0; i < want.size() && i < got.size(); i++) {
        const double d = std::fabs((double)got[i] - (double)want[i]);
        worst = d <= worst ? worst : d; // NaN is the worst
        if (std::isnan(d)) return NAN;
        sum += (double)want[i] * (double)want[i];
    }
    return worst / std::sqrt(sum / (double)want.size() + 1e-300);
}

inline void Note(const char *what, double value) {
    char text[32];
    snprintf(text, sizeof text, "%.1e", value);
    ::testing::Test::RecordProperty(what, text);
}

// Weights that hide nothing: fresh output weights are zero. They depend on nothing but their names.
inline tw_model *MakeModel(tw_context *ctx, const char *config) {
    tw_model *m = nullptr;
    EXPECT_EQ(tw_model_create(ctx, config, nullptr, nullptr, 0, 5, &m), TW_OK)
        << tw_context_error(ctx);
    for (int64_t i = 0; m && i < m->weights.count; i++) {
        const tw_weight &w = m->weights.items[i];
        Floats values((size_t)w.count);
        if (tw_model_get_weight(m, w.name, values.data(), w.count) != TW_OK) ADD_FAILURE();
        if (w.init != TW_INIT_ZERO) continue;
        std::mt19937 random(w.hash);
        const double bound = 1 / std::sqrt((double)w.fan_in);
        for (float &v : values) v = (float)(bound * ((double)random() * 0x1p-31 - 1));
        EXPECT_EQ(tw_model_set_weight(m, w.name, values.data(), w.count), TW_OK);
    }
    return m;
}

// Twenty samples with labels.
inline tw_dataset *MakeData(tw_context *ctx, const tw_model *m) {
    tw_model_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(tw_model_get_info(m, &info), TW_OK);
    int64_t elements = 1;
    for (int i = 0; i < info.rank; i++) elements *= info.shape[i];
    Floats x((size_t)(20 * elements));
    std::vector<int32_t> labels(20);
    for (size_t i = 0; i < x.size(); i++) x[i] = std::sin(0.37f * (float)i);
    for (size_t i = 0; i < labels.size(); i++) labels[i] = (int32_t)(i % 3);
    tw_dataset *d = nullptr;
    EXPECT_EQ(tw_dataset_from_memory(ctx, 20, info.rank, info.shape, x.data(), labels.data(), &d),
              TW_OK)
        << tw_context_error(ctx);
    return d;
}

// A vector of all weights, in the order that every device saves.
inline Floats Storage(tw_model *m, const void *from) {
    Floats all((size_t)m->weights.total), saved((size_t)m->weights.saved);
    tw_backend *b = m->ctx->backend;
    EXPECT_EQ(b->download(b, all.data(), from, all.size() * sizeof(float)), TW_OK)
        << tw_context_error(m->ctx);
    tw_weights_to_state(&m->weights, all.data(), saved.data());
    return saved;
}

struct Drawn {
    Floats x, x0;
};

// `n` samples, and what they are thought to become at every step.
inline Drawn Draw(tw_model *m, tw_sampler_options o, int64_t n,
                  const std::vector<int32_t> &labels) {
    Drawn r;
    tw_model_info info = {};
    info.size = sizeof info;
    EXPECT_EQ(tw_model_get_info(m, &info), TW_OK);
    int64_t elements = 1;
    for (int i = 0; i < info.rank; i++) elements *= info.shape[i];
    struct Hook {
        Floats *x0;
        int64_t elements;
    } hook = {&r.x0, elements};
    o.want_x0 = 1;
    o.hook_user = &hook;
    o.hook = [](void *user, const tw_step_info *info) {
        Hook *h = static_cast<Hook *>(user);
        h->x0->insert(h->x0->end(), info->x0, info->x0 + info->count * h->elements);
        return 0;
    };
    tw_sampler *s = nullptr;
    EXPECT_EQ(tw_sampler_create(m, &o, &s), TW_OK) << tw_context_error(m->ctx);
    r.x.resize((size_t)(n * elements), NAN);
    if (s) {
        EXPECT_EQ(tw_sampler_run(s, n, labels.data(), nullptr, r.x.data()), TW_OK)
            << tw_context_error(m->ctx);
    }
    tw_sampler_free(s);
    return r;
}

class CudaEngine : public Cuda {
  protected:
    // The same on the device and by the reference on the CPU.
    static void OnBoth(const std::function<void(tw_context *)> &run,
                       const char *provider = "auto") {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.provider = "cpu-reference";
        Context cpu(TW_DEVICE_CPU, &o);
        o.provider = provider;
        Context cuda(TW_DEVICE_CUDA, &o);
        ASSERT_EQ(cpu.status(), TW_OK);
        ASSERT_EQ(cuda.status(), TW_OK);
        run(cpu.get());
        run(cuda.get());
        EXPECT_EQ(cuda.logged(), "");
    }
};

// --- Failures ---

struct Outcome {
    tw_status status;
    Floats numbers;
};

// Fails everything that is made on the device, one after the other: a status with a text, nothing
// is left, and the next call gives the right numbers.
inline void FailEverywhere(Context &c, const std::function<Outcome()> &call, int64_t at_least) {
    const Outcome right = call();
    ASSERT_EQ(right.status, TW_OK) << tw_context_error(c.get());
    int64_t failures = 0;
    for (bool dry : {false, true})
        for (int64_t k = 0;; k += k < 40 ? 1 : 3) {
            const int64_t before = emulated::held();
            emulated::fail_at(k, dry);
            const Outcome got = call();
            const bool failed = emulated::failed();
            emulated::plenty();
            ASSERT_EQ(emulated::held(), before) << k;
            if (!failed) {
                ASSERT_EQ(got.numbers, right.numbers) << k;
                break;
            }
            failures++;
            // Without memory for a graph a plan runs call by call, and data stays where it is.
            if (got.status == TW_OK) {
                ASSERT_TRUE(c.logged().find("call by call") != std::string::npos ||
                            c.logged().find("the host's memory") != std::string::npos)
                    << k << c.logged();
                ASSERT_EQ(got.numbers, right.numbers) << k;
            } else {
                ASSERT_EQ(got.status, TW_ERROR_MEMORY) << k << tw_context_error(c.get());
                ASSERT_NE(std::string(tw_context_error(c.get())), "") << k;
            }
            c.forget();
            const Outcome again = call();
            ASSERT_EQ(again.status, TW_OK) << "after the failure of " << k;
            ASSERT_EQ(again.numbers, right.numbers) << "after the failure of " << k;
        }
    EXPECT_GE(failures, at_least);
}

inline tw_sampler_options FiveSteps() {
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = 5;
    o.seed = 11;
    o.first_sample = (uint64_t)1 << 33;
    o.max_batch = 2; // three samples: a chunk and a rest
    return o;
}
