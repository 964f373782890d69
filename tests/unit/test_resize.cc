// Resizing against double references, and fitting pictures into a shape.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

extern "C" {
#include "data/fit.h"
#include "io/resize.h"
}
#include "support/tempdir.h"

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

struct Picture {
    Picture(int64_t h, int64_t w, int c)
        : height(h), width(w), channels(c), data(size_t(h * w * c)) {}
    static Picture noise(int64_t h, int64_t w, int c) {
        Picture p(h, w, c);
        tw_test::Random random(uint64_t(h * 1000 + w));
        for (uint8_t &v : p.data) v = uint8_t(random.next() >> 40);
        return p;
    }
    uint8_t &at(int64_t y, int64_t x, int c = 0) {
        return data[size_t((y * width + x) * channels + c)];
    }
    tw_image image() { return {width, height, channels, data.data()}; }
    int64_t height, width;
    int channels;
    std::vector<uint8_t> data;
};

Picture resized(Picture in, int64_t height, int64_t width, tw_image_part part = {0, 0, 0, 0}) {
    if (part.width == 0) part = {0, 0, double(in.width), double(in.height)};
    const tw_image image = in.image();
    tw_image out;
    Picture p(height, width, in.channels);
    EXPECT_EQ(tw_image_resize(nullptr, &image, &part, height, width, &out), TW_OK) << error();
    EXPECT_EQ(out.width, width);
    EXPECT_EQ(out.height, height);
    EXPECT_EQ(out.channels, in.channels);
    std::copy(out.pixels, out.pixels + p.data.size(), p.data.begin());
    tw_image_free(nullptr, &out);
    return p;
}

TEST(Resize, KeepsAConstant) {
    for (int value : {0, 1, 127, 254, 255})
        for (auto [h, w] : {std::pair{3, 5}, {7, 40}, {64, 9}, {1, 1}, {33, 31}}) {
            Picture p(17, 13, 3);
            std::fill(p.data.begin(), p.data.end(), uint8_t(value));
            const Picture q = resized(p, h, w);
            EXPECT_EQ(q.data, std::vector<uint8_t>(q.data.size(), uint8_t(value)));
        }
}

TEST(Resize, IsTheIdentityAtTheSameSize) {
    for (int c : {1, 3})
        for (auto [h, w] : {std::pair{1, 1}, {2, 3}, {5, 1}, {16, 11}}) {
            Picture p = Picture::noise(h, w, c);
            EXPECT_EQ(resized(p, h, w).data, p.data);
        }
}

TEST(Resize, IsTheMeanAtWholeFactors) {
    for (auto [fy, fx] : {std::pair{2, 2}, {4, 2}, {3, 3}, {1, 5}, {7, 1}}) {
        Picture p = Picture::noise(6 * fy, 4 * fx, 3);
        Picture q = resized(p, 6, 4);
        for (int64_t y = 0; y < 6; y++)
            for (int64_t x = 0; x < 4; x++)
                for (int c = 0; c < 3; c++) {
                    double sum = 0;
                    for (int i = 0; i < fy; i++)
                        for (int k = 0; k < fx; k++) sum += p.at(y * fy + i, x * fx + k, c);
                    EXPECT_NEAR(q.at(y, x, c), sum / (fy * fx), 0.5001);
                }
    }
}

// What a pixel is worth by the definition, one axis at a time, in double.
double weight(int64_t in, double start, double extent, int64_t out, int64_t i, int64_t k) {
    const double scale = extent / double(out), from = start + double(i) * scale;
    if (scale > 1)
        return std::max(0.0, std::min(from + scale, double(k + 1)) - std::max(from, double(k))) /
               scale;
    const double centre = from + 0.5 * scale - 0.5;
    double sum = 0;
    for (int64_t j = -4; j < in + 4; j++) { // what lies beyond the edge counts for the edge
        if (std::clamp<int64_t>(j, 0, in - 1) != k) continue;
        const double x = std::abs(centre - double(j));
        if (x < 1)
            sum += 1.5 * x * x * x - 2.5 * x * x + 1;
        else if (x < 2)
            sum += -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2;
    }
    return sum;
}

TEST(Resize, AgreesWithTheDefinition) {
    const struct {
        int64_t in_h, in_w, out_h, out_w;
        tw_image_part part;
    } rows[] = {{13, 17, 5, 4, {0, 0, 17, 13}},
                {5, 4, 13, 17, {0, 0, 4, 5}},
                {9, 9, 20, 4, {0, 0, 9, 9}},
                {2, 3, 7, 7, {0, 0, 3, 2}},
                {40, 30, 8, 8, {3, 2, 24.5, 24.5}},
                {30, 40, 8, 8, {15.5, 29.25, 20.5, 0.5}},
                {1, 1, 4, 4, {0, 0, 1, 1}},
                {50, 3, 49, 3, {0, 0, 3, 50}},
                {12, 12, 5, 5, {0.75, 1.25, 11.25, 10}}};
    for (const auto &r : rows) {
        Picture p = Picture::noise(r.in_h, r.in_w, 3);
        Picture q = resized(p, r.out_h, r.out_w, r.part);
        for (int64_t y = 0; y < r.out_h; y++)
            for (int64_t x = 0; x < r.out_w; x++)
                for (int c = 0; c < 3; c++) {
                    double sum = 0;
                    for (int64_t i = 0; i < r.in_h; i++)
                        for (int64_t k = 0; k < r.in_w; k++)
                            sum += weight(r.in_h, r.part.top, r.part.height, r.out_h, y, i) *
                                   weight(r.in_w, r.part.left, r.part.width, r.out_w, x, k) *
                                   p.at(i, k, c);
                    ASSERT_NEAR(q.at(y, x, c), std::clamp(sum, 0.0, 255.0), 0.501)
                        << r.in_h << "x" << r.in_w << " at " << y << "," << x;
                }
    }
}

TEST(Resize, RefusesWhatIsNoPart) {
    Picture p = Picture::noise(4, 6, 1);
    const tw_image image = p.image();
    tw_image out;
    for (tw_image_part part : {tw_image_part{0, 0, 7, 4},
                               {-1, 0, 4, 4},
                               {0, 1, 6, 4},
                               {0, 0, 0, 4},
                               {0, 0, NAN, 4},
                               {INFINITY, 0, 1, 1}}) {
        EXPECT_EQ(tw_image_resize(nullptr, &image, &part, 2, 2, &out), TW_ERROR_ARGUMENT);
        EXPECT_EQ(out.pixels, nullptr);
    }
    const tw_image_part whole = {0, 0, 6, 4};
    EXPECT_EQ(tw_image_resize(nullptr, &image, &whole, 0, 2, &out), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_image_resize(nullptr, &image, &whole, INT64_MAX, 2, &out), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_image_resize(nullptr, &image, &whole, 1 << 20, 1 << 20, &out), TW_ERROR_ARGUMENT);
}

TEST(Resize, ConvertsChannels) {
    const uint8_t colours[] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 10, 10, 10};
    tw_image image = {5, 1, 3, static_cast<uint8_t *>(tw_allocate(nullptr, sizeof colours, 1))};
    std::copy(std::begin(colours), std::end(colours), image.pixels);
    ASSERT_EQ(tw_image_set_channels(nullptr, &image, 1), TW_OK);
    EXPECT_EQ(std::vector<int>(image.pixels, image.pixels + 5),
              (std::vector<int>{76, 150, 29, 255, 10}));
    EXPECT_EQ(image.channels, 1);
    ASSERT_EQ(tw_image_set_channels(nullptr, &image, 3), TW_OK);
    EXPECT_EQ(std::vector<int>(image.pixels + 3, image.pixels + 9),
              (std::vector<int>{150, 150, 150, 29, 29, 29}));
    tw_image_free(nullptr, &image);
}

// A picture whose red is its column, green its row.
Picture places(int64_t h, int64_t w) {
    Picture p(h, w, 3);
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) p.at(y, x, 0) = uint8_t(x), p.at(y, x, 1) = uint8_t(y);
    return p;
}

Picture fitted(Picture in, int64_t h, int64_t w, tw_crop crop, int64_t index = 0, uint64_t seed = 0,
               int channels = 3) {
    const tw_fit fit = {h, w, channels, crop, seed};
    Picture out(h, w, channels);
    std::fill(out.data.begin(), out.data.end(), uint8_t(99));
    tw_image image = {in.width, in.height, in.channels,
                      static_cast<uint8_t *>(tw_allocate(nullptr, in.data.size(), 1))};
    std::copy(in.data.begin(), in.data.end(), image.pixels);
    EXPECT_EQ(tw_fit_picture(nullptr, &fit, index, &image, out.data.data()), TW_OK) << error();
    tw_image_free(nullptr, &image);
    return out;
}

TEST(Fit, CropsTheMiddle) {
    // Four times as large, 160x64 of it: the middle 64x64 of a picture of 100 columns.
    Picture p = fitted(places(64, 160), 16, 16, TW_CROP_CENTER);
    for (int64_t i = 0; i < 16; i++) {
        EXPECT_EQ(p.at(3, i, 0), 48 + 4 * i + 2); // mean of 4 columns, a half rounded up
        EXPECT_EQ(p.at(i, 3, 1), 4 * i + 2);
    }
    // Of the wanted size: copied, not blurred.
    Picture q = fitted(places(40, 33), 32, 32, TW_CROP_CENTER);
    EXPECT_EQ(q.at(0, 0, 0), 0);
    EXPECT_LE(std::abs(q.at(0, 0, 1) - 3), 1); // 33 columns to 32
    Picture r = fitted(places(32, 65), 32, 32, TW_CROP_CENTER);
    for (int64_t i = 0; i < 32; i++) EXPECT_EQ(r.at(i, i, 0), 16 + i);
    // Shapes that are not square.
    Picture s = fitted(places(60, 60), 10, 30, TW_CROP_CENTER);
    EXPECT_EQ(s.at(0, 0, 1), 21); // rows 20 and 21
    EXPECT_EQ(s.at(9, 29, 1), 39);
    EXPECT_EQ(s.at(9, 29, 0), 59);
}

TEST(Fit, CropsAtRandomButTheSameAgain) {
    int low = 0, high = 0;
    for (int64_t i = 0; i < 200; i++) {
        Picture p = fitted(places(8, 72), 8, 8, TW_CROP_RANDOM, i);
        const int left = p.at(0, 0, 0);
        for (int64_t x = 0; x < 8; x++) ASSERT_EQ(p.at(0, x, 0), left + x);
        ASSERT_LE(left, 64);
        low += left < 8;
        high += left > 56;
        EXPECT_EQ(fitted(places(8, 72), 8, 8, TW_CROP_RANDOM, i).data, p.data);
    }
    EXPECT_GT(low, 8); // 200 / 8 expected
    EXPECT_GT(high, 8);
    EXPECT_NE(fitted(places(8, 72), 8, 8, TW_CROP_RANDOM, 0, 0).data,
              fitted(places(8, 72), 8, 8, TW_CROP_RANDOM, 0, 1).data);
}

TEST(Fit, StretchesAndPads) {
    Picture p = fitted(places(16, 64), 16, 16, TW_CROP_STRETCH);
    EXPECT_EQ(p.at(0, 15, 0), 62);
    EXPECT_EQ(p.at(15, 0, 1), 15);
    Picture white(16, 64, 1);
    std::fill(white.data.begin(), white.data.end(), uint8_t(255));
    Picture q = fitted(white, 16, 16, TW_CROP_PAD);
    for (int64_t y = 0; y < 16; y++)
        for (int64_t x = 0; x < 16; x++) EXPECT_EQ(q.at(y, x, 1), y >= 6 && y < 10 ? 255 : 0) << y;
    // So narrow that nothing would be left of it.
    Picture r = fitted(Picture(1, 1000, 3), 8, 8, TW_CROP_PAD);
    EXPECT_EQ(r.data, std::vector<uint8_t>(8 * 8 * 3, 0));
    EXPECT_EQ(fitted(white, 4, 4, TW_CROP_CENTER, 0, 0, 1).data, std::vector<uint8_t>(16, 255));
}

TEST(Fit, ReducedPicturesStayLargeEnough) {
    EXPECT_EQ(tw_fit_at_least(std::vector<tw_fit>{{32, 48, 3, TW_CROP_CENTER, 0}}.data()), 96);
}

} // namespace
