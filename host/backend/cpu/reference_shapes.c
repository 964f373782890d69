/* The operand contract of op.h as patterns, and the check of operands against them.
 *
 * A pattern lists the inputs, ">" and the outputs. A word is an optional "?" (may be absent), a
 * format and the axes. Formats: R the precision (the same for all), S float64 with an R of float64
 * and else float32, h bfloat16 or float16, t a table (float32 or float64), i int32, l int64, a any
 * (the same for all), b any other. Axes: a letter is one extent
 * (equal wherever it appears), a digit that extent, "." or "~" the product of any number of axes.
 * An absent operand leaves its own letters at zero. */
#include <string.h>

#include "backend/cpu/reference.h"
#include "core/checked.h"
#include "core/context.h"

static const char *const patterns[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = "R.K ROK ?SO > R.O",
    [TW_OP_LINEAR_BWD_DATA] = "R.O ROK > R.K",
    [TW_OP_LINEAR_BWD_WEIGHT] = "R.K R.O > SOK ?SO",
    [TW_OP_CONV2D] = "RNHWC ROJKC ?SO > RNPQO",
    [TW_OP_CONV2D_BWD_DATA] = "RNPQO ROJKC > RNHWC",
    [TW_OP_CONV2D_BWD_WEIGHT] = "RNHWC RNPQO > SOJKC ?SO",
    [TW_OP_GROUP_NORM] = "RN.C SC SC ?RND ?SNG ?SNG > RN.C ?SNG ?SNG",
    [TW_OP_GROUP_NORM_BWD] = "RN.C RN.C SC SC ?RND SNG SNG > RN.C SC SC ?RND",
    [TW_OP_ACT] = "R. > R.",
    [TW_OP_ACT_BWD] = "R. R. > R.",
    [TW_OP_AXPBY] = "R. ?R. > R.",
    [TW_OP_ADD_VEC] = "RN.C RNV > RN.C",
    [TW_OP_SUM_SPATIAL] = "RN.C > RNV",
    [TW_OP_PER_SAMPLE_SCALE] = "RN. SN > RN.",
    [TW_OP_CONCAT] = "a.A a.B ?a.C ?a.D ?a.E ?a.F ?a.G ?a.H > a.Y",
    [TW_OP_SPLIT] = "a.Y > a.A a.B ?a.C ?a.D ?a.E ?a.F ?a.G ?a.H",
    [TW_OP_UPSAMPLE_NEAREST] = "RNHWC > RNPQC",
    [TW_OP_POOL] = "RNHWC > RNPQC",
    [TW_OP_DROPOUT] = "RN. l4 > RN.",
    [TW_OP_EMBEDDING] = "RVD iN > RND",
    [TW_OP_EMBEDDING_BWD] = "RND iN > SVD",
    [TW_OP_TIME_EMBED] = "SN > RND",
    [TW_OP_FOURIER_EMBED] = "SN SD > RNE",
    [TW_OP_ATTENTION] = "RN.C RN~C RN~C ?iN > RN.C SNHT",
    [TW_OP_ATTENTION_BWD] = "RN.C RN.C RN~C RN~C RN.C SNHT ?iN > RN.C RN~C RN~C",
    [TW_OP_MSE] = "RN. SN. ?SN > S1 SN",
    [TW_OP_MSE_BWD] = "S1 RN. SN. ?SN > RN.",
    [TW_OP_FILL] = "> a.",
    [TW_OP_CONVERT] = "a. > b.",
    [TW_OP_REPEAT_BATCH] = "aN. > aM.",
    [TW_OP_NOISE] = "l4 > RN.",
    [TW_OP_SAMPLE_T] = "l4 > iN",
    [TW_OP_COND_DROP] = "iN l4 > iN",
    [TW_OP_FLIP] = "RNHWC l4 > RNHWC",
    [TW_OP_FORWARD_NOISE] = "SN. iN tT2 l4 > RN. SN.",
    [TW_OP_SAMPLER_UPDATE] = "RN.M ?RN.M tSL l4 ?SN > SN.C ?SN.C",
    [TW_OP_THRESHOLD] = "SN.C RN.M ?RN.M tSL l4 > SN",
    [TW_OP_STEP_TIME] = "tSL l4 > SN",
    [TW_OP_NEXT_STEP] = "> l4",
    [TW_OP_GLOBAL_NORM] = "S. > S1",
    [TW_OP_ADAMW] = "S. S1 t8 > S. S. S. l2 ?S. ?h.",
};

typedef struct matcher {
    tw_context *ctx;
    tw_ref_call *call;
    int precision, wide, any; /* the dtypes bound to R, S and a; -1: none yet */
} matcher;

static tw_status refuse(const matcher *m, const char *side, int index, const char *word, int len,
                        const char *why) {
    return tw_fail(m->ctx, TW_ERROR_INTERNAL, "%s: %s %d: expected %.*s of \"%s\": %s",
                   tw_op_name(m->call->kind), side, index, len, word, patterns[m->call->kind], why);
}

static bool bind(int *bound, tw_dtype dtype) {
    if (*bound < 0) *bound = (int)dtype;
    return *bound == (int)dtype;
}

static bool match_dtype(matcher *m, char format, tw_dtype dtype) {
    const bool real = dtype == TW_F32 || dtype == TW_F64;
    const bool half = dtype == TW_BF16 || dtype == TW_F16;
    switch (format) {
    case 'R':
        return (real || half) && bind(&m->precision, dtype) &&
               bind(&m->wide, half ? TW_F32 : dtype);
    case 'S':
        return real && bind(&m->wide, dtype);
    case 'h':
        return half;
    case 'a':
        return bind(&m->any, dtype);
    case 't':
        return real;
    case 'i':
        return dtype == TW_I32;
    case 'l':
        return dtype == TW_I64;
    default:
        return tw_dtype_size(dtype) > 0;
    }
}

/* One axis, or a product of axes, against a letter. */
static bool match_extent(matcher *m, char letter, int64_t extent) {
    if (letter >= '0' && letter <= '9') return extent == letter - '0';
    int64_t *bound = &m->call->dim[(int)letter];
    if (*bound == 0) *bound = extent;
    return *bound == extent;
}

static bool match_axes(matcher *m, const char *axes, int len, const tw_desc *d) {
    int product_at = -1;
    for (int i = 0; i < len; i++)
        if (axes[i] == '.' || axes[i] == '~') product_at = i;
    const int single = product_at < 0 ? len : len - 1;
    if (d->rank < single || (product_at < 0 && d->rank != single)) return false;
    int axis = 0;
    for (int i = 0; i < len; i++) {
        int64_t extent = 1;
        if (i == product_at) {
            for (int k = 0; k < d->rank - single; k++) extent *= d->dim[axis++];
        } else {
            extent = d->dim[axis++];
        }
        if (!match_extent(m, axes[i], extent)) return false;
    }
    return true;
}

static bool sane(const tw_desc *d) {
    int64_t count = 1;
    if (d->rank < 0 || d->rank > TW_MAX_RANK) return false;
    for (int i = 0; i < d->rank; i++)
        if (d->dim[i] < 1 || !tw_mul_i64(count, d->dim[i], &count)) return false;
    return count < INT64_MAX / 16;
}

/* The words of one side of the pattern against `n` operands. */
static tw_status match_side(matcher *m, const char *side, const char *p, const int *slot,
                            const tw_desc *desc, int n, const char **rest) {
    int index = 0;
    for (;; index++) {
        while (*p == ' ') p++;
        if (!*p || *p == '>') break;
        const char *word = p;
        while (*p && *p != ' ' && *p != '>') p++;
        const int len = (int)(p - word), skip = word[0] == '?';
        if (index >= n || slot[index] < 0) {
            if (!skip) return refuse(m, side, index, word, len, "it is absent");
            continue;
        }
        if (!sane(&desc[index])) return refuse(m, side, index, word, len, "an extent is below 1");
        if (!match_dtype(m, word[skip], desc[index].dtype))
            return refuse(m, side, index, word, len, tw_dtype_name(desc[index].dtype));
        if (!match_axes(m, word + skip + 1, len - skip - 1, &desc[index]))
            return refuse(m, side, index, word, len, "the shape does not fit");
    }
    for (int i = index; i < n; i++)
        if (slot[i] >= 0)
            return tw_fail(m->ctx, TW_ERROR_INTERNAL, "%s: %s %d: not expected by \"%s\"",
                           tw_op_name(m->call->kind), side, i, patterns[m->call->kind]);
    *rest = p;
    return TW_OK;
}

tw_status tw_ref_check(tw_context *ctx, const tw_region_op *op, tw_ref_call *call,
                       bool *is_double) {
    matcher m = {ctx, call, -1, -1, -1};
    const char *p = patterns[op->kind];
    memset(call->dim, 0, sizeof call->dim);
    TW_TRY(match_side(&m, "input", p, op->in, call->in_desc, op->n_in, &p));
    if (*p == '>') p++;
    TW_TRY(match_side(&m, "output", p, op->out, call->out_desc, op->n_out, &p));
    *is_double = m.wide == (int)TW_F64;
    call->real = m.precision < 0 ? TW_F32 : (tw_dtype)m.precision;
    return TW_OK;
}
