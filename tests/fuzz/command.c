#include "command.h"

#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "fuzz.h"

static char text[8192];
static FILE *real;

void fuzz_stderr_clear(void) {
    if (!real) {
        real = stderr;
        stderr = fmemopen(text, sizeof text, "w");
        FUZZ_CHECK(stderr);
        setvbuf(stderr, NULL, _IONBF, 0);
    }
    rewind(stderr);
    text[0] = '\0';
}

void fuzz_check_exit(int rc) {
    const long length = ftell(stderr);
    if (rc == CLI_OK) {
        FUZZ_CHECK(length == 0);
        return;
    }
    FUZZ_CHECK(rc == CLI_FAILED || rc == CLI_USAGE);
    FUZZ_CHECK(length > 10 && (size_t)length < sizeof text);
    FUZZ_CHECK(!strncmp(text, "tweedie: ", 9));
    FUZZ_CHECK(memchr(text, '\n', (size_t)length) == text + length - 1);
}
