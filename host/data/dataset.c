#include "data/dataset.h"

#include <math.h>
#include <string.h>

#include "core/checked.h"
#include "core/options.h"

/* The loader numbers samples with 32 bits. */
#define COUNT_MAX ((int64_t)UINT32_MAX)

static tw_status read_memory(const tw_dataset *d, int64_t index, float *out, int32_t *label,
                             char *error) {
    (void)error;
    const size_t first = (size_t)index * (size_t)d->elements;
    if (d->values) {
        memcpy(out, d->values + first, (size_t)d->elements * sizeof *out);
    } else {
        tw_dataset_to_floats(d->bytes + first, d->elements, out);
    }
    *label = d->labels ? d->labels[index] : -1;
    return TW_OK;
}

tw_status tw_dataset_new(tw_context *ctx, const char *name, int64_t count, int rank,
                         const int64_t *shape, tw_dataset **out) {
    int64_t elements = 1, total;
    *out = NULL;
    bool fits = count >= 1 && count <= COUNT_MAX && (rank == 1 || rank == 3);
    for (int i = 0; fits && i < rank; i++)
        fits = shape[i] >= 1 && tw_mul_i64(elements, shape[i], &elements);
    if (!fits || !tw_mul_i64(elements, count, &total) || total > INT64_MAX / 8)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "%s: expected 1 to 2^32 - 1 samples of one or three extents of at least 1",
                       name);
    tw_dataset *d = tw_allocate(ctx, 1, sizeof *d);
    if (!d) return TW_ERROR_MEMORY;
    d->ctx = ctx;
    d->count = count;
    d->rank = rank;
    for (int i = 0; i < rank; i++) d->shape[i] = shape[i];
    d->elements = elements;
    d->read = read_memory;
    *out = d;
    return TW_OK;
}

tw_status tw_dataset_set_labels(tw_dataset *d, const char *name, int32_t *labels, int64_t n) {
    tw_free(d->ctx, d->labels);
    d->labels = labels;
    d->classes = 0;
    if (n != d->count)
        return tw_fail(d->ctx, TW_ERROR_FORMAT, "%s: %lld labels for %lld samples", name,
                       (long long)n, (long long)d->count);
    for (int64_t i = 0; i < n; i++) {
        if (labels[i] < 0 || labels[i] == INT32_MAX)
            return tw_fail(d->ctx, TW_ERROR_FORMAT,
                           "%s: label %lld: expected a whole number from 0 to 2^31 - 2, got %d",
                           name, (long long)i, (int)labels[i]);
        if (labels[i] >= d->classes) d->classes = (int64_t)labels[i] + 1;
    }
    return TW_OK;
}

tw_status tw_dataset_set_class_names(tw_dataset *d, const char *const *names, int64_t n) {
    d->class_names = tw_allocate(d->ctx, (size_t)n, sizeof *d->class_names);
    if (!d->class_names) return TW_ERROR_MEMORY;
    d->named_classes = n;
    for (int64_t i = 0; i < n; i++)
        if (!(d->class_names[i] = tw_strdup(d->ctx, names[i]))) return TW_ERROR_MEMORY;
    return TW_OK;
}

size_t tw_dataset_held_bytes(const tw_dataset *d) {
    const size_t values = (size_t)d->count * (size_t)d->elements;
    return d->values ? values * sizeof(float) : d->bytes ? values : 0;
}

void tw_dataset_to_floats(const uint8_t *bytes, int64_t n, float *out) {
    /* 0 is -1 and 255 is 1, both exactly. */
    for (int64_t i = 0; i < n; i++) out[i] = (float)((2.0 * bytes[i] - 255.0) / 255.0);
}

tw_status tw_dataset_from_memory(tw_context *ctx, int64_t n, int rank, const int64_t *shape,
                                 const float *values, const int32_t *labels, tw_dataset **out) {
    if (!out || !values || !shape)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "data set: a null argument");
    *out = NULL;
    tw_dataset *d;
    TW_TRY(tw_dataset_new(ctx, "data set", n, rank, shape, &d));
    const size_t total = (size_t)n * (size_t)d->elements;
    tw_status s = TW_OK;
    d->values = tw_allocate(ctx, total, sizeof *values);
    if (d->values) memcpy(d->values, values, total * sizeof *values);
    int32_t *copy = labels ? tw_allocate(ctx, (size_t)n, sizeof *copy) : NULL;
    if (!d->values || (labels && !copy)) s = TW_ERROR_MEMORY;
    if (s == TW_OK && labels) {
        memcpy(copy, labels, (size_t)n * sizeof *copy);
        s = tw_dataset_set_labels(d, "data set", copy, n);
        if (s == TW_ERROR_FORMAT) s = TW_ERROR_ARGUMENT;
    } else {
        tw_free(ctx, copy);
    }
    if (s != TW_OK) {
        tw_dataset_free(d);
        return s;
    }
    *out = d;
    return TW_OK;
}

void tw_dataset_free(tw_dataset *d) {
    if (!d) return;
    tw_context *ctx = d->ctx;
    if (d->close) d->close(d);
    for (int64_t i = 0; i < d->named_classes; i++) tw_free(ctx, d->class_names[i]);
    tw_free(ctx, d->class_names);
    tw_free(ctx, d->values);
    tw_free(ctx, d->bytes);
    tw_free(ctx, d->labels);
    tw_free(ctx, d);
}

tw_status tw_dataset_get_info(const tw_dataset *d, tw_dataset_info *out) {
    if (!d) return tw_fail(NULL, TW_ERROR_ARGUMENT, "data set: null");
    tw_dataset_info info = {.size = sizeof info,
                            .count = d->count,
                            .rank = d->rank,
                            .shape = {d->shape[0], d->shape[1], d->shape[2]},
                            .classes = d->classes,
                            .skipped = d->skipped,
                            .ignored = d->ignored};
    return tw_options_write(d->ctx, "data set information", out, &info, sizeof info);
}

const char *tw_dataset_class_name(const tw_dataset *d, int64_t label) {
    return d && label >= 0 && label < d->named_classes ? d->class_names[label] : NULL;
}

tw_status tw_dataset_get(const tw_dataset *d, int64_t index, float *out, int32_t *label) {
    int32_t ignored;
    char error[TW_DATASET_ERROR_TEXT] = "";
    /* Several threads may be here: failures are recorded for the thread, not for the context. */
    if (!d || !out) return tw_fail(NULL, TW_ERROR_ARGUMENT, "data set: a null argument");
    if (index < 0 || index >= d->count)
        return tw_fail(NULL, TW_ERROR_ARGUMENT, "data set: sample %lld: expected 0 to %lld",
                       (long long)index, (long long)d->count - 1);
    tw_status s = d->read(d, index, out, label ? label : &ignored, error);
    return s == TW_OK ? s : tw_fail(NULL, s, "%s", error);
}
