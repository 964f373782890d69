#include "io/jpeg.h"

#include <limits.h>
#include <string.h>
#include <turbojpeg.h>

#include "io/exif.h"

/* A block of 64 samples takes a bit at the very least, and the largest plane has a sample for each
 * pixel: 512 pixels a byte, so that a header cannot ask for much more memory than the file has. */
enum { PIXELS_PER_BYTE = 1024 };

bool tw_jpeg_is(const uint8_t *bytes, size_t size) {
    return size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff;
}

static tw_status fail_library(tw_context *ctx, const char *name, tjhandle handle) {
    return tw_fail(ctx, TW_ERROR_FORMAT, "%s: JPEG: %s", name, tjGetErrorStr2(handle));
}

/* The largest reduction by 1, 2, 4 or 8 that keeps both sides. */
static tjscalingfactor reduction(int width, int height, int64_t at_least) {
    tjscalingfactor f = {1, 1};
    const int shorter = width < height ? width : height;
    while (at_least > 0 && f.denom < 8 && shorter / (2 * f.denom) >= at_least) f.denom *= 2;
    return f;
}

static tw_status decode(tw_context *ctx, const char *name, tjhandle handle, const uint8_t *bytes,
                        size_t size, int64_t at_least, tw_image *out) {
    /* The library leaves them alone where the file holds tables and no picture. */
    int width = 0, height = 0, sampling = 0, space = TJCS_RGB;
    if (tjDecompressHeader3(handle, bytes, (unsigned long)size, &width, &height, &sampling,
                            &space) != 0)
        return fail_library(ctx, name, handle);
    if (width < 1 || height < 1)
        return tw_fail(ctx, TW_ERROR_FORMAT, "%s: JPEG: there is no picture in the file", name);
    if (space == TJCS_CMYK || space == TJCS_YCCK)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: JPEG: the colours are CMYK, expected grey or RGB", name);
    const int channels = space == TJCS_GRAY ? 1 : 3;
    /* Both sides are at most 65535. */
    const int64_t pixels = (int64_t)width * height;
    if (pixels * channels > TW_IMAGE_BYTES_MAX)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED, "%s: JPEG: more than 2^30 bytes of pixels", name);
    if ((uint64_t)pixels / PIXELS_PER_BYTE > size)
        return tw_fail(ctx, TW_ERROR_FORMAT,
                       "%s: JPEG: %zu bytes cannot hold the pixels that the header names", name,
                       size);
    const tjscalingfactor factor = reduction(width, height, at_least);
    const int w = TJSCALED(width, factor), h = TJSCALED(height, factor);
    *out = (tw_image){w, h, channels, tw_allocate(ctx, (size_t)h, (size_t)w * (size_t)channels)};
    if (!out->pixels) return TW_ERROR_MEMORY;
    if (tjDecompress2(handle, bytes, (unsigned long)size, out->pixels, w, w * channels, h,
                      channels == 1 ? TJPF_GRAY : TJPF_RGB,
                      TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) != 0)
        return fail_library(ctx, name, handle);
    return TW_OK;
}

tw_status tw_jpeg_decode(tw_context *ctx, const char *name, const void *bytes, size_t size,
                         int64_t at_least, tw_image *out) {
    memset(out, 0, sizeof *out);
    if (!tw_jpeg_is(bytes, size)) return tw_fail(ctx, TW_ERROR_FORMAT, "%s: not a JPEG file", name);
    tjhandle handle = tjInitDecompress();
    if (!handle) return tw_fail(ctx, TW_ERROR_MEMORY, "%s: JPEG: out of memory", name);
    tw_status s = decode(ctx, name, handle, bytes, size, at_least, out);
    tjDestroy(handle);
    if (s == TW_OK) s = tw_image_set_upright(ctx, out, tw_exif_orientation(bytes, size));
    if (s != TW_OK) tw_image_free(ctx, out);
    return s;
}
