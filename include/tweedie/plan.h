/* The compute plan: a network described once, then shaped, differentiated, given to providers, laid
 * out in one arena and run any number of times without an allocation.
 *
 *     tw_plan *plan;
 *     tw_plan_create(ctx, NULL, &plan);
 *     tw_value x = tw_plan_input(plan, "x", TW_F32, 2, (int64_t[]){batch, 2});
 *     tw_value w = tw_plan_parameter(plan, "w", 2, (int64_t[]){16, 2});
 *     tw_value y = tw_plan_activation(plan, tw_plan_linear(plan, x, w, TW_NONE), TW_SILU);
 *     tw_plan_keep(plan, y);
 *     TRY(tw_plan_compile(plan));
 *     TRY(tw_plan_write(plan, x, data, bytes));
 *     TRY(tw_plan_run(plan));
 *     TRY(tw_plan_read(plan, y, result, bytes));
 *
 * Builder calls return a value, or TW_NONE after a failure; a failure sticks, later calls do
 * nothing, and tw_plan_compile reports the first one. Layout is N,H,W,C for images and N,C for
 * vectors.
 *
 * Gradients: those of parameters are added to (whoever owns them clears them), those of activations
 * are overwritten. Equal inputs give equal bits from run to run. */
#ifndef TWEEDIE_PLAN_H
#define TWEEDIE_PLAN_H

#include "tensor.h"

TW_BEGIN_DECLS

typedef struct tw_plan tw_plan;
typedef int32_t tw_value;
#define TW_NONE ((tw_value)-1)

typedef enum tw_activation_kind { TW_SILU = 0, TW_RELU = 1, TW_GELU = 2 } tw_activation_kind;

/* What the backward pass makes again rather than have it kept since the forward pass. The numbers
 * are the same to the bit; dropout's masks follow from the noise's counter. */
typedef enum tw_recompute {
    TW_RECOMPUTE_NONE = 0,
    TW_RECOMPUTE_NORMS = 1, /* results of normalisations, activations and dropout */
    TW_RECOMPUTE_BLOCKS = 2 /* all within a model's blocks; only what passes between them is kept */
} tw_recompute;

typedef struct tw_plan_options {
    size_t size;
    /* What is computed with: TW_F32, TW_BF16 or TW_F16; or TW_F64, the reference in double. The 16
     * bits' sums, statistics, losses and the gradients of parameters are TW_F32 all the same. */
    tw_dtype precision;
    unsigned no_fusion; /* of tw_fusion: what is not done, beside the context's */
    tw_recompute recompute;
    int tf32; /* nonzero: a GPU may round operands of TW_F32 products to tf32 */
} tw_plan_options;

#define TW_PLAN_OPTIONS_INIT                                                                       \
    { sizeof(tw_plan_options), TW_F32, 0, TW_RECOMPUTE_NONE, 0 }

TW_API tw_status tw_plan_create(tw_context *ctx, const tw_plan_options *options, tw_plan **out);
TW_API void tw_plan_free(tw_plan *plan);

/* --- Values from outside. Names are copied; they need not be unique. --- */

/* Read by the plan. */
TW_API tw_value tw_plan_input(tw_plan *plan, const char *name, tw_dtype dtype, int rank,
                              const int64_t *shape);
/* Read and written in place (sampler state, counters, optimizer state). */
TW_API tw_value tw_plan_state(tw_plan *plan, const char *name, tw_dtype dtype, int rank,
                              const int64_t *shape);
/* Learned: vectors (biases, factors) are TW_F32 (TW_F64 in double), the rest is of the plan's
 * precision; tw_plan_backward gives it a gradient, which is always TW_F32 (TW_F64). */
TW_API tw_value tw_plan_parameter(tw_plan *plan, const char *name, int rank, const int64_t *shape);

/* --- Operations. Shapes are said where they are not plain. --- */

/* x[...,K] w[N,K]^T + b[N]; b may be TW_NONE. */
TW_API tw_value tw_plan_linear(tw_plan *plan, tw_value x, tw_value w, tw_value b);

typedef struct tw_conv_options {
    int stride; /* 1 or more */
    int pad_top, pad_left, pad_bottom, pad_right;
} tw_conv_options;
/* x[N,H,W,C], w[O,KH,KW,C], b[O] or TW_NONE. */
TW_API tw_value tw_plan_conv2d(tw_plan *plan, tw_value x, tw_value w, tw_value b,
                               tw_conv_options options);

typedef struct tw_norm_options {
    int groups;
    double eps;
    int silu; /* nonzero: followed by SiLU */
} tw_norm_options;
/* Group normalisation over the last axis; scale_shift[N,2C] or TW_NONE: y (1 + s) + b. */
TW_API tw_value tw_plan_group_norm(tw_plan *plan, tw_value x, tw_value gamma, tw_value beta,
                                   tw_value scale_shift, tw_norm_options options);

TW_API tw_value tw_plan_activation(tw_plan *plan, tw_value x, tw_activation_kind kind);
/* alpha a + beta b, equal shapes. */
TW_API tw_value tw_plan_add(tw_plan *plan, tw_value a, tw_value b, double alpha, double beta);
/* alpha x + beta. */
TW_API tw_value tw_plan_scale(tw_plan *plan, tw_value x, double alpha, double beta);
/* x[N,...,C] + v[N,C] at every position. */
TW_API tw_value tw_plan_add_vector(tw_plan *plan, tw_value x, tw_value v);
/* x[n,...] times (or over) s[n], which is TW_F32 (TW_F64) and gets no gradient. */
TW_API tw_value tw_plan_scale_samples(tw_plan *plan, tw_value x, tw_value s, int divide);
/* Along the last axis; at most 8. */
TW_API tw_value tw_plan_concat(tw_plan *plan, const tw_value *x, int count);
TW_API tw_status tw_plan_split(tw_plan *plan, tw_value x, const int64_t *extents, int count,
                               tw_value *out);
/* Each pixel k x k times. */
TW_API tw_value tw_plan_upsample_nearest(tw_plan *plan, tw_value x, int k);
/* Mean of k x k windows, stride k. */
TW_API tw_value tw_plan_average_pool(tw_plan *plan, tw_value x, int k);
/* `rng` is the int64[4] state {seed, first sample, step, 0}; `layer` tells dropouts apart. */
TW_API tw_value tw_plan_dropout(tw_plan *plan, tw_value x, tw_value rng, double p, uint32_t layer);
/* table[V,D], index int32[N]. */
TW_API tw_value tw_plan_embedding(tw_plan *plan, tw_value table, tw_value index);

typedef struct tw_time_options {
    double freq_shift, scale, max_period;
    int flip; /* nonzero: cosine first */
    int log;  /* Fourier only: of log t */
} tw_time_options;
/* Sinusoidal embedding of t[N], TW_F32 (TW_F64), into [N,dim] (Ho et al. 2020). */
TW_API tw_value tw_plan_time_embedding(tw_plan *plan, tw_value t, int64_t dim,
                                       tw_time_options options);
/* Fourier features of t[N] with frequencies w[D] into [N,2D] (Song et al. 2021). */
TW_API tw_value tw_plan_fourier_embedding(tw_plan *plan, tw_value t, tw_value w,
                                          tw_time_options options);

/* q[N,Tq,C], k and v [N,Tk,C]; keys at or past length[n] (int32[N], or TW_NONE) are masked out.
 * scale 0: 1 / sqrt(C / heads). */
TW_API tw_value tw_plan_attention(tw_plan *plan, tw_value q, tw_value k, tw_value v,
                                  tw_value length, int heads, double scale);

/* Mean over n of weight[n] (or 1) times the mean of (p - t)^2: one number. `per_sample`, if not
 * null, gets the N terms. All but p are TW_F32 (TW_F64). */
TW_API tw_value tw_plan_mse(tw_plan *plan, tw_value p, tw_value t, tw_value weight,
                            tw_value *per_sample);
TW_API tw_value tw_plan_convert(tw_plan *plan, tw_value x, tw_dtype dtype);
/* [x; x] along the first axis. */
TW_API tw_value tw_plan_repeat_batch(tw_plan *plan, tw_value x);
/* The same elements under another shape. */
TW_API tw_value tw_plan_reshape(tw_plan *plan, tw_value x, int rank, const int64_t *shape);
/* Samples first .. first + count - 1. Not differentiable. */
TW_API tw_value tw_plan_slice_batch(tw_plan *plan, tw_value x, int64_t first, int64_t count);

/* --- Differentiation, compilation, running --- */

/* Adds the gradient of the one-element `loss` times `scale` to the plan. Every parameter that the
 * loss depends on gets a gradient, as do inputs named with tw_plan_want_gradient before. */
TW_API tw_status tw_plan_backward(tw_plan *plan, tw_value loss, double scale);
TW_API void tw_plan_want_gradient(tw_plan *plan, tw_value x);
/* The gradient of a parameter or of a wanted value; TW_NONE if it has none. */
TW_API tw_value tw_plan_gradient(const tw_plan *plan, tw_value x);

/* Keeps the value readable after a run. */
TW_API void tw_plan_keep(tw_plan *plan, tw_value x);

/* Chooses providers, lays out memory, allocates. Afterwards the plan cannot be extended. */
TW_API tw_status tw_plan_compile(tw_plan *plan);

/* Gives a value from outside (or a parameter's gradient) its storage: device memory of the
 * context's device, dense, owned by the caller and outliving the plan's runs. Before compilation.
 * What is not bound gets zeroed storage of the plan's own. */
TW_API tw_status tw_plan_bind(tw_plan *plan, tw_value x, void *address);

/* Copies between the host and a value's storage: values from outside, gradients, and kept ones.
 * `bytes` must be the value's size. */
TW_API tw_status tw_plan_write(tw_plan *plan, tw_value x, const void *host, size_t bytes);
TW_API tw_status tw_plan_read(tw_plan *plan, tw_value x, void *host, size_t bytes);
TW_API tw_status tw_plan_run(tw_plan *plan);

/* --- What was decided --- */

typedef struct tw_plan_stats {
    size_t size;
    size_t arena_bytes;    /* intermediate tensors and workspace */
    size_t unshared_bytes; /* the same without sharing memory */
    size_t owned_bytes;    /* storage of unbound outside values */
    int operations;        /* after removing those that nobody needs */
    int launches;          /* provider calls in one run */
    double flops;          /* of convolutions, matrix products and attention, 2 a multiply-add */
} tw_plan_stats;
TW_API tw_status tw_plan_get_stats(const tw_plan *plan, tw_plan_stats *out);
/* Launches that the provider with this name executes. */
TW_API int tw_plan_provider_launches(const tw_plan *plan, const char *provider);
/* Shape of a value; rank, or -1 for no value. `shape` has TW_MAX_RANK entries. */
TW_API int tw_plan_shape(const tw_plan *plan, tw_value x, int64_t *shape);

TW_END_DECLS

#endif
