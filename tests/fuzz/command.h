/* Calling the command's parts: what they print on stderr is kept and looked at. */
#ifndef TW_FUZZ_COMMAND_H
#define TW_FUZZ_COMMAND_H

/* Forgets what was printed. */
void fuzz_stderr_clear(void);
/* `rc` is an exit status: 0 printed nothing, 1 and 2 one line that begins with the program's name.
 */
void fuzz_check_exit(int rc);

#endif
