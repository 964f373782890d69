/* Ctrl-C, SIGTERM and SIGHUP. At first one ends the process at once, with a line and status 130:
 * nothing is written then but whole files. After cli_signals_catch() the first asks the run to
 * stop, and a second one ends the process. Nobody who reads stdout any more asks it to stop, too.
 */
#ifndef TW_CLI_SIGNALS_H
#define TW_CLI_SIGNALS_H

#include <stdbool.h>

/* Called once, before everything else. */
void cli_signals_begin(void);
/* From now on the caller looks at cli_signals_stop(). */
void cli_signals_catch(void);
bool cli_signals_stop(void);
/* Whether a line did not reach stdout because its reader is gone, as `head` goes. */
bool cli_signals_unread(void);

#endif
