/* What a call returns. The text that goes with a failure is kept by the context, see
 * tw_context_error(). */
#ifndef TWEEDIE_STATUS_H
#define TWEEDIE_STATUS_H

#include "export.h"

TW_BEGIN_DECLS

typedef enum tw_status {
    TW_OK = 0,
    TW_ERROR_ARGUMENT = 1, /* a value out of its range, a null pointer, a shape that does not fit */
    TW_ERROR_MEMORY = 2,   /* no host or device memory; the handle stays usable */
    TW_ERROR_IO = 3,       /* a file that cannot be opened, read or written */
    TW_ERROR_FORMAT = 4,   /* a file whose content is not what it claims to be */
    TW_ERROR_UNSUPPORTED = 5, /* right in itself, but nothing here can do it */
    TW_ERROR_DEVICE = 6,      /* the device or its driver failed */
    TW_ERROR_CANCELLED = 7,   /* a hook or a signal asked to stop */
    TW_ERROR_NUMERIC = 8,     /* NaN or infinity where a number is needed */
    TW_ERROR_INTERNAL = 9     /* a defect of this library */
} tw_status;

/* A short English name such as "out of memory". Never null. */
TW_API const char *tw_status_name(tw_status status);

TW_END_DECLS

#endif
