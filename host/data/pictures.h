/* Gathering pictures into a data set: decoded side by side, the broken ones left out, the classes
 * told by their paths. What lists a folder or an archive feeds it. */
#ifndef TW_DATA_PICTURES_H
#define TW_DATA_PICTURES_H

#include "data/dataset.h"
#include "data/fit.h"

/* Pictures that are decoded side by side at a time, and bytes of them. */
enum { TW_PICTURES_BATCH = 64 };
#define TW_PICTURES_BATCH_BYTES ((size_t)64 << 20)

typedef struct tw_picture {
    char *path;     /* relative, from tw_allocate; taken over */
    uint8_t *bytes; /* the file's, likewise; null: read from the folder */
    size_t size;
    /* What decoding leaves. */
    tw_status status;
    int64_t height, width; /* as it came */
    uint8_t *pixels;
    char error[TW_DATASET_ERROR_TEXT];
} tw_picture;

typedef struct tw_pictures {
    tw_context *ctx;
    const char *source; /* the folder or the archive */
    bool is_folder;
    int threads;   /* that decode */
    bool own_size; /* no size was asked for: the first picture's, which all must have */
    tw_fit fit;    /* height 0: not known yet */
    int64_t memory_limit;
    int64_t expected; /* pictures that will come, or 0 */
    int64_t seen, skipped, ignored;
    char first_error[TW_DATASET_ERROR_TEXT];
    int64_t count, capacity;
    char **paths;         /* [count] of those kept */
    uint8_t *bytes;       /* their pixels, null where they are decoded anew */
    int64_t byte_samples; /* that `bytes` has room for */
    bool anew;
} tw_pictures;

void tw_pictures_begin(tw_pictures *p, tw_context *ctx, const char *source, bool is_folder,
                       const tw_dataset_options *options);
/* Decodes and takes the n pictures; what they hold is freed in any case. */
tw_status tw_pictures_add(tw_pictures *p, tw_picture *batch, int n);
/* Makes the set. `p` is then empty. */
tw_status tw_pictures_finish(tw_pictures *p, tw_dataset **out);
void tw_pictures_free(tw_pictures *p);

/* Whether a file's name says that it is a picture. */
bool tw_picture_is_name(const char *name);

#endif
