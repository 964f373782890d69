/* IDX files of images and of labels, plain and compressed. */
#include "data/dataset.h"
#include "fuzz.h"

static void check_images(const uint8_t *data, size_t size) {
    tw_dataset *d = NULL;
    const tw_status s = tw_dataset_open_idx(fuzz_context(), "x.idx", data, size, &d);
    if (s != TW_OK) {
        FUZZ_CHECK(!d);
        fuzz_refused(s, "x.idx");
        return;
    }
    FUZZ_CHECK(d->rank == 3 && d->shape[2] == 1 && d->count >= 1);
    FUZZ_CHECK(d->elements == d->shape[0] * d->shape[1]);
    float *values = tw_allocate(NULL, (size_t)d->elements, sizeof *values);
    const int64_t ends[] = {0, d->count - 1};
    for (int e = 0; values && e < 2; e++) {
        int32_t label = 7;
        FUZZ_CHECK(tw_dataset_get(d, ends[e], values, &label) == TW_OK && label == -1);
        for (int64_t i = 0; i < d->elements; i++)
            FUZZ_CHECK(values[i] >= -1.0f && values[i] <= 1.0f);
    }
    tw_free(NULL, values);
    tw_dataset_free(d);
}

static void check_labels(const uint8_t *data, size_t size) {
    int64_t count = 0;
    uint8_t *labels = NULL;
    const tw_status s = tw_idx_read(fuzz_context(), "x.idx", data, size, 1, &count, &labels);
    if (s != TW_OK) {
        FUZZ_CHECK(!labels);
        fuzz_refused(s, "x.idx");
        return;
    }
    FUZZ_CHECK(count >= 1);
    /* The last byte is there. */
    volatile uint8_t last = labels[count - 1];
    (void)last;
    tw_free(fuzz_context(), labels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t before = fuzz_held();
    (void)tw_idx_is(data, size);
    check_images(data, size);
    check_labels(data, size);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
