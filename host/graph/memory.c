/* Where the arena's tensors lie: largest first, each at the lowest offset that is free during its
 * whole life. */
#include "graph/internal.h"

#include <stdlib.h>

static int by_size(const void *a, const void *b) {
    const tw_memory_item *x = *(const tw_memory_item *const *)a,
                         *y = *(const tw_memory_item *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int by_offset(const void *a, const void *b) {
    const tw_memory_item *x = *(const tw_memory_item *const *)a,
                         *y = *(const tw_memory_item *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

tw_status tw_memory_place(tw_context *ctx, tw_memory_item *items, int n, size_t *total) {
    *total = 0;
    if (n == 0) return TW_OK;
    tw_memory_item **order = tw_allocate(ctx, (size_t)n, sizeof(*order));
    tw_memory_item **busy = tw_allocate(ctx, (size_t)n, sizeof(*busy));
    if (!order || !busy) {
        tw_free(ctx, order);
        tw_free(ctx, busy);
        return TW_ERROR_MEMORY;
    }
    for (int i = 0; i < n; i++) {
        items[i].bytes = tw_memory_padded(items[i].bytes);
        order[i] = &items[i];
    }
    qsort(order, (size_t)n, sizeof(*order), by_size);
    for (int i = 0; i < n; i++) {
        int n_busy = 0;
        for (int j = 0; j < i; j++)
            if (order[j]->first <= order[i]->last && order[i]->first <= order[j]->last)
                busy[n_busy++] = order[j];
        qsort(busy, (size_t)n_busy, sizeof(*busy), by_offset);
        size_t at = 0;
        for (int j = 0; j < n_busy && busy[j]->offset < at + order[i]->bytes; j++)
            if (busy[j]->offset + busy[j]->bytes > at) at = busy[j]->offset + busy[j]->bytes;
        order[i]->offset = at;
        if (at + order[i]->bytes > *total) *total = at + order[i]->bytes;
    }
    tw_free(ctx, order);
    tw_free(ctx, busy);
    return TW_OK;
}
