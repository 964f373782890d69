/* What the machine gives: the header of every run. */
#ifndef TWEEDIE_BENCH_MACHINE_H
#define TWEEDIE_BENCH_MACHINE_H

#include <stdio.h>

#include "timer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Measures and prints it, also as a line of JSON where json is not NULL. `small`: little memory. */
void bench_print_machine(bench_timer *timer, bool small, FILE *json);

#ifdef __cplusplus
}
#endif

#endif
