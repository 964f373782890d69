/* Where the time of a plan's runs goes, for the benchmarks. */
#ifndef TW_GRAPH_TIMES_H
#define TW_GRAPH_TIMES_H

#include <stdio.h>

#include <tweedie/plan.h>

#include "backend/op.h"

/* What the cost of an operation is counted under. */
typedef enum tw_op_class {
    TW_CLASS_OTHER, /* embeddings */
    TW_CLASS_CONVOLUTION,
    TW_CLASS_LINEAR,
    TW_CLASS_ATTENTION,
    TW_CLASS_NORM,
    TW_CLASS_ELEMENTWISE, /* and what only moves data */
    TW_CLASS_LOSS,        /* and noise, with what else training draws */
    TW_CLASS_SAMPLER,
    TW_CLASS_OPTIMIZER,
    TW_CLASS_COUNT
} tw_op_class;

tw_op_class tw_op_class_of(tw_op_kind kind);
/* "convolution", "elementwise" ...; never null. */
const char *tw_op_class_name(tw_op_class kind);

/* Seconds on the backend's clock: on the CPU the time that the calling thread spent on a processor,
 * so that other programs do not count. */
double tw_times_clock(tw_context *ctx);
/* That clock in words. */
const char *tw_times_clock_name(const tw_context *ctx);

/* From here on runs measure each provider call with that clock; again: from zero. */
tw_status tw_plan_start_times(tw_plan *plan);

typedef struct tw_class_cost {
    int calls;      /* of providers, in one run */
    double flops;   /* of one run */
    double seconds; /* of all timed runs; 0: none was timed */
} tw_class_cost;

/* The calls by class. One that executes several operations counts whole as the class of the one
 * with the most arithmetic, or else of the first. */
tw_status tw_plan_get_classes(const tw_plan *plan, tw_class_cost out[TW_CLASS_COUNT]);

/* The calls by operation and shape, slowest first, `rows` of them: milliseconds per run, calls,
 * share, GFLOP/s. */
tw_status tw_plan_write_times(const tw_plan *plan, int rows, FILE *file);

#endif
