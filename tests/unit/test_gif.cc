#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <set>
#include <string>
#include <tuple>
#include <vector>

extern "C" {
#include "io/gif.h"
}
#include "support/gif.h"
#include "support/tempdir.h"

namespace {

using tw_test::TempDir;

using tw_test::Animation;
using tw_test::decode_gif;

class Gif : public testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK); }
    void TearDown() override { tw_context_free(ctx); }

    // Writes one picture a frame, with the delays 1, 2, ...
    tw_status write(const std::string &path, int64_t width, int64_t height, int channels,
                    std::vector<std::vector<uint8_t>> pictures) {
        tw_gif_writer *w = nullptr;
        tw_status s = tw_gif_writer_open(ctx, path.c_str(), width, height, channels, &w);
        int delay = 1;
        for (std::vector<uint8_t> &pixels : pictures) {
            if (s != TW_OK) break;
            const tw_image image = {width, height, channels, pixels.data()};
            s = tw_gif_writer_append(w, &image, delay++);
        }
        if (s == TW_OK) return tw_gif_writer_commit(w);
        tw_gif_writer_abort(w);
        return s;
    }

    tw_context *ctx = nullptr;
    TempDir dir;
};

TEST_F(Gif, GreyIsKeptToTheBit) {
    const int64_t width = 37, height = 16;
    std::vector<std::vector<uint8_t>> frames(3, std::vector<uint8_t>(width * height));
    for (size_t f = 0; f < frames.size(); f++)
        for (size_t i = 0; i < frames[f].size(); i++) frames[f][i] = uint8_t(i * (f + 1) + 5 * f);
    ASSERT_EQ(write(dir.file("a.gif"), width, height, 1, frames), TW_OK) << tw_context_error(ctx);
    const Animation a = decode_gif(dir.file("a.gif"));
    EXPECT_EQ(a.width, width);
    EXPECT_EQ(a.height, height);
    EXPECT_TRUE(a.forever);
    ASSERT_EQ(a.frames.size(), frames.size());
    for (size_t f = 0; f < frames.size(); f++) {
        EXPECT_EQ(a.frames[f].delay, int(f) + 1);
        ASSERT_EQ(a.frames[f].rgb.size(), 3 * frames[f].size());
        for (size_t i = 0; i < a.frames[f].rgb.size(); i++)
            ASSERT_EQ(a.frames[f].rgb[i], frames[f][i / 3]) << f << " " << i;
    }
}

TEST_F(Gif, UpTo256ColoursAreKeptToTheBit) {
    const int64_t width = 40, height = 30;
    for (int colours : {1, 2, 3, 17, 255, 256}) {
        std::vector<uint8_t> pixels;
        for (int i = 0; i < width * height; i++) {
            const uint32_t c = uint32_t(i % colours) * 2654435769u;
            pixels.insert(pixels.end(), {uint8_t(c >> 24), uint8_t(c >> 16), uint8_t(c >> 8)});
        }
        ASSERT_EQ(write(dir.file("a.gif"), width, height, 3, {pixels}), TW_OK);
        const Animation a = decode_gif(dir.file("a.gif"));
        ASSERT_EQ(a.frames.size(), 1u);
        EXPECT_EQ(a.frames[0].rgb, pixels) << colours;
    }
}

TEST_F(Gif, MoreColoursComeCloseAndWhiteStaysWhite) {
    const int64_t side = 64;
    std::vector<uint8_t> pixels;
    for (int i = 0; i < side * side; i++) {
        const int x = i % side, y = i / side;
        if (y < 16)
            pixels.insert(pixels.end(), {255, 255, 255});
        else
            pixels.insert(pixels.end(), {uint8_t(4 * x), uint8_t(4 * y), uint8_t(255 - 4 * x)});
    }
    ASSERT_EQ(write(dir.file("a.gif"), side, side, 3, {pixels, pixels}), TW_OK);
    const Animation a = decode_gif(dir.file("a.gif"));
    ASSERT_EQ(a.frames.size(), 2u);
    const std::vector<uint8_t> &got = a.frames[0].rgb;
    ASSERT_EQ(got.size(), pixels.size());
    std::set<uint32_t> colours;
    double sum = 0, worst = 0;
    for (size_t i = 0; i < got.size(); i++) {
        const double d = std::abs(int(got[i]) - int(pixels[i]));
        sum += d;
        worst = std::max(worst, d);
        if (i < 16 * 64 * 3) {
            ASSERT_EQ(got[i], 255) << i;
        }
    }
    for (size_t i = 0; i < got.size(); i += 3)
        colours.insert(uint32_t(got[i]) << 16 | uint32_t(got[i + 1]) << 8 | got[i + 2]);
    EXPECT_LE(colours.size(), 256u);
    EXPECT_GT(colours.size(), 200u);
    EXPECT_LE(worst, 40);
    EXPECT_LE(sum / double(got.size()), 4);
    EXPECT_EQ(a.frames[1].rgb, got);
}

TEST_F(Gif, WhatDoesNotFitIsRefused) {
    tw_gif_writer *w = nullptr;
    for (const auto &[width, height, channels] : std::vector<std::tuple<int64_t, int64_t, int>>{
             {0, 4, 1}, {4, 0, 1}, {-1, 4, 3}, {65536, 4, 1}, {4, 4, 2}, {4, 4, 4}}) {
        EXPECT_EQ(tw_gif_writer_open(ctx, dir.file("a.gif").c_str(), width, height, channels, &w),
                  TW_ERROR_ARGUMENT);
        EXPECT_EQ(w, nullptr);
        EXPECT_NE(std::string(tw_context_error(ctx)).find("a.gif"), std::string::npos);
    }
    EXPECT_EQ(tw_gif_writer_open(ctx, dir.file("absent/a.gif").c_str(), 4, 4, 1, &w), TW_ERROR_IO);
    std::vector<uint8_t> pixels(64);
    const tw_image right = {4, 4, 1, pixels.data()};
    const tw_image wrong[] = {
        {5, 4, 1, pixels.data()}, {4, 3, 1, pixels.data()}, {4, 4, 3, pixels.data()}};
    ASSERT_EQ(tw_gif_writer_open(ctx, dir.file("a.gif").c_str(), 4, 4, 1, &w), TW_OK);
    for (const tw_image &image : wrong)
        EXPECT_EQ(tw_gif_writer_append(w, &image, 1), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_gif_writer_append(w, &right, -1), TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_gif_writer_append(w, &right, 65536), TW_ERROR_ARGUMENT);
    // None of these was a frame.
    EXPECT_EQ(tw_gif_writer_commit(w), TW_ERROR_ARGUMENT);
    EXPECT_EQ(dir.entries(), 0u);
}

TEST_F(Gif, AnAbortedOneLeavesNothing) {
    tw_gif_writer *w = nullptr;
    std::vector<uint8_t> pixels(300 * 300);
    for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t(i * i >> 3);
    const tw_image image = {300, 300, 1, pixels.data()};
    ASSERT_EQ(tw_gif_writer_open(ctx, dir.file("a.gif").c_str(), 300, 300, 1, &w), TW_OK);
    for (int f = 0; f < 4; f++) ASSERT_EQ(tw_gif_writer_append(w, &image, 4), TW_OK);
    tw_gif_writer_abort(w);
    tw_gif_writer_abort(nullptr);
    EXPECT_EQ(dir.entries(), 0u);
}

// A full disk, by a limit on the size of files: wherever it strikes, an old file stays.
TEST_F(Gif, AFullDiskIsReported) {
    tw_test::write_file(dir.file("a.gif"), "old");
    struct rlimit old;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, SIG_IGN);
    std::vector<uint8_t> pixels(300 * 300);
    for (size_t i = 0; i < pixels.size(); i++) pixels[i] = uint8_t((i * 2654435769u) >> 24);
    for (rlim_t limit : {rlim_t(0), rlim_t(100), rlim_t(100000)}) {
        const struct rlimit low = {limit, old.rlim_max};
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
        const tw_status s = write(dir.file("a.gif"), 300, 300, 1, {pixels, pixels, pixels});
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
        EXPECT_EQ(s, TW_ERROR_IO);
        EXPECT_NE(std::string(tw_context_error(ctx)).find("a.gif"), std::string::npos);
        EXPECT_EQ(tw_test::read_file(dir.file("a.gif")), "old");
        EXPECT_EQ(dir.entries(), 1u);
    }
}

// Memory that runs out at the nth request leaves a status and nothing else.
TEST_F(Gif, MemoryThatRunsOutIsReported) {
    struct Budget {
        int left;
    } budget = {0};
    const tw_allocator allocator = {
        [](void *user, size_t bytes, size_t alignment) -> void * {
            Budget *b = static_cast<Budget *>(user);
            if (b->left-- <= 0) return nullptr;
            return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
        },
        [](void *, void *memory) { std::free(memory); }, &budget};
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    options.allocator = &allocator;
    budget.left = 1 << 20;
    tw_context *small = nullptr;
    ASSERT_EQ(tw_context_create(&options, &small), TW_OK);
    std::vector<uint8_t> pixels(8 * 8 * 3);
    const tw_image image = {8, 8, 3, pixels.data()};
    bool done = false;
    for (int n = 0; !done && n < 100; n++) {
        budget.left = n;
        tw_gif_writer *w = nullptr;
        tw_status s = tw_gif_writer_open(small, dir.file("a.gif").c_str(), 8, 8, 3, &w);
        if (s == TW_OK) s = tw_gif_writer_append(w, &image, 1);
        if (s == TW_OK) s = tw_gif_writer_commit(w);
        done = s == TW_OK;
        if (!done) {
            EXPECT_EQ(s, TW_ERROR_MEMORY);
            EXPECT_EQ(dir.entries(), 0u);
        }
    }
    EXPECT_TRUE(done);
    budget.left = 1 << 20;
    tw_context_free(small);
}

} // namespace
