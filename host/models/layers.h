/* Layers with weights, as the networks of models/ are written: each declares its weights on the
 * model's first build and looks them up afterwards. A layer's weights are named
 * "<scope>.<name>.weight" and ".bias" ("" is the outermost scope). All return TW_NONE after a
 * failure, which stays in the plan. */
#ifndef TW_MODELS_LAYERS_H
#define TW_MODELS_LAYERS_H

#include "graph/builder.h"
#include "models/model.h"

typedef struct tw_builder {
    tw_model *model;
    tw_plan *plan;
    tw_value *values; /* by index of the weight */
    int64_t capacity;
    uint32_t dropouts; /* so far */
    int stacks;        /* so far */
} tw_builder;

typedef struct tw_scope {
    char text[96];
} tw_scope;
/* "<outer>.<format...>". */
tw_scope tw_scope_in(const char *outer, const char *format, ...) TW_PRINTF(2, 3);

/* A square convolution with bias. */
tw_value tw_layer_conv2d(tw_builder *b, const char *scope, const char *name, tw_value x,
                         int64_t channels, int64_t kernel, tw_conv_options options, tw_init init);
tw_value tw_layer_linear(tw_builder *b, const char *scope, const char *name, tw_value x,
                         int64_t features, tw_init init);
/* Attention's "to_q", "to_k" and "to_v" of x. Their weights are one behind another, and with
 * `together`, on a GPU, one layer whose result is split. */
void tw_layer_projections(tw_builder *b, const char *scope, tw_value x, int64_t features,
                          bool together, tw_value out[3]);
/* Linear layers `name` of x in many scopes, whose results are added to something or scale and shift
 * it. On a GPU they are one layer, of which each has some columns: there the weights lie one behind
 * another. */
typedef struct tw_stack {
    const char *name;
    tw_value x, all; /* all: the one layer's result, TW_NONE where each is a layer of its own */
    int number;
    int64_t first; /* index of its first weight */
} tw_stack;
tw_stack tw_layer_stack(tw_builder *b, const char *name, tw_value x);
tw_columns tw_layer_stacked(tw_builder *b, const tw_stack *stack, const char *scope,
                            int64_t features, tw_init init);
/* scale_shift.of may be TW_NONE. */
tw_value tw_layer_group_norm(tw_builder *b, const char *scope, const char *name, tw_value x,
                             tw_columns scale_shift, tw_norm_options options);
/* A table of `rows`, without bias; index int32[N]. */
tw_value tw_layer_embedding(tw_builder *b, const char *scope, const char *name, tw_value index,
                            int64_t rows, int64_t columns);
/* A vector N(0, gain^2) named "<name>.weight" that is never trained. */
tw_value tw_layer_constant(tw_builder *b, const char *name, int64_t count, double gain);
/* Dropout if there is an rng and p > 0. */
tw_value tw_layer_dropout(tw_builder *b, tw_value x, tw_value rng, double p);

/* A value in the format of times. */
tw_value tw_layer_time(tw_builder *b, tw_value x);
/* The last extent of x, 0 for TW_NONE. */
int64_t tw_layer_channels(const tw_builder *b, tw_value x);
/* Records a failure in the plan; returns TW_NONE. */
tw_value tw_layer_fail(tw_builder *b, tw_status status, const char *text);

#endif
