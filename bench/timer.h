/* Timing on a GPU: calls captured in a graph, between two events; A and B in turn. */
#ifndef TWEEDIE_BENCH_TIMER_H
#define TWEEDIE_BENCH_TIMER_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { BENCH_MAX_SAMPLES = 128 };

typedef struct bench_times { /* seconds a call */
    double median, p10, p90;
    int n;
} bench_times;

/* Something that can be enqueued, with several sets of buffers to choose from. */
typedef struct bench_work {
    bool (*run)(const void *object, int set, cudaStream_t stream);
    const void *object;
    int sets;
} bench_work;

typedef struct bench_timer {
    cudaStream_t stream;
    cudaEvent_t begin, end;
} bench_timer;

typedef struct bench_protocol {
    bool cold; /* sets rotate, so that none is in the cache; else set 0 each time */
    int inner; /* calls in a graph */
    int samples;
} bench_protocol;

bool bench_timer_create(bench_timer *timer);
void bench_timer_destroy(bench_timer *timer);

/* Kernels under 10 us: a hundred or more in a graph. Long ones: a few. */
int bench_calls_in_graph(double expected_seconds);

/* A and B, sample about, so that a change of clocks meets both. False when a call failed. */
bool bench_compare_times(bench_timer *timer, bench_work a, bench_work b, bench_protocol protocol,
                         bench_times *a_times, bench_times *b_times);

/* Seconds of one enqueued piece of work, or NaN: for what cannot be captured. */
double bench_time_once(bench_timer *timer, bench_work work);

#ifdef __cplusplus
}
#endif

#endif
