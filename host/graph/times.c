#include "graph/times.h"

#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

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

/* "conv2d+axpby 64x28x28x32 32x3x3x32": what one call executes. */
static void describe(const tw_plan *plan, const tw_step *step, row *r) {
    r->what[0] = '\0';
    r->flops = 0;
    for (int i = step->first_node, done = 0; done < step->kernel.claimed && i < plan->n_nodes;
         i++) {
        if (!plan->nodes[i].live) continue;
        const size_t used = strlen(r->what);
        snprintf(r->what + used, sizeof r->what - used, "%s%s", done ? "+" : "",
                 tw_op_name(plan->nodes[i].kind));
        r->flops += tw_node_flops(plan, &plan->nodes[i]);
        done++;
    }
    const tw_node *node = &plan->nodes[step->first_node];
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
