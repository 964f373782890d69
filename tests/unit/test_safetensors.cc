#include <gtest/gtest.h>
#include <jansson.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

extern "C" {
#include "core/halfs.h"
#include "io/safetensors.h"
}
#include "support/tempdir.h"

using tw_test::bytes_of;
using tw_test::read_file;
using tw_test::TempDir;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

// A file with this header and data.
std::string image(const std::string &header, const std::string &data) {
    return bytes_of<uint64_t>(header.size()) + header + data;
}

// Bytes in a block of their very own, so that AddressSanitizer sees any step outside.
class Parsed {
  public:
    explicit Parsed(const std::string &bytes) : block_(bytes.begin(), bytes.end()) {
        block_.shrink_to_fit();
        status = tw_safetensors_parse(nullptr, block_.data() ? block_.data() : &nothing_,
                                      block_.size(), "m.safetensors", &st);
    }
    ~Parsed() { tw_safetensors_close(st); }
    tw_status status;
    tw_safetensors *st = nullptr;

  private:
    std::vector<char> block_;
    char nothing_ = 0;
};

TEST(Halfs, BFloat16IsExactAndRoundsToNearestEven) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = tw_bf16_to_f32(static_cast<uint16_t>(h));
        const uint16_t back = tw_f32_to_bf16(f);
        if (std::isnan(f)) {
            EXPECT_TRUE(std::isnan(tw_bf16_to_f32(back)));
            continue;
        }
        ASSERT_EQ(back, h);
        const uint32_t bits = h << 16;
        if (std::isinf(f)) continue;
        // The tie goes to the even one; a bit more or less goes to the nearer one.
        ASSERT_EQ(tw_f32_to_bf16(tw_f32_from_bits(bits + 0x8000u)), h + (h & 1u));
        ASSERT_EQ(tw_f32_to_bf16(tw_f32_from_bits(bits + 0x8001u)), h + 1u);
        ASSERT_EQ(tw_f32_to_bf16(tw_f32_from_bits(bits + 0x7fffu)), h);
    }
    // A NaN whose payload is all in the low bits must not become an infinity.
    EXPECT_TRUE(std::isnan(tw_bf16_to_f32(tw_f32_to_bf16(tw_f32_from_bits(0x7f800001u)))));
    EXPECT_TRUE(std::isnan(tw_bf16_to_f32(tw_f32_to_bf16(tw_f32_from_bits(0xffffffffu)))));
}

double half_value(uint32_t h) {
    const int exponent = (h >> 10) & 31, mantissa = h & 1023;
    const double magnitude =
        exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

TEST(Halfs, Float16IsExactAndRoundsToNearestEven) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = tw_f16_to_f32(static_cast<uint16_t>(h));
        const uint32_t exponent = (h >> 10) & 31, mantissa = h & 1023;
        if (exponent == 31 && mantissa) {
            EXPECT_TRUE(std::isnan(f));
            EXPECT_TRUE(std::isnan(tw_f16_to_f32(tw_f32_to_f16(f))));
            continue;
        }
        ASSERT_EQ(tw_f32_to_f16(f), h);
        if (exponent == 31) {
            EXPECT_TRUE(std::isinf(f));
            continue;
        }
        ASSERT_EQ(static_cast<double>(f), half_value(h));
        ASSERT_EQ(std::signbit(f), h >= 0x8000);
        // Halfway to the next one (2^16 past the largest) is exact in float32.
        const double next = (h & 0x7fff) == 0x7bff ? std::copysign(65536.0, f) : half_value(h + 1);
        const float tie = static_cast<float>((half_value(h) + next) / 2);
        ASSERT_EQ(tw_f32_to_f16(tie), h + (h & 1u)) << h;
        ASSERT_EQ(tw_f32_to_f16(std::nextafterf(tie, 0)), h) << h;
        ASSERT_EQ(tw_f32_to_f16(std::nextafterf(tie, std::copysign(1e9f, f))), h + 1u) << h;
    }
    EXPECT_EQ(tw_f32_to_f16(1e-30f), 0u);
    EXPECT_EQ(tw_f32_to_f16(-1e30f), 0xfc00u);
    EXPECT_TRUE(std::isnan(tw_f16_to_f32(tw_f32_to_f16(tw_f32_from_bits(0x7f800001u)))));
}

TEST(Safetensors, RoundTripsEveryFloat) {
    TempDir dir;
    const std::string path = dir.file("m.safetensors");
    const float a[6] = {1.5f, -2, 3e-40f, 4, std::numeric_limits<float>::infinity(), -0.0f};
    const uint16_t b[3] = {0x3f80, 0xc000, 0x0001}, c[2] = {0x3c00, 0x0001};
    const double d[1] = {0.1};
    const int64_t e[2] = {-1, 7};
    const tw_safetensors_item items[] = {
        {"a.weight", TW_F32, 2, {2, 3}, a}, {"odd", TW_BF16, 1, {3}, b},
        {"half", TW_F16, 3, {1, 2, 1}, c},  {"double", TW_F64, 0, {}, d},
        {"none", TW_F32, 2, {0, 5}, a},     {"ints", TW_I64, 1, {2}, e},
    };
    const tw_safetensors_pair metadata[] = {{"format", "pt"}, {"quote", "a \"b\"\n"}};
    ASSERT_EQ(tw_safetensors_write(nullptr, path.c_str(), items, 6, metadata, 2, nullptr, nullptr),
              TW_OK)
        << error();
    uint64_t length;
    const std::string bytes = read_file(path);
    memcpy(&length, bytes.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    EXPECT_EQ(bytes.size(), 8 + length + 24 + 6 + 4 + 8 + 16);

    tw_safetensors *st;
    ASSERT_EQ(tw_safetensors_open(nullptr, path.c_str(), &st), TW_OK) << error();
    EXPECT_EQ(tw_safetensors_count(st), 6);
    EXPECT_STREQ(tw_safetensors_metadata(st, "quote"), "a \"b\"\n");
    EXPECT_EQ(tw_safetensors_metadata(st, "other"), nullptr);
    EXPECT_EQ(tw_safetensors_find(st, "a"), nullptr);
    EXPECT_EQ(tw_safetensors_find(st, "__metadata__"), nullptr);
    EXPECT_EQ(tw_safetensors_entry_at(st, 6), nullptr);
    EXPECT_EQ(tw_safetensors_entry_at(st, -1), nullptr);
    EXPECT_STREQ(tw_safetensors_entry_at(st, 0)->name, "a.weight");
    auto values = [&](const char *name) {
        const tw_safetensors_entry *entry = tw_safetensors_find(st, name);
        EXPECT_NE(entry, nullptr) << name;
        std::vector<float> out(static_cast<size_t>(entry->count), NAN);
        EXPECT_EQ(tw_safetensors_read_f32(st, entry, out.data()), TW_OK) << error();
        return out;
    };
    EXPECT_EQ(values("a.weight"), std::vector<float>(a, a + 6));
    EXPECT_TRUE(std::signbit(values("a.weight")[5]));
    EXPECT_EQ(values("odd"), (std::vector<float>{1, -2, tw_bf16_to_f32(1)}));
    EXPECT_EQ(values("half"), (std::vector<float>{1, std::ldexp(1.0f, -24)}));
    EXPECT_EQ(values("double"), std::vector<float>{0.1f});
    EXPECT_TRUE(values("none").empty());
    const tw_safetensors_entry *half = tw_safetensors_find(st, "half");
    EXPECT_EQ(half->rank, 3);
    EXPECT_EQ(half->shape[1], 2);
    EXPECT_STREQ(half->format, "F16");
    float out[2];
    EXPECT_EQ(tw_safetensors_read_f32(st, tw_safetensors_find(st, "ints"), out),
              TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(error(), path + ": tensor \"ints\": dtype I64, expected F32, F64, BF16 or F16");
    tw_safetensors_close(st);
    tw_safetensors_close(nullptr);
}

TEST(Safetensors, ListsForeignDtypesAndUnalignedData) {
    // An odd number of bytes before a float, and the header's keys not in the data's order.
    Parsed p(image(R"({"f":{"dtype":"F32","shape":[1],"data_offsets":[3,7]},)"
                   R"("q":{"shape":[3],"data_offsets":[0,3],"dtype":"F8_E4M3","extra":[]}})",
                   std::string("abc") + bytes_of(2.5f)));
    ASSERT_EQ(p.status, TW_OK) << error();
    const tw_safetensors_entry *q = tw_safetensors_entry_at(p.st, 0);
    EXPECT_STREQ(q->name, "q");
    EXPECT_FALSE(q->known);
    EXPECT_STREQ(q->format, "F8_E4M3");
    float f = 0;
    EXPECT_EQ(tw_safetensors_read_f32(p.st, q, &f), TW_ERROR_UNSUPPORTED);
    EXPECT_EQ(tw_safetensors_read_f32(p.st, tw_safetensors_find(p.st, "f"), &f), TW_OK);
    EXPECT_EQ(f, 2.5f);
}

TEST(Safetensors, NoTensorsIsAFileToo) {
    Parsed p(image("{}", ""));
    ASSERT_EQ(p.status, TW_OK) << error();
    EXPECT_EQ(tw_safetensors_count(p.st), 0);
    EXPECT_EQ(tw_safetensors_find(p.st, "x"), nullptr);
}

std::string entry(const std::string &name, const std::string &dtype, const std::string &shape,
                  const std::string &offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
}

TEST(Safetensors, RefusesLyingHeaders) {
    const std::string two = "\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}";
    const struct {
        std::string header;
        size_t data;
        const char *error;
    } cases[] = {
        {"[]", 0, "the header is no JSON object"},
        {" {}", 0, "the header is no JSON object"},
        {"{\"a\":", 0, nullptr},
        {"{" + two + "," + two + "}", 2, "the header: duplicate object key near '\"x\"'"},
        {"{\"x\":3}", 0, "tensor \"x\": expected a JSON object"},
        {"{\"x\":{}}", 0, "tensor \"x\": \"dtype\": expected a string"},
        {"{" + entry("x", "F31", "[1]", "[0,4]") + "}", 4, "tensor \"x\": unknown dtype \"F31\""},
        {"{" + entry("x", "U8", "2", "[0,2]") + "}", 2,
         "tensor \"x\": \"shape\": expected an array"},
        {"{" + entry("x", "U8", "[-2]", "[0,2]") + "}", 2,
         "tensor \"x\": \"shape\": expected whole numbers of at least 0"},
        {"{" + entry("x", "U8", "[2.0]", "[0,2]") + "}", 2,
         "tensor \"x\": \"shape\": expected whole numbers of at least 0"},
        {"{" + entry("x", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1,
         "tensor \"x\": 9 dimensions, expected at most 8"},
        {"{" + entry("x", "U8", "[4294967296,4294967296]", "[0,0]") + "}", 0,
         "tensor \"x\": \"shape\": its product does not fit 63 bits"},
        {"{" + entry("x", "F32", "[4611686018427387904]", "[0,0]") + "}", 0,
         "tensor \"x\": 0 bytes do not hold 4611686018427387904 elements of F32"},
        {"{" + entry("x", "F32", "[1]", "[0,3]") + "}", 3,
         "tensor \"x\": 3 bytes do not hold 1 elements of F32"},
        {"{" + entry("x", "U8", "[2]", "[0]") + "}", 2,
         "tensor \"x\": \"data_offsets\": expected [begin, end], begin <= end"},
        {"{" + entry("x", "U8", "[2]", "[2,0]") + "}", 2,
         "tensor \"x\": \"data_offsets\": expected [begin, end], begin <= end"},
        {"{" + entry("x", "U8", "[2]", "[-2,0]") + "}", 2,
         "tensor \"x\": \"data_offsets\": expected [begin, end], begin <= end"},
        {"{" + entry("x", "U8", "[3]", "[0,3]") + "}", 2,
         "tensor \"x\": ends at byte 3 of the data, which has 2"},
        {"{" + entry("x", "U8", "[2]", "[0,9223372036854775807]") + "}", 2,
         "tensor \"x\": ends at byte 9223372036854775807 of the data, which has 2"},
        {"{" + entry("x", "U8", "[1]", "[1,2]") + "}", 2,
         "tensor \"x\": a hole of unused bytes before it"},
        {"{" + entry("x", "U8", "[2]", "[0,2]") + "," + entry("y", "U8", "[2]", "[1,3]") + "}", 3,
         "tensor \"y\": its bytes overlap another tensor's"},
        {"{" + entry("x", "U8", "[2]", "[0,2]") + "," + entry("y", "U8", "[2]", "[0,2]") + "}", 2,
         "tensor \"y\": its bytes overlap another tensor's"},
        {"{" + entry("x", "U8", "[2]", "[0,2]") + "}", 3, "1 bytes after the last tensor"},
        {"{}", 1, "1 bytes after the last tensor"},
        {"{\"__metadata__\":[]}", 0, "__metadata__: expected a JSON object"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: \"a\": expected a string"},
        {"{" + entry("bad\\nname", "U8", "[1]", "[0,9]") + "}", 1,
         "tensor \"bad name\": ends at byte 9 of the data, which has 1"},
    };
    for (const auto &c : cases) {
        Parsed p(image(c.header, std::string(c.data, '\0')));
        EXPECT_TRUE(p.status == TW_ERROR_FORMAT || p.status == TW_ERROR_UNSUPPORTED) << c.header;
        EXPECT_EQ(p.st, nullptr);
        if (c.error) {
            EXPECT_EQ(error(), std::string("m.safetensors: ") + c.error);
        }
    }
}

TEST(Safetensors, RefusesLyingLengths) {
    Parsed empty("");
    EXPECT_EQ(empty.status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "m.safetensors: 0 bytes, too short for a safetensors file");
    Parsed longer(bytes_of<uint64_t>(3) + "{}");
    EXPECT_EQ(longer.status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "m.safetensors: a header of 3 bytes in a file of 10: the file is cut short");
    Parsed huge(bytes_of<uint64_t>(~0ull) + "{}");
    EXPECT_EQ(huge.status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "m.safetensors: a header of 18446744073709551615 bytes, expected at most "
                       "100000000; is this a safetensors file?");
    Parsed none(bytes_of<uint64_t>(0));
    EXPECT_EQ(none.status, TW_ERROR_FORMAT);
}

std::string good_file() {
    TempDir dir;
    const float a[4] = {1, 2, 3, 4};
    const uint16_t b[3] = {1, 2, 3};
    const tw_safetensors_item items[] = {{"w", TW_F32, 2, {2, 2}, a}, {"b", TW_F16, 1, {3}, b}};
    const tw_safetensors_pair metadata = {"format", "pt"};
    EXPECT_EQ(tw_safetensors_write(nullptr, dir.file("x").c_str(), items, 2, &metadata, 1, nullptr,
                                   nullptr),
              TW_OK);
    return read_file(dir.file("x"));
}

TEST(Safetensors, CutAnywhereOrLengthenedItIsRefused) {
    const std::string good = good_file();
    EXPECT_EQ(Parsed(good).status, TW_OK);
    for (size_t n = 0; n < good.size(); n++)
        EXPECT_EQ(Parsed(good.substr(0, n)).status, TW_ERROR_FORMAT) << n;
    EXPECT_EQ(Parsed(good + "x").status, TW_ERROR_FORMAT);
}

TEST(Safetensors, MutatedFilesNeverBreakIt) {
    const std::string good = good_file();
    tw_test::Random random(2);
    int accepted = 0;
    for (int i = 0; i < 30000; i++) {
        Parsed p(tw_test::mutate(good, random));
        if (p.status != TW_OK) continue;
        accepted++;
        for (int64_t e = 0; e < tw_safetensors_count(p.st); e++) {
            const tw_safetensors_entry *entry = tw_safetensors_entry_at(p.st, e);
            std::vector<float> out(static_cast<size_t>(entry->count));
            tw_safetensors_read_f32(p.st, entry, out.data());
            EXPECT_EQ(tw_safetensors_find(p.st, entry->name), entry);
        }
    }
    EXPECT_GT(accepted, 0);
    EXPECT_LT(accepted, 20000);
}

struct Source {
    int64_t next = 0, fail_at = -1;
};

tw_status fetch(void *user, int64_t index, void *out) {
    Source *source = static_cast<Source *>(user);
    if (index != source->next++) return TW_ERROR_INTERNAL;
    if (index == source->fail_at) return tw_fail(nullptr, TW_ERROR_DEVICE, "the device is gone");
    const float value = static_cast<float>(index) + 0.5f;
    for (int i = 0; i <= index; i++) memcpy(static_cast<char *>(out) + 4 * i, &value, 4);
    return TW_OK;
}

TEST(Safetensors, StreamsFromAFunction) {
    TempDir dir;
    const std::string path = dir.file("m.safetensors");
    const tw_safetensors_item items[] = {{"a", TW_F32, 1, {1}, nullptr},
                                         {"b", TW_F32, 1, {2}, nullptr},
                                         {"c", TW_F32, 1, {3}, nullptr}};
    Source source;
    ASSERT_EQ(tw_safetensors_write(nullptr, path.c_str(), items, 3, nullptr, 0, fetch, &source),
              TW_OK)
        << error();
    tw_safetensors *st;
    ASSERT_EQ(tw_safetensors_open(nullptr, path.c_str(), &st), TW_OK);
    float c[3];
    ASSERT_EQ(tw_safetensors_read_f32(st, tw_safetensors_find(st, "c"), c), TW_OK);
    EXPECT_EQ(c[2], 2.5f);
    tw_safetensors_close(st);

    const std::string before = read_file(path);
    source = Source{0, 2};
    EXPECT_EQ(tw_safetensors_write(nullptr, path.c_str(), items, 3, nullptr, 0, fetch, &source),
              TW_ERROR_DEVICE);
    EXPECT_EQ(error(), "the device is gone");
    EXPECT_EQ(read_file(path), before);
    EXPECT_EQ(dir.entries(), 1u);
}

TEST(Safetensors, AFullDiskLeavesNothing) {
    TempDir dir;
    const std::vector<float> a(100000);
    const tw_safetensors_item item = {"a", TW_F32, 1, {100000}, a.data()};
    rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1000;
    auto handler = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const tw_status s = tw_safetensors_write(nullptr, dir.file("m").c_str(), &item, 1, nullptr, 0,
                                             nullptr, nullptr);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    EXPECT_EQ(s, TW_ERROR_IO);
    EXPECT_EQ(dir.entries(), 0u);
}

TEST(Safetensors, RefusesBadItems) {
    TempDir dir;
    const float a[1] = {0};
    auto write = [&](std::vector<tw_safetensors_item> items) {
        return tw_safetensors_write(nullptr, dir.file("m").c_str(), items.data(),
                                    static_cast<int64_t>(items.size()), nullptr, 0, nullptr,
                                    nullptr);
    };
    EXPECT_EQ(write({{"a", TW_F32, 1, {1}, a}, {"a", TW_F32, 1, {1}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), dir.file("m") + ": tensor \"a\" twice");
    EXPECT_EQ(write({{"__metadata__", TW_F32, 1, {1}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(write({{"a", TW_F32, 1, {-1}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(write({{"a", TW_F32, 9, {1}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(write({{"a", TW_F32, 2, {INT64_MAX, 2}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(write({{"\xff", TW_F32, 1, {1}, a}}), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), dir.file("m") + ": tensor \"\xff\": not UTF-8 text");
    EXPECT_EQ(dir.entries(), 0u);
}

} // namespace
