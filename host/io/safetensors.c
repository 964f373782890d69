#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "core/checked.h"
#include "core/halfs.h"
#include "io/file.h"
#include "io/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors files are little-endian, and so is every machine this library runs on"
#endif

struct tw_safetensors {
    tw_context *ctx;
    char *name;
    tw_file_mapping mapping; /* zeroed when the bytes are the caller's */
    const uint8_t *bytes;
    size_t size, data_start;
    json_t *header; /* owns the names */
    const json_t *metadata;
    tw_safetensors_entry *entries; /* ordered by offset */
    const tw_safetensors_entry **by_name;
    int64_t count;
};

/* Every dtype of the format that has whole bytes. */
static const struct {
    const char *name;
    size_t size;
    bool known;
    tw_dtype dtype;
} formats[] = {
    {"F32", 4, true, TW_F32},     {"F64", 8, true, TW_F64},     {"BF16", 2, true, TW_BF16},
    {"F16", 2, true, TW_F16},     {"I32", 4, true, TW_I32},     {"I64", 8, true, TW_I64},
    {"U8", 1, true, TW_U8},       {"BOOL", 1, false, 0},        {"I8", 1, false, 0},
    {"I16", 2, false, 0},         {"U16", 2, false, 0},         {"U32", 4, false, 0},
    {"U64", 8, false, 0},         {"F8_E4M3", 1, false, 0},     {"F8_E5M2", 1, false, 0},
    {"F8_E4M3FNUZ", 1, false, 0}, {"F8_E5M2FNUZ", 1, false, 0}, {"F8_E8M0", 1, false, 0},
    {"C64", 8, false, 0},
};
enum { FORMATS = sizeof formats / sizeof *formats };

static tw_status bad(const tw_safetensors *st, const char *tensor, const char *what) {
    return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: tensor \"%s\": %s", st->name, tensor, what);
}

/* A non-negative whole number that fits. */
static bool whole(const json_t *value, int64_t *out) {
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = json_integer_value(value);
    return true;
}

static tw_status read_shape(const tw_safetensors *st, const json_t *shape,
                            tw_safetensors_entry *e) {
    if (!json_is_array(shape)) return bad(st, e->name, "\"shape\": expected an array");
    if (json_array_size(shape) > TW_SAFETENSORS_MAX_RANK)
        return tw_fail(st->ctx, TW_ERROR_UNSUPPORTED,
                       "%s: tensor \"%s\": %zu dimensions, expected at most %d", st->name, e->name,
                       json_array_size(shape), TW_SAFETENSORS_MAX_RANK);
    e->rank = (int)json_array_size(shape);
    e->count = 1;
    /* Every product is checked, even beside an extent of zero, as the format's reference does. */
    for (int i = 0; i < e->rank; i++)
        if (!whole(json_array_get(shape, (size_t)i), &e->shape[i]))
            return bad(st, e->name, "\"shape\": expected whole numbers of at least 0");
    for (int i = 0; i < e->rank; i++)
        if (!tw_mul_i64(e->count, e->shape[i], &e->count))
            return bad(st, e->name, "\"shape\": its product does not fit 63 bits");
    return TW_OK;
}

static tw_status read_entry(const tw_safetensors *st, const char *name, const json_t *value,
                            tw_safetensors_entry *e) {
    e->name = name;
    if (!json_is_object(value)) return bad(st, name, "expected a JSON object");
    e->format = json_string_value(json_object_get(value, "dtype"));
    if (!e->format) return bad(st, name, "\"dtype\": expected a string");
    int f = 0;
    while (f < FORMATS && strcmp(formats[f].name, e->format)) f++;
    if (f == FORMATS)
        return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: tensor \"%s\": unknown dtype \"%.40s\"",
                       st->name, name, e->format);
    e->known = formats[f].known;
    e->dtype = formats[f].dtype;
    TW_TRY(read_shape(st, json_object_get(value, "shape"), e));
    const json_t *offsets = json_object_get(value, "data_offsets");
    int64_t begin, end, bytes;
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !whole(json_array_get(offsets, 0), &begin) || !whole(json_array_get(offsets, 1), &end) ||
        begin > end)
        return bad(st, name, "\"data_offsets\": expected [begin, end], begin <= end");
    const size_t room = st->size - st->data_start;
    if ((uint64_t)end > room)
        return tw_fail(st->ctx, TW_ERROR_FORMAT,
                       "%s: tensor \"%s\": ends at byte %lld of the data, which has %zu", st->name,
                       name, (long long)end, room);
    if (!tw_mul_i64(e->count, (int64_t)formats[f].size, &bytes) || bytes != end - begin)
        return tw_fail(st->ctx, TW_ERROR_FORMAT,
                       "%s: tensor \"%s\": %lld bytes do not hold %lld elements of %s", st->name,
                       name, (long long)(end - begin), (long long)e->count, e->format);
    e->bytes = (size_t)bytes;
    e->data = st->bytes + st->data_start + (size_t)begin;
    return TW_OK;
}

static tw_status check_metadata(tw_safetensors *st, json_t *metadata) {
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: __metadata__: expected a JSON object",
                       st->name);
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: __metadata__: \"%s\": expected a string",
                           st->name, key);
    }
    st->metadata = metadata;
    return TW_OK;
}

static int compare_offsets(const void *a, const void *b) {
    const tw_safetensors_entry *x = a, *y = b;
    if (x->data != y->data) return (uintptr_t)x->data < (uintptr_t)y->data ? -1 : 1;
    /* Empty tensors stand before the one that begins where they do. */
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b) {
    const tw_safetensors_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* The tensors must follow each other from the data's first byte to the file's last. */
static tw_status check_layout(const tw_safetensors *st) {
    const uint8_t *next = st->bytes + st->data_start, *end = st->bytes + st->size;
    for (int64_t i = 0; i < st->count; i++) {
        const tw_safetensors_entry *e = &st->entries[i];
        if ((const uint8_t *)e->data < next)
            return bad(st, e->name, "its bytes overlap another tensor's");
        if ((const uint8_t *)e->data > next)
            return bad(st, e->name, "a hole of unused bytes before it");
        next += e->bytes;
    }
    if (next != end)
        return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: %zu bytes after the last tensor", st->name,
                       (size_t)(end - next));
    return TW_OK;
}

static tw_status index_entries(tw_safetensors *st) {
    const size_t n = json_object_size(st->header);
    const char *key;
    json_t *value;
    st->entries = tw_allocate(st->ctx, n, sizeof *st->entries);
    st->by_name = tw_allocate(st->ctx, n, sizeof *st->by_name);
    if (!st->entries || !st->by_name) return TW_ERROR_MEMORY;
    json_object_foreach(st->header, key, value) {
        if (!strcmp(key, "__metadata__"))
            TW_TRY(check_metadata(st, value));
        else
            TW_TRY(read_entry(st, key, value, &st->entries[st->count++]));
    }
    qsort(st->entries, (size_t)st->count, sizeof *st->entries, compare_offsets);
    for (int64_t i = 0; i < st->count; i++) st->by_name[i] = &st->entries[i];
    qsort(st->by_name, (size_t)st->count, sizeof *st->by_name, compare_names);
    return check_layout(st);
}

static tw_status parse_header(tw_safetensors *st) {
    if (st->size < 8)
        return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: %zu bytes, too short for a safetensors file",
                       st->name, st->size);
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | st->bytes[i];
    if (length > TW_SAFETENSORS_HEADER_MAX)
        return tw_fail(
            st->ctx, TW_ERROR_FORMAT,
            "%s: a header of %llu bytes, expected at most %d; is this a safetensors file?",
            st->name, (unsigned long long)length, TW_SAFETENSORS_HEADER_MAX);
    if (length > st->size - 8)
        return tw_fail(st->ctx, TW_ERROR_FORMAT,
                       "%s: a header of %llu bytes in a file of %zu: the file is cut short",
                       st->name, (unsigned long long)length, st->size);
    st->data_start = 8 + (size_t)length;
    const char *text = (const char *)st->bytes + 8;
    if (length < 2 || text[0] != '{')
        return tw_fail(st->ctx, TW_ERROR_FORMAT, "%s: the header is no JSON object", st->name);
    json_error_t error;
    st->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!st->header)
        return tw_fail(st->ctx,
                       json_error_code(&error) == json_error_out_of_memory ? TW_ERROR_MEMORY
                                                                           : TW_ERROR_FORMAT,
                       "%s: the header: %s", st->name, error.text);
    return index_entries(st);
}

tw_status tw_safetensors_parse(tw_context *ctx, const void *bytes, size_t size, const char *name,
                               tw_safetensors **out) {
    *out = NULL;
    if (!bytes) return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: no bytes to parse", name);
    tw_safetensors *st = tw_allocate(ctx, 1, sizeof *st);
    if (!st) return TW_ERROR_MEMORY;
    st->ctx = ctx;
    st->bytes = bytes;
    st->size = size;
    st->name = tw_strdup(ctx, name);
    tw_status s = st->name ? parse_header(st) : TW_ERROR_MEMORY;
    if (s != TW_OK) {
        tw_safetensors_close(st);
        return s;
    }
    *out = st;
    return TW_OK;
}

tw_status tw_safetensors_open(tw_context *ctx, const char *path, tw_safetensors **out) {
    tw_file_mapping mapping;
    *out = NULL;
    TW_TRY(tw_file_map(ctx, path, &mapping));
    tw_status s = tw_safetensors_parse(ctx, mapping.data, mapping.size, path, out);
    if (s == TW_OK)
        (*out)->mapping = mapping;
    else
        tw_file_unmap(&mapping);
    return s;
}

void tw_safetensors_close(tw_safetensors *st) {
    if (!st) return;
    tw_context *ctx = st->ctx;
    tw_file_unmap(&st->mapping);
    json_decref(st->header);
    tw_free(ctx, st->entries);
    tw_free(ctx, st->by_name);
    tw_free(ctx, st->name);
    tw_free(ctx, st);
}

int64_t tw_safetensors_count(const tw_safetensors *st) {
    return st->count;
}

const tw_safetensors_entry *tw_safetensors_entry_at(const tw_safetensors *st, int64_t index) {
    return index >= 0 && index < st->count ? &st->entries[index] : NULL;
}

const tw_safetensors_entry *tw_safetensors_find(const tw_safetensors *st, const char *name) {
    int64_t low = 0, high = st->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = strcmp(st->by_name[middle]->name, name);
        if (order == 0) return st->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const char *tw_safetensors_metadata(const tw_safetensors *st, const char *key) {
    return json_string_value(json_object_get(st->metadata, key));
}

tw_status tw_safetensors_read_f32(const tw_safetensors *st, const tw_safetensors_entry *e,
                                  float *out) {
    const uint8_t *from = e->data;
    if (e->known && e->dtype == TW_F32) {
        if (e->bytes) memcpy(out, from, e->bytes);
    } else if (e->known && e->dtype == TW_F64) {
        for (int64_t i = 0; i < e->count; i++) {
            double d;
            memcpy(&d, from + 8 * i, sizeof d);
            out[i] = (float)d;
        }
    } else if (e->known && (e->dtype == TW_BF16 || e->dtype == TW_F16)) {
        for (int64_t i = 0; i < e->count; i++) {
            uint16_t h;
            memcpy(&h, from + 2 * i, sizeof h);
            out[i] = e->dtype == TW_BF16 ? tw_bf16_to_f32(h) : tw_f16_to_f32(h);
        }
    } else {
        return tw_fail(st->ctx, TW_ERROR_UNSUPPORTED,
                       "%s: tensor \"%s\": dtype %s, expected F32, F64, BF16 or F16", st->name,
                       e->name, e->format);
    }
    return TW_OK;
}
