/* What the command was built from and runs on. */
#ifndef TW_CLI_MACHINE_H
#define TW_CLI_MACHINE_H

#include <jansson.h>
#include <stddef.h>

/* The commit of the source, "-dirty" behind it if the source was changed; "unknown". */
const char *cli_commit(void);

/* {"name", "cpu", "processors", "memory"}; null without memory. */
json_t *cli_host_json(void);

/* Bytes of memory that this process could have (all of the machine's or its control group's), and
 * those that are free for it; 0: not known. */
void cli_memory(double *total, double *available);

#endif
