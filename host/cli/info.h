/* What the files of `tweedie info` share. */
#ifndef TW_CLI_INFO_H
#define TW_CLI_INFO_H

#include <jansson.h>

#include "cli/cli.h"

#define CLI_PLAN_BATCHES 65536 /* the largest batch that is looked at */

/* Prints the document, which may be null, and frees it. */
int cli_print_json(json_t *document);

/* info --plan: the memory of a batch by what it is for, and the largest batch that fits. The
 * context only plans afterwards. */
int cli_info_plan(const cli_args *args, tw_context *ctx);

#endif
