/* A model directory, written from a model or from a copy of one. */
#ifndef TW_MODELS_SAVE_H
#define TW_MODELS_SAVE_H

#include "models/model.h"

typedef struct tw_model_files {
    tw_context *ctx; /* needs no device */
    const char *kind, *config, *scheduler_config;
    const tw_weights *weights;
    /* Supplies weight `index` in the order of the file; asked in the order of `weights`. */
    tw_status (*fetch)(void *user, int64_t index, void *out);
    void *user;
} tw_model_files;

/* What tw_model_save does. */
tw_status tw_model_files_write(const tw_model_files *files, const char *directory);

#endif
