#include <math.h>
#include <string.h>

#include <tweedie/schedule.h>

#include "core/context.h"
#include "diffusion/schedule.h"

static const char *const spacing_names[] = {"leading",   "trailing", "linspace", "uniform",
                                            "quadratic", "ddpm",     "custom"};

tw_status tw_spacing_parse(const char *name, tw_spacing *out) {
    for (int i = TW_SPACING_LEADING; name && out && i <= TW_SPACING_DDPM; i++)
        if (strcmp(name, spacing_names[i]) == 0) {
            *out = (tw_spacing)i;
            return TW_OK;
        }
    return tw_fail(NULL, TW_ERROR_ARGUMENT,
                   "time-step spacing \"%s\" is not known, expected leading, trailing, linspace, "
                   "uniform, quadratic or ddpm",
                   name ? name : "");
}

const char *tw_spacing_name(tw_spacing spacing) {
    return spacing >= TW_SPACING_LEADING && spacing <= TW_SPACING_CUSTOM ? spacing_names[spacing]
                                                                         : "unknown";
}

/* round(a / b), halves to the even neighbour as numpy rounds; exact for a >= 0, b > 0. */
static int64_t divide_half_even(int64_t a, int64_t b) {
    const int64_t q = a / b, r = a % b;
    if (2 * r > b || (2 * r == b && q % 2 != 0)) return q + 1;
    return q;
}

/* Entry i, counted from the data's end. The double arithmetic is numpy's, so that published lists
 * come out equal where a product falls on a half or a whole number. */
static int64_t entry(tw_spacing spacing, int64_t T, int64_t S, int64_t offset, int64_t i) {
    switch (spacing) {
    case TW_SPACING_LEADING:
        return i * (T / S) + offset;
    case TW_SPACING_TRAILING:
        return divide_half_even(T * (i + 1), S) - 1;
    case TW_SPACING_LINSPACE:
        if (S == 1) return 0;
        if (i == S - 1) return T - 1;
        return (int64_t)rint((double)i * ((double)(T - 1) / (double)(S - 1)));
    case TW_SPACING_QUADRATIC: {
        const double end = sqrt((double)T * 0.8);
        const double root = S == 1 ? 0.0 : i == S - 1 ? end : (double)i * (end / (double)(S - 1));
        return (int64_t)(root * root);
    }
    case TW_SPACING_DDPM:
        return T * (i + 1) / S - 1;
    case TW_SPACING_UNIFORM:
    default:
        return i * (T / S);
    }
}

tw_status tw_timesteps(tw_context *ctx, tw_spacing spacing, int64_t training_steps,
                       int64_t sampling_steps, int64_t steps_offset, int64_t *out, int64_t *count) {
    const int64_t T = training_steps, S = sampling_steps;
    if (!out || !count)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "tw_timesteps: no place for the list");
    *count = 0;
    if (spacing < TW_SPACING_LEADING || spacing > TW_SPACING_DDPM)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "tw_timesteps: spacing %d makes no list",
                       (int)spacing);
    if (T < 1 || T > TW_SCHEDULE_MAX_STEPS)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "%lld training steps, expected 1 to %d",
                       (long long)T, TW_SCHEDULE_MAX_STEPS);
    if (S < 1 || S > T)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "%lld sampling steps, expected 1 to %lld, the training steps", (long long)S,
                       (long long)T);
    if (spacing == TW_SPACING_LEADING) {
        const int64_t most = T - 1 - (S - 1) * (T / S);
        if (steps_offset < 0 || steps_offset > most)
            return tw_fail(ctx, TW_ERROR_ARGUMENT,
                           "steps offset %lld with %lld of %lld steps, expected 0 to %lld",
                           (long long)steps_offset, (long long)S, (long long)T, (long long)most);
    }
    int64_t n = 0;
    for (int64_t i = S - 1; i >= 0; i--) {
        const int64_t t = entry(spacing, T, S, steps_offset, i);
        if (n == 0 || t < out[n - 1]) out[n++] = t;
    }
    *count = n;
    return TW_OK;
}
