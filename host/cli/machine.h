/* What the command was built from and runs on. */
#ifndef TW_CLI_MACHINE_H
#define TW_CLI_MACHINE_H

#include <jansson.h>
#include <stddef.h>

#include <tweedie/context.h>

#include "cli/options.h"

/* The commit of the source, "-dirty" behind it if the source was changed; "unknown". */
const char *cli_commit(void);

/* "optimised", "with assertions" or "with sanitizers". */
const char *cli_build_type(void);

/* A text, or what says that its bytes are no UTF-8. */
json_t *cli_text_json(const char *text);

/* The names, in order of preference. */
json_t *cli_providers_json(const tw_context *ctx);

/* This call of the command: {"time", "command", "folder", "tweedie", "commit", "host"}. */
json_t *cli_call_json(const cli_args *args);

/* {"name", "cpu", "processors", "memory"}; null without memory. */
json_t *cli_host_json(void);

/* Bytes of memory that this process could have (all of the machine's or its control group's), and
 * those that are free for it; 0: not known. */
void cli_memory(double *total, double *available);

#endif
