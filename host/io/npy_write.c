#include <stdio.h>
#include <string.h>

#include "core/checked.h"
#include "io/npy.h"

struct tw_npy_writer {
    tw_context *ctx;
    char *path;
    tw_file_writer *file;
    size_t element;
    int64_t expected, written;
};

static const char *descr_of(tw_dtype dtype) {
    switch (dtype) {
    case TW_F32:
        return "<f4";
    case TW_F64:
        return "<f8";
    case TW_I32:
        return "<i4";
    case TW_I64:
        return "<i8";
    case TW_U8:
        return "|u1";
    default:
        return NULL;
    }
}

/* Version 1.0, padded with spaces so that the data is aligned to 64 bytes. */
static tw_status write_header(tw_npy_writer *w, const char *descr, int rank, const int64_t *shape) {
    char text[384]; /* eight extents of at most 19 digits, and 90 bytes */
    int n =
        snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (", descr);
    for (int i = 0; i < rank; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%lld%s", (long long)shape[i],
                      rank == 1      ? ","
                      : i + 1 < rank ? ", "
                                     : "");
    n += snprintf(text + n, sizeof text - (size_t)n, "), }");
    while ((10 + n + 1) % 64) text[n++] = ' ';
    text[n++] = '\n';
    const uint8_t prefix[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)n, (uint8_t)(n >> 8)};
    TW_TRY(tw_file_writer_write(w->file, prefix, sizeof prefix));
    return tw_file_writer_write(w->file, text, (size_t)n);
}

tw_status tw_npy_writer_open(tw_context *ctx, const char *path, tw_dtype dtype, int rank,
                             const int64_t *shape, tw_npy_writer **out) {
    *out = NULL;
    const char *descr = descr_of(dtype);
    if (!descr || rank < 0 || rank > TW_NPY_MAX_RANK)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: cannot write dtype %s with %d dimensions", path,
                       tw_dtype_name(dtype), rank);
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || !tw_mul_i64(count, shape[i], &count))
            return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: bad shape", path);
    tw_npy_writer *w = tw_allocate(ctx, 1, sizeof *w);
    if (!w) return TW_ERROR_MEMORY;
    w->ctx = ctx;
    w->element = tw_dtype_size(dtype);
    w->expected = count;
    w->path = tw_strdup(ctx, path);
    tw_status s = w->path ? tw_file_writer_open(ctx, path, &w->file) : TW_ERROR_MEMORY;
    if (s == TW_OK) s = write_header(w, descr, rank, shape);
    if (s != TW_OK) {
        tw_npy_writer_abort(w);
        return s;
    }
    *out = w;
    return TW_OK;
}

tw_status tw_npy_writer_append(tw_npy_writer *w, const void *elements, int64_t count) {
    size_t bytes;
    if (count < 0 || count > w->expected - w->written ||
        !tw_mul_size((size_t)count, w->element, &bytes))
        return tw_fail(w->ctx, TW_ERROR_ARGUMENT,
                       "%s: %lld elements more, the shape has room for %lld", w->path,
                       (long long)count, (long long)(w->expected - w->written));
    TW_TRY(tw_file_writer_write(w->file, elements, bytes));
    w->written += count;
    return TW_OK;
}

tw_status tw_npy_writer_commit(tw_npy_writer *w) {
    tw_status s;
    if (w->written == w->expected) {
        s = tw_file_writer_commit(w->file);
        w->file = NULL;
    } else {
        s = tw_fail(w->ctx, TW_ERROR_ARGUMENT, "%s: %lld elements, expected %lld by the shape",
                    w->path, (long long)w->written, (long long)w->expected);
    }
    tw_npy_writer_abort(w);
    return s;
}

void tw_npy_writer_abort(tw_npy_writer *w) {
    if (!w) return;
    tw_file_writer_abort(w->file);
    tw_free(w->ctx, w->path);
    tw_free(w->ctx, w);
}

tw_status tw_npy_write(tw_context *ctx, const char *path, tw_dtype dtype, int rank,
                       const int64_t *shape, const void *data) {
    tw_npy_writer *w;
    TW_TRY(tw_npy_writer_open(ctx, path, dtype, rank, shape, &w));
    tw_status s = tw_npy_writer_append(w, data, w->expected);
    if (s != TW_OK) {
        tw_npy_writer_abort(w);
        return s;
    }
    return tw_npy_writer_commit(w);
}
