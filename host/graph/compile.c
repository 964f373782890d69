/* From a list of operations to a list of provider calls: what nobody needs is dropped, providers
 * claim regions, memory is laid out and allocated. */
#include "graph/internal.h"

#include <string.h>

static tw_value root_of(const tw_plan *plan, tw_value v) {
    return v == TW_NONE ? TW_NONE : plan->values[v].root;
}

/* A value that is made again counts as the one it stands for, and what makes it reads what that
 * one's maker has read: so both are stored, and joined with what follows, as they would be if there
 * were one, and have the same bits. */
static void count_use(tw_plan *plan, const tw_node *reader, tw_value root) {
    const tw_value origin = plan->values[root].origin;
    if (reader->origin >= 0 && origin != TW_NONE) return;
    plan->values[origin != TW_NONE ? origin : root].uses++;
}

/* A node lives if it writes something outside or something that a living node or the caller reads.
 */
static void mark_live(tw_plan *plan) {
    for (int i = 0; i < plan->n_nodes; i++) plan->nodes[i].live = false;
    for (int v = 0; v < plan->n_values; v++) plan->values[v].uses = 0;
    for (int v = 0; v < plan->n_values; v++)
        plan->values[v].needed = plan->values[v].kept || plan->values[v].kind == TW_VALUE_OUTSIDE;
    for (int i = plan->n_nodes - 1; i >= 0; i--) {
        tw_node *node = &plan->nodes[i];
        for (int k = 0; k < node->n_out; k++)
            if (node->out[k] != TW_NONE && plan->values[root_of(plan, node->out[k])].needed)
                node->live = true;
        if (!node->live) continue;
        for (int k = 0; k < node->n_in; k++)
            if (node->in[k] != TW_NONE) {
                const tw_value root = root_of(plan, node->in[k]);
                plan->values[root].needed = true;
                count_use(plan, node, root);
            }
    }
    for (int v = 0; v < plan->n_values; v++)
        if (plan->values[v].origin != TW_NONE)
            plan->values[v].uses = plan->values[plan->values[v].origin].uses;
}

static bool takes(const tw_plan *plan, const tw_node *node, tw_value v) {
    for (int k = 0; k < node->n_in; k++)
        if (node->in[k] == v && plan->values[v].kind == TW_VALUE_INTERMEDIATE) return true;
    return false;
}

/* The next living node after `i`, or n_nodes. */
static int next_live(const tw_plan *plan, int i) {
    do i++;
    while (i < plan->n_nodes && !plan->nodes[i].live);
    return i;
}

/* Whether two nodes next to each other may be one region: what is done again only as it was done
 * first. */
static bool joins(const tw_plan *plan, int node, int next) {
    const int a = plan->nodes[node].origin, b = plan->nodes[next].origin;
    return a < 0 ? b < 0 : b >= 0 && next_live(plan, a) == b;
}

/* What compilation allocates is aligned as the arena is. */
static int alignment_of(const tw_plan *plan, const tw_value_info *info) {
    const tw_value_info *root = &plan->values[info->root];
    const uintptr_t at = root->kind == TW_VALUE_OUTSIDE ? (uintptr_t)root->address : 0;
    const uintptr_t bits = (at + info->root_offset) | TW_MEMORY_ALIGNMENT;
    return (int)(bits & -bits);
}

static int add_slot(const tw_plan *plan, tw_region *region, tw_value *values, tw_value v) {
    if (v == TW_NONE) return -1;
    for (int i = 0; i < region->n_slots; i++)
        if (values[i] == v) return i;
    values[region->n_slots] = v;
    region->slots[region->n_slots].alignment = alignment_of(plan, &plan->values[v]);
    region->slots[region->n_slots].desc = plan->values[v].desc;
    region->slots[region->n_slots].needed = true;
    region->slots[region->n_slots].constant = plan->holds && plan->values[v].parameter;
    return region->n_slots++;
}

static void add_op(const tw_plan *plan, tw_region *region, tw_value *values, const tw_node *node) {
    tw_region_op *op = &region->ops[region->n_ops++];
    op->kind = node->kind;
    op->attr = node->attr;
    op->n_in = node->n_in;
    op->n_out = node->n_out;
    for (int k = 0; k < node->n_in; k++) op->in[k] = add_slot(plan, region, values, node->in[k]);
    for (int k = 0; k < node->n_out; k++) op->out[k] = add_slot(plan, region, values, node->out[k]);
}

/* What only the next operation of the chain reads need not be stored. */
static void hide(const tw_plan *plan, tw_region *region, const tw_value *values) {
    for (int k = 0; k + 1 < region->n_ops; k++) {
        const tw_region_op *op = &region->ops[k], *next = &region->ops[k + 1];
        for (int o = 0; o < op->n_out; o++) {
            if (op->out[o] < 0) continue;
            const tw_value_info *info = &plan->values[values[op->out[o]]];
            int inside = 0;
            for (int j = 0; j < next->n_in; j++) inside += next->in[j] == op->out[o];
            if (info->kind == TW_VALUE_INTERMEDIATE && !info->kept && info->uses == inside)
                region->slots[op->out[o]].needed = false;
        }
    }
}

/* The longest chain of nodes from `first` on, as a region; `values` gets the value of each slot. */
static void make_region(const tw_plan *plan, int first, tw_region *region, tw_value *values) {
    memset(region, 0, sizeof *region);
    region->tf32 = plan->tf32;
    region->measures = tw_plan_fuses(plan, TW_FUSION_NORM_STATISTICS);
    int i = first, last = first;
    tw_value last_out = TW_NONE;
    while (i < plan->n_nodes && region->n_ops < TW_REGION_MAX_OPS) {
        const tw_node *node = &plan->nodes[i];
        if (region->n_ops > 0 &&
            (last_out == TW_NONE || !takes(plan, node, last_out) || !joins(plan, last, i) ||
             !tw_plan_links(plan, plan->nodes[last].kind, node->kind)))
            break;
        add_op(plan, region, values, node);
        last_out = node->out[0];
        last = i;
        i = next_live(plan, i);
    }
    hide(plan, region, values);
}

static void record_choice(tw_backend *b, const tw_region *region, const tw_step *step) {
    int place = 0;
    while (b->providers[place] && b->providers[place] != step->provider) place++;
    for (int k = 0; k < step->kernel.claimed && k < region->n_ops; k++)
        b->choices.operations[place][region->ops[k].kind]++;
}

static tw_status claim(tw_plan *plan, const tw_region *region, tw_step *step) {
    tw_backend *b = plan->backend;
    const tw_provider *const *order = b->providers;
    char why[TW_ERROR_TEXT] = ""; /* of the last that refused and gave a reason */
    if (b->order) TW_TRY(b->order(b, region, &order));
    for (int i = 0; order[i]; i++) {
        plan->ctx->error[0] = 0;
        memset(&step->kernel, 0, sizeof step->kernel);
        tw_status s = order[i]->prepare(b, region, &step->kernel);
        if (s == TW_OK) {
            step->provider = order[i];
            record_choice(b, region, step);
            return TW_OK;
        }
        if (s != TW_ERROR_UNSUPPORTED) return s;
        tw_choices_refused(&b->choices, order[i]->name, plan->ctx->error);
        if (plan->ctx->error[0]) memcpy(why, plan->ctx->error, sizeof why);
    }
    return tw_fail(plan->ctx, TW_ERROR_UNSUPPORTED,
                   "plan: no provider of the %s backend runs %s with these shapes%s%s", b->name,
                   tw_op_name(region->ops[0].kind), *why ? ": " : "", why);
}

/* Whether a provider does `node` for one of those who read its result, too. Nothing is chosen yet.
 */
static tw_status reads_through(tw_plan *plan, int node, int reader, bool *does) {
    tw_backend *b = plan->backend;
    tw_region region = {.tf32 = plan->tf32};
    tw_value values[TW_REGION_MAX_SLOTS];
    add_op(plan, &region, values, &plan->nodes[node]);
    add_op(plan, &region, values, &plan->nodes[reader]);
    const int next = next_live(plan, reader);
    if (next < plan->n_nodes && takes(plan, &plan->nodes[next], plan->nodes[reader].out[0]))
        add_op(plan, &region, values, &plan->nodes[next]);
    hide(plan, &region, values);
    for (int k = 0; k < region.ops[0].n_out; k++) region.slots[region.ops[0].out[k]].needed = false;
    *does = false;
    for (int i = 0; b->providers[i] && !*does; i++) {
        tw_kernel kernel = {0};
        const tw_status s = b->providers[i]->prepare(b, &region, &kernel);
        if (s == TW_ERROR_UNSUPPORTED) continue;
        TW_TRY(s);
        *does = kernel.claimed > 1;
        if (kernel.destroy) kernel.destroy(&kernel, b);
    }
    return TW_OK;
}

static tw_status choose(tw_plan *plan) {
    plan->steps = tw_allocate(plan->ctx, (size_t)plan->n_nodes + 1, sizeof *plan->steps);
    if (!plan->steps) return TW_ERROR_MEMORY;
    tw_region region;
    tw_value values[TW_REGION_MAX_SLOTS];
    for (int i = next_live(plan, -1); i < plan->n_nodes;) {
        make_region(plan, i, &region, values);
        tw_step *step = &plan->steps[plan->n_steps];
        TW_TRY(claim(plan, &region, step));
        plan->n_steps++; /* from here on tw_plan_free destroys the kernel */
        plan->owned_bytes += step->kernel.held;
        plan->held_bytes += step->kernel.held;
        int claimed = step->kernel.claimed;
        if (claimed < 1 || claimed > region.n_ops)
            return tw_fail(plan->ctx, TW_ERROR_INTERNAL, "plan: %s claimed %d of %d operations",
                           step->provider->name, claimed, region.n_ops);
        step->first_node = i;
        step->n_slots = region.n_slots;
        step->values = tw_allocate(plan->ctx, (size_t)region.n_slots + 1, sizeof *step->values);
        step->addresses =
            tw_allocate(plan->ctx, (size_t)region.n_slots + 1, sizeof *step->addresses);
        if (!step->values || !step->addresses) return TW_ERROR_MEMORY;
        for (int k = 0; k < region.n_slots; k++) step->values[k] = TW_NONE;
        for (int k = 0; k < claimed; k++) {
            const tw_region_op *op = &region.ops[k];
            for (int j = 0; j < op->n_in; j++)
                if (op->in[j] >= 0) step->values[op->in[j]] = values[op->in[j]];
            for (int j = 0; j < op->n_out; j++) {
                if (op->out[j] < 0) continue;
                step->values[op->out[j]] = values[op->out[j]];
                if (k + 1 < claimed && !region.slots[op->out[j]].needed)
                    plan->values[values[op->out[j]]].virtual_ = true;
            }
            i = next_live(plan, i);
        }
    }
    return TW_OK;
}

static void measure_lives(tw_plan *plan) {
    for (int v = 0; v < plan->n_values; v++) {
        plan->values[v].first = -1;
        plan->values[v].last = -1;
    }
    for (int i = 0; i < plan->n_steps; i++)
        for (int k = 0; k < plan->steps[i].n_slots; k++) {
            tw_value v = root_of(plan, plan->steps[i].values[k]);
            if (v == TW_NONE) continue;
            if (plan->values[v].first < 0) plan->values[v].first = i;
            plan->values[v].last = i;
        }
    for (int v = 0; v < plan->n_values; v++)
        if (plan->values[v].kept) plan->values[v].last = plan->n_steps;
}

static tw_status place(tw_plan *plan) {
    int n = 0;
    tw_memory_item *items =
        tw_allocate(plan->ctx, (size_t)(plan->n_values + plan->n_steps) + 1, sizeof *items);
    if (!items) return TW_ERROR_MEMORY;
    for (int v = 0; v < plan->n_values; v++)
        if (tw_value_in_arena(&plan->values[v]))
            items[n++] = (tw_memory_item){tw_desc_bytes(&plan->values[v].desc), 0,
                                          plan->values[v].first, plan->values[v].last};
    for (int i = 0; i < plan->n_steps; i++)
        if (plan->steps[i].kernel.workspace)
            items[n++] = (tw_memory_item){plan->steps[i].kernel.workspace, 0, i, i};
    tw_status s = tw_memory_place(plan->ctx, items, n, &plan->arena_bytes);
    int at = 0;
    for (int v = 0; v < plan->n_values && s == TW_OK; v++)
        if (tw_value_in_arena(&plan->values[v])) plan->values[v].offset = items[at++].offset;
    for (int i = 0; i < plan->n_steps && s == TW_OK; i++)
        if (plan->steps[i].kernel.workspace) plan->steps[i].workspace = items[at++].offset;
    for (int i = 0; i < n; i++) plan->unshared_bytes += items[i].bytes;
    tw_free(plan->ctx, items);
    return s;
}

static tw_status allocate(tw_plan *plan) {
    tw_backend *b = plan->backend;
    if (plan->arena_bytes) {
        TW_TRY(b->allocate(b, plan->arena_bytes, &plan->arena));
        if (plan->ctx->poison) TW_TRY(b->fill(b, plan->arena, 0xff, plan->arena_bytes));
    }
    for (int v = 0; v < plan->n_values; v++) {
        tw_value_info *info = &plan->values[v];
        if (tw_value_in_arena(info)) info->address = (char *)plan->arena + info->offset;
        if (info->kind != TW_VALUE_OUTSIDE || info->address) continue;
        size_t bytes = tw_desc_bytes(&info->desc);
        TW_TRY(b->allocate(b, bytes, &info->address));
        info->owned = true;
        TW_TRY(b->fill(b, info->address, 0, bytes));
        plan->owned_bytes += bytes;
    }
    for (int i = 0; i < plan->n_steps; i++) {
        tw_step *step = &plan->steps[i];
        for (int k = 0; k < step->n_slots; k++) {
            if (step->values[k] == TW_NONE) continue;
            const tw_value_info *info = &plan->values[step->values[k]];
            char *base = plan->values[info->root].address;
            step->addresses[k] = base ? base + info->root_offset : NULL;
        }
    }
    return TW_OK;
}

tw_status tw_plan_compile(tw_plan *plan) {
    if (!plan) return tw_fail(NULL, TW_ERROR_ARGUMENT, "plan: compile: no plan");
    if (plan->status != TW_OK)
        return tw_fail(plan->ctx, plan->status, "plan: %s",
                       plan->error ? plan->error : tw_status_name(plan->status));
    if (plan->compiled)
        return tw_fail(plan->ctx, TW_ERROR_ARGUMENT, "plan: compile: it is compiled already");
    char earlier[TW_ERROR_TEXT]; /* providers' refusals are no failures */
    memcpy(earlier, plan->ctx->error, sizeof earlier);
    mark_live(plan);
    tw_status s = tw_plan_spread(plan, reads_through);
    if (s == TW_OK) {
        mark_live(plan);
        s = choose(plan);
    }
    if (s == TW_OK) {
        memcpy(plan->ctx->error, earlier, sizeof earlier);
        measure_lives(plan);
        s = place(plan);
    }
    if (s == TW_OK) s = allocate(plan);
    if (s != TW_OK) {
        /* Half a compilation is of no use: the plan can only be freed. */
        plan->status = s;
        plan->error = tw_strdup(plan->ctx, "an earlier compilation failed");
        return s;
    }
    plan->compiled = plan->stale = true;
    return TW_OK;
}
