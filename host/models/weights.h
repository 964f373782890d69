/* The named weights of a model in one flat vector, and what a fresh one is.
 *
 * A fresh weight follows PyTorch's defaults: convolutions and linear layers U(-b, b) with
 * b = 1/sqrt(fan_in) for weight and bias, norms 1 and 0, embeddings N(0, 1). Zero, as in the
 * reference of Ho et al. 2020, are the second convolution of every residual block, the output
 * projection of every attention, and the last convolution. The numbers come from Philox: purpose
 * TW_PURPOSE_INIT, step 0, sample tw_name_hash(name), and the element counted in the order of the
 * file (convolutions O,I,KH,KW); so a weight depends on the seed, its name and its shape alone. */
#ifndef TW_MODELS_WEIGHTS_H
#define TW_MODELS_WEIGHTS_H

#include "models/model.h"

/* Index of the weight with this name, -1 if there is none. */
int64_t tw_weights_find(const tw_weights *weights, const char *name);

/* Appends a weight without a place; `like` is copied, its name too. */
tw_status tw_weights_add(tw_context *ctx, tw_weights *weights, const tw_weight *like);

/* Gives every weight its offsets: the trainable ones first. Afterwards the set is complete. */
tw_status tw_weights_place(tw_context *ctx, tw_weights *weights);

/* Between the flat vector and that of a training state, which do not overlap. Gaps are zero. */
void tw_weights_to_state(const tw_weights *weights, const float *flat, float *state);
void tw_weights_from_state(const tw_weights *weights, const float *state, float *flat);

void tw_weights_free(tw_context *ctx, tw_weights *weights);

/* The shape as the file has it (convolutions O,I,KH,KW); returns the rank. */
int tw_weight_file_shape(const tw_weight *weight, int64_t shape[TW_MAX_RANK]);

/* Between the two orders; both arrays have weight->count elements and do not overlap. */
void tw_weight_from_file(const tw_weight *weight, const float *file, float *plan);
void tw_weight_to_file(const tw_weight *weight, const float *plan, float *file);

/* A fresh weight in the order of the file. */
void tw_weight_init(const tw_weight *weight, uint64_t seed, float *file);

#endif
