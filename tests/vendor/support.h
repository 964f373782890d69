// What the tests share: tensors in host memory, the launchers that complete a call, and a provider
// over the stand-ins of the libraries.
#pragma once

#include "backend/cuda/vendor/vendor.h"
#include "fake/fake.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

extern "C" fake::State *fake_state();

namespace vnd {

double eps_of(twk_format f);
size_t bytes_of(twk_format f);
const char *name_of(twk_format f);
constexpr twk_format formats[] = {TWK_F32, TWK_BF16, TWK_F16};

// n values of a format, `shift` bytes behind a multiple of 256.
class Tensor {
  public:
    Tensor() = default;
    Tensor(twk_format f, int64_t n, size_t shift = 0); // NaN
    Tensor(const Tensor &) = delete;                   // a copy would lie elsewhere
    Tensor(Tensor &&) = default;
    Tensor &operator=(Tensor &&) = default;
    void fill(); // at random, from -1 to 1
    double at(int64_t i) const;
    std::vector<double> all() const;
    void *data() const;
    float *f32() const { return static_cast<float *>(data()); }
    int64_t n = 0;

  private:
    twk_format f_ = TWK_F32;
    size_t shift_ = 0;
    std::vector<unsigned char> memory_;
};

Tensor random_tensor(twk_format f, int64_t n, size_t shift = 0);

// A value and the sum of the magnitudes of the terms it is made of; `rounded` are those that are
// rounded to the format on the way.
struct Expected {
    double value = 0, terms = 0, rounded = 0;
    void add(double term) {
        value += term;
        terms += std::abs(term);
    }
    void add_rounded(double term) {
        add(term);
        rounded += std::abs(term);
    }
};

// Elements outside 1.2 eps_format (|ref| + rounded) + 2^-22 terms; NaN is outside.
int64_t count_bad(const std::vector<double> &got, const std::vector<Expected> &want, twk_format f);

// Launchers on the host. `launched` counts their calls.
extern int launched;
tw_vendor_kernels launchers();

// Options for the stand-ins.
tw_vendor_options options();

class Vendor {
  public:
    explicit Vendor(const tw_vendor_options &o) { EXPECT_EQ(tw_vendor_create(&o, &p), TWK_OK); }
    Vendor() : Vendor(options()) {}
    ~Vendor() { tw_vendor_destroy(p); }
    operator tw_vendor *() const { return p; }
    tw_vendor *p = nullptr;
};

// A convolution of one image that anything serves.
twk_conv_args small_conv();
tw_vendor_call call_of(const twk_conv_args &a, tw_vendor_op op = TW_VENDOR_CONV_FORWARD);
tw_vendor_call call_of(const twk_gemm_args &a);
tw_vendor_call call_of(const twk_attention_args &a, tw_vendor_op op);

// Everything that the libraries gave out is given back when a test ends.
class VendorTest : public ::testing::Test {
  protected:
    VendorTest();
    ~VendorTest() override;
    // The libraries' engines, in the order of their proposal.
    static void engines(const std::vector<fake::Engine> &e);
};

// An engine of this number, and what is special about it.
fake::Engine engine(int64_t index, float milliseconds = 1, size_t workspace = 0);

#define EXPECT_CANNOT(call, part)                                                                  \
    do {                                                                                           \
        EXPECT_EQ(call, TWK_UNSUPPORTED) << tw_vendor_text();                                      \
        EXPECT_NE(std::string(tw_vendor_text()).find(part), std::string::npos)                     \
            << tw_vendor_text();                                                                   \
    } while (0)
#define EXPECT_BAD(call, part)                                                                     \
    do {                                                                                           \
        EXPECT_EQ(call, TWK_BAD_ARGUMENT) << tw_vendor_text();                                     \
        EXPECT_NE(std::string(tw_vendor_text()).find(part), std::string::npos)                     \
            << tw_vendor_text();                                                                   \
    } while (0)
#define ASSERT_RUNS(call) ASSERT_EQ(call, TWK_OK) << tw_vendor_text()

} // namespace vnd
