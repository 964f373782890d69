// Products of small matrices in both ways, whichever this processor would take, against sums in
// double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

extern "C" {
#include "backend/cpu/fast.h"
}

namespace {

using Floats = std::vector<float>;

struct Sizes {
    int64_t m, n, k;
    bool turned; // a lies by columns
    bool add;
};

class FastProduct : public ::testing::Test {
  protected:
    FastProduct() {
        std::printf("seed %u\n", seed_);
        random_.seed(seed_);
    }
    Floats Normals(int64_t n) {
        std::normal_distribution<float> normal;
        Floats x((size_t)n);
        for (float &v : x) v = normal(random_);
        return x;
    }
    // Elements that are wrong, or were written beside the matrix; `without`: left out of the sums.
    int64_t Wrong(const Sizes &z, void (*multiply)(const tw_fast_matrices *),
                  int64_t without = -1) {
        const int64_t lda = (z.turned ? z.m : z.k) + 3, ldc = z.n + 5;
        const Floats a = Normals((z.turned ? z.k : z.m) * lda), b = Normals(z.k * z.n);
        const Floats before = z.add ? Normals(z.m * ldc) : Floats((size_t)(z.m * ldc), NAN);
        Floats c = before, packed((size_t)(z.k * tw_fast_padded(z.n)), NAN);
        tw_fast_pack(b.data(), z.n, 1, z.k, z.n, packed.data());
        const tw_fast_matrices x = {
            z.m,           z.n,      z.k, {a.data(), z.turned ? 1 : lda, z.turned ? lda : 1},
            packed.data(), c.data(), ldc, z.add};
        multiply(&x);
        int64_t wrong = 0;
        for (int64_t i = 0; i < z.m; i++)
            for (int64_t j = 0; j < ldc; j++) {
                const size_t at = (size_t)(i * ldc + j);
                if (j >= z.n) {
                    wrong += std::memcmp(&c[at], &before[at], sizeof(float)) != 0;
                    continue;
                }
                double want = z.add ? (double)before[at] : 0, terms = std::fabs(want);
                for (int64_t p = 0; p < z.k; p++) {
                    const double term = (double)a[(size_t)(z.turned ? p * lda + i : i * lda + p)] *
                                        (double)b[(size_t)(p * z.n + j)];
                    if (p != without) want += term;
                    terms += std::fabs(term);
                }
                wrong += !(std::fabs((double)c[at] - want) <= (double)(z.k + 1) * 0x1p-24 * terms);
            }
        return wrong;
    }

  private:
    const unsigned seed_ = std::random_device{}();
    std::mt19937 random_;
};

constexpr void (*kWays[])(const tw_fast_matrices *) = {tw_fast_product_of_lines,
                                                       tw_fast_product_of_halves};

TEST_F(FastProduct, IsItsSum) {
    for (int64_t m : {1, 2, 3, 7, 8, 9, 16, 21})
        for (int64_t n : {1, 7, 8, 9, 16, 31, 32, 33, 40, 64, 70})
            for (int64_t k : {1, 2, 8, 33})
                for (int way = 0; way < 2; way++)
                    for (int bits = 0; bits < 4; bits++)
                        EXPECT_EQ(Wrong({m, n, k, (bits & 1) != 0, bits > 1}, kWays[way]), 0)
                            << m << "x" << n << "x" << k << " way " << way << " bits " << bits;
}

TEST_F(FastProduct, AMissingTermIsSeen) {
    for (int way = 0; way < 2; way++)
        for (int64_t n : {8, 33}) EXPECT_GT(Wrong({9, n, 33, false, false}, kWays[way], 32), 4 * n);
}

} // namespace
