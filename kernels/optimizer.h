/* The optimizer, over as many tensors as a model has. */
#ifndef TWEEDIE_KERNELS_OPTIMIZER_H
#define TWEEDIE_KERNELS_OPTIMIZER_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct twk_parameter {
    int64_t n;
    float *master, *m, *v;
    float *ema; /* NULL for none */
    void *copy; /* rounded copy for the network, NULL for none */
    const void *gradient;
    float decay;         /* of this tensor's weights */
    int32_t reserved;    /* 0 */
    int64_t first_chunk; /* set by twk_adamw_plan */
} twk_parameter;

typedef struct twk_adamw_hyper {
    float lr, beta1, beta2, epsilon;
    float decay;      /* of the weights: added to every tensor's own */
    float max_norm;   /* of the gradient; 0: no clipping */
    float ema_decay;  /* of the average */
    float ema_warmup; /* not 0: at most t / (9 + t) in update t */
} twk_adamw_hyper;

/* What the update's first kernel decides for its second. */
typedef struct twk_adamw_factors {
    float gradient, m, v; /* by which they are multiplied: clipping, 1 / (1 - beta^t) */
    float ema;            /* 1 - decay */
    uint32_t skip;
} twk_adamw_factors;

typedef struct twk_adamw_args {
    const twk_parameter *parameters; /* on the device; NULL: `one` is all there is */
    int32_t n_parameters;
    int64_t n_chunks; /* from twk_adamw_plan */
    twk_parameter one;
    twk_format gradient_format, copy_format;
    /* On the device. count: updates made, and those left out because the norm was not finite. */
    const twk_adamw_hyper *hyper;
    float *norm; /* of the gradient: what twk_gradient_norm leaves and twk_adamw reads */
    int64_t *count;
    void *workspace;
    size_t workspace_bytes;
} twk_adamw_args;

/* Fills first_chunk of a host copy of the table and gives the number of chunks, or -1. */
int64_t twk_adamw_plan(twk_parameter *parameters, int32_t n);
/* Enough for either launch. */
size_t twk_adamw_workspace(int64_t n_chunks);
/* The norm over all tensors' gradients, nothing else of them being looked at; the sum over blocks
 * is float64. */
twk_status twk_gradient_norm(const twk_adamw_args *args, twk_stream stream);
/* One pass over the tensors, or none where the norm is not finite. */
twk_status twk_adamw(const twk_adamw_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
