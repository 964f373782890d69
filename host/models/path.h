/* Paths of a model directory's files. */
#ifndef TW_MODELS_PATH_H
#define TW_MODELS_PATH_H

#include "core/context.h"

typedef struct tw_path {
    char text[4096];
} tw_path;

/* "<directory>/<name>"; with an empty name the directory. TW_ERROR_IO where it is too long. */
tw_status tw_path_join(tw_context *ctx, const char *directory, const char *name, tw_path *out);

#endif
