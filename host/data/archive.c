/* A tar of pictures, read from end to end through libarchive. */
#include <archive.h>
#include <archive_entry.h>
#include <string.h>
#include <zlib.h>

#include "data/pictures.h"

enum { BLOCK = 1 << 16, TAR_HEADER = 512, TAR_MAGIC = 257 };

static bool begins(const uint8_t *bytes, size_t size, const char *magic, size_t n) {
    return size >= n && memcmp(bytes, magic, n) == 0;
}

/* The first bytes of gzip data, or of anything else as they are. Returns how many. */
static size_t first_bytes(const uint8_t *bytes, size_t size, uint8_t *out, size_t room) {
    if (!begins(bytes, size, "\x1f\x8b", 2)) {
        const size_t n = size < room ? size : room;
        memcpy(out, bytes, n);
        return n;
    }
    z_stream z;
    memset(&z, 0, sizeof z);
    if (inflateInit2(&z, 15 + 16) != Z_OK) return 0;
    z.next_in = (Bytef *)(uintptr_t)bytes;
    z.avail_in = size > 1u << 30 ? 1u << 30 : (uInt)size;
    z.next_out = out;
    z.avail_out = (uInt)room;
    inflate(&z, Z_SYNC_FLUSH); /* what came out before a failure counts */
    inflateEnd(&z);
    return room - z.avail_out;
}

bool tw_archive_is(const uint8_t *bytes, size_t size) {
    if (begins(bytes, size, "\xfd\x37zXZ", 6) || begins(bytes, size, "BZh", 3) ||
        begins(bytes, size, "\x28\xb5\x2f\xfd", 4))
        return true;
    /* A tar with or without gzip, which IDX files have too. */
    uint8_t header[TAR_HEADER];
    const size_t got = first_bytes(bytes, size, header, sizeof header);
    return got >= TAR_MAGIC + 5 && memcmp(header + TAR_MAGIC, "ustar", 5) == 0;
}

/* The components of an entry's name, without empty ones, "." and ".."; null out of memory. *hidden:
 * one of them begins with a dot. */
static char *clean_path(tw_context *ctx, const char *name, bool *hidden) {
    char *path = tw_allocate(ctx, strlen(name) + 1, 1);
    size_t used = 0;
    *hidden = false;
    if (!path) return NULL;
    while (*name) {
        const size_t n = strcspn(name, "/");
        const bool dots = (n == 1 && name[0] == '.') || (n == 2 && !strncmp(name, "..", 2));
        if (n && !dots) {
            *hidden |= name[0] == '.';
            if (used) path[used++] = '/';
            memcpy(path + used, name, n);
            used += n;
        }
        name += n + (name[n] == '/');
    }
    path[used] = '\0';
    return path;
}

static tw_status fail_archive(tw_context *ctx, const char *path, struct archive *a) {
    const char *text = archive_error_string(a);
    return tw_fail(ctx, TW_ERROR_FORMAT, "%s: archive: %s", path, text ? text : "cannot be read");
}

/* Reads the current entry whole. A picture that is too large, or whose pieces libarchive cannot put
 * in order, is taken as far as it goes, so that its decoding fails by itself. */
static tw_status read_entry(tw_context *ctx, const char *path, struct archive *a,
                            tw_picture *picture) {
    size_t room = BLOCK;
    picture->bytes = tw_allocate(ctx, room, 1);
    if (!picture->bytes) return TW_ERROR_MEMORY;
    for (;;) {
        if (picture->size == room) {
            if (room >= TW_IMAGE_FILE_MAX) return TW_OK;
            uint8_t *more = tw_allocate(ctx, 2 * room, 1);
            if (!more) return TW_ERROR_MEMORY;
            memcpy(more, picture->bytes, room);
            tw_free(ctx, picture->bytes);
            picture->bytes = more;
            room *= 2;
        }
        const la_ssize_t n =
            archive_read_data(a, picture->bytes + picture->size, room - picture->size);
        if (n == ARCHIVE_RETRY) return TW_OK; /* from memory it would be the same for ever */
        if (n < 0) return fail_archive(ctx, path, a);
        if (n == 0) return TW_OK;
        picture->size += (size_t)n;
    }
}

typedef struct reader {
    tw_context *ctx;
    struct archive *archive;
    tw_pictures *pictures;
    tw_picture *batch;
    int n;
    size_t bytes; /* of the batch */
} reader;

static tw_status flush(reader *r) {
    const tw_status s = tw_pictures_add(r->pictures, r->batch, r->n);
    r->n = 0;
    r->bytes = 0;
    return s;
}

static tw_status read_header(reader *r, struct archive_entry *entry) {
    tw_context *ctx = r->ctx;
    if (archive_entry_filetype(entry) == AE_IFDIR) return TW_OK;
    const char *name = archive_entry_pathname_utf8(entry);
    if (!name) name = archive_entry_pathname(entry);
    bool hidden = false;
    char *path = clean_path(ctx, name ? name : "", &hidden);
    if (!path) return TW_ERROR_MEMORY;
    /* Links have no content of their own, and nothing is followed. */
    const bool plain = archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry);
    if (hidden || !plain || !tw_picture_is_name(path)) {
        r->pictures->ignored += !hidden;
        tw_free(ctx, path);
        return TW_OK;
    }
    tw_picture *picture = &r->batch[r->n++];
    picture->path = path;
    TW_TRY(read_entry(ctx, r->pictures->source, r->archive, picture));
    r->bytes += picture->size;
    return r->n == TW_PICTURES_BATCH || r->bytes > TW_PICTURES_BATCH_BYTES ? flush(r) : TW_OK;
}

static tw_status read_entries(reader *r, int64_t limit) {
    const char *path = r->pictures->source;
    while (!limit || r->pictures->count < limit) {
        struct archive_entry *entry;
        const int code = archive_read_next_header(r->archive, &entry);
        if (code == ARCHIVE_RETRY) continue;
        if (code == ARCHIVE_EOF) break;
        if (code < ARCHIVE_WARN) return fail_archive(r->ctx, path, r->archive);
        TW_TRY(read_header(r, entry));
    }
    return flush(r);
}

static tw_status open_archive(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                              struct archive *a) {
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    return archive_read_open_memory(a, bytes, size) == ARCHIVE_OK ? TW_OK
                                                                  : fail_archive(ctx, path, a);
}

tw_status tw_dataset_open_archive(tw_context *ctx, const char *path, const uint8_t *bytes,
                                  size_t size, const tw_dataset_options *o, tw_dataset **out) {
    tw_pictures p;
    *out = NULL;
    struct archive *a = archive_read_new();
    if (!a) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: archive: out of memory", path);
    tw_pictures_begin(&p, ctx, path, false, o);
    reader r = {.ctx = ctx, .archive = a, .pictures = &p};
    r.batch = tw_allocate(ctx, TW_PICTURES_BATCH, sizeof *r.batch);
    tw_status s = r.batch ? open_archive(ctx, path, bytes, size, a) : TW_ERROR_MEMORY;
    if (s == TW_OK) s = read_entries(&r, o->limit);
    if (s == TW_OK) s = tw_pictures_finish(&p, out);
    for (int i = 0; i < r.n; i++) {
        tw_free(ctx, r.batch[i].path);
        tw_free(ctx, r.batch[i].bytes);
    }
    tw_free(ctx, r.batch);
    tw_pictures_free(&p);
    archive_read_free(a);
    return s;
}
