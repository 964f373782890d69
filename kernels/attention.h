/* Attention. */
#ifndef TWEEDIE_KERNELS_ATTENTION_H
#define TWEEDIE_KERNELS_ATTENTION_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* o = softmax(scale q k^T) v for every head of every sample; the scores never lie in memory. Token
 * i of head h of sample n starts at q + n q_batch + i q_row + h head_size, likewise in k, v and o:
 * packed q, k, v of one projection are read in place. Heads of 1 to 512 channels.
 *
 * 16-bit formats, and fp32 as tf32, run on the tensor cores where head_size and all strides are
 * multiples of 16 bytes, as is where every tensor starts; else, and in exact fp32, on the fp32
 * units. The softmax and all sums are fp32; on the tensor cores the probabilities, and in the
 * gradients of q and k those of the scores, are rounded to the format before the second product. */
typedef struct twk_attention_args {
    int64_t batch, q_tokens, k_tokens; /* k_tokens: of k and v */
    int heads, head_size;
    twk_format format; /* of every tensor but lse */
    int tf32;          /* fp32 on the tensor cores, rounded to 10 bits of fraction */
    float scale;       /* 0: 1 / sqrt(head_size) */
    const void *q, *k, *v;
    int64_t q_row, k_row, v_row, q_batch, k_batch, v_batch;
    void *o;
    int64_t o_row, o_batch;
    /* [batch, heads, q_tokens]: log of the sum of exp(score) of a row. Forward writes it where it
     * is given, backward reads it. */
    float *lse;
    /* backward, which reads o, too */
    const void *d_o;    /* like o */
    void *dq, *dk, *dv; /* like q, k, v (same strides), overwritten; NULL when not wanted */
    void *workspace;    /* starts at a multiple of 16 bytes */
    size_t workspace_bytes;
} twk_attention_args;

twk_status twk_attention_forward(const twk_attention_args *args, twk_stream stream);
size_t twk_attention_backward_workspace(const twk_attention_args *args);
twk_status twk_attention_backward(const twk_attention_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
