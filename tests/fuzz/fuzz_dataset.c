/* A data set's source as a user names it: the input's first file is the data, a file named "labels"
 * its labels. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/dataset.h"
#include "fuzz.h"
#include "io/file.h"

static void check_samples(const tw_dataset *d) {
    float *values = tw_allocate(NULL, (size_t)d->elements, sizeof *values);
    const int64_t some[] = {0, d->count / 2, d->count - 1};
    FUZZ_CHECK(values && d->count >= 1);
    for (int k = 0; k < 3; k++) {
        int32_t label = -2;
        FUZZ_CHECK(tw_dataset_get(d, some[k], values, &label) == TW_OK);
        FUZZ_CHECK(d->classes ? label >= 0 && label < d->classes : label == -1);
        for (int64_t i = 0; i < d->elements; i++) FUZZ_CHECK(isfinite(values[i]));
    }
    FUZZ_CHECK(tw_dataset_get(d, d->count, values, NULL) == TW_ERROR_ARGUMENT);
    tw_free(NULL, values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t before = fuzz_held();
    tw_dataset_options options = TW_DATASET_OPTIONS_INIT;
    fuzz_disk_fill(data, size);
    char source[FUZZ_NAME] = "";
    if (!fuzz_disk_name(0)) return 0;
    /* Folders are listed on the real disk: only that of CIFAR-10's batches is not. */
    snprintf(source, sizeof source, "%.*s", (int)strcspn(fuzz_disk_name(0), "/"),
             fuzz_disk_name(0));
    if (!*source || (strchr(fuzz_disk_name(0), '/') && strcmp(source, "cifar") != 0)) return 0;
    if (!tw_file_exists(source) && !tw_cifar_is_folder(fuzz_context(), source)) return 0;
    options.height = options.width = size % 3 ? 0 : 4;
    options.keep_own = size % 2 != 0;
    const uint8_t *bytes;
    size_t length;
    if (fuzz_disk_get("labels", &bytes, &length)) options.labels = "labels";
    tw_dataset *d = NULL;
    const tw_status s = tw_dataset_open(fuzz_context(), source, &options, &d);
    if (s == TW_OK)
        check_samples(d);
    else
        fuzz_refused(s, NULL);
    tw_dataset_free(d);
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
