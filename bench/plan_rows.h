/* Writing the plan down: its rows by family. */
#ifndef TWEEDIE_BENCH_PLAN_ROWS_H
#define TWEEDIE_BENCH_PLAN_ROWS_H

#include "plan.h"

typedef struct bench_shape {
    int64_t n, h, w, c;
} bench_shape;

typedef struct bench_rows {
    bench_row *row;
    size_t count;
} bench_rows;

bench_row *bench_add_row(bench_rows *all, bench_kind kind, const char *name, twk_format format,
                         bench_shape shape, double bytes_per_element, const char *formula,
                         const char *limit, double percent);

/* Convolutions, matrix products, attention. */
void bench_plan_matrices(bench_rows *all);

#endif
