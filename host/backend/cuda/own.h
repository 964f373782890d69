/* The inside of the provider "own": operations as calls of the launchers in kernels/. */
#ifndef TW_BACKEND_CUDA_OWN_H
#define TW_BACKEND_CUDA_OWN_H

#include "backend/cpu/reference.h" /* the check of operands against op.h, and extents by letter */
#include "backend/cuda/cuda.h"
#include "core/context.h"
#include "kernels.h"

/* What is claimed with a product (own_fused.c); slots of the region, -1: none. */
typedef struct tw_own_fused {
    int claimed; /* operations */
    int product; /* which of them is the product */
    int result;
    int vector, residual;
    int sums;       /* a matrix, some of whose columns get the result's sums over the pixels */
    int64_t column; /* of `vector` or `sums`: the first */
    int upsampled;  /* the small image that the convolution's input, or its gradient, stands for */
    int first, second; /* the two tensors that the input stands for, side by side */
    int packed;        /* q, k and v side by side, for attention */
    int second_result; /* the gradient of `second` */
    float scale;       /* of the sum */
    bool silu, data_gradient;
} tw_own_fused;
tw_own_fused tw_own_fuse(const tw_region *region);
/* Operation `product` by itself. */
tw_own_fused tw_own_alone(const tw_region *region, int product);
/* Which of its operands is the image that may be upsampled meanwhile, or have two parts; -1: none.
 */
int tw_own_image(tw_op_kind kind);

typedef struct tw_own_call {
    tw_ref_call op;                /* what it is, and its operands' addresses on the device */
    const void *vector, *residual; /* what was claimed with a product */
    void *sums;
    int64_t vector_stride; /* columns of the matrix that `vector` or `sums` is a part of */
    const void *second; /* what lies behind the input's channels, the last `channels2` of op.dim */
    void *second_out;   /* and its gradient */
    int channels2;
    bool packed; /* q stands for q, k and v side by side, and dq for their gradients */
    /* GroupNorm's statistics of a convolution's y, in `groups` parts: written by it, then read */
    twk_moments *partial;
    int groups;
    int64_t n_partials, pixels_per_partial;
    float scale;
    bool tf32, silu,
        upsample; /* upsample: the image beside dy or y has half the extents of op.dim */
    tw_backend *backend;
    twk_stream stream;
    void *workspace;
    size_t workspace_bytes;
} tw_own_call;

typedef struct tw_own_entry {
    tw_status (*run)(const tw_own_call *call);
    /* Bytes, from everything but the workspace; addresses stand for their alignment only. Null:
     * none. */
    size_t (*workspace)(const tw_own_call *call);
    /* Why this call cannot be served, null if it can. Null: it always can. */
    const char *(*refuse)(const tw_own_call *call);
} tw_own_entry;

/* Prepares the claim `f`, whose product or only operation is done by its kind's entry. */
tw_status tw_own_prepare(const tw_own_entry *entries, tw_backend *backend, const tw_region *region,
                         const tw_own_fused *f, tw_kernel *kernel);

/* Whether the libraries have this kind of operation at all. */
bool tw_cuda_library_has(tw_op_kind kind);
/* Whether the libraries take all of `f`; if not, the context's error says why. */
bool tw_cuda_library_claims(tw_backend *b, const tw_region *region, const tw_own_fused *f);

/* The call of a kernel that tw_own_prepare made. */
tw_own_call tw_own_placed(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                          void *workspace);

/* The claim `f`, a convolution's, and the GroupNorm behind it, of which it leaves the statistics.
 * TW_ERROR_UNSUPPORTED where there is none, or no statistics, or where these would save nothing: a
 * GroupNorm that reads its input once makes them on the way. */
tw_status tw_own_prepare_measured(const tw_own_entry *entries, tw_backend *backend,
                                  const tw_region *region, const tw_own_fused *f,
                                  tw_kernel *kernel);
bool tw_own_norm_reads_twice(const tw_own_call *norm);
int64_t tw_own_conv2d_partials(const tw_own_call *call, int64_t *pixels_per_partial);

/* A launcher's status as ours, with its text; tw_own_done: that of the kernels. */
tw_status tw_own_result(const tw_own_call *call, twk_status status, const char *text);
tw_status tw_own_done(const tw_own_call *call, twk_status status);

#define TW_OWN_TRY(call, launch) TW_TRY(tw_own_done(call, launch))

/* A format as the kernels count it. */
twk_format tw_own_format(tw_dtype dtype);

/* The run state int64[4] = {seed, first sample, step, 0} as the kernels read it: the machine is
 * little-endian, and a step is below 2^32. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half of a step comes first");
twk_noise tw_own_noise(const void *rng);
const uint32_t *tw_own_step(const void *rng);
/* The float32 for which `uniform < p` decides as it does for p: uniforms are multiples of 2^-24. */
float tw_own_probability(double p);

/* What the launchers are called with. */
twk_gemm_args tw_own_linear_args(const tw_own_call *call);
tw_status tw_own_linear_sums(const tw_own_call *call); /* the bias' gradient, after the product */
size_t tw_own_linear_sums_workspace(const tw_own_call *call);
twk_conv_args tw_own_conv2d_args(const tw_own_call *call);
twk_attention_args tw_own_attention_args(const tw_own_call *call);

/* One or more families a file. */
tw_status tw_own_linear(const tw_own_call *call);
tw_status tw_own_linear_bwd_data(const tw_own_call *call);
tw_status tw_own_linear_bwd_weight(const tw_own_call *call);
size_t tw_own_linear_workspace(const tw_own_call *call);
size_t tw_own_linear_bwd_data_workspace(const tw_own_call *call);
size_t tw_own_linear_bwd_weight_workspace(const tw_own_call *call);

tw_status tw_own_conv2d(const tw_own_call *call);
tw_status tw_own_conv2d_bwd_data(const tw_own_call *call);
tw_status tw_own_conv2d_bwd_weight(const tw_own_call *call);
size_t tw_own_conv2d_workspace(const tw_own_call *call);
size_t tw_own_conv2d_bwd_data_workspace(const tw_own_call *call);
size_t tw_own_conv2d_bwd_weight_workspace(const tw_own_call *call);
const char *tw_own_conv2d_refuse(const tw_own_call *call);

tw_status tw_own_group_norm(const tw_own_call *call);
tw_status tw_own_group_norm_bwd(const tw_own_call *call);
size_t tw_own_group_norm_workspace(const tw_own_call *call);
size_t tw_own_group_norm_bwd_workspace(const tw_own_call *call);

tw_status tw_own_attention(const tw_own_call *call);
tw_status tw_own_attention_bwd(const tw_own_call *call);
size_t tw_own_attention_bwd_workspace(const tw_own_call *call);
const char *tw_own_attention_refuse(const tw_own_call *call);

tw_status tw_own_act(const tw_own_call *call);
tw_status tw_own_act_bwd(const tw_own_call *call);
tw_status tw_own_axpby(const tw_own_call *call);
tw_status tw_own_add_vec(const tw_own_call *call);
tw_status tw_own_sum_spatial(const tw_own_call *call);
size_t tw_own_sum_spatial_workspace(const tw_own_call *call);
/* `column` of a matrix of the call's format. */
static inline void *tw_own_column(const tw_own_call *call, const void *matrix, int64_t column) {
    return (char *)(uintptr_t)matrix + (size_t)column * tw_dtype_size(call->op.real);
}
tw_status tw_own_per_sample_scale(const tw_own_call *call);
tw_status tw_own_dropout(const tw_own_call *call);
tw_status tw_own_mse(const tw_own_call *call);
size_t tw_own_mse_workspace(const tw_own_call *call);
tw_status tw_own_mse_bwd(const tw_own_call *call);

tw_status tw_own_concat(const tw_own_call *call);
tw_status tw_own_split(const tw_own_call *call);
const char *tw_own_joined_refuse(const tw_own_call *call);
tw_status tw_own_upsample_nearest(const tw_own_call *call);
tw_status tw_own_pool(const tw_own_call *call);
tw_status tw_own_fill(const tw_own_call *call);
const char *tw_own_fill_refuse(const tw_own_call *call);
tw_status tw_own_convert(const tw_own_call *call);
const char *tw_own_convert_refuse(const tw_own_call *call);
tw_status tw_own_repeat_batch(const tw_own_call *call);

tw_status tw_own_embedding(const tw_own_call *call);
tw_status tw_own_embedding_bwd(const tw_own_call *call);
tw_status tw_own_time_embed(const tw_own_call *call);
const char *tw_own_time_embed_refuse(const tw_own_call *call);
tw_status tw_own_fourier_embed(const tw_own_call *call);

tw_status tw_own_noise_fill(const tw_own_call *call);
tw_status tw_own_sample_t(const tw_own_call *call);
tw_status tw_own_cond_drop(const tw_own_call *call);
tw_status tw_own_flip(const tw_own_call *call);
tw_status tw_own_forward_noise(const tw_own_call *call);
const char *tw_own_forward_noise_refuse(const tw_own_call *call);

tw_status tw_own_sampler_update(const tw_own_call *call);
tw_status tw_own_threshold(const tw_own_call *call);
size_t tw_own_update_workspace(const tw_own_call *call);
tw_status tw_own_step_time(const tw_own_call *call);
const char *tw_own_table_refuse(const tw_own_call *call);
tw_status tw_own_next_step(const tw_own_call *call);

tw_status tw_own_global_norm(const tw_own_call *call);
size_t tw_own_optimizer_workspace(const tw_own_call *call);
tw_status tw_own_adamw(const tw_own_call *call);
const char *tw_own_adamw_refuse(const tw_own_call *call);

#endif
