#include "backend/choices.h"

#include <stdio.h>
#include <string.h>

/* One reason is one reason, whatever operation it was given for. */
static const char *without_operation(const char *text) {
    for (int i = 0; i < TW_OP_COUNT; i++) {
        const char *name = tw_op_name((tw_op_kind)i);
        const size_t n = strlen(name);
        if (strncmp(text, name, n) == 0 && strncmp(text + n, ": ", 2) == 0) return text + n + 2;
    }
    return text;
}

void tw_choices_refused(tw_choices *choices, const char *provider, const char *text) {
    char reason[TW_REFUSAL_TEXT];
    if (!*text) return;
    snprintf(reason, sizeof reason, "%.*s", TW_REFUSAL_TEXT - 1, without_operation(text));
    for (int i = 0; i < choices->n_refusals; i++) {
        tw_refusal *r = &choices->refusals[i];
        if (strcmp(r->provider, provider) != 0 || strcmp(r->reason, reason) != 0) continue;
        r->count++;
        return;
    }
    if (choices->n_refusals == TW_REFUSALS_MAX) {
        choices->others++;
        return;
    }
    tw_refusal *r = &choices->refusals[choices->n_refusals++];
    r->provider = provider;
    memcpy(r->reason, reason, sizeof reason);
    r->count = 1;
}
