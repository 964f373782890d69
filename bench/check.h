/* Comparing what a kernel left in device memory with float64.
 *
 * The references are small and stand beside the jobs, written from kernels.h: the benchmark builds
 * alone, on a machine that has none of the library's dependencies. Their inputs are what the
 * device holds, so they are rounded to the format already. An error is given as a share of the
 * bound that the kernel tests use,
 *     eps(format) |ref| + c 2^-24 (sum of the magnitudes of the terms),
 * so that 1 is the most that a right kernel may show. */
#ifndef TWEEDIE_BENCH_CHECK_H
#define TWEEDIE_BENCH_CHECK_H

#include <stdbool.h>

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_HELD = 16, BENCH_CHECKED = 32768 };

typedef struct bench_check {
    double worst;   /* share of the bound; NaN once an output was NaN */
    double more;    /* of the terms' magnitudes, on top of the bound */
    int64_t count;  /* of elements compared */
    const char *of; /* which elements: text */
    bool failed;    /* memory or a copy from the device failed: nothing is known */
    void *held[BENCH_HELD];
    size_t n_held;
} bench_check;

/* A value and the sum of the magnitudes of the terms it is made of. */
typedef struct bench_value {
    double value, terms;
} bench_value;

/* a b; as tf32, of their ten bits of fraction. */
void bench_add_term(bench_value *sum, double a, double b, int tf32);
void bench_compare(bench_check *check, twk_format format, double got, bench_value want, double c);

/* Elements [first, first + count) of a tensor on the device, as doubles that belong to the check;
 * NULL and check->failed where that cannot be. */
double *bench_fetch(bench_check *check, twk_format format, const void *device, int64_t first,
                    int64_t count);
/* Columns [first, first + count) of a matrix [rows, width] on the device, row by row. */
double *bench_fetch_columns(bench_check *check, twk_format format, const void *device, int64_t rows,
                            int64_t width, int64_t first, int64_t count);
void *bench_fetch_bytes(bench_check *check, const void *device, size_t bytes);
double *bench_hold(bench_check *check, int64_t count); /* zeros */
/* Frees what was fetched. */
void bench_drop(bench_check *check);

/* The first and the last `each` of `total`, or all of them: up to two ranges, their number. */
typedef struct bench_range {
    int64_t first, count;
} bench_range;
int bench_ends(int64_t total, int64_t each, bench_range range[2]);

/* The noise contract in double: element of a sample's noise, seed 0. */
double bench_noise_uniform(uint64_t sample, uint32_t purpose, uint32_t step, int64_t element);
double bench_noise_normal(uint64_t sample, uint32_t purpose, uint32_t step, int64_t element);

#ifdef __cplusplus
}
#endif

#endif
