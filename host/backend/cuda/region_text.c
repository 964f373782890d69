/* A region as a text: equal texts mean equal kernels. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "backend/cuda/tuning.h"

typedef struct text {
    char *at;
    size_t left;
    bool whole;
} text;

static void add(text *t, const char *format, ...) TW_PRINTF(2, 3);
static void add(text *t, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(t->at, t->left, format, args);
    va_end(args);
    t->whole = t->whole && n >= 0 && (size_t)n < t->left;
    if (!t->whole) return;
    t->at += n;
    t->left -= (size_t)n;
}

static void add_attributes(text *t, const tw_region_op *op) {
    const tw_op_attr *a = &op->attr;
    switch (op->kind) {
    case TW_OP_CONV2D:
    case TW_OP_CONV2D_BWD_DATA:
    case TW_OP_CONV2D_BWD_WEIGHT:
        add(t, " stride %d pad %d %d %d %d", a->conv.stride, a->conv.pad_top, a->conv.pad_left,
            a->conv.pad_bottom, a->conv.pad_right);
        break;
    case TW_OP_ADD_VEC: /* where the columns begin matters by its alignment alone */
        if (a->vector.column % 8) add(t, " column %" PRId64, a->vector.column % 8);
        break;
    case TW_OP_ACT:
        add(t, " kind %d", a->act.kind);
        break;
    case TW_OP_AXPBY:
        add(t, " %.9g %.9g", a->axpby.alpha, a->axpby.beta);
        break;
    case TW_OP_UPSAMPLE_NEAREST:
    case TW_OP_POOL:
        add(t, " %d scale %.9g", a->resample.k, a->resample.scale);
        break;
    case TW_OP_ATTENTION:
    case TW_OP_ATTENTION_BWD:
        add(t, " heads %d scale %.9g", a->attention.heads, a->attention.scale);
        break;
    default:
        break;
    }
}

/* Slots are numbered as they appear; the first time says what they are. */
static void add_slot(text *t, const tw_region *region, int slot, int *numbers, int *n) {
    if (slot < 0) {
        add(t, " -");
        return;
    }
    if (numbers[slot]) {
        add(t, " #%d", numbers[slot]);
        return;
    }
    const tw_slot *s = &region->slots[slot];
    numbers[slot] = ++*n;
    add(t, " #%d:%s", *n, tw_dtype_name(s->desc.dtype));
    for (int i = 0; i < s->desc.rank; i++) add(t, "%c%" PRId64, i ? 'x' : '[', s->desc.dim[i]);
    add(t, "]/%d%s%s", s->alignment, s->needed ? "" : "!", s->constant ? "=" : "");
}

bool tw_region_text(const tw_region *region, char *out, size_t size) {
    text t = {out, size, size > 0};
    int numbers[TW_REGION_MAX_SLOTS] = {0}, n = 0;
    if (region->tf32) add(&t, "tf32 ");
    for (int k = 0; k < region->n_ops; k++) {
        const tw_region_op *op = &region->ops[k];
        add(&t, "%s%s(", k ? ", " : "", tw_op_name(op->kind));
        for (int i = 0; i < op->n_in; i++) add_slot(&t, region, op->in[i], numbers, &n);
        add(&t, " ->");
        for (int i = 0; i < op->n_out; i++) add_slot(&t, region, op->out[i], numbers, &n);
        add_attributes(&t, op);
        add(&t, ")");
    }
    return t.whole;
}
