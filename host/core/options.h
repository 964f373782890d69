/* Option structs begin with their size, so that a caller built against older headers still works.
 */
#ifndef TW_CORE_OPTIONS_H
#define TW_CORE_OPTIONS_H

#include "core/context.h"

/* Copies the caller's `options` (null: nothing) over the defaults in `defaults`, which has `size`
 * bytes. Fails when the struct's size field is larger than `size` or too small to hold itself. */
tw_status tw_options_read(tw_context *ctx, const char *what, void *defaults, size_t size,
                          const void *options);

/* For structs that the library fills: copies as much of `from` as the caller's struct holds and
 * keeps the caller's size field. */
tw_status tw_options_write(tw_context *ctx, const char *what, void *to, const void *from,
                           size_t size);

#endif
