/* Plans of a network in the precision that an option names. */
#ifndef TW_GRAPH_PRECISION_H
#define TW_GRAPH_PRECISION_H

#include <tweedie/plan.h>

/* Refuses what is no precision; says once where the device takes another. */
tw_status tw_precision_check(tw_context *ctx, const char *what, tw_precision precision);

/* The format of a network's tensors. */
tw_dtype tw_precision_format(tw_precision precision);

void tw_precision_set(tw_plan_options *options, tw_precision precision);

#endif
