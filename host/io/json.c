#include "io/json.h"

#include <math.h>
#include <string.h>

#include "io/file.h"

/* Length of the number at `at` that Python's json module writes and JSON does not have; 0 if there
 * is none. */
static size_t python_number(const char *at, size_t left) {
    static const char *const numbers[] = {"-Infinity", "Infinity", "NaN"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        size_t n = strlen(numbers[i]);
        if (n <= left && memcmp(at, numbers[i], n) == 0) return n;
    }
    return 0;
}

/* Copies the text with null in the place of such numbers, so that files can be read that have one
 * under a key which nobody asks for. `to` has room for 4/3 of the size. Returns the length. */
static size_t without_python_numbers(const char *text, size_t size, char *to) {
    size_t used = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        size_t n = quoted ? 0 : python_number(text + i, size - i);
        if (n) {
            memcpy(to + used, "null", 4);
            used += 4;
            i += n - 1;
            continue;
        }
        if (text[i] == '"') quoted = !quoted;
        if (quoted && text[i] == '\\' && i + 1 < size) to[used++] = text[i++];
        to[used++] = text[i];
    }
    return used;
}

tw_status tw_json_parse(tw_context *ctx, const char *text, size_t size, const char *name,
                        json_t **out) {
    *out = NULL;
    if (size > TW_JSON_TEXT_MAX)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes of JSON, expected at most %zu", name,
                       size, TW_JSON_TEXT_MAX);
    char *copy = tw_allocate(ctx, size + size / 3 + 1, 1);
    if (!copy) return TW_ERROR_MEMORY;
    size = without_python_numbers(text, size, copy);
    json_error_t error;
    json_t *root = json_loadb(copy, size, JSON_REJECT_DUPLICATES, &error);
    tw_free(ctx, copy);
    if (!root)
        return tw_fail(ctx,
                       json_error_code(&error) == json_error_out_of_memory ? TW_ERROR_MEMORY
                                                                           : TW_ERROR_FORMAT,
                       "%s: line %d: not JSON: %s", name, error.line, error.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: expected a JSON object", name);
    }
    *out = root;
    return TW_OK;
}

tw_status tw_json_load(tw_context *ctx, const char *path, json_t **out) {
    char *text;
    size_t size;
    *out = NULL;
    TW_TRY(tw_file_read(ctx, path, TW_JSON_TEXT_MAX, &text, &size));
    tw_status s = tw_json_parse(ctx, text, size, path, out);
    tw_free(ctx, text);
    return s;
}

static const json_t *find(const tw_json *json, const char *key) {
    return json_object_get(json->object, key);
}

bool tw_json_has(const tw_json *json, const char *key) {
    return find(json, key) != NULL;
}

bool tw_json_is_null(const tw_json *json, const char *key) {
    return json_is_null(find(json, key));
}

tw_status tw_json_require(const tw_json *json, const char *key) {
    if (tw_json_has(json, key)) return TW_OK;
    return tw_fail(json->ctx, TW_ERROR_FORMAT, "%s: \"%s\" is missing", json->name, key);
}

/* Says what was expected at key, or key[index] for index >= 0, and what is there. */
static tw_status mismatch(const tw_json *json, const char *key, int index, const char *expected,
                          const json_t *value) {
    char text[64] = "", place[32] = "";
    if (index >= 0) snprintf(place, sizeof place, "[%d]", index);
    const char *got = text;
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(text, sizeof text, "%g", json_real_value(value));
        break;
    case JSON_STRING:
        snprintf(text, sizeof text, "\"%.40s\"", json_string_value(value));
        break;
    case JSON_TRUE:
        got = "true";
        break;
    case JSON_FALSE:
        got = "false";
        break;
    case JSON_NULL:
        got = "null";
        break;
    case JSON_ARRAY:
        snprintf(text, sizeof text, "an array of %zu", json_array_size(value));
        break;
    case JSON_OBJECT:
        got = "an object";
        break;
    }
    return tw_fail(json->ctx, TW_ERROR_FORMAT, "%s: \"%s\"%s: expected %s, got %s", json->name, key,
                   place, expected, got);
}

static tw_status take_int(const tw_json *json, const char *key, int index, const json_t *value,
                          int64_t low, int64_t high, int64_t *out) {
    int64_t n = json_integer_value(value);
    if (json_is_integer(value) && n >= low && n <= high) {
        *out = n;
        return TW_OK;
    }
    char expected[96];
    if (low == INT64_MIN && high == INT64_MAX)
        snprintf(expected, sizeof expected, "a whole number");
    else if (high == INT64_MAX)
        snprintf(expected, sizeof expected, "a whole number of at least %lld", (long long)low);
    else
        snprintf(expected, sizeof expected, "a whole number from %lld to %lld", (long long)low,
                 (long long)high);
    return mismatch(json, key, index, expected, value);
}

static tw_status take_double(const tw_json *json, const char *key, int index, const json_t *value,
                             double *out) {
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        return mismatch(json, key, index, "a number", value);
    *out = json_number_value(value);
    return TW_OK;
}

tw_status tw_json_get_int(const tw_json *json, const char *key, int64_t low, int64_t high,
                          int64_t *out) {
    const json_t *value = find(json, key);
    return value ? take_int(json, key, -1, value, low, high, out) : TW_OK;
}

tw_status tw_json_get_double(const tw_json *json, const char *key, double *out) {
    const json_t *value = find(json, key);
    return value ? take_double(json, key, -1, value, out) : TW_OK;
}

tw_status tw_json_get_bool(const tw_json *json, const char *key, bool *out) {
    const json_t *value = find(json, key);
    if (!value) return TW_OK;
    if (!json_is_boolean(value)) return mismatch(json, key, -1, "true or false", value);
    *out = json_is_true(value);
    return TW_OK;
}

tw_status tw_json_get_string(const tw_json *json, const char *key, const char **out) {
    const json_t *value = find(json, key);
    if (!value) return TW_OK;
    if (!json_is_string(value)) return mismatch(json, key, -1, "a string", value);
    *out = json_string_value(value);
    return TW_OK;
}

tw_status tw_json_get_object(const tw_json *json, const char *key, tw_json *out) {
    const json_t *value = find(json, key);
    if (!value) return TW_OK;
    if (!json_is_object(value)) return mismatch(json, key, -1, "an object", value);
    *out = (tw_json){json->ctx, json->name, value};
    return TW_OK;
}

/* Finds an array of at most `capacity` elements; *value is null when the key is absent. */
static tw_status find_array(const tw_json *json, const char *key, int capacity,
                            const char *elements, const json_t **value) {
    *value = find(json, key);
    if (!*value) return TW_OK;
    if (json_is_array(*value) && json_array_size(*value) <= (size_t)capacity) return TW_OK;
    char expected[96];
    snprintf(expected, sizeof expected, "an array of at most %d %s", capacity, elements);
    return mismatch(json, key, -1, expected, *value);
}

tw_status tw_json_get_ints(const tw_json *json, const char *key, int64_t low, int64_t high,
                           int capacity, int64_t *out, int *count) {
    const json_t *value;
    TW_TRY(find_array(json, key, capacity, "whole numbers", &value));
    if (!value) return TW_OK;
    const int n = (int)json_array_size(value);
    int64_t ignored; /* all are checked before any is written */
    for (int i = 0; i < n; i++)
        TW_TRY(take_int(json, key, i, json_array_get(value, (size_t)i), low, high, &ignored));
    for (int i = 0; i < n; i++) out[i] = json_integer_value(json_array_get(value, (size_t)i));
    *count = n;
    return TW_OK;
}

tw_status tw_json_get_doubles(const tw_json *json, const char *key, int capacity, double *out,
                              int *count) {
    const json_t *value;
    TW_TRY(find_array(json, key, capacity, "numbers", &value));
    if (!value) return TW_OK;
    const int n = (int)json_array_size(value);
    double ignored;
    for (int i = 0; i < n; i++)
        TW_TRY(take_double(json, key, i, json_array_get(value, (size_t)i), &ignored));
    for (int i = 0; i < n; i++) out[i] = json_number_value(json_array_get(value, (size_t)i));
    *count = n;
    return TW_OK;
}

tw_status tw_json_get_strings(const tw_json *json, const char *key, int capacity, const char **out,
                              int *count) {
    const json_t *value;
    TW_TRY(find_array(json, key, capacity, "strings", &value));
    if (!value) return TW_OK;
    const int n = (int)json_array_size(value);
    for (int i = 0; i < n; i++) {
        const json_t *element = json_array_get(value, (size_t)i);
        if (!json_is_string(element)) return mismatch(json, key, i, "a string", element);
    }
    for (int i = 0; i < n; i++) out[i] = json_string_value(json_array_get(value, (size_t)i));
    *count = n;
    return TW_OK;
}
