/* JPEG pictures, through libjpeg-turbo. */
#ifndef TW_IO_JPEG_H
#define TW_IO_JPEG_H

#include "io/image.h"

/* Decodes a JPEG as grey or RGB, upright as its Exif data says. Damage that a viewer would paint
 * over (a file cut short, missing markers) is TW_ERROR_FORMAT, CMYK is TW_ERROR_UNSUPPORTED. At
 * most TW_IMAGE_BYTES_MAX of pixels. `name` begins the failure's text. The caller frees it with
 * tw_image_free.
 *
 * With `at_least` above 0 the picture may come reduced by 2, 4 or 8 (each pixel then stands for a
 * square of them), as long as both sides keep at_least pixels: much faster when a photograph is to
 * become small. */
tw_status tw_jpeg_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                         int64_t at_least, tw_image *out);

/* Whether the bytes begin as a JPEG file. */
bool tw_jpeg_is(const uint8_t *bytes, size_t size);

#endif
