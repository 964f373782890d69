// The digit model that comes with the source: samples of twenty DDIM steps are the digits asked
// for. The judge is a small classifier (tests/digits) trained on digits that the model has not
// seen. It is computed here by plain loops: nothing of the engine takes part in the judgement.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <jansson.h>

extern "C" {
#include "io/safetensors.h"
}
#include <tweedie/tweedie.h>

namespace {

const char *const kDigits = TW_TEST_DIR "/../host/examples/digits/";

struct Layer {
    std::vector<float> weight, bias;
};

class Classifier {
  public:
    explicit Classifier(tw_context *ctx) {
        tw_safetensors *st = nullptr;
        EXPECT_EQ(tw_safetensors_open(ctx, TW_TEST_DIR "/digits/classifier.safetensors", &st),
                  TW_OK)
            << tw_context_error(ctx);
        if (!st) return;
        const char *names[] = {"conv1", "conv2", "conv3", "fc"};
        for (int i = 0; i < 4; i++) {
            layers[i].weight = read(st, names[i] + std::string(".weight"));
            layers[i].bias = read(st, names[i] + std::string(".bias"));
        }
        tw_safetensors_close(st);
    }

    // Ten logits of a 28x28 image in [-1, 1].
    std::vector<double> logits(const float *image) const {
        std::vector<double> x(image, image + 28 * 28);
        x = conv(x, 1, 28, layers[0], 16, 1);
        x = conv(x, 16, 28, layers[1], 32, 2);
        x = conv(x, 32, 14, layers[2], 64, 2);
        std::vector<double> y(10);
        for (size_t o = 0; o < y.size(); o++) {
            y[o] = layers[3].bias[o];
            for (size_t i = 0; i < x.size(); i++) y[o] += x[i] * layers[3].weight[o * x.size() + i];
        }
        return y;
    }
    int digit(const float *image) const {
        const std::vector<double> y = logits(image);
        return int(std::max_element(y.begin(), y.end()) - y.begin());
    }

  private:
    static std::vector<float> read(const tw_safetensors *st, const std::string &name) {
        const tw_safetensors_entry *entry = tw_safetensors_find(st, name.c_str());
        std::vector<float> values(entry ? size_t(entry->count) : 0);
        EXPECT_NE(entry, nullptr) << name;
        if (!entry) return values;
        EXPECT_EQ(tw_safetensors_read_f32(st, entry, values.data()), TW_OK);
        return values;
    }
    // 3x3, padding 1, then ReLU; x[channels][size][size].
    static std::vector<double> conv(const std::vector<double> &x, int channels, int size,
                                    const Layer &layer, int outputs, int stride) {
        const int side = size / stride;
        std::vector<double> y(size_t(outputs * side * side));
        for (int o = 0; o < outputs; o++)
            for (int r = 0; r < side; r++)
                for (int c = 0; c < side; c++) {
                    double sum = layer.bias[size_t(o)];
                    for (int i = 0; i < channels; i++)
                        for (int k = 0; k < 9; k++) {
                            const int row = r * stride + k / 3 - 1, column = c * stride + k % 3 - 1;
                            if (row < 0 || row >= size || column < 0 || column >= size) continue;
                            sum += x[size_t((i * size + row) * size + column)] *
                                   layer.weight[size_t((o * channels + i) * 9 + k)];
                        }
                    y[size_t((o * side + r) * side + c)] = std::max(sum, 0.0);
                }
        return y;
    }
    Layer layers[4];
};

class DigitsRecognised : public testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK); }
    void TearDown() override { tw_context_free(ctx); }
    tw_context *ctx = nullptr;
};

TEST_F(DigitsRecognised, JudgeIsWhatWasTrained) {
    const Classifier judge(ctx);
    json_t *golden = json_load_file(TW_TEST_DIR "/digits/classifier.json", 0, nullptr);
    ASSERT_NE(golden, nullptr);
    tw_dataset *data = nullptr;
    ASSERT_EQ(tw_dataset_open(ctx, (kDigits + std::string("t10k-images-idx3-ubyte.gz")).c_str(),
                              nullptr, &data),
              TW_OK)
        << tw_context_error(ctx);
    std::vector<float> image(28 * 28);
    int32_t label = -1;
    int right = 0;
    for (int64_t i = 9500; i < 10000; i++) {
        ASSERT_EQ(tw_dataset_get(data, i, image.data(), &label), TW_OK);
        right += judge.digit(image.data()) == label;
        if (i >= 9508) continue;
        const std::vector<double> y = judge.logits(image.data());
        json_t *first =
            json_array_get(json_object_get(golden, "logits_of_first"), size_t(i - 9500));
        for (size_t k = 0; k < 10; k++)
            EXPECT_NEAR(y[k], json_real_value(json_array_get(first, k)), 1e-3);
    }
    std::printf("the judge names %d of 500 held-out digits\n", right);
    EXPECT_EQ(right, json_integer_value(json_object_get(golden, "held_out_right")));
    EXPECT_GE(right, 485);
    tw_dataset_free(data);
    json_decref(golden);
}

TEST_F(DigitsRecognised, SamplesAreTheDigitsAskedFor) {
    const int64_t n = 100;
    const Classifier judge(ctx);
    tw_model *model = nullptr;
    tw_sampler *sampler = nullptr;
    ASSERT_EQ(tw_model_load(ctx, (kDigits + std::string("model")).c_str(), nullptr, &model), TW_OK)
        << tw_context_error(ctx);
    tw_sampler_options o = TW_SAMPLER_OPTIONS_INIT;
    o.steps = 20;
    o.guidance = 2;
    o.rederive_epsilon = 1; /* x0 is clipped, and guidance reaches far */
    o.seed = 20261122;
    ASSERT_EQ(tw_sampler_create(model, &o, &sampler), TW_OK) << tw_context_error(ctx);
    std::vector<int32_t> labels(n);
    for (size_t i = 0; i < labels.size(); i++) labels[i] = int32_t(i % 10);
    std::vector<float> images(size_t(n) * 28 * 28, NAN);
    ASSERT_EQ(tw_sampler_run(sampler, n, labels.data(), nullptr, images.data()), TW_OK)
        << tw_context_error(ctx);
    int right = 0;
    for (size_t i = 0; i < labels.size(); i++)
        right += judge.digit(images.data() + i * 28 * 28) == labels[i];
    std::printf("%d of %d samples are the digit asked for\n", right, int(n));
    EXPECT_GE(right, 95);
    tw_sampler_free(sampler);
    tw_model_free(model);
}

} // namespace
