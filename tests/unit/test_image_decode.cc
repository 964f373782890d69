// Pictures from memory: JPEG, PNG, and what claims to be one.
#include <gtest/gtest.h>
#include <turbojpeg.h>

#include <cmath>
#include <string>
#include <vector>

extern "C" {
#include "io/image.h"
#include "io/jpeg.h"
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

// A soft slope in every channel, which JPEG keeps well.
std::vector<uint8_t> slope(int width, int height, int channels) {
    std::vector<uint8_t> p;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                p.push_back(
                    static_cast<uint8_t>(20 + 200 * (c == 1 ? y : x) / (c == 1 ? height : width)));
    return p;
}

std::string jpeg(const std::vector<uint8_t> &pixels, int width, int height, int format,
                 int sampling, int flags = 0) {
    tjhandle h = tjInitCompress();
    unsigned char *bytes = nullptr;
    unsigned long size = 0;
    EXPECT_EQ(
        tjCompress2(h, pixels.data(), width, 0, height, format, &bytes, &size, sampling, 95, flags),
        0)
        << tjGetErrorStr2(h);
    std::string out(reinterpret_cast<char *>(bytes), size);
    tjFree(bytes);
    tjDestroy(h);
    return out;
}

std::string png(const std::vector<uint8_t> &pixels, int width, int height, int channels) {
    TempDir dir;
    std::vector<uint8_t> copy = pixels;
    const tw_image image = {width, height, channels, copy.data()};
    EXPECT_EQ(tw_png_write(nullptr, dir.file("a.png").c_str(), &image), TW_OK) << error();
    return read_file(dir.file("a.png"));
}

class Decoded {
  public:
    explicit Decoded(const std::string &bytes, int64_t at_least = 0)
        : status(tw_image_decode_reduced(nullptr, "a picture", bytes.data(), bytes.size(), at_least,
                                         &image)) {}
    ~Decoded() { tw_image_free(nullptr, &image); }
    int at(int64_t x, int64_t y, int c) const {
        return image.pixels[(y * image.width + x) * image.channels + c];
    }
    tw_image image;
    tw_status status;
};

TEST(Jpeg, DecodesGreyAndColour) {
    const std::vector<uint8_t> colour = slope(21, 13, 3), grey = slope(21, 13, 1);
    for (int flags : {0, TJFLAG_PROGRESSIVE})
        for (int sampling : {TJSAMP_444, TJSAMP_420}) {
            Decoded d(jpeg(colour, 21, 13, TJPF_RGB, sampling, flags));
            ASSERT_EQ(d.status, TW_OK) << error();
            EXPECT_EQ(d.image.width, 21);
            EXPECT_EQ(d.image.height, 13);
            ASSERT_EQ(d.image.channels, 3);
            for (size_t i = 0; i < colour.size(); i++)
                ASSERT_NEAR(d.image.pixels[i], colour[i], 12) << i;
        }
    Decoded d(jpeg(grey, 21, 13, TJPF_GRAY, TJSAMP_GRAY));
    ASSERT_EQ(d.status, TW_OK) << error();
    ASSERT_EQ(d.image.channels, 1);
    for (size_t i = 0; i < grey.size(); i++) ASSERT_NEAR(d.image.pixels[i], grey[i], 4) << i;
}

TEST(Jpeg, ReducesWhileBothSidesStayLarge) {
    const std::string bytes = jpeg(slope(200, 120, 3), 200, 120, TJPF_RGB, TJSAMP_444);
    const struct {
        int64_t at_least, width, height;
    } rows[] = {{0, 200, 120}, {61, 200, 120}, {60, 100, 60},   {30, 50, 30},
                {15, 25, 15},  {1, 25, 15},    {120, 200, 120}, {5000, 200, 120}};
    for (const auto &row : rows) {
        Decoded d(bytes, row.at_least);
        ASSERT_EQ(d.status, TW_OK) << error();
        EXPECT_EQ(d.image.width, row.width) << row.at_least;
        EXPECT_EQ(d.image.height, row.height) << row.at_least;
        // Each pixel is the mean of the square that it stands for: the slope's value there.
        const int64_t x = row.width / 2, y = row.height / 4;
        EXPECT_NEAR(d.at(x, y, 0), 20 + 200 * (double(x) + 0.5) / double(row.width), 6);
        EXPECT_NEAR(d.at(x, y, 1), 20 + 200 * (double(y) + 0.5) / double(row.height), 6);
    }
}

TEST(Jpeg, RefusesCmyk) {
    Decoded d(jpeg(slope(8, 8, 4), 8, 8, TJPF_CMYK, TJSAMP_444));
    EXPECT_EQ(d.status, TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "a picture: JPEG: the colours are CMYK, expected grey or RGB");
    EXPECT_EQ(d.image.pixels, nullptr);
}

TEST(Jpeg, RefusesWhatIsCutShort) {
    for (int flags : {0, TJFLAG_PROGRESSIVE}) {
        const std::string good = jpeg(slope(40, 30, 3), 40, 30, TJPF_RGB, TJSAMP_420, flags);
        ASSERT_EQ(Decoded(good).status, TW_OK);
        for (size_t n = 0; n < good.size(); n++) {
            Decoded d(good.substr(0, n));
            ASSERT_EQ(d.status, TW_ERROR_FORMAT) << n << " of " << good.size();
            EXPECT_EQ(d.image.pixels, nullptr);
            EXPECT_EQ(error().rfind("a picture: ", 0), 0u) << error();
        }
    }
}

// An Exif segment that names an orientation, after an entry of another kind.
std::string exif(int orientation, bool big, uint32_t directory = 8, uint16_t entries = 2) {
    std::string t = big ? std::string("MM\0*", 4) : std::string("II*\0", 4);
    const auto put = [&](uint32_t v, int n) {
        for (int i = 0; i < n; i++) t += char(v >> 8 * (big ? n - 1 - i : i));
    };
    put(directory, 4);
    put(entries, 2);
    put(0x010f, 2), put(2, 2), put(1, 4), put(0, 4);
    put(0x0112, 2), put(3, 2), put(1, 4), put(uint32_t(orientation), 2), put(0, 2);
    put(0, 4);
    const std::string body = std::string("Exif\0\0", 6) + t;
    const size_t n = body.size() + 2;
    return std::string("\xff\xe1") + char(n >> 8) + char(n) + body;
}

TEST(Jpeg, TurnsPicturesUpright) {
    // Red grows to the right, green downwards, in the camera's own rows and columns.
    const std::string plain = jpeg(slope(32, 16, 3), 32, 16, TJPF_RGB, TJSAMP_444);
    // For each orientation: whether the sides swap, and where the red and the green end up growing.
    const struct {
        bool swaps;
        int red, green; // 1: right or down, -1: left or up; red runs along y where the sides swap
    } rows[] = {{false, 1, 1}, {false, -1, 1}, {false, -1, -1}, {false, 1, -1},
                {true, 1, 1},  {true, 1, -1},  {true, -1, -1},  {true, -1, 1}};
    for (int o = 1; o <= 8; o++)
        for (bool big : {false, true}) {
            std::string bytes = plain;
            bytes.insert(2, exif(o, big));
            Decoded d(bytes);
            ASSERT_EQ(d.status, TW_OK) << error();
            const bool swaps = rows[o - 1].swaps;
            ASSERT_EQ(d.image.width, swaps ? 16 : 32) << o;
            ASSERT_EQ(d.image.height, swaps ? 32 : 16) << o;
            const int64_t x = d.image.width - 1, y = d.image.height - 1;
            const int red = swaps ? d.at(0, y, 0) - d.at(0, 0, 0) : d.at(x, 0, 0) - d.at(0, 0, 0);
            const int green = swaps ? d.at(x, 0, 1) - d.at(0, 0, 1) : d.at(0, y, 1) - d.at(0, 0, 1);
            EXPECT_GT(red * rows[o - 1].red, 150) << o;
            EXPECT_GT(green * rows[o - 1].green, 150) << o;
        }
}

TEST(Jpeg, NonsenseInExifIsUpright) {
    const std::string plain = jpeg(slope(32, 16, 3), 32, 16, TJPF_RGB, TJSAMP_444);
    for (const std::string &segment : {exif(0, true), exif(9, false), exif(6, true, 0xffffffff),
                                       exif(6, true, 45), exif(6, false, 200), exif(6, true, 8, 1),
                                       std::string("\xff\xe1\0\x08"
                                                   "Exif\0\0",
                                                   10)}) {
        std::string bytes = plain;
        bytes.insert(2, segment);
        Decoded d(bytes);
        ASSERT_EQ(d.status, TW_OK) << error();
        EXPECT_EQ(d.image.width, 32);
    }
    tw_test::Random random(9);
    std::string good = plain;
    good.insert(2, exif(6, true));
    for (int i = 0; i < 500; i++)
        Decoded(tw_test::mutate(good.substr(0, 90), random) + good.substr(90));
}

// Writes a size into the header of a JPEG.
std::string sized(std::string bytes, int width, int height) {
    size_t at = bytes.find("\xff\xc0");
    EXPECT_NE(at, std::string::npos);
    bytes[at + 5] = static_cast<char>(height >> 8);
    bytes[at + 6] = static_cast<char>(height);
    bytes[at + 7] = static_cast<char>(width >> 8);
    bytes[at + 8] = static_cast<char>(width);
    return bytes;
}

TEST(Jpeg, RefusesSizesThatTheFileCannotHold) {
    const std::string good = jpeg(slope(8, 8, 3), 8, 8, TJPF_RGB, TJSAMP_444);
    EXPECT_EQ(Decoded(sized(good, 65500, 65500)).status, TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), "a picture: JPEG: more than 2^30 bytes of pixels");
    EXPECT_EQ(Decoded(sized(good, 15000, 15000)).status, TW_ERROR_FORMAT);
    EXPECT_NE(error().find("cannot hold the pixels"), std::string::npos) << error();
    EXPECT_EQ(Decoded(sized(good, 0, 8)).status, TW_ERROR_FORMAT);
    EXPECT_EQ(Decoded(sized(good, 64, 64)).status, TW_ERROR_FORMAT);
}

// An IHDR with another size and a checksum that fits it.
std::string png_sized(std::string bytes, uint32_t width, uint32_t height) {
    const uint32_t sizes[2] = {width, height};
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 4; k++)
            bytes[size_t(16 + 4 * i + k)] = static_cast<char>(sizes[i] >> (24 - 8 * k));
    uint32_t crc = 0xffffffffu;
    for (size_t i = 12; i < 29; i++) {
        crc ^= static_cast<uint8_t>(bytes[i]);
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    crc = ~crc;
    for (int k = 0; k < 4; k++) bytes[size_t(29 + k)] = static_cast<char>(crc >> (24 - 8 * k));
    return bytes;
}

TEST(PngMemory, RefusesSizesThatTheFileCannotHold) {
    const std::string good = png(slope(8, 8, 3), 8, 8, 3);
    ASSERT_EQ(Decoded(png_sized(good, 8, 8)).status, TW_OK) << error();
    EXPECT_EQ(Decoded(png_sized(good, 1000, 1000)).status, TW_ERROR_FORMAT);
    EXPECT_NE(error().find("cannot hold the pixels"), std::string::npos) << error();
    EXPECT_EQ(Decoded(png_sized(good, 1 << 20, 1 << 20)).status, TW_ERROR_UNSUPPORTED);
    for (uint32_t extent : {0u, (1u << 20) + 1, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
        EXPECT_EQ(Decoded(png_sized(good, extent, 8)).status, TW_ERROR_FORMAT) << extent;
        EXPECT_EQ(Decoded(png_sized(good, 8, extent)).status, TW_ERROR_FORMAT) << extent;
    }
    EXPECT_EQ(Decoded(png_sized(good, 8, 9)).status, TW_ERROR_FORMAT);
}

TEST(Decode, TellsTheFormatByTheFirstBytes) {
    const std::vector<uint8_t> pixels = slope(6, 5, 3);
    Decoded d(png(pixels, 6, 5, 3));
    ASSERT_EQ(d.status, TW_OK) << error();
    EXPECT_EQ(std::vector<uint8_t>(d.image.pixels, d.image.pixels + pixels.size()), pixels);
    EXPECT_EQ(Decoded(jpeg(pixels, 6, 5, TJPF_RGB, TJSAMP_444)).status, TW_OK);
    for (const std::string &bytes : {std::string(), std::string("\xff\xd8"), std::string("\x89PNG"),
                                     std::string("GIF89a and so on"), std::string(100, '\0')}) {
        Decoded bad(bytes);
        EXPECT_EQ(bad.status, TW_ERROR_FORMAT);
        EXPECT_EQ(error(), "a picture: neither a PNG nor a JPEG file");
        EXPECT_EQ(bad.image.pixels, nullptr);
        tw_image image;
        EXPECT_EQ(tw_png_decode(nullptr, "x", bytes.data(), bytes.size(), &image), TW_ERROR_FORMAT);
        EXPECT_EQ(error(), "x: not a PNG file");
        EXPECT_EQ(tw_jpeg_decode(nullptr, "x", bytes.data(), bytes.size(), 0, &image),
                  TW_ERROR_FORMAT);
        EXPECT_EQ(error(), "x: not a JPEG file");
    }
}

TEST(Decode, ReadsFiles) {
    TempDir dir;
    tw_image image;
    write_file(dir.file("a"), jpeg(slope(6, 5, 3), 6, 5, TJPF_RGB, TJSAMP_444));
    ASSERT_EQ(tw_image_read(nullptr, dir.file("a").c_str(), 0, &image), TW_OK) << error();
    EXPECT_EQ(image.width, 6);
    tw_image_free(nullptr, &image);
    write_file(dir.file("b"), "");
    EXPECT_EQ(tw_image_read(nullptr, dir.file("b").c_str(), 0, &image), TW_ERROR_IO);
    EXPECT_EQ(error(), dir.file("b") + ": the file is empty");
    EXPECT_EQ(tw_image_read(nullptr, dir.path().c_str(), 0, &image), TW_ERROR_IO);
}

TEST(Decode, MutatedFilesNeverBreakIt) {
    tw_test::Random random(6);
    const std::string goods[] = {
        jpeg(slope(20, 15, 3), 20, 15, TJPF_RGB, TJSAMP_420),
        jpeg(slope(20, 15, 3), 20, 15, TJPF_RGB, TJSAMP_444, TJFLAG_PROGRESSIVE),
        jpeg(slope(20, 15, 1), 20, 15, TJPF_GRAY, TJSAMP_GRAY), png(slope(9, 7, 3), 9, 7, 3)};
    for (const std::string &good : goods)
        for (int i = 0; i < 1000; i++) {
            Decoded d(tw_test::mutate(good, random), i % 3 ? 0 : 2);
            EXPECT_EQ(d.image.pixels != nullptr, d.status == TW_OK);
        }
}

// An allocator that fails from its n-th call on, and knows what is still out.
struct Failing {
    int left, out;
    static void *take(void *user, size_t bytes, size_t alignment) {
        Failing *f = static_cast<Failing *>(user);
        if (f->left-- <= 0) return nullptr;
        f->out++;
        return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void give(void *user, void *memory) {
        static_cast<Failing *>(user)->out--;
        free(memory);
    }
};

TEST(Decode, SurvivesEveryFailedAllocation) {
    const std::string goods[] = {jpeg(slope(20, 15, 3), 20, 15, TJPF_RGB, TJSAMP_420),
                                 png(slope(9, 7, 3), 9, 7, 3)};
    for (const std::string &good : goods) {
        Failing state = {1 << 30, 0};
        const tw_allocator allocator = {Failing::take, Failing::give, &state};
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.allocator = &allocator;
        options.threads = 1;
        tw_context *ctx = nullptr;
        ASSERT_EQ(tw_context_create(&options, &ctx), TW_OK);
        const int before = state.out;
        tw_status s = TW_ERROR_MEMORY;
        int n = 0;
        for (; s != TW_OK && n < 1000; n++) {
            tw_image image;
            state.left = n;
            s = tw_image_decode(ctx, "a", good.data(), good.size(), &image);
            if (s == TW_OK)
                tw_image_free(ctx, &image);
            else
                EXPECT_EQ(s, TW_ERROR_MEMORY) << n << ": " << tw_context_error(ctx);
            EXPECT_EQ(state.out, before) << n;
        }
        EXPECT_EQ(s, TW_OK);
        EXPECT_GT(n, 1);
        state.left = 1 << 30;
        tw_context_free(ctx);
    }
}

} // namespace
