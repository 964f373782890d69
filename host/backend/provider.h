/* Providers: who executes operations.
 *
 * The unit of choice is a region: consecutive operations of which each takes the first output of
 * the one before. A provider claims a leading part of it (one operation at least), or refuses; the
 * rest is offered again as a region of its own. Claims are made once, before memory is planned. */
#ifndef TW_BACKEND_PROVIDER_H
#define TW_BACKEND_PROVIDER_H

#include "backend/op.h"

#define TW_REGION_MAX_OPS 8
#define TW_REGION_MAX_SLOTS (TW_REGION_MAX_OPS * (TW_OP_MAX_IN + TW_OP_MAX_OUT))

typedef struct tw_backend tw_backend;

/* One operand of a region. `needed` is set where something outside of the claimed part reads it
 * or it is external: then its address is given at run time; an output that nobody needs and that
 * only the claimed operations use comes as a null address when more than one operation was claimed.
 */
typedef struct tw_slot {
    tw_desc desc;
    bool needed;
    bool constant; /* its values change only when tw_backend.parameters_changed says so */
    int alignment; /* of its address: a power of two up to 256; 0: not known */
} tw_slot;

typedef struct tw_region_op {
    tw_op_kind kind;
    tw_op_attr attr;
    int n_in, n_out;
    int in[TW_OP_MAX_IN]; /* index of a slot, -1: absent */
    int out[TW_OP_MAX_OUT];
} tw_region_op;

typedef struct tw_region {
    int n_ops, n_slots;
    bool tf32;     /* operands of float32 products may be rounded to tf32 */
    bool measures; /* GroupNorm's statistics may come from what is before it */
    tw_region_op ops[TW_REGION_MAX_OPS];
    tw_slot slots[TW_REGION_MAX_SLOTS];
} tw_region;

/* A prepared execution of the claimed operations. `slots` holds device addresses by slot index;
 * the arrays behind it are not kept. Running allocates nothing and does not synchronise. */
typedef struct tw_kernel {
    tw_status (*run)(const struct tw_kernel *kernel, tw_backend *backend, void *const *slots,
                     void *workspace);
    void (*destroy)(struct tw_kernel *kernel, tw_backend *backend); /* may be null */
    void *state;
    size_t workspace; /* bytes, given aligned to 64 */
    size_t held;      /* bytes of device memory of its own, for constant operands */
    int claimed;      /* operations of the region that one run executes */
} tw_kernel;

typedef struct tw_provider {
    const char *name;
    /* TW_ERROR_UNSUPPORTED when it cannot (not an error: the next provider is asked); other errors
     * stop the compilation. `kernel` comes zeroed. */
    tw_status (*prepare)(tw_backend *backend, const tw_region *region, tw_kernel *kernel);
} tw_provider;

#endif
