/* Pictures of eight bits a channel, and how arrays of numbers become one. */
#ifndef TW_IO_IMAGE_H
#define TW_IO_IMAGE_H

#include "core/context.h"

typedef struct tw_image {
    int64_t width, height;
    int channels;    /* 1: grey, 3: RGB */
    uint8_t *pixels; /* [height, width, channels], freed with tw_image_free */
} tw_image;

void tw_image_free(tw_context *ctx, tw_image *image);

/* Lays values[n, height, width, channels] in [-1, 1] out row by row: `columns` pictures a row (0:
 * ceil(sqrt n)), `gap` black pixels between them and around. Values are rounded to the nearest of
 * 256 levels, those outside clamped, NaN black. */
tw_status tw_image_grid(tw_context *ctx, const float *values, int64_t n, int64_t height,
                        int64_t width, int channels, int64_t columns, int gap, tw_image *out);

#endif
