/* Data sets of .npy files: numbers as they are, bytes as pictures. */
#include <math.h>
#include <string.h>

#include "data/dataset.h"
#include "io/npy.h"

static tw_status check_finite(const tw_dataset *d, const char *path) {
    const int64_t total = d->count * d->elements;
    for (int64_t i = 0; i < total; i++)
        if (!isfinite(d->values[i]))
            return tw_fail(d->ctx, TW_ERROR_NUMERIC,
                           "%s: sample %lld: a value that is no finite number", path,
                           (long long)(i / d->elements));
    return TW_OK;
}

tw_status tw_dataset_open_npy(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                              tw_dataset **out) {
    tw_npy npy;
    *out = NULL;
    TW_TRY(tw_npy_parse(ctx, bytes, size, path, &npy));
    const bool numbers = npy.dtype == TW_F32 || npy.dtype == TW_F64, pictures = npy.dtype == TW_U8;
    if (!(numbers && (npy.rank == 2 || npy.rank == 4)) && !(pictures && npy.rank == 4))
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "%s: an array of %s with %d dimensions; expected float32 or float64 N,D or "
                       "N,H,W,C, or uint8 N,H,W,C",
                       path, tw_dtype_name(npy.dtype), npy.rank);
    tw_dataset *d;
    TW_TRY(tw_dataset_new(ctx, path, npy.shape[0], npy.rank - 1, npy.shape + 1, &d));
    tw_status s = TW_OK;
    if (pictures) {
        d->bytes = tw_allocate(ctx, (size_t)npy.count, 1);
        if (d->bytes) memcpy(d->bytes, npy.data, (size_t)npy.count);
    } else {
        d->values = tw_allocate(ctx, (size_t)npy.count, sizeof *d->values);
        if (d->values) tw_npy_to_f32(&npy, 0, npy.count, d->values);
    }
    if (!d->bytes && !d->values) s = TW_ERROR_MEMORY;
    if (s == TW_OK && d->values) s = check_finite(d, path);
    if (s != TW_OK) {
        tw_dataset_free(d);
        return s;
    }
    *out = d;
    return TW_OK;
}
