/* What a step draws beside noise, and what it reads of its own state. */
#ifndef TWEEDIE_KERNELS_DRAW_H
#define TWEEDIE_KERNELS_DRAW_H

#include "noise.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Time steps of a training batch: out[n] = (w steps) >> 32, w the generator's word of purpose
 * TWK_NOISE_TRAIN_T and element 0. Antithetic: a sample of odd number takes steps - 1 - t of the
 * one before. */
typedef struct twk_times_args {
    int64_t batch, steps;
    int antithetic;
    int32_t *out;
    uint32_t step;
    const uint32_t *device_step; /* replaces step where given */
    twk_noise noise;
} twk_times_args;
twk_status twk_draw_times(const twk_times_args *args, twk_stream stream);

/* out[n] = null_label where the sample's uniform of purpose TWK_NOISE_COND_DROP lies below
 * probability, else label[n]. */
typedef struct twk_drop_labels_args {
    int64_t batch;
    const int32_t *label;
    int32_t *out; /* may be label */
    int32_t null_label;
    float probability;
    uint32_t step;
    const uint32_t *device_step;
    twk_noise noise;
} twk_drop_labels_args;
twk_status twk_drop_labels(const twk_drop_labels_args *args, twk_stream stream);

/* y = x, mirrored left to right where the sample's uniform of purpose TWK_NOISE_FLIP lies below
 * probability. */
typedef struct twk_mirror_args {
    int64_t batch, h, w, channels;
    twk_format format;
    const void *x;
    void *y;
    float probability;
    uint32_t step;
    const uint32_t *device_step;
    twk_noise noise;
} twk_mirror_args;
twk_status twk_mirror(const twk_mirror_args *args, twk_stream stream);

/* out[i] = table[*counter][column] for i < n, NaN for a counter past the rows. */
twk_status twk_table_entry(const float *table, int64_t rows, int64_t width, int64_t column,
                           const uint32_t *counter, int64_t n, float *out, twk_stream stream);

/* Numbers one by one; to int towards zero, saturating, NaN as 0. */
twk_status twk_int_to_real(int64_t n, const int32_t *in, float *out, twk_stream stream);
twk_status twk_real_to_int(int64_t n, const float *in, int32_t *out, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
