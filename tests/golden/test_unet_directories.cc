// Model directories as diffusers writes them: read, evaluated, written and read again.
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "support/golden.h"
#include "support/network.h"

namespace {

namespace fs = std::filesystem;

std::vector<float> Forward(const network::Model &m, const json_t *expected) {
    const tw_model_info info = m.Info();
    const int64_t n = 2, count = info.shape[0] * info.shape[1] * info.shape[2];
    std::vector<float> x = golden::Batch(n, count, golden::kInput), t, out(x.size(), NAN);
    std::vector<int32_t> labels;
    const json_t *times = golden::At(expected, "timesteps");
    const json_t *classes = golden::At(expected, "class_labels");
    for (size_t i = 0; i < json_array_size(times); i++)
        t.push_back(static_cast<float>(json_number_value(json_array_get(times, i))));
    for (size_t i = 0; json_is_array(classes) && i < json_array_size(classes); i++)
        labels.push_back(static_cast<int32_t>(json_integer_value(json_array_get(classes, i))));
    EXPECT_EQ(tw_model_forward(m.model, n, x.data(), t.data(),
                               labels.empty() ? nullptr : labels.data(), out.data()),
              TW_OK)
        << tw_context_error(m.ctx);
    return out;
}

void Check(const network::Model &m, const json_t *expected) {
    const auto out = Forward(m, expected);
    const golden::Difference d = golden::Compare(out, golden::At(expected, "output"));
    EXPECT_LE(d.entry, 1e-5 * d.rms) << "output[" << d.at << "]";
    EXPECT_LE(d.norm, 1e-5 * d.golden_norm);
}

class Directory : public testing::TestWithParam<const char *> {
  protected:
    void SetUp() override { root_ = golden::Load(std::string(GetParam()) + ".json"); }
    golden::Json root_{nullptr, json_decref};
};

TEST_P(Directory, GivesDiffusersOutput) {
    network::Model m;
    NET_OK(m.ctx, tw_model_load(m.ctx, golden::Path(GetParam()).c_str(), nullptr, &m.model));
    Check(m, golden::At(root_.get(), "expected"));
}

TEST_P(Directory, ComesBackToTheBit) {
    network::Model m, again;
    const fs::path to = fs::path(testing::TempDir()) / (std::string("tw_") + GetParam());
    fs::remove_all(to);
    NET_OK(m.ctx, tw_model_load(m.ctx, golden::Path(GetParam()).c_str(), nullptr, &m.model));
    NET_OK(m.ctx, tw_model_save(m.model, to.c_str()));
    for (const char *file :
         {"model_index.json", "unet/config.json", "scheduler/scheduler_config.json",
          "unet/diffusion_pytorch_model.safetensors"})
        EXPECT_TRUE(fs::is_regular_file(to / file)) << file;
    NET_OK(again.ctx, tw_model_load(again.ctx, to.c_str(), nullptr, &again.model));
    const tw_model_info a = m.Info(), b = again.Info();
    EXPECT_EQ(a.parameters, b.parameters);
    EXPECT_EQ(a.prediction, b.prediction);
    EXPECT_EQ(a.training_steps, b.training_steps);
    EXPECT_STREQ(tw_model_scheduler_config(m.model), tw_model_scheduler_config(again.model));
    for (int64_t i = 0; i < m.model->weights.count; i++) {
        const tw_weight &w = m.model->weights.items[i];
        std::vector<float> was(static_cast<size_t>(w.count)), is(was.size(), NAN);
        NET_OK(m.ctx, tw_model_get_weight(m.model, w.name, was.data(), w.count));
        NET_OK(again.ctx, tw_model_get_weight(again.model, w.name, is.data(), w.count));
        EXPECT_EQ(memcmp(was.data(), is.data(), was.size() * sizeof(float)), 0) << w.name;
    }
    const json_t *expected = golden::At(root_.get(), "expected");
    EXPECT_EQ(Forward(m, expected), Forward(again, expected));
    fs::remove_all(to);
}

INSTANTIATE_TEST_SUITE_P(Tiny, Directory,
                         testing::Values("tiny_ddpm", "tiny_flat", "tiny_bf16", "tiny_sharded",
                                         "tiny_legacy"),
                         [](const auto &i) { return std::string(i.param); });

TEST(Directories, VariantIsAnotherFile) {
    network::Model m;
    NET_OK(m.ctx, tw_model_load(m.ctx, golden::Path("tiny_ddpm").c_str(), "fp16", &m.model));
    const golden::Json root = golden::Load("tiny_ddpm.json");
    Check(m, golden::At(root.get(), "expected_fp16"));
    network::Model none;
    EXPECT_EQ(tw_model_load(none.ctx, golden::Path("tiny_ddpm").c_str(), "ema", &none.model),
              TW_ERROR_IO);
    EXPECT_EQ(none.model, nullptr);
    const std::string error = tw_context_error(none.ctx);
    EXPECT_NE(error.find("diffusion_pytorch_model.ema.safetensors: no such file"),
              std::string::npos)
        << error;
}

} // namespace
