// Event files: the frames and messages, byte by byte against an independent reading of the format,
// and against a file that TensorBoard's own reader has read (tests/golden/tfevents.json).
#include <gtest/gtest.h>

#include <dirent.h>
#include <jansson.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include <tweedie/tweedie.h>
extern "C" {
#include "io/png.h"
#include "io/tfevents.h"
}

namespace {

using Bytes = std::string;

uint64_t little(const Bytes &b, size_t at, int n) {
    uint64_t v = 0;
    for (int i = 0; i < n; i++) v |= uint64_t(uint8_t(b[at + size_t(i)])) << (8 * i);
    return v;
}

// CRC-32C bit by bit.
uint32_t crc(const Bytes &b) {
    uint32_t c = 0xffffffffu;
    for (char byte : b) {
        c ^= uint8_t(byte);
        for (int i = 0; i < 8; i++) c = c & 1 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
    }
    return ~c;
}
uint32_t masked(const Bytes &b) {
    const uint32_t c = crc(b);
    return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

// The messages of a file; the frames are checked.
std::vector<Bytes> records(const Bytes &file) {
    std::vector<Bytes> all;
    for (size_t at = 0; at < file.size();) {
        EXPECT_LE(at + 12, file.size());
        const size_t n = little(file, at, 8);
        EXPECT_EQ(little(file, at + 8, 4), masked(file.substr(at, 8)));
        EXPECT_LE(at + n + 16, file.size());
        if (at + n + 16 > file.size()) break;
        all.push_back(file.substr(at + 12, n));
        EXPECT_EQ(little(file, at + 12 + n, 4), masked(all.back()));
        at += n + 16;
    }
    return all;
}

struct Field {
    int number, type;
    uint64_t whole; // types 0, 1 and 5
    Bytes bytes;    // type 2
};

std::vector<Field> fields(const Bytes &message) {
    std::vector<Field> all;
    size_t at = 0;
    auto varint = [&] {
        uint64_t v = 0;
        for (int shift = 0; at < message.size(); shift += 7) {
            const uint8_t b = uint8_t(message[at++]);
            v |= uint64_t(b & 127) << shift;
            if (b < 128) break;
        }
        return v;
    };
    while (at < message.size()) {
        const uint64_t key = varint();
        Field f = {int(key >> 3), int(key & 7), 0, {}};
        if (f.type == 0) {
            f.whole = varint();
        } else if (f.type == 2) {
            const size_t n = varint();
            f.bytes = message.substr(at, n);
            EXPECT_EQ(f.bytes.size(), n);
            at += n;
        } else {
            const int n = f.type == 1 ? 8 : 4;
            f.whole = little(message, at, n);
            at += size_t(n);
        }
        all.push_back(f);
    }
    return all;
}
Field field(const Bytes &message, int number) {
    for (const Field &f : fields(message))
        if (f.number == number) return f;
    return {0, 0, 0, {}};
}
float as_float(const Field &f) {
    const uint32_t bits = uint32_t(f.whole);
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

class Events : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK);
        char name[] = "/tmp/tweedie-events-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        dir = name;
    }
    void TearDown() override {
        tw_context_free(ctx);
        if (std::system(("rm -rf '" + dir + "'").c_str()) != 0) ADD_FAILURE() << dir;
    }
    std::vector<std::string> files() const {
        std::vector<std::string> names;
        DIR *d = opendir(dir.c_str());
        while (const struct dirent *e = readdir(d))
            if (e->d_name[0] != '.') names.push_back(e->d_name);
        closedir(d);
        std::sort(names.begin(), names.end());
        return names;
    }
    Bytes read(const std::string &name) const {
        std::ifstream file(dir + "/" + name, std::ios::binary);
        std::stringstream text;
        text << file.rdbuf();
        return text.str();
    }
    tw_tfevents *open(int64_t purge = -1) {
        tw_tfevents *e = nullptr;
        EXPECT_EQ(tw_tfevents_open(ctx, dir.c_str(), purge, &e), TW_OK) << tw_context_error(ctx);
        return e;
    }
    Bytes picture() {
        uint8_t pixels[2 * 3 * 3];
        for (int i = 0; i < 18; i++) pixels[i] = uint8_t(14 * i);
        const tw_image image = {3, 2, 3, pixels};
        EXPECT_EQ(tw_png_write(ctx, (dir + "/.p.png").c_str(), &image), TW_OK);
        return read(".p.png");
    }
    tw_context *ctx = nullptr;
    std::string dir;
};

TEST_F(Events, TheChecksumIsCastagnolis) {
    // RFC 3720, B.4.
    EXPECT_EQ(tw_crc32c("", 0), 0u);
    EXPECT_EQ(tw_crc32c("123456789", 9), 0xe3069283u);
    EXPECT_EQ(tw_crc32c(Bytes(32, '\0').data(), 32), 0x8a9136aau);
    EXPECT_EQ(tw_crc32c(Bytes(32, '\xff').data(), 32), 0x62a8ab43u);
}

TEST_F(Events, ScalarsArriveWithTheirTagsAndSteps) {
    tw_tfevents *e = open();
    const int64_t big = int64_t(1) << 40;
    const tw_tfevents_scalar scalars[] = {{"train/loss", 0.1234567}, {"train/lr", 1e-3}};
    ASSERT_EQ(tw_tfevents_scalars(e, 7, scalars, 2), TW_OK);
    const tw_tfevents_scalar odd[] = {{"a", std::nan("")},
                                      {"b", std::numeric_limits<double>::infinity()}};
    ASSERT_EQ(tw_tfevents_scalars(e, big, odd, 2), TW_OK);
    ASSERT_EQ(files().size(), 1u);
    EXPECT_EQ(files()[0].rfind("events.out.tfevents.", 0), 0u);
    const std::vector<Bytes> all = records(read(files()[0])); // before it is closed
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(field(all[0], 3).bytes, "brain.Event:2");
    double wall;
    const uint64_t bits = field(all[1], 1).whole;
    memcpy(&wall, &bits, 8);
    EXPECT_NEAR(wall, double(time(nullptr)), 100.0);
    EXPECT_EQ(field(all[1], 2).whole, 7u);
    const std::vector<Field> values = fields(field(all[1], 5).bytes);
    ASSERT_EQ(values.size(), 2u);
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(values[size_t(i)].number, 1);
        EXPECT_EQ(field(values[size_t(i)].bytes, 1).bytes, scalars[i].tag);
        EXPECT_EQ(as_float(field(values[size_t(i)].bytes, 2)), float(scalars[i].value));
    }
    EXPECT_EQ(field(all[2], 2).whole, uint64_t(big));
    EXPECT_TRUE(std::isnan(as_float(field(fields(field(all[2], 5).bytes)[0].bytes, 2))));
    tw_tfevents_close(e);
    tw_tfevents_close(nullptr);
}

TEST_F(Events, PicturesArriveWhole) {
    const Bytes png = picture();
    tw_tfevents *e = open();
    ASSERT_EQ(tw_tfevents_png(e, 300, "samples", png.data(), png.size()), TW_OK);
    const std::vector<Bytes> all = records(read(files()[0]));
    ASSERT_EQ(all.size(), 2u);
    const Bytes value = field(field(all[1], 5).bytes, 1).bytes, image = field(value, 4).bytes;
    EXPECT_EQ(field(value, 1).bytes, "samples");
    EXPECT_EQ(field(image, 1).whole, 2u); // height
    EXPECT_EQ(field(image, 2).whole, 3u);
    EXPECT_EQ(field(image, 3).whole, 3u); // RGB
    EXPECT_EQ(field(image, 4).bytes, png);
    EXPECT_EQ(tw_tfevents_png(e, 300, "samples", "no picture", 10), TW_ERROR_FORMAT);
    EXPECT_EQ(records(read(files()[0])).size(), 2u);
    tw_tfevents_close(e);
}

TEST_F(Events, ARunThatGoesOnPurgesAndComesLater) {
    tw_tfevents_close(open());
    tw_tfevents_close(open(501)); // in the same second
    tw_tfevents_close(open(0));
    const std::vector<std::string> names = files();
    ASSERT_EQ(names.size(), 3u);
    EXPECT_EQ(records(read(names[0])).size(), 1u);
    for (int i = 1; i < 3; i++) {
        const std::vector<Bytes> all = records(read(names[size_t(i)]));
        ASSERT_EQ(all.size(), 2u);
        EXPECT_EQ(field(all[1], 2).whole, i == 1 ? 501u : 0u);
        EXPECT_EQ(field(field(all[1], 7).bytes, 1).whole, 1u); // START
    }
}

TEST_F(Events, FailuresAreSaid) {
    tw_tfevents *e = nullptr;
    EXPECT_EQ(tw_tfevents_open(ctx, (dir + "/absent").c_str(), -1, &e), TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(ctx)).find("absent/events.out"), std::string::npos);
    EXPECT_EQ(tw_tfevents_open(ctx, std::string(5000, 'a').c_str(), -1, &e), TW_ERROR_IO);
    EXPECT_EQ(e, nullptr);
    e = open();
    struct rlimit before, limit;
    getrlimit(RLIMIT_FSIZE, &before);
    limit = {200, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    const tw_tfevents_scalar scalar = {"loss", 1.0};
    tw_status s = TW_OK;
    for (int i = 0; i < 10 && s == TW_OK; i++) s = tw_tfevents_scalars(e, i, &scalar, 1);
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(s, TW_ERROR_IO);
    EXPECT_NE(std::string(tw_context_error(ctx)).find("cannot write"), std::string::npos);
    tw_tfevents_close(e);
}

// What TensorBoard read out of a file of ours, which is kept beside its answer.
TEST_F(Events, TensorBoardReadsIt) {
    const std::string golden = TW_TEST_DIR "/golden/tfevents";
    json_t *answer = json_load_file((golden + ".json").c_str(), 0, nullptr);
    ASSERT_NE(answer, nullptr);
    std::ifstream file(golden + ".bin", std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    const std::vector<Bytes> kept = records(text.str());
    json_t *scalars = json_object_get(answer, "scalars");
    // The same calls give the same records, but for the time of day.
    tw_tfevents *e = open();
    size_t i, k;
    json_t *row;
    const char *tag;
    json_t *values;
    std::vector<std::vector<std::pair<std::string, double>>> steps(
        size_t(json_integer_value(json_object_get(answer, "steps"))));
    json_object_foreach(scalars, tag, values) json_array_foreach(values, k, row) {
        const size_t step = size_t(json_integer_value(json_array_get(row, 0)));
        steps[step].push_back({tag, json_number_value(json_array_get(row, 1))});
    }
    for (i = 0; i < steps.size(); i++) {
        std::vector<tw_tfevents_scalar> list;
        for (const auto &v : steps[i]) list.push_back({v.first.c_str(), v.second});
        ASSERT_EQ(tw_tfevents_scalars(e, int64_t(i), list.data(), int(list.size())), TW_OK);
    }
    const Bytes png = field(field(field(field(kept.back(), 5).bytes, 1).bytes, 4).bytes, 4).bytes;
    ASSERT_EQ(tw_tfevents_png(e, int64_t(steps.size()), "samples", png.data(), png.size()), TW_OK);
    const json_t *image = json_object_get(answer, "image");
    EXPECT_EQ(json_integer_value(json_array_get(image, 1)), 3); // width
    EXPECT_EQ(json_integer_value(json_array_get(image, 2)), 2); // height
    EXPECT_EQ(json_integer_value(json_array_get(image, 3)), int64_t(png.size()));
    tw_tfevents_close(e);
    const std::vector<Bytes> now = records(read(files()[0]));
    ASSERT_EQ(now.size(), kept.size());
    for (i = 0; i < now.size(); i++) {
        EXPECT_EQ(now[i].substr(0, 1), "\x09"); // wall_time, eight bytes
        EXPECT_EQ(now[i].substr(9), kept[i].substr(9)) << i;
    }
    json_decref(answer);
}

} // namespace
