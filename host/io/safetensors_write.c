#include <stdlib.h>
#include <string.h>

#include "core/checked.h"
#include "io/file.h"
#include "io/json.h"
#include "io/safetensors.h"

static const char *format_name(tw_dtype dtype) {
    switch (dtype) {
    case TW_F32:
        return "F32";
    case TW_F64:
        return "F64";
    case TW_BF16:
        return "BF16";
    case TW_F16:
        return "F16";
    case TW_I32:
        return "I32";
    case TW_I64:
        return "I64";
    case TW_U8:
        return "U8";
    }
    return NULL;
}

static tw_status item_bytes(tw_context *ctx, const char *path, const tw_safetensors_item *item,
                            int64_t *bytes) {
    if (!item->name || !strcmp(item->name, "__metadata__") || !format_name(item->dtype) ||
        item->rank < 0 || item->rank > TW_SAFETENSORS_MAX_RANK)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: tensor \"%s\": bad name, dtype or rank", path,
                       item->name ? item->name : "");
    *bytes = (int64_t)tw_dtype_size(item->dtype);
    for (int i = 0; i < item->rank; i++)
        if (item->shape[i] < 0 || !tw_mul_i64(*bytes, item->shape[i], bytes))
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: tensor \"%s\": bad shape", path,
                           item->name);
    return TW_OK;
}

/* Adds `value`, whose reference is taken over; false when there was no memory or no UTF-8. */
static bool put(json_t *object, const char *key, json_t *value) {
    return value && json_object_set_new(object, key, value) == 0;
}

static json_t *describe(const tw_safetensors_item *item, int64_t begin, int64_t end) {
    json_t *shape = json_array();
    bool ok = shape != NULL;
    for (int i = 0; ok && i < item->rank; i++)
        ok = json_array_append_new(shape, json_integer(item->shape[i])) == 0;
    if (!ok) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", format_name(item->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

/* The header's object; *largest gets the bytes of the largest item. */
static tw_status describe_all(tw_context *ctx, const char *path, const tw_safetensors_item *items,
                              int64_t count, const tw_safetensors_pair *metadata,
                              int64_t metadata_count, json_t *header, int64_t *largest) {
    int64_t offset = 0, bytes, end;
    if (metadata_count) {
        json_t *object = json_object();
        if (!put(header, "__metadata__", object))
            return tw_fail(ctx, TW_ERROR_MEMORY, "%s: no memory", path);
        for (int64_t i = 0; i < metadata_count; i++)
            if (!put(object, metadata[i].key, json_string(metadata[i].value)))
                return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: metadata \"%s\": not UTF-8 text", path,
                               metadata[i].key);
    }
    for (int64_t i = 0; i < count; i++) {
        TW_TRY(item_bytes(ctx, path, &items[i], &bytes));
        if (!tw_add_i64(offset, bytes, &end))
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: the tensors do not fit 63 bits", path);
        if (json_object_get(header, items[i].name))
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: tensor \"%s\" twice", path, items[i].name);
        if (!put(header, items[i].name, describe(&items[i], offset, end)))
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: tensor \"%s\": not UTF-8 text", path,
                           items[i].name);
        if (bytes > *largest) *largest = bytes;
        offset = end;
    }
    return TW_OK;
}

/* Writes the length and the header, padded with spaces so that the data is aligned to 8 bytes. */
static tw_status write_header(tw_context *ctx, const char *path, const json_t *header,
                              tw_file_writer *w) {
    char *text = json_dumps(header, JSON_COMPACT);
    if (!text) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: no memory for the header", path);
    const size_t used = strlen(text), length = (used + 7) / 8 * 8;
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (uint8_t)((uint64_t)length >> (8 * i));
    tw_status s =
        length <= TW_SAFETENSORS_HEADER_MAX
            ? tw_file_writer_write(w, prefix, sizeof prefix)
            : tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: the header has %zu bytes, more than %d", path,
                      length, TW_SAFETENSORS_HEADER_MAX);
    if (s == TW_OK) s = tw_file_writer_write(w, text, used);
    if (s == TW_OK) s = tw_file_writer_write(w, "       ", length - used);
    free(text);
    return s;
}

static tw_status write_items(tw_context *ctx, const char *path, const tw_safetensors_item *items,
                             int64_t count, void *buffer, tw_safetensors_fetch fetch, void *user,
                             tw_file_writer *w) {
    for (int64_t i = 0; i < count; i++) {
        int64_t bytes;
        TW_TRY(item_bytes(ctx, path, &items[i], &bytes));
        if (fetch && bytes) TW_TRY(fetch(user, i, buffer));
        TW_TRY(tw_file_writer_write(w, fetch ? buffer : items[i].data, (size_t)bytes));
    }
    return TW_OK;
}

tw_status tw_safetensors_write(tw_context *ctx, const char *path, const tw_safetensors_item *items,
                               int64_t count, const tw_safetensors_pair *metadata,
                               int64_t metadata_count, tw_safetensors_fetch fetch, void *user) {
    tw_file_writer *w = NULL;
    int64_t largest = 0;
    void *buffer = NULL;
    json_t *header = json_object();
    if (!header) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: no memory for the header", path);
    tw_status s = describe_all(ctx, path, items, count, metadata, metadata_count, header, &largest);
    if (s == TW_OK && fetch) {
        buffer = tw_allocate(ctx, (size_t)largest, 1);
        if (!buffer) s = TW_ERROR_MEMORY;
    }
    if (s == TW_OK) s = tw_file_writer_open(ctx, path, &w);
    if (s == TW_OK) s = write_header(ctx, path, header, w);
    if (s == TW_OK) s = write_items(ctx, path, items, count, buffer, fetch, user, w);
    json_decref(header);
    tw_free(ctx, buffer);
    if (s == TW_OK) return tw_file_writer_commit(w);
    tw_file_writer_abort(w);
    return s;
}
