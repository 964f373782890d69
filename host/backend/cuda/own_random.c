/* Operations that draw random numbers. */
#include <tweedie/schedule.h>

#include "backend/cuda/own.h"
#include "core/philox.h"

_Static_assert((int)TW_PURPOSE_INITIAL == (int)TWK_NOISE_INITIAL &&
                   (int)TW_PURPOSE_SAMPLER == (int)TWK_NOISE_SAMPLER &&
                   (int)TW_PURPOSE_TRAIN_T == (int)TWK_NOISE_TRAIN_T &&
                   (int)TW_PURPOSE_TRAIN_NOISE == (int)TWK_NOISE_TRAIN_NOISE &&
                   (int)TW_PURPOSE_COND_DROP == (int)TWK_NOISE_COND_DROP &&
                   (int)TW_PURPOSE_FLIP == (int)TWK_NOISE_FLIP &&
                   (int)TW_PURPOSE_DROPOUT == (int)TWK_NOISE_DROPOUT,
               "purposes are counted alike");

tw_status tw_own_noise_fill(const tw_own_call *c) {
    const twk_noise_fill_args a = {.batch = c->op.dim['N'],
                                   .elements = c->op.dim['.'],
                                   .out = c->op.out[0],
                                   .format = tw_own_format(c->op.real),
                                   .kind = TWK_FILL_NORMAL,
                                   .purpose = c->op.attr.noise.purpose,
                                   .device_step = tw_own_step(c->op.in[0]),
                                   .scale = (float)c->op.attr.noise.scale,
                                   .noise = tw_own_noise(c->op.in[0])};
    return tw_own_done(c, twk_noise_fill(&a, c->stream));
}

tw_status tw_own_sample_t(const tw_own_call *c) {
    const twk_times_args a = {.batch = c->op.dim['N'],
                              .steps = c->op.attr.sample_t.count,
                              .antithetic = c->op.attr.sample_t.antithetic,
                              .out = c->op.out[0],
                              .device_step = tw_own_step(c->op.in[0]),
                              .noise = tw_own_noise(c->op.in[0])};
    return tw_own_done(c, twk_draw_times(&a, c->stream));
}

tw_status tw_own_cond_drop(const tw_own_call *c) {
    const twk_drop_labels_args a = {.batch = c->op.dim['N'],
                                    .label = c->op.in[0],
                                    .out = c->op.out[0],
                                    .null_label = c->op.attr.cond_drop.null_label,
                                    .probability = tw_own_probability(c->op.attr.cond_drop.p),
                                    .device_step = tw_own_step(c->op.in[1]),
                                    .noise = tw_own_noise(c->op.in[1])};
    return tw_own_done(c, twk_drop_labels(&a, c->stream));
}

tw_status tw_own_flip(const tw_own_call *c) {
    const twk_mirror_args a = {.batch = c->op.dim['N'],
                               .h = c->op.dim['H'],
                               .w = c->op.dim['W'],
                               .channels = c->op.dim['C'],
                               .format = tw_own_format(c->op.real),
                               .x = c->op.in[0],
                               .y = c->op.out[0],
                               .probability = tw_own_probability(c->op.attr.flip.p),
                               .device_step = tw_own_step(c->op.in[1]),
                               .noise = tw_own_noise(c->op.in[1])};
    return tw_own_done(c, twk_mirror(&a, c->stream));
}

_Static_assert((int)TW_PREDICT_EPSILON == (int)TWK_PREDICT_EPSILON &&
                   (int)TW_PREDICT_SAMPLE == (int)TWK_PREDICT_SAMPLE &&
                   (int)TW_PREDICT_V == (int)TWK_PREDICT_V,
               "predictions are counted alike");

const char *tw_own_forward_noise_refuse(const tw_own_call *c) {
    return c->op.in_desc[2].dtype == TW_F32 ? NULL : "a table in another format than float32";
}

tw_status tw_own_forward_noise(const tw_own_call *c) {
    const float *table = c->op.in[2];
    const twk_noising_args a = {.batch = c->op.dim['N'],
                                .elements = c->op.dim['.'],
                                .x0_format = TWK_F32,
                                .xt_format = tw_own_format(c->op.real),
                                .x0 = c->op.in[0],
                                .x_t = c->op.out[0],
                                .target = c->op.out[1],
                                .prediction = (twk_prediction)c->op.attr.diffusion.prediction,
                                .time = c->op.in[1],
                                .a = table,
                                .one_minus_a = table + 1,
                                .n_times = c->op.dim['T'],
                                .table_stride = 2,
                                .purpose = TWK_NOISE_TRAIN_NOISE,
                                .device_step = tw_own_step(c->op.in[3]),
                                .noise = tw_own_noise(c->op.in[3])};
    return tw_own_done(c, twk_forward_noising(&a, c->stream));
}
