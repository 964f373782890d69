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

// How many times shared memory must be read for eight lanes that want 16 bytes each: the largest
// number of different words that one of its 32 banks has to give.
int passes(const std::vector<unsigned> &addresses) {
    std::set<unsigned> words[32];
    for (unsigned at : addresses)
        for (unsigned w = at / 4; w < at / 4 + 4; w++) words[w % 32].insert(w);
    size_t worst = 0;
    for (const auto &bank : words) worst = std::max(worst, bank.size());
    return (int)worst;
}

TEST(Swizzle, NoBankConflictsWhereAPlainTileHasThem) {
    for (int bytes : {64, 128}) {
        const unsigned chunks = (unsigned)bytes / 16;
        const auto plain = [&](unsigned r, unsigned c) { return r * (unsigned)bytes + c * 16; };
        int worst_plain = 0;
        std::set<unsigned> places;
        for (unsigned row = 0; row < 64; row += 8) {
            for (unsigned c = 0; c < chunks; c++) { // ldmatrix: one chunk of eight rows
                std::vector<unsigned> mixed, straight;
                for (unsigned i = 0; i < 8; i++) {
                    mixed.push_back(wrappers_swizzled(bytes, row + i, c));
                    straight.push_back(plain(row + i, c));
                    places.insert(mixed.back());
                    EXPECT_EQ(mixed.back(), wrappers_swizzled(bytes, i, c) + row * bytes);
                }
                EXPECT_EQ(passes(mixed), 1) << bytes << " " << row << " " << c;
                worst_plain = std::max(worst_plain, passes(straight));
            }
            for (unsigned i = 0; i < 8 * chunks; i += 8) { // the copies: one line
                std::vector<unsigned> line;
                for (unsigned q = i; q < i + 8; q++)
                    line.push_back(wrappers_swizzled(bytes, row + q / chunks, q % chunks));
                EXPECT_EQ(passes(line), 1) << bytes << " " << row;
            }
        }
        EXPECT_EQ(places.size(), 64 * chunks) << "two chunks in one place";
        EXPECT_LT(*places.rbegin(), 64u * (unsigned)bytes);
        EXPECT_EQ(worst_plain, bytes / 16) << "the count sees no conflicts";
    }
}

} // namespace
