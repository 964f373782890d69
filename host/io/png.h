/* PNG pictures, through libpng. */
#ifndef TW_IO_PNG_H
#define TW_IO_PNG_H

#include "io/image.h"

/* Writes a grey or RGB picture of eight bits, whole or not at all. */
tw_status tw_png_write(tw_context *ctx, const char *path, const tw_image *image);

/* Reads any PNG as grey or RGB of eight bits: palettes are expanded, 16 bits rounded to 8,
 * transparency dropped. At most 2^30 bytes of pixels. The caller frees it with tw_image_free. */
tw_status tw_png_read(tw_context *ctx, const char *path, tw_image *out);

#endif
