/* Measuring rows on a GPU; built only with CUDA. */
#ifndef TWEEDIE_BENCH_MEASURE_H
#define TWEEDIE_BENCH_MEASURE_H

#include "library.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_options {
    const char *filter; /* part of the rows' names */
    const char *json;   /* file for lines of JSON, or NULL */
    bool quick;
    bool small;           /* twins of a few thousand elements: right, not fast */
    bool alone;           /* without the libraries' plans beside */
    bool compile;         /* their best engines for convolutions, too: seconds each to compile */
    size_t from;          /* the first row; not 0: the JSON goes on with it */
    unsigned row_seconds; /* what a row may take; 0: as long as it likes */
    bench_library_files files;
} bench_options;

/* Measures the rows and prints them. 0 when every row ran and was right; 1 and the reason when not;
 * 2 and a reason where there is no GPU. BENCH_STOPPED, also as the program's exit status, after a
 * line with the number of a row that took too long or lost the device: the rest is for another
 * process. */
enum { BENCH_STOPPED = 3 };
int bench_measure(const bench_row *rows, size_t count, const bench_options *options);

#ifdef __cplusplus
}
#endif

#endif
