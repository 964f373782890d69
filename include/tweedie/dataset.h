/* Data sets: samples of one shape, perhaps with class labels. */
#ifndef TWEEDIE_DATASET_H
#define TWEEDIE_DATASET_H

#include "tensor.h"

TW_BEGIN_DECLS

typedef struct tw_dataset tw_dataset;

typedef struct tw_dataset_options {
    size_t size;
    const char *labels; /* path of an IDX or .npy label file; null: found beside an IDX file of
                         * images by its usual name, else none */
    int64_t limit;      /* at most so many samples; 0: all */
    int64_t count;      /* samples that a generated set has; 0: its default */
    uint64_t seed;      /* of generated sets */
    double noise;       /* S-curve: standard deviation; negative: 0.1 */
} tw_dataset_options;

#define TW_DATASET_OPTIONS_INIT                                                                    \
    { sizeof(tw_dataset_options), 0, 0, 0, 0, -1.0 }

/* Opens `source`: "scurve", an IDX file of images (plain or .gz), or an .npy (float32/float64 N,D
 * or N,H,W,C; uint8 N,H,W,C). Images come in [-1, 1]. */
TW_API tw_status tw_dataset_open(tw_context *ctx, const char *source,
                                 const tw_dataset_options *options, tw_dataset **out);
/* A set over the caller's arrays, which are copied: values[n, shape], labels[n] or null. */
TW_API tw_status tw_dataset_from_memory(tw_context *ctx, int64_t n, int rank, const int64_t *shape,
                                        const float *values, const int32_t *labels,
                                        tw_dataset **out);
TW_API void tw_dataset_free(tw_dataset *dataset);

typedef struct tw_dataset_info {
    size_t size;
    int64_t count;
    int rank; /* of one sample: 1 or 3 */
    int64_t shape[3];
    int64_t classes; /* largest label + 1; 0: no labels */
} tw_dataset_info;
TW_API tw_status tw_dataset_get_info(const tw_dataset *dataset, tw_dataset_info *out);

/* Sample `index` as float32 into out[shape]; *label (may be null) gets -1 if there is none. Several
 * threads may read at once, and a failure's text is therefore tw_context_error(NULL)'s. */
TW_API tw_status tw_dataset_get(const tw_dataset *dataset, int64_t index, float *out,
                                int32_t *label);

TW_END_DECLS

#endif
