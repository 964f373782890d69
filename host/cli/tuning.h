/* --tune: choices of providers by the clock, and where they are kept. */
#ifndef TW_CLI_TUNING_H
#define TW_CLI_TUNING_H

#include "cli/options.h"
#include "core/context.h"

#define CLI_TUNING_FILE "providers.json"

/* Begins with what `file` has (null: nothing) if --tune is given. 0, or an exit status after the
 * error line. */
int cli_tune(const cli_args *args, tw_context *ctx, const char *file);
/* Writes what was chosen, if --tune is given and something was. */
int cli_keep_tuning(const cli_args *args, tw_context *ctx, const char *file);

/* providers.json in tweedie's folder of $XDG_CACHE_HOME or ~/.cache, into out[size]; false without
 * either. Keeping makes the folder. */
bool cli_tuning_cache(char *out, size_t size);

#endif
