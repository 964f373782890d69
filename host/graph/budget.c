#include "graph/budget.h"

#include "graph/internal.h"

/* Whether the value outlives the forward pass, because the backward pass reads it. */
static bool is_kept(const tw_plan *plan, const tw_value_info *info) {
    return plan->steps[info->first].first_node < plan->forward_nodes &&
           (info->last == plan->n_steps ||
            plan->steps[info->last].first_node >= plan->forward_nodes);
}

/* What lies in the arena while a step runs. */
static tw_plan_budget at_step(const tw_plan *plan, int step) {
    tw_plan_budget live = {.workspace = tw_memory_padded(plan->steps[step].kernel.workspace)};
    for (int v = 0; v < plan->n_values; v++) {
        const tw_value_info *info = &plan->values[v];
        if (!tw_value_in_arena(info) || info->first > step || info->last < step) continue;
        *(is_kept(plan, info) ? &live.kept : &live.passing) +=
            tw_memory_padded(tw_desc_bytes(&info->desc));
    }
    return live;
}

size_t tw_plan_budget_total(const tw_plan_budget *b) {
    return b->kept + b->passing + b->workspace + b->gaps + b->held + b->inputs;
}

tw_status tw_plan_add_budget(const tw_plan *plan, tw_plan_budget *sum) {
    if (!plan || !plan->compiled)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: budget: the plan is not compiled");
    tw_plan_budget fullest = {0};
    size_t held = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        const tw_plan_budget live = at_step(plan, i);
        if (tw_plan_budget_total(&live) > tw_plan_budget_total(&fullest)) fullest = live;
        held += plan->steps[i].kernel.held;
    }
    sum->kept += fullest.kept;
    sum->passing += fullest.passing;
    sum->workspace += fullest.workspace;
    sum->gaps += plan->arena_bytes - tw_plan_budget_total(&fullest);
    sum->held += held;
    sum->inputs += plan->owned_bytes - held;
    return TW_OK;
}
