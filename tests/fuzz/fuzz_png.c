/* PNG pictures: what decodes is written and decoded again to the same pixels. */
#include <string.h>

#include "fuzz.h"
#include "io/png.h"

static void round_trip(const tw_image *image) {
    tw_context *ctx = fuzz_context();
    tw_image again;
    tw_status s = tw_png_write(ctx, "q.png", image);
    if (s == TW_OK) s = tw_png_read(ctx, "q.png", &again);
    if (s == TW_ERROR_MEMORY) return;
    FUZZ_CHECK(s == TW_OK);
    FUZZ_CHECK(again.width == image->width && again.height == image->height);
    FUZZ_CHECK(again.channels == image->channels);
    FUZZ_CHECK(!memcmp(again.pixels, image->pixels,
                       (size_t)(image->width * image->height * image->channels)));
    tw_image_free(ctx, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    tw_image image;
    fuzz_disk_clear();
    fuzz_disk_put("p.png", data, size);
    const tw_status s = tw_png_read(ctx, "p.png", &image);
    if (s == TW_OK) {
        FUZZ_CHECK(image.width >= 1 && image.height >= 1);
        FUZZ_CHECK(image.channels == 1 || image.channels == 3);
        if (image.width * image.height <= 1 << 14) round_trip(&image);
    } else {
        FUZZ_CHECK(!image.pixels);
        fuzz_refused(s, "p.png");
    }
    tw_image_free(ctx, &image);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
