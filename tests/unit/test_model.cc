// Models as handles, and model directories that are not what they should be.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "support/network.h"

extern "C" {
#include "io/safetensors.h"
}

namespace {

namespace fs = std::filesystem;

const char *const kUnet = R"({"_class_name": "UNet2DModel", "sample_size": 4,
    "block_out_channels": [8], "down_block_types": ["AttnDownBlock2D"],
    "up_block_types": ["UpBlock2D"], "norm_num_groups": 4, "layers_per_block": 1,
    "add_attention": false})";
const char *const kMlp = R"({"_class_name": "TweedieMLP", "hidden": 8})";

const float kZeros[64] = {};

// A saved model in a directory of its own.
class Saved : public testing::Test {
  protected:
    void SetUp() override {
        const auto *info = testing::UnitTest::GetInstance()->current_test_info();
        dir_ = fs::path(testing::TempDir()) / (std::string("tw_model_") + info->name());
        fs::remove_all(dir_);
        NET_OK(m_.ctx, tw_model_create(m_.ctx, kUnet, nullptr, nullptr, 0, 3, &m_.model));
        NET_OK(m_.ctx, tw_model_save(m_.model, dir_.c_str()));
    }
    void TearDown() override { fs::remove_all(dir_); }

    // The line of a load that must fail.
    std::string Refused(tw_status status, const char *variant = nullptr) {
        tw_model *model = nullptr;
        EXPECT_EQ(tw_model_load(m_.ctx, dir_.c_str(), variant, &model), status);
        EXPECT_EQ(model, nullptr);
        tw_model_free(model);
        const std::string error = tw_context_error(m_.ctx);
        EXPECT_EQ(error.find('\n'), std::string::npos) << error;
        return error;
    }
    void Expect(const std::string &error, const std::string &part) {
        EXPECT_NE(error.find(part), std::string::npos) << error;
    }

    // Writes the weights again after `change` has been at their list.
    template <class Change> void Rewrite(const Change &change, const fs::path &to) {
        tw_safetensors *st = nullptr;
        NET_OK(m_.ctx, tw_safetensors_open(m_.ctx, weights().c_str(), &st));
        std::vector<tw_safetensors_item> items;
        for (int64_t i = 0; i < tw_safetensors_count(st); i++) {
            const tw_safetensors_entry *e = tw_safetensors_entry_at(st, i);
            tw_safetensors_item item = {e->name, e->dtype, e->rank, {}, e->data};
            std::copy(e->shape, e->shape + e->rank, item.shape);
            items.push_back(item);
        }
        change(items);
        const fs::path beside = dir_ / "new.safetensors";
        const tw_status s =
            tw_safetensors_write(m_.ctx, beside.c_str(), items.data(),
                                 static_cast<int64_t>(items.size()), nullptr, 0, nullptr, nullptr);
        tw_safetensors_close(st);
        ASSERT_EQ(s, TW_OK) << tw_context_error(m_.ctx);
        fs::rename(beside, to);
    }
    static tw_safetensors_item *Find(std::vector<tw_safetensors_item> &items, const char *name) {
        for (auto &item : items)
            if (std::string(item.name) == name) return &item;
        ADD_FAILURE() << name;
        return &items[0];
    }
    fs::path weights() const { return dir_ / "unet/diffusion_pytorch_model.safetensors"; }
    void Write(const fs::path &file, const std::string &text) { std::ofstream(file) << text; }

    fs::path dir_;
    network::Model m_;
};

TEST_F(Saved, NoDirectory) {
    fs::remove_all(dir_);
    EXPECT_EQ(Refused(TW_ERROR_IO), dir_.string() + ": no such directory");
}

TEST_F(Saved, NoConfig) {
    fs::remove(dir_ / "unet/config.json");
    Expect(Refused(TW_ERROR_IO), "unet/config.json: ");
}

TEST_F(Saved, BrokenConfig) {
    Write(dir_ / "unet/config.json", "{\"_class_name\": ");
    Expect(Refused(TW_ERROR_FORMAT), "unet/config.json: line 1: not JSON");
}

TEST_F(Saved, UnsupportedConfigNamesItsFile) {
    Write(dir_ / "unet/config.json",
          R"({"_class_name": "UNet2DModel", "sample_size": 8, "act_fn": "elu"})");
    Expect(Refused(TW_ERROR_UNSUPPORTED), "unet/config.json: act_fn: \"elu\" is not supported");
}

TEST_F(Saved, NoWeights) {
    fs::remove(weights());
    EXPECT_EQ(Refused(TW_ERROR_IO), weights().string() + ": no such file, and no shards of it");
}

TEST_F(Saved, PickleIsNotRead) {
    fs::rename(weights(), dir_ / "unet/diffusion_pytorch_model.bin");
    const std::string error = Refused(TW_ERROR_UNSUPPORTED);
    Expect(error, "diffusion_pytorch_model.bin: a pickle file");
    Expect(error, "save_pretrained");
}

TEST_F(Saved, TruncatedWeights) {
    fs::resize_file(weights(), fs::file_size(weights()) - 1);
    Expect(Refused(TW_ERROR_FORMAT), "diffusion_pytorch_model.safetensors: ");
}

TEST_F(Saved, MissingTensorIsNamed) {
    Rewrite([](auto &items) { items.erase(items.begin() + 2); }, weights());
    Expect(Refused(TW_ERROR_FORMAT), " is missing (1 of ");
}

TEST_F(Saved, UnexpectedTensorIsNamed) {
    Rewrite(
        [](auto &items) {
            items.push_back({"conv_extra.bias", TW_F32, 1, {2}, kZeros});
        },
        weights());
    Expect(Refused(TW_ERROR_FORMAT), "conv_extra.bias is none of the config's (1 such)");
}

TEST_F(Saved, RenamedTensorIsBoth) {
    Rewrite([](auto &items) { Find(items, "conv_in.bias")->name = "conv_inn.bias"; }, weights());
    const std::string error = Refused(TW_ERROR_FORMAT);
    Expect(error, "conv_in.bias is missing (1 of");
    Expect(error, "; conv_inn.bias is none of the config's");
}

TEST_F(Saved, WrongShapeSaysBoth) {
    Rewrite(
        [](auto &items) {
            std::swap(Find(items, "conv_in.weight")->shape[0],
                      Find(items, "conv_in.weight")->shape[1]);
        },
        weights());
    Expect(Refused(TW_ERROR_FORMAT),
           "conv_in.weight: the config asks for the shape [8,3,3,3], the file has [3,8,3,3]");
}

TEST_F(Saved, WrongRank) {
    Rewrite(
        [](auto &items) {
            tw_safetensors_item *item = Find(items, "conv_in.bias");
            item->rank = 2;
            item->shape[1] = 1;
        },
        weights());
    Expect(Refused(TW_ERROR_FORMAT),
           "conv_in.bias: the config asks for the shape [8], the file has [8,1]");
}

TEST_F(Saved, OldAttentionNamesInBothForms) {
    Rewrite(
        [](auto &items) {
            const char *const names[][2] = {
                {"to_q", "query"}, {"to_k", "key"}, {"to_v", "value"}, {"to_out.0", "proj_attn"}};
            static std::vector<std::string> kept;
            kept.clear();
            kept.reserve(8);
            for (const auto &name : names)
                for (const char *part : {"weight", "bias"}) {
                    const std::string scope = "down_blocks.0.attentions.0.";
                    auto *item = Find(items, (scope + name[0] + "." + part).c_str());
                    kept.push_back(scope + name[1] + "." + part);
                    item->name = kept.back().c_str();
                    if (item->rank == 2) { // a 1x1 convolution
                        item->rank = 4;
                        item->shape[2] = item->shape[3] = 1;
                    }
                }
        },
        weights());
    tw_model *model = nullptr;
    NET_OK(m_.ctx, tw_model_load(m_.ctx, dir_.c_str(), nullptr, &model));
    for (const char *name :
         {"down_blocks.0.attentions.0.to_q.weight", "down_blocks.0.attentions.0.to_v.bias"}) {
        std::vector<float> a(64, 1), b(64, 2);
        const int64_t count = std::string(name).find("bias") == std::string::npos ? 64 : 8;
        EXPECT_EQ(tw_model_get_weight(m_.model, name, a.data(), count), TW_OK);
        EXPECT_EQ(tw_model_get_weight(model, name, b.data(), count), TW_OK);
        EXPECT_TRUE(std::equal(a.begin(), a.begin() + count, b.begin())) << name;
    }
    tw_model_free(model);
}

TEST_F(Saved, OldAndNewNameOfOneTensor) {
    Rewrite(
        [](auto &items) {
            items.push_back({"down_blocks.0.attentions.0.query.weight", TW_F32, 2, {8, 8}, kZeros});
        },
        weights());
    Expect(Refused(TW_ERROR_FORMAT), "down_blocks.0.attentions.0.to_q.weight: there are two of it");
}

TEST_F(Saved, ShardIndexIsChecked) {
    fs::remove(weights());
    const fs::path index = dir_ / "unet/diffusion_pytorch_model.safetensors.index.json";
    Write(index, R"({"metadata": {}})");
    Expect(Refused(TW_ERROR_FORMAT), "index.json: \"weight_map\" is missing");
    Write(index, R"({"weight_map": {"conv_in.bias": 3}})");
    Expect(Refused(TW_ERROR_FORMAT), "weight_map: conv_in.bias: expected a file name");
    Write(index, R"({"weight_map": {"conv_in.bias": "../../x.safetensors"}})");
    Expect(Refused(TW_ERROR_FORMAT),
           "weight_map: expected file names, got \"../../x.safetensors\"");
    Write(index, R"({"weight_map": {"conv_in.bias": "none.safetensors"}})");
    Expect(Refused(TW_ERROR_IO), "none.safetensors: ");
    Write(index, R"({"weight_map": {}})");
    Expect(Refused(TW_ERROR_FORMAT), " is missing (");
}

TEST_F(Saved, BadScheduler) {
    Write(dir_ / "scheduler/scheduler_config.json",
          R"({"_class_name": "DDPMScheduler", "beta_schedule": "wavy"})");
    Expect(Refused(TW_ERROR_UNSUPPORTED), "scheduler/scheduler_config.json: ");
}

TEST_F(Saved, NoSchedulerIsDdpmsWithAWarning) {
    static std::string heard;
    heard.clear();
    fs::remove_all(dir_ / "scheduler");
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    options.log = [](void *, tw_log_level level, const char *text) {
        if (level == TW_LOG_WARNING) heard += text;
    };
    tw_context *ctx = nullptr;
    ASSERT_EQ(tw_context_create(&options, &ctx), TW_OK);
    tw_model *model = nullptr;
    EXPECT_EQ(tw_model_load(ctx, dir_.c_str(), nullptr, &model), TW_OK) << tw_context_error(ctx);
    EXPECT_NE(heard.find("scheduler_config.json: no such file"), std::string::npos) << heard;
    EXPECT_EQ(tw_schedule_steps(tw_model_schedule(model)), 1000);
    tw_model_free(model);
    tw_context_free(ctx);
}

TEST_F(Saved, VariantIsAWord) {
    Expect(Refused(TW_ERROR_ARGUMENT, "../x"), "variant: expected a word");
    Expect(Refused(TW_ERROR_ARGUMENT, ""), "variant: expected a word");
}

TEST_F(Saved, SavingOverItUpdatesIt) {
    const std::vector<float> bias(8, 0.25f);
    NET_OK(m_.ctx, tw_model_set_weight(m_.model, "conv_in.bias", bias.data(), 8));
    NET_OK(m_.ctx, tw_model_save(m_.model, dir_.c_str()));
    tw_model *model = nullptr;
    NET_OK(m_.ctx, tw_model_load(m_.ctx, dir_.c_str(), nullptr, &model));
    std::vector<float> got(8, NAN);
    EXPECT_EQ(tw_model_get_weight(model, "conv_in.bias", got.data(), 8), TW_OK);
    EXPECT_EQ(got, bias);
    tw_model_free(model);
    for (const auto &entry : fs::recursive_directory_iterator(dir_)) // nothing half-written
        EXPECT_TRUE(entry.is_directory() || entry.path().extension() == ".json" ||
                    entry.path() == weights())
            << entry.path();
}

TEST_F(Saved, CannotBeSavedIntoAFile) {
    const fs::path file = dir_ / "file";
    Write(file, "x");
    EXPECT_EQ(tw_model_save(m_.model, file.c_str()), TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(m_.ctx)).find(file.string()), std::string::npos);
}

TEST_F(Saved, FromMemoryIsTheSame) {
    std::ifstream in(weights(), std::ios::binary);
    std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    tw_model *model = nullptr;
    NET_OK(m_.ctx, tw_model_create(m_.ctx, kUnet, nullptr, bytes.data(), bytes.size(), 0, &model));
    bytes.assign(bytes.size(), '\xff'); // the buffer is the caller's again
    std::vector<float> a(8 * 27, 1), b(8 * 27, 2);
    EXPECT_EQ(tw_model_get_weight(m_.model, "conv_in.weight", a.data(), 8 * 27), TW_OK);
    EXPECT_EQ(tw_model_get_weight(model, "conv_in.weight", b.data(), 8 * 27), TW_OK);
    EXPECT_EQ(a, b);
    tw_model_free(model);
    EXPECT_EQ(tw_model_create(m_.ctx, kUnet, nullptr, "xx", 2, 0, &model), TW_ERROR_FORMAT);
    Expect(tw_context_error(m_.ctx), "the weights: ");
}

TEST(Model, HandlesAreCounted) {
    network::Model m;
    NET_OK(m.ctx, tw_model_create(m.ctx, kMlp, nullptr, nullptr, 0, 1, &m.model));
    tw_model_retain(m.model);
    tw_model_free(m.model);
    EXPECT_STREQ(m.Info().kind, "TweedieMLP");
    tw_model_free(nullptr);
}

TEST(Model, ForwardFollowsTheBatch) {
    network::Model m;
    NET_OK(m.ctx, tw_model_create(m.ctx, kMlp, nullptr, nullptr, 0, 1, &m.model));
    const float x[] = {1, 2, 3, 4, 5, 6}, t[] = {1, 10, 100};
    float all[6], one[2];
    NET_OK(m.ctx, tw_model_forward(m.model, 3, x, t, nullptr, all));
    for (int i = 0; i < 3; i++) {
        NET_OK(m.ctx, tw_model_forward(m.model, 1, x + 2 * i, t + i, nullptr, one));
        for (int k = 0; k < 2; k++) EXPECT_NEAR(one[k], all[2 * i + k], 1e-6);
    }
    const float w[2] = {9, 9}; // the kept plan sees new weights
    NET_OK(m.ctx, tw_model_set_weight(m.model, "output.bias", w, 2));
    NET_OK(m.ctx, tw_model_forward(m.model, 1, x, t, nullptr, one));
    EXPECT_GT(std::abs(one[0] - all[0]), 5.0f);
    EXPECT_EQ(tw_model_forward(m.model, 0, x, t, nullptr, one), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(m.ctx), "forward: n: expected 1 or more, got 0");
    EXPECT_EQ(tw_model_forward(m.model, 1, x, nullptr, nullptr, one), TW_ERROR_ARGUMENT);
}

TEST(Model, WeightsByName) {
    network::Model m;
    NET_OK(m.ctx, tw_model_create(m.ctx, kMlp, nullptr, nullptr, 0, 1, &m.model));
    float value[2] = {NAN, NAN};
    EXPECT_EQ(tw_model_get_weight(m.model, "output.bia", value, 2), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(m.ctx), "the model has no weight \"output.bia\"");
    EXPECT_EQ(tw_model_get_weight(m.model, "output.bias", value, 3), TW_ERROR_ARGUMENT);
    EXPECT_STREQ(tw_context_error(m.ctx), "weight output.bias: expected 2 numbers, got 3");
    EXPECT_EQ(tw_model_get_weight(m.model, "output.bias", value, 2), TW_OK);
    EXPECT_FALSE(std::isnan(value[0]));
}

TEST(Model, MissingArgumentsAreSaid) {
    network::Model m;
    EXPECT_EQ(tw_model_load(m.ctx, nullptr, nullptr, &m.model), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_model_load(m.ctx, "x", nullptr, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_model_create(m.ctx, nullptr, nullptr, nullptr, 0, 1, &m.model), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_model_forward(nullptr, 1, nullptr, nullptr, nullptr, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_model_save(nullptr, "x"), TW_ERROR_ARGUMENT);
}

} // namespace
