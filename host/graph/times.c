#include "graph/times.h"

#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

static const tw_op_class classes[TW_OP_COUNT] = {
    [TW_OP_LINEAR] = TW_CLASS_LINEAR,
    [TW_OP_LINEAR_BWD_DATA] = TW_CLASS_LINEAR,
    [TW_OP_LINEAR_BWD_WEIGHT] = TW_CLASS_LINEAR,
    [TW_OP_CONV2D] = TW_CLASS_CONVOLUTION,
    [TW_OP_CONV2D_BWD_DATA] = TW_CLASS_CONVOLUTION,
    [TW_OP_CONV2D_BWD_WEIGHT] = TW_CLASS_CONVOLUTION,
    [TW_OP_GROUP_NORM] = TW_CLASS_NORM,
    [TW_OP_GROUP_NORM_BWD] = TW_CLASS_NORM,
    [TW_OP_ACT] = TW_CLASS_ELEMENTWISE,
    [TW_OP_ACT_BWD] = TW_CLASS_ELEMENTWISE,
    [TW_OP_AXPBY] = TW_CLASS_ELEMENTWISE,
    [TW_OP_ADD_VEC] = TW_CLASS_ELEMENTWISE,
    [TW_OP_SUM_SPATIAL] = TW_CLASS_ELEMENTWISE,
    [TW_OP_PER_SAMPLE_SCALE] = TW_CLASS_ELEMENTWISE,
    [TW_OP_CONCAT] = TW_CLASS_ELEMENTWISE,
    [TW_OP_SPLIT] = TW_CLASS_ELEMENTWISE,
    [TW_OP_UPSAMPLE_NEAREST] = TW_CLASS_ELEMENTWISE,
    [TW_OP_POOL] = TW_CLASS_ELEMENTWISE,
    [TW_OP_DROPOUT] = TW_CLASS_ELEMENTWISE,
    [TW_OP_ATTENTION] = TW_CLASS_ATTENTION,
    [TW_OP_ATTENTION_BWD] = TW_CLASS_ATTENTION,
    [TW_OP_MSE] = TW_CLASS_LOSS,
    [TW_OP_MSE_BWD] = TW_CLASS_LOSS,
    [TW_OP_FILL] = TW_CLASS_ELEMENTWISE,
    [TW_OP_CONVERT] = TW_CLASS_ELEMENTWISE,
    [TW_OP_REPEAT_BATCH] = TW_CLASS_ELEMENTWISE,
    [TW_OP_NOISE] = TW_CLASS_LOSS,
    [TW_OP_SAMPLE_T] = TW_CLASS_LOSS,
    [TW_OP_COND_DROP] = TW_CLASS_LOSS,
    [TW_OP_FLIP] = TW_CLASS_LOSS,
    [TW_OP_FORWARD_NOISE] = TW_CLASS_LOSS,
    [TW_OP_NEXT_STEP] = TW_CLASS_LOSS,
    [TW_OP_SAMPLER_UPDATE] = TW_CLASS_SAMPLER,
    [TW_OP_THRESHOLD] = TW_CLASS_SAMPLER,
    [TW_OP_STEP_TIME] = TW_CLASS_SAMPLER,
    [TW_OP_GLOBAL_NORM] = TW_CLASS_OPTIMIZER,
    [TW_OP_ADAMW] = TW_CLASS_OPTIMIZER,
};

tw_op_class tw_op_class_of(tw_op_kind kind) {
    return classes[kind];
}

const char *tw_op_class_name(tw_op_class kind) {
    static const char *const names[TW_CLASS_COUNT] = {
        [TW_CLASS_OTHER] = "other",         [TW_CLASS_CONVOLUTION] = "convolution",
        [TW_CLASS_LINEAR] = "linear",       [TW_CLASS_ATTENTION] = "attention",
        [TW_CLASS_NORM] = "norm",           [TW_CLASS_ELEMENTWISE] = "elementwise",
        [TW_CLASS_LOSS] = "loss and noise", [TW_CLASS_SAMPLER] = "sampler",
        [TW_CLASS_OPTIMIZER] = "optimizer"};
    return (unsigned)kind < TW_CLASS_COUNT ? names[kind] : names[TW_CLASS_OTHER];
}

double tw_times_clock(tw_context *ctx) {
    return ctx->backend->clock(ctx->backend);
}

const char *tw_times_clock_name(const tw_context *ctx) {
    return ctx->backend->clock_name;
}

/* Calls of the same operations on the same shapes by the same provider. */
typedef struct row {
    char what[160];
    const char *provider;
    int calls;
    double seconds, flops;
} row;

static void add_shape(char *text, size_t size, const tw_plan *plan, tw_value v) {
    if (v == TW_NONE) return;
    const tw_desc *d = tw_plan_desc(plan, v);
    for (int i = 0; i < d->rank; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%lld", i ? "x" : " ", (long long)d->dim[i]);
    }
}

/* The operation `index` of those that a call executes; null past the last. */
static const tw_node *executed(const tw_plan *plan, const tw_step *step, int index) {
    if (index >= step->kernel.claimed) return NULL;
    for (int i = step->first_node; i < plan->n_nodes; i++)
        if (plan->nodes[i].live && index-- == 0) return &plan->nodes[i];
    return NULL;
}

/* "conv2d+axpby 64x28x28x32 32x3x3x32": what one call executes. */
static void describe(const tw_plan *plan, const tw_step *step, row *r) {
    r->what[0] = '\0';
    r->flops = 0;
    const tw_node *node;
    for (int i = 0; (node = executed(plan, step, i)); i++) {
        const size_t used = strlen(r->what);
        snprintf(r->what + used, sizeof r->what - used, "%s%s", i ? "+" : "",
                 tw_op_name(node->kind));
        r->flops += tw_node_flops(plan, node);
    }
    node = &plan->nodes[step->first_node];
    for (int k = 0; k < node->n_in && k < 2; k++)
        add_shape(r->what, sizeof r->what, plan, node->in[k]);
    if (node->n_out > 0) add_shape(r->what, sizeof r->what, plan, node->out[0]);
}

static int slowest_first(const void *a, const void *b) {
    const row *x = a, *y = b;
    if (x->seconds != y->seconds) return x->seconds < y->seconds ? 1 : -1;
    return strcmp(x->what, y->what);
}

tw_status tw_plan_start_times(tw_plan *plan) {
    if (!plan || !plan->compiled)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: times: the plan is not compiled");
    if (!plan->seconds) {
        plan->seconds = tw_allocate(plan->ctx, (size_t)plan->n_steps + 1, sizeof *plan->seconds);
        if (!plan->seconds) return TW_ERROR_MEMORY;
    }
    memset(plan->seconds, 0, (size_t)plan->n_steps * sizeof *plan->seconds);
    plan->timed_runs = 0;
    return TW_OK;
}

static void write_rows(const row *rows, int n, int most, double total, int64_t runs, FILE *file) {
    fprintf(file, "%9s %6s %6s %8s  %s\n", "ms", "share", "calls", "GFLOP/s", "operation");
    for (int i = 0; i < n && i < most; i++)
        fprintf(file, "%9.3f %5.1f%% %6d %8.1f  %s (%s)\n", 1e3 * rows[i].seconds / (double)runs,
                100 * rows[i].seconds / total, rows[i].calls,
                rows[i].seconds > 0 ? 1e-9 * rows[i].flops * (double)runs / rows[i].seconds : 0.0,
                rows[i].what, rows[i].provider);
    fprintf(file, "%9.3f ms in all\n", 1e3 * total / (double)runs);
}

tw_status tw_plan_write_times(const tw_plan *plan, int most, FILE *file) {
    if (!plan || !plan->seconds || plan->timed_runs < 1)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT, "plan: times: nothing measured");
    row *rows = tw_allocate(plan->ctx, (size_t)plan->n_steps + 1, sizeof *rows);
    if (!rows) return TW_ERROR_MEMORY;
    int n = 0;
    double total = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        row r = {
            .provider = plan->steps[i].provider->name, .calls = 1, .seconds = plan->seconds[i]};
        describe(plan, &plan->steps[i], &r);
        total += r.seconds;
        int at = 0;
        while (at < n && (strcmp(rows[at].what, r.what) != 0 || rows[at].provider != r.provider))
            at++;
        if (at == n) {
            rows[n++] = r;
            continue;
        }
        rows[at].calls++;
        rows[at].seconds += r.seconds;
        rows[at].flops += r.flops;
    }
    qsort(rows, (size_t)n, sizeof *rows, slowest_first);
    write_rows(rows, n, most, total > 0 ? total : 1, plan->timed_runs, file);
    tw_free(plan->ctx, rows);
    return TW_OK;
}

static void count_call(const tw_plan *plan, int index, tw_class_cost *out) {
    const tw_step *step = &plan->steps[index];
    tw_op_class kind = classes[plan->nodes[step->first_node].kind];
    double flops = 0, most = 0;
    const tw_node *node;
    for (int i = 0; (node = executed(plan, step, i)); i++) {
        const double own = tw_node_flops(plan, node);
        if (own > most || kind == TW_CLASS_ELEMENTWISE) { /* or what it is done beside */
            most = own;
            kind = classes[node->kind];
        }
        flops += own;
    }
    out[kind].calls++;
    out[kind].flops += flops;
    if (plan->seconds) out[kind].seconds += plan->seconds[index];
}

tw_status tw_plan_get_classes(const tw_plan *plan, tw_class_cost out[TW_CLASS_COUNT]) {
    if (!plan || !plan->compiled || !out)
        return tw_fail(plan ? plan->ctx : NULL, TW_ERROR_ARGUMENT,
                       "plan: classes: the plan is not compiled");
    memset(out, 0, TW_CLASS_COUNT * sizeof *out);
    for (int i = 0; i < plan->n_steps; i++) count_call(plan, i, out);
    return TW_OK;
}
