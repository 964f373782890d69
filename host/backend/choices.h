/* What compilations have decided on a backend: how many operations each provider executes, and
 * which regions one that was asked has refused, and why. */
#ifndef TW_BACKEND_CHOICES_H
#define TW_BACKEND_CHOICES_H

#include "backend/op.h"

#define TW_PROVIDERS_MAX 4  /* of a backend */
#define TW_REFUSALS_MAX 16  /* that are kept apart */
#define TW_REFUSAL_TEXT 192 /* bytes */

typedef struct tw_refusal {
    const char *provider;         /* its name, which outlives the backend */
    char reason[TW_REFUSAL_TEXT]; /* without the operation's name */
    int count;                    /* regions */
} tw_refusal;

typedef struct tw_choices {
    int operations[TW_PROVIDERS_MAX][TW_OP_COUNT]; /* by the provider's place in the list */
    tw_refusal refusals[TW_REFUSALS_MAX];
    int n_refusals;
    int others; /* regions that were refused for reasons that found no place */
    int tuned;  /* regions that were decided by the clock */
    int timed;  /* distinct ones that it was asked for now */
} tw_choices;

/* One more region that `provider` refused with this text, which may begin with the name of an
 * operation. Without a text nothing is kept: it is not the provider's trade. */
void tw_choices_refused(tw_choices *choices, const char *provider, const char *text);

#endif
