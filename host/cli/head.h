/* The first line of a run, and the parts of it that other lines use. */
#ifndef TW_CLI_HEAD_H
#define TW_CLI_HEAD_H

#include <tweedie/tweedie.h>

#include "cli/progress.h"

/* "cpu-onednn, cpu-reference" */
cli_words cli_providers(const tw_context *ctx);
/* "UNet 0.9 M" */
cli_words cli_model_words(const tw_model_info *info);
/* "tweedie 0.1 · CPU, 2 threads, fp32 · UNet 0.9 M · providers", and `more` after a separator if it
 * is not empty. */
void cli_print_head(const tw_context *ctx, const tw_model_info *info, const char *precision,
                    const char *more);

#endif
