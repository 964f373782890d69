#include "cli/choices.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/progress.h"

#define KINDS_SHOWN 6
#define REFUSALS_SHOWN 4

typedef struct kind_count {
    tw_op_kind kind;
    int count;
} kind_count;

static int by_count(const void *a, const void *b) {
    const kind_count *x = a, *y = b;
    return x->count != y->count ? y->count - x->count : (int)x->kind - (int)y->kind;
}

/* The kinds that occur, the most frequent first; their number. */
static int kinds_of(const int *operations, kind_count *out) {
    int n = 0;
    for (int i = 0; i < TW_OP_COUNT; i++)
        if (operations[i]) out[n++] = (kind_count){(tw_op_kind)i, operations[i]};
    qsort(out, (size_t)n, sizeof *out, by_count);
    return n;
}

static void print_provider(const char *name, const int *operations, const char *title, int width) {
    kind_count kinds[TW_OP_COUNT];
    const int n = kinds_of(operations, kinds);
    int others = 0;
    printf("  %-*s %s: ", width, title, name);
    for (int i = 0; i < n; i++) {
        if (i < KINDS_SHOWN || n == KINDS_SHOWN + 1)
            printf("%s%s %d", i ? ", " : "", tw_op_name(kinds[i].kind), kinds[i].count);
        else
            others += kinds[i].count;
    }
    if (others) printf(", %d more of %d kinds", others, n - KINDS_SHOWN);
    putchar('\n');
}

static void print_refusals(const tw_choices *c, int width) {
    int others = c->others;
    for (int i = 0; i < c->n_refusals; i++) {
        const tw_refusal *r = &c->refusals[i];
        if (i >= REFUSALS_SHOWN && c->n_refusals > REFUSALS_SHOWN + 1) {
            others += r->count;
            continue;
        }
        printf("  %-*s %s, %s region%s: %s\n", width, i ? "" : "refused", r->provider,
               cli_grouped(r->count).text, r->count == 1 ? "" : "s", r->reason);
    }
    if (others) printf("  %-*s %s more for other reasons\n", width, "", cli_grouped(others).text);
}

void cli_print_choices(const tw_context *ctx, const tw_choices *choices, int width) {
    const char *title = "chosen";
    for (int i = 0; tw_context_provider(ctx, i); i++) {
        kind_count kinds[TW_OP_COUNT];
        if (!kinds_of(choices->operations[i], kinds)) continue;
        print_provider(tw_context_provider(ctx, i), choices->operations[i], title, width);
        title = "";
    }
    if (choices->tuned || choices->timed)
        printf("  %-*s %s regions by the clock, %s of them timed now\n", width, "tuned",
               cli_grouped(choices->tuned).text, cli_grouped(choices->timed).text);
    print_refusals(choices, width);
}

json_t *cli_choices_json(const tw_context *ctx, const tw_choices *choices) {
    json_t *chosen = json_object(), *refused = json_array();
    for (int i = 0; tw_context_provider(ctx, i); i++) {
        json_t *counts = json_object();
        for (int k = 0; k < TW_OP_COUNT; k++)
            if (choices->operations[i][k])
                json_object_set_new(counts, tw_op_name((tw_op_kind)k),
                                    json_integer(choices->operations[i][k]));
        json_object_set_new(chosen, tw_context_provider(ctx, i), counts);
    }
    for (int i = 0; i < choices->n_refusals; i++) {
        const tw_refusal *r = &choices->refusals[i];
        json_array_append_new(refused, json_pack("{s:s, s:s, s:i}", "provider", r->provider,
                                                 "reason", r->reason, "regions", r->count));
    }
    return json_pack("{s:o, s:o, s:i, s:i}", "chosen", chosen, "refused", refused, "tuned",
                     choices->tuned, "timed", choices->timed);
}
