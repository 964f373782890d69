/* What an operation is: its kind, its attributes, and the contract of its operands.
 *
 * Layout is N,H,W,C ("..." stands for the spatial axes, which may be none, one or two). R is the
 * plan's precision: float32, bfloat16 or float16 (or float64 in the oracle build), in which tensors
 * are stored; sums are float32 or more. S is float32, float64 with an R of float64: biases and
 * factors of channels, statistics, losses, gradients of parameters, times, a sampler's state and
 * the optimizer's. What has no letter is R. [x?] marks an operand that may be
 * absent. "+=" marks an output that is accumulated into (gradients of parameters), "inout" one that
 * is both read and written in place; every other output is overwritten.
 *
 * The run state of noise is one int64[4] tensor, `rng`: {seed, index of the first sample, step, 0}.
 * Philox's counter is built from it as core/philox.h says; the element is counted in H,W,C order
 * within a sample, the sample is rng[1] + n. */
#ifndef TW_BACKEND_OP_H
#define TW_BACKEND_OP_H

#include <stdbool.h>
#include <stdint.h>

#include <tweedie/tensor.h>

#define TW_OP_MAX_IN 10
#define TW_OP_MAX_OUT 8

typedef enum tw_op_kind {
    /* y[M,N] = x[M,K] w[N,K]^T + b[N], b S.  in: x (leading axes flattened), w, [b?]; out: y */
    TW_OP_LINEAR,
    /* in: dy, w; out: dx */
    TW_OP_LINEAR_BWD_DATA,
    /* in: x, dy; out: dw S +=, [db? S +=] */
    TW_OP_LINEAR_BWD_WEIGHT,
    /* x[N,H,W,C], w[O,KH,KW,C], b S[O]; attr.conv.  in: x, w, [b?]; out: y[N,H',W',O] */
    TW_OP_CONV2D,
    /* in: dy, w; out: dx */
    TW_OP_CONV2D_BWD_DATA,
    /* in: x, dy; out: dw S +=, [db? S +=] */
    TW_OP_CONV2D_BWD_WEIGHT,
    /* u = gamma (x - mean) rstd + beta; with ss[N,V], whose 2C columns from attr.norm.column on are
     * (s, b): u = u (1 + s) + b; y = silu(u) if attr.norm.silu.  in: x[N,...,C], gamma[C], beta[C],
     * [ss?], [mean?, rstd?]; out: y, [mean? [N,G], rstd? [N,G]] (variance is the biased one), which
     * are in or out; the same y to the bit either way. gamma, beta, their gradients, mean and rstd
     * are S */
    TW_OP_GROUP_NORM,
    /* in: dy, x, gamma, beta, [ss?], mean, rstd; out: dx, dgamma +=, dbeta +=, [dss?], whose other
     * columns stay */
    TW_OP_GROUP_NORM_BWD,
    /* y = f(x), attr.act: silu, relu, gelu (exact, by erf).  in: x; out: y */
    TW_OP_ACT,
    /* in: dy, x; out: dx */
    TW_OP_ACT_BWD,
    /* y = alpha a + beta b, same shapes, b being read for beta = 0 too (0 times infinity is NaN);
     * without b: y = alpha a + beta.  attr.axpby.
     * in: a, [b?]; out: y */
    TW_OP_AXPBY,
    /* y[n,...,c] = x[n,...,c] + v[n, attr.vector.column + c].  in: x, v[N,V]; out: y */
    TW_OP_ADD_VEC,
    /* v[n, attr.vector.column + c] = sum over the spatial axes of x[n,...,c]; v's other columns
     * stay.  in: x; out: v[N,V] */
    TW_OP_SUM_SPATIAL,
    /* y[n,...] = x[n,...] s[n], or x[n,...] / s[n] if attr.per_sample.divide.  s is never
     * differentiated.  in: x, s S[N]; out: y */
    TW_OP_PER_SAMPLE_SCALE,
    /* joins 2..8 tensors along the last axis.  in: x0.. ; out: y */
    TW_OP_CONCAT,
    /* cuts along the last axis into the outputs' extents.  in: x; out: y0.. */
    TW_OP_SPLIT,
    /* y[n, h, w, c] = scale x[n, h / k, w / k, c]; attr.resample.  in: x; out: y */
    TW_OP_UPSAMPLE_NEAREST,
    /* y = scale * sum over k x k windows, stride k (the mean for scale 1/k^2); attr.resample.
     * Rows and columns beyond the last whole window are dropped (zero in the gradient, which is
     * UPSAMPLE_NEAREST into the larger shape).  in: x; out: y */
    TW_OP_POOL,
    /* y = keep ? x / (1 - p) : 0, keep when uniform >= p with purpose TW_PURPOSE_DROPOUT +
     * attr.dropout.layer.  Its gradient is the same operation on dy.  in: x, rng; out: y */
    TW_OP_DROPOUT,
    /* y[n,:] = table[index[n],:].  in: table[V,D], index i32[N]; out: y[N,D] (an index outside
     * 0..V-1 gives NaN in y and is skipped in the gradient) */
    TW_OP_EMBEDDING,
    /* in: dy[N,D], index i32[N]; out: dtable S[V,D] += */
    TW_OP_EMBEDDING_BWD,
    /* angle = scale t f_i, f_i = exp(-ln(max_period) i / (half - freq_shift)), i < half = dim / 2;
     * y = [sin, cos], or [cos, sin] if flip; one zero is appended for an odd dim.  attr.time.
     * in: t S[N]; out: y[N,dim] */
    TW_OP_TIME_EMBED,
    /* angle = 2 pi log(t) w (log taken if attr.time.log); y = [sin, cos], or [cos, sin] if flip.
     * in: t S[N], w S[D]; out: y[N,2D] */
    TW_OP_FOURIER_EMBED,
    /* y = softmax(scale q k^T) v per head.  attr.attention.  Keys at or past length[n] are masked
     * out.  in: q[N,Tq,C], k[N,Tk,C], v[N,Tk,C], [length? i32[N]]; out: y[N,Tq,C],
     * lse S[N,heads,Tq] (log of the sum of exponentials) */
    TW_OP_ATTENTION,
    /* in: dy, q, k, v, y, lse, [length?]; out: dq, dk, dv */
    TW_OP_ATTENTION_BWD,
    /* per_sample[n] = w[n] mean over elements (p - t)^2; loss[0] = mean over n of per_sample.
     * in: p[N,...], t S[N,...], [w? S[N]]; out: loss S[1], per_sample S[N] */
    TW_OP_MSE,
    /* dp = dloss[0] 2 w[n] (p - t) / (N E).  in: dloss S[1], p, t, [w?]; out: dp */
    TW_OP_MSE_BWD,
    /* every element = attr.fill.value.  out: y */
    TW_OP_FILL,
    /* element by element conversion between dtypes, same count.  in: x; out: y */
    TW_OP_CONVERT,
    /* y[2N,...] = [x; x].  in: x[N,...]; out: y */
    TW_OP_REPEAT_BATCH,

    /* y = scale * standard normals of attr.noise.purpose.  in: rng; out: y[N,...] */
    TW_OP_NOISE,
    /* t[n] in 0..T-1: uniform, or antithetic pairs (samples 2j and 2j+1 get t and T-1-t, drawn for
     * sample 2j).  t = word % T of TW_PURPOSE_TRAIN_T's element 0 as (word * T) >> 32.
     * attr.sample_t. in: rng; out: t i32[N] */
    TW_OP_SAMPLE_T,
    /* y[n] = uniform < p ? null_label : label[n], purpose TW_PURPOSE_COND_DROP, element 0.
     * attr.cond_drop.  in: label i32[N], rng; out: y i32[N] */
    TW_OP_COND_DROP,
    /* Mirrors a sample left to right with probability attr.flip.p (purpose TW_PURPOSE_FLIP, element
     * 0).  in: x[N,H,W,C], rng; out: y */
    TW_OP_FLIP,
    /* x_t = sqrt(A) x0 + sqrt(1-A) e, e ~ N(0,I) of TW_PURPOSE_TRAIN_NOISE;
     * target = e (epsilon), x0 (sample), sqrt(A) e - sqrt(1-A) x0 (v).  attr.diffusion.prediction;
     * table S[T,2] holds A_t and 1 - A_t.  in: x0 S[N,...], t i32[N], table, rng; out: x_t, target
     * S */
    TW_OP_FORWARD_NOISE,
    /* The sampler's update in place; see diffusion/coefficients.h for the rows of `table`
     * f32[S, TW_COEF_WIDTH]: row rng[2] is used, and noise is TW_PURPOSE_SAMPLER's of step rng[2].
     * attr.update.  m has 2C channels with learned_range.  Guidance: m = m_u + w (m_c - m_u), m_c
     * is `m`; the variance's channels are m_c's.  limit[N] is the dynamic threshold's s. in: m,
     * [m_uncond?], table, rng, [limit?]; out: x inout S[N,...], [x0? S] */
    TW_OP_SAMPLER_UPDATE,
    /* s[n] = clamp(quantile_q |x0|, 1, max) of the x0 that SAMPLER_UPDATE would predict.
     * in: x S, m, [m_uncond?], table, rng; out: limit S[N] */
    TW_OP_THRESHOLD,
    /* y[n] = table[rng[2], attr.row.column].  in: table f32[S, TW_COEF_WIDTH], rng; out: y S[N] */
    TW_OP_STEP_TIME,
    /* rng[2] += 1.  out: rng inout */
    TW_OP_NEXT_STEP,

    /* norm[0] = sqrt(sum g^2), accumulated in double.  in: g S[P]; out: norm S[1] */
    TW_OP_GLOBAL_NORM,
    /* One AdamW step with decoupled decay on flat vectors, and EMA.  hyper S[TW_HYPER_COUNT], see
     * tw_hyper.  count i64[2] = {updates, skipped}: a norm that is not finite changes nothing but
     * `skipped`.  t = updates + 1; g' = g min(1, clip / norm) (clip 0: none);
     * m = b1 m + (1-b1) g'; v = b2 v + (1-b2) g'^2;
     * p -= lr (wd p + (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps));
     * d = min(ema_decay, t / (9 + t)) if warm-up, else ema_decay; e = d e + (1-d) p.
     * copy is p in bfloat16 or float16. All else is S. in: g, norm, hyper; out: p inout, m inout,
     * v inout, count inout, [ema? inout], [copy?] (left as it is with everything else) */
    TW_OP_ADAMW,
    TW_OP_COUNT
} tw_op_kind;

typedef enum tw_activation { TW_ACT_SILU = 0, TW_ACT_RELU = 1, TW_ACT_GELU = 2 } tw_activation;

/* Columns of ADAMW's `hyper`. */
enum tw_hyper {
    TW_HYPER_LR,
    TW_HYPER_BETA1,
    TW_HYPER_BETA2,
    TW_HYPER_EPS,
    TW_HYPER_DECAY,
    TW_HYPER_CLIP,
    TW_HYPER_EMA_DECAY,
    TW_HYPER_EMA_WARMUP, /* 0 or 1 */
    TW_HYPER_COUNT
};

/* How SAMPLER_UPDATE goes from x0 and epsilon to the next x. */
typedef enum tw_update_rule {
    TW_UPDATE_DDIM = 0,         /* sigma from the row's eta and A */
    TW_UPDATE_LINEAR = 1,       /* x = c_x0 x0 + c_x x + c_z z */
    TW_UPDATE_LEARNED_RANGE = 2 /* the same, log variance between the row's bounds */
} tw_update_rule;

typedef enum tw_clip { TW_CLIP_NONE = 0, TW_CLIP_RANGE = 1, TW_CLIP_DYNAMIC = 2 } tw_clip;

typedef union tw_op_attr {
    struct {
        int stride, pad_top, pad_left, pad_bottom, pad_right;
    } conv;
    struct {
        int groups;
        bool silu;
        double eps;
        int64_t column;
    } norm;
    struct {
        int64_t column;
    } vector;
    struct {
        int kind; /* tw_activation */
    } act;
    struct {
        double alpha, beta;
    } axpby;
    struct {
        bool divide;
    } per_sample;
    struct {
        int k;
        double scale;
    } resample;
    struct {
        double p;
        uint32_t layer;
    } dropout;
    struct {
        bool flip, log;
        double freq_shift, scale, max_period;
    } time;
    struct {
        int heads;
        double scale;
    } attention;
    struct {
        double value;
    } fill;
    struct {
        uint32_t purpose;
        double scale;
    } noise;
    struct {
        int64_t count;
        bool antithetic;
    } sample_t;
    struct {
        double p;
        int32_t null_label;
    } cond_drop;
    struct {
        double p;
    } flip;
    struct {
        int prediction; /* tw_prediction */
    } diffusion;
    struct {
        int prediction, rule, clip; /* tw_prediction, tw_update_rule, tw_clip */
        bool rederive_epsilon, guided;
        double clip_range, guidance;
        double quantile, max_limit; /* THRESHOLD */
    } update;
    struct {
        int column;
    } row;
} tw_op_attr;

/* Shape and format of an operand. */
typedef struct tw_desc {
    tw_dtype dtype;
    int rank;
    int64_t dim[TW_MAX_RANK];
} tw_desc;

int64_t tw_desc_count(const tw_desc *d);
size_t tw_desc_bytes(const tw_desc *d);

/* "conv2d", "group_norm_bwd" ...; never null. */
const char *tw_op_name(tw_op_kind kind);

#endif
