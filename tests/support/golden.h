// Golden files: reading them, the numbers that their rule gives, and comparing with their
// summaries.
#ifndef TW_TEST_GOLDEN_H
#define TW_TEST_GOLDEN_H

#include <gtest/gtest.h>
#include <jansson.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

extern "C" {
#include "core/philox.h"
}

namespace golden {

constexpr uint64_t kSeed = 20261122;
enum Step : uint32_t { kInput = 1, kTarget = 2, kLabel = 3 };

using Json = std::unique_ptr<json_t, decltype(&json_decref)>;

// Where the tests were built, or where the environment says that they have been brought.
inline std::string Path(const std::string &name) {
    const char *brought = getenv("TW_TEST_DIR");
    return std::string(brought ? brought : TW_TEST_DIR) + "/golden/" + name;
}

inline Json Load(const std::string &name) {
    json_error_t error;
    json_t *root = json_load_file(Path(name).c_str(), 0, &error);
    EXPECT_NE(root, nullptr) << name << ": " << error.text;
    return Json(root, json_decref);
}

inline const json_t *At(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!value) ADD_FAILURE() << "the golden file lacks " << key;
    return value;
}
inline double Number(const json_t *object, const char *key) {
    return json_number_value(At(object, key));
}
inline int64_t Whole(const json_t *object, const char *key) {
    return json_integer_value(At(object, key));
}
inline std::string Text(const json_t *object, const char *key) {
    const char *text = json_string_value(At(object, key));
    return text ? text : "";
}
inline std::string Dump(const json_t *value) {
    char *text = json_dumps(value, 0);
    std::string copy = text ? text : "";
    free(text);
    return copy;
}
inline std::vector<int64_t> Shape(const json_t *array) {
    std::vector<int64_t> shape;
    for (size_t i = 0; i < json_array_size(array); i++)
        shape.push_back(json_integer_value(json_array_get(array, i)));
    return shape;
}
inline int64_t Count(const std::vector<int64_t> &shape) {
    int64_t count = 1;
    for (int64_t extent : shape) count *= extent;
    return count;
}

// Normals rounded to float32, from element 0.
inline void Normals(uint64_t seed, uint64_t sample, uint32_t purpose, uint32_t step, int64_t count,
                    float *out) {
    const tw_philox_key key = {seed, sample, purpose, step};
    for (int64_t i = 0; i < count; i += 4) {
        double z[4];
        tw_philox_normals(&key, static_cast<uint32_t>(i / 4), z);
        for (int64_t j = 0; j < 4 && i + j < count; j++) out[i + j] = static_cast<float>(z[j]);
    }
}

// n samples of `count` elements each.
inline std::vector<float> Batch(int64_t n, int64_t count, uint32_t step) {
    std::vector<float> out(static_cast<size_t>(n * count));
    for (int64_t i = 0; i < n; i++)
        Normals(kSeed, static_cast<uint64_t>(i), TW_PURPOSE_GOLDEN, step, count,
                out.data() + i * count);
    return out;
}

// A parameter's value in the order of the file.
inline std::vector<float> Parameter(const std::string &name, const std::vector<int64_t> &shape,
                                    const std::string &kind) {
    const int64_t count = Count(shape);
    std::vector<float> out(static_cast<size_t>(count));
    Normals(kSeed, tw_name_hash(name.c_str()), TW_PURPOSE_GOLDEN, 0, count, out.data());
    const double fan = static_cast<double>(count) / static_cast<double>(shape[0]);
    for (float &v : out) {
        const double z = static_cast<double>(v);
        if (kind == "weight") v = static_cast<float>(z * (1.0 / std::sqrt(fan)));
        if (kind == "embedding") v = static_cast<float>(0.5 * z);
        if (kind == "norm") v = static_cast<float>(1.0 + 0.1 * z);
        if (kind == "bias") v = static_cast<float>(0.1 * z);
    }
    return out;
}

// Largest and mean square |got - want| over the sampled entries, and the difference of the norms.
struct Difference {
    double entry = 0, mean = 0, norm = 0, rms = 0, golden_norm = 0;
    int64_t at = -1;
};

template <class Real> Difference Compare(const std::vector<Real> &got, const json_t *summary) {
    Difference d;
    double sum = 0;
    for (Real v : got) sum += static_cast<double>(v) * static_cast<double>(v);
    d.golden_norm = Number(summary, "norm");
    d.norm = std::abs(std::sqrt(sum) - d.golden_norm);
    d.rms = d.golden_norm / std::sqrt(static_cast<double>(got.size()));
    const json_t *samples = At(summary, "samples");
    EXPECT_GT(json_array_size(samples), 0u);
    for (size_t i = 0; i < json_array_size(samples); i++) {
        const json_t *pair = json_array_get(samples, i);
        const int64_t at = json_integer_value(json_array_get(pair, 0));
        if (at < 0 || at >= static_cast<int64_t>(got.size())) {
            ADD_FAILURE() << "the golden has an entry " << at << " of " << got.size();
            continue;
        }
        const double error = std::abs(static_cast<double>(got[static_cast<size_t>(at)]) -
                                      json_number_value(json_array_get(pair, 1)));
        d.mean += error * error / static_cast<double>(json_array_size(samples));
        if (!std::isnan(d.entry) && !(error <= d.entry)) { // NaN stays
            d.entry = error;
            d.at = at;
        }
    }
    d.mean = std::sqrt(d.mean);
    return d;
}

} // namespace golden

#endif
