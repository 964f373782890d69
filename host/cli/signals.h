/* Ctrl-C and SIGTERM: the first asks the run to stop, a second one ends the process at once. */
#ifndef TW_CLI_SIGNALS_H
#define TW_CLI_SIGNALS_H

#include <stdbool.h>

void cli_signals_catch(void);
bool cli_signals_stop(void);

#endif
