/* A model's weights in the format that a network computes with. */
#ifndef TW_MODELS_ROUNDED_H
#define TW_MODELS_ROUNDED_H

#include "models/model.h"

typedef struct tw_rounded {
    tw_plan *plan;
    void *weights; /* as the masters lie; null where these are read themselves */
    size_t bytes;
} tw_rounded;

/* Room for `base`, float32[model->weights.total] on the device, rounded to `format`; none where
 * that is float32. Nothing is rounded yet. */
tw_status tw_rounded_make(const tw_model *model, tw_dtype format, void *base, tw_rounded *out);
/* Rounds the masters as they are now. */
tw_status tw_rounded_refresh(tw_rounded *rounded);
void tw_rounded_free(tw_context *ctx, tw_rounded *rounded);

#endif
