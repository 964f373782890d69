/* The S-curve's first and third axes, as the classic set has them: for u uniform in [0, 1),
 * t = 3 pi (u - 1/2), x = sin t, y = sign(t) (cos t - 1), plus normal noise on both. Nothing is
 * rescaled: without noise x is within [-1, 1] and y within [-2, 2]. */
#include <math.h>

#include "core/philox.h"
#include "data/dataset.h"

enum { DEFAULT_COUNT = 10000 };

tw_status tw_dataset_open_scurve(tw_context *ctx, const tw_dataset_options *o, tw_dataset **out) {
    const int64_t shape[1] = {2};
    const double noise = o->noise < 0 ? 0.1 : o->noise;
    *out = NULL;
    if (!isfinite(noise))
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "scurve: noise: expected a finite number");
    tw_dataset *d;
    TW_TRY(tw_dataset_new(ctx, "scurve", o->count ? o->count : DEFAULT_COUNT, 1, shape, &d));
    d->values = tw_allocate(ctx, (size_t)d->count, 2 * sizeof(float));
    if (!d->values) {
        tw_dataset_free(d);
        return TW_ERROR_MEMORY;
    }
    for (int64_t i = 0; i < d->count; i++) {
        /* Quad 0 gives the place on the curve, quad 1 the noise. */
        const tw_philox_key key = {o->seed, (uint64_t)i, TW_PURPOSE_DATA, 0};
        uint32_t words[4];
        double z[4];
        tw_philox_words(&key, 0, words);
        tw_philox_normals(&key, 1, z);
        const double t = 9.42477796076937971539 * ((double)tw_philox_uniform(words[0]) - 0.5);
        d->values[2 * i] = (float)(sin(t) + noise * z[0]);
        d->values[2 * i + 1] = (float)(copysign(1.0, t) * (cos(t) - 1.0) + noise * z[1]);
    }
    *out = d;
    return TW_OK;
}
