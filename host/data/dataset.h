/* The inside of a data set: its samples in memory, or whatever `read` knows. */
#ifndef TW_DATA_DATASET_H
#define TW_DATA_DATASET_H

#include <tweedie/dataset.h>

#include "core/context.h"

#define TW_DATASET_ERROR_TEXT 256

struct tw_dataset {
    tw_context *ctx;
    int64_t count;
    int rank; /* of one sample: 1 or 3 */
    int64_t shape[3];
    int64_t elements; /* product of the shape */
    int64_t classes;
    float *values;   /* [count, elements], or null */
    uint8_t *bytes;  /* the same as 0..255 for -1..1, when values is null */
    int32_t *labels; /* [count], or null */
    int64_t named_classes;
    char **class_names; /* [named_classes] */
    int64_t skipped, ignored;
    void *source;                       /* what `read` knows beside this */
    void (*close)(tw_dataset *dataset); /* frees `source`; may be null */
    /* Sample `index`, which is in range, into out[elements]; *label gets -1 without labels. Called
     * from several threads at once, so a failure's text goes to error[TW_DATASET_ERROR_TEXT]. */
    tw_status (*read)(const tw_dataset *dataset, int64_t index, float *out, int32_t *label,
                      char *error);
};

/* A set of samples of this shape that will read from memory, which the caller attaches. */
tw_status tw_dataset_new(tw_context *ctx, const char *name, int64_t count, int rank,
                         const int64_t *shape, tw_dataset **out);

/* Takes labels[n], checks that n is the set's count and none is negative, and counts classes. */
tw_status tw_dataset_set_labels(tw_dataset *dataset, const char *name, int32_t *labels, int64_t n);

/* Copies the names of the classes 0..n-1. */
tw_status tw_dataset_set_class_names(tw_dataset *dataset, const char *const *names, int64_t n);
/* Bytes of the samples in memory; 0 where they are made as they are asked for. */
size_t tw_dataset_held_bytes(const tw_dataset *dataset);
/* 0..255 to [-1, 1]. */
void tw_dataset_to_floats(const uint8_t *bytes, int64_t n, float *out);

/* The sources. `path` is a file's name; bytes[size] its content. */
tw_status tw_dataset_open_scurve(tw_context *ctx, const tw_dataset_options *options,
                                 tw_dataset **out);
tw_status tw_dataset_open_shapes(tw_context *ctx, const tw_dataset_options *options,
                                 tw_dataset **out);
/* A folder of pictures, and an archive of them. */
tw_status tw_dataset_open_folder(tw_context *ctx, const char *path,
                                 const tw_dataset_options *options, tw_dataset **out);
tw_status tw_dataset_open_archive(tw_context *ctx, const char *path, const uint8_t *bytes,
                                  size_t size, const tw_dataset_options *options, tw_dataset **out);
bool tw_archive_is(const uint8_t *bytes, size_t size);
/* CIFAR-10's binary files: those of a folder, or one. */
tw_status tw_dataset_open_cifar(tw_context *ctx, const char *path, tw_dataset **out);
bool tw_cifar_is_folder(tw_context *ctx, const char *path);
tw_status tw_dataset_open_idx(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                              tw_dataset **out);
tw_status tw_dataset_open_npy(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                              tw_dataset **out);

/* Reads a label file (IDX, plain or .gz, or .npy of whole numbers); freed with tw_free. */
tw_status tw_labels_read(tw_context *ctx, const char *path, int32_t **out, int64_t *count);
/* The usual name of the label file beside an IDX file of images: images-idx3 becomes labels-idx1.
 * *out is null when there is no such file; freed with tw_free. */
tw_status tw_labels_find(tw_context *ctx, const char *images, char **out);

/* An IDX file, plain or compressed: its content as unsigned bytes of `rank` extents. *data is freed
 * with tw_free. */
tw_status tw_idx_read(tw_context *ctx, const char *path, const uint8_t *bytes, size_t size,
                      int rank, int64_t *shape, uint8_t **data);
/* Whether the bytes begin as an IDX file or as gzip data. */
int tw_idx_is(const uint8_t *bytes, size_t size);

#endif
