/* Which provider does how much of what a run compiled, and what one that was asked refused. */
#ifndef TW_CLI_CHOICES_H
#define TW_CLI_CHOICES_H

#include <jansson.h>

#include "backend/choices.h"
#include "core/context.h"

/* A line for each provider that does something, with the kinds of operation that it does most of,
 * and one for each reason of a refusal. The first column, indented by 2, is `width` wide. */
void cli_print_choices(const tw_context *ctx, const tw_choices *choices, int width);

/* {"chosen": {"own": {"conv2d": 3, ...}, ...},
 *  "refused": [{"provider", "reason", "regions"}, ...],
 *  "tuned": regions that were decided by the clock, "timed": distinct ones that it was asked for
 *  now}; null without memory. */
json_t *cli_choices_json(const tw_context *ctx, const tw_choices *choices);

#endif
