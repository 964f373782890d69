#include "io/png.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "io/png_session.h"

enum { CHUNK_MAX = 8 << 20 };
/* Deflate cannot do better than 1032 : 1, so that a header cannot ask for much more memory. */
enum { DEFLATE_RATIO = 1032 };
/* More than any row takes; a chunk's length in a file may ask for 2 GiB. */
#define BLOCK_MAX ((size_t)64 << 20)

void tw_png_on_error(png_structp png, png_const_charp text) {
    tw_png_session *s = png_get_error_ptr(png);
    snprintf(s->message, sizeof s->message, "%s", text);
    png_longjmp(png, 1);
}

void tw_png_on_warning(png_structp png, png_const_charp text) {
    const tw_png_session *s = png_get_error_ptr(png);
    tw_log(s->ctx, TW_LOG_DEBUG, "%s: libpng: %s", s->name, text);
}

/* libpng's memory is the context's. It goes on without what it does not need. */
png_voidp tw_png_on_allocate(png_structp png, png_alloc_size_t size) {
    tw_png_session *s = png_get_mem_ptr(png);
    if (size > BLOCK_MAX) return NULL;
    void *memory = tw_allocate(s->ctx, size, 1);
    if (!memory) s->status = TW_ERROR_MEMORY;
    return memory;
}

void tw_png_on_free(png_structp png, png_voidp memory) {
    const tw_png_session *s = png_get_mem_ptr(png);
    tw_free(s->ctx, memory);
}

tw_status tw_png_failure(tw_png_session *s) {
    if (s->status != TW_OK) return s->status;
    return tw_fail(s->ctx, TW_ERROR_FORMAT, "%s: PNG: %s", s->name, s->message);
}

static void on_read(png_structp png, png_bytep to, png_size_t size) {
    tw_png_session *s = png_get_io_ptr(png);
    if (size > s->size - s->used) png_error(png, "the file is cut short");
    memcpy(to, s->bytes + s->used, size);
    s->used += size;
}

/* Lays the rows of grey or RGB with alpha on white, in place.
 * Returns the channels that are left. */
static int lay_on_white(uint8_t *pixels, int64_t count, int channels) {
    if (channels != 2 && channels != 4) return channels;
    const int colours = channels - 1;
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *from = pixels + i * channels;
        const int alpha = from[colours];
        for (int c = 0; c < colours; c++)
            pixels[i * colours + c] =
                (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    return colours;
}

/* Checks the sizes that the header names before memory follows them. `line` is a row as the file
 * has it. */
static tw_status check_size(const tw_png_session *s, int64_t height, size_t line, size_t out_line) {
    /* Both extents are at most 2^20: nothing here can overflow. */
    if (height * (int64_t)out_line > TW_IMAGE_BYTES_MAX)
        return tw_fail(s->ctx, TW_ERROR_UNSUPPORTED, "%s: PNG: more than 2^30 bytes of pixels",
                       s->name);
    if ((uint64_t)height * line / DEFLATE_RATIO > s->size)
        return tw_fail(s->ctx, TW_ERROR_FORMAT,
                       "%s: PNG: %zu bytes cannot hold the pixels that the header names", s->name,
                       s->size);
    return TW_OK;
}

/* Between setjmp and the end nothing is changed but through the pointers. */
static tw_status decode(tw_png_session *s, png_structp png, png_infop info, tw_image *out) {
    if (setjmp(png_jmpbuf(png))) return tw_png_failure(s);
    png_set_read_fn(png, s, on_read);
    png_set_user_limits(png, TW_PNG_EXTENT_MAX, TW_PNG_EXTENT_MAX);
    png_set_chunk_malloc_max(png, CHUNK_MAX);
    png_read_info(png, info);
    const size_t file_line = png_get_rowbytes(png, info);
    /* Rows of eight bits: grey or RGB, with alpha where something is transparent. */
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    out->width = png_get_image_width(png, info);
    out->height = png_get_image_height(png, info);
    out->channels = png_get_channels(png, info);
    const size_t line = png_get_rowbytes(png, info);
    if (out->channels < 1 || out->channels > 4 ||
        line != (size_t)out->width * (size_t)out->channels)
        return tw_fail(s->ctx, TW_ERROR_INTERNAL, "%s: PNG: libpng gave rows of %zu bytes", s->name,
                       line);
    TW_TRY(check_size(s, out->height, file_line, line));
    s->pixels = tw_allocate(s->ctx, (size_t)out->height, line);
    s->rows = tw_allocate(s->ctx, (size_t)out->height, sizeof *s->rows);
    if (!s->pixels || !s->rows) return TW_ERROR_MEMORY;
    for (int64_t y = 0; y < out->height; y++) s->rows[y] = s->pixels + (size_t)y * line;
    png_read_image(png, s->rows);
    png_read_end(png, NULL);
    return TW_OK;
}

bool tw_png_is(const uint8_t *bytes, size_t size) {
    return size >= 8 && png_sig_cmp(bytes, 0, 8) == 0;
}

tw_status tw_png_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                        tw_image *out) {
    tw_png_session s = {.ctx = ctx, .name = name, .bytes = bytes, .size = size};
    memset(out, 0, sizeof *out);
    if (!tw_png_is(bytes, size)) return tw_fail(ctx, TW_ERROR_FORMAT, "%s: not a PNG file", name);
    png_structp png =
        png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &s, tw_png_on_error, tw_png_on_warning, &s,
                                 tw_png_on_allocate, tw_png_on_free);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    const tw_status status = info ? decode(&s, png, info, out)
                                  : tw_fail(ctx, TW_ERROR_MEMORY, "%s: PNG: out of memory", name);
    png_destroy_read_struct(&png, &info, NULL);
    tw_free(ctx, s.rows);
    if (status != TW_OK) {
        tw_free(ctx, s.pixels);
        memset(out, 0, sizeof *out);
        return status;
    }
    out->pixels = s.pixels;
    out->channels = lay_on_white(s.pixels, out->width * out->height, out->channels);
    return TW_OK;
}

tw_status tw_png_read(tw_context *ctx, const char *path, tw_image *out) {
    tw_file_mapping mapping;
    memset(out, 0, sizeof *out);
    TW_TRY(tw_file_map(ctx, path, &mapping));
    const tw_status s = tw_png_decode(ctx, path, mapping.data, mapping.size, out);
    tw_file_unmap(&mapping);
    return s;
}
