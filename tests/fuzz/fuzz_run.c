/* A run that is resumed, or begun from a configuration file: the files of the input are on the
 * disk, run.json or config.json among them. What is accepted is whole: a model's configuration and
 * options within their ranges. */
#include <string.h>

#include "cli/cli.h"
#include "cli/run.h"
#include "command.h"
#include "fuzz.h"
#include "io/json.h"

static void check_run(const cli_args *args, const cli_run *run) {
    json_t *model = NULL;
    FUZZ_CHECK(run->model);
    const tw_status s =
        tw_json_parse(fuzz_context(), run->model, strlen(run->model), "run.json", &model);
    FUZZ_CHECK(s == TW_OK || s == TW_ERROR_MEMORY);
    json_decref(model);
    for (const cli_option *o = args->command->options; o->name; o++) {
        if (!cli_text(args, o->name) || o->high < o->low) continue;
        const double v = o->type == CLI_INT    ? (double)cli_int(args, o->name)
                         : o->type == CLI_REAL ? cli_real(args, o->name)
                                               : o->low;
        FUZZ_CHECK(v >= o->low && v <= o->high);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *resumed[] = {"--out", "r", "--resume"}, *fresh[] = {"--out", "r", "--config", "c.json"};
    cli_args args;
    cli_run run;
    fuzz_disk_fill(data, size);
    const uint8_t *bytes;
    size_t length;
    const bool resume = fuzz_disk_get("r/run.json", &bytes, &length);
    FUZZ_CHECK(cli_parse(&cli_train_command, resume ? 3 : 4, resume ? resumed : fresh, &args) ==
               CLI_OK);
    fuzz_stderr_clear();
    const int rc = cli_run_open(&args, &run);
    fuzz_check_exit(rc);
    if (rc == CLI_OK) check_run(&args, &run);
    cli_run_close(&run);
    return 0;
}
