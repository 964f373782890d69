/* Pictures of either format: what decodes has the size that its header says, or half of it as often
 * as was allowed. The input's last byte asks for a reduction. */
#include <string.h>

#include "fuzz.h"
#include "io/image.h"

static void check_image(const tw_image *image) {
    FUZZ_CHECK(image->width >= 1 && image->height >= 1);
    FUZZ_CHECK(image->channels == 1 || image->channels == 3);
    /* The last byte is there. */
    const int64_t bytes = image->width * image->height * image->channels;
    volatile uint8_t last = image->pixels[bytes - 1];
    (void)last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_context *ctx = fuzz_context();
    const size_t before = fuzz_held();
    tw_image whole, part;
    const int64_t at_least = size ? data[size - 1] : 0;
    const tw_status s = tw_image_decode(ctx, "a.jpg", data, size, &whole);
    FUZZ_CHECK(tw_image_is(data, size) || s == TW_ERROR_FORMAT);
    if (s == TW_OK) {
        check_image(&whole);
        const tw_status again = tw_image_decode_reduced(ctx, "a.jpg", data, size, at_least, &part);
        FUZZ_CHECK(again == TW_OK || again == TW_ERROR_MEMORY);
        if (again == TW_OK) {
            check_image(&part);
            FUZZ_CHECK(part.width <= whole.width && part.height <= whole.height);
            if (!at_least)
                FUZZ_CHECK(part.width == whole.width &&
                           !memcmp(part.pixels, whole.pixels,
                                   (size_t)(whole.width * whole.height * whole.channels)));
            tw_image_free(ctx, &part);
        }
    } else {
        FUZZ_CHECK(!whole.pixels && !whole.width);
        fuzz_refused(s, "a.jpg");
    }
    tw_image_free(ctx, &whole);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
