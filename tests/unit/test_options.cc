#include <gtest/gtest.h>

#include <cstddef>
#include <string>

extern "C" {
#include "core/options.h"
}

namespace {

struct Options {
    size_t size;
    int a;
    double b;
    int64_t c;
};

const Options defaults = {sizeof(Options), 1, 2.0, 3};

TEST(Options, NullGivesTheDefaults) {
    Options o = defaults;
    EXPECT_EQ(tw_options_read(nullptr, "test", &o, sizeof o, nullptr), TW_OK);
    EXPECT_EQ(o.a, 1);
}

TEST(Options, AnOlderStructKeepsLaterDefaults) {
    Options o = defaults;
    const Options given = {offsetof(Options, c), 10, 20.0, 30};
    EXPECT_EQ(tw_options_read(nullptr, "test", &o, sizeof o, &given), TW_OK);
    EXPECT_EQ(o.size, sizeof o);
    EXPECT_EQ(o.a, 10);
    EXPECT_EQ(o.b, 20.0);
    EXPECT_EQ(o.c, 3);
}

TEST(Options, SizesThatCannotBeAreRefused) {
    for (size_t size : {size_t(0), sizeof(size_t), sizeof(Options) + 1, SIZE_MAX}) {
        Options o = defaults;
        const Options given = {size, 10, 20.0, 30};
        EXPECT_EQ(tw_options_read(nullptr, "test", &o, sizeof o, &given), TW_ERROR_ARGUMENT);
        EXPECT_EQ(std::string(tw_context_error(nullptr)),
                  "test: options of " + std::to_string(size) + " bytes, expected at most " +
                      std::to_string(sizeof o) + "; start from the _INIT macro");
        EXPECT_EQ(o.a, 1);
    }
}

TEST(Options, ResultsFillWhatTheCallerHas) {
    Options out = {offsetof(Options, c), 0, 0, 77};
    EXPECT_EQ(tw_options_write(nullptr, "test", &out, &defaults, sizeof defaults), TW_OK);
    EXPECT_EQ(out.size, offsetof(Options, c));
    EXPECT_EQ(out.a, 1);
    EXPECT_EQ(out.b, 2.0);
    EXPECT_EQ(out.c, 77);
    out.size = 0;
    EXPECT_EQ(tw_options_write(nullptr, "test", &out, &defaults, sizeof defaults),
              TW_ERROR_ARGUMENT);
    out.size = sizeof out + 1;
    EXPECT_EQ(tw_options_write(nullptr, "test", &out, &defaults, sizeof defaults),
              TW_ERROR_ARGUMENT);
    EXPECT_EQ(tw_options_write(nullptr, "test", nullptr, &defaults, sizeof defaults),
              TW_ERROR_ARGUMENT);
}

} // namespace
