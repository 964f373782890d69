/* What a test asks of the stand-in for the runtime. */
#ifndef TWEEDIE_TESTS_BENCH_RUNTIME_H
#define TWEEDIE_TESTS_BENCH_RUNTIME_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Device memory, streams, events and graphs that nobody has freed. */
size_t runtime_live(void);
/* The n-th call of cudaMalloc from now fails (1: the next); 0: none. */
void runtime_fail_malloc(size_t n);
/* Whether the device does nothing any more, as after a fault. */
void runtime_lose_device(int lost);
/* The stream's work never ends. */
void runtime_hang(void);
/* How many devices there are. */
void runtime_set_devices(int count);

#ifdef __cplusplus
}
#endif

#endif
