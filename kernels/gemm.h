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
 * is the same for all). */
typedef struct twk_gemm_args {
    int64_t batch, m, n, k;
    twk_format format; /* of every matrix but bias */
    int tf32;
    const void *a, *b;
    int64_t a_row, b_row, a_batch, b_batch, d_batch;
    const float *bias;    /* [n], NULL for 0 */
    const void *residual; /* like d, may be d; NULL for 0 */
    float scale;          /* 0 counts as 1 */
    int silu;
    void *d;
    twk_tile tile; /* for tuning and tests; TWK_TILE_AUTO: chosen by the shape */
} twk_gemm_args;
twk_status twk_gemm(const twk_gemm_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
