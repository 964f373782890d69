/* Writing PNG. */
#include <png.h>
#include <setjmp.h>

#include "io/file.h"
#include "io/png_session.h"

static void on_write(png_structp png, png_bytep bytes, png_size_t size) {
    tw_png_session *s = png_get_io_ptr(png);
    s->status = tw_file_writer_write(s->writer, bytes, size);
    if (s->status != TW_OK) png_error(png, "write");
}

static void on_flush(png_structp png) {
    (void)png;
}

/* Between setjmp and the end nothing is changed but through `s`. */
static tw_status encode(tw_png_session *s, png_structp png, png_infop info, const tw_image *image) {
    if (setjmp(png_jmpbuf(png))) return tw_png_failure(s);
    png_set_write_fn(png, s, on_write, on_flush);
    png_set_user_limits(png, TW_PNG_EXTENT_MAX, TW_PNG_EXTENT_MAX);
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
    tw_png_session s = {.ctx = ctx, .name = path};
    if (image->width < 1 || image->height < 1 || image->width > TW_PNG_EXTENT_MAX ||
        image->height > TW_PNG_EXTENT_MAX || (image->channels != 1 && image->channels != 3))
        return tw_fail(
            ctx, TW_ERROR_ARGUMENT,
            "%s: a picture of %lldx%lld with %d channels, expected 1 to %d pixels a side "
            "and 1 or 3 channels",
            path, (long long)image->width, (long long)image->height, image->channels,
            TW_PNG_EXTENT_MAX);
    TW_TRY(tw_file_writer_open(ctx, path, &s.writer));
    png_structp png =
        png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &s, tw_png_on_error, tw_png_on_warning, &s,
                                  tw_png_on_allocate, tw_png_on_free);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    tw_status status = info ? encode(&s, png, info, image)
                            : tw_fail(ctx, TW_ERROR_MEMORY, "%s: PNG: out of memory", path);
    png_destroy_write_struct(&png, &info);
    if (status == TW_OK) return tw_file_writer_commit(s.writer);
    tw_file_writer_abort(s.writer);
    return status;
}
