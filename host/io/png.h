/* PNG pictures, through libpng. */
#ifndef TW_IO_PNG_H
#define TW_IO_PNG_H

#include "io/image.h"

/* Writes a grey or RGB picture of eight bits, whole or not at all. */
tw_status tw_png_write(tw_context *ctx, const char *path, const tw_image *image);

/* Decodes any PNG as grey or RGB of eight bits: palettes are expanded, 16 bits rounded to 8, what
 * is transparent is laid on white. At most TW_IMAGE_BYTES_MAX of pixels. `name` begins the
 * failure's text. The caller frees it with tw_image_free. */
tw_status tw_png_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                        tw_image *out);
/* The same from a file. */
tw_status tw_png_read(tw_context *ctx, const char *path, tw_image *out);

/* Whether the bytes begin as a PNG file. */
bool tw_png_is(const uint8_t *bytes, size_t size);

#endif
