// What the tests of schedules and samplers share: a CPU context, and the goldens' JSON.
#pragma once

#include <gtest/gtest.h>
#include <jansson.h>

#include <cmath>
#include <memory>
#include <string>

#include <tweedie/tweedie.h>

struct ContextFree {
    void operator()(tw_context *ctx) const { tw_context_free(ctx); }
};
using Context = std::unique_ptr<tw_context, ContextFree>;

inline Context cpu_context() {
    tw_context_options options = TW_CONTEXT_OPTIONS_INIT;
    options.device = TW_DEVICE_CPU;
    options.threads = 1; // the work is small
    options.poison = 1;
    tw_context *ctx = nullptr;
    EXPECT_EQ(TW_OK, tw_context_create(&options, &ctx)) << tw_context_error(nullptr);
    return Context(ctx);
}

struct ScheduleFree {
    void operator()(tw_schedule *schedule) const { tw_schedule_free(schedule); }
};
using Schedule = std::unique_ptr<tw_schedule, ScheduleFree>;

inline Schedule make_schedule(tw_context *ctx, const tw_schedule_options &options) {
    tw_schedule *schedule = nullptr;
    EXPECT_EQ(TW_OK, tw_schedule_create(ctx, &options, &schedule)) << tw_context_error(ctx);
    return Schedule(schedule);
}

struct JsonFree {
    void operator()(json_t *json) const { json_decref(json); }
};
using Json = std::unique_ptr<json_t, JsonFree>;

inline Json load_golden(const char *name) {
    const std::string path = std::string(TW_TEST_DIR "/golden/") + name;
    json_error_t error;
    Json json(json_load_file(path.c_str(), 0, &error));
    EXPECT_TRUE(json) << path << ": " << error.text;
    return json;
}

inline double number(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    EXPECT_TRUE(json_is_number(value)) << key;
    return json_number_value(value);
}

inline std::string text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    EXPECT_TRUE(value) << key;
    return value ? value : "";
}

// |got - want| <= bound; fails for NaN.
inline ::testing::AssertionResult within(double got, double want, double bound) {
    if (std::abs(got - want) <= bound) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << "got " << got << ", expected " << want << " within " << bound;
}
#define EXPECT_WITHIN(got, want, bound) EXPECT_TRUE(within(got, want, bound))

// The failure's status, and a text that names what is wrong.
#define EXPECT_REFUSED(status, context, call, words)                                               \
    do {                                                                                           \
        EXPECT_EQ(status, call);                                                                   \
        const std::string said_ = tw_context_error(context);                                       \
        EXPECT_NE(std::string::npos, said_.find(words)) << said_;                                  \
        EXPECT_EQ(std::string::npos, said_.find('\n')) << said_;                                   \
    } while (0)
