#include <gtest/gtest.h>
#include <jansson.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

extern "C" {
#include "core/philox.h"
#include <tweedie/context.h>
#include <tweedie/noise.h>
}

namespace {

using Words = std::array<uint32_t, 4>;

Words philox(Words counter, std::array<uint32_t, 2> key) {
    Words out;
    tw_philox4x32(counter.data(), key.data(), out.data());
    return out;
}

// Random123's known answers for philox4x32-10.
TEST(Philox, KnownAnswers) {
    EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
              (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    const uint32_t f = 0xffffffff;
    EXPECT_EQ(philox({f, f, f, f}, {f, f}),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, TheCounterIsLaidOutAsWritten) {
    const tw_philox_key key = {0x1122334455667788, 0x0000abcd87654321, 9, 77};
    Words words;
    tw_philox_words(&key, 5, words.data());
    EXPECT_EQ(words, philox({5, 77, 0x87654321, 9u << 16 | 0xabcd}, {0x55667788, 0x11223344}));
    for (uint64_t e = 0; e < 4; e++) EXPECT_EQ(tw_philox_word(&key, 20 + e), words[e]);
    // Dropout's purpose uses the top bit.
    const tw_philox_key dropout = {0, 0, TW_PURPOSE_DROPOUT + 3, 0};
    tw_philox_words(&dropout, 0, words.data());
    EXPECT_EQ(words, philox({0, 0, 0, 0x80030000}, {0, 0}));
}

json_t *load(const char *name) {
    json_error_t error;
    json_t *root =
        json_load_file((std::string(TW_TEST_DIR) + "/golden/" + name).c_str(), 0, &error);
    EXPECT_NE(root, nullptr) << error.text;
    return root;
}

uint64_t number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_string(value) ? std::stoull(json_string_value(value))
                                 : static_cast<uint64_t>(json_integer_value(value));
}

TEST(Philox, AgreesWithTheIndependentImplementation) {
    json_t *root = load("philox.json");
    size_t i, k;
    const json_t *c;
    ASSERT_GT(json_array_size(json_object_get(root, "cases")), 0u);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const tw_philox_key key = {number(c, "seed"), number(c, "sample"),
                                   static_cast<uint32_t>(number(c, "purpose")),
                                   static_cast<uint32_t>(number(c, "step"))};
        const uint64_t first = number(c, "first");
        const json_t *words = json_object_get(c, "words"), *value;
        json_array_foreach(words, k, value) {
            const uint64_t element = first + k;
            const uint32_t word = tw_philox_word(&key, element);
            EXPECT_EQ(word, json_integer_value(value));
            EXPECT_EQ(tw_philox_uniform(word),
                      json_number_value(json_array_get(json_object_get(c, "uniforms"), k)));
            double z[4];
            tw_philox_normals(&key, static_cast<uint32_t>(element / 4), z);
            const double expected =
                json_number_value(json_array_get(json_object_get(c, "normals"), k));
            EXPECT_NEAR(z[element % 4], expected, 1e-13 * (1 + std::fabs(expected)));
        }
    }
    json_array_foreach(json_object_get(root, "names"), i, c) {
        EXPECT_EQ(tw_name_hash(json_string_value(json_object_get(c, "name"))),
                  number(c, "fnv1a32"));
    }
    json_decref(root);
}

TEST(Philox, UniformsAreBelowOne) {
    EXPECT_EQ(tw_philox_uniform(0), 0.0f);
    EXPECT_EQ(tw_philox_uniform(0xff), 0.0f);
    EXPECT_EQ(tw_philox_uniform(0xffffffffu), 1.0f - std::ldexp(1.0f, -24));
}

struct Moments {
    double n = 0, sum = 0, square = 0, cube = 0, fourth = 0;
    void add(double z) {
        n++;
        sum += z;
        square += z * z;
        cube += z * z * z;
        fourth += z * z * z * z;
    }
};

// Five standard errors: the chance of a failure by bad luck is below 1e-6 (and the seed is fixed).
TEST(Noise, AMillionNormals) {
    const int64_t n = 1 << 20;
    std::vector<float> z(n);
    ASSERT_EQ(tw_noise_initial(7, 3, n, z.data()), TW_OK);
    Moments m;
    double lag1 = 0, lag2 = 0, pair = 0;
    int64_t tail = 0;
    for (int64_t i = 0; i < n; i++) {
        ASSERT_TRUE(std::isfinite(z[i]));
        m.add(z[i]);
        if (i >= 1) lag1 += z[i] * z[i - 1];
        if (i >= 2) lag2 += z[i] * z[i - 2];
        if (i % 2) pair += (z[i] * z[i] - 1) * (z[i - 1] * z[i - 1] - 1); // Box-Muller's radius
        tail += std::fabs(z[i]) > 3;
    }
    const double root = std::sqrt(static_cast<double>(n));
    EXPECT_NEAR(m.sum / n, 0, 5 / root);
    EXPECT_NEAR(m.square / n, 1, 5 * std::sqrt(2.0) / root);
    EXPECT_NEAR(m.cube / n, 0, 5 * std::sqrt(15.0) / root);
    EXPECT_NEAR(m.fourth / n, 3, 5 * std::sqrt(96.0) / root);
    EXPECT_NEAR(lag1 / n, 0, 5 / root);
    EXPECT_NEAR(lag2 / n, 0, 5 / root);
    EXPECT_NEAR(pair / (n / 2), 0, 5 * 2 * std::sqrt(2.0) / root);
    const double p = 0.0026997960632601866;
    EXPECT_NEAR(static_cast<double>(tail) / n, p, 5 * std::sqrt(p * (1 - p)) / root);
}

// Streams that differ in one part of the key are uncorrelated.
TEST(Noise, StreamsAreIndependent) {
    const int64_t n = 1 << 16;
    std::vector<std::vector<float>> streams(6, std::vector<float>(n));
    ASSERT_EQ(tw_noise_initial(7, 3, n, streams[0].data()), TW_OK);
    ASSERT_EQ(tw_noise_initial(8, 3, n, streams[1].data()), TW_OK);
    ASSERT_EQ(tw_noise_initial(7, 4, n, streams[2].data()), TW_OK);
    ASSERT_EQ(tw_noise_initial(7, 3 + (1ull << 32), n, streams[3].data()), TW_OK);
    ASSERT_EQ(tw_noise_step(7, 3, 0, n, streams[4].data()), TW_OK);
    ASSERT_EQ(tw_noise_step(7, 3, 1, n, streams[5].data()), TW_OK);
    for (size_t a = 0; a < streams.size(); a++)
        for (size_t b = 0; b < a; b++) {
            double dot = 0;
            for (int64_t i = 0; i < n; i++) dot += streams[a][i] * streams[b][i];
            EXPECT_NEAR(dot / n, 0, 5 / std::sqrt(static_cast<double>(n))) << a << " " << b;
        }
}

TEST(Noise, APrefixIsAPrefix) {
    std::vector<float> all(103), some(103, NAN);
    ASSERT_EQ(tw_noise_step(1, 2, 3, 103, all.data()), TW_OK);
    for (int64_t n = 0; n <= 103; n += 13) {
        some.assign(103, NAN);
        ASSERT_EQ(tw_noise_step(1, 2, 3, n, some.data()), TW_OK);
        for (int64_t i = 0; i < 103; i++) {
            if (i < n)
                ASSERT_EQ(some[i], all[i]);
            else
                ASSERT_TRUE(std::isnan(some[i]));
        }
    }
    EXPECT_EQ(tw_noise_step(1, 2, 3, -1, all.data()), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_noise_step(1, 2, 3, 1ll << 34, all.data()), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_noise_step(1, 2, 3, 1, nullptr), TW_ERROR_ARGUMENT);
}

} // namespace
