/* Primitives, their operands and their scratch memory. */
#include "backend/cpu/onednn.h"

#include <string.h>

dnnl_status_t tw_dnnl_plain(dnnl_memory_desc_t *md, int rank, const dnnl_dims_t dims,
                            const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(md, rank, dims, dnnl_f32, strides);
}

dnnl_status_t tw_dnnl_vector(dnnl_memory_desc_t *md, int64_t n) {
    return tw_dnnl_plain(md, 1, (dnnl_dims_t){n}, (dnnl_dims_t){1});
}

dnnl_status_t tw_dnnl_add_job(tw_dnnl_state *s, const_dnnl_primitive_desc_t pd, tw_dnnl_job **out) {
    if (s->n_jobs == TW_DNNL_JOBS) return dnnl_runtime_error;
    tw_dnnl_job *j = &s->jobs[s->n_jobs];
    j->n = 0;
    j->once = false;
    TW_DNNL_TRY(dnnl_primitive_create(&j->primitive, pd));
    s->n_jobs++;
    *out = j;
    return dnnl_success;
}

dnnl_status_t tw_dnnl_bind(tw_dnnl_state *s, tw_dnnl_job *j, int name, const dnnl_memory_desc_t *md,
                           int slot) {
    if (j->n == TW_DNNL_ARGS) return dnnl_runtime_error;
    tw_dnnl_binding *b = &j->args[j->n];
    *b = (tw_dnnl_binding){.name = name, .slot = slot};
    TW_DNNL_TRY(dnnl_memory_create(&b->memory, md, s->engine, DNNL_MEMORY_NONE));
    j->n++;
    return dnnl_success;
}

dnnl_status_t tw_dnnl_bind_workspace(tw_dnnl_state *s, tw_dnnl_job *j, int name,
                                     const dnnl_memory_desc_t *md, size_t offset) {
    TW_DNNL_TRY(tw_dnnl_bind(s, j, name, md, TW_DNNL_WORKSPACE));
    j->args[j->n - 1].offset = offset;
    return dnnl_success;
}

size_t tw_dnnl_reserve(size_t *total, size_t bytes) {
    const size_t at = *total;
    *total += (bytes + 63) / 64 * 64;
    return at;
}

dnnl_status_t tw_dnnl_bind_scratchpad(tw_dnnl_state *s, tw_dnnl_job *j,
                                      const_dnnl_primitive_desc_t pd) {
    const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    const size_t bytes = md ? dnnl_memory_desc_get_size(md) : 0;
    if (!bytes) return dnnl_success;
    return tw_dnnl_bind_workspace(s, j, DNNL_ARG_SCRATCHPAD, md,
                                  tw_dnnl_reserve(&s->workspace, bytes));
}

dnnl_status_t tw_dnnl_attributes(dnnl_primitive_attr_t *attr) {
    TW_DNNL_TRY(dnnl_primitive_attr_create(attr));
    dnnl_status_t s = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success) s = dnnl_primitive_attr_set_fpmath_mode(*attr, dnnl_fpmath_mode_strict);
    if (s != dnnl_success) dnnl_primitive_attr_destroy(*attr);
    return s;
}

dnnl_status_t tw_dnnl_add_reorder(tw_dnnl_state *s, const dnnl_memory_desc_t *from, int from_slot,
                                  size_t from_offset, const dnnl_memory_desc_t *to, int to_slot,
                                  size_t to_offset, bool add) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    tw_dnnl_job *j = NULL;
    dnnl_status_t r = tw_dnnl_attributes(&attr);
    if (r != dnnl_success) return r;
    if (add) {
        r = dnnl_post_ops_create(&ops);
        if (r == dnnl_success) r = dnnl_post_ops_append_sum(ops, 1.0f);
        if (r == dnnl_success) r = dnnl_primitive_attr_set_post_ops(attr, ops);
    }
    if (r == dnnl_success)
        r = dnnl_reorder_primitive_desc_create(&pd, from, s->engine, to, s->engine, attr);
    if (r == dnnl_success) r = tw_dnnl_add_job(s, pd, &j);
    if (r == dnnl_success) r = tw_dnnl_bind(s, j, DNNL_ARG_FROM, from, from_slot);
    if (r == dnnl_success) {
        j->args[j->n - 1].offset = from_offset;
        r = tw_dnnl_bind(s, j, DNNL_ARG_TO, to, to_slot);
    }
    if (r == dnnl_success) {
        j->args[j->n - 1].offset = to_offset;
        r = tw_dnnl_bind_scratchpad(s, j, pd);
    }
    dnnl_primitive_desc_destroy(pd);
    dnnl_post_ops_destroy(ops);
    dnnl_primitive_attr_destroy(attr);
    return r;
}

bool tw_dnnl_is(const_dnnl_primitive_desc_t pd, const char *family) {
    const char *name = NULL;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success)
        return false;
    return name && !strncmp(name, family, strlen(family));
}

dnnl_status_t tw_dnnl_refuse_slow(const_dnnl_primitive_desc_t pd) {
    return tw_dnnl_is(pd, "ref") ? dnnl_unimplemented : dnnl_success;
}

void tw_dnnl_clear(tw_dnnl_state *s) {
    for (int i = 0; i < s->n_jobs; i++) {
        for (int k = 0; k < s->jobs[i].n; k++) dnnl_memory_destroy(s->jobs[i].args[k].memory);
        dnnl_primitive_destroy(s->jobs[i].primitive);
    }
    s->n_jobs = 0;
    s->workspace = 0;
    s->held_bytes = 0;
    s->sum_to = -1;
    s->turned.o = 0;
}

static void turn(const tw_dnnl_turned *t, const float *w, float *out) {
    const int64_t taps = t->kh * t->kw;
    for (int64_t c = 0; c < t->c; c++)
        for (int64_t tap = 0; tap < taps; tap++) {
            const float *from = w + (taps - 1 - tap) * t->c + c;
            float *to = out + (c * taps + tap) * t->o;
            for (int64_t o = 0; o < t->o; o++) to[o] = from[o * taps * t->c];
        }
}

static dnnl_status_t run_job(const tw_dnnl_state *s, const tw_dnnl_job *j, void *const *slots,
                             void *workspace) {
    dnnl_exec_arg_t args[TW_DNNL_ARGS];
    for (int i = 0; i < j->n; i++) {
        const tw_dnnl_binding *b = &j->args[i];
        void *at = b->slot == TW_DNNL_HELD        ? (char *)s->held + b->offset
                   : b->slot == TW_DNNL_WORKSPACE ? (char *)workspace + b->offset
                                                  : slots[b->slot];
        TW_DNNL_TRY(dnnl_memory_set_data_handle(b->memory, at));
        args[i] = (dnnl_exec_arg_t){b->name, b->memory};
    }
    return dnnl_primitive_execute(j->primitive, s->stream, j->n, args);
}

dnnl_status_t tw_dnnl_run(const tw_dnnl_state *s, void *const *slots, void *workspace,
                          bool changed) {
    if (s->turned.o > 0)
        turn(&s->turned, slots[s->turned.from], (float *)((char *)workspace + s->turned.offset));
    for (int i = 0; i < s->n_jobs; i++)
        if (changed || !s->jobs[i].once) TW_DNNL_TRY(run_job(s, &s->jobs[i], slots, workspace));
    return dnnl_success;
}
