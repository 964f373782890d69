// What the kernel tests share. The same tests run against the emulated build (device memory is
// host memory) and against the device build (TW_TEST_DEVICE).
//
// A test rounds its inputs to the format, calculates what it expects in double from those, poisons
// the outputs, launches, and bounds every element by
//     eps(format) |ref| + c 2^-24 (sum of the magnitudes of the terms).
#pragma once

#include "kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#ifdef TW_EMULATOR
#include "tw_emulator.h"
#endif

namespace tst {

// ---- memory -------------------------------------------------------------------------------------

// Empty when kernels can run here, else why not.
std::string no_device();

// Device memory between two guard zones. A nonzero shift moves the start off its alignment.
class Buffer {
  public:
    explicit Buffer(size_t bytes = 0, size_t shift = 0);
    ~Buffer();
    Buffer(Buffer &&other) noexcept;
    Buffer &operator=(Buffer &&other) noexcept;
    void *data() const { return data_; }
    size_t size() const { return bytes_; }
    void upload(const void *from);
    void download(void *to) const;
    void poison(); // every byte 0xff: NaN in each format
    bool guards_intact() const;

  private:
    void release();
    unsigned char *base_ = nullptr, *data_ = nullptr;
    size_t bytes_ = 0;
};

void synchronize();

// Whether tiles of a warpgroup (TWK_TILE_128X128_WGMMA) run here.
bool wgmma_here();

// Blocks of a cluster of the last kernel.
inline unsigned cluster_of_last() {
    twk_launch_info info;
    twk_last_launch(&info);
    return info.cluster;
}

// ---- formats ------------------------------------------------------------------------------------

size_t bytes_of(twk_format f);
double eps_of(twk_format f); // unit roundoff
double round_to(twk_format f, double v);
double tf32_of(double v); // to the 10 bits of fraction that tf32 keeps
const char *name_of(twk_format f);
constexpr twk_format formats[] = {TWK_F32, TWK_BF16, TWK_F16};

// ThreadSanitizer makes a run ten times as long and sees races alone. They depend on the paths
// through a kernel and on indices, not on values: one shape of each path shows them.
#ifdef TW_EMU_TSAN
constexpr bool for_races = true;
#else
constexpr bool for_races = false;
#endif
#define NOT_FOR_RACES()                                                                            \
    if (tst::for_races) GTEST_SKIP() << "about values, which races do not depend on"

// ---- tensors ------------------------------------------------------------------------------------

std::mt19937_64 &rng(); // seeded from TW_TEST_SEED, or anew; the seed is printed
double uniform(double low, double high);
int64_t pick(int64_t n); // 0 .. n - 1

class Tensor {
  public:
    Tensor() = default;
    // An output: poisoned.
    Tensor(twk_format f, int64_t n, size_t shift = 0);
    // An input: v[i] is rounded to the format and kept.
    Tensor(twk_format f, std::vector<double> values, size_t shift = 0);
    twk_format format = TWK_F32;
    std::vector<double> v;
    void *data() const { return buffer.data(); }
    float *f32() const { return static_cast<float *>(buffer.data()); }
    std::vector<double> read() const; // what device memory holds; fails the test on a broken guard
    void write(const std::vector<double> &values);
    Buffer buffer;
};

Tensor random_tensor(twk_format f, int64_t n, double scale = 2.0, size_t shift = 0);

template <typename T> Buffer upload(const std::vector<T> &values) {
    Buffer b(values.size() * sizeof(T));
    b.upload(values.data());
    return b;
}
template <typename T> std::vector<T> fetch(const Buffer &b) {
    EXPECT_TRUE(b.guards_intact());
    std::vector<T> values(b.size() / sizeof(T));
    b.download(values.data());
    return values;
}

// ---- comparison ---------------------------------------------------------------------------------

// A value and the sum of the magnitudes of the terms it is made of.
struct Expected {
    double value = 0, terms = 0;
    void add(double term) {
        value += term;
        terms += std::fabs(term);
    }
};

// Number of elements outside their bound; the first is described in *what. NaN is outside.
int64_t count_bad(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f,
                  double c, std::string *what = nullptr);
// Fails the test when there is one.
void expect_close(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f,
                  double c, const std::string &label);

#define LAUNCH_OK(call)                                                                            \
    do {                                                                                           \
        ASSERT_EQ(call, TWK_OK) << twk_error_text();                                               \
        ::tst::synchronize();                                                                      \
    } while (0)

// ---- noise, written from the contract and independently of kernels/device -----------------------

struct Key {
    uint64_t seed, sample;
    uint32_t purpose, step;
};
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
uint32_t noise_word(const Key &key, int64_t element);
double noise_normal(const Key &key, int64_t element);
double noise_uniform(const Key &key, int64_t element);

// ---- shapes -------------------------------------------------------------------------------------

struct Shape {
    int64_t n, h, w, c;
    int64_t elements() const { return h * w * c; }
    int64_t total() const { return n * elements(); }
};
std::string str(const Shape &s);
// Odd sizes, batch 1, one pixel, channels 1 to 384, around a tile of 256 vectors.
const std::vector<Shape> &shapes();

class KernelTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (!no_device().empty()) GTEST_SKIP() << no_device();
    }
};

// Address space without memory behind it until it is touched: for tensors past 2^31 elements.
class Hollow {
  public:
    explicit Hollow(size_t bytes);
    ~Hollow();
    char *data = nullptr;

  private:
    size_t bytes_;
};

} // namespace tst
