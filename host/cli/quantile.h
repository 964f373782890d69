/* Order statistics of measurements. */
#ifndef TW_CLI_QUANTILE_H
#define TW_CLI_QUANTILE_H

#include <stdint.h>

/* The value below which the part q of values[n] lies, linear between two of them. Sorts them. */
double cli_quantile(double *values, int64_t n, double q);

#endif
