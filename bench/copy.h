/* The yardstick: a device copy of the same bytes, read plus write. */
#ifndef TWEEDIE_BENCH_DEVICE_COPY_H
#define TWEEDIE_BENCH_DEVICE_COPY_H

#include "memory.h"
#include "timer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bench_device_copy {
    bench_memory memory; /* from and to, set by set */
    size_t bytes;        /* each way */
    int sets;
} bench_device_copy;

/* Sets as a job of so many bytes has. False when there is no memory for them. */
bool bench_device_copy_make(double total, int max_sets, bench_device_copy *copy);
void bench_device_copy_free(bench_device_copy *copy);
bench_work bench_device_copy_work(const bench_device_copy *copy);

#ifdef __cplusplus
}
#endif

#endif
