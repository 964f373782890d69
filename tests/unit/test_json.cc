#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

extern "C" {
#include "io/json.h"
}
#include "support/tempdir.h"

namespace {

std::string error() {
    return tw_context_error(nullptr);
}

class Json {
  public:
    explicit Json(const std::string &text) {
        status = tw_json_parse(nullptr, text.data(), text.size(), "config.json", &root);
        view = tw_json{nullptr, "config.json", root};
    }
    ~Json() { json_decref(root); }
    tw_status status;
    json_t *root = nullptr;
    tw_json view{};
};

TEST(Json, ReadsEveryType) {
    Json j(R"({"i": -7, "d": 0.5, "whole": 2, "b": true, "s": "text", "n": null,
               "ints": [1, 2, 3], "strings": ["a", "b"], "doubles": [1, 2.5],
               "o": {"deep": 1}, "empty": []})");
    ASSERT_EQ(j.status, TW_OK) << error();
    int64_t i = 0;
    EXPECT_EQ(tw_json_get_int(&j.view, "i", -10, 10, &i), TW_OK);
    EXPECT_EQ(i, -7);
    double d = 0;
    EXPECT_EQ(tw_json_get_double(&j.view, "d", &d), TW_OK);
    EXPECT_EQ(d, 0.5);
    EXPECT_EQ(tw_json_get_double(&j.view, "whole", &d), TW_OK);
    EXPECT_EQ(d, 2.0);
    bool b = false;
    EXPECT_EQ(tw_json_get_bool(&j.view, "b", &b), TW_OK);
    EXPECT_TRUE(b);
    const char *s = nullptr;
    EXPECT_EQ(tw_json_get_string(&j.view, "s", &s), TW_OK);
    EXPECT_STREQ(s, "text");
    int64_t ints[4] = {0};
    int n = -1;
    EXPECT_EQ(tw_json_get_ints(&j.view, "ints", 0, 9, 4, ints, &n), TW_OK);
    EXPECT_EQ(std::vector<int64_t>(ints, ints + n), (std::vector<int64_t>{1, 2, 3}));
    const char *strings[2];
    EXPECT_EQ(tw_json_get_strings(&j.view, "strings", 2, strings, &n), TW_OK);
    EXPECT_EQ(n, 2);
    EXPECT_STREQ(strings[1], "b");
    double doubles[2];
    EXPECT_EQ(tw_json_get_doubles(&j.view, "doubles", 2, doubles, &n), TW_OK);
    EXPECT_EQ(doubles[0], 1.0);
    EXPECT_EQ(doubles[1], 2.5);
    tw_json o{};
    EXPECT_EQ(tw_json_get_object(&j.view, "o", &o), TW_OK);
    EXPECT_EQ(tw_json_get_int(&o, "deep", 0, 1, &i), TW_OK);
    EXPECT_EQ(i, 1);
    EXPECT_EQ(tw_json_get_ints(&j.view, "empty", 0, 9, 4, ints, &n), TW_OK);
    EXPECT_EQ(n, 0);
}

TEST(Json, AbsentAndNullDiffer) {
    Json j(R"({"n": null})");
    ASSERT_EQ(j.status, TW_OK);
    EXPECT_TRUE(tw_json_has(&j.view, "n"));
    EXPECT_TRUE(tw_json_is_null(&j.view, "n"));
    EXPECT_FALSE(tw_json_has(&j.view, "absent"));
    EXPECT_FALSE(tw_json_is_null(&j.view, "absent"));
    EXPECT_EQ(tw_json_require(&j.view, "n"), TW_OK);
    EXPECT_EQ(tw_json_require(&j.view, "absent"), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"absent\" is missing");
    // An absent key leaves the default; null is of no type.
    int64_t i = 42;
    EXPECT_EQ(tw_json_get_int(&j.view, "absent", 0, 1, &i), TW_OK);
    EXPECT_EQ(i, 42);
    EXPECT_EQ(tw_json_get_int(&j.view, "n", INT64_MIN, INT64_MAX, &i), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"n\": expected a whole number, got null");
    EXPECT_EQ(i, 42);
}

TEST(Json, SaysWhatWasExpected) {
    Json j(R"({"i": 11, "d": 1.5, "s": "two\nlines", "a": [1, "x", 300], "t": true, "o": {}})");
    ASSERT_EQ(j.status, TW_OK);
    int64_t i = 5, ints[3] = {7, 7, 7};
    int n = 9;
    double d = 5;
    bool b = true;
    const char *s = nullptr;
    EXPECT_EQ(tw_json_get_int(&j.view, "i", 1, 10, &i), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"i\": expected a whole number from 1 to 10, got 11");
    EXPECT_EQ(tw_json_get_int(&j.view, "d", 1, INT64_MAX, &i), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"d\": expected a whole number of at least 1, got 1.5");
    EXPECT_EQ(tw_json_get_int(&j.view, "s", 1, INT64_MAX, &i), TW_ERROR_FORMAT);
    EXPECT_EQ(error(),
              "config.json: \"s\": expected a whole number of at least 1, got \"two lines\"");
    EXPECT_EQ(tw_json_get_double(&j.view, "t", &d), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"t\": expected a number, got true");
    EXPECT_EQ(tw_json_get_bool(&j.view, "i", &b), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"i\": expected true or false, got 11");
    EXPECT_EQ(tw_json_get_string(&j.view, "o", &s), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"o\": expected a string, got an object");
    EXPECT_EQ(tw_json_get_ints(&j.view, "a", 0, 9, 3, ints, &n), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"a\"[1]: expected a whole number from 0 to 9, got \"x\"");
    EXPECT_EQ(tw_json_get_ints(&j.view, "a", 0, 9, 2, ints, &n), TW_ERROR_FORMAT);
    EXPECT_EQ(
        error(),
        "config.json: \"a\": expected an array of at most 2 whole numbers, got an array of 3");
    EXPECT_EQ(tw_json_get_ints(&j.view, "i", 0, 9, 2, ints, &n), TW_ERROR_FORMAT);
    tw_json o{};
    EXPECT_EQ(tw_json_get_object(&j.view, "a", &o), TW_ERROR_FORMAT);
    // Nothing was written.
    EXPECT_EQ(i, 5);
    EXPECT_EQ(d, 5);
    EXPECT_EQ(n, 9);
    EXPECT_EQ(ints[0], 7);
    EXPECT_TRUE(b);
}

TEST(Json, RefusesBadTexts) {
    const struct {
        const char *text, *error;
    } cases[] = {
        {"", "config.json: line 1: not JSON: '[' or '{' expected near end of file"},
        {"[1]", "config.json: expected a JSON object"},
        {"{\"a\": 1, \"a\": 2}",
         "config.json: line 1: not JSON: duplicate object key near '\"a\"'"},
        {"{NaN: 1}", nullptr},
        {"{\"a\": 1NaN}", nullptr},
        {"{\"a\": +Infinity}", nullptr},
        {"{\"a\": 1e999}", nullptr},
        {"{\"a\": 9223372036854775808}", nullptr},
        {"{\"a\": 1} x", nullptr},
        {"{\"a\": \"\\u0000\"}", nullptr},
        {"{\"a\": \"\xff\"}", nullptr},
        {"{\"a\": \n\n 1", nullptr},
    };
    for (const auto &c : cases) {
        Json j(c.text);
        EXPECT_EQ(j.status, TW_ERROR_FORMAT) << c.text;
        EXPECT_EQ(j.root, nullptr);
        if (c.error) {
            EXPECT_EQ(error(), c.error);
        }
        EXPECT_EQ(error().find('\n'), std::string::npos);
    }
}

TEST(Json, DeepNestingAndLongTextsAreRefused) {
    std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
    EXPECT_EQ(Json(deep).status, TW_ERROR_FORMAT);
    EXPECT_NE(error().find("maximum parsing depth"), std::string::npos) << error();
    std::string large = "{}" + std::string(TW_JSON_TEXT_MAX, ' ');
    EXPECT_EQ(Json(large).status, TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: 16777218 bytes of JSON, expected at most 16777216");
}

TEST(Json, LoadsFiles) {
    tw_test::TempDir dir;
    json_t *root;
    EXPECT_EQ(tw_json_load(nullptr, dir.file("no.json").c_str(), &root), TW_ERROR_IO);
    EXPECT_EQ(root, nullptr);
    tw_test::write_file(dir.file("a.json"), "{\"x\": 3}\n");
    ASSERT_EQ(tw_json_load(nullptr, dir.file("a.json").c_str(), &root), TW_OK);
    EXPECT_EQ(json_integer_value(json_object_get(root, "x")), 3);
    json_decref(root);
}

TEST(Json, ReadsPythonsNumbersAsNull) {
    Json j(R"({"a": -Infinity, "b": [NaN, Infinity], "c": "NaN \" -Infinity", "d\\": NaN})");
    ASSERT_EQ(j.status, TW_OK) << error();
    EXPECT_TRUE(tw_json_is_null(&j.view, "a"));
    EXPECT_TRUE(tw_json_is_null(&j.view, "d\\"));
    EXPECT_EQ(json_array_size(json_object_get(j.root, "b")), 2u);
    const char *c = nullptr;
    EXPECT_EQ(tw_json_get_string(&j.view, "c", &c), TW_OK);
    EXPECT_STREQ(c, "NaN \" -Infinity");
    double a = 1;
    EXPECT_EQ(tw_json_get_double(&j.view, "a", &a), TW_ERROR_FORMAT);
    EXPECT_EQ(error(), "config.json: \"a\": expected a number, got null");
}

TEST(Json, MutatedTextsNeverBreakIt) {
    const std::string good = R"({"a": [1, NaN, {"b": null}], "c": "d\u00e9", "e": -1.5e3})";
    tw_test::Random random(1);
    for (int i = 0; i < 20000; i++) {
        Json j(tw_test::mutate(good, random));
        double d = 0;
        if (j.status == TW_OK) tw_json_get_double(&j.view, "e", &d);
    }
}

} // namespace
