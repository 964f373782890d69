/* Pictures of another size, part or number of channels. */
#ifndef TW_IO_RESIZE_H
#define TW_IO_RESIZE_H

#include "io/image.h"

/* A part of a picture, in its pixels; the corners may lie within pixels. */
typedef struct tw_image_part {
    double left, top, width, height;
} tw_image_part;

/* Brings a part of `in` to height x width, without aliasing, each axis by itself: where it shrinks,
 * a pixel is the mean of the area that it covers; where it grows, values lie on Catmull and Rom's
 * cubic through the pixels. Rounded to the nearest level. A whole picture of the same size is
 * copied. TW_ERROR_ARGUMENT where the part is empty or reaches out of the picture. The caller frees
 * *out with tw_image_free; it is zeroed after a failure. */
tw_status tw_image_resize(tw_context *ctx, const tw_image *in, const tw_image_part *part,
                          int64_t height, int64_t width, tw_image *out);

/* Grey becomes RGB by repeating, RGB grey by its luma (Rec. 601). In place, but for the pixels. */
tw_status tw_image_set_channels(tw_context *ctx, tw_image *image, int channels);

#endif
