// Names, places and layouts of weights, and what a fresh one is.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

extern "C" {
#include "core/context.h"
#include "core/philox.h"
#include "models/weights.h"
}

namespace {

tw_weight Like(const char *name, std::vector<int64_t> shape, tw_init init = TW_INIT_UNIFORM,
               int64_t fan_in = 1, bool trainable = true) {
    tw_weight w = {};
    w.name = const_cast<char *>(name);
    w.rank = static_cast<int>(shape.size());
    for (size_t i = 0; i < shape.size(); i++) w.shape[i] = shape[i];
    w.init = init;
    w.fan_in = fan_in;
    w.gain = 1.0;
    w.trainable = trainable;
    return w;
}

class Weights : public testing::Test {
  protected:
    ~Weights() override { tw_weights_free(nullptr, &w_); }
    tw_weights w_ = {};
};

std::vector<float> Fresh(tw_weight w, uint64_t seed) {
    w.count = 1;
    for (int i = 0; i < w.rank; i++) w.count *= w.shape[i];
    w.hash = tw_name_hash(w.name);
    std::vector<float> out(static_cast<size_t>(w.count), NAN);
    tw_weight_init(&w, seed, out.data());
    return out;
}

TEST_F(Weights, PlacesTrainableOnesFirstAndNoneOverlap) {
    const tw_weight likes[] = {Like("a", {3, 5}), Like("fixed", {7}, TW_INIT_NORMAL, 1, false),
                               Like("b", {4, 3, 3, 2}), Like("c", {64}), Like("d", {1})};
    for (const tw_weight &like : likes) ASSERT_EQ(tw_weights_add(nullptr, &w_, &like), TW_OK);
    ASSERT_EQ(tw_weights_place(nullptr, &w_), TW_OK);
    ASSERT_EQ(w_.count, 5);
    std::vector<int> taken(static_cast<size_t>(w_.total));
    for (int64_t i = 0; i < w_.count; i++) {
        const tw_weight &w = w_.items[i];
        EXPECT_EQ(tw_weights_find(&w_, w.name), i);
        EXPECT_EQ(w.offset % 64, 0) << w.name;
        EXPECT_EQ(w.trainable, w.offset < w_.trainable) << w.name;
        ASSERT_LE(w.offset + w.count, w_.total);
        for (int64_t k = 0; k < w.count; k++)
            EXPECT_EQ(taken[static_cast<size_t>(w.offset + k)]++, 0) << w.name;
    }
    EXPECT_EQ(w_.trainable, 64 + 128 + 64 + 64);
    EXPECT_EQ(w_.total, w_.trainable + 64);
    EXPECT_EQ(tw_weights_find(&w_, "e"), -1);
}

// A stack that is one in memory alone: the state's vector has the order that it has without.
TEST_F(Weights, AStackMayBeApartInAState) {
    tw_weight likes[] = {Like("a", {3}), Like("p", {5}), Like("b", {4}), Like("q", {2})};
    likes[1].stack = likes[3].stack = 7;
    for (const bool apart : {false, true}) {
        SCOPED_TRACE(apart);
        tw_weights_free(nullptr, &w_);
        likes[1].apart = likes[3].apart = apart;
        for (const tw_weight &like : likes) ASSERT_EQ(tw_weights_add(nullptr, &w_, &like), TW_OK);
        ASSERT_EQ(tw_weights_place(nullptr, &w_), TW_OK);
        std::vector<int64_t> offsets, saved;
        for (int64_t i = 0; i < 4; i++) {
            offsets.push_back(w_.items[i].offset);
            saved.push_back(w_.items[i].saved);
        }
        EXPECT_EQ(offsets, (std::vector<int64_t>{0, 64, 128, 69}));
        EXPECT_EQ(saved, apart ? (std::vector<int64_t>{0, 64, 128, 192}) : offsets);
        EXPECT_EQ(w_.total, 192);
        EXPECT_EQ(w_.trainable, 192);
        EXPECT_EQ(w_.saved, apart ? 256 : 192);
        std::vector<float> flat(192), state(static_cast<size_t>(w_.saved), NAN), back(192, NAN);
        for (int64_t i = 0; i < 4; i++)
            for (int64_t k = 0; k < w_.items[i].count; k++)
                flat[static_cast<size_t>(offsets[static_cast<size_t>(i)] + k)] =
                    static_cast<float>(10 * (i + 1) + k);
        tw_weights_to_state(&w_, flat.data(), state.data());
        for (size_t k = 0; k < 2; k++)
            EXPECT_EQ(state[static_cast<size_t>(saved[3]) + k], static_cast<float>(40 + k));
        tw_weights_from_state(&w_, state.data(), back.data());
        EXPECT_EQ(back, flat); // gaps are zero
    }
}

TEST_F(Weights, RefusesTwins) {
    const tw_weight like = Like("a", {3});
    ASSERT_EQ(tw_weights_add(nullptr, &w_, &like), TW_OK);
    EXPECT_EQ(tw_weights_add(nullptr, &w_, &like), TW_ERROR_INTERNAL);
    EXPECT_STREQ(tw_context_error(nullptr), "weight a: declared twice");
}

TEST_F(Weights, RefusesSizesThatDoNotFit) {
    const tw_weight like = Like("a", {INT64_C(1) << 31, INT64_C(1) << 31, 4});
    EXPECT_EQ(tw_weights_add(nullptr, &w_, &like), TW_ERROR_ARGUMENT);
}

TEST_F(Weights, LateOnesAreADefect) {
    ASSERT_EQ(tw_weights_place(nullptr, &w_), TW_OK);
    const tw_weight like = Like("a", {3});
    EXPECT_EQ(tw_weights_add(nullptr, &w_, &like), TW_ERROR_INTERNAL);
}

TEST(WeightLayout, ConvolutionsAreTransposedAndComeBack) {
    tw_weight w = Like("conv", {4, 3, 2, 5}); // O,KH,KW,I
    w.count = 4 * 3 * 2 * 5;
    int64_t shape[TW_MAX_RANK];
    ASSERT_EQ(tw_weight_file_shape(&w, shape), 4);
    EXPECT_EQ(std::vector<int64_t>(shape, shape + 4), (std::vector<int64_t>{4, 5, 3, 2}));
    std::vector<float> file(120), plan(120, NAN), back(120, NAN);
    for (size_t i = 0; i < file.size(); i++) file[i] = static_cast<float>(i);
    tw_weight_from_file(&w, file.data(), plan.data());
    for (int o = 0; o < 4; o++)
        for (int y = 0; y < 3; y++)
            for (int x = 0; x < 2; x++)
                for (int c = 0; c < 5; c++)
                    EXPECT_EQ(plan[static_cast<size_t>(((o * 3 + y) * 2 + x) * 5 + c)],
                              file[static_cast<size_t>(((o * 5 + c) * 3 + y) * 2 + x)]);
    tw_weight_to_file(&w, plan.data(), back.data());
    EXPECT_EQ(back, file);
}

TEST(WeightLayout, MatricesStayAsTheyAre) {
    tw_weight w = Like("linear", {3, 4});
    w.count = 12;
    std::vector<float> file(12), plan(12, NAN);
    for (size_t i = 0; i < file.size(); i++) file[i] = static_cast<float>(i);
    tw_weight_from_file(&w, file.data(), plan.data());
    EXPECT_EQ(plan, file);
}

TEST(WeightInit, UniformFollowsPyTorchAndTheWrittenRule) {
    const int64_t fan_in = 9 * 32;
    const auto got = Fresh(Like("x.conv1.weight", {64, 3, 3, 32}, TW_INIT_UNIFORM, fan_in), 7);
    const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
    const tw_philox_key key = {7, tw_name_hash("x.conv1.weight"), TW_PURPOSE_INIT, 0};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const double u = std::ldexp(static_cast<double>(tw_philox_word(&key, i) >> 8), -24);
        EXPECT_NEAR(static_cast<double>(got[i]), bound * (2 * u - 1), 0x1p-24 * bound) << i;
        sum += static_cast<double>(got[i]);
        squares += static_cast<double>(got[i]) * static_cast<double>(got[i]);
    }
    const double n = static_cast<double>(got.size()), deviation = bound / std::sqrt(3.0);
    EXPECT_LT(std::abs(sum / n), 4 * deviation / std::sqrt(n));
    EXPECT_NEAR(squares / n, deviation * deviation, 0.02 * deviation * deviation);
}

TEST(WeightInit, NormalsHaveTheirGain) {
    tw_weight w = Like("time_proj.weight", {20001}, TW_INIT_NORMAL);
    w.gain = 16.0;
    const auto got = Fresh(w, 3);
    double sum = 0, squares = 0;
    for (float v : got) {
        sum += static_cast<double>(v);
        squares += static_cast<double>(v) * static_cast<double>(v);
    }
    const double n = static_cast<double>(got.size());
    EXPECT_LT(std::abs(sum / n), 4 * 16 / std::sqrt(n));
    EXPECT_NEAR(std::sqrt(squares / n), 16.0, 0.4);
    const tw_philox_key key = {3, tw_name_hash("time_proj.weight"), TW_PURPOSE_INIT, 0};
    double z[4];
    tw_philox_normals(&key, 5000, z);
    EXPECT_EQ(got[20000], static_cast<float>(16.0 * z[0]));
}

TEST(WeightInit, DependsOnSeedAndNameAlone) {
    const auto a = Fresh(Like("a", {8, 8}), 1), again = Fresh(Like("a", {8, 8}), 1);
    EXPECT_EQ(a, again);
    EXPECT_NE(a, Fresh(Like("a", {8, 8}), 2));
    EXPECT_NE(a, Fresh(Like("b", {8, 8}), 1));
}

TEST(WeightInit, ZeroAndOne) {
    EXPECT_EQ(Fresh(Like("a", {5}, TW_INIT_ZERO), 1), std::vector<float>(5, 0.0f));
    EXPECT_EQ(Fresh(Like("a", {5}, TW_INIT_ONE), 1), std::vector<float>(5, 1.0f));
}

} // namespace
