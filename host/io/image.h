/* Pictures of eight bits a channel, and how arrays of numbers become one. */
#ifndef TW_IO_IMAGE_H
#define TW_IO_IMAGE_H

#include "core/context.h"

/* What a picture may take: decoded, and as a file. */
#define TW_IMAGE_BYTES_MAX ((int64_t)1 << 30)
#define TW_IMAGE_FILE_MAX ((size_t)1 << 28)

typedef struct tw_image {
    int64_t width, height;
    int channels;    /* 1: grey, 3: RGB */
    uint8_t *pixels; /* [height, width, channels], freed with tw_image_free */
} tw_image;

/* A zeroed image is allowed; the image is zeroed. */
void tw_image_free(tw_context *ctx, tw_image *image);

/* Decodes a PNG or a JPEG, told by its first bytes; see tw_png_decode and tw_jpeg_decode. `name`
 * begins the failure's text. *out is zeroed after a failure. */
tw_status tw_image_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                          tw_image *out);
/* The same; a JPEG may come reduced by 2, 4 or 8 while both sides keep `at_least` pixels (0: never
 * reduced). */
tw_status tw_image_decode_reduced(tw_context *ctx, const char *name, const void *bytes, size_t size,
                                  int64_t at_least, tw_image *out);
/* The same from a file of at most TW_IMAGE_FILE_MAX bytes. */
tw_status tw_image_read(tw_context *ctx, const char *path, int64_t at_least, tw_image *out);
/* Whether the bytes begin as one of the two. */
bool tw_image_is(const void *bytes, size_t size);

/* Lays values[n, height, width, channels] in [-1, 1] out row by row: `columns` pictures a row (0:
 * ceil(sqrt n)), `gap` black pixels between them and around. Values are rounded to the nearest of
 * 256 levels, those outside clamped, NaN black. */
tw_status tw_image_grid(tw_context *ctx, const float *values, int64_t n, int64_t height,
                        int64_t width, int channels, int64_t columns, int gap, tw_image *out);

#endif
