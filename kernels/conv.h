/* Convolution. */
#ifndef TWEEDIE_KERNELS_CONV_H
#define TWEEDIE_KERNELS_CONV_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y = silu?( scale (conv(x) + bias + vector + residual) ), images N,H,W,C and weights O,KH,KW,C.
 * The sums are fp32. fp32 tensors are multiplied exactly, or as tf32. */
typedef struct twk_conv_args {
    int64_t batch, h, w; /* of x */
    int channels;        /* of x */
    int channels2;       /* of x2, which follow x's; 0 without */
    int upsample;        /* x and x2 are read as if every pixel were 2 x 2 pixels */
    int fold;            /* forward, with upsample: see twk_conv_forward */
    int out_channels, kernel_h, kernel_w, stride;
    int pad_top, pad_left, pad_bottom, pad_right; /* zeros around the (upsampled) image */
    twk_format format;                            /* of every tensor but bias */
    int tf32;
    const void *x, *x2, *weight;
    const float *bias;  /* [out_channels], NULL for 0 */
    const void *vector; /* [batch, out_channels], NULL for 0; row n starts at n * vector_stride */
    int64_t vector_stride;
    const void *residual; /* like y, may be y; NULL for 0 */
    float scale;          /* 0 counts as 1 */
    int silu;
    void *y;
    /* GroupNorm's statistics of y for twk_group_norm_forward, [batch, n_partials, groups] as
     * twk_conv_partials says; NULL when not wanted. */
    twk_moments *partial;
    int groups;
    /* backward; the gradients are of scale conv(x), and silu must be 0 there */
    const void *dy;               /* like y */
    void *dx, *dx2;               /* like x and x2, overwritten; NULL when not wanted */
    const void *dx_add, *dx2_add; /* like dx and dx2, may be them: what arrives by other paths */
    float *dweight, *dbias; /* fp32, like weight and bias, added to; dbias NULL when not wanted */
    /* For tuning and tests; 0: chosen by the shape. */
    twk_tile tile;
    int splits; /* parts of the sum over taps and channels, added up in one order: 2, 4 or 8 by a
                 * cluster of blocks where there are such, others through the workspace, as are
                 * those of TWK_TILE_128X256_TMA */
    void *workspace;
    size_t workspace_bytes;
} twk_conv_args;

/* Height and width of y; 0 where there is none. */
int64_t twk_conv_out_h(const twk_conv_args *args);
int64_t twk_conv_out_w(const twk_conv_args *args);
/* Partials a sample that the call would leave behind, or 0 when it cannot; and the workspace of the
 * call. Both look at all arguments but bias: tiles also depend on how x, x2 and weight are aligned
 * and on the device's number of processors. */
int64_t twk_conv_partials(const twk_conv_args *args, int64_t *pixels_per_partial);
size_t twk_conv_workspace(const twk_conv_args *args);
/* With fold, the weights of taps that fall on one pixel before it is upsampled are added first, in
 * fp32, and rounded to the format (for tf32 to its 10 bits): 3 x 3 becomes four convolutions 2 x 2,
 * one for each pixel that a pixel turns into, with 2.25 times fewer products; eps_format times the
 * sum of the terms' magnitudes comes on top of the error. A partial's pixels are of one such
 * convolution then, and with TWK_TILE_128X256_TMA of a part of the image's width: not neighbours,
 * unless parts of the sum go through the workspace; a sample's partials cover it once all the same.
 */
twk_status twk_conv_forward(const twk_conv_args *args, twk_stream stream);

/* dx = dx_add + scale dy * weight, spread as the taps gathered, and dx2 likewise; x is not read.
 * With upsample, weights are added first as fold does. The workspace is needed always. */
size_t twk_conv_input_gradient_workspace(const twk_conv_args *args);
twk_status twk_conv_input_gradient(const twk_conv_args *args, twk_stream stream);

/* dweight += scale sum over pixels of dy x, and dbias += scale sum of dy, from one read of dy (for
 * dbias alone there is twk_column_sums). weight is not read, fold makes no difference, and `splits`
 * are parts of the sum over pixels. The workspace depends on whether dbias is wanted and on how x,
 * x2 and dy are aligned. */
size_t twk_conv_weight_gradient_workspace(const twk_conv_args *args);
twk_status twk_conv_weight_gradient(const twk_conv_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
