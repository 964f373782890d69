#include "cli/tuning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "io/file.h"

/* Where a run is taken to what has no choice, what it was begun with says nothing. */
int cli_tune(const cli_args *args, tw_context *ctx, const char *file) {
    const bool asked = cli_source_of(args, "tune") == CLI_FROM_USER;
    const bool gpu = tw_context_device(ctx) == TW_DEVICE_CUDA;
    if (!cli_flag(args, "tune")) return CLI_OK;
    if (!gpu && asked)
        return cli_fail("--tune: it times a GPU's providers against each other, and this runs on "
                        "the CPU (%s)",
                        tw_context_device_name(ctx));
    if (gpu && asked && cli_choice(args, "provider") != 0)
        return cli_usage("--tune: it chooses the provider, and --provider %s has chosen",
                         cli_text(args, "provider"));
    if (!gpu || cli_choice(args, "provider") != 0) return CLI_OK;
    const tw_status s = tw_context_tune(ctx, file);
    return s == TW_OK ? CLI_OK : cli_fail_status(ctx, s);
}

static tw_status make_folder(tw_context *ctx, const char *file) {
    char folder[4096];
    const char *slash = strrchr(file, '/');
    const size_t n = slash ? (size_t)(slash - file) : 0;
    if (n == 0 || n >= sizeof folder) return TW_OK;
    memcpy(folder, file, n);
    folder[n] = '\0';
    return tw_directory_make(ctx, folder);
}

int cli_keep_tuning(const cli_args *args, tw_context *ctx, const char *file) {
    if (!cli_flag(args, "tune") || tw_context_device(ctx) != TW_DEVICE_CUDA) return CLI_OK;
    tw_status s = make_folder(ctx, file);
    if (s == TW_OK) s = tw_context_save_tuning(ctx, file);
    return s == TW_OK ? CLI_OK : cli_fail_status(ctx, s);
}

bool cli_tuning_cache(char *out, size_t size) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (cache && *cache == '/')
        n = snprintf(out, size, "%s/tweedie/providers.json", cache);
    else if (home && *home == '/')
        n = snprintf(out, size, "%s/.cache/tweedie/providers.json", home);
    return n >= 0 && (size_t)n < size;
}
