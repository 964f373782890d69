/* A kind of network: one file that builds it, one row in the table of architecture.c. */
#ifndef TW_MODELS_ARCHITECTURE_H
#define TW_MODELS_ARCHITECTURE_H

#include "io/json.h"
#include "models/model.h"

struct tw_builder;

typedef struct tw_architecture {
    const char *name; /* _class_name in config.json */
    /* Reads and checks config.json's object. *config goes with tw_free. */
    tw_status (*parse)(const tw_json *json, void **config);
    /* Fills rank, shape, out_channels and classes of a zeroed info. */
    void (*describe)(const void *config, tw_model_info *info);
    /* 0, or D where labels are not int32[N] but vectors [N,D]. Null: 0. */
    int64_t (*label_width)(const void *config);
    /* Adds the network to the builder's plan and returns its output, TW_NONE after a failure. */
    tw_value (*build)(struct tw_builder *b, const void *config, const tw_network_inputs *in);
} tw_architecture;

extern const tw_architecture tw_architecture_unet2d;
extern const tw_architecture tw_architecture_mlp;

/* The row whose name is config.json's _class_name. */
tw_status tw_architecture_find(const tw_json *json, const tw_architecture **out);

#endif
