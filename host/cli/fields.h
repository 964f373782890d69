/* --set KEY=VALUE: fields of a network's and a scheduler's configuration, and options, by name. */
#ifndef TW_CLI_FIELDS_H
#define TW_CLI_FIELDS_H

#include "cli/options.h"

/* Checks the form of every value of --set and gives those of "options." to the options that they
 * name, as if they had been given themselves. 0, or 2 after the error line. */
int cli_fields_set_options(cli_args *args);

/* Puts the values for `part` ("model" or "scheduler") into its configuration, a JSON text that is
 * replaced and freed with free(); null stands for the scheduler's defaults. The field must be one
 * that the configuration's class has, the value of its type. With `keep` a value that is not
 * already there is refused: a run that goes on has the model that it has. 0, or an exit status
 * after the error line. */
int cli_fields_set_config(const cli_args *args, const char *part, bool keep, char **text);

#endif
