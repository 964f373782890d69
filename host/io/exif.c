#include "io/exif.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY = 12, START_OF_SCAN = 0xda, APP1 = 0xe1 };

/* The TIFF structure within an Exif segment, in its own byte order. */
typedef struct tiff {
    const uint8_t *bytes;
    size_t size;
    bool big;
} tiff;

static uint32_t number(const tiff *t, size_t at, int bytes) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)t->bytes[at + (size_t)i] << 8 * (t->big ? bytes - 1 - i : i);
    return v;
}

static int orientation_of(const tiff *t) {
    if (t->size < 8) return 1;
    const size_t directory = number(t, 4, 4);
    if (directory > t->size - 2) return 1;
    const size_t entries = number(t, directory, 2);
    for (size_t i = 0; i < entries; i++) {
        const size_t at = directory + 2 + i * ENTRY;
        if (at + ENTRY > t->size) break;
        if (number(t, at, 2) != TAG_ORIENTATION) continue;
        const uint32_t value = number(t, at + 8, 2);
        return number(t, at + 2, 2) == TYPE_SHORT && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

int tw_exif_orientation(const uint8_t *bytes, size_t size) {
    size_t at = 2; /* after the marker that a JPEG begins with */
    while (size >= 4 && at <= size - 4 && bytes[at] == 0xff && bytes[at + 1] != START_OF_SCAN) {
        const size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (length < 2 || length > size - at - 2) break;
        const uint8_t *segment = bytes + at + 4;
        if (bytes[at + 1] == APP1 && length >= 2 + 6 + 8 && !memcmp(segment, "Exif\0\0", 6) &&
            (!memcmp(segment + 6, "II*\0", 4) || !memcmp(segment + 6, "MM\0*", 4))) {
            const tiff t = {segment + 6, length - 2 - 6, segment[6] == 'M'};
            return orientation_of(&t);
        }
        at += 2 + length;
    }
    return 1;
}

tw_status tw_image_set_upright(tw_context *ctx, tw_image *image, int orientation) {
    if (orientation < 2 || orientation > 8) return TW_OK;
    const int64_t w = image->width, h = image->height;
    const size_t channels = (size_t)image->channels;
    const bool swaps = orientation >= 5;
    const bool from_right = orientation == 2 || orientation == 3 || orientation >= 7;
    const bool from_below =
        orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    tw_image out = {swaps ? h : w, swaps ? w : h, image->channels, NULL};
    out.pixels = tw_allocate(ctx, (size_t)(w * h), channels);
    if (!out.pixels) return TW_ERROR_MEMORY;
    for (int64_t y = 0; y < out.height; y++)
        for (int64_t x = 0; x < out.width; x++) {
            const int64_t sx = swaps ? y : x, sy = swaps ? x : y;
            const int64_t from =
                (from_below ? h - 1 - sy : sy) * w + (from_right ? w - 1 - sx : sx);
            memcpy(out.pixels + (size_t)(y * out.width + x) * channels,
                   image->pixels + (size_t)from * channels, channels);
        }
    tw_image_free(ctx, image);
    *image = out;
    return TW_OK;
}
