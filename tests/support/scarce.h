// A context whose allocator can be told to fail, and the loop that fails every allocation of a
// call.
#ifndef TW_TESTS_SUPPORT_SCARCE_H
#define TW_TESTS_SUPPORT_SCARCE_H

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include <tweedie/tweedie.h>

namespace tw_test {

// What it gave must come back: the destructor checks it.
class Scarce {
  public:
    enum Mode {
        kOnce, // one allocation fails, those after it succeed
        kDry   // that one and all after it fail
    };

    explicit Scarce(const char *provider = nullptr) {
        const tw_allocator allocator = {allocate, release, this};
        tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
        options.device = TW_DEVICE_CPU;
        options.threads = 1;
        options.allocator = &allocator;
        options.provider = provider;
        EXPECT_EQ(tw_context_create(&options, &ctx_), TW_OK) << tw_context_error(nullptr);
    }
    ~Scarce() {
        plenty();
        tw_context_free(ctx_);
        EXPECT_EQ(held_, 0) << "allocations were not released";
    }
    Scarce(const Scarce &) = delete;
    Scarce &operator=(const Scarce &) = delete;

    tw_context *ctx() const { return ctx_; }
    int64_t held() const { return held_; }
    // Allocation `k`, counted from 0 and from now on, fails.
    void fail_at(int64_t k, Mode mode) {
        seen_ = 0;
        failed_ = 0;
        mode_ = mode;
        at_ = k;
    }
    void plenty() { fail_at(INT64_MAX, kOnce); }
    bool failed() const { return failed_ > 0; }
    // Bytes of the largest request so far.
    size_t largest() const { return largest_; }

  private:
    static void *allocate(void *user, size_t bytes, size_t alignment) {
        auto *self = static_cast<Scarce *>(user);
        const int64_t n = self->seen_++;
        if (bytes > self->largest_) self->largest_ = bytes;
        if (n == self->at_ || (n > self->at_ && self->mode_ == kDry)) {
            self->failed_++;
            return nullptr;
        }
        self->held_++;
        // Garbage, so that what is not written shows.
        const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
        void *memory = aligned_alloc(alignment, rounded);
        if (memory) memset(memory, 0xa5, rounded);
        return memory;
    }
    static void release(void *user, void *memory) {
        static_cast<Scarce *>(user)->held_--;
        free(memory);
    }

    tw_context *ctx_ = nullptr;
    std::atomic<int64_t> seen_{0}, failed_{0}, held_{0}, at_{INT64_MAX};
    std::atomic<Mode> mode_{kOnce};
    std::atomic<size_t> largest_{0};
};

// What a call came to: its status and its numbers as bytes.
struct Outcome {
    tw_status status;
    std::string numbers;
};

// Fails the allocations of `call` one after the other in both modes. Each time the status must be
// TW_ERROR_MEMORY with a text, and what was allocated meanwhile must be released again; then the
// call is made once more, now with memory, and must give the numbers of one that never failed.
// The first `every` allocations fail one by one, later ones in growing steps.
inline void fail_everywhere(Scarce &scarce, const std::function<Outcome()> &call,
                            int64_t at_least = 1, int64_t every = 120) {
    scarce.plenty();
    const Outcome right = call();
    ASSERT_EQ(right.status, TW_OK) << tw_context_error(scarce.ctx());
    int64_t failures = 0;
    for (Scarce::Mode mode : {Scarce::kOnce, Scarce::kDry}) {
        for (int64_t k = 0;; k += k < every ? 1 : 1 + k % 37) {
            const int64_t before = scarce.held();
            scarce.fail_at(k, mode);
            const Outcome got = call();
            const bool failed = scarce.failed();
            scarce.plenty();
            if (!failed) {
                ASSERT_EQ(got.status, TW_OK) << k << ": " << tw_context_error(scarce.ctx());
                ASSERT_EQ(got.numbers, right.numbers) << k;
                ASSERT_EQ(scarce.held(), before) << k;
                break;
            }
            failures++;
            ASSERT_EQ(got.status, TW_ERROR_MEMORY)
                << "allocation " << k << (mode == Scarce::kDry ? " and later" : "") << ": "
                << tw_context_error(scarce.ctx());
            ASSERT_NE(std::string(tw_context_error(scarce.ctx())), "") << k;
            ASSERT_EQ(scarce.held(), before) << k;
            if (k < every / 8 || k % 16 == 0) {
                const Outcome again = call();
                ASSERT_EQ(again.status, TW_OK) << k << ": " << tw_context_error(scarce.ctx());
                ASSERT_EQ(again.numbers, right.numbers) << "after the failure of " << k;
            }
        }
    }
    EXPECT_GE(failures, 2 * at_least);
}

} // namespace tw_test

#endif
