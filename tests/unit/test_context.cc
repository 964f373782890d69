#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

extern "C" {
#include "core/context.h"
}

namespace {

struct Counting {
    int live = 0, calls = 0, fail_after = -1;
};

void *counting_allocate(void *user, size_t bytes, size_t alignment) {
    Counting *c = static_cast<Counting *>(user);
    if (c->fail_after >= 0 && c->calls >= c->fail_after) return nullptr;
    c->calls++;
    void *p = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (p) memset(p, 0xa5, bytes); // what is not cleared shows
    c->live += p != nullptr;
    return p;
}

void counting_release(void *user, void *memory) {
    static_cast<Counting *>(user)->live--;
    free(memory);
}

TEST(Context, DefaultsAreTheCpu) {
    tw_context *ctx = nullptr;
    ASSERT_EQ(tw_context_create(nullptr, &ctx), TW_OK) << tw_context_error(nullptr);
    EXPECT_EQ(tw_context_device(ctx), TW_DEVICE_CPU);
    EXPECT_GE(tw_context_threads(ctx), 1);
    EXPECT_EQ(std::string(tw_context_device_name(ctx)).rfind("CPU, ", 0), 0u);
    EXPECT_STREQ(tw_context_error(ctx), "");
    ASSERT_NE(tw_context_provider(ctx, 0), nullptr);
    EXPECT_EQ(tw_context_provider(ctx, -1), nullptr);
    int n = 0;
    while (tw_context_provider(ctx, n)) n++;
    EXPECT_EQ(tw_context_provider(ctx, n), nullptr);
    tw_context_free(ctx);
    tw_context_free(nullptr);
}

TEST(Context, RefusesBadOptions) {
    tw_context *ctx;
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.threads = -1;
    EXPECT_EQ(tw_context_create(&o, &ctx), TW_ERROR_ARGUMENT);
    EXPECT_EQ(ctx, nullptr);
    EXPECT_STREQ(tw_context_error(nullptr), "context: threads: expected 0 to 4096, got -1");
    o.threads = 1;
    o.device = static_cast<tw_device>(3);
    EXPECT_EQ(tw_context_create(&o, &ctx), TW_ERROR_ARGUMENT);
    o.device = TW_DEVICE_CPU;
    o.provider = "no such provider";
    EXPECT_NE(tw_context_create(&o, &ctx), TW_OK);
    EXPECT_NE(std::string(tw_context_error(nullptr)).find("no such provider"), std::string::npos);
    EXPECT_EQ(ctx, nullptr);
    EXPECT_EQ(tw_context_create(nullptr, nullptr), TW_ERROR_ARGUMENT);
}

TEST(Context, AnOlderOrNewerStructIsTold) {
    tw_context *ctx;
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.threads = 1;
    o.size = offsetof(tw_context_options, log); // a caller from before logs existed
    o.log_user = &o;
    ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK);
    EXPECT_EQ(tw_context_threads(ctx), 1);
    EXPECT_EQ(ctx->log_user, nullptr);
    tw_context_free(ctx);
    o.size = sizeof o + 8;
    EXPECT_EQ(tw_context_create(&o, &ctx), TW_ERROR_ARGUMENT);
    o.size = 0;
    EXPECT_EQ(tw_context_create(&o, &ctx), TW_ERROR_ARGUMENT);
}

TEST(Context, MemoryComesFromTheAllocatorAndGoesBack) {
    Counting counting;
    const tw_allocator allocator = {counting_allocate, counting_release, &counting};
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.allocator = &allocator;
    tw_context *ctx;
    ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK);
    unsigned char *p = static_cast<unsigned char *>(tw_allocate(ctx, 10, 10));
    ASSERT_NE(p, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0u);
    for (int i = 0; i < 100; i++) EXPECT_EQ(p[i], 0);
    char *text = tw_strdup(ctx, "text");
    EXPECT_STREQ(text, "text");
    tw_free(ctx, text);
    tw_free(ctx, p);
    tw_free(ctx, nullptr);
    EXPECT_EQ(tw_allocate(ctx, SIZE_MAX, 2), nullptr);
    EXPECT_EQ(std::string(tw_context_error(ctx)),
              std::to_string(SIZE_MAX) + " elements of 2 bytes do not fit an address");
    counting.fail_after = counting.calls;
    EXPECT_EQ(tw_allocate(ctx, 3, 5), nullptr);
    EXPECT_STREQ(tw_context_error(ctx), "out of memory: 15 bytes were asked for");
    tw_context_free(ctx);
    EXPECT_EQ(counting.live, 0);
}

TEST(Context, CreationSurvivesEveryFailedAllocation) {
    for (int n = 0; n < 50; n++) {
        Counting counting;
        counting.fail_after = n;
        const tw_allocator allocator = {counting_allocate, counting_release, &counting};
        tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
        o.allocator = &allocator;
        tw_context *ctx;
        const tw_status s = tw_context_create(&o, &ctx);
        if (s == TW_OK) {
            EXPECT_GT(n, 0);
            tw_context_free(ctx);
            EXPECT_EQ(counting.live, 0);
            return;
        }
        EXPECT_EQ(s, TW_ERROR_MEMORY);
        EXPECT_EQ(counting.live, 0);
    }
    FAIL() << "no success with 50 allocations";
}

TEST(Context, ErrorTextsAreOneLineAndBounded) {
    EXPECT_EQ(tw_fail(nullptr, TW_ERROR_IO, "a\nb\tc%d\x1b[0m", 7), TW_ERROR_IO);
    EXPECT_STREQ(tw_context_error(nullptr), "a b c7 [0m");
    EXPECT_EQ(tw_fail_prefix(nullptr, TW_ERROR_FORMAT, "file %d", 1), TW_ERROR_FORMAT);
    EXPECT_STREQ(tw_context_error(nullptr), "file 1: a b c7 [0m");
    tw_fail(nullptr, TW_ERROR_IO, "again: %s", tw_context_error(nullptr)); // its own text
    EXPECT_STREQ(tw_context_error(nullptr), "again: file 1: a b c7 [0m");
    const std::string longer(3000, 'x');
    tw_fail(nullptr, TW_ERROR_IO, "%s", longer.c_str());
    EXPECT_EQ(strlen(tw_context_error(nullptr)), static_cast<size_t>(TW_ERROR_TEXT - 1));
    tw_fail_prefix(nullptr, TW_ERROR_IO, "%s", longer.c_str());
    EXPECT_EQ(strlen(tw_context_error(nullptr)), static_cast<size_t>(TW_ERROR_TEXT - 1));
    // Without a context each thread has a text of its own.
    tw_fail(nullptr, TW_ERROR_IO, "mine");
    std::thread([] {
        EXPECT_STREQ(tw_context_error(nullptr), "");
        tw_fail(nullptr, TW_ERROR_IO, "theirs");
    }).join();
    EXPECT_STREQ(tw_context_error(nullptr), "mine");
}

void collect(void *user, tw_log_level level, const char *text) {
    static_cast<std::vector<std::string> *>(user)->push_back(std::to_string(level) + text);
}

TEST(Context, LogsDownToItsLevel) {
    std::vector<std::string> lines;
    tw_context_options o = TW_CONTEXT_OPTIONS_INIT;
    o.log = collect;
    o.log_user = &lines;
    o.log_level = TW_LOG_INFO;
    tw_context *ctx;
    ASSERT_EQ(tw_context_create(&o, &ctx), TW_OK);
    lines.clear();
    tw_log(ctx, TW_LOG_WARNING, "w%d", 1);
    tw_log(ctx, TW_LOG_INFO, "i");
    tw_log(ctx, TW_LOG_DEBUG, "d");
    tw_log(nullptr, TW_LOG_ERROR, "no one");
    EXPECT_EQ(lines, (std::vector<std::string>{"1w1", "2i"}));
    tw_context_free(ctx);
}

TEST(Context, EveryStatusHasAName) {
    for (int s = TW_OK; s <= TW_ERROR_INTERNAL; s++)
        EXPECT_STRNE(tw_status_name(static_cast<tw_status>(s)), "unknown status");
    EXPECT_STREQ(tw_status_name(static_cast<tw_status>(10)), "unknown status");
    EXPECT_STREQ(tw_version(), "0.1.0");
}

} // namespace
