/* What tells one sampler from another: its row of coefficients for a step, and how the update
 * operation uses it. A new sampler is one file with a tw_sampler_method and one row in the table of
 * coefficients.c. */
#ifndef TW_DIFFUSION_SAMPLERS_METHOD_H
#define TW_DIFFUSION_SAMPLERS_METHOD_H

#include <stdbool.h>

#include <tweedie/sampler.h>

#include "backend/op.h"

/* One step from t to p, in float64. */
typedef struct tw_sampler_step {
    double A, A_next;
    bool last;
} tw_sampler_step;

typedef struct tw_sampler_method {
    const char *name;
    /* Refuses options that the method cannot honour. */
    tw_status (*check)(tw_context *ctx, const tw_sampler_options *options);
    /* Fills the method's columns of `row` (coefficients.h); those that follow from A alone are
     * there already. */
    void (*coefficients)(const tw_sampler_options *options, const tw_sampler_step *step,
                         double *row);
    /* Sets attr->update's rule. */
    void (*attributes)(const tw_sampler_options *options, tw_op_attr *attr);
} tw_sampler_method;

/* Null for a number that is no kind. */
const tw_sampler_method *tw_sampler_method_of(tw_sampler_kind kind);

extern const tw_sampler_method tw_sampler_method_ddim, tw_sampler_method_ddpm;

#endif
