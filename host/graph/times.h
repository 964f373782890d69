/* Where the time of a plan's runs goes, for the benchmark. */
#ifndef TW_GRAPH_TIMES_H
#define TW_GRAPH_TIMES_H

#include <stdio.h>

#include <tweedie/plan.h>

/* From here on runs measure each provider call with the calling thread's clock; again: from zero.
 */
tw_status tw_plan_start_times(tw_plan *plan);

/* The calls by operation and shape, slowest first, `rows` of them: milliseconds per run, calls,
 * share, GFLOP/s. */
tw_status tw_plan_write_times(const tw_plan *plan, int rows, FILE *file);

#endif
