/* Hand-written kernels behind plain C.
 *
 * Every launcher
 *   - takes device pointers and a stream, enqueues its work there and returns: it allocates
 *     nothing, never waits, and can be captured into a graph;
 *   - checks what it is given and says what is wrong through its status and twk_error_text();
 *   - counts elements in 64 bits; images are N,H,W,C in memory, C fastest;
 *   - reads and writes fp32, bf16 or fp16 and calculates in fp32;
 *   - gives equal bits for equal inputs: no float is ever added atomically.
 * Workspace, where one is needed, is sized by the function named after the launcher, comes from the
 * caller and may be used again once the stream has passed the call.
 *
 * A sampling step, as one launch:
 *
 *     twk_ddim_args a = {0};
 *     a.batch = 64;  a.elements = 32 * 32 * 3;
 *     a.x = x;  a.x_out = x;  a.m = prediction;  a.m_format = TWK_BF16;
 *     a.rows = rows_on_device;  a.n_rows = 50;  a.counter = counter_on_device;
 *     a.noise.seed = 7;
 *     if (twk_ddim_update(&a, stream) != TWK_OK) puts(twk_error_text());
 */
#ifndef TWEEDIE_KERNELS_H
#define TWEEDIE_KERNELS_H

#include "base.h"
#include "attention.h"
#include "conv.h"
#include "draw.h"
#include "gemm.h"
#include "noise.h"
#include "optimizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- DDIM update ----------------------------------------------------------------------------- */

/* One step of a run, prepared by the host: every figure is rounded once from float64, because in
 * fp32 the differences would lose their digits. t is the current entry, p the next. */
typedef struct twk_ddim_row {
    float a_t;             /* A_t */
    float one_minus_a_t;   /* 1 - A_t */
    float one_minus_ratio; /* 1 - A_t/A_p; negative when the step goes upwards (inversion, eta 0) */
    float a_p;             /* A_p */
    float one_minus_a_p;   /* 1 - A_p */
    float eta;
    uint32_t noise_step; /* counter word of the step's noise */
    uint32_t reserved;   /* 0 */
} twk_ddim_row;

typedef enum twk_prediction {
    TWK_PREDICT_EPSILON = 0,
    TWK_PREDICT_SAMPLE = 1,
    TWK_PREDICT_V = 2,
    TWK_PREDICT_SCORE = 3, /* variance preserving */
} twk_prediction;

typedef enum twk_clip {
    TWK_CLIP_NONE = 0,
    TWK_CLIP_FIXED = 1,   /* x0 to [-clip, clip] */
    TWK_CLIP_DYNAMIC = 2, /* x0 to [-s, s], then divided by s = threshold[n] */
} twk_clip;

typedef struct twk_ddim_args {
    int64_t batch, elements; /* elements of a sample: H * W * C */
    /* State: fp32 whatever the network computes in; or the format of m, for tensors of others. */
    twk_format x_format;
    const void *x;
    void *x_out;  /* may be x */
    void *x0_out; /* x0 after clipping; NULL when not wanted */
    /* Prediction, and under guidance the unconditional one: m_u + guidance (m - m_u). */
    twk_format m_format;
    const void *m, *m_uncond;
    float guidance;
    twk_prediction prediction;
    twk_clip clip_mode;
    float clip;
    const float *threshold; /* [batch], from twk_dynamic_threshold */
    int rederive_epsilon;   /* epsilon again from the clipped x0 */
    /* Coefficients on the device: sample n uses rows[row_index[n]], or rows[*counter] without
     * row_index, or rows[0] without either. An index past n_rows - 1 uses the last row. Rows lie
     * row_stride 4-byte words apart, 0: side by side. */
    const twk_ddim_row *rows;
    int64_t n_rows, row_stride;
    const uint32_t *counter;
    const int32_t *row_index;
    twk_noise noise;
    /* Inpainting: where mask is 1 the result is the known image at the noise level of p. known is
     * in x_format, [batch or 1, elements]; mask is fp32, [batch or 1, elements / channels or
     * elements]. NULL without inpainting. */
    const void *known;
    int known_batched;
    const float *mask;
    int mask_batched;
    int mask_per_element;
    int channels;
} twk_ddim_args;

twk_status twk_ddim_update(const twk_ddim_args *args, twk_stream stream);

/* threshold[n] = clamp(quantile of |x0| over sample n, 1, limit), x0 from the same arguments as
 * the update that follows (clipping, noise, masks and outputs are not looked at). The quantile is
 * interpolated between the two nearest order statistics; a NaN in the sample makes it NaN. */
twk_status twk_dynamic_threshold(const twk_ddim_args *args, float quantile, float limit,
                                 float *threshold, twk_stream stream);

/* --- general sampler update ------------------------------------------------------------------ */

/*   y     = clip(dx x + dp[0] p0 + dp[1] p1)         e.g. x0, with guidance folded in
 *   x_out = cx x + cp[0] p0 + cp[1] p1 + cy y + sum ch[i] h[i] + cz z
 *   error = ex x + ep[0] p0 + ep[1] p1 + ey y + sum eh[i] h[i] */
typedef struct twk_update_row {
    float dx, dp[2];
    float cx, cp[2], cy, ch[3], cz;
    float ex, ep[2], ey, eh[3];
    float clip; /* of y; 0 for none */
    uint32_t noise_step;
    float log_large, log_small; /* of the variances that variance[] chooses between */
} twk_update_row;

typedef struct twk_update_args {
    int64_t batch, elements;
    const float *x;
    float *x_out; /* may be x or a history tensor */
    float *y_out; /* NULL when not wanted; may be a history tensor */
    twk_format p_format;
    const void *p[2];  /* NULL: that term is left out */
    const float *h[3]; /* likewise */
    /* The network's output o for a learned variance, in p_format: cz is then multiplied by
     * exp((f log_large + (1 - f) log_small) / 2), f = (o + 1) / 2. NULL for none. */
    const void *variance;
    const float *threshold; /* [batch]: y is clamped to it and divided by it; NULL: row's clip */
    const twk_update_row *rows;
    int64_t n_rows, row_stride; /* as in the DDIM update */
    const uint32_t *counter;
    const int32_t *row_index;
    twk_noise noise;
    /* error_out[n] = sqrt(mean((error / (atol + rtol max(|x|, |x_out|)))^2)); NULL for none. */
    float *error_out;
    float atol, rtol;
    void *workspace;
    size_t workspace_bytes;
} twk_update_args;

size_t twk_sampler_update_workspace(int64_t batch, int64_t elements);
twk_status twk_sampler_update(const twk_update_args *args, twk_stream stream);

/* --- forward noising ------------------------------------------------------------------------- */

/* x_t = sqrt(A_t) x0 + sqrt(1 - A_t) z and the target of the prediction, t = time[n]. */
typedef struct twk_noising_args {
    int64_t batch, elements;
    twk_format x0_format, xt_format;
    const void *x0;
    void *x_t;
    float *target; /* epsilon, x0, v or score; NULL when not wanted */
    twk_prediction prediction;
    const int32_t *time;           /* [batch]; one outside of [0, n_times) gives NaN */
    const float *a, *one_minus_a;  /* [n_times], each rounded from float64 */
    int64_t n_times, table_stride; /* elements between their entries; 0 counts as 1 */
    uint32_t purpose;              /* TWK_NOISE_TRAIN_NOISE in training */
    uint32_t step;
    const uint32_t *device_step; /* replaces step where given */
    twk_noise noise;
} twk_noising_args;

twk_status twk_forward_noising(const twk_noising_args *args, twk_stream stream);

/* --- GroupNorm -------------------------------------------------------------------------------- */

/* y = silu?( ((x - mean) rstd gamma + beta) (1 + scale) + shift ), mean and rstd over the pixels
 * and channels / groups channels of a sample. Parameters and statistics are fp32. */
typedef struct twk_group_norm_args {
    int64_t batch, pixels;
    int channels, groups;
    int channels2; /* the last of `channels`, those of x2; 0 without. Both parts must be multiples
                    * of 16 bytes */
    float epsilon;
    int silu;
    twk_format format; /* of x, x2, y, dy, dx, dx2, scale, shift, dscale, dshift */
    const void *x, *x2;
    const float *gamma, *beta; /* [channels], NULL for 1 and 0 */
    const void *scale, *shift; /* [batch, channels], NULL for 0; row n starts at n * scale_stride */
    int64_t scale_stride;
    float *mean, *rstd; /* [batch, groups]: forward writes, backward reads */
    /* forward */
    void *y;
    int given; /* mean and rstd are there: y gets the bits that it had when they were made */
    /* Statistics that another kernel left behind, [batch, n_partials, groups]; partial i covers
     * pixels [i, i + 1) * pixels_per_partial of the sample. NULL: from x. */
    const twk_moments *partial;
    int64_t n_partials, pixels_per_partial;
    /* backward */
    const void *dy;
    const void *dx_add;    /* like dy: what arrives by other paths; NULL for 0 */
    void *dx, *dx2;        /* like x and x2, overwritten; where dx2 is NULL dx is like dy */
    float *dgamma, *dbeta; /* [channels], added to; NULL when not wanted */
    void *dscale, *dshift; /* as scale, overwritten; NULL when not wanted */
    /* The gradient of a vector that was added to each sample: dx's sums over the pixels, [batch,
     * channels], overwritten; NULL when not wanted, and without dx_add. */
    void *dvector;
    int64_t dvector_stride; /* from one row to the next */
    void *workspace;
    size_t workspace_bytes;
} twk_group_norm_args;

size_t twk_group_norm_workspace(const twk_group_norm_args *args);
/* Whether x is read for its statistics and once more for y; backward, x and dy for their sums and
 * once more for dx: a sample does not fit on chip. */
int twk_group_norm_reads_twice(const twk_group_norm_args *args);
int twk_group_norm_backward_reads_twice(const twk_group_norm_args *args);
twk_status twk_group_norm_forward(const twk_group_norm_args *args, twk_stream stream);
size_t twk_group_norm_backward_workspace(const twk_group_norm_args *args);
twk_status twk_group_norm_backward(const twk_group_norm_args *args, twk_stream stream);

/* --- elementwise ------------------------------------------------------------------------------ */

typedef enum twk_activation { TWK_SILU, TWK_RELU, TWK_GELU /* exact, with erf */ } twk_activation;

/* y = f(x);  dx = dy f'(x). Output may be an input. */
twk_status twk_activation_forward(twk_activation f, twk_format format, int64_t n, const void *x,
                                  void *y, twk_stream stream);
twk_status twk_activation_backward(twk_activation f, twk_format format, int64_t n, const void *x,
                                   const void *dy, void *dx, twk_stream stream);

/* y = ca a + cb b, or ca a + cb where b is NULL. */
twk_status twk_add(twk_format format, int64_t n, float ca, const void *a, float cb, const void *b,
                   void *y, twk_stream stream);

/* y[n, p, c] = x[n, p, c] + v[n, c]; row n of v starts at n * v_stride, 0 for a bias. */
twk_status twk_add_vector(twk_format format, int64_t batch, int64_t pixels, int64_t channels,
                          const void *x, const void *v, int64_t v_stride, void *y,
                          twk_stream stream);

/* y[n, e] = x[n, e] s[n], or x[n, e] / s[n]. */
twk_status twk_scale_samples(twk_format format, int64_t batch, int64_t elements, const void *x,
                             const float *s, int divide, void *y, twk_stream stream);

/* out[i] = value. */
twk_status twk_constant(twk_format format, int64_t n, float value, void *out, twk_stream stream);

/* y = x / (1 - probability), or 0 where the element's uniform lies below probability. The mask is
 * the noise of purpose TWK_NOISE_DROPOUT + layer: the backward pass is the same call on dy. */
typedef struct twk_dropout_args {
    int64_t batch, elements;
    twk_format format;
    const void *x;
    void *y;
    float probability;
    uint32_t layer; /* below 0x8000 */
    uint32_t step;
    const uint32_t *device_step; /* replaces step where given */
    twk_noise noise;
} twk_dropout_args;
twk_status twk_dropout(const twk_dropout_args *args, twk_stream stream);

/* --- shape -------------------------------------------------------------------------------------
 */

/* out[r] = a[r] followed by b[r]; split is its inverse and its gradient. A part of split may be
 * NULL when it is not wanted. */
twk_status twk_concat(twk_format format, int64_t rows, int64_t a_channels, int64_t b_channels,
                      const void *a, const void *b, void *out, twk_stream stream);
twk_status twk_split(twk_format format, int64_t rows, int64_t a_channels, int64_t b_channels,
                     const void *in, void *a, void *b, twk_stream stream);

/* Blocks of k x k pixels. pool: out[n, h / k, w / k, c] = scale * sum over a block; spread:
 * out[n, h, w, c] = scale * in of the block that holds the pixel, 0 outside every block. h and w
 * are the large image's. Average pool is pool with 1/k^2, nearest upsampling spread with 1 (k
 * divides h and w there), and each is the other's gradient. */
typedef struct twk_blocks_args {
    int64_t batch, h, w, channels;
    int k;
    float scale;
    twk_format format;
    const void *in;
    void *out;
} twk_blocks_args;
twk_status twk_pool(const twk_blocks_args *args, twk_stream stream);
twk_status twk_spread(const twk_blocks_args *args, twk_stream stream);

typedef enum twk_layout { TWK_NHWC, TWK_NCHW } twk_layout;

/* Format and layout of an image batch. */
typedef struct twk_convert_args {
    int64_t batch, pixels, channels;
    twk_format in_format, out_format;
    twk_layout in_layout, out_layout;
    const void *in;
    void *out;
} twk_convert_args;
twk_status twk_convert(const twk_convert_args *args, twk_stream stream);

/* out[n] = (2 in[index[n]] - 255) / 255, one rounding, mirrored left to right where the sample's
 * uniform of purpose TWK_NOISE_FLIP lies below flip. */
typedef struct twk_image_args {
    int64_t batch, h, w, channels;
    const uint8_t *in;
    const int64_t *index; /* device; NULL: n */
    int64_t n_images;
    twk_format format;
    void *out;
    float flip;
    uint32_t step;
    const uint32_t *device_step;
    twk_noise noise;
} twk_image_args;
twk_status twk_image_to_tensor(const twk_image_args *args, twk_stream stream);

/* --- embeddings --------------------------------------------------------------------------------
 */

/* out[i] = table[index[i]], NaN for an index outside [0, rows). dtable (fp32) is added to, in the
 * order of i. */
twk_status twk_embedding(twk_format format, int64_t n, int64_t rows, int64_t width,
                         const void *table, const int32_t *index, void *out, twk_stream stream);
twk_status twk_embedding_backward(twk_format format, int64_t n, int64_t rows, int64_t width,
                                  const void *dout, const int32_t *index, float *dtable,
                                  twk_stream stream);

/* Sinusoidal: angle_i = scale t max_period^(-i / (half - shift)); Fourier (weights given): angle_i
 * = 2 pi t weights[i], or with log t for t. out[n] = sines then cosines (cosines first on request),
 * half = width / 2, a zero at the end of an odd width. Sample n's t is t[n], or t[*counter] for
 * all. */
typedef struct twk_time_embedding_args {
    int64_t batch;
    int width;
    const float *t;
    const uint32_t *counter;
    const float *weights;
    int log_time;
    float max_period, shift, scale;
    int cosine_first;
    twk_format format;
    void *out;
} twk_time_embedding_args;
twk_status twk_time_embedding(const twk_time_embedding_args *args, twk_stream stream);

/* --- losses and sums ---------------------------------------------------------------------------
 */

/* sample_loss[n] = weight[n] mean((p - target)^2); *loss = their mean;
 * dp = gradient_scale d(loss)/dp. */
typedef struct twk_mse_args {
    int64_t batch, elements;
    twk_format format; /* of p and dp */
    const void *p;
    const float *target;
    const float *weight; /* [batch], NULL for 1 */
    float gradient_scale;
    const float *device_gradient_scale; /* replaces gradient_scale where given */
    void *dp;                           /* NULL when not wanted; may be p */
    float *sample_loss;                 /* [batch]; NULL where dp is all that is wanted */
    float *loss;                        /* NULL when not wanted */
    void *workspace;
    size_t workspace_bytes;
} twk_mse_args;
size_t twk_mse_workspace(int64_t batch, int64_t elements);
twk_status twk_mse(const twk_mse_args *args, twk_stream stream);

/* out[n, c] (+)= sum over p of x[n, p, c]: with batch 1 the gradient of a bias, else of a vector
 * added to each sample. */
typedef struct twk_column_sums_args {
    int64_t batch, pixels, channels;
    twk_format format;
    const void *x;
    void *out;
    twk_format out_format;
    int64_t out_stride; /* from one row of out to the next; 0: channels */
    int accumulate;     /* fp32 only */
    void *workspace;
    size_t workspace_bytes;
} twk_column_sums_args;
size_t twk_column_sums_workspace(int64_t batch, int64_t pixels, int64_t channels);
twk_status twk_column_sums(const twk_column_sums_args *args, twk_stream stream);

#ifdef __cplusplus
}
#endif

#endif
