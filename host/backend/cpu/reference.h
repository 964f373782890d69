/* The reference provider's inside: how an operation's operands reach its function. */
#ifndef TW_BACKEND_CPU_REFERENCE_H
#define TW_BACKEND_CPU_REFERENCE_H

#include "backend/backend.h"

/* The extents of an operation by the letters of its pattern (reference_shapes.c): dim['N'] and so
 * on; dim['.'] and dim['~'] are products of axes. */
typedef int64_t tw_ref_dims[128];

typedef struct tw_ref_call {
    tw_op_kind kind;
    tw_op_attr attr;
    int n_in, n_out;
    tw_dtype real; /* of the operands that op.h calls R; float32 without any */
    tw_desc in_desc[TW_OP_MAX_IN], out_desc[TW_OP_MAX_OUT];
    const void *in[TW_OP_MAX_IN]; /* null: absent */
    void *out[TW_OP_MAX_OUT];
    tw_ref_dims dim;
    int threads;
    void *workspace;
} tw_ref_call;

typedef void (*tw_ref_fn)(const tw_ref_call *call);

/* Checks number, formats and shapes of the operands against the contract in op.h and fills
 * call->dim. *is_double says which build computes it. An error names the operation and operand. */
tw_status tw_ref_check(tw_context *ctx, const tw_region_op *op, tw_ref_call *call, bool *is_double);

/* Relations between extents and attributes that a pattern cannot say. */
tw_status tw_ref_check_attributes(tw_context *ctx, const tw_ref_call *call);

/* Both checks on the first operation of a region, and the description that they need. The addresses
 * are left null. */
tw_status tw_ref_describe(tw_backend *backend, const tw_region *region, tw_ref_call *call,
                          bool *is_double);

/* Bytes of scratch memory. */
size_t tw_ref_workspace(const tw_ref_call *call);

/* Where operands R have 16 bits: `fn` over copies of them in float32, which are rounded afterwards.
 * The memory for these; 0 in other formats. */
size_t tw_ref_wide_bytes(const tw_ref_call *call);
void tw_ref_run_wide(const tw_ref_call *call, tw_ref_fn fn, void *wide);

/* Functions of both builds: X(operation's constant, function). */
#define TW_REF_TABLE(X)                                                                            \
    X(TW_OP_LINEAR, linear)                                                                        \
    X(TW_OP_LINEAR_BWD_DATA, linear_bwd_data)                                                      \
    X(TW_OP_LINEAR_BWD_WEIGHT, linear_bwd_weight)                                                  \
    X(TW_OP_CONV2D, conv2d)                                                                        \
    X(TW_OP_CONV2D_BWD_DATA, conv2d_bwd_data)                                                      \
    X(TW_OP_CONV2D_BWD_WEIGHT, conv2d_bwd_weight)                                                  \
    X(TW_OP_GROUP_NORM, group_norm)                                                                \
    X(TW_OP_GROUP_NORM_BWD, group_norm_bwd)                                                        \
    X(TW_OP_ACT, act)                                                                              \
    X(TW_OP_ACT_BWD, act_bwd)                                                                      \
    X(TW_OP_AXPBY, axpby)                                                                          \
    X(TW_OP_ADD_VEC, add_vec)                                                                      \
    X(TW_OP_SUM_SPATIAL, sum_spatial)                                                              \
    X(TW_OP_PER_SAMPLE_SCALE, per_sample_scale)                                                    \
    X(TW_OP_CONCAT, concat)                                                                        \
    X(TW_OP_SPLIT, split)                                                                          \
    X(TW_OP_UPSAMPLE_NEAREST, upsample_nearest)                                                    \
    X(TW_OP_POOL, pool)                                                                            \
    X(TW_OP_DROPOUT, dropout)                                                                      \
    X(TW_OP_EMBEDDING, embedding)                                                                  \
    X(TW_OP_EMBEDDING_BWD, embedding_bwd)                                                          \
    X(TW_OP_TIME_EMBED, time_embed)                                                                \
    X(TW_OP_FOURIER_EMBED, fourier_embed)                                                          \
    X(TW_OP_ATTENTION, attention)                                                                  \
    X(TW_OP_ATTENTION_BWD, attention_bwd)                                                          \
    X(TW_OP_MSE, mse)                                                                              \
    X(TW_OP_MSE_BWD, mse_bwd)                                                                      \
    X(TW_OP_FILL, fill)                                                                            \
    X(TW_OP_CONVERT, convert)                                                                      \
    X(TW_OP_REPEAT_BATCH, repeat_batch)                                                            \
    X(TW_OP_NOISE, noise)                                                                          \
    X(TW_OP_SAMPLE_T, sample_t)                                                                    \
    X(TW_OP_COND_DROP, cond_drop)                                                                  \
    X(TW_OP_FLIP, flip)                                                                            \
    X(TW_OP_FORWARD_NOISE, forward_noise)                                                          \
    X(TW_OP_SAMPLER_UPDATE, sampler_update)                                                        \
    X(TW_OP_THRESHOLD, threshold)                                                                  \
    X(TW_OP_STEP_TIME, step_time)                                                                  \
    X(TW_OP_NEXT_STEP, next_step)                                                                  \
    X(TW_OP_GLOBAL_NORM, global_norm)                                                              \
    X(TW_OP_ADAMW, adamw)

#define TW_REF_DECLARE(kind, name)                                                                 \
    void tw_ref_##name##_f(const tw_ref_call *call);                                               \
    void tw_ref_##name##_d(const tw_ref_call *call);
TW_REF_TABLE(TW_REF_DECLARE)

#endif
