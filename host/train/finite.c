#include "graph/finite.h"

#include <stdio.h>
#include <string.h>

#include "train/internal.h"

static tw_status search(tw_trainer *t, char *out, size_t size) {
    TW_TRY(tw_trainer_rewind(t));
    for (int64_t i = 0; i < t->options.accumulate; i++) {
        tw_value bad;
        TW_TRY(tw_trainer_feed(t, t->loader, &t->micro));
        TW_TRY(tw_plan_find_not_finite(t->micro.plan, &bad));
        if (bad == TW_NONE) continue;
        tw_plan_describe(t->micro.plan, bad, out, size);
        return TW_OK;
    }
    /* Each number is finite, but not the sum of their squares. */
    snprintf(out, size, "norm of the gradient");
    return TW_OK;
}

tw_status tw_trainer_find_not_finite(tw_trainer *t, char *out, size_t size) {
    if (t->step < 1)
        return tw_fail(t->ctx, TW_ERROR_ARGUMENT, "trainer: no step has been done yet");
    out[0] = '\0';
    t->step--;
    const tw_status s = search(t, out, size);
    t->step++;
    const tw_status back = tw_trainer_rewind(t);
    return s == TW_OK ? back : s;
}
