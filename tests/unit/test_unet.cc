// UNet2DModel: what config.json may say, what fresh weights are, and derivatives against finite
// differences. Its numbers are compared with diffusers' in golden/test_unet_golden.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "support/network.h"

extern "C" {
#include "io/json.h"
#include "models/unet_config.h"
}

namespace {

struct Parsed {
    tw_status status;
    std::string error;
    tw_unet_config config = {};
};

Parsed Parse(const std::string &text) {
    Parsed p;
    json_t *root = nullptr;
    p.status = tw_json_parse(nullptr, text.c_str(), text.size(), "config.json", &root);
    EXPECT_EQ(p.status, TW_OK) << tw_context_error(nullptr) << ": " << text;
    const tw_json json = {nullptr, "config.json", root};
    if (p.status == TW_OK) p.status = tw_unet_config_parse(&json, &p.config);
    if (p.status != TW_OK) p.error = tw_context_error(nullptr);
    json_decref(root);
    return p;
}

// A sound config with the fields of `changes` put over it.
std::string Config(const std::string &changes) {
    json_t *base = json_loads(
        R"({"_class_name": "UNet2DModel", "sample_size": 8, "block_out_channels": [8, 16],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4,
            "layers_per_block": 1})",
        0, nullptr);
    json_t *over = json_loads(changes.c_str(), 0, nullptr);
    EXPECT_NE(over, nullptr) << changes;
    json_object_update(base, over);
    char *text = json_dumps(base, 0);
    const std::string out = text;
    free(text);
    json_decref(base);
    json_decref(over);
    return out;
}

TEST(UnetConfig, AbsentFieldsHaveDiffusersDefaults) {
    const Parsed p = Parse(R"({"sample_size": 64})");
    ASSERT_EQ(p.status, TW_OK) << p.error;
    const tw_unet_config &c = p.config;
    EXPECT_EQ(c.height, 64);
    EXPECT_EQ(c.width, 64);
    EXPECT_EQ(c.in_channels, 3);
    EXPECT_EQ(c.out_channels, 3);
    EXPECT_FALSE(c.center_input);
    EXPECT_EQ(c.time, TW_TIME_POSITIONAL);
    EXPECT_EQ(c.time_dim, 4 * 224);
    EXPECT_EQ(c.freq_shift, 0.0);
    EXPECT_TRUE(c.flip);
    ASSERT_EQ(c.levels, 4);
    const int64_t channels[] = {224, 448, 672, 896};
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(c.channels[i], channels[i]);
        EXPECT_EQ(c.down[i], i == 0 ? TW_UNET_PLAIN : TW_UNET_ATTENTION);
        EXPECT_EQ(c.up[i], i == 3 ? TW_UNET_PLAIN : TW_UNET_ATTENTION);
    }
    EXPECT_EQ(c.layers, 2);
    EXPECT_TRUE(c.mid);
    EXPECT_TRUE(c.mid_attention);
    EXPECT_EQ(c.mid_scale, 1.0);
    EXPECT_EQ(c.downsample_padding, 1);
    EXPECT_FALSE(c.down_resnet);
    EXPECT_FALSE(c.up_resnet);
    EXPECT_EQ(c.dropout, 0.0);
    EXPECT_EQ(c.act, TW_SILU);
    EXPECT_EQ(c.head_dim, 8);
    EXPECT_EQ(c.groups, 32);
    EXPECT_EQ(c.mid_attention_groups, 32);
    EXPECT_EQ(c.eps, 1e-5);
    EXPECT_FALSE(c.scale_shift);
    EXPECT_EQ(c.class_kind, TW_CLASS_NONE);
}

TEST(UnetConfig, NullAndAbsentHeadsDiffer) {
    EXPECT_EQ(Parse(Config("{}")).config.head_dim, 8);
    EXPECT_EQ(Parse(Config(R"({"attention_head_dim": null})")).config.head_dim, 0);
    EXPECT_EQ(Parse(Config(R"({"attention_head_dim": 4})")).config.head_dim, 4);
}

TEST(UnetConfig, MiddleNormFollowsScaleShift) {
    EXPECT_EQ(Parse(Config("{}")).config.mid_attention_groups, 4);
    EXPECT_EQ(
        Parse(Config(R"({"resnet_time_scale_shift": "scale_shift"})")).config.mid_attention_groups,
        0);
    EXPECT_EQ(Parse(Config(R"({"resnet_time_scale_shift": "scale_shift",
                               "attn_norm_num_groups": 2})"))
                  .config.mid_attention_groups,
              2);
}

TEST(UnetConfig, ReadsOldPrefixesSizesAndUnknownKeys) {
    const Parsed p = Parse(Config(R"({"down_block_types": ["UNetResDownBlock2D",
        "UNetResAttnDownBlock2D"], "sample_size": [4, 6], "decay": 0.999, "act_fn": "SWISH",
        "mid_block_type": null, "class_embed_type": null, "num_class_embeds": 3,
        "time_embedding_dim": 20})"));
    ASSERT_EQ(p.status, TW_OK) << p.error;
    EXPECT_EQ(p.config.down[0], TW_UNET_PLAIN);
    EXPECT_EQ(p.config.down[1], TW_UNET_ATTENTION);
    EXPECT_EQ(p.config.height, 4);
    EXPECT_EQ(p.config.width, 6);
    EXPECT_FALSE(p.config.mid);
    EXPECT_EQ(p.config.class_kind, TW_CLASS_TABLE);
    EXPECT_EQ(p.config.classes, 3);
    EXPECT_EQ(p.config.time_dim, 20);
}

struct Refusal {
    const char *changes;
    tw_status status;
    const char *says; // all of it, or its beginning
};

class UnetRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(UnetRefusal, IsOneClearLine) {
    const Refusal &r = GetParam();
    const Parsed p = Parse(Config(r.changes));
    EXPECT_EQ(p.status, r.status) << r.changes;
    EXPECT_EQ(p.error.substr(0, std::string(r.says).size()), r.says);
    EXPECT_EQ(p.error.find('\n'), std::string::npos);
}

const Refusal kRefusals[] = {
    {R"({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]})", TW_ERROR_UNSUPPORTED,
     "config.json: down_block_types[1]: \"CrossAttnDownBlock2D\" is not supported; expected "
     "\"DownBlock2D\", \"AttnDownBlock2D\" or \"ResnetDownsampleBlock2D\""},
    {R"({"up_block_types": ["SkipUpBlock2D", "UpBlock2D"]})", TW_ERROR_UNSUPPORTED,
     "config.json: up_block_types[0]: \"SkipUpBlock2D\" is not supported; expected"},
    {R"({"up_block_types": ["DownBlock2D", "UpBlock2D"]})", TW_ERROR_UNSUPPORTED,
     "config.json: up_block_types[0]: \"DownBlock2D\" is not supported"},
    {R"({"up_block_types": ["UpBlock2D"]})", TW_ERROR_FORMAT,
     "config.json: block_out_channels, down_block_types and up_block_types have 2, 2 and 1"},
    {R"({"block_out_channels": []})", TW_ERROR_FORMAT,
     "config.json: block_out_channels, down_block_types and up_block_types have 0, 2 and 2"},
    {R"({"block_out_channels": [8, 0]})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"block_out_channels": [8, 1000000]})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"block_out_channels": [8, 18]})", TW_ERROR_FORMAT,
     "config.json: block_out_channels[1]: 18 channels do not divide into norm_num_groups = 4"},
    {R"({"block_channels": [8, 16]})", TW_ERROR_UNSUPPORTED,
     "config.json: \"block_channels\" is a name of 2022's files, today \"block_out_channels\""},
    {R"({"num_head_channels": null})", TW_ERROR_UNSUPPORTED,
     "config.json: \"num_head_channels\" is a name of 2022's files"},
    {R"({"image_size": 8})", TW_ERROR_UNSUPPORTED, "config.json: \"image_size\" is a name of"},
    {R"({"sample_size": null})", TW_ERROR_UNSUPPORTED, "config.json: sample_size: missing or null"},
    {R"({"sample_size": 9})", TW_ERROR_FORMAT,
     "config.json: sample_size: 9 x 9 cannot be halved 1 times; expected multiples of 2"},
    {R"({"sample_size": [8]})", TW_ERROR_FORMAT, "config.json: sample_size: expected a number or"},
    {R"({"sample_size": -8})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"layers_per_block": 65})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"layers_per_block": 0})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"layers_per_block": "2"})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"act_fn": "mish"})", TW_ERROR_UNSUPPORTED,
     "config.json: act_fn: \"mish\" is not supported; expected \"silu\", \"swish\", \"relu\" or "
     "\"gelu\""},
    {R"({"downsample_padding": 2})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"downsample_type": "kernel"})", TW_ERROR_UNSUPPORTED,
     "config.json: downsample_type: \"kernel\" is not supported; expected \"conv\" or \"resnet\""},
    {R"({"resnet_time_scale_shift": "ada_group"})", TW_ERROR_UNSUPPORTED,
     "config.json: resnet_time_scale_shift: \"ada_group\" is not supported"},
    {R"({"mid_block_type": "UNetMidBlock2DCrossAttn"})", TW_ERROR_UNSUPPORTED,
     "config.json: mid_block_type: \"UNetMidBlock2DCrossAttn\" is not supported; expected "
     "\"UNetMidBlock2D\""},
    {R"({"norm_num_groups": null})", TW_ERROR_FORMAT, "config.json: "},
    {R"({"attn_norm_num_groups": 5})", TW_ERROR_FORMAT,
     "config.json: attn_norm_num_groups: 16 channels do not divide into 5 groups"},
    {R"({"attention_head_dim": 17})", TW_ERROR_FORMAT,
     "config.json: attention_head_dim: 17 is more than the 16 channels of block_out_channels[1]"},
    {R"({"norm_eps": 0})", TW_ERROR_FORMAT, "config.json: norm_eps: expected a number above 0"},
    {R"({"mid_block_scale_factor": 0})", TW_ERROR_FORMAT, "config.json: mid_block_scale_factor"},
    {R"({"dropout": 1})", TW_ERROR_FORMAT, "config.json: dropout: expected a number from 0 to"},
    {R"({"time_embedding_type": "sine"})", TW_ERROR_UNSUPPORTED,
     "config.json: time_embedding_type: \"sine\" is not supported; expected \"positional\", "
     "\"fourier\" or \"learned\""},
    {R"({"time_embedding_type": "learned"})", TW_ERROR_FORMAT,
     "config.json: num_train_timesteps: time_embedding_type \"learned\" needs it"},
    {R"({"freq_shift": 4})", TW_ERROR_FORMAT, "config.json: freq_shift: 4 leaves no frequency"},
    {R"({"class_embed_type": "projection"})", TW_ERROR_UNSUPPORTED,
     "config.json: class_embed_type: \"projection\" is not supported"},
};

INSTANTIATE_TEST_SUITE_P(Configs, UnetRefusal, testing::ValuesIn(kRefusals));

// --- The network ---

void Create(network::Model *m, const std::string &config, uint64_t seed) {
    NET_OK(m->ctx, tw_model_create(m->ctx, config.c_str(), nullptr, nullptr, 0, seed, &m->model));
}

std::string Blocks(const char *attention_at, int levels, bool up) {
    std::string list = "[";
    for (int i = 0; i < levels; i++)
        list += std::string(i ? ", " : "") + (attention_at[i] == 'a' ? "\"Attn" : "\"") +
                (up ? "UpBlock2D\"" : "DownBlock2D\"");
    return list + "]";
}

TEST(Unet, CountsOfTheKnownCheckpoints) {
    network::Model cifar, church;
    Create(&cifar,
           R"({"_class_name": "UNet2DModel", "sample_size": 32,
        "block_out_channels": [128, 256, 256, 256], "attention_head_dim": null,
        "down_block_types": )" +
               Blocks("papp", 4, false) + R"(,
        "up_block_types": )" +
               Blocks("ppap", 4, true) + "}",
           1);
    EXPECT_EQ(cifar.Info().parameters, 35746307);
    EXPECT_EQ(cifar.Info().tensors, 328);
    Create(&church,
           R"({"_class_name": "UNet2DModel", "sample_size": 256,
        "block_out_channels": [128, 128, 256, 256, 512, 512], "attention_head_dim": null,
        "down_block_types": )" +
               Blocks("ppppap", 6, false) + R"(,
        "up_block_types": )" +
               Blocks("papppp", 6, true) + "}",
           1);
    EXPECT_EQ(church.Info().parameters, 113673219);
    EXPECT_EQ(church.Info().tensors, 450);
}

TEST(Unet, FreshWeightsAreZeroWhereTheReferenceHasZeros) {
    network::Model m;
    Create(&m, Config(R"({"num_class_embeds": 4})"), 5);
    for (int64_t i = 0; i < m.model->weights.count; i++) {
        const tw_weight &w = m.model->weights.items[i];
        const std::string name = w.name;
        std::vector<float> value(static_cast<size_t>(w.count), NAN);
        NET_OK(m.ctx, tw_model_get_weight(m.model, w.name, value.data(), w.count));
        double low = INFINITY, high = -INFINITY;
        for (float v : value) {
            low = std::min(low, static_cast<double>(v));
            high = std::max(high, static_cast<double>(v));
        }
        const auto has = [&](const char *part) { return name.find(part) != std::string::npos; };
        const bool bias = has(".bias");
        if (has("norm")) {
            EXPECT_EQ(low, bias ? 0.0 : 1.0) << name;
            EXPECT_EQ(high, bias ? 0.0 : 1.0) << name;
        } else if (has(".conv2.") || has("to_out.0") || has("conv_out")) {
            EXPECT_EQ(low, 0.0) << name;
            EXPECT_EQ(high, 0.0) << name;
        } else if (name != "class_embedding.weight") {
            const double bound = 1.0 / std::sqrt(static_cast<double>(w.fan_in));
            EXPECT_LE(high, bound) << name;
            EXPECT_GE(low, -bound) << name;
            if (w.count >= 64) { // few numbers may lie close together
                EXPECT_GT(high, 0.4 * bound) << name;
                EXPECT_LT(low, -0.4 * bound) << name;
            }
            if (!bias) {
                EXPECT_EQ(w.fan_in, w.count / w.shape[0]) << name;
            }
        }
    }
}

TEST(Unet, LabelsWhereTheyBelong) {
    network::Model plain, classes;
    Create(&plain, Config("{}"), 1);
    Create(&classes, Config(R"({"num_class_embeds": 4})"), 1);
    EXPECT_EQ(plain.Info().classes, 0);
    EXPECT_EQ(classes.Info().classes, 4);
    std::vector<float> x(8 * 8 * 3), out(8 * 8 * 3);
    const float t = 3;
    const int32_t good = 3, bad = 4;
    EXPECT_EQ(tw_model_forward(plain.model, 1, x.data(), &t, &good, out.data()), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(plain.ctx), "forward: labels: the model takes none");
    EXPECT_EQ(tw_model_forward(classes.model, 1, x.data(), &t, nullptr, out.data()),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_model_forward(classes.model, 1, x.data(), &t, &bad, out.data()),
              TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(classes.ctx), "forward: labels[0]: expected 0 to 3, got 4");
    EXPECT_EQ(tw_model_forward(classes.model, 1, x.data(), &t, &good, out.data()), TW_OK);
}

// Every kind of weight, by central differences in double.
void CheckDerivatives(const std::string &config, bool labels) {
    network::Model m(1); // a network too small for two threads
    ASSERT_NO_FATAL_FAILURE(Create(&m, config, 1));
    const tw_model_info info = m.Info();
    const int64_t n = 2, pixels = info.shape[0] * info.shape[1];
    const uint32_t seed = 20261122;
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto draw = [&](int64_t count) {
        std::vector<float> out(static_cast<size_t>(count));
        for (float &v : out) v = normal(random);
        return out;
    };
    network::Labels given;
    if (labels) given.whole = {1, 3};
    network::Run<double> run(&m, n);
    ASSERT_NO_FATAL_FAILURE(run.Prepare(given));
    const auto x = draw(n * pixels * info.shape[2]), target = draw(n * pixels * info.out_channels);
    const std::vector<double> t = {12.0, 730.0};
    std::vector<double> weights = run.Weights();
    const tw_weights &all = m.model->weights;
    for (int64_t i = 0; i < all.count; i++) // nothing may be zero, or derivatives vanish
        for (int64_t k = 0; k < all.items[i].count; k++)
            weights[static_cast<size_t>(all.items[i].offset + k)] +=
                0.2 * static_cast<double>(normal(random));
    ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
    const std::vector<double> slope = run.Gradients();
    double norm = 0;
    for (double g : slope) norm += g * g;
    norm = std::sqrt(norm);
    ASSERT_GT(norm, 0.0);
    for (int64_t i = 0; i < all.count; i++) {
        const tw_weight &w = all.items[i];
        if (!w.trainable) continue;
        const size_t at = static_cast<size_t>(
            w.offset + static_cast<int64_t>(random() % static_cast<uint64_t>(w.count)));
        const double kept = weights[at], h = 1e-5;
        weights[at] = kept + h;
        ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
        const double above = run.Loss();
        weights[at] = kept - h;
        ASSERT_NO_FATAL_FAILURE(run.Execute(weights, x, t, target));
        const double below = run.Loss();
        weights[at] = kept;
        EXPECT_NEAR((above - below) / (2 * h), slope[at], 1e-6 * std::abs(slope[at]) + 1e-8 * norm)
            << w.name;
    }
}

TEST(Unet, DerivativesOfTheDefaultKind) {
    CheckDerivatives(Config(R"({"sample_size": 4, "num_class_embeds": 4,
        "downsample_padding": 0})"),
                     true);
}

TEST(Unet, DerivativesWithScaleShiftAndResnetResampling) {
    CheckDerivatives(Config(R"({"sample_size": 4, "resnet_time_scale_shift": "scale_shift",
        "downsample_type": "resnet", "upsample_type": "resnet", "act_fn": "gelu",
        "down_block_types": ["AttnDownBlock2D", "ResnetDownsampleBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D"],
        "mid_block_scale_factor": 1.4, "center_input_sample": true, "attn_norm_num_groups": 2,
        "time_embedding_type": "fourier", "class_embed_type": "timestep"})"),
                     true);
}

TEST(Unet, DropoutNeedsAnRng) {
    network::Model m;
    Create(&m, Config(R"({"dropout": 0.5})"), 1);
    for (const char *name : {"down_blocks.0.resnets.0.conv2.weight", "conv_out.weight"}) {
        const int64_t at = tw_weights_find(&m.model->weights, name);
        std::vector<float> value(static_cast<size_t>(m.model->weights.items[at].count), 0.05f);
        NET_OK(m.ctx, tw_model_set_weight(m.model, name, value.data(),
                                          static_cast<int64_t>(value.size())));
    }
    const int64_t n = 1, shape[] = {1, 8, 8, 3}, four = 4;
    std::vector<float> x(8 * 8 * 3, 0.5f), out[3];
    const float t = 100;
    for (int k = 0; k < 3; k++) { // without, with, with at another step
        tw_plan *plan = nullptr;
        NET_OK(m.ctx, tw_plan_create(m.ctx, nullptr, &plan));
        tw_network_inputs in = {tw_plan_input(plan, "x", TW_F32, 4, shape),
                                tw_plan_input(plan, "t", TW_F32, 1, &n), TW_NONE, TW_NONE};
        if (k) in.rng = tw_plan_state(plan, "rng", TW_I64, 1, &four);
        tw_network network;
        NET_OK(m.ctx, tw_model_build(m.model, plan, &in, &network));
        tw_plan_keep(plan, network.out);
        NET_OK(m.ctx, tw_model_bind(m.model, plan, &network, m.model->storage, nullptr, nullptr));
        NET_OK(m.ctx, tw_plan_compile(plan));
        const int64_t rng[] = {9, 0, k, 0};
        if (k) {
            NET_OK(m.ctx, tw_plan_write(plan, in.rng, rng, sizeof rng));
        }
        NET_OK(m.ctx, tw_plan_write(plan, in.x, x.data(), x.size() * sizeof(float)));
        NET_OK(m.ctx, tw_plan_write(plan, in.t, &t, sizeof t));
        NET_OK(m.ctx, tw_plan_run(plan));
        out[k].assign(x.size(), NAN);
        NET_OK(m.ctx, tw_plan_read(plan, network.out, out[k].data(), x.size() * sizeof(float)));
        tw_free(m.ctx, network.parameters);
        tw_plan_free(plan);
    }
    std::vector<float> plain(x.size(), NAN);
    NET_OK(m.ctx, tw_model_forward(m.model, 1, x.data(), &t, nullptr, plain.data()));
    EXPECT_EQ(plain, out[0]);
    EXPECT_NE(out[0], out[1]);
    EXPECT_NE(out[1], out[2]);
}

} // namespace
