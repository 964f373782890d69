// Philox, its counter layout and Box-Muller against philox.json: words to the bit, normals to
// 1e-12. See README.md here for the rule.
#include <cmath>
#include <string>
#include <vector>

#include "support/golden.h"

#include <tweedie/noise.h>

namespace {

// |got - want| <= bound; false for NaN.
bool Near(double got, double want, double bound) {
    return std::abs(got - want) <= bound;
}

uint64_t Big(const json_t *object, const char *key) {
    return std::stoull(golden::Text(object, key));
}
uint32_t Word(const json_t *array, size_t i) {
    return static_cast<uint32_t>(json_integer_value(json_array_get(array, i)));
}
double Real(const json_t *array, size_t i) {
    return json_number_value(json_array_get(array, i));
}

class NoiseGolden : public testing::Test {
  protected:
    void SetUp() override {
        root_ = golden::Load("philox.json");
        ASSERT_NE(root_, nullptr);
    }
    const json_t *List(const char *key, size_t least) {
        const json_t *list = golden::At(root_.get(), key);
        EXPECT_GE(json_array_size(list), least) << key;
        return list;
    }
    golden::Json root_{nullptr, json_decref};
};

struct Case {
    tw_philox_key key;
    uint64_t first;
    size_t count;
    const json_t *words, *uniforms, *normals;

    explicit Case(const json_t *row) {
        key.seed = Big(row, "seed");
        key.sample = Big(row, "sample");
        key.purpose = static_cast<uint32_t>(golden::Whole(row, "purpose"));
        key.step = static_cast<uint32_t>(golden::Whole(row, "step"));
        first = Big(row, "first");
        words = golden::At(row, "words");
        uniforms = golden::At(row, "uniforms");
        normals = golden::At(row, "normals");
        count = json_array_size(words);
        EXPECT_GE(count, 12u);
        EXPECT_EQ(count, json_array_size(uniforms));
        EXPECT_EQ(count, json_array_size(normals));
    }
};

TEST_F(NoiseGolden, KnownAnswers) {
    const json_t *known = List("known", 3);
    for (size_t i = 0; i < json_array_size(known); i++) {
        const json_t *row = json_array_get(known, i);
        const json_t *c = golden::At(row, "counter"), *k = golden::At(row, "key");
        const uint32_t ctr[4] = {Word(c, 0), Word(c, 1), Word(c, 2), Word(c, 3)};
        const uint32_t key[2] = {Word(k, 0), Word(k, 1)};
        uint32_t out[4] = {0, 0, 0, 0};
        tw_philox4x32(ctr, key, out);
        for (size_t j = 0; j < 4; j++)
            EXPECT_EQ(out[j], Word(golden::At(row, "result"), j)) << i << ", word " << j;
    }
}

TEST_F(NoiseGolden, WordsAndUniformsToTheBit) {
    const json_t *cases = List("cases", 6);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const Case c(json_array_get(cases, i));
        for (size_t j = 0; j < c.count; j++) {
            const uint64_t element = c.first + j;
            uint32_t quad[4];
            tw_philox_words(&c.key, static_cast<uint32_t>(element / 4), quad);
            EXPECT_EQ(quad[element % 4], Word(c.words, j)) << i << ", element " << element;
            EXPECT_EQ(tw_philox_word(&c.key, element), Word(c.words, j)) << i;
            EXPECT_EQ(static_cast<double>(tw_philox_uniform(quad[element % 4])),
                      Real(c.uniforms, j))
                << i << ", element " << element;
        }
    }
}

TEST_F(NoiseGolden, Normals) {
    const json_t *cases = List("cases", 6);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const Case c(json_array_get(cases, i));
        for (size_t j = 0; j < c.count; j++) {
            const uint64_t element = c.first + j;
            double z[4] = {NAN, NAN, NAN, NAN};
            tw_philox_normals(&c.key, static_cast<uint32_t>(element / 4), z);
            EXPECT_PRED3(Near, z[element % 4], Real(c.normals, j), 1e-12)
                << i << ", element " << element;
        }
    }
}

// The public calls give the same numbers, rounded to float32.
TEST_F(NoiseGolden, PublicCalls) {
    const json_t *cases = List("cases", 6);
    size_t initial = 0, step = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const Case c(json_array_get(cases, i));
        const bool starts = c.key.purpose == TW_PURPOSE_INITIAL;
        if (!starts && c.key.purpose != TW_PURPOSE_SAMPLER) continue;
        const size_t first = static_cast<size_t>(c.first);
        std::vector<float> z(first + c.count, NAN);
        const int64_t count = static_cast<int64_t>(z.size());
        ASSERT_EQ(starts ? tw_noise_initial(c.key.seed, c.key.sample, count, z.data())
                         : tw_noise_step(c.key.seed, c.key.sample, c.key.step, count, z.data()),
                  TW_OK);
        for (size_t j = 0; j < c.count; j++) {
            const double want = Real(c.normals, j), half_ulp = 0x1p-24 * (1 + 1e-6);
            EXPECT_PRED3(Near, static_cast<double>(z[first + j]), want, half_ulp * std::abs(want))
                << i << ", element " << first + j;
        }
        (starts ? initial : step)++;
    }
    EXPECT_GE(initial, 2u);
    EXPECT_GE(step, 1u);
}

// 1 / m modulo 2^32, for odd m.
uint32_t Inverse(uint32_t m) {
    uint32_t x = m;
    for (int i = 0; i < 5; i++) x *= 2 - m * x;
    return x;
}

// The counter that Philox, with this key, turns into `out`: its rounds backwards.
void Invert(const uint32_t out[4], const uint32_t key[2], uint32_t ctr[4]) {
    const uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u, w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;
    for (int j = 0; j < 4; j++) ctr[j] = out[j];
    for (uint32_t round = 10; round-- > 0;) {
        const uint32_t c0 = ctr[3] * Inverse(m0), c2 = ctr[1] * Inverse(m1);
        const uint32_t high0 = static_cast<uint32_t>(static_cast<uint64_t>(m0) * c0 >> 32);
        const uint32_t high1 = static_cast<uint32_t>(static_cast<uint64_t>(m1) * c2 >> 32);
        const uint32_t c1 = ctr[0] ^ high1 ^ (key[0] + round * w0);
        const uint32_t c3 = ctr[2] ^ high0 ^ (key[1] + round * w1);
        ctr[0] = c0, ctr[1] = c1, ctr[2] = c2, ctr[3] = c3;
    }
}

// Words at the edges (radius 0, the largest radius, multiples of a quarter turn) hardly come up by
// chance; the generator runs backwards to find the place where they stand.
TEST_F(NoiseGolden, BoxMullerAtTheEdges) {
    const json_t *rows = List("box_muller", 24);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *pair = golden::At(row, "words");
        const uint32_t words[4] = {Word(pair, 0), Word(pair, 1), Word(pair, 0), Word(pair, 1)};
        const uint32_t halves[2] = {7, 0};
        uint32_t ctr[4], check[4];
        Invert(words, halves, ctr);
        const tw_philox_key key = {7, ctr[2] | static_cast<uint64_t>(ctr[3] & 0xffffu) << 32,
                                   ctr[3] >> 16, ctr[1]};
        tw_philox_words(&key, ctr[0], check);
        for (int j = 0; j < 4; j++) ASSERT_EQ(check[j], words[j]) << i;
        double z[4] = {NAN, NAN, NAN, NAN};
        tw_philox_normals(&key, ctr[0], z);
        for (size_t j = 0; j < 4; j++)
            EXPECT_PRED3(Near, z[j], Real(golden::At(row, "normals"), j % 2), 1e-12)
                << "words " << words[0] << ", " << words[1];
    }
}

TEST_F(NoiseGolden, NameHashes) {
    const json_t *names = List("names", 4);
    for (size_t i = 0; i < json_array_size(names); i++) {
        const json_t *row = json_array_get(names, i);
        const std::string name = golden::Text(row, "name");
        EXPECT_EQ(tw_name_hash(name.c_str()), golden::Whole(row, "fnv1a32")) << name;
    }
}

} // namespace
