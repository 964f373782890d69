/* A sampler's step. The table's rows are the kernels' own (diffusion/coefficients.h). */
#include "backend/cuda/own.h"
#include "diffusion/coefficients.h"

#define AT(row, member, column)                                                                    \
    _Static_assert(offsetof(row, member) == (column) * sizeof(float), "the column of " #member)
AT(twk_ddim_row, a_t, TW_COEF_A);
AT(twk_ddim_row, one_minus_a_t, TW_COEF_1MA);
AT(twk_ddim_row, one_minus_ratio, TW_COEF_1MRATIO);
AT(twk_ddim_row, a_p, TW_COEF_AP);
AT(twk_ddim_row, one_minus_a_p, TW_COEF_1MAP);
AT(twk_ddim_row, eta, TW_COEF_ETA);
AT(twk_ddim_row, noise_step, TW_COEF_STEP);
AT(twk_update_row, dx, TW_COEF_X0_X - TW_COEF_GENERAL);
AT(twk_update_row, dp[0], TW_COEF_X0_M - TW_COEF_GENERAL);
AT(twk_update_row, dp[1], TW_COEF_X0_U - TW_COEF_GENERAL);
AT(twk_update_row, cx, TW_COEF_X - TW_COEF_GENERAL);
AT(twk_update_row, cy, TW_COEF_X0 - TW_COEF_GENERAL);
AT(twk_update_row, cz, TW_COEF_Z - TW_COEF_GENERAL);
AT(twk_update_row, clip, TW_COEF_CLIP - TW_COEF_GENERAL);
AT(twk_update_row, noise_step, TW_COEF_GENERAL_STEP - TW_COEF_GENERAL);
AT(twk_update_row, log_large, TW_COEF_LOGVAR_MAX - TW_COEF_GENERAL);
AT(twk_update_row, log_small, TW_COEF_LOGVAR_MIN - TW_COEF_GENERAL);

const char *tw_own_table_refuse(const tw_own_call *c) {
    const int table = c->op.kind == TW_OP_SAMPLER_UPDATE ? 2
                      : c->op.kind == TW_OP_THRESHOLD    ? 3
                                                         : 0;
    return c->op.in_desc[table].dtype == TW_F32 ? NULL : "a table in another format than float32";
}

/* The network's output, apart where mean and variance lie side by side in every pixel. */
typedef struct outputs {
    const void *m, *m_uncond, *variance;
} outputs;

static int64_t count_of(const tw_own_call *c) {
    return c->op.dim['N'] * c->op.dim['.'] * c->op.dim['C'];
}

static bool is_learned(const tw_own_call *c) {
    return c->op.attr.update.rule == TW_UPDATE_LEARNED_RANGE;
}

size_t tw_own_update_workspace(const tw_own_call *c) {
    return is_learned(c) ? 3 * (size_t)count_of(c) * tw_dtype_size(c->op.real) : 0;
}

static tw_status outputs_of(const tw_own_call *c, int first, outputs *o) {
    *o = (outputs){.m = c->op.in[first],
                   .m_uncond = c->op.attr.update.guided ? c->op.in[first + 1] : NULL};
    if (!is_learned(c)) return TW_OK;
    const int64_t count = count_of(c), channels = c->op.dim['C'], rows = count / channels;
    const size_t bytes = (size_t)count * tw_dtype_size(c->op.real);
    const twk_format format = tw_own_format(c->op.real);
    char *mean = c->workspace, *variance = mean + bytes, *uncond = variance + bytes;
    TW_OWN_TRY(c, twk_split(format, rows, channels, channels, o->m, mean, variance, c->stream));
    if (o->m_uncond) {
        TW_OWN_TRY(
            c, twk_split(format, rows, channels, channels, o->m_uncond, uncond, NULL, c->stream));
        o->m_uncond = uncond;
    }
    o->m = mean;
    o->variance = variance;
    return TW_OK;
}

static twk_ddim_args ddim(const tw_own_call *c, const outputs *o, const void *x, const float *table,
                          const void *rng) {
    return (twk_ddim_args){.batch = c->op.dim['N'],
                           .elements = count_of(c) / c->op.dim['N'],
                           .x_format = TWK_F32,
                           .x = x,
                           .m_format = tw_own_format(c->op.real),
                           .m = o->m,
                           .m_uncond = o->m_uncond,
                           .guidance = (float)c->op.attr.update.guidance,
                           .prediction = (twk_prediction)c->op.attr.update.prediction,
                           .rows = (const twk_ddim_row *)table,
                           .n_rows = c->op.dim['S'],
                           .row_stride = TW_COEF_WIDTH,
                           .counter = tw_own_step(rng),
                           .noise = tw_own_noise(rng)};
}

_Static_assert((int)TW_CLIP_NONE == (int)TWK_CLIP_NONE &&
                   (int)TW_CLIP_RANGE == (int)TWK_CLIP_FIXED &&
                   (int)TW_CLIP_DYNAMIC == (int)TWK_CLIP_DYNAMIC,
               "clippings are counted alike");

static tw_status ddim_update(const tw_own_call *c, const outputs *o, const float *threshold) {
    twk_ddim_args a = ddim(c, o, c->op.out[0], c->op.in[2], c->op.in[3]);
    a.x_out = c->op.out[0];
    a.x0_out = c->op.n_out > 1 ? c->op.out[1] : NULL;
    a.clip_mode = (twk_clip)c->op.attr.update.clip;
    a.clip = (float)c->op.attr.update.clip_range;
    a.threshold = threshold;
    a.rederive_epsilon = c->op.attr.update.rederive_epsilon;
    return tw_own_done(c, twk_ddim_update(&a, c->stream));
}

/* Clipping by a constant stands in the row, as guidance and the prediction's kind do. */
static tw_status general_update(const tw_own_call *c, const outputs *o, const float *threshold) {
    const float *table = c->op.in[2];
    const twk_update_args a = {.batch = c->op.dim['N'],
                               .elements = count_of(c) / c->op.dim['N'],
                               .x = c->op.out[0],
                               .x_out = c->op.out[0],
                               .y_out = c->op.n_out > 1 ? c->op.out[1] : NULL,
                               .p_format = tw_own_format(c->op.real),
                               .p = {o->m, o->m_uncond},
                               .variance = o->variance,
                               .threshold = threshold,
                               .rows = (const twk_update_row *)(table + TW_COEF_GENERAL),
                               .n_rows = c->op.dim['S'],
                               .row_stride = TW_COEF_WIDTH,
                               .counter = tw_own_step(c->op.in[3]),
                               .noise = tw_own_noise(c->op.in[3])};
    return tw_own_done(c, twk_sampler_update(&a, c->stream));
}

tw_status tw_own_sampler_update(const tw_own_call *c) {
    const bool dynamic = c->op.attr.update.clip == TW_CLIP_DYNAMIC;
    const float *threshold = dynamic ? c->op.in[4] : NULL;
    outputs o;
    TW_TRY(outputs_of(c, 0, &o));
    return c->op.attr.update.rule == TW_UPDATE_DDIM ? ddim_update(c, &o, threshold)
                                                    : general_update(c, &o, threshold);
}

tw_status tw_own_threshold(const tw_own_call *c) {
    outputs o;
    TW_TRY(outputs_of(c, 1, &o));
    twk_ddim_args a = ddim(c, &o, c->op.in[0], c->op.in[3], c->op.in[4]);
    a.x_out = c->op.out[0]; /* not looked at */
    return tw_own_done(c, twk_dynamic_threshold(&a, (float)c->op.attr.update.quantile,
                                                (float)c->op.attr.update.max_limit, c->op.out[0],
                                                c->stream));
}

tw_status tw_own_step_time(const tw_own_call *c) {
    return tw_own_done(c, twk_table_entry(c->op.in[0], c->op.dim['S'], c->op.dim['L'],
                                          c->op.attr.row.column, tw_own_step(c->op.in[1]),
                                          c->op.dim['N'], c->op.out[0], c->stream));
}

tw_status tw_own_next_step(const tw_own_call *c) {
    return tw_own_done(c, twk_counter_add((uint32_t *)c->op.out[0] + 4, 1, c->stream));
}
