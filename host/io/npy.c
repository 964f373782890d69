#include "io/npy.h"

#include <string.h>

#include "core/checked.h"

/* Longest header that is read; NumPy's own are about a hundred bytes. */
enum { HEADER_MAX = 65536 };

static const struct {
    const char *descr;
    tw_dtype dtype;
} descrs[] = {
    {"<f4", TW_F32}, {"<f8", TW_F64}, {"<i4", TW_I32}, {"<i8", TW_I64}, {"|u1", TW_U8},
};
enum { DESCRS = sizeof descrs / sizeof *descrs };

/* What is left of the header's text, and where to complain. */
typedef struct cursor {
    tw_context *ctx;
    const char *name, *at, *end;
} cursor;

static tw_status bad(const cursor *c, const char *what) {
    return tw_fail(c->ctx, TW_ERROR_FORMAT, "%s: the .npy header: %s", c->name, what);
}

static void skip_space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n')) c->at++;
}

static bool take(cursor *c, char wanted) {
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

static bool take_word(cursor *c, const char *word) {
    const size_t n = strlen(word);
    skip_space(c);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, word, n)) return false;
    c->at += n;
    return true;
}

/* A quoted string without escapes; false when there is none or it does not fit. */
static bool take_string(cursor *c, char *out, size_t room) {
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) return false;
    const char quote = *c->at++;
    size_t n = 0;
    for (; c->at < c->end && *c->at != quote; c->at++) {
        if (*c->at == '\\' || n + 1 >= room) return false;
        out[n++] = *c->at;
    }
    out[n] = '\0';
    if (c->at == c->end) return false;
    c->at++;
    return true;
}

static bool take_extent(cursor *c, int64_t *out) {
    skip_space(c);
    if (c->at == c->end || *c->at < '0' || *c->at > '9') return false;
    for (*out = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (!tw_mul_i64(*out, 10, out) || !tw_add_i64(*out, *c->at - '0', out)) return false;
    return true;
}

static tw_status read_descr(cursor *c, tw_npy *out) {
    char descr[16];
    if (!take_string(c, descr, sizeof descr))
        return tw_fail(c->ctx, TW_ERROR_UNSUPPORTED,
                       "%s: the dtype is not a simple one; expected <f4, <f8, <i4, <i8 or |u1",
                       c->name);
    for (int i = 0; i < DESCRS; i++) {
        if (strcmp(descr, descrs[i].descr)) continue;
        out->dtype = descrs[i].dtype;
        return TW_OK;
    }
    return tw_fail(c->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: dtype \"%s\", expected <f4, <f8, <i4, <i8 or |u1", c->name, descr);
}

static tw_status read_order(cursor *c) {
    if (take_word(c, "False")) return TW_OK;
    if (!take_word(c, "True")) return bad(c, "fortran_order: expected True or False");
    return tw_fail(c->ctx, TW_ERROR_UNSUPPORTED,
                   "%s: the array is in Fortran order; save it with numpy.ascontiguousarray",
                   c->name);
}

static tw_status read_shape(cursor *c, tw_npy *out) {
    if (!take(c, '(')) return bad(c, "shape: expected a tuple");
    out->rank = 0;
    out->count = 1;
    while (!take(c, ')')) {
        int64_t extent;
        if (out->rank == TW_NPY_MAX_RANK)
            return tw_fail(c->ctx, TW_ERROR_UNSUPPORTED, "%s: more than %d dimensions", c->name,
                           TW_NPY_MAX_RANK);
        if (!take_extent(c, &extent)) return bad(c, "shape: expected whole numbers below 2^63");
        if (!tw_mul_i64(out->count, extent, &out->count))
            return bad(c, "shape: its product does not fit 63 bits");
        out->shape[out->rank++] = extent;
        /* "(3)" is no tuple. */
        if (!take(c, ',')) {
            if (out->rank < 2 || !take(c, ')')) return bad(c, "shape: expected a tuple");
            break;
        }
    }
    return TW_OK;
}

/* The header is a Python dictionary with three keys, each once. */
static tw_status read_dictionary(cursor *c, tw_npy *out) {
    static const char *const keys[3] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    if (!take(c, '{')) return bad(c, "expected a dictionary");
    while (!take(c, '}')) {
        char key[16];
        int k = 0;
        if (!take_string(c, key, sizeof key)) return bad(c, "expected a key");
        while (k < 3 && strcmp(keys[k], key)) k++;
        if (k == 3 || (seen & 1u << k)) return bad(c, "a key that is unknown or comes twice");
        if (!take(c, ':')) return bad(c, "expected a colon after a key");
        TW_TRY(k == 0 ? read_descr(c, out) : k == 1 ? read_order(c) : read_shape(c, out));
        seen |= 1u << k;
        if (!take(c, ',')) {
            if (!take(c, '}')) return bad(c, "expected a comma or the end");
            break;
        }
    }
    if (seen != 7) return bad(c, "descr, fortran_order or shape is missing");
    skip_space(c);
    return c->at == c->end ? TW_OK : bad(c, "text after the dictionary");
}

tw_status tw_npy_parse(tw_context *ctx, const void *bytes, size_t size, const char *name,
                       tw_npy *out) {
    static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    const uint8_t *b = bytes;
    memset(out, 0, sizeof *out);
    if (size < 10 || memcmp(b, magic, sizeof magic))
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: not an .npy file", name);
    if (b[6] < 1 || b[6] > 3 || b[7] != 0)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED, "%s: .npy version %d.%d, expected 1.0 to 3.0",
                       name, b[6], b[7]);
    const size_t start = b[6] == 1 ? 10 : 12;
    size_t length = (size_t)b[8] | (size_t)b[9] << 8;
    if (b[6] != 1 && size >= start) length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (length > HEADER_MAX)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: an .npy header of %zu bytes, expected at most %d",
                       name, length, HEADER_MAX);
    if (size < start || length > size - start)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: the file is cut short within its header", name);
    const char *text = (const char *)b + start;
    cursor c = {ctx, name, text, text + length};
    TW_TRY(read_dictionary(&c, out));
    int64_t wanted;
    const size_t got = size - start - length;
    if (!tw_mul_i64(out->count, (int64_t)tw_dtype_size(out->dtype), &wanted))
        return bad(&c, "the shape does not fit 63 bits");
    if ((uint64_t)wanted != got)
        return tw_fail(ctx, TW_ERROR_FORMAT,
                       "%s: %zu bytes of data, expected %lld by the header's shape", name, got,
                       (long long)wanted);
    out->data = b + start + length;
    return TW_OK;
}

tw_status tw_npy_open(tw_context *ctx, const char *path, tw_npy *out) {
    tw_file_mapping mapping;
    memset(out, 0, sizeof *out);
    TW_TRY(tw_file_map(ctx, path, &mapping));
    tw_status s = tw_npy_parse(ctx, mapping.data, mapping.size, path, out);
    if (s == TW_OK)
        out->mapping = mapping;
    else
        tw_file_unmap(&mapping);
    return s;
}

void tw_npy_close(tw_npy *npy) {
    tw_file_unmap(&npy->mapping);
    memset(npy, 0, sizeof *npy);
}

static double to_double(const tw_npy *npy, int64_t index) {
    const uint8_t *from = (const uint8_t *)npy->data + (size_t)index * tw_dtype_size(npy->dtype);
    float f;
    double d;
    int32_t i;
    switch (npy->dtype) {
    case TW_F32:
        memcpy(&f, from, sizeof f);
        return (double)f;
    case TW_F64:
        memcpy(&d, from, sizeof d);
        return d;
    case TW_I32:
        memcpy(&i, from, sizeof i);
        return i;
    default:
        return *from;
    }
}

static int64_t read_i64(const tw_npy *npy, int64_t index) {
    int64_t i;
    memcpy(&i, (const uint8_t *)npy->data + (size_t)index * sizeof i, sizeof i);
    return i;
}

void tw_npy_to_f32(const tw_npy *npy, int64_t first, int64_t count, float *out) {
    if (npy->dtype == TW_F32) {
        if (count) memcpy(out, (const uint8_t *)npy->data + (size_t)first * 4, (size_t)count * 4);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        out[i] = npy->dtype == TW_I64 ? (float)read_i64(npy, first + i)
                                      : (float)to_double(npy, first + i);
}

int64_t tw_npy_to_i64(const tw_npy *npy, int64_t index) {
    if (npy->dtype == TW_I64) return read_i64(npy, index);
    double d = to_double(npy, index);
    return d > -0x1p63 && d < 0x1p63 ? (int64_t)d : INT64_MIN;
}
