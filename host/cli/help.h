/* Help made from the options' tables: for people, as JSON for programs, as a man page, and as
 * completion scripts. */
#ifndef TW_CLI_HELP_H
#define TW_CLI_HELP_H

#include <stdio.h>

#include "cli/options.h"

/* A command's usage, examples, options and notes, wrapped at the terminal's width. */
void cli_print_help(FILE *file, const cli_command *command);

/* All commands with their options. 0, or 1 after the error line. */
int cli_print_help_json(void);
/* The man page, in the man(7) format. */
void cli_print_man(void);

#endif
