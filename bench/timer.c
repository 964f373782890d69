#include "timer.h"

#include <math.h>
#include <stdlib.h>

enum { WARM_UP = 3 };

bool bench_timer_create(bench_timer *t) {
    *t = (bench_timer){0};
    return cudaStreamCreate(&t->stream) == cudaSuccess &&
           cudaEventCreate(&t->begin) == cudaSuccess && cudaEventCreate(&t->end) == cudaSuccess;
}

void bench_timer_destroy(bench_timer *t) {
    if (t->end) cudaEventDestroy(t->end);
    if (t->begin) cudaEventDestroy(t->begin);
    if (t->stream) cudaStreamDestroy(t->stream);
    *t = (bench_timer){0};
}

int bench_calls_in_graph(double expected_seconds) {
    return expected_seconds < 10e-6 ? 128 : expected_seconds < 200e-6 ? 32 : 4;
}

static cudaGraphExec_t capture(bench_timer *t, bench_work work, bench_protocol p) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess)
        return NULL;
    bool good = true;
    for (int i = 0; i < p.inner && good; i++)
        good = work.run(work.object, p.cold ? i % work.sets : 0, t->stream);
    if (cudaStreamEndCapture(t->stream, &graph) != cudaSuccess || !graph) return NULL;
    if (!good || cudaGraphInstantiateWithFlags(&exec, graph, 0) != cudaSuccess) exec = NULL;
    cudaGraphDestroy(graph);
    return exec;
}

/* Seconds between the events around what `enqueue` did; below zero when it failed. */
static double between(bench_timer *t) {
    float ms = 0;
    if (cudaEventRecord(t->end, t->stream) != cudaSuccess ||
        cudaEventSynchronize(t->end) != cudaSuccess ||
        cudaEventElapsedTime(&ms, t->begin, t->end) != cudaSuccess)
        return NAN;
    return (double)ms * 1e-3;
}

static double sample(bench_timer *t, cudaGraphExec_t exec, int inner) {
    if (cudaEventRecord(t->begin, t->stream) != cudaSuccess ||
        cudaGraphLaunch(exec, t->stream) != cudaSuccess)
        return NAN;
    return between(t) / inner;
}

double bench_time_once(bench_timer *t, bench_work work) {
    if (cudaEventRecord(t->begin, t->stream) != cudaSuccess || !work.run(work.object, 0, t->stream))
        return NAN;
    return between(t);
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bench_times summary(double *t, int n) {
    qsort(t, (size_t)n, sizeof *t, by_value);
    const double last = n - 1;
    return (bench_times){t[lround(0.5 * last)], t[lround(0.1 * last)], t[lround(0.9 * last)], n};
}

bool bench_compare_times(bench_timer *t, bench_work a, bench_work b, bench_protocol p,
                         bench_times *ta, bench_times *tb) {
    double va[BENCH_MAX_SAMPLES], vb[BENCH_MAX_SAMPLES];
    const int n = p.samples < 1 ? 1 : p.samples < BENCH_MAX_SAMPLES ? p.samples : BENCH_MAX_SAMPLES;
    cudaGraphExec_t ga = capture(t, a, p), gb = ga ? capture(t, b, p) : NULL;
    bool good = ga && gb;
    for (int i = -WARM_UP; i < n && good; i++) {
        const double sa = sample(t, ga, p.inner), sb = sample(t, gb, p.inner);
        good = sa > 0 && sb > 0;
        if (i < 0) continue;
        va[i] = sa;
        vb[i] = sb;
    }
    if (ga) cudaGraphExecDestroy(ga);
    if (gb) cudaGraphExecDestroy(gb);
    if (!good) return false;
    *ta = summary(va, n);
    *tb = summary(vb, n);
    return true;
}
