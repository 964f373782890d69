#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

extern "C" {
#include "data/dataset.h"
}
#include "support/tempdir.h"

using tw_test::TempDir;
using tw_test::write_file;

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

std::string big(uint32_t n) {
    return {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8),
            static_cast<char>(n)};
}

std::string idx(std::vector<uint32_t> shape, const std::string &data, char type = 8) {
    std::string out = {0, 0, type, static_cast<char>(shape.size())};
    for (uint32_t extent : shape) out += big(extent);
    return out + data;
}

std::string gzip(const std::string &bytes) {
    z_stream z{};
    deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&z, bytes.size()) + 64, '\0');
    z.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(bytes.data()));
    z.avail_in = static_cast<uInt>(bytes.size());
    z.next_out = reinterpret_cast<Bytef *>(&out[0]);
    z.avail_out = static_cast<uInt>(out.size());
    EXPECT_EQ(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.resize(z.total_out);
    deflateEnd(&z);
    return out;
}

struct Read {
    explicit Read(const std::string &bytes, int rank = 3) {
        const std::vector<uint8_t> block(bytes.begin(), bytes.end());
        status = tw_idx_read(nullptr, "x.idx", block.data(), block.size(), rank, shape, &data);
    }
    ~Read() { tw_free(nullptr, data); }
    tw_status status;
    int64_t shape[3] = {0, 0, 0};
    uint8_t *data = nullptr;
};

const std::string pixels = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, static_cast<char>(255)};

TEST(Idx, ReadsPlainAndCompressed) {
    for (const std::string &file : {idx({2, 2, 3}, pixels), gzip(idx({2, 2, 3}, pixels))}) {
        Read r(file);
        ASSERT_EQ(r.status, TW_OK) << error();
        EXPECT_EQ(r.shape[0], 2);
        EXPECT_EQ(r.shape[1], 2);
        EXPECT_EQ(r.shape[2], 3);
        EXPECT_EQ(std::string(reinterpret_cast<char *>(r.data), 12), pixels);
        EXPECT_TRUE(tw_idx_is(reinterpret_cast<const uint8_t *>(file.data()), file.size()));
    }
}

TEST(Idx, RefusesBadFiles) {
    const std::string good = gzip(idx({2, 2, 3}, pixels));
    std::string damaged = good, checksum = good;
    damaged[10] = static_cast<char>(damaged[10] | 6); // a block type that is not
    checksum[checksum.size() - 8] ^= 1;
    const struct {
        std::string bytes, error;
    } cases[] = {
        {"xx" + idx({2, 2, 3}, pixels), "x.idx: not an IDX file"},
        {idx({2, 2, 3}, pixels, 13),
         "x.idx: IDX elements of type 0x0d, expected 0x08 (unsigned bytes)"},
        {idx({12}, pixels + std::string(8, ' ')),
         "x.idx: an IDX file of 1 dimensions, expected 3 (images)"},
        {idx({0, 2, 3}, ""), "x.idx: dimension 0 is 0"},
        {idx({~0u, ~0u, ~0u}, ""), "x.idx: the dimensions do not fit 63 bits"},
        {idx({2, 2, 3}, pixels + "x"), "x.idx: 13 bytes of data, expected 12 by the header"},
        {idx({2, 2, 4}, pixels), "x.idx: 12 bytes of data, expected 16 by the header"},
        {gzip(idx({2, 2, 3}, pixels + "x")), "x.idx: more data than the 12 bytes of the header"},
        {gzip(idx({2, 2, 4}, pixels)), "x.idx: 12 bytes of data, expected 16 by the header"},
        {gzip(idx({60000, 60000, 100}, pixels)),
         "x.idx: " + std::to_string(gzip(idx({60000, 60000, 100}, pixels)).size()) +
             " bytes of gzip data cannot hold the 360000000000 that the header names"},
        {gzip("short"), "x.idx: the file is cut short within its header"},
        {good + "tail", "x.idx: 4 bytes after the end of the gzip data"},
        {damaged, "x.idx: damaged gzip data: invalid block type"},
        {checksum, "x.idx: damaged gzip data: incorrect data check"},
    };
    for (const auto &c : cases) {
        Read r(c.bytes);
        EXPECT_NE(r.status, TW_OK) << c.error;
        EXPECT_EQ(error(), c.error);
        EXPECT_EQ(r.data, nullptr);
    }
}

TEST(Idx, CutAnywhereItIsRefused) {
    for (const std::string &good : {idx({2, 2, 3}, pixels), gzip(idx({2, 2, 3}, pixels))})
        for (size_t n = 1; n < good.size(); n++)
            EXPECT_EQ(Read(good.substr(0, n)).status, TW_ERROR_FORMAT) << n << " " << error();
}

TEST(Idx, MutatedFilesNeverBreakIt) {
    tw_test::Random random(6);
    for (const std::string &good : {idx({2, 2, 3}, pixels), gzip(idx({2, 2, 3}, pixels))})
        for (int i = 0; i < 10000; i++) {
            Read r(tw_test::mutate(good, random));
            if (r.status != TW_OK) continue;
            int sum = 0;
            for (int64_t k = 0; k < r.shape[0] * r.shape[1] * r.shape[2]; k++) sum += r.data[k];
            EXPECT_GE(sum, 0);
        }
}

TEST(Idx, FindsLabelsBesideImages) {
    TempDir dir;
    char *path;
    auto find = [&](const std::string &images) {
        EXPECT_EQ(tw_labels_find(nullptr, dir.file(images).c_str(), &path), TW_OK);
        const std::string found = path ? path : "";
        tw_free(nullptr, path);
        return found;
    };
    EXPECT_EQ(find("train-images-idx3-ubyte.gz"), "");
    write_file(dir.file("train-labels-idx1-ubyte"), "x");
    EXPECT_EQ(find("train-images-idx3-ubyte"), dir.file("train-labels-idx1-ubyte"));
    EXPECT_EQ(find("train-images-idx3-ubyte.gz"), dir.file("train-labels-idx1-ubyte"));
    write_file(dir.file("t10k-labels.idx1-ubyte.gz"), "x");
    EXPECT_EQ(find("t10k-images.idx3-ubyte.gz"), dir.file("t10k-labels.idx1-ubyte.gz"));
    EXPECT_EQ(find("t10k-images.idx3-ubyte"), dir.file("t10k-labels.idx1-ubyte.gz"));
    EXPECT_EQ(find("pictures"), "");
    EXPECT_EQ(find("images"), "");
}

} // namespace
