#include <gtest/gtest.h>
#include <png.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

extern "C" {
#include "io/png.h"
}
#include "support/tempdir.h"

using tw_test::read_file;
using tw_test::TempDir;
using tw_test::write_file;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

struct Picture {
    Picture(int64_t width, int64_t height, int channels)
        : pixels(static_cast<size_t>(width * height * channels)), image{width, height, channels,
                                                                        pixels.data()} {
        tw_test::Random random(4);
        for (uint8_t &p : pixels) p = static_cast<uint8_t>(random.next() >> 40);
    }
    std::vector<uint8_t> pixels;
    tw_image image;
};

TEST(Png, RoundTripsGreyAndColour) {
    TempDir dir;
    for (int channels : {1, 3}) {
        Picture p(13, 7, channels);
        const std::string path = dir.file("a.png");
        ASSERT_EQ(tw_png_write(nullptr, path.c_str(), &p.image), TW_OK) << error();
        tw_image back;
        ASSERT_EQ(tw_png_read(nullptr, path.c_str(), &back), TW_OK) << error();
        EXPECT_EQ(back.width, 13);
        EXPECT_EQ(back.height, 7);
        ASSERT_EQ(back.channels, channels);
        EXPECT_EQ(std::vector<uint8_t>(back.pixels, back.pixels + p.pixels.size()), p.pixels);
        tw_image_free(nullptr, &back);
        EXPECT_EQ(back.pixels, nullptr);
    }
}

// Writes with libpng directly, in a form that our writer does not have.
void write_raw(const std::string &path, int width, int height, int depth, int type, int interlace,
               const std::vector<std::vector<uint8_t>> &rows) {
    FILE *file = fopen(path.c_str(), "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, file);
    png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height),
                 depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    const png_color palette[2] = {{10, 20, 30}, {200, 100, 0}};
    if (type == PNG_COLOR_TYPE_PALETTE) png_set_PLTE(png, info, palette, 2);
    png_write_info(png, info);
    for (int pass = png_set_interlace_handling(png); pass > 0; pass--)
        for (const auto &row : rows) png_write_row(png, row.data());
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(file);
}

std::vector<int> read_pixels(const std::string &path, int channels) {
    tw_image image;
    EXPECT_EQ(tw_png_read(nullptr, path.c_str(), &image), TW_OK) << error();
    EXPECT_EQ(image.channels, channels);
    std::vector<int> out(image.pixels, image.pixels + image.width * image.height * image.channels);
    tw_image_free(nullptr, &image);
    return out;
}

TEST(Png, ReadsEveryColourType) {
    TempDir dir;
    const std::string path = dir.file("a.png");
    write_raw(path, 2, 1, 16, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, {{0x80, 0x80, 0xff, 0xff}});
    EXPECT_EQ(read_pixels(path, 1), (std::vector<int>{128, 255}));
    write_raw(path, 1, 1, 16, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, {{0, 0, 1, 1, 255, 255}});
    EXPECT_EQ(read_pixels(path, 3), (std::vector<int>{0, 1, 255}));
    write_raw(path, 8, 1, 1, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, {{0xa0}});
    EXPECT_EQ(read_pixels(path, 1), (std::vector<int>{255, 0, 255, 0, 0, 0, 0, 0}));
    write_raw(path, 2, 1, 8, PNG_COLOR_TYPE_PALETTE, PNG_INTERLACE_NONE, {{1, 0}});
    EXPECT_EQ(read_pixels(path, 3), (std::vector<int>{200, 100, 0, 10, 20, 30}));
    write_raw(path, 1, 1, 8, PNG_COLOR_TYPE_GRAY_ALPHA, PNG_INTERLACE_NONE, {{77, 3}});
    // Laid on white: (77 * 3 + 255 * 252) / 255 = 252.9.
    EXPECT_EQ(read_pixels(path, 1), (std::vector<int>{253}));
    write_raw(path, 1, 1, 8, PNG_COLOR_TYPE_RGB_ALPHA, PNG_INTERLACE_NONE, {{7, 8, 9, 0}});
    EXPECT_EQ(read_pixels(path, 3), (std::vector<int>{255, 255, 255}));
    write_raw(path, 3, 1, 8, PNG_COLOR_TYPE_RGB_ALPHA, PNG_INTERLACE_NONE,
              {{7, 8, 9, 255, 0, 100, 200, 51, 1, 2, 3, 128}});
    EXPECT_EQ(read_pixels(path, 3), (std::vector<int>{7, 8, 9, 204, 224, 244, 128, 128, 129}));
    write_raw(path, 3, 3, 8, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_ADAM7,
              {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}});
    EXPECT_EQ(read_pixels(path, 1), (std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(Png, RefusesBadFiles) {
    TempDir dir;
    const std::string path = dir.file("a.png");
    tw_image image;
    EXPECT_EQ(tw_png_read(nullptr, path.c_str(), &image), TW_ERROR_IO);
    write_file(path, "GIF89a, perhaps");
    EXPECT_EQ(tw_png_read(nullptr, path.c_str(), &image), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), path + ": not a PNG file");
    Picture p(5, 4, 3);
    ASSERT_EQ(tw_png_write(nullptr, path.c_str(), &p.image), TW_OK);
    const std::string good = read_file(path);
    for (size_t n = 1; n < good.size(); n++) {
        write_file(path, good.substr(0, n));
        EXPECT_EQ(tw_png_read(nullptr, path.c_str(), &image), TW_ERROR_FORMAT) << n;
        EXPECT_EQ(image.pixels, nullptr);
        if (n >= 8) {
            EXPECT_EQ(error(), path + ": PNG: the file is cut short");
        }
    }
    std::string damaged = good;
    damaged[45] = static_cast<char>(damaged[45] ^ 0x55); // within the pixels: the checksum tells
    write_file(path, damaged);
    EXPECT_EQ(tw_png_read(nullptr, path.c_str(), &image), TW_ERROR_FORMAT);
}

TEST(Png, MutatedFilesNeverBreakIt) {
    TempDir dir;
    const std::string path = dir.file("a.png");
    Picture p(6, 5, 3);
    ASSERT_EQ(tw_png_write(nullptr, path.c_str(), &p.image), TW_OK);
    const std::string good = read_file(path);
    tw_test::Random random(5);
    for (int i = 0; i < 3000; i++) {
        const std::string bad = tw_test::mutate(good, random);
        tw_image image;
        if (tw_png_decode(nullptr, "a", bad.data(), bad.size(), &image) == TW_OK)
            tw_image_free(nullptr, &image);
        EXPECT_EQ(image.pixels, nullptr);
    }
}

TEST(Png, WritesWholeOrNotAtAll) {
    TempDir dir;
    const std::string path = dir.file("a.png");
    write_file(path, "old");
    Picture p(300, 300, 3), wide(1, 1, 1);
    wide.image.width = 0;
    EXPECT_EQ(tw_png_write(nullptr, path.c_str(), &wide.image), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_png_write(nullptr, dir.file("no/a.png").c_str(), &p.image), TW_ERROR_IO);
    rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 70000;
    auto handler = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const tw_status s = tw_png_write(nullptr, path.c_str(), &p.image);
    const std::string text = error();
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    EXPECT_EQ(s, TW_ERROR_IO);
    EXPECT_EQ(text, path + ": cannot write: File too large");
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(dir.entries(), 1u);
}

TEST(Image, GridPlacesEveryPicture) {
    // Five pictures of 2x3: three columns, two rows, gaps of two around and between.
    std::vector<float> values;
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < 6; k++)
            values.push_back(static_cast<float>((i * 6 + k + 1) * 2 - 255) / 255);
    tw_image image;
    ASSERT_EQ(tw_image_grid(nullptr, values.data(), 5, 2, 3, 1, 0, 2, &image), TW_OK);
    ASSERT_EQ(image.width, 3 * 5 + 2);
    ASSERT_EQ(image.height, 2 * 4 + 2);
    std::vector<int> expected(static_cast<size_t>(image.width * image.height), 0);
    for (int i = 0; i < 5; i++)
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 3; x++)
                expected[static_cast<size_t>((2 + i / 3 * 4 + y) * 17 + 2 + i % 3 * 5 + x)] =
                    i * 6 + y * 3 + x + 1;
    EXPECT_EQ(std::vector<int>(image.pixels, image.pixels + expected.size()), expected);
    tw_image_free(nullptr, &image);
}

TEST(Image, LevelsAreRoundedAndClamped) {
    const float values[8] = {-1, 1, 0, -1.5f, 7, NAN, -1 + 0.9f / 255, -1 + 1.1f / 255};
    tw_image image;
    ASSERT_EQ(tw_image_grid(nullptr, values, 1, 1, 8, 1, 1, 0, &image), TW_OK);
    EXPECT_EQ(std::vector<int>(image.pixels, image.pixels + 8),
              (std::vector<int>{0, 255, 128, 0, 255, 0, 0, 1}));
    tw_image_free(nullptr, &image);
    // Each of the 256 levels comes back from the value that stands for it.
    for (int i = 0; i < 256; i++) {
        const float value = static_cast<float>((2.0 * i - 255.0) / 255.0);
        ASSERT_EQ(tw_image_grid(nullptr, &value, 1, 1, 1, 1, 1, 0, &image), TW_OK);
        EXPECT_EQ(image.pixels[0], i);
        tw_image_free(nullptr, &image);
    }
}

TEST(Image, RefusesBadSizes) {
    const float v = 0;
    tw_image image;
    EXPECT_EQ(tw_image_grid(nullptr, &v, 1, 1, 1, 2, 0, 0, &image), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_image_grid(nullptr, &v, 0, 1, 1, 1, 0, 0, &image), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_image_grid(nullptr, &v, 1, INT64_MAX, INT64_MAX, 1, 0, 2, &image),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), "image grid: the size does not fit 63 bits");
}

} // namespace
