/* kernel_bench [--plan] [--filter TEXT] [--json FILE] [--quick] [--small] [--alone]
 *              [--compile] [--cudnn FILE] [--cublaslt FILE] [--from N] [--row-seconds N]
 * Measures every kernel of the plan on a GPU and compares it with float64 and, where cuDNN or
 * cuBLASLt has the same, with the quickest of its plans; without a GPU prints the plan. --small
 * takes twins of a few thousand elements: a look at whether everything runs. --alone leaves the
 * libraries out, whose choice takes seconds a row; --compile lets cuDNN compile engines for
 * convolutions, seconds each; --cudnn and --cublaslt name the libraries' files where the loader
 * would not find them. --from begins with that row and adds to the file of --json; with
 * --row-seconds a row that takes longer ends the program, see go_on.sh. */
#include <stdlib.h>
#include <string.h>

#include "measure.h"

typedef struct command {
    bench_options options;
    bool plan_only;
} command;

static bool parse(int argc, char **argv, command *c) {
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--plan"))
            c->plan_only = true;
        else if (!strcmp(argv[i], "--quick"))
            c->options.quick = true;
        else if (!strcmp(argv[i], "--small"))
            c->options.small = true;
        else if (!strcmp(argv[i], "--compile"))
            c->options.compile = true;
        else if (!strcmp(argv[i], "--alone"))
            c->options.alone = true;
        else if (!strcmp(argv[i], "--cudnn") && more)
            c->options.files.cudnn = argv[++i];
        else if (!strcmp(argv[i], "--cublaslt") && more)
            c->options.files.cublaslt = argv[++i];
        else if (!strcmp(argv[i], "--filter") && more)
            c->options.filter = argv[++i];
        else if (!strcmp(argv[i], "--json") && more)
            c->options.json = argv[++i];
        else if (!strcmp(argv[i], "--from") && more)
            c->options.from = strtoul(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--row-seconds") && more)
            c->options.row_seconds = (unsigned)strtoul(argv[++i], NULL, 10);
        else {
            fprintf(stderr,
                    "kernel_bench: %s: expected --plan, --quick, --small, --alone, --compile, "
                    "--filter TEXT, --json FILE, --cudnn FILE, --cublaslt FILE, --from N or "
                    "--row-seconds N\n",
                    argv[i]);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv) {
    static bench_row rows[BENCH_MAX_ROWS];
    command c = {.options = {.filter = ""}};
    if (!parse(argc, argv, &c)) return 2;
    const size_t all = bench_plan(rows);
    size_t count = 0;
    for (size_t i = 0; i < all; i++)
        if (strstr(rows[i].name, c.options.filter)) rows[count++] = rows[i];
    if (!count) {
        fprintf(stderr, "kernel_bench: --filter: no row's name contains \"%s\"\n",
                c.options.filter);
        return 2;
    }
#ifdef TW_BENCH_DEVICE
    if (!c.plan_only) {
        const int status = bench_measure(rows, count, &c.options);
        if (status != 2) return status;
    }
#else
    if (!c.plan_only) fprintf(stderr, "kernel_bench: built without CUDA: the plan only\n");
#endif
    bench_print_page(stdout, rows, count);
    return 0;
}
