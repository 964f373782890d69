/* Matrix products. */
#ifndef TWEEDIE_KERNELS_GEMM_H
#define TWEEDIE_KERNELS_GEMM_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* d = silu?( scale (a b^T + bias + residual) ), d [m, n], a [m, k], b [n, k], for every product of
 * a batch: a linear layer is one product with its weights as b. Rows of a and b lie a_row and b_row
 * elements apart, rows of d and residual n; the products' matrices lie *_batch apart (0: a or b
 * is the same for all). A linear layer's gradients for its x [rows, in] and weights [out, in]:
 *   dx = dy w       m = rows, n = in, k = out; a = dy, b = w with b_columns
 *   dw += dy^T x    m = out, n = in, k = rows; a = dy, b = x with a_columns, b_columns, add_f32 */
typedef struct twk_gemm_args {
    int64_t batch, m, n, k;
    twk_format format; /* of every matrix but bias */
    int tf32;
    const void *a, *b;
    int64_t a_row, b_row, a_batch, b_batch, d_batch;
    int a_columns, b_columns; /* a is stored [k, m] (a_row from one k to the next), b [k, n] */
    const float *bias;        /* [n], NULL for 0 */
    const void *residual;     /* like d, may be d; NULL for 0 */
    float scale;              /* 0 counts as 1 */
    int silu;
    int add_f32; /* d is fp32 whatever the format and is added to; no bias, residual, silu */
    void *d;
    /* For tuning and tests; 0: chosen by the shape. */
    twk_tile tile;
    int splits; /* parts of the sum over k, as in twk_conv_args; 0 without a workspace is 1, or
                 * those of a cluster */
    void *workspace;
    size_t workspace_bytes;
} twk_gemm_args;
/* Looks at all arguments but bias, and at the device's number of processors. */
size_t twk_gemm_workspace(const twk_gemm_args *args);
twk_status twk_gemm(const twk_gemm_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
