#include "cli/quantile.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cli_quantile(double *values, int64_t n, double q) {
    if (n < 1) return 0.0;
    qsort(values, (size_t)n, sizeof *values, by_value);
    const double at = q * (double)(n - 1);
    const int64_t low = (int64_t)at;
    if (low >= n - 1) return values[n - 1];
    return values[low] + (at - (double)low) * (values[low + 1] - values[low]);
}
