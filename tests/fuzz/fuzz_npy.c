/* .npy arrays: what parses fills the file, and is written and read back the same; as a data set it
 * is finite or refused. */
#include <math.h>
#include <string.h>

#include "data/dataset.h"
#include "fuzz.h"
#include "io/npy.h"

static void check_array(const tw_npy *npy, const uint8_t *data, size_t size) {
    int64_t count = 1;
    for (int i = 0; i < npy->rank; i++) count *= npy->shape[i];
    FUZZ_CHECK(npy->rank >= 0 && npy->rank <= TW_NPY_MAX_RANK && count == npy->count);
    const uint8_t *from = npy->data;
    FUZZ_CHECK(from >= data + 10 && from <= data + size);
    FUZZ_CHECK((size_t)(data + size - from) == (size_t)count * tw_dtype_size(npy->dtype));
    float values[64];
    tw_npy_to_f32(npy, 0, count < 64 ? count : 64, values);
    for (int64_t i = 0; i < count && i < 64; i++) (void)tw_npy_to_i64(npy, count - 1 - i);
}

static void round_trip(const tw_npy *npy) {
    tw_context *ctx = fuzz_context();
    tw_npy copy;
    fuzz_disk_clear();
    FUZZ_CHECK(tw_npy_write(ctx, "copy", npy->dtype, npy->rank, npy->shape, npy->data) == TW_OK);
    FUZZ_CHECK(tw_npy_open(ctx, "copy", &copy) == TW_OK);
    FUZZ_CHECK(copy.dtype == npy->dtype && copy.rank == npy->rank && copy.count == npy->count);
    FUZZ_CHECK(!memcmp(copy.shape, npy->shape, (size_t)npy->rank * sizeof *npy->shape));
    const size_t bytes = (size_t)npy->count * tw_dtype_size(npy->dtype);
    FUZZ_CHECK(!bytes || !memcmp(copy.data, npy->data, bytes));
    tw_npy_close(&copy);
}

static void check_dataset(const uint8_t *data, size_t size) {
    tw_dataset *d = NULL;
    const tw_status s = tw_dataset_open_npy(fuzz_context(), "x.npy", data, size, &d);
    if (s != TW_OK) {
        FUZZ_CHECK(!d);
        fuzz_refused(s, "x.npy");
        return;
    }
    float *values = tw_allocate(NULL, (size_t)d->elements, sizeof *values);
    FUZZ_CHECK(values && tw_dataset_get(d, d->count - 1, values, NULL) == TW_OK);
    for (int64_t i = 0; i < d->elements; i++) FUZZ_CHECK(isfinite(values[i]));
    tw_free(NULL, values);
    tw_dataset_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tw_npy npy;
    const size_t before = fuzz_held();
    const tw_status s = tw_npy_parse(fuzz_context(), data, size, "x.npy", &npy);
    if (s == TW_OK) {
        check_array(&npy, data, size);
        round_trip(&npy);
        check_dataset(data, size);
    } else {
        fuzz_refused(s, "x.npy");
    }
    FUZZ_CHECK(fuzz_held() == before);
    return 0;
}
