/* Plans: creation, values, and the traffic between host and device. */
#include "graph/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/checked.h"
#include "core/options.h"
#include "graph/builder.h"
#include "graph/times.h"

tw_status tw_plan_create(tw_context *ctx, const tw_plan_options *options, tw_plan **out) {
    tw_plan_options o = TW_PLAN_OPTIONS_INIT;
    if (!ctx || !out) return tw_fail(ctx, TW_ERROR_ARGUMENT, "plan: no context or no result");
    *out = NULL;
    TW_TRY(tw_options_read(ctx, "plan", &o, sizeof o, options));
    if (o.precision != TW_F32 && o.precision != TW_F64 && o.precision != TW_BF16 &&
        o.precision != TW_F16)
        return tw_fail(ctx, TW_ERROR_UNSUPPORTED,
                       "plan: precision %s: expected float32, float64, bfloat16 or float16",
                       tw_dtype_name(o.precision));
    if ((unsigned)o.recompute > TW_RECOMPUTE_BLOCKS)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "plan: recompute: %d is no tw_recompute",
                       (int)o.recompute);
    if (o.no_fusion & ~(unsigned)TW_FUSION_ALL)
        return tw_fail(ctx, TW_ERROR_ARGUMENT, "plan: no_fusion: %#x is no set of tw_fusion",
                       o.no_fusion);
    tw_plan *plan = tw_allocate(ctx, 1, sizeof *plan);
    if (!plan) return TW_ERROR_MEMORY;
    plan->ctx = ctx;
    plan->backend = ctx->backend;
    plan->precision = o.precision;
    plan->wide = o.precision == TW_F64 ? TW_F64 : TW_F32;
    plan->tf32 = o.tf32 && o.precision == TW_F32;
    plan->fusions = TW_FUSION_ALL & ~(o.no_fusion | ctx->no_fusion);
    plan->recompute = o.recompute;
    *out = plan;
    return TW_OK;
}

void tw_plan_free(tw_plan *plan) {
    if (!plan) return;
    tw_context *ctx = plan->ctx;
    if (plan->recording) plan->backend->forget(plan->backend, plan->recording);
    for (int i = 0; i < plan->n_steps; i++) {
        tw_step *step = &plan->steps[i];
        if (step->kernel.destroy) step->kernel.destroy(&step->kernel, plan->backend);
        tw_free(ctx, step->values);
        tw_free(ctx, step->addresses);
    }
    for (int i = 0; i < plan->n_values; i++) {
        if (plan->values[i].owned) plan->backend->release(plan->backend, plan->values[i].address);
        tw_free(ctx, plan->values[i].name);
    }
    plan->backend->release(plan->backend, plan->arena);
    tw_free(ctx, plan->steps);
    tw_free(ctx, plan->seconds);
    tw_free(ctx, plan->nodes);
    tw_free(ctx, plan->values);
    tw_free(ctx, plan->error);
    tw_free(ctx, plan);
}

tw_value tw_plan_fail(tw_plan *plan, tw_status status, const char *format, ...) {
    if (plan->status != TW_OK) return TW_NONE;
    char text[TW_ERROR_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    plan->status = tw_fail(plan->ctx, status, "plan: %s", text);
    plan->error = tw_strdup(plan->ctx, text);
    return TW_NONE;
}

/* Makes room for one more element of an array that doubles. */
static bool grow(tw_plan *plan, void **array, int count, int *capacity, size_t size) {
    if (count < *capacity) return true;
    int wanted = *capacity ? *capacity * 2 : 64;
    void *bigger = tw_allocate(plan->ctx, (size_t)wanted, size);
    if (!bigger) {
        tw_plan_fail(plan, TW_ERROR_MEMORY, "out of memory for %d elements", wanted);
        return false;
    }
    if (count) memcpy(bigger, *array, (size_t)count * size);
    tw_free(plan->ctx, *array);
    *array = bigger;
    *capacity = wanted;
    return true;
}

bool tw_plan_usable(tw_plan *plan, const char *what, tw_value v) {
    if (!plan || plan->status != TW_OK) return false;
    if (plan->compiled) {
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: the plan is compiled and cannot be extended",
                     what);
        return false;
    }
    if (v < 0 || v >= plan->n_values) {
        tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: an operand is no value of this plan", what);
        return false;
    }
    return true;
}

tw_value tw_plan_new(tw_plan *plan, tw_desc desc) {
    if (plan->status != TW_OK) return TW_NONE;
    void *array = plan->values;
    if (!grow(plan, &array, plan->n_values, &plan->cap_values, sizeof *plan->values))
        return TW_NONE;
    plan->values = array;
    tw_value v = plan->n_values++;
    tw_value_info *info = &plan->values[v];
    memset(info, 0, sizeof *info);
    info->desc = desc;
    info->root = v;
    info->gradient = info->slope_of = info->origin = TW_NONE;
    return v;
}

tw_value tw_plan_outside(tw_plan *plan, const char *name, tw_desc desc, bool writable) {
    tw_value v = tw_plan_new(plan, desc);
    if (v == TW_NONE) return TW_NONE;
    tw_value_info *info = &plan->values[v];
    info->kind = TW_VALUE_OUTSIDE;
    info->writable = writable;
    info->name = tw_strdup(plan->ctx, name ? name : "");
    if (!info->name) return tw_plan_fail(plan, TW_ERROR_MEMORY, "out of memory for a name");
    return v;
}

void tw_plan_name(tw_plan *plan, tw_value v, const char *name) {
    if (plan->status != TW_OK || v == TW_NONE || plan->values[v].name) return;
    plan->values[v].name = tw_strdup(plan->ctx, name);
    if (!plan->values[v].name) tw_plan_fail(plan, TW_ERROR_MEMORY, "out of memory for a name");
}

void tw_plan_emit(tw_plan *plan, tw_op_kind kind, const tw_op_attr *attr, int n_in,
                  const tw_value *in, int n_out, const tw_value *out) {
    if (plan->status != TW_OK) return;
    void *array = plan->nodes;
    if (!grow(plan, &array, plan->n_nodes, &plan->cap_nodes, sizeof *plan->nodes)) return;
    plan->nodes = array;
    tw_node *node = &plan->nodes[plan->n_nodes++];
    memset(node, 0, sizeof *node);
    node->kind = kind;
    if (attr) node->attr = *attr;
    node->n_in = n_in;
    node->n_out = n_out;
    node->block = plan->block;
    node->origin = -1;
    if (n_in) memcpy(node->in, in, (size_t)n_in * sizeof *in);
    if (n_out) memcpy(node->out, out, (size_t)n_out * sizeof *out);
}

void tw_plan_begin_block(tw_plan *plan) {
    plan->block = ++plan->n_blocks;
}

void tw_plan_end_block(tw_plan *plan) {
    plan->block = 0;
}

bool tw_desc_make(tw_dtype dtype, int rank, const int64_t *shape, tw_desc *out) {
    memset(out, 0, sizeof *out);
    if (rank < 0 || rank > TW_MAX_RANK || (rank > 0 && !shape) || !tw_dtype_size(dtype))
        return false;
    int64_t bytes = (int64_t)tw_dtype_size(dtype);
    out->dtype = dtype;
    out->rank = rank;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 1 || !tw_mul_i64(bytes, shape[i], &bytes)) return false;
        out->dim[i] = shape[i];
    }
    return bytes <= (int64_t)(SIZE_MAX / 4);
}

static tw_value outside(tw_plan *plan, const char *what, const char *name, tw_dtype dtype, int rank,
                        const int64_t *shape, bool writable) {
    if (!plan || plan->status != TW_OK) return TW_NONE;
    tw_desc desc;
    if (plan->compiled)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "%s: the plan is compiled", what);
    if (!tw_desc_make(dtype, rank, shape, &desc))
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "%s \"%s\": expected a known format and 0 to %d extents of 1 or more",
                            what, name ? name : "", TW_MAX_RANK);
    return tw_plan_outside(plan, name, desc, writable);
}

tw_value tw_plan_input(tw_plan *plan, const char *name, tw_dtype dtype, int rank,
                       const int64_t *shape) {
    return outside(plan, "input", name, dtype, rank, shape, false);
}

tw_value tw_plan_state(tw_plan *plan, const char *name, tw_dtype dtype, int rank,
                       const int64_t *shape) {
    return outside(plan, "state", name, dtype, rank, shape, true);
}

tw_value tw_plan_parameter(tw_plan *plan, const char *name, int rank, const int64_t *shape) {
    if (!plan) return TW_NONE;
    const tw_dtype dtype = rank > 1 ? plan->precision : plan->wide;
    tw_value v = outside(plan, "parameter", name, dtype, rank, shape, false);
    if (v != TW_NONE) plan->values[v].parameter = true;
    return v;
}

static tw_value view(tw_plan *plan, tw_value x, tw_desc desc, size_t offset) {
    tw_value v = tw_plan_new(plan, desc);
    if (v == TW_NONE) return TW_NONE;
    tw_value_info *info = &plan->values[v], *from = &plan->values[x];
    info->kind = TW_VALUE_VIEW;
    info->root = from->root;
    info->root_offset = from->root_offset + offset;
    return v;
}

tw_value tw_plan_reshape(tw_plan *plan, tw_value x, int rank, const int64_t *shape) {
    tw_desc desc;
    if (!tw_plan_usable(plan, "reshape", x)) return TW_NONE;
    const tw_desc *d = tw_plan_desc(plan, x);
    if (!tw_desc_make(d->dtype, rank, shape, &desc) || tw_desc_count(&desc) != tw_desc_count(d))
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT,
                            "reshape: the new shape must hold the same %lld elements",
                            (long long)tw_desc_count(d));
    return view(plan, x, desc, 0);
}

tw_value tw_plan_slice_batch(tw_plan *plan, tw_value x, int64_t first, int64_t count) {
    if (!tw_plan_usable(plan, "slice_batch", x)) return TW_NONE;
    tw_desc desc = *tw_plan_desc(plan, x);
    if (desc.rank < 1 || first < 0 || count < 1 || first > desc.dim[0] - count)
        return tw_plan_fail(plan, TW_ERROR_ARGUMENT, "slice_batch: samples %lld to %lld of %lld",
                            (long long)first, (long long)(first + count - 1),
                            (long long)(desc.rank ? desc.dim[0] : 0));
    size_t stride = tw_desc_bytes(&desc) / (size_t)desc.dim[0];
    desc.dim[0] = count;
    return view(plan, x, desc, stride * (size_t)first);
}

void tw_plan_keep(tw_plan *plan, tw_value x) {
    if (tw_plan_usable(plan, "keep", x)) plan->values[plan->values[x].root].kept = true;
}

void tw_plan_want_gradient(tw_plan *plan, tw_value x) {
    if (tw_plan_usable(plan, "want_gradient", x)) plan->values[x].wanted = true;
}

void tw_plan_hold_parameters(tw_plan *plan) {
    if (plan && !plan->compiled) plan->holds = true;
}

void tw_plan_parameters_changed(tw_plan *plan) {
    if (plan) plan->stale = true;
}

tw_value tw_plan_gradient(const tw_plan *plan, tw_value x) {
    if (!plan || x < 0 || x >= plan->n_values) return TW_NONE;
    return plan->values[x].gradient;
}

tw_status tw_plan_bind(tw_plan *plan, tw_value x, void *address) {
    if (!plan) return tw_fail(NULL, TW_ERROR_ARGUMENT, "plan: bind: no plan");
    if (!tw_plan_usable(plan, "bind", x))
        return tw_fail(plan->ctx, plan->status, "plan: %s", plan->error ? plan->error : "bind");
    tw_value_info *info = &plan->values[x];
    if (info->kind != TW_VALUE_OUTSIDE || !address)
        return tw_fail(plan->ctx, TW_ERROR_ARGUMENT,
                       "plan: bind: expected a value from outside and an address");
    info->address = address;
    return TW_OK;
}

/* The address of a value that outlives a run, or null with the error recorded. */
static void *stored(tw_plan *plan, const char *what, tw_value x, size_t bytes) {
    if (!plan->compiled || x < 0 || x >= plan->n_values) {
        tw_fail(plan->ctx, TW_ERROR_ARGUMENT,
                "plan: %s: expected a compiled plan and a value of it", what);
        return NULL;
    }
    const tw_value_info *info = &plan->values[x], *root = &plan->values[info->root];
    if (root->kind != TW_VALUE_OUTSIDE && !root->kept) {
        tw_fail(plan->ctx, TW_ERROR_ARGUMENT, "plan: %s: the value is not kept (tw_plan_keep)",
                what);
        return NULL;
    }
    if (bytes != tw_desc_bytes(&info->desc)) {
        tw_fail(plan->ctx, TW_ERROR_ARGUMENT, "plan: %s: expected %zu bytes, got %zu", what,
                tw_desc_bytes(&info->desc), bytes);
        return NULL;
    }
    if (!root->address) {
        tw_fail(plan->ctx, TW_ERROR_ARGUMENT, "plan: %s: the value is never computed", what);
        return NULL;
    }
    return (char *)root->address + info->root_offset;
}

tw_status tw_plan_write(tw_plan *plan, tw_value x, const void *host, size_t bytes) {
    if (!plan || !host) return tw_fail(NULL, TW_ERROR_ARGUMENT, "plan: write: a null pointer");
    void *address = stored(plan, "write", x, bytes);
    if (!address) return TW_ERROR_ARGUMENT;
    return plan->backend->upload(plan->backend, address, host, bytes);
}

void *tw_plan_address(tw_plan *plan, tw_value x) {
    return stored(plan, "address", x,
                  x >= 0 && x < plan->n_values ? tw_desc_bytes(&plan->values[x].desc) : 0);
}

tw_status tw_plan_feed(tw_plan *plan, tw_value x, const void *host, size_t bytes) {
    tw_backend *b = plan->backend;
    void *address = stored(plan, "write", x, bytes);
    if (!address) return TW_ERROR_ARGUMENT;
    return (b->feed ? b->feed : b->upload)(b, address, host, bytes);
}

tw_status tw_plan_read(tw_plan *plan, tw_value x, void *host, size_t bytes) {
    if (!plan || !host) return tw_fail(NULL, TW_ERROR_ARGUMENT, "plan: read: a null pointer");
    void *address = stored(plan, "read", x, bytes);
    if (!address) return TW_ERROR_ARGUMENT;
    return plan->backend->download(plan->backend, host, address, bytes);
}

/* A debug run spoils what nobody reads any more. */
static tw_status poison_dead(tw_plan *plan, int step) {
    tw_backend *b = plan->backend;
    for (int v = 0; v < plan->n_values; v++) {
        const tw_value_info *info = &plan->values[v];
        if (info->kind == TW_VALUE_INTERMEDIATE && info->address && !info->kept &&
            info->last == step)
            TW_TRY(b->fill(b, info->address, 0xff, tw_desc_bytes(&info->desc)));
    }
    return TW_OK;
}

static tw_status run_steps(tw_plan *plan, tw_step_watch watch, void *user) {
    tw_backend *b = plan->backend;
    for (int i = 0; i < plan->n_steps; i++) {
        tw_step *step = &plan->steps[i];
        const double start = plan->seconds ? b->clock(b) : 0;
        TW_TRY(step->kernel.run(&step->kernel, b, step->addresses,
                                step->kernel.workspace ? (char *)plan->arena + step->workspace
                                                       : NULL));
        if (plan->seconds) plan->seconds[i] += b->clock(b) - start;
        if (watch) TW_TRY(watch(user, plan, i));
        if (plan->ctx->poison) TW_TRY(poison_dead(plan, i));
    }
    return TW_OK;
}

/* What a run calls is the same every time: addresses are fixed by the compilation. Only what
 * kernels make of constant operands differs, after these have changed. */
static bool can_replay(const tw_plan *plan) {
    const bool remakes = plan->held_bytes > 0 && plan->backend->parameters_changed;
    return plan->backend->record && !plan->backend->plain && plan->ran && !plan->unrecordable &&
           !remakes && !plan->seconds && !plan->ctx->poison;
}

static tw_status record_run(tw_plan *plan) {
    tw_backend *b = plan->backend;
    TW_TRY(b->record(b));
    const tw_status s = run_steps(plan, NULL, NULL), ended = b->recorded(b, &plan->recording);
    if (s == TW_OK || ended != TW_OK) return ended;
    b->forget(b, plan->recording);
    plan->recording = NULL;
    return s;
}

static tw_status replay(tw_plan *plan) {
    if (!plan->recording && record_run(plan) != TW_OK) {
        tw_log(plan->ctx, TW_LOG_WARNING, "a plan runs call by call, which is slower: %s",
               plan->ctx->error);
        plan->unrecordable = true;
        return run_steps(plan, NULL, NULL);
    }
    return plan->backend->replay(plan->backend, plan->recording);
}

tw_status tw_plan_run(tw_plan *plan) {
    return tw_plan_run_watched(plan, NULL, NULL);
}

tw_status tw_plan_run_watched(tw_plan *plan, tw_step_watch watch, void *user) {
    if (!plan || !plan->compiled)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: run: the plan is not compiled");
    tw_backend *b = plan->backend;
    if (b->plans_only)
        return tw_fail(plan->ctx, TW_ERROR_ARGUMENT, "plan: run: this context only plans");
    TW_TRY(b->begin(b));
    b->parameters_changed = plan->stale || !plan->holds;
    const tw_status s = !watch && can_replay(plan) ? replay(plan) : run_steps(plan, watch, user);
    b->end(b);
    plan->ran = plan->ran || s == TW_OK;
    plan->stale = s != TW_OK;
    plan->timed_runs++;
    return s;
}

tw_status tw_plan_get_stats(const tw_plan *plan, tw_plan_stats *out) {
    if (!plan || !plan->compiled)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: stats: the plan is not compiled");
    tw_plan_stats stats = {.size = sizeof stats,
                           .arena_bytes = plan->arena_bytes,
                           .unshared_bytes = plan->unshared_bytes,
                           .owned_bytes = plan->owned_bytes,
                           .launches = plan->n_steps};
    for (int i = 0; i < plan->n_nodes; i++) {
        if (!plan->nodes[i].live) continue;
        stats.operations++;
        stats.flops += tw_node_flops(plan, &plan->nodes[i]);
    }
    return tw_options_write(plan->ctx, "plan stats", out, &stats, sizeof stats);
}

int tw_plan_provider_launches(const tw_plan *plan, const char *provider) {
    int n = 0;
    if (!plan || !provider) return 0;
    for (int i = 0; i < plan->n_steps; i++)
        n += strcmp(plan->steps[i].provider->name, provider) == 0;
    return n;
}

int tw_plan_shape(const tw_plan *plan, tw_value x, int64_t *shape) {
    if (!plan || !shape || x < 0 || x >= plan->n_values) return -1;
    memcpy(shape, plan->values[x].desc.dim, sizeof plan->values[x].desc.dim);
    return plan->values[x].desc.rank;
}
