/* What the memory of a compiled plan is for. */
#ifndef TW_GRAPH_BUDGET_H
#define TW_GRAPH_BUDGET_H

#include <tweedie/plan.h>

/* Bytes. The first four are what the arena holds when it is fullest, and make up all of it. */
typedef struct tw_plan_budget {
    size_t kept;      /* tensors of the forward pass that the backward pass reads */
    size_t passing;   /* other tensors, gradients of activations among them */
    size_t workspace; /* of providers */
    size_t gaps;      /* between all these */
    size_t held;      /* constant operands in a provider's own layout */
    size_t inputs;    /* values from outside that the plan itself stores */
} tw_plan_budget;

/* Adds those of `plan` to `sum`. */
tw_status tw_plan_add_budget(const tw_plan *plan, tw_plan_budget *sum);

size_t tw_plan_budget_total(const tw_plan_budget *budget);

#endif
