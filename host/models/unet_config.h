/* The config.json of diffusers' UNet2DModel. */
#ifndef TW_MODELS_UNET_CONFIG_H
#define TW_MODELS_UNET_CONFIG_H

#include <stdbool.h>

#include <tweedie/plan.h>

#include "io/json.h"

#define TW_UNET_MAX_LEVELS 16
#define TW_UNET_MAX_LAYERS 64

typedef enum tw_unet_block {
    TW_UNET_PLAIN,     /* DownBlock2D, UpBlock2D */
    TW_UNET_ATTENTION, /* AttnDownBlock2D, AttnUpBlock2D */
    TW_UNET_RESNET     /* ResnetDownsampleBlock2D, ResnetUpsampleBlock2D */
} tw_unet_block;

typedef enum tw_unet_time { TW_TIME_POSITIONAL, TW_TIME_FOURIER, TW_TIME_LEARNED } tw_unet_time;

typedef enum tw_unet_class {
    TW_CLASS_NONE,
    TW_CLASS_TABLE,    /* num_class_embeds rows */
    TW_CLASS_TIMESTEP, /* the label is embedded as a time */
    TW_CLASS_IDENTITY  /* the label is the embedding */
} tw_unet_class;

typedef struct tw_unet_config {
    int64_t height, width, in_channels, out_channels;
    bool center_input; /* 2x - 1 */
    tw_unet_time time;
    int64_t time_dim;   /* T' */
    int64_t time_steps; /* rows of the learned embedding */
    double freq_shift;
    bool flip;
    int levels, layers;
    tw_unet_block down[TW_UNET_MAX_LEVELS], up[TW_UNET_MAX_LEVELS];
    int64_t channels[TW_UNET_MAX_LEVELS];
    bool mid, mid_attention;
    double mid_scale;
    int downsample_padding;      /* 1, or 0: one zero right and below */
    bool down_resnet, up_resnet; /* how attention blocks resample */
    double dropout;
    tw_activation_kind act; /* of the residual blocks */
    int64_t head_dim;       /* 0: one head of all channels */
    int groups;
    int mid_attention_groups; /* 0: no norm */
    double eps;
    bool scale_shift;
    tw_unet_class class_kind;
    int64_t classes;
} tw_unet_config;

/* Reads and checks the object. Unknown keys are ignored, except the names of 2022's files, which
 * are refused. TW_ERROR_UNSUPPORTED for what diffusers can build and this library cannot. */
tw_status tw_unet_config_parse(const tw_json *json, tw_unet_config *out);

#endif
