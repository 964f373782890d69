/* The words of a command line: what is accepted is within the options' ranges, anything else is one
 * line. The input's first byte picks the subcommand, newlines part the words. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "command.h"
#include "fuzz.h"

enum { WORDS = 32 };

static void check_numbers(const char *a, const char *b) {
    int64_t whole, again;
    double real, same;
    char printed[64];
    if (cli_parse_int(a, &whole)) {
        snprintf(printed, sizeof printed, "%lld", (long long)whole);
        FUZZ_CHECK(cli_parse_int(printed, &again) && again == whole);
        FUZZ_CHECK(cli_parse_real(a, &real) && real == (double)whole);
    }
    if (cli_parse_real(a, &real)) {
        snprintf(printed, sizeof printed, "%.17g", real);
        FUZZ_CHECK(isfinite(real) && cli_parse_real(printed, &same) && same == real);
    }
    const int d = cli_distance(a, b);
    FUZZ_CHECK(d >= 0 && d <= 9 && d == cli_distance(b, a));
    if (strlen(a) <= 40 && strlen(b) <= 40) FUZZ_CHECK((d == 0) == !strcmp(a, b));
}

static void check_options(const cli_args *args) {
    for (const cli_option *o = args->command->options; o->name; o++) {
        const char *value = cli_text(args, o->name);
        if (!value) continue;
        if (o->type == CLI_INT && o->high >= o->low) {
            const int64_t v = cli_int(args, o->name);
            FUZZ_CHECK((double)v >= o->low && (double)v <= o->high);
        }
        if (o->type == CLI_REAL && o->high >= o->low) {
            const double v = cli_real(args, o->name);
            FUZZ_CHECK(v >= o->low && v <= o->high);
        }
        if (o->type == CLI_CHOICE) FUZZ_CHECK(cli_choice(args, o->name) >= 0);
        if (o->type == CLI_FLAG) FUZZ_CHECK(!strcmp(value, "true") || !strcmp(value, "false"));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *words[WORDS];
    int n = 0, commands = 0;
    if (!size) return 0;
    while (cli_command_at(commands)) commands++;
    const cli_command *command = cli_command_at(*data % commands);
    char *text = fuzz_text(data + 1, size - 1), *rest = text;
    while (n < WORDS && rest) words[n++] = strsep(&rest, "\n");
    cli_args args;
    fuzz_stderr_clear();
    const int rc = cli_parse(command, n, words, &args);
    fuzz_check_exit(rc);
    if (rc == CLI_OK && !args.help) check_options(&args);
    check_numbers(words[0], words[n - 1]);
    free(text);
    return 0;
}
