/* A convolution that leaves GroupNorm's statistics of its result, and the GroupNorm that takes
 * them: two launches, of which the second does not read its input twice. */
#include <string.h>

#include "backend/cuda/own.h"

typedef struct measured {
    tw_kernel product, norm;
    int y, groups, n_slots;
    size_t partial_at, y_at; /* in the workspace */
    size_t partial_bytes;
    bool hidden; /* nobody else reads y, which is in the workspace then */
} measured;

static tw_own_call product_call(const measured *m, tw_backend *backend, void *const *slots,
                                void *workspace) {
    tw_own_call call = tw_own_placed(&m->product, backend, slots, workspace);
    call.groups = m->groups;
    return call;
}

static tw_status run(const tw_kernel *kernel, tw_backend *backend, void *const *slots,
                     void *workspace) {
    const measured *m = kernel->state;
    void *own[TW_REGION_MAX_SLOTS];
    memcpy(own, slots, (size_t)m->n_slots * sizeof *own);
    if (m->hidden) own[m->y] = (char *)workspace + m->y_at;
    tw_own_call product = product_call(m, backend, own, workspace);
    tw_own_call norm = tw_own_placed(&m->norm, backend, own, NULL);
    norm.n_partials = tw_own_conv2d_partials(&product, &norm.pixels_per_partial);
    norm.partial = product.partial = (twk_moments *)(void *)((char *)workspace + m->partial_at);
    const size_t bytes =
        (size_t)(norm.op.dim['N'] * norm.n_partials * m->groups) * sizeof(twk_moments);
    if (!norm.n_partials || bytes > m->partial_bytes)
        return tw_fail(backend->ctx, TW_ERROR_INTERNAL, "conv2d: other statistics than planned");
    TW_TRY(tw_own_conv2d(&product));
    return tw_own_group_norm(&norm);
}

static void destroy(tw_kernel *kernel, tw_backend *backend) {
    measured *m = kernel->state;
    if (m->product.destroy) m->product.destroy(&m->product, backend);
    if (m->norm.destroy) m->norm.destroy(&m->norm, backend);
    tw_free(backend->ctx, m);
    kernel->state = NULL;
}

/* By the operands' alignments; one that is not known is taken as good. */
static bool pays(const measured *m, tw_backend *backend, const tw_region *region) {
    void *slots[TW_REGION_MAX_SLOTS];
    for (int i = 0; i < region->n_slots; i++) {
        const int known = region->slots[i].alignment;
        slots[i] = (void *)(uintptr_t)(known ? known : 256);
    }
    const tw_own_call norm = tw_own_placed(&m->norm, backend, slots, NULL);
    return tw_own_norm_reads_twice(&norm);
}

/* The most bytes of statistics, whatever the addresses that are not known; 0 where there may be
 * none. */
static size_t partial_bytes(const measured *m, tw_backend *backend, const tw_region *region,
                            int64_t batch) {
    size_t most = 0;
    for (int unknown = 4; unknown <= 256; unknown *= 64) {
        void *slots[TW_REGION_MAX_SLOTS];
        for (int i = 0; i < region->n_slots; i++) {
            const int known = region->slots[i].alignment;
            slots[i] = (void *)(uintptr_t)(known ? known : unknown);
        }
        const tw_own_call call = product_call(m, backend, slots, NULL);
        const int64_t partials = tw_own_conv2d_partials(&call, NULL);
        const size_t bytes = (size_t)(batch * partials * m->groups) * sizeof(twk_moments);
        if (!bytes) return 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

static size_t padded(size_t bytes) {
    return (bytes + 255) & ~(size_t)255;
}

static tw_status prepare(const tw_own_entry *entries, tw_backend *backend, const tw_region *region,
                         const tw_own_fused *f, measured *m, tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[f->claimed];
    const tw_own_fused norm = tw_own_alone(region, f->claimed);
    const tw_desc *y = &region->slots[f->result].desc;
    m->y = f->result;
    m->hidden = !region->slots[f->result].needed;
    m->groups = op->attr.norm.groups;
    m->n_slots = region->n_slots;
    TW_TRY(tw_own_prepare(entries, backend, region, f, &m->product));
    TW_TRY(tw_own_prepare(entries, backend, region, &norm, &m->norm));
    m->partial_bytes = partial_bytes(m, backend, region, y->dim[0]);
    if (!m->partial_bytes || !pays(m, backend, region))
        return tw_fail(backend->ctx, TW_ERROR_UNSUPPORTED, "conv2d: no statistics");
    m->partial_at = padded(m->product.workspace);
    m->y_at = m->partial_at + padded(m->partial_bytes);
    kernel->workspace = m->y_at + (m->hidden ? padded(tw_desc_bytes(y)) : 0);
    kernel->claimed = f->claimed + 1;
    return TW_OK;
}

tw_status tw_own_prepare_measured(const tw_own_entry *entries, tw_backend *backend,
                                  const tw_region *region, const tw_own_fused *f,
                                  tw_kernel *kernel) {
    const tw_region_op *op = &region->ops[f->claimed];
    if (!region->measures || region->ops[f->product].kind != TW_OP_CONV2D ||
        f->claimed >= region->n_ops || op->kind != TW_OP_GROUP_NORM || op->in[0] != f->result)
        return TW_ERROR_UNSUPPORTED;
    measured *m = tw_allocate(backend->ctx, 1, sizeof *m);
    if (!m) return TW_ERROR_MEMORY;
    kernel->state = m;
    const tw_status s = prepare(entries, backend, region, f, m, kernel);
    if (s != TW_OK) {
        destroy(kernel, backend);
        memset(kernel, 0, sizeof *kernel);
        return s;
    }
    kernel->run = run;
    kernel->destroy = destroy;
    return TW_OK;
}
