/* How many threads are sensible here, and whether they can be had. */
#ifndef TW_CORE_THREADS_H
#define TW_CORE_THREADS_H

#include "core/context.h"

/* Processors that this process may use (its affinity mask), at least 1. */
int tw_threads_available(void);
/* Starts as many threads beside the calling one and ends them again, unless this thread has seen it
 * done. GNU OpenMP, which starts them for good, ends the process where it cannot. */
tw_status tw_threads_try(tw_context *ctx, int threads);

#endif
