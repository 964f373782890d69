/* Builder calls that only this library uses: diffusion and optimizer operations. They follow
 * plan.h's rules: a failure sticks in the plan, and later calls do nothing. Operand contracts stand
 * in backend/op.h. */
#ifndef TW_GRAPH_BUILDER_H
#define TW_GRAPH_BUILDER_H

#include <tweedie/plan.h>

#include "backend/op.h"

/* Before compilation: parameters keep their values from run to run, so that a provider may keep
 * them in a layout of its own. Other values must be announced before the next run. */
void tw_plan_hold_parameters(tw_plan *plan);
void tw_plan_parameters_changed(tw_plan *plan);

/* tw_plan_write of what the next run reads, which may travel while the last one computes. */
tw_status tw_plan_feed(tw_plan *plan, tw_value x, const void *host, size_t bytes);
/* Where a value from outside of a compiled plan lies; null with the error recorded. */
void *tw_plan_address(tw_plan *plan, tw_value x);

/* Gives a value that has none a name, for messages. */
void tw_plan_name(tw_plan *plan, tw_value v, const char *name);

/* The operations between are a block, which TW_RECOMPUTE_BLOCKS makes again as a whole; blocks do
 * not nest. */
void tw_plan_begin_block(tw_plan *plan);
void tw_plan_end_block(tw_plan *plan);

/* Columns of a matrix, from `first` on. No two operations may read the same ones. */
typedef struct tw_columns {
    tw_value of;
    int64_t first;
} tw_columns;
/* As tw_plan_add_vector and tw_plan_group_norm, with columns in the place of a matrix. */
tw_value tw_build_add_columns(tw_plan *plan, tw_value x, tw_columns v);
tw_value tw_build_group_norm(tw_plan *plan, tw_value x, tw_value gamma, tw_value beta,
                             tw_columns scale_shift, tw_norm_options options);

/* Standard normals times `scale`, of the plan's precision. */
tw_value tw_build_noise(tw_plan *plan, tw_value rng, int rank, const int64_t *shape,
                        uint32_t purpose, double scale);
/* [n] times for the network: column `column` of the step's row. */
tw_value tw_build_step_time(tw_plan *plan, tw_value table, tw_value rng, int64_t n, int column);
/* Updates `x` (a state) in place. `x0`, if not null, gets the predicted x0. */
void tw_build_sampler_update(tw_plan *plan, tw_value x, tw_value m, tw_value m_uncond,
                             tw_value table, tw_value rng, tw_value limit, const tw_op_attr *attr,
                             tw_value *x0);
/* The dynamic threshold of every sample, [N]. */
tw_value tw_build_threshold(tw_plan *plan, tw_value x, tw_value m, tw_value m_uncond,
                            tw_value table, tw_value rng, const tw_op_attr *attr);
void tw_build_next_step(tw_plan *plan, tw_value rng);
/* Copies a value into a state of the same number of elements, converting the format. */
void tw_build_copy(tw_plan *plan, tw_value source, tw_value state);
void tw_build_fill(tw_plan *plan, tw_value state, double value);

/* Time steps of a training batch, int32[n]. */
tw_value tw_build_sample_t(tw_plan *plan, tw_value rng, int64_t n, int64_t steps, bool antithetic);
tw_value tw_build_cond_drop(tw_plan *plan, tw_value labels, tw_value rng, double p,
                            int32_t null_label);
tw_value tw_build_flip(tw_plan *plan, tw_value x, tw_value rng, double p);
/* `table` is [T,2]: A_t and 1 - A_t. x_t is of the plan's precision, the target as x0. */
void tw_build_forward_noise(tw_plan *plan, tw_value x0, tw_value t, tw_value table, tw_value rng,
                            int prediction, tw_value *x_t, tw_value *target);

/* Norm [1] of the flat vector `g`. */
tw_value tw_build_global_norm(tw_plan *plan, tw_value g);
/* p, m, v, count, ema and copy are states; the last two may be TW_NONE. copy gets p, rounded. */
void tw_build_adamw(tw_plan *plan, tw_value g, tw_value norm, tw_value hyper, tw_value p,
                    tw_value m, tw_value v, tw_value count, tw_value ema, tw_value copy);

#endif
