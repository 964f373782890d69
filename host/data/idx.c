/* IDX files, as MNIST's: two zero bytes, a type, the number of extents, the extents (32 bits,
 * big-endian), the elements. */
#include <string.h>
#include <zlib.h>

#include "core/checked.h"
#include "data/dataset.h"
#include "io/file.h"
#include "io/npy.h"

enum { TYPE_UBYTE = 0x08, RANK_MAX = 3, HEADER_MAX = 4 + 4 * RANK_MAX };
/* Deflate cannot do better than 1032 : 1, so that a header cannot ask for more memory. */
enum { DEFLATE_RATIO = 1032 };

static bool is_gzip(const uint8_t *bytes, size_t size) {
    return size >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

int tw_idx_is(const uint8_t *bytes, size_t size) {
    return is_gzip(bytes, size) || (size >= 4 && bytes[0] == 0 && bytes[1] == 0);
}

/* zlib's memory is the context's. */
static voidpf on_allocate(voidpf ctx, uInt items, uInt size) {
    return tw_allocate(ctx, items, size);
}

static void on_free(voidpf ctx, voidpf memory) {
    tw_free(ctx, memory);
}

/* Checks the header of an array with `rank` extents; *total gets the number of its bytes. */
static tw_status read_header(tw_context *ctx, const char *path, const uint8_t *h, int rank,
                             int64_t *shape, int64_t *total) {
    if (h[0] != 0 || h[1] != 0) return tw_fail(ctx, TW_ERROR_FORMAT, "%s: not an IDX file", path);
    if (h[2] != TYPE_UBYTE)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: IDX elements of type 0x%02x, expected 0x08 (unsigned bytes)", path,
                       h[2]);
    if (h[3] != rank)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: an IDX file of %d dimensions, expected %d (%s)",
                       path, h[3], rank, rank == 1 ? "labels" : "images");
    *total = 1;
    for (int i = 0; i < rank; i++) {
        const uint8_t *e = h + 4 + 4 * i;
        shape[i] = (int64_t)e[0] << 24 | (int64_t)e[1] << 16 | (int64_t)e[2] << 8 | (int64_t)e[3];
        if (shape[i] == 0) return tw_fail(ctx, TW_ERROR_FORMAT, "%s: dimension %d is 0", path, i);
        if (!tw_mul_i64(*total, shape[i], total))
            return tw_fail(ctx, TW_ERROR_FORMAT, "%s: the dimensions do not fit 63 bits", path);
    }
    return TW_OK;
}

static tw_status read_plain(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                            int rank, int64_t *shape, uint8_t **data) {
    const size_t start = 4 + 4 * (size_t)rank;
    int64_t total;
    if (size < start)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: the file is cut short within its header", path);
    TW_TRY(read_header(ctx, path, bytes, rank, shape, &total));
    if ((uint64_t)total != size - start)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes of data, expected %lld by the header",
                       path, size - start, (long long)total);
    *data = tw_allocate(ctx, (size_t)total, 1);
    if (!*data) return TW_ERROR_MEMORY;
    memcpy(*data, bytes + start, (size_t)total);
    return TW_OK;
}

/* Inflates up to `size` bytes; *end is set when the compressed data ended. zlib counts with 32
 * bits, so that both sides go piecewise. */
static tw_status inflate_some(tw_context *ctx, const char *path, z_stream *z,
                              const uint8_t *input_end, uint8_t *to, size_t size, size_t *got,
                              bool *end) {
    *got = 0;
    *end = false;
    while (*got < size && !*end) {
        const size_t left = (size_t)(input_end - z->next_in), room = size - *got;
        z->avail_in = left > 1u << 30 ? 1u << 30 : (uInt)left;
        z->avail_out = room > 1u << 30 ? 1u << 30 : (uInt)room;
        z->next_out = to + *got;
        const uInt before = z->avail_out;
        const int r = inflate(z, Z_NO_FLUSH);
        *got += before - z->avail_out;
        *end = r == Z_STREAM_END;
        if (r == Z_MEM_ERROR) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
        if (r == Z_BUF_ERROR || (r == Z_OK && before == z->avail_out && z->next_in == input_end))
            return tw_fail(ctx, TW_ERROR_FORMAT, "%s: the gzip data is cut short", path);
        if (r != Z_OK && r != Z_STREAM_END)
            return tw_fail(ctx, TW_ERROR_FORMAT, "%s: damaged gzip data: %s", path,
                           z->msg ? z->msg : "unknown");
    }
    return TW_OK;
}

static tw_status inflate_array(tw_context *ctx, const char *path, z_stream *z,
                               const uint8_t *input_end, size_t size, int rank, int64_t *shape,
                               uint8_t **data) {
    uint8_t header[HEADER_MAX], extra;
    const size_t start = 4 + 4 * (size_t)rank;
    size_t got;
    bool end;
    int64_t total;
    TW_TRY(inflate_some(ctx, path, z, input_end, header, start, &got, &end));
    if (got < start)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: the file is cut short within its header", path);
    TW_TRY(read_header(ctx, path, header, rank, shape, &total));
    if ((uint64_t)total / DEFLATE_RATIO > size)
        return tw_fail(ctx, TW_ERROR_FORMAT,
                       "%s: %zu bytes of gzip data cannot hold the %lld that the header names",
                       path, size, (long long)total);
    *data = tw_allocate(ctx, (size_t)total, 1);
    if (!*data) return TW_ERROR_MEMORY;
    TW_TRY(inflate_some(ctx, path, z, input_end, *data, (size_t)total, &got, &end));
    if (got < (size_t)total)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes of data, expected %lld by the header",
                       path, got, (long long)total);
    /* One byte more must not come; asking for it also checks the checksum at the end. */
    if (!end) {
        TW_TRY(inflate_some(ctx, path, z, input_end, &extra, 1, &got, &end));
        if (got)
            return tw_fail(ctx, TW_ERROR_FORMAT, "%s: more data than the %lld bytes of the header",
                           path, (long long)total);
    }
    if (z->next_in != input_end)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: %zu bytes after the end of the gzip data", path,
                       (size_t)(input_end - z->next_in));
    return TW_OK;
}

tw_status tw_idx_read(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                      int rank, int64_t *shape, uint8_t **data) {
    *data = NULL;
    if (!is_gzip(bytes, size)) return read_plain(ctx, path, bytes, size, rank, shape, data);
    z_stream z;
    memset(&z, 0, sizeof z);
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.zalloc = on_allocate;
    z.zfree = on_free;
    z.opaque = ctx;
    if (inflateInit2(&z, 15 + 16) != Z_OK) /* the largest window, gzip only */
        return tw_fail(ctx, TW_ERROR_MEMORY, "%s: out of memory", path);
    tw_status s = inflate_array(ctx, path, &z, bytes + size, size, rank, shape, data);
    inflateEnd(&z);
    if (s != TW_OK) {
        tw_free(ctx, *data);
        *data = NULL;
    }
    return s;
}

tw_status tw_dataset_open_idx(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                              tw_dataset **out) {
    int64_t extents[3];
    uint8_t *data;
    *out = NULL;
    TW_TRY(tw_idx_read(ctx, path, bytes, size, 3, extents, &data));
    const int64_t shape[3] = {extents[1], extents[2], 1};
    tw_dataset *d;
    tw_status s = tw_dataset_new(ctx, path, extents[0], 3, shape, &d);
    if (s != TW_OK) {
        tw_free(ctx, data);
        return s;
    }
    d->bytes = data;
    *out = d;
    return TW_OK;
}
