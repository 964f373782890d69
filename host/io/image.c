#include "io/image.h"

#include <math.h>
#include <string.h>

#include "core/checked.h"

void tw_image_free(tw_context *ctx, tw_image *image) {
    tw_free(ctx, image->pixels);
    memset(image, 0, sizeof *image);
}

static uint8_t level(float value) {
    double scaled = ((double)value + 1.0) * 127.5 + 0.5;
    if (!(scaled > 0)) return 0; /* NaN too */
    return scaled >= 255.0 ? 255 : (uint8_t)scaled;
}

/* count pictures of `extent` pixels with gaps between and around. */
static bool total_extent(int64_t count, int64_t extent, int gap, int64_t *out) {
    return tw_add_i64(extent, gap, out) && tw_mul_i64(*out, count, out) &&
           tw_add_i64(*out, gap, out);
}

tw_status tw_image_grid(tw_context *ctx, const float *values, int64_t n, int64_t height,
                        int64_t width, int channels, int64_t columns, int gap, tw_image *out) {
    memset(out, 0, sizeof *out);
    if (!values || n < 1 || height < 1 || width < 1 || columns < 0 || gap < 0 ||
        (channels != 1 && channels != 3))
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "image grid: %lld pictures of %lldx%lldx%d: expected 1 or 3 channels and "
                       "sizes of at least 1",
                       (long long)n, (long long)height, (long long)width, channels);
    if (columns == 0) {
        columns = (int64_t)ceil(sqrt((double)n));
    }
    if (columns > n) columns = n;
    const int64_t rows = (n - 1) / columns + 1;
    int64_t w, h, bytes;
    if (!total_extent(columns, width, gap, &w) || !total_extent(rows, height, gap, &h) ||
        !tw_mul_i64(w, h, &bytes) || !tw_mul_i64(bytes, channels, &bytes))
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "image grid: the size does not fit 63 bits");
    uint8_t *pixels = tw_allocate(ctx, (size_t)bytes, 1); /* zeroed: the gaps */
    if (!pixels) return TW_ERROR_MEMORY;
    const int64_t line = width * channels;
    for (int64_t i = 0; i < n; i++) {
        const int64_t top = gap + i / columns * (height + gap);
        const int64_t left = gap + i % columns * (width + gap);
        for (int64_t y = 0; y < height; y++) {
            const float *from = values + (i * height + y) * line;
            uint8_t *to = pixels + ((top + y) * w + left) * channels;
            for (int64_t x = 0; x < line; x++) to[x] = level(from[x]);
        }
    }
    *out = (tw_image){w, h, channels, pixels};
    return TW_OK;
}
