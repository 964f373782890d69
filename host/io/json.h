/* Typed reading of JSON objects, with one-line errors that name the file and the key. */
#ifndef TW_IO_JSON_H
#define TW_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "core/context.h"

/* Configurations are small; a text larger than this is not one. */
#define TW_JSON_TEXT_MAX ((size_t)16 << 20)

/* Parses a text whose top level is an object. Keys that occur twice are refused. NaN, Infinity and
 * -Infinity, which Python writes, are read as null. `name` (a path, or words) is for messages. *out
 * is freed with json_decref. */
tw_status tw_json_parse(tw_context *ctx, const char *text, size_t size, const char *name,
                        json_t **out);
tw_status tw_json_load(tw_context *ctx, const char *path, json_t **out);

/* An object and where it comes from; nothing is owned. */
typedef struct tw_json {
    tw_context *ctx;
    const char *name;
    const json_t *object;
} tw_json;

/* Present, be it as null. */
bool tw_json_has(const tw_json *json, const char *key);
/* Present as null. An absent key is not null. */
bool tw_json_is_null(const tw_json *json, const char *key);
/* TW_ERROR_FORMAT when the key is absent. */
tw_status tw_json_require(const tw_json *json, const char *key);

/* The getters leave *out (a default) as it is when the key is absent. A value of another type, null
 * included, or out of range is TW_ERROR_FORMAT and also leaves *out as it is. */
tw_status tw_json_get_int(const tw_json *json, const char *key, int64_t low, int64_t high,
                          int64_t *out);
/* Takes whole numbers too; never NaN or infinite. */
tw_status tw_json_get_double(const tw_json *json, const char *key, double *out);
tw_status tw_json_get_bool(const tw_json *json, const char *key, bool *out);
/* *out points into the object. */
tw_status tw_json_get_string(const tw_json *json, const char *key, const char **out);
tw_status tw_json_get_object(const tw_json *json, const char *key, tw_json *out);
/* At most `capacity` elements into out[]; *count is their number. An array with more is refused. */
tw_status tw_json_get_ints(const tw_json *json, const char *key, int64_t low, int64_t high,
                           int capacity, int64_t *out, int *count);
tw_status tw_json_get_doubles(const tw_json *json, const char *key, int capacity, double *out,
                              int *count);
tw_status tw_json_get_strings(const tw_json *json, const char *key, int capacity, const char **out,
                              int *count);

#endif
