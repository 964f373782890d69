#include "models/path.h"

#include <stdio.h>

tw_status tw_path_join(tw_context *ctx, const char *directory, const char *name, tw_path *out) {
    int n = snprintf(out->text, sizeof out->text, "%s%s%s", directory, *name ? "/" : "", name);
    if (n >= 0 && (size_t)n < sizeof out->text) return TW_OK;
    return tw_fail(ctx, TW_ERROR_IO, "%.64s...: the path is longer than %zu bytes", directory,
                   sizeof out->text - 1);
}
