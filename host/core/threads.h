/* How many threads are sensible here. */
#ifndef TW_CORE_THREADS_H
#define TW_CORE_THREADS_H

/* Processors that this process may use (its affinity mask), at least 1. */
int tw_threads_available(void);

#endif
