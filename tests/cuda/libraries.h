// Libraries that stand in for cuDNN and cuBLASLt, on the emulated device's streams. On a real
// device its own are used.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>

#include "emulated.h"

#ifdef TW_TEST_DEVICE

// Those of the machine, if it has any.
constexpr bool kHaveLibraries = true;
struct Libraries {
    Libraries() {}
};

#else

#include "vendor/fake/fake.h"

extern "C" fake::State *fake_state();

// Built with the headers of both.
#if defined(FAKE_CUDNN) && defined(FAKE_CUBLASLT)
constexpr bool kHaveLibraries = true;
#else
constexpr bool kHaveLibraries = false;
#define FAKE_CUDNN nullptr
#define FAKE_CUBLASLT nullptr
#endif

// While it lives, they are what is opened. Both propose these engines.
class Libraries {
  public:
    explicit Libraries(std::initializer_list<fake::Engine> engines = {fake::Engine()}) {
        fake::State &s = *fake_state();
        s = fake::State();
        s.later = emulated::later;
        for (const fake::Engine &e : engines) s.engines[s.n_engines++] = e;
        emulated::set_libraries(FAKE_CUDNN, FAKE_CUBLASLT);
    }
    ~Libraries() {
        emulated::set_libraries(nullptr, nullptr);
        EXPECT_EQ(fake_state()->live, 0) << "descriptors or handles left";
    }
};

#endif
