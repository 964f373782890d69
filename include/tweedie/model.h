/* Models: a network, its weights, and the noise schedule that it was trained with.
 *
 * A model on disk is a diffusers directory: model_index.json, unet/config.json,
 * unet/diffusion_pytorch_model.safetensors, scheduler/scheduler_config.json; or the same files
 * flat. The MLP denoiser uses the same files with _class_name "TweedieMLP".
 *
 * A model may be used by several samplers and trainers of its context; it is counted, and goes when
 * the last holder lets go. */
#ifndef TWEEDIE_MODEL_H
#define TWEEDIE_MODEL_H

#include "schedule.h"

TW_BEGIN_DECLS

typedef struct tw_model tw_model;

/* Reads a directory. `variant` (may be null) picks diffusion_pytorch_model.<variant>.safetensors.
 */
TW_API tw_status tw_model_load(tw_context *ctx, const char *directory, const char *variant,
                               tw_model **out);

/* The same from memory: the texts of config.json and scheduler_config.json (null: DDPM's defaults)
 * and the bytes of a safetensors file, or null weights for freshly initialised ones from `seed`.
 * The buffers may be freed after the call. */
TW_API tw_status tw_model_create(tw_context *ctx, const char *config_json,
                                 const char *scheduler_json, const void *weights,
                                 size_t weights_bytes, uint64_t seed, tw_model **out);

TW_API void tw_model_retain(tw_model *model);
TW_API void tw_model_free(tw_model *model);

/* Writes a diffusers directory that diffusers can read (weights in float32). Each file is whole or
 * absent; an existing directory is updated. */
TW_API tw_status tw_model_save(tw_model *model, const char *directory);

typedef struct tw_model_info {
    size_t size;
    char kind[32];        /* "UNet2DModel", "TweedieMLP" */
    int rank;             /* of one sample: 3 (H,W,C) or 1 (D) */
    int64_t shape[3];     /* of one sample */
    int64_t out_channels; /* of the last axis; twice the input's with a learned variance */
    int64_t classes;      /* labels it takes (0: unconditional), the null label included */
    int64_t parameters;   /* numbers */
    int64_t tensors;
    tw_prediction prediction;
    int64_t training_steps; /* T */
} tw_model_info;
TW_API tw_status tw_model_get_info(const tw_model *model, tw_model_info *out);

/* The schedule lives as long as the model. */
TW_API const tw_schedule *tw_model_schedule(const tw_model *model);
/* Texts of the two configs as JSON, living as long as the model. */
TW_API const char *tw_model_config(const tw_model *model);
TW_API const char *tw_model_scheduler_config(const tw_model *model);

/* One weight by its diffusers name, as float32 in the file's layout (convolutions O,I,KH,KW).
 * `count` must be its number of elements. */
TW_API tw_status tw_model_get_weight(tw_model *model, const char *name, float *out, int64_t count);
TW_API tw_status tw_model_set_weight(tw_model *model, const char *name, const float *in,
                                     int64_t count);

/* Evaluates the network on the host's arrays: x[n, shape], t[n], labels[n] (null: none) to
 * out[n, ..., out_channels]. */
TW_API tw_status tw_model_forward(tw_model *model, int64_t n, const float *x, const float *t,
                                  const int32_t *labels, float *out);

TW_END_DECLS

#endif
