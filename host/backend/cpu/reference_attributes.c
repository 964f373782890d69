/* What must hold between extents and attributes, and the scratch memory of each operation. */
#include <tweedie/schedule.h>

#include "backend/cpu/reference.h"
#include "core/context.h"
#include "core/philox.h"
#include "diffusion/coefficients.h"

static tw_status refuse(tw_context *ctx, const tw_ref_call *c, const char *why) {
    return tw_fail(ctx, TW_ERROR_INTERNAL, "%s: %s", tw_op_name(c->kind), why);
}

static tw_status check_conv(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    const int s = c->attr.conv.stride, pt = c->attr.conv.pad_top, pl = c->attr.conv.pad_left;
    const int pb = c->attr.conv.pad_bottom, pr = c->attr.conv.pad_right;
    if (s < 1 || pt < 0 || pl < 0 || pb < 0 || pr < 0)
        return refuse(ctx, c, "stride below 1 or padding below 0");
    if (d['H'] + pt + pb < d['J'] || d['W'] + pl + pr < d['K'])
        return refuse(ctx, c, "the window is larger than the padded image");
    if (d['P'] != (d['H'] + pt + pb - d['J']) / s + 1 ||
        d['Q'] != (d['W'] + pl + pr - d['K']) / s + 1)
        return refuse(ctx, c, "the output's extents do not follow from stride and padding");
    return TW_OK;
}

/* `count` columns from `first` on, of `all`. */
static bool has_columns(int64_t all, int64_t first, int64_t count) {
    return first >= 0 && first <= all && count <= all - first;
}

static tw_status check_group_norm(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    if (c->kind == TW_OP_GROUP_NORM) {
        const bool given = c->n_in > 4 && c->in_desc[4].rank,
                   made = c->n_out > 1 && c->out_desc[1].rank;
        if (given == made || given != (c->n_in > 5 && c->in_desc[5].rank) ||
            made != (c->n_out > 2 && c->out_desc[2].rank))
            return refuse(ctx, c, "mean and rstd are either given or results, both of them");
    }
    if (d['G'] < 1 || d['G'] != c->attr.norm.groups || d['C'] % d['G'])
        return refuse(ctx, c, "the groups do not divide the channels, or mean has other extents");
    if (d['D'] && !has_columns(d['D'], c->attr.norm.column, 2 * d['C']))
        return refuse(ctx, c, "scale and shift need 2C columns");
    return TW_OK;
}

static tw_status check_joined(tw_context *ctx, const tw_ref_call *c) {
    const bool split = c->kind == TW_OP_SPLIT;
    int64_t sum = 0;
    for (const char *l = "ABCDEFGH"; *l; l++) {
        const int at = (int)(l - "ABCDEFGH");
        if (at < (split ? c->n_out : c->n_in)) sum += c->dim[(int)*l];
    }
    if (sum != c->dim['Y'])
        return refuse(ctx, c, "the parts' last axes do not add up to the whole");
    return TW_OK;
}

static tw_status check_resample(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    const int64_t k = c->attr.resample.k;
    const bool up = c->kind == TW_OP_UPSAMPLE_NEAREST;
    if (k < 1) return refuse(ctx, c, "the factor is below 1");
    const int64_t big_h = up ? d['P'] : d['H'], small_h = up ? d['H'] : d['P'];
    const int64_t big_w = up ? d['Q'] : d['W'], small_w = up ? d['W'] : d['Q'];
    if (big_h / k != small_h || big_w / k != small_w)
        return refuse(ctx, c, "the image's extents do not follow from the factor");
    return TW_OK;
}

static tw_status check_attention(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    if (d['H'] != c->attr.attention.heads || d['C'] % d['H'])
        return refuse(ctx, c, "the heads do not divide the channels, or lse has other extents");
    if (d['T'] != d['.']) return refuse(ctx, c, "lse does not have the queries' extent");
    return TW_OK;
}

static tw_status check_update(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    const int rule = c->attr.update.rule, clip = c->attr.update.clip;
    const int prediction = c->attr.update.prediction;
    const bool threshold = c->kind == TW_OP_THRESHOLD;
    const int uncond = threshold ? 2 : 1;
    if (rule < TW_UPDATE_DDIM || rule > TW_UPDATE_LEARNED_RANGE || clip < TW_CLIP_NONE ||
        clip > TW_CLIP_DYNAMIC || prediction < TW_PREDICT_EPSILON || prediction > TW_PREDICT_V)
        return refuse(ctx, c, "unknown rule, clipping or prediction");
    if (d['M'] != (rule == TW_UPDATE_LEARNED_RANGE ? 2 : 1) * d['C'])
        return refuse(ctx, c, "the network's output does not have C (learned range: 2C) channels");
    if (d['L'] != TW_COEF_WIDTH) return refuse(ctx, c, "the table has another width");
    if (c->attr.update.guided && (c->n_in <= uncond || !c->in_desc[uncond].rank))
        return refuse(ctx, c, "guidance needs the unconditional output");
    if (!threshold && clip == TW_CLIP_DYNAMIC && (c->n_in < 5 || !c->in_desc[4].rank))
        return refuse(ctx, c, "dynamic clipping needs a limit");
    if (threshold && !(c->attr.update.quantile >= 0 && c->attr.update.quantile <= 1))
        return refuse(ctx, c, "the quantile is outside of 0..1");
    return TW_OK;
}

static bool probability(double p) {
    return p >= 0 && p <= 1;
}

tw_status tw_ref_check_attributes(tw_context *ctx, const tw_ref_call *c) {
    const int64_t *d = c->dim;
    switch (c->kind) {
    case TW_OP_CONV2D:
    case TW_OP_CONV2D_BWD_DATA:
    case TW_OP_CONV2D_BWD_WEIGHT:
        return check_conv(ctx, c);
    case TW_OP_GROUP_NORM:
    case TW_OP_GROUP_NORM_BWD:
        return check_group_norm(ctx, c);
    case TW_OP_ADD_VEC:
    case TW_OP_SUM_SPATIAL:
        return has_columns(d['V'], c->attr.vector.column, d['C'])
                   ? TW_OK
                   : refuse(ctx, c, "the vectors need C columns");
    case TW_OP_CONCAT:
    case TW_OP_SPLIT:
        return check_joined(ctx, c);
    case TW_OP_UPSAMPLE_NEAREST:
    case TW_OP_POOL:
        return check_resample(ctx, c);
    case TW_OP_ATTENTION:
    case TW_OP_ATTENTION_BWD:
        return check_attention(ctx, c);
    case TW_OP_SAMPLER_UPDATE:
    case TW_OP_THRESHOLD:
        return check_update(ctx, c);
    case TW_OP_ACT:
    case TW_OP_ACT_BWD:
        if (c->attr.act.kind < TW_ACT_SILU || c->attr.act.kind > TW_ACT_GELU)
            return refuse(ctx, c, "unknown activation");
        return TW_OK;
    case TW_OP_FOURIER_EMBED:
        return d['E'] == 2 * d['D'] ? TW_OK : refuse(ctx, c, "the output needs 2D columns");
    case TW_OP_REPEAT_BATCH:
        return d['M'] == 2 * d['N'] ? TW_OK : refuse(ctx, c, "the output needs 2N samples");
    case TW_OP_DROPOUT:
        if (!(c->attr.dropout.p >= 0 && c->attr.dropout.p < 1) ||
            c->attr.dropout.layer >= TW_PURPOSE_DROPOUT)
            return refuse(ctx, c, "probability outside of [0, 1), or too many layers");
        return TW_OK;
    case TW_OP_COND_DROP:
        return probability(c->attr.cond_drop.p) ? TW_OK
                                                : refuse(ctx, c, "probability outside of 0..1");
    case TW_OP_FLIP:
        return probability(c->attr.flip.p) ? TW_OK : refuse(ctx, c, "probability outside of 0..1");
    case TW_OP_SAMPLE_T:
        if (c->attr.sample_t.count < 1 || c->attr.sample_t.count > INT32_MAX)
            return refuse(ctx, c, "the number of steps is outside of 1..2^31-1");
        return TW_OK;
    case TW_OP_FORWARD_NOISE:
        if (c->attr.diffusion.prediction < TW_PREDICT_EPSILON ||
            c->attr.diffusion.prediction > TW_PREDICT_V)
            return refuse(ctx, c, "unknown prediction");
        return TW_OK;
    case TW_OP_STEP_TIME:
        if (c->attr.row.column < 0 || c->attr.row.column >= d['L'])
            return refuse(ctx, c, "the table has no such column");
        return TW_OK;
    default:
        return TW_OK;
    }
}

size_t tw_ref_workspace(const tw_ref_call *c) {
    const int64_t *d = c->dim;
    int64_t doubles = 0;
    switch (c->kind) {
    case TW_OP_GROUP_NORM:
        doubles = 5 * d['N'] * d['C'];
        break;
    case TW_OP_GROUP_NORM_BWD:
        doubles = 8 * d['N'] * d['C'];
        break;
    case TW_OP_ATTENTION:
        doubles = c->threads * d['~'];
        break;
    case TW_OP_ATTENTION_BWD:
        doubles = d['N'] * d['H'] * d['.'] + 2 * c->threads * (d['.'] > d['~'] ? d['.'] : d['~']);
        break;
    case TW_OP_THRESHOLD:
        doubles = c->threads * d['.'] * d['C'];
        break;
    case TW_OP_GLOBAL_NORM:
        doubles = (d['.'] + 4095) / 4096;
        break;
    default:
        break;
    }
    return (size_t)doubles * sizeof(double);
}
