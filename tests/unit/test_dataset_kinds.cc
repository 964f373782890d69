// Shapes, CIFAR-10's binary files, and bringing sets to another size.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

extern "C" {
#include "data/dataset.h"
#include "io/npy.h"
}
#include "support/tempdir.h"

using tw_test::TempDir;
using tw_test::write_file;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

class Set {
  public:
    explicit Set(const std::string &source, const tw_dataset_options &o = TW_DATASET_OPTIONS_INIT)
        : status(tw_dataset_open(nullptr, source.c_str(), &o, &set)) {
        info.size = sizeof info;
        if (set) tw_dataset_get_info(set, &info);
    }
    ~Set() { tw_dataset_free(set); }
    std::vector<float> get(int64_t index, int32_t *label = nullptr) const {
        std::vector<float> out(size_t(set->elements), NAN);
        EXPECT_EQ(tw_dataset_get(set, index, out.data(), label), TW_OK) << error();
        return out;
    }
    tw_dataset *set = nullptr;
    tw_dataset_info info{};
    tw_status status;
};

tw_dataset_options sized(int64_t height, int64_t width, int channels = 0) {
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    o.height = height;
    o.width = width;
    o.channels = channels;
    return o;
}

TEST(Shapes, AreSixClassesThatSeedAndIndexTell) {
    Set s("shapes");
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.info.count, 50000);
    EXPECT_EQ(s.info.classes, 6);
    EXPECT_EQ(s.info.shape[0] * s.info.shape[1] * s.info.shape[2], 32 * 32 * 3);
    const char *const names[] = {"disc", "ring", "square", "triangle", "star", "cross"};
    for (int i = 0; i < 6; i++) EXPECT_STREQ(tw_dataset_class_name(s.set, i), names[i]);
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    o.seed = 1;
    o.count = 77;
    Set other("shapes", o);
    EXPECT_EQ(other.info.count, 77);
    for (int64_t i = 0; i < 60; i++) {
        int32_t label;
        const std::vector<float> x = s.get(i, &label);
        EXPECT_EQ(label, i % 6);
        EXPECT_EQ(x, s.get(i));
        EXPECT_NE(x, other.get(i));
        EXPECT_NE(x, s.get(i + 6));
        for (float v : x) ASSERT_TRUE(v >= -1 && v <= 1);
    }
}

// The part of the picture that a shape covers, from its contrast with the plain background, over
// many samples: it must be the shape's area.
TEST(Shapes, CoverTheirAreas) {
    const double pi = M_PI;
    // In units of radius^2: a disc; a ring 0.4 wide; the square and the triangle in the circle; a
    // star of ten corners; a cross of bars 0.6 wide.
    const double areas[6] = {pi,
                             pi * (1 - 0.36),
                             2.0,
                             0.75 * std::sqrt(3.0),
                             10 * 0.5 * 0.45 * std::sin(pi / 5),
                             2 * 0.6 * 2 * 0.954 - 0.36};
    double covered[6] = {}, squares = 0;
    Set s("shapes", sized(96, 96));
    const int n = 600;
    for (int64_t i = 0; i < n; i++) {
        const std::vector<float> x = s.get(i);
        // The shape's value (largest channel) is at least 0.8, the background's at most 0.4: levels
        // of 0.6 part them, and antialiased edges even out.
        for (size_t p = 0; p < x.size(); p += 3)
            covered[i % 6] += std::max({x[p], x[p + 1], x[p + 2]}) > 0.2 ? 1 : 0;
    }
    // E radius^2 for a radius uniform in 96 * (0.22 .. 0.42).
    squares = 96 * 96 * (std::pow(0.42, 3) - std::pow(0.22, 3)) / (3 * 0.2);
    for (int k = 0; k < 6; k++)
        EXPECT_NEAR(covered[k] / (n / 6) / squares, areas[k], 0.12 * areas[k]) << k;
}

TEST(Shapes, AnySizeAndGrey) {
    Set s("shapes", sized(9, 20, 1));
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.get(5).size(), 180u);
    EXPECT_EQ(Set("shapes", sized(1, 1)).status, TW_OK);
    EXPECT_EQ(Set("shapes", sized(0, 4)).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set("shapes", sized(1 << 20, 1 << 20)).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set("shapes", sized(INT64_MAX, 2)).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set("shapes", sized(-4, -4)).status, TW_ERROR_ARGUMENT);
    EXPECT_EQ(Set("shapes", sized(4, 4, 2)).status, TW_ERROR_ARGUMENT);
}

// Record k: label k % 10, and every plane counts on from k.
std::string cifar(int records, int first = 0) {
    std::string out;
    for (int k = first; k < first + records; k++) {
        out += char(k % 10);
        for (int i = 0; i < 3072; i++) out += char(k + i % 1024 + 50 * (i / 1024));
    }
    return out;
}

TEST(Cifar, PlanesBecomePixels) {
    TempDir dir;
    write_file(dir.file("a.bin"), cifar(3));
    Set s(dir.file("a.bin"));
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.info.count, 3);
    EXPECT_EQ(s.info.classes, 10);
    EXPECT_STREQ(tw_dataset_class_name(s.set, 6), "frog");
    EXPECT_EQ(tw_dataset_class_name(s.set, 10), nullptr);
    int32_t label;
    const std::vector<float> x = s.get(2, &label);
    EXPECT_EQ(label, 2);
    for (size_t i = 0; i < 1024; i++)
        for (size_t c = 0; c < 3; c++)
            ASSERT_EQ(x[3 * i + c], float((2.0 * ((2 + i + 50 * c) % 256) - 255) / 255));
}

TEST(Cifar, AFolderIsItsBatchesInOrder) {
    TempDir dir;
    write_file(dir.file("data_batch_5.bin"), cifar(2, 5));
    write_file(dir.file("data_batch_2.bin"), cifar(1, 1));
    write_file(dir.file("test_batch.bin"), cifar(4));
    Set s(dir.path());
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.info.count, 3);
    int32_t label;
    for (int64_t i = 0; i < 3; i++) {
        s.get(i, &label);
        EXPECT_EQ(label, (i == 0 ? 1 : 4 + i));
    }
}

TEST(Cifar, RefusesWhatIsNot) {
    TempDir dir;
    const std::string path = dir.file("a.bin");
    write_file(path, cifar(2).substr(0, 6000));
    EXPECT_EQ(Set(path).status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), path + ": 6000 bytes, expected a multiple of CIFAR-10's records of 3073");
    write_file(path, std::string(2 * 3074, '\1'));
    EXPECT_EQ(Set(path).status, TW_ERROR_UNSUPPORTED);
    EXPECT_NE(error().find("CIFAR-100"), std::string::npos) << error();
    std::string bad = cifar(2);
    bad[3073] = 10;
    write_file(path, bad);
    EXPECT_EQ(Set(path).status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), path + ": record 1 of file 1: label 10, expected 0 to 9");
    write_file(path, "");
    EXPECT_EQ(Set(path).status, TW_ERROR_IO);
    tw_dataset_options o = TW_DATASET_OPTIONS_INIT;
    o.labels = "x.npy";
    write_file(path, cifar(2));
    EXPECT_EQ(Set(path, o).status, TW_ERROR_ARGUMENT);
}

TEST(Fitting, BytesChangeAndNumbersDoNot) {
    TempDir dir;
    write_file(dir.file("a.bin"), cifar(3));
    tw_dataset_options o = sized(16, 8, 1);
    o.limit = 2;
    o.crop = TW_CROP_STRETCH;
    Set s(dir.file("a.bin"), o);
    ASSERT_EQ(s.status, TW_OK) << error();
    EXPECT_EQ(s.info.count, 2);
    EXPECT_EQ(s.info.shape[0] * 100 + s.info.shape[1] * 10 + s.info.shape[2], 1681);
    Set whole(dir.file("a.bin"), sized(32, 32));
    Set own(dir.file("a.bin"));
    EXPECT_EQ(whole.get(1), own.get(1));
    // A set with a size of its own keeps it where that is asked for.
    o.keep_own = 1;
    Set kept(dir.file("a.bin"), o);
    EXPECT_EQ(kept.info.shape[0], 32);
    EXPECT_EQ(Set("shapes", o).info.shape[0], 16);
    const int64_t shape[4] = {2, 4, 4, 1};
    const std::vector<float> values(32, 0.5f);
    ASSERT_EQ(tw_npy_write(nullptr, dir.file("a.npy").c_str(), TW_F32, 4, shape, values.data()),
              TW_OK);
    EXPECT_EQ(Set(dir.file("a.npy"), sized(4, 4)).status, TW_OK);
    EXPECT_EQ(Set(dir.file("a.npy"), sized(4, 5)).status, TW_ERROR_ARGUMENT);
    EXPECT_NE(error().find("4x4x1 numbers and cannot become 4x5x1"), std::string::npos) << error();
    EXPECT_EQ(Set("scurve", sized(4, 4)).status, TW_ERROR_ARGUMENT);
    EXPECT_NE(error().find("vectors, not pictures"), std::string::npos) << error();
}

} // namespace
