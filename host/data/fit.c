#include "data/fit.h"

#include <math.h>
#include <string.h>

#include "core/philox.h"
#include "io/resize.h"

/* Step of the words that place random parts; the sets that are made on the spot use others. */
enum { STEP_CROP = 1 };

/* The largest part of the wanted shape, with the share (u, v) of what is left over above and to its
 * left. It begins at a whole pixel, so that a part of the wanted size is copied. */
static tw_image_part shaped_part(const tw_fit *f, const tw_image *in, double u, double v) {
    const double w = (double)in->width, h = (double)in->height;
    const double scale = fmin(w / (double)f->width, h / (double)f->height);
    tw_image_part p = {0, 0, fmin(w, scale * (double)f->width), fmin(h, scale * (double)f->height)};
    p.left = floor(u * (w - p.width));
    p.top = floor(v * (h - p.height));
    return p;
}

/* The extents of a picture that lies within the wanted ones. */
static void padded_size(const tw_fit *f, const tw_image *in, int64_t *height, int64_t *width) {
    const double w = (double)in->width, h = (double)in->height;
    const double scale = fmin((double)f->width / w, (double)f->height / h);
    *width = (int64_t)fmax(1, fmin((double)f->width, floor(w * scale + 0.5)));
    *height = (int64_t)fmax(1, fmin((double)f->height, floor(h * scale + 0.5)));
}

tw_status tw_fit_picture(tw_context *ctx, const tw_fit *f, int64_t index, tw_image *image,
                         uint8_t *to) {
    tw_image_part part = {0, 0, (double)image->width, (double)image->height};
    int64_t height = f->height, width = f->width;
    if (f->crop == TW_CROP_CENTER) {
        part = shaped_part(f, image, 0.5, 0.5);
    } else if (f->crop == TW_CROP_RANDOM) {
        const tw_philox_key key = {f->seed, (uint64_t)index, TW_PURPOSE_DATA, STEP_CROP};
        uint32_t words[4];
        tw_philox_words(&key, 0, words);
        part = shaped_part(f, image, (double)tw_philox_uniform(words[0]),
                           (double)tw_philox_uniform(words[1]));
    } else if (f->crop == TW_CROP_PAD) {
        padded_size(f, image, &height, &width);
    }
    tw_image small;
    TW_TRY(tw_image_resize(ctx, image, &part, height, width, &small));
    const tw_status s = tw_image_set_channels(ctx, &small, f->channels);
    if (s == TW_OK) {
        const size_t line = (size_t)width * (size_t)f->channels;
        const int64_t top = (f->height - height) / 2, left = (f->width - width) / 2;
        if (height != f->height || width != f->width)
            memset(to, 0, (size_t)f->height * (size_t)f->width * (size_t)f->channels);
        for (int64_t y = 0; y < height; y++)
            memcpy(to + ((top + y) * f->width + left) * f->channels,
                   small.pixels + (size_t)y * line, line);
    }
    tw_image_free(ctx, &small);
    return s;
}

int64_t tw_fit_at_least(const tw_fit *f) {
    /* Twice the wanted size leaves the filter of the last reduction something to do. */
    return 2 * (f->height > f->width ? f->height : f->width);
}
