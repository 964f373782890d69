/* The inside of the provider "cpu-onednn", the only one that knows oneDNN.
 *
 * A kernel is a list of primitives (jobs) that run one after the other. Their operands are slots of
 * the region or places in the kernel's workspace. */
#ifndef TW_BACKEND_CPU_ONEDNN_H
#define TW_BACKEND_CPU_ONEDNN_H

#include <dnnl.h>

#include "backend/backend.h"

#define TW_DNNL_ARGS 8
#define TW_DNNL_JOBS 4
/* In place of a slot: the workspace, and memory that lasts from run to run. */
#define TW_DNNL_WORKSPACE (-1)
#define TW_DNNL_HELD (-2)

/* An argument of a primitive: an operand of the region, or a place in memory of the kernel's. */
typedef struct tw_dnnl_binding {
    int name, slot;
    size_t offset;
    dnnl_memory_t memory;
} tw_dnnl_binding;

typedef struct tw_dnnl_job {
    dnnl_primitive_t primitive;
    int n;
    bool once; /* only when parameters have changed */
    tw_dnnl_binding args[TW_DNNL_ARGS];
} tw_dnnl_job;

/* Weights O,KH,KW,C of slot `from` turned by half a circle and with inputs and outputs exchanged,
 * C,KH,KW,O, at `offset` of the workspace before the jobs run; o = 0: none. */
typedef struct tw_dnnl_turned {
    int from;
    size_t offset;
    int64_t o, kh, kw, c;
} tw_dnnl_turned;

typedef struct tw_dnnl_state {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int n_jobs;
    tw_dnnl_job jobs[TW_DNNL_JOBS];
    size_t workspace, held_bytes;
    void *held;
    /* The bias' gradient of a matrix product: sums over the rows of `sum_from`; -1: none. */
    int sum_from, sum_to;
    int64_t rows, columns;
    tw_dnnl_turned turned;
    int threads;
} tw_dnnl_state;

/* What prepare knows while it builds. */
typedef struct tw_dnnl_builder {
    tw_backend *backend;
    const tw_region *region;
    const tw_region_op *op;
    const int64_t *dim;
    tw_dnnl_state *state;
    int claimed; /* operations, the fused ones included */
} tw_dnnl_builder;

#define TW_DNNL_TRY(call)                                                                          \
    do {                                                                                           \
        dnnl_status_t dnnl_try_status_ = (call);                                                   \
        if (dnnl_try_status_ != dnnl_success) return dnnl_try_status_;                             \
    } while (0)

/* Descriptions of plain memory. */
dnnl_status_t tw_dnnl_plain(dnnl_memory_desc_t *md, int rank, const dnnl_dims_t dims,
                            const dnnl_dims_t strides);
dnnl_status_t tw_dnnl_vector(dnnl_memory_desc_t *md, int64_t n);

/* Appends a primitive; its operands are bound afterwards. */
dnnl_status_t tw_dnnl_add_job(tw_dnnl_state *s, const_dnnl_primitive_desc_t pd, tw_dnnl_job **out);
dnnl_status_t tw_dnnl_bind(tw_dnnl_state *s, tw_dnnl_job *j, int name, const dnnl_memory_desc_t *md,
                           int slot);
dnnl_status_t tw_dnnl_bind_workspace(tw_dnnl_state *s, tw_dnnl_job *j, int name,
                                     const dnnl_memory_desc_t *md, size_t offset);
dnnl_status_t tw_dnnl_bind_scratchpad(tw_dnnl_state *s, tw_dnnl_job *j,
                                      const_dnnl_primitive_desc_t pd);
/* Room at the end of memory that is `total` bytes long so far, aligned to 64 bytes. */
size_t tw_dnnl_reserve(size_t *total, size_t bytes);
/* Attributes of every primitive: our scratch memory, and no lower precision inside. */
dnnl_status_t tw_dnnl_attributes(dnnl_primitive_attr_t *attr);
/* A copy between layouts; slots may be TW_DNNL_WORKSPACE. `add` accumulates. */
dnnl_status_t tw_dnnl_add_reorder(tw_dnnl_state *s, const dnnl_memory_desc_t *from, int from_slot,
                                  size_t from_offset, const dnnl_memory_desc_t *to, int to_slot,
                                  size_t to_offset, bool add);
/* dnnl_unimplemented for oneDNN's plain loops, which are no better than ours. */
dnnl_status_t tw_dnnl_refuse_slow(const_dnnl_primitive_desc_t pd);
/* True for the family of implementations whose name begins so. */
bool tw_dnnl_is(const_dnnl_primitive_desc_t pd, const char *family);
/* Runs what was built; `changed`: what is held must be made again. */
dnnl_status_t tw_dnnl_run(const tw_dnnl_state *s, void *const *slots, void *workspace,
                          bool changed);
/* Forgets the jobs. */
void tw_dnnl_clear(tw_dnnl_state *s);

/* What follows a product in the same pass (onednn_fused.c): how many operations at most, the
 * attributes (`dst` is the result's layout; `sum` accumulates instead), their operands. */
int tw_dnnl_longest_claim(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_fused_attributes(const tw_dnnl_builder *b, const dnnl_memory_desc_t *dst,
                                       bool sum, dnnl_primitive_attr_t *attr);
dnnl_status_t tw_dnnl_bind_fused(const tw_dnnl_builder *b, tw_dnnl_job *j,
                                 const dnnl_memory_desc_t *dst);

/* Slots of an operation's operands, -1: absent; and of the last claimed operation's result. */
int tw_dnnl_slot_in(const tw_region_op *op, int i);
int tw_dnnl_slot_out(const tw_region_op *op, int i);
int tw_dnnl_result(const tw_dnnl_builder *b);

/* Jobs of an operation, with the b->claimed - 1 that follow. */
dnnl_status_t tw_dnnl_build_linear(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_build_linear_bwd_data(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_build_linear_bwd_weight(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_build_conv(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_build_conv_bwd_data(const tw_dnnl_builder *b);
dnnl_status_t tw_dnnl_build_conv_bwd_weight(const tw_dnnl_builder *b);

#endif
