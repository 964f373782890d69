/* Libraries that are opened at run time. */
#ifndef TW_BACKEND_CUDA_VENDOR_LIBRARY_H
#define TW_BACKEND_CUDA_VENDOR_LIBRARY_H

#include <stddef.h>

typedef struct tw_library_symbol {
    const char *name;
    size_t offset; /* of the function pointer in the table */
} tw_library_symbol;

/* Opens `file`, or without one the first of `names` (ends with NULL) that the loader finds, and
 * fills `table`. NULL, with which file and why in `why`, when that does not succeed. The library
 * stays in the process after dlclose: CUDA's libraries leave threads and exit handlers behind. */
void *tw_library_open(const char *file, const char *const *names, const tw_library_symbol *symbols,
                      int n_symbols, void *table, char *why, size_t why_bytes);

#endif
