#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

extern "C" {
#include "data/dataset.h"
#include "io/npy.h"
}
#include "support/tempdir.h"

using tw_test::bytes_of;
using tw_test::TempDir;
using tw_test::write_file;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

class Set {
  public:
    explicit Set(const std::string &source, const std::string &labels = "", int64_t limit = 0,
                 int64_t count = 0, uint64_t seed = 0, double noise = -1) {
        tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
        if (!labels.empty()) o.labels = labels.c_str();
        o.limit = limit;
        o.count = count;
        o.seed = seed;
        o.noise = noise;
        status = tw_dataset_open(nullptr, source.c_str(), &o, &set);
    }
    ~Set() { tw_dataset_free(set); }
    tw_dataset_info info() const {
        tw_dataset_info i{};
        i.size = sizeof i;
        EXPECT_EQ(tw_dataset_get_info(set, &i), TW_OK);
        return i;
    }
    std::vector<float> get(int64_t index, int32_t *label = nullptr) const {
        std::vector<float> out(static_cast<size_t>(set->elements), NAN);
        EXPECT_EQ(tw_dataset_get(set, index, out.data(), label), TW_OK) << error();
        return out;
    }
    tw_status status;
    tw_dataset *set = nullptr;
};

// How far a point is from the curve without noise, by a fine walk along it.
double distance_to_curve(double x, double y) {
    double best = 1e9;
    for (int i = 0; i <= 3000; i++) {
        const double t = 3 * M_PI * (i / 3000.0 - 0.5);
        const double cx = std::sin(t), cy = (t < 0 ? -1 : 1) * (std::cos(t) - 1);
        best = std::min(best, std::hypot(x - cx, y - cy));
    }
    return best;
}

TEST(SCurve, LiesOnTheCurve) {
    Set s("scurve", "", 0, 0, 5, 0.0);
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.info().count, 10000);
    EXPECT_EQ(s.info().rank, 1);
    EXPECT_EQ(s.info().shape[0], 2);
    EXPECT_EQ(s.info().classes, 0);
    double sum_x = 0, sum_y = 0, square_x = 0, square_y = 0, xy = 0;
    int32_t label = 7;
    for (int64_t i = 0; i < 10000; i++) {
        const std::vector<float> p = s.get(i, &label);
        EXPECT_EQ(label, -1);
        if (i % 20 == 0) {
            EXPECT_LT(distance_to_curve(p[0], p[1]), 2e-3);
        }
        sum_x += p[0], sum_y += p[1], xy += p[0] * p[1];
        square_x += p[0] * p[0], square_y += p[1] * p[1];
    }
    // Over t uniform in [-3 pi/2, 3 pi/2], by integration: E x = E y = 0, E x^2 = 1/2,
    // E y^2 = 3/2 + 4/(3 pi), E xy = -1/(3 pi).
    EXPECT_NEAR(sum_x / 1e4, 0, 5 * std::sqrt(0.5 / 1e4));
    EXPECT_NEAR(sum_y / 1e4, 0, 5 * std::sqrt(2.0 / 1e4));
    EXPECT_NEAR(square_x / 1e4, 0.5, 5 * std::sqrt(0.125 / 1e4));
    EXPECT_NEAR(square_y / 1e4, 1.5 + 4 / (3 * M_PI), 5 * std::sqrt(2.0 / 1e4));
    EXPECT_NEAR(xy / 1e4, -1 / (3 * M_PI), 5 * std::sqrt(1.0 / 1e4));
}

TEST(SCurve, NoiseSeedAndCount) {
    Set clean("scurve", "", 0, 4000, 5, 0.0), noisy("scurve", "", 0, 4000, 5),
        other("scurve", "", 0, 4000, 6, 0.0), fewer("scurve", "", 0, 10, 5), cut("scurve", "", 3);
    EXPECT_EQ(fewer.info().count, 10);
    EXPECT_EQ(cut.info().count, 3);
    double square[2] = {0, 0};
    int same = 0;
    for (int64_t i = 0; i < 4000; i++) {
        const auto a = clean.get(i), b = noisy.get(i), c = other.get(i);
        for (int k = 0; k < 2; k++) square[k] += std::pow(b[k] - a[k], 2);
        same += a == c;
        if (i < 10) {
            EXPECT_EQ(fewer.get(i), b);
        }
    }
    for (double s : square) EXPECT_NEAR(s / 4000, 0.01, 5 * 0.01 * std::sqrt(2.0 / 4000));
    EXPECT_LT(same, 5);
    EXPECT_EQ(Set("scurve", "", 0, 10, 5, NAN).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "scurve: noise: expected a finite number");
    EXPECT_EQ(Set("scurve", "labels").status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set("scurve", "", -1).status, TW_ERROR_ARGUMENT);
}

const std::string images = std::string("\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x02", 16) +
                           std::string("\x00\xff\x80\x7f\x01\x02\x03\x04\x05\x06\x07\x08", 12);
const std::string labels = std::string("\0\0\x08\x01\0\0\0\x03\x02\x00\x09", 11);

TEST(Dataset, IdxWithLabelsFoundBesideIt) {
    TempDir dir;
    write_file(dir.file("images-idx3-ubyte"), images);
    Set without(dir.file("images-idx3-ubyte"));
    ASSERT_EQ(without.status, TW_OK) << error();
    EXPECT_EQ(without.info().classes, 0);
    write_file(dir.file("labels-idx1-ubyte"), labels);
    Set s(dir.file("images-idx3-ubyte"));
    ASSERT_EQ(s.status, TW_OK) << error();
    const tw_dataset_info info = s.info();
    EXPECT_EQ(info.count, 3);
    EXPECT_EQ(info.rank, 3);
    EXPECT_EQ(info.shape[0], 2);
    EXPECT_EQ(info.shape[1], 2);
    EXPECT_EQ(info.shape[2], 1);
    EXPECT_EQ(info.classes, 10);
    int32_t label;
    EXPECT_EQ(s.get(0, &label), (std::vector<float>{-1, 1, 1 / 255.0f, -1 / 255.0f}));
    EXPECT_EQ(label, 2);
    s.get(2, &label);
    EXPECT_EQ(label, 9);
    float out[4];
    EXPECT_EQ(tw_dataset_get(s.set, 3, out, nullptr), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "data set: sample 3: expected 0 to 2");
    EXPECT_EQ(tw_dataset_get(s.set, -1, out, nullptr), TW_ERROR_ARGUMENT);
    // A label file that does not fit is an error, found or named.
    write_file(dir.file("labels-idx1-ubyte"), std::string("\0\0\x08\x01\0\0\0\x02\x02\x00", 10));
    EXPECT_EQ(Set(dir.file("images-idx3-ubyte")).status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), dir.file("labels-idx1-ubyte") + ": 2 labels for 3 samples");
    EXPECT_EQ(Set(dir.file("images-idx3-ubyte"), dir.file("images-idx3-ubyte")).status,
              TW_ERROR_FORMAT);
    EXPECT_EQ(error(),
              dir.file("images-idx3-ubyte") + ": an IDX file of 3 dimensions, expected 1 (labels)");
    EXPECT_EQ(Set(dir.file("images-idx3-ubyte"), dir.file("no")).status, TW_ERROR_IO);
}

TEST(Dataset, NpyNumbersPicturesAndLabels) {
    TempDir dir;
    const std::string path = dir.file("x.npy"), label_path = dir.file("y.npy");
    const int64_t vectors[2] = {3, 2}, pictures[4] = {1, 2, 1, 3}, three[1] = {3};
    const double v[6] = {0.1, -5, 2, 3, 4, 1e30};
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_F64, 2, vectors, v), TW_OK);
    const int64_t y[3] = {0, 3, 1};
    ASSERT_EQ(tw_npy_write(nullptr, label_path.c_str(), TW_I64, 1, three, y), TW_OK);
    {
        Set s(path, label_path);
        ASSERT_EQ(s.status, TW_OK) << error();
        EXPECT_EQ(s.info().rank, 1);
        EXPECT_EQ(s.info().classes, 4);
        int32_t label;
        EXPECT_EQ(s.get(1, &label), (std::vector<float>{2, 3}));
        EXPECT_EQ(label, 3);
        EXPECT_EQ(s.get(0), (std::vector<float>{0.1f, -5}));
    }
    const int64_t negative[3] = {0, -1, 1}, large[3] = {0, 1, 1ll << 31};
    for (const auto *bad : {negative, large}) {
        ASSERT_EQ(tw_npy_write(nullptr, label_path.c_str(), TW_I64, 1, three, bad), TW_OK);
        EXPECT_EQ(Set(path, label_path).status, TW_ERROR_FORMAT);
        EXPECT_EQ(error(), label_path + (bad == negative ? ": label 1" : ": label 2") +
                               ": expected a whole number from 0 to 2^31 - 2, got -1");
    }
    EXPECT_EQ(Set(path, path).status, TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), path + ": labels of float64 with 2 dimensions; expected int32, int64 or "
                              "uint8 with 1");
    const uint8_t u[6] = {0, 255, 51, 204, 102, 153};
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_U8, 4, pictures, u), TW_OK);
    {
        Set s(path);
        ASSERT_EQ(s.status, TW_OK) << error();
        EXPECT_EQ(s.info().rank, 3);
        EXPECT_EQ(s.info().shape[2], 3);
        EXPECT_EQ(s.get(0), (std::vector<float>{-1, 1, -0.6f, 0.6f, -0.2f, 0.2f}));
    }
    const float w[6] = {0, 1, 2, 3, 4, 5};
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_F32, 4, pictures, w), TW_OK);
    EXPECT_EQ(Set(path).get(0), std::vector<float>(w, w + 6));
}

TEST(Dataset, RefusesBadSources) {
    TempDir dir;
    const std::string path = dir.file("x.npy");
    const int64_t one[1] = {6}, empty[2] = {0, 2}, two[2] = {3, 2};
    const float nan[6] = {0, 0, 0, NAN, 0, 0};
    EXPECT_EQ(Set("").status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set(dir.file("no")).status, TW_ERROR_IO);
    EXPECT_EQ(Set(dir.path()).status, TW_ERROR_FORMAT); // a folder without pictures
    write_file(path, "just text");
    EXPECT_EQ(Set(path).status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), path +
                           ": unknown kind of data; expected scurve, shapes, a folder or a "
                           "tar of PNG and JPEG files, CIFAR-10's .bin files, an IDX file (plain "
                           "or .gz) or an .npy");
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_F32, 1, one, nan), TW_OK);
    EXPECT_EQ(Set(path).status, TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), path +
                           ": an array of float32 with 1 dimensions; expected float32 or float64 "
                           "N,D or N,H,W,C, or uint8 N,H,W,C");
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_F32, 2, empty, nan), TW_OK);
    EXPECT_NE(Set(path).status, TW_OK);
    EXPECT_EQ(error(), path +
                           ": expected 1 to 2^32 - 1 samples of one or three extents of at least "
                           "1");
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), TW_F32, 2, two, nan), TW_OK);
    EXPECT_EQ(Set(path).status, TW_ERROR_NUMERIC);
    EXPECT_EQ(error(), path + ": sample 1: a value that is no finite number");
}

TEST(Dataset, FromMemoryCopies) {
    const int64_t shape[1] = {2};
    float values[4] = {1, 2, 3, 4};
    int32_t y[2] = {0, 4};
    tw_dataset *set;
    ASSERT_EQ(tw_dataset_from_memory(nullptr, 2, 1, shape, values, y, &set), TW_OK);
    values[2] = 9;
    y[1] = 0;
    float out[2];
    int32_t label;
    EXPECT_EQ(tw_dataset_get(set, 1, out, &label), TW_OK);
    EXPECT_EQ(out[0], 3);
    EXPECT_EQ(label, 4);
    tw_dataset_free(set);
    y[1] = -3;
    EXPECT_EQ(tw_dataset_from_memory(nullptr, 2, 1, shape, values, y, &set), TW_ERROR_ARGUMENT);
    EXPECT_EQ(set, nullptr);
    EXPECT_EQ(tw_dataset_from_memory(nullptr, 0, 1, shape, values, nullptr, &set),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_dataset_from_memory(nullptr, 2, 2, shape, values, nullptr, &set),
              TW_ERROR_ARGUMENT);
    const int64_t huge[3] = {INT64_MAX, 2, 2};
    EXPECT_EQ(tw_dataset_from_memory(nullptr, 2, 3, huge, values, nullptr, &set),
              TW_ERROR_ARGUMENT);
    tw_dataset_free(nullptr);
}

} // namespace
