#include "core/options.h"

#include <string.h>

tw_status tw_options_read(tw_context *ctx, const char *what, void *defaults, size_t size,
                          const void *options) {
    if (!options) return TW_OK;
    size_t given;
    memcpy(&given, options, sizeof given);
    if (given <= sizeof given || given > size)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "%s: options of %zu bytes, expected at most %zu; start from the _INIT macro",
                       what, given, size);
    memcpy(defaults, options, given);
    memcpy(defaults, &size, sizeof size);
    return TW_OK;
}

tw_status tw_options_write(tw_context *ctx, const char *what, void *to, const void *from,
                           size_t size) {
    size_t room;
    if (!to) return tw_fail(ctx, TW_ERROR_ARGUMENT, "%s: no place for the result", what);
    memcpy(&room, to, sizeof room);
    if (room <= sizeof room || room > size)
        return tw_fail(ctx, TW_ERROR_ARGUMENT,
                       "%s: a struct of %zu bytes, expected at most %zu; set its size field", what,
                       room, size);
    memcpy((char *)to + sizeof room, (const char *)from + sizeof room, room - sizeof room);
    return TW_OK;
}
