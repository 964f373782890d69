/* A tar of pictures: what opens has samples of the size asked for, with labels of its folders. */
#include <string.h>

#include "data/dataset.h"
#include "fuzz.h"

enum { SIDE = 3, ELEMENTS = SIDE * SIDE * 3 };

static void check_samples(const tw_dataset *d) {
    float values[ELEMENTS];
    FUZZ_CHECK(d->count >= 1 && d->elements == ELEMENTS && d->skipped >= 0);
    for (int64_t i = 0; i < d->count; i++) {
        int32_t label = -2;
        FUZZ_CHECK(tw_dataset_get(d, i, values, &label) == TW_OK);
        FUZZ_CHECK(d->classes ? label >= 0 && label < d->classes : label == -1);
        for (int k = 0; k < ELEMENTS; k++) FUZZ_CHECK(values[k] >= -1.0f && values[k] <= 1.0f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t before = fuzz_held();
    tw_dataset_options options = TW_DATASET_OPTIONS_INIT;
    options.height = options.width = SIDE;
    (void)tw_archive_is(data, size);
    tw_dataset *d = NULL;
    const tw_status s = tw_dataset_open_archive(fuzz_context(), "a.tar", data, size, &options, &d);
    if (s == TW_OK) {
        check_samples(d);
    } else {
        FUZZ_CHECK(!d);
        fuzz_refused(s, NULL);
    }
    tw_dataset_free(d);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
