/* A measured row as text and as a line of JSON. */
#ifndef TWEEDIE_BENCH_REPORT_H
#define TWEEDIE_BENCH_REPORT_H

#include <stdio.h>

#include "check.h"
#include "plan.h"
#include "timer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_result {
    bench_times cold, hot, copy_cold, copy_hot; /* the kernel and a device copy in turn */
    bench_times peer_cold, beside_peer;         /* the named peer and the kernel in turn */
    bool has_peer;                              /* else those two are not there */
    char peer[256];                             /* its name, or "none" and perhaps why */
    twk_launch_info info;
    bench_check check, peer_check; /* of the peer: where it is a library */
} bench_result;

/* How the kernels of a name stand to the libraries, over the rows that have such a peer. */
typedef struct bench_standing {
    const char *name;
    int rows;
    double logarithms, least;     /* of the ratios */
    char where[BENCH_SHAPE_TEXT]; /* the least is */
} bench_standing;

enum { BENCH_STANDINGS = 16 };

/* Counts a row in; the first without a name ends the array. */
void bench_count_row(const bench_row *row, const bench_result *result,
                     bench_standing standings[BENCH_STANDINGS]);
void bench_print_standings(const bench_standing standings[BENCH_STANDINGS]);

/* Whether every compared element lies within its bound. */
bool bench_is_right(const bench_check *check);
void bench_print_result(const bench_row *row, const bench_result *result, FILE *json);

#ifdef __cplusplus
}
#endif

#endif
