#include "cli/signals.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static volatile sig_atomic_t waiting, caught;

static void on_signal(int number) {
    static const char line[] = "tweedie: interrupted\n";
    (void)number;
    if (waiting && !caught) {
        caught = 1;
        return;
    }
    if (!waiting && write(STDERR_FILENO, line, sizeof line - 1) < 0) _exit(CLI_INTERRUPTED);
    _exit(CLI_INTERRUPTED);
}

/* What the caller ignores, as a shell does for a program in the background, stays ignored. */
static void catch_one(int number) {
    struct sigaction action, before;
    if (sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN) return;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void cli_signals_begin(void) {
    catch_one(SIGINT);
    catch_one(SIGTERM);
    catch_one(SIGHUP); /* the terminal is gone, as when a connection breaks */
}

void cli_signals_catch(void) {
    waiting = 1;
    signal(SIGPIPE, SIG_IGN);
}

bool cli_signals_unread(void) {
    struct pollfd out = {STDOUT_FILENO, POLLOUT, 0};
    return ferror(stdout) && poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

bool cli_signals_stop(void) {
    return caught != 0 || cli_signals_unread();
}
