#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

extern "C" {
#include "io/npy.h"
}
#include "support/tempdir.h"

using tw_test::bytes_of;
using tw_test::read_file;
using tw_test::TempDir;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

std::string npy(const std::string &header, const std::string &data, int version = 1) {
    std::string out = "\x93NUMPY";
    out += static_cast<char>(version);
    out += '\0';
    out += version == 1 ? bytes_of(static_cast<uint16_t>(header.size()))
                        : bytes_of(static_cast<uint32_t>(header.size()));
    return out + header + data;
}

struct Parsed {
    explicit Parsed(const std::string &bytes) : block(bytes.begin(), bytes.end()) {
        block.shrink_to_fit();
        status = tw_npy_parse(nullptr, block.data(), block.size(), "x.npy", &npy);
    }
    std::vector<char> block;
    tw_npy npy;
    tw_status status;
};

TEST(Npy, RoundTripsFloat32InPieces) {
    TempDir dir;
    const std::string path = dir.file("a.npy");
    const int64_t shape[3] = {2, 3, 2};
    std::vector<float> values(12);
    for (size_t i = 0; i < 12; i++) values[i] = 0.1f * static_cast<float>(i) - 0.3f;
    tw_npy_writer *w;
    ASSERT_EQ(tw_npy_writer_open(nullptr, path.c_str(), TW_F32, 3, shape, &w), TW_OK);
    ASSERT_EQ(tw_npy_writer_append(w, values.data(), 5), TW_OK);
    ASSERT_EQ(tw_npy_writer_append(w, values.data() + 5, 7), TW_OK);
    EXPECT_EQ(tw_npy_writer_append(w, values.data(), 1), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), path + ": 1 elements more, the shape has room for 0");
    ASSERT_EQ(tw_npy_writer_commit(w), TW_OK);
    // As NumPy writes it.
    const std::string bytes = read_file(path);
    const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 2), }";
    EXPECT_EQ(bytes.size(), 128u + 48u);
    EXPECT_EQ(bytes.substr(10, header.size()), header);
    EXPECT_EQ(bytes[127], '\n');
    tw_npy a;
    ASSERT_EQ(tw_npy_open(nullptr, path.c_str(), &a), TW_OK) << error();
    EXPECT_EQ(a.rank, 3);
    EXPECT_EQ(a.shape[1], 3);
    EXPECT_EQ(a.count, 12);
    std::vector<float> back(12, NAN);
    tw_npy_to_f32(&a, 0, 12, back.data());
    EXPECT_EQ(back, values);
    tw_npy_to_f32(&a, 7, 1, back.data());
    EXPECT_EQ(back[0], values[7]);
    tw_npy_close(&a);
}

template <typename T> void round_trip(tw_dtype dtype, const std::vector<T> &values) {
    TempDir dir;
    const std::string path = dir.file("a.npy");
    const int64_t shape[1] = {static_cast<int64_t>(values.size())};
    ASSERT_EQ(tw_npy_write(nullptr, path.c_str(), dtype, 1, shape, values.data()), TW_OK);
    tw_npy a;
    ASSERT_EQ(tw_npy_open(nullptr, path.c_str(), &a), TW_OK) << error();
    EXPECT_EQ(a.dtype, dtype);
    for (int64_t i = 0; i < a.count; i++) {
        float f = NAN;
        tw_npy_to_f32(&a, i, 1, &f);
        EXPECT_EQ(f, static_cast<float>(values[static_cast<size_t>(i)]));
        EXPECT_EQ(tw_npy_to_i64(&a, i), static_cast<int64_t>(values[static_cast<size_t>(i)]));
    }
    tw_npy_close(&a);
}

TEST(Npy, RoundTripsTheOtherTypes) {
    round_trip<double>(TW_F64, {0.1, -1e300 * 0, 12345.75});
    round_trip<int32_t>(TW_I32, {-5, INT32_MAX});
    round_trip<int64_t>(TW_I64, {INT64_MIN, INT64_MAX, (1ll << 53) + 1});
    round_trip<uint8_t>(TW_U8, {0, 255});
    const double bad[2] = {NAN, 1e300};
    Parsed p(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
                 bytes_of(bad[0]) + bytes_of(bad[1])));
    EXPECT_EQ(tw_npy_to_i64(&p.npy, 0), INT64_MIN);
    EXPECT_EQ(tw_npy_to_i64(&p.npy, 1), INT64_MIN);
}

TEST(Npy, ReadsEveryVersionAndSpelling) {
    const std::string data(8, '\0');
    const std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
    for (int version = 1; version <= 3; version++)
        EXPECT_EQ(Parsed(npy(header, data, version)).status, TW_OK) << error();
    EXPECT_EQ(
        Parsed(npy("{\"shape\":(1,2),\"descr\":\"<f4\",\"fortran_order\":False}", data)).status,
        TW_OK)
        << error();
    Parsed scalar(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", data));
    EXPECT_EQ(scalar.status, TW_OK);
    EXPECT_EQ(scalar.npy.rank, 0);
    EXPECT_EQ(scalar.npy.count, 1);
}

TEST(Npy, RefusesBadFiles) {
    const std::string order = "'fortran_order': False, ", shape = "'shape': (1,), ",
                      descr = "'descr': '<f4', ", four(4, '\0');
    const struct {
        std::string bytes;
        const char *error;
    } cases[] = {
        {"not an array", "x.npy: not an .npy file"},
        {npy("{}", "", 4), "x.npy: .npy version 4.0, expected 1.0 to 3.0"},
        {npy(std::string(70000, ' '), "", 2),
         "x.npy: an .npy header of 70000 bytes, expected at most 65536"},
        {npy("[]", ""), "x.npy: the .npy header: expected a dictionary"},
        {npy("{" + descr + order + "}", four),
         "x.npy: the .npy header: descr, fortran_order or shape is missing"},
        {npy("{" + descr + descr + order + shape + "}", four),
         "x.npy: the .npy header: a key that is unknown or comes twice"},
        {npy("{'other': 1, " + descr + order + shape + "}", four),
         "x.npy: the .npy header: a key that is unknown or comes twice"},
        {npy("{'descr': '>f4', " + order + shape + "}", four),
         "x.npy: dtype \">f4\", expected <f4, <f8, <i4, <i8 or |u1"},
        {npy("{'descr': [('a', '<f4')], " + order + shape + "}", four),
         "x.npy: the dtype is not a simple one; expected <f4, <f8, <i4, <i8 or |u1"},
        {npy("{" + descr + "'fortran_order': True, " + shape + "}", four),
         "x.npy: the array is in Fortran order; save it with numpy.ascontiguousarray"},
        {npy("{" + descr + "'fortran_order': 0, " + shape + "}", four),
         "x.npy: the .npy header: fortran_order: expected True or False"},
        {npy("{" + descr + order + "'shape': (1)}", four),
         "x.npy: the .npy header: shape: expected a tuple"},
        {npy("{" + descr + order + "'shape': [1]}", four),
         "x.npy: the .npy header: shape: expected a tuple"},
        {npy("{" + descr + order + "'shape': (-1,)}", four),
         "x.npy: the .npy header: shape: expected whole numbers below 2^63"},
        {npy("{" + descr + order + "'shape': (9223372036854775808,)}", four),
         "x.npy: the .npy header: shape: expected whole numbers below 2^63"},
        {npy("{" + descr + order + "'shape': (4294967296, 4294967296)}", four),
         "x.npy: the .npy header: shape: its product does not fit 63 bits"},
        {npy("{" + descr + order + "'shape': (4611686018427387904,)}", four),
         "x.npy: the .npy header: the shape does not fit 63 bits"},
        {npy("{" + descr + order + "'shape': (1,1,1,1,1,1,1,1,1)}", four),
         "x.npy: more than 8 dimensions"},
        {npy("{" + descr + order + "'shape': (2,)}", four),
         "x.npy: 4 bytes of data, expected 8 by the header's shape"},
        {npy("{" + descr + order + shape + "}", four + "x"),
         "x.npy: 5 bytes of data, expected 4 by the header's shape"},
        {npy("{" + descr + order + shape + "} x", four),
         "x.npy: the .npy header: text after the dictionary"},
    };
    for (const auto &c : cases) {
        Parsed p(c.bytes);
        EXPECT_NE(p.status, TW_OK) << c.error;
        EXPECT_EQ(error(), c.error);
    }
}

std::string good_file() {
    return npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }      \n",
               std::string(24, 'x'));
}

TEST(Npy, CutAnywhereItIsRefused) {
    const std::string good = good_file();
    EXPECT_EQ(Parsed(good).status, TW_OK);
    for (size_t n = 0; n < good.size(); n++)
        EXPECT_NE(Parsed(good.substr(0, n)).status, TW_OK) << n;
}

TEST(Npy, MutatedFilesNeverBreakIt) {
    const std::string good = good_file();
    tw_test::Random random(3);
    for (int i = 0; i < 50000; i++) {
        Parsed p(tw_test::mutate(good, random));
        if (p.status != TW_OK) continue;
        std::vector<float> out(static_cast<size_t>(p.npy.count));
        tw_npy_to_f32(&p.npy, 0, p.npy.count, out.data());
    }
}

TEST(Npy, AnIncompleteArrayIsNotWritten) {
    TempDir dir;
    const int64_t shape[2] = {4, 4}, negative[1] = {-1};
    const float row[4] = {0};
    tw_npy_writer *w;
    ASSERT_EQ(tw_npy_writer_open(nullptr, dir.file("a.npy").c_str(), TW_F32, 2, shape, &w), TW_OK);
    ASSERT_EQ(tw_npy_writer_append(w, row, 4), TW_OK);
    EXPECT_EQ(tw_npy_writer_commit(w), TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), dir.file("a.npy") + ": 4 elements, expected 16 by the shape");
    EXPECT_EQ(dir.entries(), 0u);
    EXPECT_EQ(tw_npy_write(nullptr, dir.file("a.npy").c_str(), TW_F32, 1, negative, row),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_npy_write(nullptr, dir.file("a.npy").c_str(), TW_BF16, 1, shape, row),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(error(), dir.file("a.npy") + ": cannot write dtype bfloat16 with 1 dimensions");
    EXPECT_EQ(tw_npy_write(nullptr, dir.file("no/a.npy").c_str(), TW_F32, 1, shape, row),
              TW_ERROR_IO);
    EXPECT_EQ(dir.entries(), 0u);
}

} // namespace
