/* Brings pictures to the size and channels of a data set. */
#ifndef TW_DATA_FIT_H
#define TW_DATA_FIT_H

#include <tweedie/dataset.h>

#include "io/image.h"

typedef struct tw_fit {
    int64_t height, width;
    int channels; /* 1 or 3 */
    tw_crop crop;
    uint64_t seed; /* of random places */
} tw_fit;

/* The picture with index `index` as to[height, width, channels]; `image` is changed. */
tw_status tw_fit_picture(tw_context *ctx, const tw_fit *fit, int64_t index, tw_image *image,
                         uint8_t *to);

/* Both sides that a picture may be reduced to before it is fitted, see tw_image_decode_reduced. */
int64_t tw_fit_at_least(const tw_fit *fit);

#endif
