/* The inside of a plan, shared by the files of graph/. Nodes stand in program order, which is also
 * the order of execution; no address is dereferenced here. */
#ifndef TW_GRAPH_INTERNAL_H
#define TW_GRAPH_INTERNAL_H

#include <stdbool.h>

#include <tweedie/plan.h>

#include "backend/backend.h"
#include "core/context.h"

typedef enum tw_value_kind {
    TW_VALUE_INTERMEDIATE, /* lives in the arena between its first and last use */
    TW_VALUE_OUTSIDE,      /* storage bound by the caller, or the plan's own for unbound ones */
    TW_VALUE_VIEW          /* part of another value's memory */
} tw_value_kind;

typedef struct tw_value_info {
    char *name; /* of outside values, and of others that have one; or null */
    tw_desc desc;
    tw_value_kind kind;
    tw_value root;      /* itself unless a view; never a view */
    size_t root_offset; /* bytes from the root's start */
    bool writable, parameter, wanted, kept;
    tw_value gradient; /* TW_NONE until tw_plan_backward */
    tw_value slope_of; /* whose gradient it is, or a part of it; TW_NONE: nobody's */
    void *address;     /* after compilation; outside values: as bound */
    bool owned;
    tw_value origin; /* of a value that is made again: of which; else TW_NONE */
    /* Set by compilation. */
    bool needed, virtual_; /* virtual: inside a claimed region, never stored */
    int uses;
    int first, last; /* steps */
    size_t offset;   /* in the arena */
} tw_value_info;

typedef struct tw_node {
    tw_op_kind kind;
    tw_op_attr attr;
    int n_in, n_out;
    tw_value in[TW_OP_MAX_IN];
    tw_value out[TW_OP_MAX_OUT];
    bool live;
    int block;  /* of a model; 0: none */
    int origin; /* the node that this one is done again for; -1: none */
} tw_node;

/* One provider call of a run. */
typedef struct tw_step {
    tw_kernel kernel;
    const tw_provider *provider;
    int first_node;
    int n_slots;
    tw_value *values; /* by slot */
    void **addresses; /* by slot */
    size_t workspace; /* offset in the arena */
} tw_step;

struct tw_plan {
    tw_context *ctx;
    tw_backend *backend;
    tw_dtype precision, wide; /* wide: TW_F32 where precision has 16 bits, else the same */
    bool tf32, compiled;
    unsigned fusions; /* of tw_fusion: those that may be done */
    tw_recompute recompute;
    int block, n_blocks; /* the one that is being described, 0 outside; those so far */
    bool holds, stale;   /* parameters are constant; they changed since the last run */
    tw_status status;    /* the first failure of the builder */
    char *error;
    tw_value_info *values;
    int n_values, cap_values;
    tw_node *nodes;
    int n_nodes, cap_nodes;
    int forward_nodes; /* those before the gradient's; 0: there is none */
    tw_step *steps;
    int n_steps;
    void *arena;
    size_t arena_bytes, unshared_bytes, owned_bytes;
    size_t held_bytes; /* of owned_bytes: what kernels made of constant operands */
    double *seconds;   /* of each step in all timed runs; null: runs are not timed */
    int64_t timed_runs;
    bool ran, unrecordable; /* once as it should; recording a run failed */
    void *recording;        /* the backend's, of a whole run; null before the second one */
};

/* --- recompute.c: values of the forward pass that the backward pass makes again --- */

typedef struct tw_remake {
    tw_plan *plan;
    int n_nodes, n_values; /* of the forward pass */
    int *group;            /* by node: those done again together have a number; 0: not again */
    bool *done;            /* by group */
    int *maker;            /* by value: its node; -1: from outside */
    bool *again;           /* by value */
    tw_value *copy;        /* by value: what stands for it in the backward pass, once there */
} tw_remake;

/* False, with the plan's failure recorded, without memory. */
bool tw_remake_begin(tw_remake *r, tw_plan *plan);
/* Lets the nodes from index `from` on read what is made again, which comes before them. */
void tw_remake_operands(tw_remake *r, int from);
void tw_remake_end(tw_remake *r);

/* Records a builder failure unless there was one already. Returns TW_NONE for convenience. */
tw_value tw_plan_fail(tw_plan *plan, tw_status status, const char *format, ...) TW_PRINTF(3, 4);

/* True if the plan can be extended and `v` is one of its values; else records why not. */
bool tw_plan_usable(tw_plan *plan, const char *what, tw_value v);

/* A new intermediate value; TW_NONE on failure. */
tw_value tw_plan_new(tw_plan *plan, tw_desc desc);
tw_value tw_plan_outside(tw_plan *plan, const char *name, tw_desc desc, bool writable);

/* Appends a node with the given operands (TW_NONE: absent). */
void tw_plan_emit(tw_plan *plan, tw_op_kind kind, const tw_op_attr *attr, int n_in,
                  const tw_value *in, int n_out, const tw_value *out);

/* Validates rank, extents and size of a shape from outside. */
bool tw_desc_make(tw_dtype dtype, int rank, const int64_t *shape, tw_desc *out);

static inline const tw_desc *tw_plan_desc(const tw_plan *plan, tw_value v) {
    return &plan->values[v].desc;
}

/* Places the arena's tensors; see memory.c. `n` items, each with bytes, first and last step. */
typedef struct tw_memory_item {
    size_t bytes, offset;
    int first, last;
} tw_memory_item;
tw_status tw_memory_place(tw_context *ctx, tw_memory_item *items, int n, size_t *total);

/* The arena's unit. */
#define TW_MEMORY_ALIGNMENT ((size_t)256)
static inline size_t tw_memory_padded(size_t bytes) {
    return (bytes + TW_MEMORY_ALIGNMENT - 1) & ~(TW_MEMORY_ALIGNMENT - 1);
}

/* Whether a compiled plan stores the value in its arena. */
static inline bool tw_value_in_arena(const tw_value_info *info) {
    return info->kind == TW_VALUE_INTERMEDIATE && info->first >= 0 && !info->virtual_;
}

/* tw_plan_run that calls `watch` after each step; another status than TW_OK ends the run. */
typedef tw_status (*tw_step_watch)(void *user, tw_plan *plan, int step);
tw_status tw_plan_run_watched(tw_plan *plan, tw_step_watch watch, void *user);

/* --- fusion.c: which operations may be one region --- */

static inline bool tw_plan_fuses(const tw_plan *plan, tw_fusion fusion) {
    return plan->fusions & fusion;
}
/* Whether two operations, the second of which takes the first's output, may be joined. */
bool tw_plan_links(const tw_plan *plan, tw_op_kind first, tw_op_kind second);
/* Gives every reader of a joint or upsampled tensor one of its own, where all of them read the
 * parts or the small image in its place: `reads` says so of a node and a reader of its result. */
typedef tw_status (*tw_reads_through)(tw_plan *plan, int node, int reader, bool *does);
tw_status tw_plan_spread(tw_plan *plan, tw_reads_through reads);

/* Floating-point operations of a node, 2 a multiply-add; 0 for those bound by memory. */
double tw_node_flops(const tw_plan *plan, const tw_node *node);

#endif
