/* Class labels from the paths of files. */
#ifndef TW_DATA_CLASSES_H
#define TW_DATA_CLASSES_H

#include "core/context.h"

typedef struct tw_classes {
    int64_t count;   /* 0: the paths tell no classes */
    char **names;    /* [count], in the order of strcmp */
    int32_t *labels; /* of the paths */
    bool mixed;      /* none, because some files lie beside the folders */
} tw_classes;

/* The classes of n relative paths ("a/b/c.png"): the first level of folders, below those that all
 * share, at which the paths part. */
tw_status tw_classes_find(tw_context *ctx, char *const *paths, int64_t n, tw_classes *out);
/* A zeroed struct is allowed. */
void tw_classes_free(tw_context *ctx, tw_classes *classes);

#endif
