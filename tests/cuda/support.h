// What the tests of the GPU's backend share: the emulated device or a real one, and that nothing
// was left or spoilt.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include <tweedie/tweedie.h>

#include "emulated.h"

class Cuda : public ::testing::Test {
  protected:
    void TearDown() override {
        emulated::plenty();
#ifndef TW_TEST_DEVICE
        emulated::set_devices(1);
        emulated::set_capability(9, 0);
        emulated::set_name("Emulated GPU");
        emulated::set_costs(1, 1);
        emulated::keep_in_pools(false);
#endif
        emulated::break_captures(false);
        emulated::hurry(false);
        EXPECT_EQ(emulated::report(), "");
        EXPECT_EQ(emulated::held(), 0);
        EXPECT_EQ(emulated::device_bytes(), 0u);
    }
};

// A context, and the log that it kept.
class Context {
  public:
    explicit Context(tw_device device, const tw_context_options *more = nullptr) {
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        if (more) o = *more;
        o.device = device;
        o.threads = 1;
        o.log = log;
        o.log_user = this;
        o.log_level = TW_LOG_INFO;
        status_ = tw_context_create(&o, &ctx_);
    }
    ~Context() { tw_context_free(ctx_); }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
    tw_context *get() const { return ctx_; }
    tw_status status() const { return status_; }
    const std::string &logged() const { return logged_; }
    void forget() { logged_.clear(); }

  private:
    static void log(void *user, tw_log_level, const char *text) {
        static_cast<Context *>(user)->logged_ += std::string(text) + "\n";
    }
    tw_context *ctx_ = nullptr;
    tw_status status_ = TW_OK;
    std::string logged_;
};
