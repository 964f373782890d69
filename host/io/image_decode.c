/* Pictures of whatever format, told by their first bytes. */
#include <string.h>

#include "io/file.h"
#include "io/image.h"
#include "io/jpeg.h"
#include "io/png.h"

bool tw_image_is(const void *bytes, size_t size) {
    return tw_png_is(bytes, size) || tw_jpeg_is(bytes, size);
}

tw_status tw_image_decode_reduced(tw_context *ctx, const char *name, const void *bytes, size_t size,
                                  int64_t at_least, tw_image *out) {
    memset(out, 0, sizeof *out);
    if (tw_png_is(bytes, size)) return tw_png_decode(ctx, name, bytes, size, out);
    if (tw_jpeg_is(bytes, size)) return tw_jpeg_decode(ctx, name, bytes, size, at_least, out);
    return tw_fail(ctx, TW_ERROR_FORMAT, "%s: neither a PNG nor a JPEG file", name);
}

tw_status tw_image_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                          tw_image *out) {
    return tw_image_decode_reduced(ctx, name, bytes, size, 0, out);
}

tw_status tw_image_read(tw_context *ctx, const char *path, int64_t at_least, tw_image *out) {
    char *bytes;
    size_t size;
    memset(out, 0, sizeof *out);
    /* Read, not mapped: a file that shrinks meanwhile must not end the process. */
    TW_TRY(tw_file_read(ctx, path, TW_IMAGE_FILE_MAX, &bytes, &size));
    const tw_status s = tw_image_decode_reduced(ctx, path, bytes, size, at_least, out);
    tw_free(ctx, bytes);
    return s;
}
