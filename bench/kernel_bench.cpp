// kernel_bench [--plan] [--filter TEXT] [--json FILE] [--quick]
// Measures every kernel of the plan on a GPU; without one prints the plan.
#include "measure.h"

#include <cstring>

int main(int argc, char **argv) {
    bench::Options options;
    bool plan_only = false;
    for (int i = 1; i < argc; i++) {
        const bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--plan"))
            plan_only = true;
        else if (!strcmp(argv[i], "--quick"))
            options.quick = true;
        else if (!strcmp(argv[i], "--filter") && more)
            options.filter = argv[++i];
        else if (!strcmp(argv[i], "--json") && more)
            options.json = argv[++i];
        else {
            fprintf(stderr,
                    "kernel_bench: %s: expected --plan, --quick, --filter TEXT or --json "
                    "FILE\n",
                    argv[i]);
            return 2;
        }
    }
    std::vector<bench::Row> rows;
    for (const bench::Row &r : bench::plan())
        if (r.name.find(options.filter) != std::string::npos) rows.push_back(r);
    if (rows.empty()) {
        fprintf(stderr, "kernel_bench: --filter: no row's name contains \"%s\"\n",
                options.filter.c_str());
        return 2;
    }
#ifdef TW_BENCH_DEVICE
    if (!plan_only) {
        const int status = bench::measure(rows, options);
        if (status != 2) return status;
    }
#else
    if (!plan_only) fprintf(stderr, "kernel_bench: built without CUDA: the plan only\n");
#endif
    fputs(bench::page(rows).c_str(), stdout);
    return 0;
}
