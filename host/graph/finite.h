/* Which value of a plan first stopped being a finite number. */
#ifndef TW_GRAPH_FINITE_H
#define TW_GRAPH_FINITE_H

#include <tweedie/plan.h>

/* Runs the plan, looking at each value once it is read or made; the run ends at the first that
 * holds a NaN or an infinity: *bad, or TW_NONE after a whole run. Slow: all is copied to the host.
 * What the plan adds up outside of it is then to be thrown away. */
tw_status tw_plan_find_not_finite(tw_plan *plan, tw_value *bad);

/* The value in words, such as "gradient of conv_in.weight" or "act of layers.0". */
void tw_plan_describe(const tw_plan *plan, tw_value v, char *out, size_t size);

#endif
