#include "cli/schedules.h"

#include <string.h>

#include "core/context.h"
#include "diffusion/scheduler_config.h"
#include "io/file.h"
#include "io/json.h"
#include "models/path.h"

int cli_schedule_named(tw_context *ctx, const cli_args *args, const char *option, const char *name,
                       tw_schedule **out) {
    tw_schedule_options o = TW_SCHEDULE_OPTIONS_INIT;
    if (tw_beta_schedule_parse(name, &o.kind) != TW_OK)
        return cli_usage("--%s: expected linear, scaled_linear, squaredcos_cap_v2 or sigmoid, got "
                         "\"%s\"",
                         option, name);
    o.steps = cli_int(args, "training-steps");
    o.beta_start = cli_real(args, "beta-start");
    o.beta_end = cli_real(args, "beta-end");
    o.zero_terminal_snr = cli_flag(args, "rescale-zero-snr");
    if (o.beta_start > o.beta_end)
        return cli_usage("--beta-start: expected at most --beta-end, which is %s, got \"%s\"",
                         cli_text(args, "beta-end"), cli_text(args, "beta-start"));
    const tw_status s = tw_schedule_create(ctx, &o, out);
    return s == TW_OK ? CLI_OK
                      : cli_fail_status(ctx, tw_fail_prefix(ctx, s, "--%s: %s", option, name));
}

static int read_schedule(tw_context *ctx, const char *path, tw_schedule **out) {
    char *text = NULL;
    tw_scheduler_config config;
    tw_status s = tw_file_read(ctx, path, TW_JSON_TEXT_MAX, &text, NULL);
    if (s != TW_OK) return cli_fail_status(ctx, s);
    s = tw_scheduler_config_parse(ctx, text, path, &config);
    tw_free(ctx, text);
    if (s != TW_OK) return cli_fail_status(ctx, s);
    s = tw_schedule_create(ctx, &config.schedule, out);
    if (s != TW_OK) tw_fail_prefix(ctx, s, "%s", path);
    tw_scheduler_config_free(ctx, &config);
    return s == TW_OK ? CLI_OK : cli_fail_status(ctx, s);
}

int cli_schedule_of_model(tw_context *ctx, const cli_args *args, tw_schedule **out) {
    static const char *const places[] = {"scheduler/scheduler_config.json",
                                         "scheduler_config.json"};
    const char *folder = cli_text(args, "model");
    tw_path path;
    if (!tw_directory_exists(folder)) return cli_fail("--model: there is no folder %s", folder);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const tw_status s = tw_path_join(ctx, folder, places[i], &path);
        if (s != TW_OK) return cli_fail_status(ctx, s);
        if (tw_file_exists(path.text)) return read_schedule(ctx, path.text, out);
    }
    return cli_fail("--model: %s has no scheduler_config.json, neither there nor in its folder "
                    "scheduler",
                    folder);
}

int cli_schedule_of_file(tw_context *ctx, const cli_args *args, tw_schedule **out) {
    return read_schedule(ctx, cli_text(args, "scheduler"), out);
}
