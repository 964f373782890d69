// The matrix building blocks of kernels/device: copies, ldmatrix and products against plain host
// code, and the swizzled layouts against a count of shared memory's bank conflicts.
#include "support.h"
#include "wrappers.h"

#include <algorithm>
#include <cstring>
#include <set>

using namespace tst;

namespace {

class MatrixTest : public KernelTest {};

TEST_F(MatrixTest, LoadsCopiesAndRounding) {
    std::vector<uint32_t> in(256);
    for (uint32_t &v : in) v = (uint32_t)rng()();
    in[0] = 0x3f801000u; // a tie: away from zero
    in[1] = 0xbf801000u;
    in[2] = 0x3f800fffu;
    in[3] = 0x3fffffffu; // carries into the exponent
    Buffer in_on = upload(in), out_on(sizeof(MatrixResults));
    LAUNCH_OK(wrappers_matrices(static_cast<uint32_t *>(in_on.data()),
                                static_cast<MatrixResults *>(out_on.data()), nullptr));
    const MatrixResults got = fetch<MatrixResults>(out_on)[0];
    uint16_t m[4][8][8];
    memcpy(m, in.data(), sizeof m);
    for (int l = 0; l < 32; l++) {
        const int r = l / 4, c = 2 * (l % 4);
        uint32_t plain[4], turned[4];
        for (int j = 0; j < 4; j++) {
            plain[j] = m[j][r][c] | (uint32_t)m[j][r][c + 1] << 16;
            turned[j] = m[j][c][r] | (uint32_t)m[j][c + 1][r] << 16;
        }
        EXPECT_EQ(got.one[l], plain[0]);
        EXPECT_EQ(got.one_t[l], turned[0]);
        for (int j = 0; j < 2; j++) EXPECT_EQ(got.two[l][j], plain[j]);
        for (int j = 0; j < 2; j++) EXPECT_EQ(got.two_t[l][j], turned[j]);
        for (int j = 0; j < 4; j++) EXPECT_EQ(got.four[l][j], plain[j]);
        for (int j = 0; j < 4; j++) EXPECT_EQ(got.four_t[l][j], turned[j]);
    }
    for (int t = 0; t < 256; t++) {
        EXPECT_EQ(got.copied_8[t], t % 2 < t / 2 % 3 ? in[t] : 0u) << t;
        EXPECT_EQ(got.copied_4[t], t % 2 ? in[t] : 0u) << t;
        if ((in[t] & 0x7f800000u) == 0x7f800000u) continue; // not a number that anyone multiplies
        EXPECT_EQ(got.rounded[t], (in[t] + 0x1000u) & 0xffffe000u) << t;
    }
}

// The 10 bits of fraction that tf32 keeps.
double tf32(double v) {
    int e;
    const double m = std::frexp(v, &e);
    return std::ldexp(std::round(std::ldexp(m, 11)), e - 11);
}

TEST_F(MatrixTest, Products) {
    for (twk_format f : formats)
        for (bool exact : {true, false}) { // whole numbers are exact whatever the order of the sum
            const int depth = f == TWK_F32 ? 16 : 32;
            const auto draw = [&](int64_t n) {
                std::vector<double> v((size_t)n);
                for (double &x : v) x = exact ? (double)pick(33) - 16 : uniform(-2, 2);
                return v;
            };
            const Tensor a(f, draw(32 * depth)), b(f, draw(16 * depth));
            Tensor d(TWK_F32, 32 * 16);
            LAUNCH_OK(wrappers_multiply(f, a.data(), b.data(), d.f32(), nullptr));
            std::vector<Expected> want(32 * 16);
            for (int i = 0; i < 32; i++)
                for (int j = 0; j < 16; j++)
                    for (int k = 0; k < depth; k++) {
                        double x = a.v[i * depth + k], y = b.v[j * depth + k];
                        if (f == TWK_F32) x = tf32(x), y = tf32(y);
                        want[i * 16 + j].add(x * y);
                    }
            const std::vector<double> got = d.read();
            if (exact) {
                for (size_t i = 0; i < want.size(); i++) EXPECT_EQ(got[i], want[i].value);
            } else {
                expect_close(got, want, TWK_F32, 4, "products");
            }
            // A lane that held its neighbour's word would be seen.
            want[5] = want[6];
            EXPECT_GE(count_bad(got, want, TWK_F32, 4), exact ? 0 : 1);
        }
}

TEST_F(MatrixTest, ProductsOfAWarpgroup) {
    if (!wrappers_has_wgmma()) GTEST_SKIP() << "no wgmma on this device, or no code for it";
    for (twk_format f : {TWK_BF16, TWK_F16})
        for (int form = 0; form < 4; form++) {
            const bool ac = form & 1, bc = form & 2;
            const auto draw = [&](int64_t n) { // products and sums are exact
                std::vector<double> v((size_t)n);
                for (double &x : v) x = (double)pick(33) - 16;
                return v;
            };
            const Tensor a(f, draw(64 * 32)), b(f, draw(128 * 32));
            Tensor d(TWK_F32, 64 * 128);
            LAUNCH_OK(wrappers_warpgroup(f, ac, bc, a.data(), b.data(), d.f32(), nullptr));
            std::vector<double> want(64 * 128);
            for (size_t i = 0; i < want.size(); i++)
                for (size_t k = 0; k < 32; k++)
                    want[i] += a.v[ac ? k * 64 + i / 128 : i / 128 * 32 + k] *
                               b.v[bc ? k * 128 + i % 128 : i % 128 * 32 + k];
            EXPECT_EQ(d.read(), want) << name_of(f) << " form " << form;
        }
}

// How many times shared memory must be read for lanes that want `bytes` bytes each (eight lanes of
// 16, or a warp of 4): the largest number of different words that one of its 32 banks has to give.
int passes(const std::vector<unsigned> &addresses, unsigned bytes = 16) {
    std::set<unsigned> words[32];
    for (unsigned at : addresses)
        for (unsigned w = at / 4; w < at / 4 + bytes / 4; w++) words[w % 32].insert(w);
    size_t worst = 0;
    for (const auto &bank : words) worst = std::max(worst, bank.size());
    return (int)worst;
}

using Layout = unsigned (*)(int row_bytes, unsigned row, unsigned chunk);

// Eight neighbouring threads copy neighbouring chunks of the tile, row after row; every chunk has
// a place of its own; the layout repeats after `period` rows.
void expect_copied_at_once(Layout layout, int bytes, unsigned period) {
    const unsigned chunks = (unsigned)bytes / 16;
    std::set<unsigned> places;
    for (unsigned i = 0; i < 64 * chunks; i += 8) {
        std::vector<unsigned> line;
        for (unsigned q = i; q < i + 8; q++) {
            const unsigned row = q / chunks, c = q % chunks;
            line.push_back(layout(bytes, row, c));
            EXPECT_EQ(line.back(),
                      layout(bytes, row % period, c) + row / period * period * (unsigned)bytes);
        }
        EXPECT_EQ(passes(line), 1) << bytes << " " << i;
        places.insert(line.begin(), line.end());
    }
    EXPECT_EQ(places.size(), 64 * chunks) << "two chunks in one place";
    EXPECT_LT(*places.rbegin(), 64u * (unsigned)bytes);
}

unsigned plain(int row_bytes, unsigned row, unsigned chunk) {
    return row * (unsigned)row_bytes + chunk * 16;
}

// ldmatrix, turning around or not: one chunk of eight neighbouring rows.
int worst_of_matrices(Layout layout, int bytes) {
    int worst = 0;
    for (unsigned row = 0; row < 64; row += 8)
        for (unsigned c = 0; c < (unsigned)bytes / 16; c++) {
            std::vector<unsigned> rows;
            for (unsigned i = 0; i < 8; i++) rows.push_back(layout(bytes, row + i, c));
            worst = std::max(worst, passes(rows));
        }
    return worst;
}

// A warp's words of a fragment: eight neighbouring ones in each of four rows.
int worst_of_words(Layout layout, int bytes) {
    int worst = 0;
    for (unsigned row = 0; row < 64; row += 4)
        for (unsigned first = 0; first < (unsigned)bytes / 4; first += 8) {
            std::vector<unsigned> words;
            for (unsigned lane = 0; lane < 32; lane++) {
                const unsigned word = first + lane / 4;
                words.push_back(layout(bytes, row + lane % 4, word / 4) + word % 4 * 4);
            }
            worst = std::max(worst, passes(words, 4));
        }
    return worst;
}

TEST(Swizzle, NoBankConflictsWhereAPlainTileHasThem) {
    for (int bytes : {32, 64, 128, 256}) {
        expect_copied_at_once(wrappers_swizzled, bytes, 8);
        EXPECT_EQ(worst_of_matrices(wrappers_swizzled, bytes), 1) << bytes;
        EXPECT_EQ(worst_of_matrices(plain, bytes), std::min(8, bytes / 16)) << "none are seen";
    }
    for (int bytes : {64, 256, 512}) {
        expect_copied_at_once(wrappers_swizzled_words, bytes, 4);
        EXPECT_EQ(worst_of_words(wrappers_swizzled_words, bytes), 1) << bytes;
        EXPECT_EQ(worst_of_words(plain, bytes), bytes == 64 ? 2 : 4) << "none are seen";
        EXPECT_GT(worst_of_words(wrappers_swizzled, bytes), 1) << "one layout would do";
    }
}

} // namespace
