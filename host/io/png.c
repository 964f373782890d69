#include "io/png.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "core/checked.h"
#include "io/file.h"

enum { EXTENT_MAX = 1 << 20, CHUNK_MAX = 8 << 20 };
#define PIXEL_BYTES_MAX ((int64_t)1 << 30)
/* More than any row of EXTENT_MAX pixels takes; a chunk's length in a file may ask for 2 GiB. */
#define BLOCK_MAX ((size_t)64 << 20)

/* What one picture's coding needs. It lives outside the frames that libpng jumps over. */
typedef struct session {
    tw_context *ctx;
    const char *path;
    tw_status status; /* of the failure that made us jump; TW_OK: libpng's own, see message */
    char message[160];
    /* reading */
    tw_file_mapping mapping;
    size_t used;
    uint8_t *pixels;
    png_bytep *rows;
    /* writing */
    tw_file_writer *writer;
} session;

static void on_error(png_structp png, png_const_charp text) {
    session *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text) {
    session *s = png_get_error_ptr(png);
    tw_log(s->ctx, TW_LOG_DEBUG, "%s: libpng: %s", s->path, text);
}

/* libpng's memory is the context's. It goes on without what it does not need. */
static png_voidp on_allocate(png_structp png, png_alloc_size_t size) {
    session *s = png_get_mem_ptr(png);
    if (size > BLOCK_MAX) return NULL;
    void *memory = tw_allocate(s->ctx, size, 1);
    if (!memory) s->status = TW_ERROR_MEMORY;
    return memory;
}

static void on_free(png_structp png, png_voidp memory) {
    const session *s = png_get_mem_ptr(png);
    tw_free(s->ctx, memory);
}

/* The failure that libpng's jump stands for. */
static tw_status session_failure(session *s) {
    if (s->status != TW_OK) return s->status;
    return tw_fail(s->ctx, TW_ERROR_FORMAT, "%s: PNG: %s", s->path, s->message);
}

static void on_write(png_structp png, png_bytep bytes, png_size_t size) {
    session *s = png_get_io_ptr(png);
    s->status = tw_file_writer_write(s->writer, bytes, size);
    if (s->status != TW_OK) png_error(png, "write");
}

static void on_flush(png_structp png) {
    (void)png;
}

/* Between setjmp and the end nothing is changed but through `s`. */
static tw_status encode(session *s, png_structp png, png_infop info, const tw_image *image) {
    if (setjmp(png_jmpbuf(png))) return session_failure(s);
    png_set_write_fn(png, s, on_write, on_flush);
    png_set_user_limits(png, EXTENT_MAX, EXTENT_MAX);
    png_set_IHDR(png, info, (png_uint_32)image->width, (png_uint_32)image->height, 8,
                 image->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int64_t y = 0; y < image->height; y++)
        png_write_row(png, image->pixels + y * image->width * image->channels);
    png_write_end(png, info);
    return TW_OK;
}

tw_status tw_png_write(tw_context *ctx, const char *path, const tw_image *image) {
    session s = {.ctx = ctx, .path = path};
    if (image->width < 1 || image->height < 1 || image->width > EXTENT_MAX ||
        image->height > EXTENT_MAX || (image->channels != 1 && image->channels != 3))
        return tw_fail(
            ctx, TW_ERROR_ARGUMENT,
            "%s: a picture of %lldx%lld with %d channels, expected 1 to %d pixels a side "
            "and 1 or 3 channels",
            path, (long long)image->width, (long long)image->height, image->channels, EXTENT_MAX);
    TW_TRY(tw_file_writer_open(ctx, path, &s.writer));
    png_structp png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning, &s,
                                                on_allocate, on_free);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    tw_status status = info ? encode(&s, png, info, image)
                            : tw_fail(ctx, TW_ERROR_MEMORY, "%s: PNG: out of memory", path);
    png_destroy_write_struct(&png, &info);
    if (status == TW_OK) return tw_file_writer_commit(s.writer);
    tw_file_writer_abort(s.writer);
    return status;
}

static void on_read(png_structp png, png_bytep to, png_size_t size) {
    session *s = png_get_io_ptr(png);
    if (size > s->mapping.size - s->used) png_error(png, "the file is cut short");
    memcpy(to, s->mapping.data + s->used, size);
    s->used += size;
}

/* Asks libpng for rows of eight bits, grey or RGB. */
static void set_transforms(png_structp png, png_infop info) {
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_strip_alpha(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

static tw_status decode(session *s, png_structp png, png_infop info, tw_image *out) {
    if (setjmp(png_jmpbuf(png))) return session_failure(s);
    png_set_read_fn(png, s, on_read);
    png_set_user_limits(png, EXTENT_MAX, EXTENT_MAX);
    png_set_chunk_malloc_max(png, CHUNK_MAX);
    png_read_info(png, info);
    set_transforms(png, info);
    out->width = png_get_image_width(png, info);
    out->height = png_get_image_height(png, info);
    out->channels = png_get_channels(png, info);
    const size_t line = png_get_rowbytes(png, info);
    /* Both extents are at most 2^20: nothing here can overflow. */
    if (out->height * (int64_t)line > PIXEL_BYTES_MAX)
        return tw_fail(s->ctx, TW_ERROR_UNSUPPORTED, "%s: PNG: more than 2^30 bytes of pixels",
                       s->path);
    if ((out->channels != 1 && out->channels != 3) ||
        line != (size_t)out->width * (size_t)out->channels)
        return tw_fail(s->ctx, TW_ERROR_INTERNAL, "%s: PNG: libpng gave rows of %zu bytes", s->path,
                       line);
    s->pixels = tw_allocate(s->ctx, (size_t)out->height, line);
    s->rows = tw_allocate(s->ctx, (size_t)out->height, sizeof *s->rows);
    if (!s->pixels || !s->rows) return TW_ERROR_MEMORY;
    for (int64_t y = 0; y < out->height; y++) s->rows[y] = s->pixels + (size_t)y * line;
    png_read_image(png, s->rows);
    png_read_end(png, NULL);
    return TW_OK;
}

tw_status tw_png_read(tw_context *ctx, const char *path, tw_image *out) {
    session s = {.ctx = ctx, .path = path};
    memset(out, 0, sizeof *out);
    TW_TRY(tw_file_map(ctx, path, &s.mapping));
    png_structp png = NULL;
    png_infop info = NULL;
    tw_status status;
    if (s.mapping.size < 8 || png_sig_cmp(s.mapping.data, 0, 8)) {
        status = tw_fail(ctx, TW_ERROR_FORMAT, "%s: not a PNG file", path);
    } else {
        png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning, &s,
                                       on_allocate, on_free);
        info = png ? png_create_info_struct(png) : NULL;
        status = info ? decode(&s, png, info, out)
                      : tw_fail(ctx, TW_ERROR_MEMORY, "%s: PNG: out of memory", path);
    }
    png_destroy_read_struct(&png, &info, NULL);
    tw_free(ctx, s.rows);
    tw_file_unmap(&s.mapping);
    if (status == TW_OK) {
        out->pixels = s.pixels;
        return TW_OK;
    }
    tw_free(ctx, s.pixels);
    memset(out, 0, sizeof *out);
    return status;
}
