/* Data sets: samples of one shape, perhaps with class labels. */
#ifndef TWEEDIE_DATASET_H
#define TWEEDIE_DATASET_H

#include "tensor.h"

TW_BEGIN_DECLS

typedef struct tw_dataset tw_dataset;

/* How a picture of another shape becomes one of the wanted height and width. */
typedef enum tw_crop {
    TW_CROP_CENTER = 0,  /* resized to cover it, then the middle */
    TW_CROP_RANDOM = 1,  /* resized to cover it, then a part that seed and picture choose, once */
    TW_CROP_STRETCH = 2, /* each side resized by itself */
    TW_CROP_PAD = 3      /* resized to fit into it, with black around */
} tw_crop;

typedef struct tw_dataset_options {
    size_t size;
    const char *labels; /* path of an IDX or .npy label file; null: found beside an IDX file of
                         * images by its usual name, else none */
    int64_t limit; /* at most so many samples: of a folder spread evenly over its pictures, else
                    * the first; 0: all */
    int64_t count; /* samples that a generated set has; 0: its default */
    uint64_t seed; /* of generated sets and TW_CROP_RANDOM */
    double noise;  /* S-curve: standard deviation; negative: 0.1 */
    /* What pictures are brought to (by their area where they shrink, by a cubic where they grow).
     * 0: as they come, which for folders and archives must then be one size; `shapes` has 32x32,
     * and folders, archives and `shapes` have 3 channels. */
    int64_t height, width;
    int channels; /* 1: grey, 3: RGB, 0 */
    tw_crop crop;
    int keep_own; /* nonzero: height, width and channels are for folders, archives and shapes
                   * alone; a set with a size of its own keeps it */
    int64_t memory_limit; /* bytes of pictures that are held decoded; 0: 2^30. A folder with more is
                           * decoded anew in each epoch; an archive with more is refused */
} tw_dataset_options;

#define TW_DATASET_OPTIONS_INIT                                                                    \
    { sizeof(tw_dataset_options), 0, 0, 0, 0, -1.0, 0, 0, 0, TW_CROP_CENTER, 0, 0 }

/* Opens `source`, which is one of
 *
 *   "scurve"      points of the plane
 *   "shapes"      coloured shapes, drawn on the spot; the class is the shape
 *   a file        IDX images (plain or .gz); .npy (float32/float64 N,D or N,H,W,C; uint8 N,H,W,C);
 *                 one .bin of CIFAR-10; a tar (plain, gz, xz, bz2, zstd) of PNG and JPEG files
 *   a folder      CIFAR-10's data_batch_*.bin, or PNG and JPEG files at any depth
 *
 * Images come in [-1, 1]. In folders and archives the first level of folders at which the pictures'
 * paths part are the classes, numbered by name; pictures beside such folders leave the set without
 * labels. Hidden files and other kinds of files are ignored. Pictures that cannot be read are left
 * out: the context's log gets a warning for each of the first ten and the number of the rest. A set
 * with none left is TW_ERROR_FORMAT. Nothing is ever unpacked to the disk. */
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
    int64_t skipped; /* pictures left out because they could not be read */
    int64_t ignored; /* other files of a folder or an archive */
} tw_dataset_info;
TW_API tw_status tw_dataset_get_info(const tw_dataset *dataset, tw_dataset_info *out);

/* The class with this label, null where it has no name; lives as long as the set. */
TW_API const char *tw_dataset_class_name(const tw_dataset *dataset, int64_t label);

/* Sample `index` as float32 into out[shape]; *label (may be null) gets -1 if there is none. Several
 * threads may read at once, and a failure's text is therefore tw_context_error(NULL)'s. */
TW_API tw_status tw_dataset_get(const tw_dataset *dataset, int64_t index, float *out,
                                int32_t *label);

TW_END_DECLS

#endif
