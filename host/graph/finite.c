#include "graph/finite.h"

#include <stdio.h>
#include <string.h>

#include "graph/internal.h"

#define CHUNK ((size_t)1 << 16) /* bytes, of every format a whole number */
#define MAX_WORDS 6             /* operations in a description */

/* By the exponent: all ones. */
static bool finite_all(const void *data, size_t bytes, tw_dtype dtype) {
    const size_t size = tw_dtype_size(dtype);
    for (size_t i = 0; i < bytes; i += size) {
        uint64_t bits = 0, ones = 0;
        if (size == 8) memcpy(&bits, (const char *)data + i, 8);
        if (size == 4) {
            uint32_t b;
            memcpy(&b, (const char *)data + i, 4);
            bits = b;
        } else if (size == 2) {
            uint16_t b;
            memcpy(&b, (const char *)data + i, 2);
            bits = b;
        }
        if (dtype == TW_F64) ones = UINT64_C(0x7ff0000000000000);
        if (dtype == TW_F32) ones = UINT64_C(0x7f800000);
        if (dtype == TW_BF16) ones = UINT64_C(0x7f80);
        if (dtype == TW_F16) ones = UINT64_C(0x7c00);
        if (ones && (bits & ones) == ones) return false;
    }
    return true;
}

typedef struct search {
    char *chunk;
    tw_value bad;
} search;

static tw_status look_at(search *s, tw_plan *plan, tw_value v, const char *address) {
    tw_backend *b = plan->backend;
    const tw_desc *d = tw_plan_desc(plan, v);
    const size_t bytes = tw_desc_bytes(d);
    if (d->dtype == TW_I32 || d->dtype == TW_I64) return TW_OK;
    for (size_t at = 0; at < bytes; at += CHUNK) {
        const size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        TW_TRY(b->download(b, s->chunk, address + at, n));
        if (finite_all(s->chunk, n, d->dtype)) continue;
        s->bad = v;
        return TW_ERROR_NUMERIC;
    }
    return TW_OK;
}

/* A step's operands stand before its results. */
static tw_status watch(void *user, tw_plan *plan, int index) {
    const tw_step *step = &plan->steps[index];
    for (int k = 0; k < step->n_slots; k++) {
        const tw_value v = step->values[k];
        if (v == TW_NONE || !step->addresses[k]) continue;
        const tw_value_info *root = &plan->values[plan->values[v].root];
        /* An intermediate value was seen when it was made. */
        if (root->kind == TW_VALUE_INTERMEDIATE && root->first < index) continue;
        TW_TRY(look_at(user, plan, v, step->addresses[k]));
    }
    return TW_OK;
}

tw_status tw_plan_find_not_finite(tw_plan *plan, tw_value *bad) {
    search s = {tw_allocate(plan->ctx, 1, CHUNK), TW_NONE};
    *bad = TW_NONE;
    if (!s.chunk) return TW_ERROR_MEMORY;
    const tw_status status = tw_plan_run_watched(plan, watch, &s);
    tw_free(plan->ctx, s.chunk);
    *bad = s.bad;
    return s.bad != TW_NONE ? TW_OK : status;
}

static const tw_node *maker_of(const tw_plan *plan, tw_value v) {
    for (int i = 0; i < plan->n_nodes; i++)
        for (int k = 0; k < plan->nodes[i].n_out; k++)
            if (plan->nodes[i].out[k] == v) return &plan->nodes[i];
    return NULL;
}

void tw_plan_describe(const tw_plan *plan, tw_value v, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int words = 0; v != TW_NONE && words < MAX_WORDS && used < size; words++) {
        const tw_value_info *info = &plan->values[v];
        const tw_node *maker = NULL;
        int n;
        if (info->slope_of != TW_NONE) {
            n = snprintf(out + used, size - used, "gradient of ");
            v = info->slope_of;
        } else if (info->origin != TW_NONE) {
            n = snprintf(out + used, size - used, "recomputed ");
            v = info->origin;
        } else if (info->name || info->root != v) {
            n = snprintf(out + used, size - used, "%s", info->name ? info->name : "");
            v = info->name ? TW_NONE : info->root;
        } else {
            maker = maker_of(plan, v);
            v = maker && maker->n_in ? maker->in[0] : TW_NONE;
            n = snprintf(out + used, size - used, "%s%s",
                         maker ? tw_op_name(maker->kind) : "a value", v == TW_NONE ? "" : " of ");
        }
        if (n < 0) return;
        used += (size_t)n;
    }
}
